from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.bundles import BANK_NAMES, ENCODER_DIGEST, name_rows, write_bundle
from support.pictures import encoded, huge_png
from support.precisions import add_precision
from support.trained import example_trained

from sar_infer import Classifier, __version__
from sar_infer.bank import ClassBank
from sar_infer.cli.classify import main

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "sar_infer.cli.classify"]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.fixture
def folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two good photos and a bad one."""
    Path("photos").mkdir()
    PICTURE.save("photos/a.jpg")
    PICTURE.rotate(90).save("photos/b.png")
    Path("bad.jpg").write_bytes(b"not an image")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return here


def run(*arguments: str, **settings) -> Result:
    """In this process; an exception that reaches the user as a traceback fails the test."""
    result = CliRunner().invoke(main, arguments, **settings)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    return result


def process(*arguments: str, **settings) -> subprocess.CompletedProcess[str]:
    """As from a shell, in the working folder."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run([*COMMAND, *arguments], text=True, timeout=60, **streams | settings)


def refused(result: Result, message: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr."""
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    (line,) = result.stderr.splitlines()
    assert re.search(message, line), line


def objects(result: Result) -> list[dict]:
    return [json.loads(line) for line in result.stdout.splitlines()]


# ------------------------------------------------------------------------------------------------- what it is there for
def test_jsonl_in_input_order(folder: Path) -> None:
    Path("new.txt").write_text("owl\nred\nzebra = zebra | striped horse\n")
    result = run("photos/b.png", "bad.jpg", "photos", "--classes", "new.txt", "--format", "jsonl", "--top-k", "9")
    assert (result.exit_code, result.stderr) == (1, "1 of 4 images could not be read; see the error of each\n")
    lines = objects(result)
    assert [Path(line["image"]).name for line in lines] == ["b.png", "bad.jpg", "a.jpg", "b.png"]
    assert lines[1]["predictions"] == []
    assert lines[1]["error"].startswith("not an image")
    for line in (lines[0], lines[2]):
        assert set(line) == {"image", "predictions", "error", "unknown"}
        assert line["error"] is None
        assert {p["label"]: p["source"] for p in line["predictions"]} == {
            **dict.fromkeys(BANK_NAMES, "bank"), "owl": "extended", "zebra": "extended"
        }  # fmt: skip
        assert set(line["predictions"][0]) == {"label", "score", "logit", "similarity", "source"}
        assert sum(p["score"] for p in line["predictions"]) == pytest.approx(1, abs=1e-5)
    only = objects(run("photos/a.jpg", "--classes", "new.txt", "--only", "--format", "jsonl"))[0]["predictions"]
    assert {p["label"]: p["source"] for p in only} == {"owl": "extended", "red": "bank", "zebra": "extended"}


def test_text_csv_and_json(folder: Path) -> None:
    first, unknown, *rest = run("photos/a.jpg", "--top-k", "2").stdout.splitlines()
    assert (first, len(rest)) == ("photos/a.jpg", 2)
    assert re.fullmatch(r" +\d+\.\d% unknown", unknown)
    assert re.fullmatch(r" +\d+\.\d% [█·]{24}   (red|green|blue|grey thing)", rest[0])
    rows = list(csv.DictReader(run("photos", "--format", "csv").stdout.splitlines()))
    results = json.loads(run("photos", "--format", "json").stdout)
    assert [row["label"] for row in rows] == [p["label"] for result in results for p in result["predictions"]]
    assert len(rows) == 8


def test_bad_images_are_reported_and_the_rest_go_on(folder: Path) -> None:
    bad = {
        "empty": (b"", "empty file"),
        "truncated": (encoded(PICTURE, "JPEG")[:-400], "cannot be read: image file is truncated"),
        "large": (huge_png(10_000, 9_000), "too large: 10000 x 9000"),
    }
    for name, (data, _) in bad.items():
        Path(f"{name}.jpg").write_bytes(data)
    names = [*(f"{name}.jpg" for name in bad), "nowhere.jpg"]
    result = run("photos/a.jpg", *names, "photos/b.png", "--format", "jsonl")
    first, *failed, last = objects(result)
    assert first["predictions"] and last["predictions"]
    assert [line["image"] for line in failed] == names
    for line, error in zip(failed, [*(error for _, error in bad.values()), "no such file"], strict=True):
        assert line["error"].startswith(error)
    assert (result.exit_code, result.stderr) == (1, "4 of 6 images could not be read; see the error of each\n")
    assert "nowhere.jpg\n  error: no such file\n" in run("nowhere.jpg", "photos/b.png").stdout


def test_photos_whose_format_is_not_read_are_a_warning(folder: Path) -> None:
    Path("photos/c.jxl").touch()
    result = run("photos", "--format", "jsonl")
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.startswith("Warning: left out 1 file whose format is not read (.jxl), such as ")


def test_standard_input(folder: Path) -> None:
    result = run("-", "--format", "jsonl", input=encoded(PICTURE, "PNG"))
    assert (result.exit_code, objects(result)[0]["image"]) == (0, "-")
    assert run("-", input=b"").exit_code == 1


def test_profile_goes_to_stderr(folder: Path) -> None:
    Path("new.txt").write_text("owl\n")
    result = run("photos", "--classes", "new.txt", "--profile", "--format", "jsonl")
    assert len(objects(result)) == 2
    assert result.stderr.startswith("runs on CPUExecutionProvider\n")
    phases = re.findall(r"^(\w+) +[\d.]+ ms$", result.stderr, re.MULTILINE)
    assert phases == ["open", "names", "decode", "encode", "score"]


def test_options_have_environment_variables(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("new.txt").write_text("owl\nemu\n")
    twins = {"CLASSES": "new.txt", "ONLY": "1", "TOP_K": "1", "CLASSIFY_FORMAT": "jsonl", "BATCH_SIZE": "1"}
    for name, value in {**twins, "THREADS": "1", "FORMAT": "json"}.items():  # the last is for other commands
        monkeypatch.setenv(f"SAR_{name}", value)
    assert [len(line["predictions"]) for line in objects(run("photos"))] == [1, 1]
    help_text = run("-h").stdout
    assert "IMAGE..." in help_text
    assert run("--version").stdout == f"sar-classify, version {__version__}\n"


# ----------------------------------------------------------------------------------------------------------- confidence


def test_unknown_sets_and_reasons(folder: Path, tmp_path: Path) -> None:
    bundle = str(write_bundle(tmp_path / "trained", trained=example_trained(unknown=np.zeros((1, 2)))))
    arguments = ("photos/a.jpg", "--bundle", bundle, "--format", "jsonl")
    (plain,) = objects(run(*arguments))
    assert 0 < plain["unknown"] < 1 and "reason" not in plain
    (doubted,) = objects(run(*arguments, "--unknown", "--coverage", "0.9", "--explain", "--top-k", "1"))
    assert (doubted["predictions"], doubted["unknown"]) == ([], plain["unknown"])
    assert re.fullmatch(r"probability 0\.\d{3} is above 0\.000", doubted["reason"])
    assert set(doubted["label_set"]) <= set(BANK_NAMES)
    assert doubted["explanation"]["runner_up"] == plain["predictions"][1]["label"]
    assert objects(run(*arguments, "--unknown", "--threshold", "1")) == [plain]
    shown = run("photos/a.jpg", "--bundle", bundle, env={"SAR_UNKNOWN": "1"}).stdout.splitlines()
    assert re.fullmatch(r"  unknown: probability 0\.\d{3} is above 0\.000", shown[1]) and len(shown) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--unknown --format csv", "no threshold is known here; fit the class model .*, or give a threshold"),
        ("--coverage 0.9", "needs a class model from four classes or more"),
        ("--coverage 1.5", "between 0 and 1, got 1.5"),
        ("--threshold 0.5", "a threshold is for unknown"),
        ("--unknown --threshold nan", "expected a probability"),
        ("--unknown --threshold 2", "expected a probability, 0 to 1, got 2"),
    ],
)
def test_confidence_that_cannot_be_had_is_refused_before_anything_is_printed(
    folder: Path, options: str, message: str
) -> None:
    refused(run("photos", *options.split()), message)


def test_several_banks_rank_each_image_by_one_encoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, classes in (("shop", ("mug", "cup")), ("zoo", ("okapi", "gnu", "lion"))):
        ClassBank.of(classes, name_rows(classes), ENCODER_DIGEST).save(Path(f"{name}.safetensors"))
    shop, zoo = ("--bank", "shop.safetensors"), ("--bank", "zoo.safetensors")
    call, alone = ("photos", "bad.jpg", "--top-k", "2"), {}
    for bank in (shop, zoo):
        alone[bank[1][:-12]] = objects(run(*call, *bank, "--format", "jsonl"))
    encoded_images: list[int] = []
    encode = Classifier.embed_inputs
    monkeypatch.setattr(
        Classifier, "embed_inputs", lambda self, pixels: encoded_images.append(len(pixels)) or encode(self, pixels)
    )
    together = objects(run(*call, *shop, *zoo, "--format", "jsonl"))
    assert sum(encoded_images) == 2
    assert [line["error"] is None for line in together] == [True, True, False]
    for number, line in enumerate(together[:2]):
        assert line["banks"] == {
            name: {k: own[number][k] for k in ("predictions", "unknown")} for name, own in alone.items()
        }
    rows = list(csv.DictReader(run(*call, *shop, *zoo, "--format", "csv").stdout.splitlines()))
    assert [row["bank"] for row in rows] == ["shop", "shop", "zoo", "zoo"] * 2 + [""]
    text = run(*call, *shop, *zoo).stdout
    assert text.index("  shop:\n") < text.index("mug") < text.index("  zoo:\n")
    for form in ("parquet", "jsonl"):
        assert run(*call, *shop, *zoo, "--out", form, "--workers", "1", "--format", form).exit_code == 1
        rows = pq.read_table(form).to_pylist() if form == "parquet" else [
            json.loads(line) for part in Path(form).glob("part-*") for line in part.read_text().splitlines()
        ]  # fmt: skip
        assert list(rows[0]) == ["key", "shop", "zoo", "error", "error_kind"]
        assert [row["error"] is None for row in rows] == [True, True, False]
        for number, row in enumerate(rows[:2]):
            for name, own in alone.items():
                best = own[number]["predictions"]
                assert row[name]["labels"] == [one["label"] for one in best]
                assert row[name]["score"] == pytest.approx(best[0]["score"], abs=1e-6)
        assert rows[2]["shop"] is None
    changed = run(*call, *zoo, *shop, "--out", "jsonl", "--resume", "--format", "jsonl")
    refused(changed, "written with other settings")


def test_several_banks_need_names_of_their_own(folder: Path) -> None:
    Path("other").mkdir()
    for path in ("shop.safetensors", "other/shop.safetensors", "error.safetensors"):
        ClassBank.of(("mug",), name_rows(("mug",)), ENCODER_DIGEST).save(Path(path))
    two = ("photos", "--bank", "shop.safetensors", "--bank")
    refused(run(*two, "other/shop.safetensors"), "two banks are named shop; rename one file")
    refused(run(*two, "error.safetensors", "--out", "o", "--format", "jsonl"), "a bank cannot be named error")
    refused(run(*two, "error.safetensors", "--evaluate"), "--evaluate takes one --bank at most")
    refused(run(*two, "none.safetensors"), "none.safetensors: no such bank file")


# ----------------------------------------------------------------------------------------------------------- precisions
def test_a_precision_is_chosen_by_option_or_environment(folder: Path, bundle_copy: Path) -> None:
    refused(run("photos/a.jpg", "--precision", "int8"), r"precision int8: this bundle has fp32; sar-bundle shrink")
    add_precision(bundle_copy)
    arguments = ("photos/a.jpg", "--bundle", str(bundle_copy), "--format", "json")

    def similarities(*more: str, **settings) -> list[float]:
        (result,) = json.loads(run(*arguments, *more, **settings).stdout)
        return sorted(prediction["similarity"] for prediction in result["predictions"])

    full, small = similarities(), similarities("--precision", "int8")
    assert full == similarities("--precision", "fp32") != small
    assert small == similarities(env={"SAR_PRECISION": "int8"})


def test_int8_on_a_processor_without_vnni_is_warned_of_once(
    folder: Path, bundle_copy: Path, cpu: Callable[..., Path]
) -> None:
    add_precision(bundle_copy, processor="x86-64 with VNNI")
    call = ("photos/a.jpg", "photos/b.png", "--bundle", str(bundle_copy), "--precision", "int8")
    cpu("flags : avx2 avx512_vnni")
    assert run(*call).stderr == ""
    cpu("flags : avx2")
    for output in ((), ("--out", "answers", "--workers", "1")):
        (line,) = [line for line in run(*call, *output).stderr.splitlines() if line.startswith("Warning: ")]
        assert "no VNNI" in line
        assert "measured on x86-64 with VNNI" in line


# --------------------------------------------------------------------------------- refused before any work, exit code 2
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "no image given"),
        ("nowhere.jpg neither.jpg", "nowhere.jpg: no such file or folder"),
        ("photos/a.jpg empty", "empty: a folder without images"),
        ("photos/a.jpg *.webp", r"\*\.webp: matches nothing"),
        ("https://a.example/b.jpg", "https is not fetched; download it"),
        ("photos/a.jpg --only", "--only and --extend need --classes"),
        ("photos/a.jpg --classes=", "--classes: expected a value, got an empty text"),
        ("photos/a.jpg --out=", "--out: expected a value, got an empty text"),
        ("photos/a.jpg --classes none.txt", "none.txt: no such class file; expected a text file with one name a line"),
        ("photos/a.jpg --classes long.txt", r"long\.txt:2: class name 'xxx.*…' is too long: \d+ tokens, 18 fit"),
        ("photos/a.jpg --bundle none", "none: no such folder"),
        ("photos/a.jpg --bank none", "none: no such bank file"),
        ("photos/a.jpg --bank bad.jpg", "bad.jpg: not a bank file"),
        ("photos/a.jpg --bank other", f"expected {ENCODER_DIGEST[:8]}, the bank has ffffffff"),
    ],
)
def test_refusals(folder: Path, arguments: str, message: str) -> None:
    Path("empty").mkdir()
    Path("long.txt").write_text(f"cat\n{'x' * 500}\n")
    ClassBank.of(("owl",), name_rows(["owl"]), "f" * 64).save(Path("other"))
    refused(run(*arguments.split()), message)


# --------------------------------------------------------------------------------------------------------- as a process
@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_ctrl_c_ends_a_decoder_that_hangs(folder: Path) -> None:
    """In a thread, in C, without letting go of Python's lock."""
    program = """
import ctypes, os
from sar_infer.images import prefetch as decoding
from sar_infer.cli.classify import main

def hangs(*_, **__):
    os.write(1, b"hangs\\n")
    ctypes.PyDLL(None).pause()

decoding.decode_image = hangs
main()
"""
    command = [sys.executable, "-c", program, "photos", "--format", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        try:
            assert running.stdout.readline() == "hangs\n"
            running.send_signal(signal.SIGINT)
            assert running.wait(60) == -signal.SIGINT
        finally:
            running.kill()


@pytest.mark.skipif(os.name != "posix", reason="needs its processes")
def test_standard_input_that_is_closed_is_refused(folder: Path) -> None:
    done = process("-", preexec_fn=lambda: os.close(0))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: -: standard input cannot be read: it is closed\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["photos --format jsonl", "photos"])
def test_a_full_disk_is_one_line(folder: Path, arguments: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = process(*arguments.split(), stdout=full)
    assert (done.returncode, done.stderr) == (1, "Error: stdout: cannot be written (No space left on device)\n")


def test_a_closed_pipe_is_no_accident(folder: Path) -> None:
    for index in range(200):
        (folder / "photos" / f"{index}.png").write_bytes(Path("photos/b.png").read_bytes())
    command = f"'{sys.executable}' -m sar_infer.cli.classify photos --format jsonl --batch-size 1 | head -n 1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert (len(done.stdout.splitlines()), done.stderr) == (1, "")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("count", "shown"), [(40, True), (4, False)])
def test_progress_shows_on_a_terminal_when_there_is_much_to_do(folder: Path, count: int, shown: bool) -> None:
    import pty

    for index in range(count - 2):
        (folder / "photos" / f"{index}.png").write_bytes(Path("photos/b.png").read_bytes())
    reader, terminal = pty.openpty()
    done = process("photos", "--format", "jsonl", stderr=terminal)
    os.write(terminal, b"end")
    errors = b""
    while not errors.endswith(b"end"):  # a terminal may pass on what was written in parts
        errors += os.read(reader, 65536)
    assert len(done.stdout.splitlines()) == count
    assert (b"Classifying" in errors) == shown
    os.close(reader)
    os.close(terminal)


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_odd_names_on_a_plain_terminal(folder: Path, form: str) -> None:
    """File and class names outside the locale's encoding are escaped for people, and UTF-8 for programs."""
    Path("日本.png").write_bytes(Path("photos/b.png").read_bytes())
    Path("new.txt").write_text("フクロウ\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "1"}
    done = process("日本.png", "--classes", "new.txt", "--only", "--format", form, env=environment, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert ("フクロウ" if form == "jsonl" else r"\u65e5") in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems refuse such names")
def test_a_file_name_that_is_not_text(folder: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    Path(name).write_bytes(Path("photos/b.png").read_bytes())
    done = process(".", "--format", "jsonl")
    images = [json.loads(line)["image"] for line in done.stdout.splitlines()]
    assert name in images
    assert done.stderr == f"1 of {len(images)} images could not be read; see the error of each\n"  # bad.jpg
