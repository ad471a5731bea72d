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
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, name_rows, reseal
from support.pictures import encoded, huge_png
from support.precisions import add_precision

from sar_infer import __version__
from sar_infer.bank import ClassBank
from sar_infer.cli.classify import main
from sar_infer.encoders import sessions
from sar_infer.storage import READER_VERSION

ROOT = Path(__file__).parents[3]
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


@pytest.fixture
def folder(here: Path) -> Path:
    """A working folder with two good photos and a bad one."""
    Path("photos").mkdir()
    PICTURE.save("photos/a.jpg")
    PICTURE.rotate(90).save("photos/b.png")
    Path("bad.jpg").write_bytes(b"not an image")
    return here


def run(*arguments: str, **settings) -> Result:
    """In this process; an exception that reaches the user as a traceback fails the test."""
    result = CliRunner().invoke(main, arguments, **settings)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.stderr
    return result


def process(*arguments: str, **settings) -> subprocess.CompletedProcess[str]:
    """In a process of its own, as from a shell, in the working folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **settings.pop("env", {})}
    command = [sys.executable, "-m", "sar_infer.cli.classify", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, **settings)


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
        assert set(line) == {"image", "predictions", "error", "branch"}
        assert line["error"] is None
        assert {p["label"]: p["source"] for p in line["predictions"]} == {
            **dict.fromkeys(BANK_NAMES, "bank"), "owl": "extended", "zebra": "extended"
        }  # fmt: skip
        assert set(line["predictions"][0]) == {"label", "score", "logit", "similarity", "source", "calibration"}
        assert sum(p["score"] for p in line["predictions"]) == pytest.approx(1, abs=1e-5)


@pytest.fixture
def calibrated(folder: Path, bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle of the folder, with a temperature and all that goes with it."""
    reseal(
        bundle_copy,
        temperature=2.0,
        thresholds={"score": 0.999, "energy": 1000.0},
        conformal={"0.9": 0.0},
        calibrated=BANK_NAMES,
    )
    monkeypatch.setenv("SAR_BUNDLE", str(bundle_copy))
    return folder


def test_unknown_sets_and_reasons(calibrated: Path) -> None:
    (plain,) = objects(run("photos/a.jpg", "--format", "jsonl"))
    assert plain.keys() == {"image", "predictions", "error", "branch"}
    assert all(p["calibration"] == "held-out" for p in plain["predictions"])
    (found,) = objects(
        run("photos/a.jpg", "--unknown", "--coverage", "0.9", "--explain", "--format", "jsonl", "--top-k", "1")
    )
    assert found["unknown"] is True
    assert re.fullmatch(r"score 0\.\d{3} is below 0\.999", found["reason"])
    assert set(found["label_set"]) == set(BANK_NAMES)
    assert found["explanation"]["runner_up"] == plain["predictions"][1]["label"]
    assert found["predictions"] == plain["predictions"][:1]
    for option in ("--unknown --unknown-by energy", "--unknown-by energy", "--unknown --threshold=0"):
        (known,) = objects(run(*option.split(), "photos/a.jpg", "--format", "jsonl"))
        assert (known["unknown"], known["reason"]) == (False, None)
    for name, value in (("SAR_UNKNOWN", "1"), ("SAR_UNKNOWN_BY", "score")):
        assert (
            CliRunner()
            .invoke(main, ["photos/a.jpg"], env={name: value})
            .stdout.splitlines()[1]
            .startswith("  unknown: score ")
        )
    shown = run("--unknown", "photos/a.jpg").stdout.splitlines()
    assert re.fullmatch(r"  unknown: score .* is below 0\.999; best guesses:", shown[1])


def test_added_names_are_not_calibrated_and_have_no_coverage(calibrated: Path) -> None:
    Path("new.txt").write_text("owl\nRED\ngreen = green | lime\n")
    (found,) = objects(run("photos/a.jpg", "--classes", "new.txt", "--format", "jsonl", "--top-k", "9"))
    flags = {p["label"]: p["calibration"] == "held-out" for p in found["predictions"]}
    assert flags == {"RED": True, "blue": True, "grey thing": True, "owl": False, "green": False}
    refused(run("photos/a.jpg", "--classes", "new.txt", "--coverage", "0.9"), "holds for exactly the 4 classes")


