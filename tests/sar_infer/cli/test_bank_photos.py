"""``sar-bank`` and ``sar-classify`` with photos of classes, as they are typed."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bank_commands import BANK, Command, content
from support.bundles import BANK_NAMES, write_bundle
from support.trained import example_trained

from sar_infer.bank import ClassBank
from sar_infer.bundle.manifest import CLASS_MODEL
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as sar_classify

run, classify = Command(main), Command(sar_classify)
VIOLET, LIME, ORANGE = (140, 60, 220), (120, 230, 40), (240, 140, 20)

pytestmark = pytest.mark.usefixtures("here")


def paint(path: str, colour: tuple[int, int, int], seed: int = 0) -> str:
    """Write a photo whose mean colour is near this one, in one of six directions; each seed is another photo."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.tile(np.array(colour), (32, 32, 1))
    pixels[:, :, seed % 3] += 6 if seed % 6 < 3 else -6
    pixels[seed % 32, seed // 32 % 32] -= 1
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def folder(name: str, colour: tuple[int, int, int], count: int = 4) -> str:
    for seed in range(count):
        paint(f"{name}/{seed}.png", colour, seed)
    return name


def counts() -> dict[str, int]:
    return {name: len(photos) for name, photos in ClassBank.load(BANK).photos.items()}


def best(*arguments: object) -> str:
    """Return the first answer for a photo of violet."""
    (image,) = classify.answers(paint("v.png", VIOLET, 99), *arguments)
    return image["predictions"][0]["label"]


# ------------------------------------------------------------------------------------------------------------------ add
def test_photos_are_added_to_a_class_and_each_counts_once() -> None:
    added = run("add", BANK, "iris", "--photos", folder("iris", VIOLET)).stdout
    assert added.startswith("added 'iris', added 4 photos to 'iris'")
    assert best("--bank", BANK) == "iris"
    paint("iris/new.png", VIOLET, 50)
    Image.open("iris/0.png").save("iris/again.bmp")  # other bytes, the same pixels
    Image.open("iris/new.png").save("iris/new-too.webp", lossless=True)
    result = run("add", BANK, "IRIS", "--photos", "iris")
    assert result.stdout.startswith("added 1 photo to 'iris'")
    assert counts() == {"iris": 5}
    assert "'iris/0.png' is left out: counted for it already" in result.stderr
    assert "'iris/again.bmp' is left out: the same pixels as iris/0.png" in result.stderr
    assert "the same pixels as iris/new" in result.stderr
    before = content()
    assert run("add", BANK, "iris", "--photos", "iris").stdout.startswith("nothing to change")
    assert content() == before


def test_the_examples_of_the_help() -> None:
    for path in ("1.jpg", "2.jpg", "hats/3.jpg"):
        paint(path, VIOLET, ord(path[-5]))
    folder("photos/mug", LIME)
    examples = [line.split()[1:] for line in run("add", "--help").stdout.splitlines() if "  sar-bank add " in line]
    for words in examples:
        run(*words)
    bank = ClassBank.load(Path(examples[0][1]))
    assert {name: len(photos) for name, photos in bank.photos.items()} == {"hat": 3, "mug": 4}


def test_a_path_is_no_class_name() -> None:
    path = folder("new photos/hat", VIOLET)
    line = run.refused("add", BANK, path)
    assert line.startswith("Error: new photos/hat is a folder; to add photos: sar-bank add mine.safetensors CLASS")
    words = shlex.split(line.partition("sar-bank ")[2])
    run(*("hat" if word == "CLASS" else word for word in words))
    assert counts() == {"hat": 4}
    assert f"{path}/0.png is a file" in run.refused("add", BANK, "mug", f"{path}/0.png")
    folder("mug", LIME)
    run("add", BANK, "mug", "and/or")
    assert ClassBank.load(BANK).names[-2:] == ("mug", "and/or")


def test_a_folder_of_folders_adds_to_new_classes_and_to_old_ones() -> None:
    run("add", BANK, "deep_sky")
    folder("root/iris_blue", VIOLET)
    folder("root/deep_sky", LIME)
    folder("root/red", ORANGE, 3)
    folder("root/.hidden", LIME)
    before = ClassBank.load(BANK)
    run("add", BANK, "--photos", "root")
    bank = ClassBank.load(BANK)
    assert tuple(bank.names) == (*BANK_NAMES, "deep_sky", "iris blue")  # as training reads the folder's name
    assert counts() == {"red": 3, "deep_sky": 4, "iris blue": 4}
    np.testing.assert_array_equal(bank.embeddings[:5], before.embeddings)
    assert bank.entry("red").added is None


def test_options_hold_for_a_class_that_gets_more_photos_too() -> None:
    run("add", BANK, "mug = cup | beaker")
    before = ClassBank.load(BANK)
    options = ("--threshold", 0.25, "--background")
    result = run("add", BANK, "MUG", "--photos", folder("mug", LIME), *options)
    assert result.stdout.startswith("changed 'mug', added 4 photos to 'mug'; ")
    bank = ClassBank.load(BANK)
    mug = bank.entry("mug")
    assert (mug.texts, mug.threshold, mug.background) == (("cup", "beaker"), 0.25, True)
    assert bank.embeddings.tobytes() == before.embeddings.tobytes()
    folder("root/mug", VIOLET)
    run("add", BANK, "--photos", "root")
    assert ClassBank.load(BANK).entry("mug").threshold == 0.25


def test_photos_only() -> None:
    run("add", BANK, "SKU-12345", "--photos", folder("sku", VIOLET), "--photos-only", "--strict")
    (line,) = run("list", BANK, "--long", "--like", "sku").stdout.splitlines()
    assert line.endswith("photos: 4  photos only")
    run("set", BANK, "SKU-12345", "--named")
    assert not ClassBank.load(BANK).photos["SKU-12345"].photos_only


def test_photos_are_forgotten_for_good() -> None:
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET))
    stdout = run("remove", BANK, "iris", "--photos", "iris/[01].png").stdout
    assert stdout == "removed 2 photos from 'iris'; 5 classes; this cannot be undone\n"
    run("rollback", BANK, "--to", "1")
    assert counts() == {"iris": 2}
    stranger = paint("w.png", VIOLET, 98)
    line = run.refused("remove", BANK, "IRIS", "--photos", "iris/3.png", "--photos", stranger)
    assert "w.png: not counted for the class 'IRIS'" in line


