"""``sar-bank`` and ``sar-classify`` with photos of classes, as they are typed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.bundles import BANK_NAMES, DIM, write_bundle
from support.trained import example_statistics

from sar_infer import Classifier
from sar_infer.bank import ClassBank
from sar_infer.cli.bank import main
from sar_infer.cli.classify import main as classify

BANK = Path("mine.safetensors")
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


def run(*arguments: object, code: int = 0, command=main) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def refused(*arguments: object, command=main) -> str:
    """The one line on stderr; nothing was written."""
    before = BANK.read_bytes() if BANK.exists() else None
    result = run(*arguments, code=2, command=command)
    assert result.stdout == ""
    assert (BANK.read_bytes() if BANK.exists() else None) == before
    return result.stderr.splitlines()[-1]


def counts() -> dict[str, int]:
    return {name: len(photos) for name, photos in ClassBank.verify(BANK).photos.items()}


def best(path: str, *more: object) -> str:
    return json.loads(run(path, "--format", "jsonl", *more, command=classify).stdout)["predictions"][0]["label"]


# ------------------------------------------------------------------------------------------------------------------ add
def test_a_class_is_added_by_its_photos() -> None:
    unseen = paint("v.png", VIOLET, 99)
    assert (
        "added 'iris', added 4 photos to 'iris'" in run("add", BANK, "iris", "--photos", folder("iris", VIOLET)).stdout
    )
    assert best(unseen, "--bank", BANK) == "iris"
    assert counts() == {"iris": 4}


def test_a_folder_of_folders_adds_to_new_classes_and_to_known_ones() -> None:
    folder("root/iris", VIOLET)
    folder("root/red", ORANGE, 3)
    folder("root/.hidden", LIME)
    row = Classifier.open(os.environ["SAR_BUNDLE"]).bank.embeddings[0].tobytes()
    run("add", BANK, "--photos", "root")
    bank = ClassBank.load(BANK)
    assert (tuple(bank.names), counts()) == ((*BANK_NAMES, "iris"), {"red": 3, "iris": 4})
    assert (bank.embeddings[bank.index["red"]].tobytes(), bank.info.get("red")) == (row, None)


def test_a_folder_with_underscores_is_the_class_that_training_makes_of_it() -> None:
    run("add", BANK, "iris blue", "deep_sky")
    folder("more/iris_blue", VIOLET)
    folder("more/deep_sky", LIME)
    run("add", BANK, "--photos", "more")
    assert counts() == {"iris blue": 4, "deep_sky": 4}  # no third class: the second has that very name
    folder("calls/iris_blue", VIOLET, 2)
    found = json.loads(
        run(paint("v.png", VIOLET, 99), "--examples", "calls", "--only", "--format", "jsonl", command=classify).stdout
    )
    assert [prediction["label"] for prediction in found["predictions"]] == ["iris blue"]


def test_more_photos_and_photos_that_are_counted_already() -> None:
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET))
    paint("iris/new.png", VIOLET, 50)
    Image.open("iris/0.png").save("iris/again.bmp")  # other bytes, the same pixels
    Image.open("iris/new.png").save("iris/new-too.webp", lossless=True)
    result = run("add", BANK, "IRIS", "--photos", "iris")
    assert result.stdout.startswith("added 1 photo to 'iris'")
    assert counts() == {"iris": 5}
    assert "'iris/again.bmp' is left out: counted for it already" in result.stderr
    assert "the same pixels as iris/new" in result.stderr
    before = BANK.read_bytes()
    assert run("add", BANK, "iris", "--photos", "iris").stdout.startswith("nothing to change")
    assert BANK.read_bytes() == before


def test_options_hold_for_a_class_that_gets_more_photos_too() -> None:
    run("add", BANK, "mug = cup | beaker", "--no-lint")
    before = ClassBank.load(BANK)
    options = ("--threshold", 0.25, "--background", "--no-lint")
    result = run("add", BANK, "MUG", "--photos", folder("mug", LIME), *options)
    assert result.stdout.startswith("changed 'mug', added 4 photos to 'mug'; ")
    bank = ClassBank.load(BANK)
    assert bank.info["mug"] == dataclasses.replace(before.info["mug"], threshold=0.25, background=True)
    assert bank.embeddings.tobytes() == before.embeddings.tobytes()
    folder("root/mug", VIOLET)
    run("add", BANK, "--photos", "root", "--no-lint")
    assert ClassBank.load(BANK).info == bank.info


@pytest.mark.parametrize("arguments", [("--photos", "new"), ("violet", "--photos", "new/violet")])
def test_photos_whose_format_is_not_read_are_a_warning(arguments: tuple[str, ...]) -> None:
    Path(folder("new/violet", VIOLET), "x.HEIC").touch()
    told = run("add", BANK, *arguments).stderr
    assert told.count("Warning: left out 1 file whose format is not read (.heic)") == 1


def test_photos_only() -> None:
    run("add", BANK, "SKU-12345", "--photos", folder("sku", LIME), "--photos-only", "--strict")
    (line,) = run("list", BANK, "--long", "--like", "sku").stdout.splitlines()
    assert line.endswith("photos: 4  photos only")
    assert best(paint("x.png", LIME, 77), "--bank", BANK) == "SKU-12345"
    run("set", BANK, "SKU-12345", "--named")
    assert not ClassBank.load(BANK).photos["SKU-12345"].photos_only


def test_photos_are_removed_and_steps_taken_back() -> None:
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET))
    before = ClassBank.load(BANK)
    assert "removed 2 photos from 'iris'" in run("remove", BANK, "iris", "--photos", "iris/[01].png").stdout
    assert counts() == {"iris": 2}
    run("rollback", BANK, "--to", "1")
    assert ClassBank.load(BANK).content_digest == before.content_digest
    assert "v.png: not counted for the class 'iris'" in refused(
        "remove", BANK, "IRIS", "--photos", "iris", "--photos", paint("v.png", VIOLET, 99)
    )


def test_differences_of_photos_are_printed() -> None:
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET))
    other = Path("other.safetensors")
    other.write_bytes(BANK.read_bytes())
    run("add", other, "iris", "--photos", paint("v.png", VIOLET, 99))
    assert run("diff", BANK, other, code=1).stdout == "~ iris  photos +1\n"
    run("merge", BANK, other)
    assert run("diff", BANK, other).stdout == ""


# ------------------------------------------------------------------------------------------- it looks before it takes
def test_a_photo_far_from_the_others_is_pointed_out_by_file() -> None:
    folder("iris", VIOLET, 6)
    wrong = paint("iris/wrong.png", LIME, 3)
    assert f"'iris' photo '{wrong}' lies" in run("add", BANK, "iris", "--photos", "iris").stderr
    far = (
        r"'iris' photo 7 of 7, as added, lies [\d.]+ times as far from the other photos of its class as is usual; look"
    )
    assert re.search(far, run("lint", BANK, code=1).stdout)
    Path(wrong).unlink()
    assert "lies" not in run("add", "other.safetensors", "iris", "--photos", "iris").stderr


def test_classes_that_will_be_confused_are_pointed_out_with_the_share() -> None:
    folder("root/iris", VIOLET, 5)
    for seed in range(5):
        paint(f"root/lilac/{seed}.png", (142, 62, 222), seed + 500)
    folder("root/lime", LIME, 5)
    result = run("add", BANK, "--photos", "root", "--no-lint")
    assert "%" not in result.stderr
    findings = json.loads(run("lint", BANK, "--format", "json", code=1).stdout)
    (pair,) = [found for found in findings if found["kind"] == "confused"]
    assert {pair["name"], pair["suggestion"]} == {"iris", "lilac"}
    assert "% of the photos of either" in pair["message"]
    BANK.unlink()
    assert "nothing was added: --strict" in refused("add", BANK, "--photos", "root", "--strict")


# ------------------------------------------------------------------------------------------------------------ bad input
def test_bad_input_is_one_line_and_changes_nothing() -> None:
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET))
    Path("iris/broken.jpg").write_bytes(b"\xff\xd8\xff no photo")
    assert "iris/broken.jpg: " in refused("add", BANK, "iris", "--photos", "iris")
    Path("empty/class").mkdir(parents=True)
    assert "empty/class: a folder without images" in refused("add", BANK, "--photos", "empty")
    assert "no such file" in refused("add", BANK, "iris", "--photos", "nowhere")
    assert "one folder for each class" in refused("add", BANK, "--photos", "iris")
    paint("empty/loose.png", LIME)
    assert "empty/loose.png: lies beside" in refused("add", BANK, "--photos", "empty")
    assert "one class name" in refused("add", BANK, "a", "b", "--photos", "iris")
    run("add", BANK, "a")
    assert "sar-bank set BANK_FILE CLASS --photos-only" in refused("add", BANK, "a", "--photos-only")
    folder("root/iris", VIOLET)
    assert "such as root/iris" in refused("add", BANK, "iris", "--photos", "root")
    paint("root/loose.png", LIME)
    run("add", "all.safetensors", "iris", "--photos", "root")
    assert "'a' has no photos, so its name has to count" in refused("set", BANK, "a", "--photos-only")
    assert "one class name" in refused("remove", BANK, "a", "b", "--photos", "iris")


def test_statistics_that_are_not_sound_are_one_line(tmp_path: Path) -> None:
    from sar_infer.bundle.manifest import STATISTICS

    bundle = write_bundle(tmp_path / "fitted", trained=example_statistics())
    data = (bundle / STATISTICS).read_bytes()
    (bundle / STATISTICS).write_bytes(data[:-8] + b"\xff" * 8)
    assert STATISTICS in refused("add", BANK, "iris", "--photos", folder("iris", VIOLET), "--bundle", bundle)


def test_photos_of_a_bundle_with_statistics(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "fitted", trained=example_statistics())
    before = bundle.joinpath("bank.safetensors").read_bytes()
    run("add", BANK, "red", "--photos", folder("wrong ones", ORANGE), "--bundle", bundle)
    assert counts() == {"red": 4}
    assert bundle.joinpath("bank.safetensors").read_bytes() == before


def test_another_encoder_keeps_names_and_says_which_need_photos_again(tmp_path: Path) -> None:
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET))
    run("add", BANK, "SKU-1", "--photos", folder("sku", LIME), "--photos-only")
    other = write_bundle(tmp_path / "other", encoder_digest="f" * 64)
    Path("new.safetensors").write_bytes(BANK.read_bytes())
    result = run("rebase", "new.safetensors", "--bundle", other)
    assert "another image encoder: add the photos of these classes again: 'iris', 'SKU-1'" in result.stderr
    bank = ClassBank.load(Path("new.safetensors"))
    assert {"iris", "SKU-1"} <= set(bank.names)
    assert {name: (len(photos), photos.photos_only) for name, photos in bank.photos.items()} == {"SKU-1": (0, True)}
    run("add", "new.safetensors", "owl", "--bundle", other)
    merged = run("merge", BANK, "new.safetensors")
    assert "added 'owl'" in merged.stdout


def test_photos_come_along_to_another_prompt_on_the_same_image_encoder(tmp_path: Path) -> None:
    alike = {"images": "1" * 64}
    first, second = (
        write_bundle(tmp_path / digest, encoder_digest=digest * 64, bank_provenance=alike) for digest in "ef"
    )
    run("add", BANK, "iris", "red", "--bundle", first)
    run("add", BANK, "red", "--photos", folder("red", ORANGE), "--bundle", first)
    run("add", BANK, "iris", "--photos", folder("iris", VIOLET), "--bundle", first)
    result = run("rebase", BANK, "--bundle", second)
    assert result.stderr == ""
    assert ClassBank.verify(BANK).photos.keys() == {"iris", "red"}
    assert best(paint("v.png", VIOLET, 99), "--bank", BANK, "--bundle", second) == "iris"


# --------------------------------------------------------------------------------------------------------- sar-classify
def test_examples_of_one_call() -> None:
    folder("root/iris", VIOLET)
    folder("root/lime", LIME)
    unseen = paint("v.png", VIOLET, 99)
    assert best(unseen, "--examples", "root") == "iris"
    found = json.loads(run(unseen, "--examples", "root", "--only", "--format", "jsonl", command=classify).stdout)
    assert {one["label"] for one in found["predictions"]} == {"iris", "lime"}
    assert "--out takes no --examples" in refused(unseen, "--examples", "root", "--out", "out", command=classify)
    assert "one folder for each class" in refused(unseen, "--examples", "root/iris", command=classify)


def test_examples_that_the_bank_counts_already_change_nothing() -> None:
    run("add", BANK, "iris", "--photos", folder("root/iris", VIOLET))
    unseen = paint("v.png", VIOLET, 99)
    alone = run(unseen, "--bank", BANK, "--format", "jsonl", command=classify).stdout
    both = json.loads(run(unseen, "--bank", BANK, "--examples", "root", "--format", "jsonl", command=classify).stdout)
    one, two = ({p["label"]: p["score"] for p in found["predictions"]} for found in (json.loads(alone), both))
    assert one == pytest.approx(two, abs=1e-5)


def test_python_takes_the_same_photos() -> None:
    classifier = Classifier.open(os.environ["SAR_BUNDLE"])
    paths = sorted(str(path) for path in Path(folder("iris", VIOLET)).iterdir())
    photos = classifier.embed_photos([*paths, paths[0]])
    assert (len(photos), photos.rows.shape) == (4, (4, DIM))
    np.testing.assert_allclose(photos.rows, classifier.embed_images(paths), atol=1e-6)
    classes = classifier.class_set(photos={"iris": photos})
    (result,) = classifier.stream([paint("v.png", VIOLET, 99)], classes)
    assert result.predictions[0].label == "iris"