def test_confidence_that_cannot_be_had_is_refused_before_anything_is_printed(folder: Path) -> None:
    for form in ("csv", "json"):
        told = "was not calibrated; train .*, or sar-bank calibrate .*, or set a threshold .*, or leave unknown out"
        refused(run("photos", "--unknown", "--format", form), told)
    refused(run("photos", "--coverage", "0.9"), "was not calibrated; train with 50 or more held-out photos")
    refused(run("photos", "--coverage", "1.5"), "between 0 and 1, got 1.5")
    refused(run("photos", "--threshold", "0.5"), "a threshold is for unknown")
    refused(run("photos", "--unknown-by", "energy", "--threshold", "nan"), "expected a finite number")
    refused(run("photos", "--unknown", "--threshold", "2"), "a score is between 0 and 1, got 2")
    (found,) = objects(run("photos/a.jpg", "--unknown", "--threshold", "1", "--format", "jsonl"))
    assert found["unknown"] is True


def test_its_formats_have_a_variable_of_their_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAR_FORMAT", "json")  # for commands that print text or JSON
    assert run("photos/a.jpg").stdout.startswith("photos/a.jpg\n")
    monkeypatch.setenv("SAR_CLASSIFY_FORMAT", "csv")
    assert run("photos/a.jpg").stdout.startswith("image,rank,")


def test_only(folder: Path) -> None:
    Path("new.txt").write_text("owl\nred\n")
    result = run("photos/a.jpg", "--classes", "new.txt", "--only", "--format", "jsonl")
    assert {p["label"]: p["source"] for p in objects(result)[0]["predictions"]} == {"owl": "extended", "red": "bank"}
    assert result.exit_code == 0


def test_photos_whose_format_is_not_read_are_a_warning(folder: Path) -> None:
    Path("photos/c.heic").touch()
    result = run("photos", "--format", "jsonl")
    assert len(result.stdout.splitlines()) == 2
    assert result.stderr.startswith("Warning: left out 1 file whose format is not read (.heic), such as ")


def test_text_is_the_default(folder: Path) -> None:
    result = run("photos/a.jpg", "--top-k", "2")
    first, *rest = result.stdout.splitlines()
    assert (result.exit_code, first, len(rest)) == (0, "photos/a.jpg", 2)
    assert re.fullmatch(r" +\d+\.\d% [█·]{24}   (red|green|blue|grey thing)", rest[0])


def test_csv_and_json(folder: Path) -> None:
    rows = list(csv.DictReader(run("photos", "--format", "csv").stdout.splitlines()))
    found = json.loads(run("photos", "--format", "json").stdout)
    assert [row["label"] for row in rows] == [p["label"] for result in found for p in result["predictions"]]
    assert len(rows) == 8


