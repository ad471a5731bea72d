"""``sar-bundle`` as it is typed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import click
import numpy as np
import pytest
from support.bank_commands import Command
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, name_rows, write_bundle
from support.photos import write_folder, write_photo
from support.sound import change

from sar_infer import default_bundle
from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import open_bundle
from sar_infer.bundle.card import describe
from sar_infer.bundle.manifest import SelfTestVector
from sar_infer.cli.bundle import FURTHER, main

ROOT = Path(__file__).parents[3]
run = Command(main)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "bundle")


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    names = (*BANK_NAMES, "owl")
    ClassBank.of(names, name_rows(names), ENCODER_DIGEST).save(tmp_path / "mine.safetensors")
    return tmp_path / "mine.safetensors"


# ----------------------------------------------------------------------------------------------------------------- show
def test_show(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("show", bundle).stdout == describe(open_bundle(bundle))
    content = run.report("show", bundle)
    assert (content["path"], content["digest"]) == (str(bundle), open_bundle(bundle).manifest.digest)
    assert run("show").stdout == describe(open_bundle(default_bundle()))
    monkeypatch.setenv("SAR_BUNDLE", str(bundle))
    assert str(bundle) in run("show").stdout


@pytest.mark.parametrize("command", ["show", "verify"])
def test_damage_is_one_line(bundle: Path, command: str) -> None:
    (bundle / "extra").write_text("")
    assert "not listed" in run.refused(command, bundle)
    assert "no such folder" in run.refused(command, bundle / "nothing")


# --------------------------------------------------------------------------------------------------------------- verify
def test_verify_a_sound_bundle(bundle: Path, tmp_path: Path) -> None:
    result = run("verify", bundle)
    assert result.stdout.endswith(f"{bundle}: intact\n")
    assert f"{len(BANK_NAMES)} bank rows made again" in result.stdout
    assert result.stderr == ""
    assert run.report("verify", bundle)["passed"] is True


def test_verify_measures_accuracy_beside_the_manifests(bundle: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for seed, name in enumerate(("red", "red", "blue", "blue", "owl", "cat", "cat")):
        write_photo(photos / name / f"{seed}.png", seed)
    content = run.report("verify", bundle, "--photos", photos)
    trained, new = content["accuracies"]
    assert (trained["of"], trained["classes"], trained["photos"], trained["manifest"]) == ("trained", 2, 4, 50.0)
    assert trained["accuracy"] in (0, 25, 50, 75, 100)
    assert (new["of"], new["classes"], new["photos"], new["manifest"]) == ("new", 2, 3, None)
    text = run("verify", bundle, "--photos", photos).stdout
    assert "of 4 photos of 2 trained classes; manifest: 50.0 %" in text
    assert "of 3 photos of 2 new classes; manifest: not measured" in text
    assert "no such file or folder" in run.refused("verify", bundle, "--photos", tmp_path / "nothing")
    lonely = write_folder(tmp_path / "lonely", {"red": 2})
    assert "expected folders of two classes" in run.refused("verify", bundle, "--photos", lonely)


def test_verify_ends_with_1_where_a_check_fails(bundle: Path) -> None:
    change(bundle, self_test=SelfTestVector(1, tuple(np.eye(DIM)[0].tolist())))
    result = run("verify", bundle, code=1)
    assert "FAILED  self-test image, cosine: " in result.stdout
    assert result.stdout.endswith(f"{bundle}: a check failed\n")
    assert run.report("verify", bundle, code=1)["passed"] is False


# --------------------------------------------------------------------------------------------------------------- freeze
def test_freeze(bundle: Path, bank: Path, tmp_path: Path) -> None:
    out = tmp_path / "frozen"
    content = run.report("freeze", bundle, "--bank", bank, "--out", out)
    frozen = open_bundle(out)
    assert (content["digest"], content["classes"]) == (frozen.manifest.digest, 5)
    assert frozen.bank.names == (*BANK_NAMES, "owl")
    assert open_bundle(bundle).bank.names == BANK_NAMES
    assert "exists; choose another --out" in run.refused("freeze", bundle, "--bank", bank, "--out", out)
    result = run("freeze", bundle, "--bank", bank, "--out", out, "--overwrite")
    assert result.stdout == f"{out}: 5 classes; next: sar-classify PHOTO --bundle {out}\n"


# ------------------------------------------------------------------------------------------------- commands of training
def declare(folder: Path, **commands: str) -> None:
    """Install a distribution of nothing but entry points, as `pip install` writes them."""
    info = folder / "further-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: further\nVersion: 1.0\n")
    lines = [f"{name} = {target}" for name, target in commands.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{FURTHER}]", *lines]) + "\n")


def test_commands_come_from_entry_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "further_command.py").write_text(
        "import click\n\n@click.command()\n@click.argument('word')\n"
        "def main(word):\n    'Repeat a word.'\n    print(word)\n"
    )
    declare(tmp_path, repeat="further_command:main")
    monkeypatch.syspath_prepend(tmp_path)
    assert "Repeat a word." in run("--help").stdout
    assert run("repeat", "again").stdout == "again\n"
    assert "No such command" in run.refused("other")


@pytest.mark.parametrize(("missing", "name"), [("sar_train", "shrink"), ("onnx", "shrink")])
def test_without_training_they_say_what_to_install(bundle: Path, tmp_path: Path, missing: str, name: str) -> None:
    """In a process in which a package of training cannot be imported, whatever is installed here."""
    declare(tmp_path / "site", **{name: f"sar_train.cli.{name}:main"})
    code = f"import sys; sys.modules[{missing!r}] = None; from sar_infer.cli.bundle import main; "
    code += "main(['--help'], standalone_mode=False); assert 'numpy' not in sys.modules; main()"
    out = ["--photos", str(tmp_path), "--precision", "int8", "--out", str(tmp_path / "new")]
    command = [sys.executable, "-c", code, name, str(bundle), *out]
    environment = {"PYTHONPATH": f"{tmp_path / 'site'}:{ROOT}", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2
    assert name in done.stdout
    reason = "this command needs onnx" if missing == "onnx" else f"sar-bundle {name} needs the training packages"
    assert done.stderr == f"Error: {reason}: pip install '.[train]' in a clone of sar-clip\n"


def test_the_declared_commands_can_be_loaded() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"][FURTHER]
    assert sorted(declared) == ["import", "onnx", "shrink"]
    for name, target in declared.items():
        module, _, attribute = target.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command) and command.name == name
