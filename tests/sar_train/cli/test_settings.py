"""Options of commands come from the one list of settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sar_infer.cli.command import Command, Key
from sar_train.api import run_config
from sar_train.cli.settings import setting_options
from sar_train.cli.train import main
from sar_train.config.run import SETTINGS, RunConfig


def parsed(*arguments: str) -> dict[str, Any]:
    """Return the values that a command with all settings gets from a command line."""
    values: dict[str, Any] = {}
    command = click.command(cls=Command)(setting_options()(lambda **options: values.update(options)))
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return values


def another(name: str, option: click.Parameter) -> Any:
    """Return a value of a setting that is not its default."""
    if isinstance(SETTINGS[name].default, bool):
        return not SETTINGS[name].default
    if isinstance(option.type, click.Choice):
        return option.type.choices[-1]
    return "tcp" if name == "method" else option.type.convert("7", None, None)


@pytest.mark.parametrize("name", SETTINGS)
def test_command_line_and_toml_say_the_same(name: str, tmp_path: Path) -> None:
    option = next(parameter for parameter in main.params if parameter.name == name)
    value = another(name, option)
    assert value != getattr(RunConfig("x"), name)
    flags = option.secondary_opts if value is False else option.opts
    assert parsed("--set", f"{name}={value}") == dict.fromkeys(SETTINGS) | {name: value}
    if not isinstance(option, Key):
        values = parsed(flags[-1]) if isinstance(value, bool) else parsed(flags[-1], str(value))
        assert values == dict.fromkeys(SETTINGS) | {name: value}
    text = str(value).lower() if isinstance(value, bool) else value if isinstance(value, int | float) else f'"{value}"'
    (tmp_path / "run.toml").write_text(f"{name} = {text}\n" + ("" if name in ("sar", "method") else "sar = true\n"))
    assert getattr(run_config("x", tmp_path / "run.toml"), name) == value


def test_help_says_what_the_default_is() -> None:
    shown = {parameter.name: parameter.help for parameter in main.params if isinstance(parameter, click.Option)}
    assert shown["shots"] == "Training photos of each class; 0: all.  [default: 16]"
    assert shown["epochs"].endswith("[default: the method's published number]")
    assert "[default" not in shown["allow_missing"]
    assert str(shown["allow_missing"]).startswith(SETTINGS["allow_missing"].metadata["help"])