@pytest.mark.parametrize("form", ["json", "jsonl", "csv"])
def test_images_that_cannot_be_read_are_counted_for_whoever_reads_only_the_end(folder: Path, form: str) -> None:
    result = run("photos", "bad.jpg", "bad.jpg", "--format", form)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        1,
        "2 of 4 images could not be read; see the error of each",
    )
    assert run("photos", "--format", form).stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_ctrl_c_ends_a_decoder_that_hangs(folder: Path) -> None:
    """In a thread, in C, without letting go of Python's lock."""
    program = """
import ctypes, os
from sar_infer.images import prefetch as decoding
from sar_infer.cli.classify import main

def hangs(*_):
    os.write(1, b"hangs\\n")
    ctypes.PyDLL(None).pause()

decoding.decode_image = hangs
main()
"""
    command = [sys.executable, "-c", program, "photos", "--format", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "hangs\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == -signal.SIGINT
        finally:
            process.kill()


def test_standard_input(folder: Path) -> None:
    result = run("-", "--format", "jsonl", input=encoded(PICTURE, "PNG"))
    assert (result.exit_code, objects(result)[0]["image"]) == (0, "-")
    assert run("-", input=b"").exit_code == 1


@pytest.mark.skipif(os.name != "posix", reason="needs its processes")
def test_standard_input_that_is_closed_is_refused() -> None:
    done = process("-", preexec_fn=lambda: os.close(0))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: -: standard input cannot be read: it is closed\n"


def test_another_bank(folder: Path) -> None:
    ClassBank(("owl",), name_rows(["owl"]), ENCODER_DIGEST).save(Path("b.safetensors"))
    result = run("photos/a.jpg", "--bank", "b.safetensors", "--format", "jsonl")
    assert [p["label"] for p in objects(result)[0]["predictions"]] == ["owl"]


def test_json_tells_which_branch_answered(folder: Path, headed_path: Path) -> None:
    bundle = ("--bundle", str(headed_path))
    Path("new.txt").write_text("owl\n")
    Path("same.txt").write_text("".join(f"{name.upper()}\n" for name in BANK_NAMES[::-1]))
    for more, branch in (
        ((), "head+text"),
        (("--classes", "same.txt", "--only"), "head+text"),
        (("--classes", "new.txt"), "text"),
    ):
        lines = objects(run("photos", *bundle, *more, "--format", "jsonl"))
        assert [line["branch"] for line in lines] == [branch] * 2
        assert [r["branch"] for r in json.loads(run("photos", *bundle, *more, "--format", "json").stdout)] == [
            branch
        ] * 2
    assert objects(run("photos/a.jpg", "--format", "jsonl"))[0]["branch"] == "text"


def test_info(folder: Path) -> None:
    result = run("--info")
    assert result.exit_code == 0
    assert "backbone      tiny\n" in result.stdout
    refused(run("--info", "--bundle", "nowhere"), "nowhere: no such folder")


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_info_for_programs_is_the_manifest(folder: Path, bundle_copy: Path, form: str) -> None:
    result = run("--info", "--bundle", str(bundle_copy), "--format", form)
    assert result.exit_code == 0
    stored = json.loads((bundle_copy / "manifest.json").read_text("utf-8"))
    assert json.loads(result.stdout) == {"path": str(bundle_copy), **stored}
    assert (len(result.stdout.splitlines()) == 1) == (form == "jsonl")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_info_has_no_columns(folder: Path, form: str) -> None:
    refused(run("--info", "--format", form), f"--info: expected --format text, json or jsonl, got {form}")


def test_profile_goes_to_stderr(folder: Path) -> None:
    Path("new.txt").write_text("owl\n")
    result = run("photos", "--classes", "new.txt", "--profile", "--format", "jsonl")
    assert len(objects(result)) == 2
    assert result.stderr.startswith("runs on CPUExecutionProvider\n")
    assert re.findall(r"^(\w+) +[\d.]+ ms$", result.stderr, re.MULTILINE) == [
        "open",
        "names",
        "decode",
        "encode",
        "score",
    ]


def test_every_option_has_its_environment_twin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("new.txt").write_text("owl\nemu\n")
    for name, value in {
        "CLASSES": "new.txt",
        "ONLY": "1",
        "TOP_K": "1",
        "CLASSIFY_FORMAT": "jsonl",
        "BATCH_SIZE": "1",
        "THREADS": "1",
    }.items():
        monkeypatch.setenv(f"SAR_{name}", value)
    lines = objects(run("photos"))
    assert [len(line["predictions"]) for line in lines] == [1, 1]
    help_text = run("--help").stdout
    for option in main.params:
        flags = [flag for flag in option.opts if flag.startswith("--")]
        if flags and flags[0] not in ("--format", "--info", "--version", "--help"):
            assert f"SAR_{flags[0][2:].upper().replace('-', '_')}" in help_text
    assert "SAR_CLASSIFY_FORMAT" in help_text  # SAR_FORMAT is text or json


def test_version_and_help(folder: Path) -> None:
    assert run("--version").stdout == f"sar-classify, version {__version__}\n"
    assert "IMAGE..." in run("-h").stdout


# ----------------------------------------------------------------------------------------------------------- bad images
@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"hello", "not an image"),
        (b"", "empty file"),
        (encoded(PICTURE, "JPEG")[:-400], "cannot be read: image file is truncated"),
        (huge_png(30_000, 30_000), "too large"),
        (huge_png(10_000, 9_000), "too large: 10000 x 9000"),
        (encoded(Image.new("RGB", (500, 4)), "PNG"), "too thin: 500 x 4 pixels, at most 1:100"),
    ],
    ids=["text", "empty", "truncated", "huge", "large", "thin"],
)
def test_a_bad_image_is_reported_and_the_rest_go_on(folder: Path, data: bytes, error: str) -> None:
    Path("photos/a1.jpg").write_bytes(data)
    done = process("photos", "--format", "jsonl")
    first, bad, last = map(json.loads, done.stdout.splitlines())
    assert bad["error"].startswith(error)
    assert first["predictions"]
    assert last["predictions"]
    assert (done.returncode, done.stderr) == (1, "1 of 3 images could not be read; see the error of each\n")


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "P", "L", "LA", "1", "I;16"])
def test_every_kind_of_picture_is_classified(folder: Path, mode: str) -> None:
    image = Image.fromarray(np.full((9, 9), 40_000, np.uint16)) if mode == "I;16" else PICTURE.convert(mode)
    image.save("p.tif")
    with Image.open("p.tif") as stored:
        assert stored.mode == mode
    assert run("p.tif").exit_code == 0


