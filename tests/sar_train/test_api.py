"""`train` and `export` from Python: the command line's options and results, without its text."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.problems import feature_set
from support.tiny import VIT, register

from sar_infer import Classifier, InputError
from sar_train import ConfigError, ExportOptions, RunError, TrainedRun, export, train
from sar_train.api import default_name, run_config
from sar_train.cli import export as export_command
from sar_train.cli import train as train_command
from sar_train.config.run import SETTINGS
from sar_train.data.feature_file import save_features
from sar_train.training.checkpoint import load_run

OF_THE_TERMINAL = {"version", "format", "form", "quiet", "list_methods"}


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    register()
    path = tmp_path_factory.mktemp("features") / "blobs.safetensors"
    save_features(feature_set(), path)
    return path


@pytest.fixture(scope="module")
def trained(features: Path) -> tuple[TrainedRun, list[str]]:
    """A run and the lines of its progress; nothing else is printed."""
    lines: list[str] = []
    tiny = {"backbone": VIT, "pretrained": "random", "epochs": 2, "novel": "words", "learning_rate": 0.005}
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        run = train(features, out=features.parent / "run", progress=lines.append, **tiny)
    assert out.getvalue() == ""
    return run, lines


def test_train_leaves_a_run_and_returns_its_results(trained: tuple[TrainedRun, list[str]]) -> None:
    run, lines = trained
    on_disk = json.loads((run.path / "record.json").read_text())
    assert json.loads(json.dumps(run.record)) == on_disk
    accuracies = on_disk["other_metrics"]["statistics"]
    assert dataclasses.asdict(run.scores) == {key: accuracies[key] for key in dataclasses.asdict(run.scores)}
    assert run.zero_shot.base_accuracy == on_disk["zero_shot"]["base_accuracy"]
    assert [line for line in lines if line.startswith("epoch 2/2")]


def test_the_same_call_as_a_command_makes_the_same_run(
    features: Path, trained: tuple[TrainedRun, list[str]], tmp_path: Path
) -> None:
    command = (
        f"{features} --backbone {VIT} --pretrained random --epochs 2 --novel words --lr 0.005 -q --out {tmp_path}/run"
    )
    with pytest.raises(SystemExit):
        train_command.main(command.split())
    by_call, by_command = load_run(trained[0].path), load_run(tmp_path / "run")
    assert by_call.settings == by_command.settings
    assert torch.equal(by_call.tensors["context"], by_command.tensors["context"])


@pytest.mark.slow
def test_export_returns_the_bundle(trained: tuple[TrainedRun, list[str]], tmp_path: Path) -> None:
    bundle = export(trained[0], out=tmp_path / "bundle", classes={"red fox": ["fox", "red fox"], "boat": "boat"})
    assert tuple(bundle.bank.names) == ("red fox", "boat")
    assert "sar_train.export(" in (tmp_path / "bundle" / "manifest.json").read_text()
    result = Classifier(bundle).classify(np.zeros((40, 40, 3), np.uint8), top_k=1)
    assert result.predictions[0].label in ("red fox", "boat")
    with pytest.raises(InputError):
        export(trained[0].path, out=tmp_path / "bundle")


@pytest.mark.slow
def test_export_takes_the_class_file_and_the_template_of_the_command(tmp_path: Path) -> None:
    register()
    (tmp_path / "names.txt").write_text("fox\nboat\nFox\n")
    lines: list[str] = []
    bundle = export(
        out=tmp_path / "bundle",
        handcrafted="a photo of a {}.",
        backbone=VIT,
        pretrained="random",
        classes=tmp_path / "names.txt",
        progress=lines.append,
    )
    assert tuple(bundle.bank.names) == ("fox", "boat")
    assert [line for line in lines if line.startswith("Warning: ") and "names.txt:3" in line]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"handcrafted": "a {}.", "classes": ["fox"], "approximate": "mean-image"},
        {"handcrafted": "a {}.", "classes": ["fox"], "class": ["fox"]},
    ],
)
def test_contradictions_are_refused_before_anything_is_loaded(options: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        export(out=tmp_path / "bundle", **options)
    assert not (tmp_path / "bundle").exists()


def test_errors_are_our_exceptions(features: Path, trained: tuple[TrainedRun, list[str]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'shots'"):
        train(features, out=tmp_path / "run", shotz=4)
    with pytest.raises(RunError):
        train(features, out=trained[0].path, backbone=VIT, pretrained="random")
    with pytest.raises(RunError):
        export(tmp_path / "nothing", out=tmp_path / "bundle")


def test_later_settings_win(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("shots = 4\nseed = 3\n[sar]\ntau = 0.05\n")
    config = run_config("demo", file, {"sar": {"weight": 2}}, shots=8, seed=None, sar_weight=3, data_root=tmp_path)
    assert (config.shots, config.seed, config.data, config.data_root) == (8, 3, "demo", str(tmp_path))
    assert config.sections == {"sar": {"tau": 0.05, "weight": 3}}
    assert default_name(config) == "demo-coop-sar-s3"
    (tmp_path / "shop" / "train").mkdir(parents=True)
    assert default_name(run_config(str(tmp_path / "shop" / "train"))) == "shop-coop-sar-s1"


@pytest.mark.parametrize(("method", "sar"), [("coop", True), ("prograd", True), ("dept", False)])
def test_sar_is_on_where_it_suits_the_method_unless_asked_for(tmp_path: Path, method: str, sar: bool) -> None:
    file = tmp_path / "run.toml"
    file.write_text("sar = true\n")
    assert run_config("demo", method=method).sar is sar
    assert run_config("demo", method=method, sar=False).sar is False
    assert run_config("demo", file, method=method).sar
    assert run_config("demo", method=method, sar=True).sar
    assert run_config("demo", method=method, sar_weight=1).sar
    file.write_text("sar = false\n")
    with pytest.raises(ConfigError, match="sar = false"):
        run_config("demo", file, method=method, sar_weight=3)
    with pytest.raises(ConfigError, match="sar = false"):
        run_config("demo", None, {"sar": {"tau": 1}}, method=method, sar=False)
    assert run_config("demo", file, method=method, sar=True, sar_weight=3).sar
    file.write_text("[sar]\ntau = 0.05\n")  # of SAR when it is on
    assert not run_config("demo", file, method=method, sar=False).sar


def test_options_are_those_of_the_commands() -> None:
    of_command = {parameter.name for parameter in train_command.main.params} - OF_THE_TERMINAL - {"config_file", "plan"}
    named = set(inspect.signature(train).parameters) - {"options", "config", "settings", "progress"}
    assert of_command == named | SETTINGS.keys() | {"on"}
    of_command = {parameter.name for parameter in export_command.main.params} - OF_THE_TERMINAL
    assert of_command >= (set(ExportOptions.__annotations__) | {"run", "out", "overwrite"}) - {"command"}
    assert [name for name in ExportOptions.__annotations__ if f" {name}: " not in str(ExportOptions.__doc__)] == []


def test_the_package_is_cheap_and_export_is_the_function() -> None:
    """Also after its room of that name was imported, as it is here."""
    import sar_train.export.bundle

    assert sar_train.export is export
    program = "import sys; from sar_train import export; print(callable(export), 'torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.split() == ["True", "False"]