def test_a_photo_teaches_one_class_and_moves_to_another() -> None:
    run("add", BANK, "--photos", folder("labelled/iris", VIOLET).split("/")[0])
    run("add", BANK, "lime", "--photos", folder("lime", LIME))
    moved = run.report("add", BANK, "lime", "--photos", "labelled/iris/0.png", "--photos", paint("new.png", LIME, 50))
    assert moved["summary"] == "added 1 photo to 'lime', moved 1 photo from 'iris' to 'lime'"
    assert moved["moved"] == [{"photo": "labelled/iris/0.png", "from": "iris"}]
    assert counts() == {"iris": 3, "lime": 6}
    rows = run.report("list", BANK, "lime", "--photos")
    assert [row["by"] for row in rows] == ["sar-bank add"] * 6
    digest = ClassBank.load(BANK).photos_of("lime").digests[-2]
    assert rows[-2]["digest"] == digest.hex()
    line = run("move", BANK, digest.hex(), "new.png", "--to", "iris").stdout
    assert line.startswith("moved 2 photos from 'lime' to 'iris'; ")
    assert run("move", BANK, digest.hex(), "--to", "iris").stdout.startswith("nothing to change: 'iris' has these")
    assert run("undo", BANK).stdout.startswith("took back step 4; as after step 3; ")
    assert counts() == {"iris": 3, "lime": 6}
    assert "no class of the bank has this photo" in run.refused("move", BANK, paint("w.png", LIME, 98), "--to", "lime")
    assert "no class 'rose'" in run.refused("move", BANK, "new.png", "--to", "rose")
    assert "sar-bank list BANK_FILE CLASS --photos" in run.refused("list", BANK, "lime")
    run("remove", BANK, "lime", "--photos", "labelled/iris/0.png")  # of iris, in whose earlier states it was, too
    assert digest not in Path(BANK).read_bytes()


# ----------------------------------------------------------------------------------------------------------- findings
def test_a_photo_in_the_wrong_class_is_reported_by_file_and_with_the_class_that_it_resembles() -> None:
    folder("root/iris", VIOLET, 6)
    folder("root/lime", LIME, 6)
    assert run("add", BANK, "--photos", "root").stderr.count("Warning") == 0
    wrong = paint("odd/wrong.png", LIME, 9)
    line = run.refused("add", BANK, "iris", "--photos", wrong, "--strict")
    assert "Error: nothing was changed: --strict, and 1 of 1 photos looks like another class: odd/wrong.png" in line
    page = Path("mine-labels.html")
    assert "wrong.png" in page.read_text("utf-8")
    page.unlink()
    result = run("add", BANK, "iris", "--photos", wrong, "--format", "json")
    assert "odd/wrong.png (like 'lime'); page: mine-labels.html" in result.stderr
    (issue,) = json.loads(result.stdout)["label_issues"]
    assert (issue["photo"], issue["label"], issue["suggested"]) == (wrong, "iris", "lime")
    assert issue["probability"] < 0.1
    assert page.is_file()