def test_a_turned_photo_gets_the_answer_of_the_upright_one(folder: Path) -> None:
    half = Image.new("RGB", (90, 30), (255, 0, 0))
    half.paste((0, 0, 255), (0, 0, 45, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    half.save("upright.png")
    half.rotate(90, expand=True).save("turned.png", exif=exif)
    upright, turned = objects(run("upright.png", "turned.png", "--format", "jsonl"))
    assert upright["predictions"] == turned["predictions"]


def test_a_missing_image_is_reported_and_the_rest_go_on(folder: Path) -> None:
    result = run("photos/a.jpg", "nowhere.jpg", "photos/b.png", "--format", "jsonl")
    first, missing, last = objects(result)
    assert (missing["image"], missing["error"]) == ("nowhere.jpg", "no such file")
    assert first["predictions"]
    assert last["predictions"]
    assert (result.exit_code, result.stderr) == (1, "1 of 3 images could not be read; see the error of each\n")
    assert "nowhere.jpg\n  error: no such file\n" in run("nowhere.jpg", "photos/b.png").stdout


# --------------------------------------------------------------------------------- refused before any work, exit code 2
def test_images_that_are_not_there(folder: Path) -> None:
    Path("empty").mkdir()
    refused(run("nowhere.jpg", "neither.jpg"), "nowhere.jpg: no such file or folder")
    refused(run("photos/a.jpg", "empty"), "empty: a folder without images")
    refused(run("photos/a.jpg", "*.webp"), r"\*\.webp: matches nothing")
    refused(run("https://a.example/b.jpg"), "https is not fetched; download it")
    refused(run(), "no image given")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"new\.txt: empty"),
        (b"\n \n", r"new\.txt: empty"),
        (b"# nothing\n", r"new\.txt: holds no class name"),
        (encoded(PICTURE, "JPEG"), r"new\.txt:\d+: binary data"),
        (b"cat\n" + b"x" * 500 + b"\n", r"new\.txt:2: class name 'xxx.*…' is too long: \d+ tokens, 18 fit"),
        (b"cat\ndog = hound | " + b"long " * 100, r"new\.txt:2: class name 'long .* is too long"),
        (b"cat\n\x01\n", r"new\.txt:2: class name .* is empty"),
    ],
    ids=["empty", "blank", "comment", "binary", "500 characters", "long phrase", "invisible"],
)
def test_bad_class_files(folder: Path, content: bytes, message: str) -> None:
    Path("new.txt").write_bytes(content)
    refused(run("photos/a.jpg", "--classes", "new.txt"), message)


def test_class_file_that_is_not_there(folder: Path) -> None:
    refused(
        run("photos/a.jpg", "--classes", "none.txt"),
        "none.txt: no such class file; expected a text file with one name a line",
    )
    refused(run("photos/a.jpg", "--only"), "--only needs --classes")


