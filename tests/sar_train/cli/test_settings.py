"""Options of commands come from the one list of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sar_train.api import run_config
from sar_train.cli.settings import setting_option, setting_options
from sar_train.cli.train import main
from sar_train.config.run import SETTINGS, RunConfig

OTHERS = {
    "data_root": "data", "backbone": "RN50", "pretrained": "openai", "method": "tcp", "sar": False, "novel": "words",
    "novel_count": 7, "exclude_eval_names": False, "llm_url": "http://x", "llm_model": "m", "shots": 3, "seed": 9,
    "views": 2, "protocol": "all", "base_classes": "a,b", "template": "a {}.", "epochs": 5, "learning_rate": 0.5,
    "batch_size": 8, "device": "cuda", "precision": "bf16", "micro_batch": 2, "cache_dir": "cache",
    "allow_missing": True, "skip_unreadable": True, "statistics": False, "prompt": "learned", "quick": True,
}  # fmt: skip
"""A value of each setting that is not its default."""


def parsed(*arguments: str) -> dict[str, Any]:
    """Return the values that a command with all settings gets from a command line."""
    got: dict[str, Any] = {}
    command = click.command()(setting_options(*SETTINGS)(lambda **given: got.update(given)))
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return got


def test_an_option_that_is_not_given_says_nothing() -> None:
    assert parsed() == dict.fromkeys(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_command_line_and_toml_say_the_same(name: str, tmp_path: Path) -> None:
    value, option = OTHERS[name], next(p for p in main.params if p.name == name)
    assert value != getattr(RunConfig("x"), name)
    flags = option.secondary_opts if value is False else option.opts
    got = parsed(flags[-1]) if isinstance(value, bool) else parsed(flags[-1], str(value))
    assert got == dict.fromkeys(SETTINGS) | {name: value}
    text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, int | float) else f'"{value}"'
    (tmp_path / "run.toml").write_text(f"{name} = {text}\n" + ("" if name in ("sar", "method") else "sar = true\n"))
    assert getattr(run_config("x", tmp_path / "run.toml"), name) == value


def test_help_says_what_the_default_is() -> None:
    shown = {parameter.name: parameter.help for parameter in main.params if isinstance(parameter, click.Option)}
    assert shown["shots"] == "Photos per class to learn from, 0 for all.  [default: 16]"
    assert shown["epochs"].endswith("[default: the method's published number]")
    assert "[default" not in shown["quick"]
    assert str(shown["quick"]).startswith(SETTINGS["quick"].metadata["help"])


def test_a_command_may_say_otherwise() -> None:
    @click.command()
    @setting_option("device", type=str, help="Here.")
    def command(device: str | None) -> None:
        click.echo(device)

    assert CliRunner().invoke(command, ["--device", "tpu"]).output == "tpu\n"
    assert CliRunner().invoke(main, ["x", "--device", "tpu"]).exit_code == 2