def test_create_leaves_out_the_photos_of_a_list() -> None:
    for name, colour in (("iris", VIOLET), ("lime", LIME), ("orange", ORANGE)):
        folder(f"root/{name}", colour, 6)
    wrong = paint("root/iris/wrong.png", LIME, 9)
    Image.open("root/lime/0.png").save("root/orange/twice.png")
    line = run.refused("create", "shop.safetensors", "--photos", "root", "--strict")
    assert "2 of 20 photos look like another class" in line
    assert line.endswith("1 photo in two classes; page: shop-labels.html")
    assert not Path("shop.safetensors").exists()
    made = run("create", "shop.safetensors", "--photos", "root", "--format", "json")
    assert {one["photo"] for one in json.loads(made.stdout)["label_issues"]} == {wrong, "root/orange/twice.png"}
    Path("labels.csv").write_text(f"class,photo,action,to\niris,{wrong},drop,\norange,root/orange/twice.png,drop,\n")
    made = run("create", "other.safetensors", "--photos", "root", "--exclude", "labels.csv", "--strict")
    assert made.stdout.startswith("made other.safetensors: 3 classes, 18 photos")
    assert "left out 2 of 2 photos in labels.csv\n" in made.stderr
    Path("typed.txt").write_text("lime/0.png\n")  # not root/lime/0.png
    typed = run("create", "typed.safetensors", "--photos", "root", "--exclude", "typed.txt").stderr
    assert f"left out 0 of 1 photos in typed.txt; not among the photos: {Path('lime/0.png').absolute()}\n" in typed
    Path("all.txt").write_text("\n".join(map(str, Path("root/lime").iterdir())))
    for exclude, message in (("all.txt", "leaves no photo of class 'lime'"), ("none.txt", "none.txt: cannot be read")):
        assert message in run.refused("create", "more.safetensors", "--photos", "root", "--exclude", exclude)


# ------------------------------------------------------------------------------------------------------------ bad input
def test_bad_input_is_one_line_and_changes_nothing() -> None:
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET))
    run("add", BANK, "a")
    Path("iris/broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    Path("empty/class").mkdir(parents=True)
    paint("beside/loose.png", LIME)
    folder("beside/iris", VIOLET)
    folder("root/iris", VIOLET)
    damaged = write_bundle(Path("damaged"), trained=example_trained())
    (damaged / CLASS_MODEL).write_bytes((damaged / CLASS_MODEL).read_bytes()[:-8] + b"\xff" * 8)
    for arguments, message in (
        (("add", BANK, "iris", "--photos", "iris"), "iris/broken.jpg: "),
        (("add", BANK, "iris", "--photos", "nowhere"), "no such file"),
        (("add", BANK, "iris", "--photos", "root"), "such as root/iris"),
        (("add", BANK, "iris", "--photos", "iris", "--bundle", damaged), CLASS_MODEL),
        (("add", BANK, "--photos", "empty"), "empty/class: a folder without images"),
        (("add", BANK, "--photos", "iris"), "one folder for each class"),
        (("add", BANK, "--photos", "beside"), "beside/loose.png: lies next to the class folders"),
        (("add", BANK, "a", "b", "--photos", "iris"), "one class name"),
        (("add", BANK, "a", "--photos-only"), "sar-bank set BANK_FILE CLASS --photos-only"),
        (("set", BANK, "a", "--photos-only"), "'a' has no photos, so its name is needed"),
        (("remove", BANK, "a", "b", "--photos", "iris"), "--photos needs one class"),
    ):
        assert message in run.refused(*arguments)
    run("add", BANK, "iris", "--photos", "beside")  # with a class given, only its own photos count
    assert counts() == {"iris": 5}


# -------------------------------------------------------------------------------------------------------- other bundles
def test_photos_wait_for_their_encoder_and_come_along_to_another_prompt() -> None:
    e1, g3 = (write_bundle(Path(word), encoder_digest=word[0] * 64, images="1" * 64) for word in ("e1", "g3"))
    f2 = write_bundle(Path("f2"), encoder_digest="f" * 64, images="2" * 64)
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET), "--bundle", e1)
    assert "the photos of 1 class wait in the file" in run("carry", BANK, "--bundle", f2).stderr
    assert counts() == {}
    run("carry", BANK, "--bundle", e1)
    assert counts() == {"iris": 4}
    assert run("carry", BANK, "--bundle", g3).stderr == ""
    assert counts() == {"iris": 4}
    assert best("--bank", BANK, "--bundle", g3) == "iris"


# --------------------------------------------------------------------------------------------------------- sar-classify
def test_examples_of_one_call() -> None:
    folder("root/iris_blue", VIOLET)
    folder("root/lime", LIME)
    assert best("--examples", "root") == "iris blue"
    (image,) = classify.answers("v.png", "--examples", "root")  # exactly these classes
    assert {prediction["label"] for prediction in image["predictions"]} == {"iris blue", "lime"}
    for arguments, message in (
        (("--examples", "root", "--out", "out"), "--out takes no --examples"),
        (("--examples", "root/lime"), "one folder for each class"),
    ):
        assert message in classify.refused("v.png", *arguments)