def test_a_repeated_name_is_a_warning_and_used_once(folder: Path) -> None:
    Path("new.txt").write_text("owl\nemu\nOwl\n")
    result = run("photos/a.jpg", "--classes", "new.txt", "--only", "--format", "jsonl")
    assert result.exit_code == 0
    assert result.stderr == "Warning: new.txt:3: class name 'Owl' is already on line 1; used once\n"
    assert sorted(p["label"] for p in objects(result)[0]["predictions"]) == ["emu", "owl"]


@pytest.mark.parametrize(
    "name", sorted(["image_encoder.onnx", "name_encoder.onnx", "bank.safetensors", "tokenizer.bpe.gz", "manifest.json"])
)
def test_a_bundle_with_one_changed_byte(folder: Path, bundle_copy: Path, name: str) -> None:
    data = bytearray((bundle_copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle_copy / name).write_bytes(data)
    refused(run("photos/a.jpg", "--bundle", str(bundle_copy)), re.escape(name))


def test_other_bad_bundles(folder: Path, bundle_copy: Path) -> None:
    bundle = str(bundle_copy)
    (bundle_copy / "extra").touch()
    refused(run("photos/a.jpg", "--bundle", bundle), "extra: not listed in manifest.json")
    (bundle_copy / "extra").unlink()
    content = json.loads((bundle_copy / "manifest.json").read_text("utf-8"))
    (bundle_copy / "manifest.json").write_text(json.dumps(content | {"schema_version": 9, "min_reader": 9}), "utf-8")
    refused(
        run("photos/a.jpg", "--bundle", bundle),
        f"schema 9 needs a reader of version 9 or later, this is {READER_VERSION}",
    )
    (bundle_copy / "bank.safetensors").unlink()
    reseal(bundle_copy)
    refused(run("photos/a.jpg", "--bundle", bundle), "does not list bank.safetensors")
    refused(run("photos/a.jpg", "--bundle", "photos"), "photos: has no manifest.json")
    refused(run("photos/a.jpg", "--bundle", "none"), "none: no such folder")


def test_a_graph_that_onnxruntime_refuses(folder: Path, bundle_copy: Path) -> None:
    """Everything agrees with the manifest, but an operator does not exist."""
    import onnx

    model = onnx.load(bundle_copy / "image_encoder.onnx")
    model.graph.node[0].op_type = "NoSuchOperator"
    (bundle_copy / "image_encoder.onnx").write_bytes(model.SerializeToString())
    reseal(bundle_copy)
    refused(run("photos/a.jpg", "--bundle", str(bundle_copy)), "image_encoder.onnx: onnxruntime does not accept")


def test_bad_banks(folder: Path) -> None:
    ClassBank(("owl",), name_rows(["owl"]), "f" * 64).save(Path("other.safetensors"))
    refused(run("photos/a.jpg", "--bank", "other.safetensors"), f"expected {ENCODER_DIGEST[:8]}, the bank has ffffffff")
    ClassBank(("owl",), np.eye(1, DIM + 1, dtype=np.float32), ENCODER_DIGEST).save(Path("wide.safetensors"))
    refused(run("photos/a.jpg", "--bank", "wide.safetensors"), f"rows of {DIM + 1} numbers, the bundle has {DIM}")
    refused(run("photos/a.jpg", "--bank", "bad.jpg"), "bad.jpg: not a bank file")
    refused(run("photos/a.jpg", "--bank", "none"), "none: no such bank file")
    refused(run("photos/a.jpg", "--bank", "photos"), "photos: is a folder; expected a bank file")


def test_cuda_that_cannot_be_had(folder: Path) -> None:
    if sessions.expects_cuda("auto"):
        pytest.skip("this machine has CUDA")
    done = process("photos/a.jpg", "--device", "cuda")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"Error: device cuda is not available: .*; use --device cpu\n", done.stderr)


def test_unknown_options_are_clicks_own_affair(folder: Path) -> None:
    for arguments in (["--top-k", "0"], ["--format", "xml"], ["--colour"]):
        assert run("photos/a.jpg", *arguments).exit_code == 2


# --------------------------------------------------------------------------------------------------------- as a process
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", ["photos --format jsonl", "photos", "--info", "--info --format json"])
def test_a_full_disk_is_one_line(folder: Path, arguments: str) -> None:
    command = [sys.executable, "-m", "sar_infer.cli.classify", *arguments.split()]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    assert (done.returncode, done.stderr) == (1, "Error: stdout: cannot be written (No space left on device)\n")


def test_a_closed_pipe_is_no_accident(folder: Path) -> None:
    for index in range(200):
        (folder / "photos" / f"{index}.png").write_bytes(Path("photos/b.png").read_bytes())
    command = f"'{sys.executable}' -m sar_infer.cli.classify photos --format jsonl --batch-size 1 | head -n 1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, env=environment)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("count", "shown"), [(40, True), (4, False)])
def test_progress_shows_on_a_terminal_when_there_is_much_to_do(folder: Path, count: int, shown: bool) -> None:
    import pty

    for index in range(count - 2):
        (folder / "photos" / f"{index}.png").write_bytes(Path("photos/b.png").read_bytes())
    reader, terminal = pty.openpty()
    command = [sys.executable, "-m", "sar_infer.cli.classify", "photos", "--format", "jsonl"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, timeout=60, env=environment)
    os.write(terminal, b"end")
    told = b""
    while not told.endswith(b"end"):  # a terminal may pass on what was written in parts
        told += os.read(reader, 65536)
    assert len(done.stdout.splitlines()) == count
    assert (b"Classifying" in told) == shown
    os.close(reader)
    os.close(terminal)


@pytest.mark.parametrize("form", ["text", "jsonl"])
def test_odd_names_on_a_plain_terminal(folder: Path, form: str) -> None:
    """File and class names outside the locale's encoding are escaped for people, and UTF-8 for programs."""
    Path("日本.png").write_bytes(Path("photos/b.png").read_bytes())
    Path("new.txt").write_text("フクロウ\n", encoding="utf-8")
    environment = {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "1"}
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


def test_help_and_version_load_nothing_heavy(folder: Path) -> None:
    program = (
        "import sys; from sar_infer.cli.classify import main\n"
        "main(sys.argv[1:], standalone_mode=False); print(*sys.modules)"
    )
    for option in ("--help", "--version"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", program, option]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
        loaded = set(done.stdout.split())
        assert "sar_infer.cli.classify" in loaded
        assert loaded.isdisjoint({"numpy", "PIL", "onnxruntime", "safetensors", "torch", "sar_train"})


@pytest.mark.parametrize("classes", [0, 3])
def test_few_examples_or_none_load_nothing_of_fitting(folder: Path, bundle_path: Path, classes: int) -> None:
    for number in range(classes):
        Path("examples", f"class {number}").mkdir(parents=True)
        for shot in range(2):
            PICTURE.rotate(7 * number + shot).save(f"examples/class {number}/{shot}.png")
    program = (
        "import atexit, sys; from sar_infer.cli.classify import main\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); main()"
    )
    arguments = ["photos/a.jpg", "--bundle", str(bundle_path), *(["--examples", "examples"] if classes else [])]
    command = [sys.executable, "-c", program, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=True)
    loaded = set(done.stderr.split())
    assert "sar_infer.classifiers.statistics" in loaded
    rooms = {"bank_fitting", "fitting", "gaussian", "left_out", "left_out_confidence"}
    assert loaded.isdisjoint({f"sar_infer.classifiers.{name}" for name in rooms})


def test_a_precision_is_chosen_by_option_or_environment(folder: Path, bundle_copy: Path) -> None:
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
    for output in ((), ("--out", "answers.jsonl", "--workers", "1")):
        (line,) = [line for line in run(*call, *output).stderr.splitlines() if line.startswith("Warning: ")]
        assert "no VNNI" in line
        assert "measured on x86-64 with VNNI" in line


def test_a_precision_that_the_bundle_lacks(folder: Path) -> None:
    refused(run("photos/a.jpg", "--precision", "int8"), r"precision int8: this bundle has fp32; sar-bundle shrink")
    assert run("photos/a.jpg", "--precision", "auto").exit_code == 0
