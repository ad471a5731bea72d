"""Every command has a short help, ``--help-all``, ``--config``, ``--set``, and completion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import BashComplete
from click.testing import CliRunner, Result

from sar_infer.cli import bank, bundle, classify, label, serve
from sar_infer.cli.command import Command, Group, Key, tables
from sar_train.cli import experiment, export, train

COMMANDS = {
    "sar-bank": bank.main,
    "sar-bundle": bundle.main,
    "sar-classify": classify.main,
    "sar-experiment": experiment.main,
    "sar-export": export.main,
    "sar-label": label.main,
    "sar-serve": serve.main,
    "sar-train": train.main,
}
MOST_SHOWN = 12


def every() -> Iterator[tuple[str, ...]]:
    """Yield the words of each command that has options."""
    for name, command in COMMANDS.items():
        if isinstance(command, click.Group):
            context = click.Context(command)
            names = command.list_commands(context)
            yield from ((name, inner) for inner in names if isinstance(command.get_command(context, inner), Command))
        else:
            yield (name,)


def call(name: str, *words: str, **environment: str) -> Result:
    return CliRunner(env=environment).invoke(COMMANDS[name], words, terminal_width=80, prog_name=name)


def shown(text: str) -> list[str]:
    """Return the options that a help text lists."""
    return re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE)


@pytest.mark.parametrize("words", [*every()], ids=" ".join)
def test_help_has_a_dozen_options_under_headings_and_help_all_has_all(words: tuple[str, ...]) -> None:
    text, everything = (call(*words, flag).output for flag in ("--help", "--help-all"))
    options = shown(text)
    assert 1 <= len(options) <= MOST_SHOWN
    headings = re.findall(r"^(\w[\w ]+):\n  (?:-\w, )?--", text, re.MULTILINE)
    assert headings
    if "--help-all" not in options:
        return
    command = COMMANDS[words[0]]
    for word in words[1:]:
        command = command.get_command(click.Context(command), word)  # type: ignore[attr-defined]
    names = [max(p.opts, key=len) for p in command.params if isinstance(p, click.Option) and not p.hidden]
    assert sorted({*names, *options, "--help"}) == sorted(shown(everything))
    keys = [p.opts[0][2:] for p in command.params if isinstance(p, Key)]
    assert re.findall(r"^  ([\w-]+)=", everything.partition("Keys of --config")[2], re.MULTILINE) == keys


def test_help_all_gives_the_default_of_a_switch_as_a_value() -> None:
    assert re.search(
        r"^  metrics=true\|false +Serve /metrics\.  \[default: true\]$",
        call("sar-serve", "--help-all").output,
        re.MULTILINE,
    )


def test_help_names_no_environment_variable() -> None:
    assert not [words for words in every() if "env var" in call(*words, "--help-all").output]


# -------------------------------------------------------------------------------------------------------------- values
SEEN: dict[str, Any] = {}


@click.command(cls=Command, groups={"Options": "size"}, tables=True, context_settings={"auto_envvar_prefix": "SAR_TOY"})
@click.option("--size", type=int, default=1)
@click.option("--speed", cls=Key, type=float, default=1.0)
@click.option("--noise/--no-noise", cls=Key, default=True)
@click.option("--name", "names", multiple=True)
@click.option("--kinds", default="a")
def toy(**values: Any) -> None:
    SEEN.update(values, tables={source: tables(source) for source in ("--config", "--set")})


@click.group(cls=Group)
def toys() -> None:
    pass


toys.add_command(toy)
toys.add_command(click.Command("plain", callback=lambda: None))


def values(*words: str | Path, command: click.Command = toy, **environment: str) -> dict[str, Any]:
    result = CliRunner(env=environment).invoke(command, [*map(str, words)])
    assert result.exit_code == 0, result.output
    return dict(SEEN)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "toy.toml").write_text('size = 2\nspeed = 2.5\nnoise = false\nname = ["x", "y"]\nkinds = ["a", "b"]\n')
    return tmp_path / "toy.toml"


@pytest.mark.parametrize(
    ("words", "environment", "size"),
    [
        ((), {}, 2),
        ((), {"SAR_TOY_SIZE": "3"}, 3),
        (("--set", "size=4"), {"SAR_TOY_SIZE": "3"}, 4),
        (("--set", "size=4", "--size", "5"), {"SAR_TOY_SIZE": "3"}, 5),
        (("--size", "5", "--set", "size=4"), {}, 5),
    ],
)
def test_what_is_typed_beats_the_environment_which_beats_the_file(
    file: Path, words: tuple[str, ...], environment: dict[str, str], size: int
) -> None:
    assert values("--config", file, *words, **environment)["size"] == size


def test_keys_are_set_by_the_environment_and_by_set_but_are_no_options() -> None:
    assert values(SAR_TOY_SPEED="7")["speed"] == 7
    seen = values("--set", "speed=8", "--set", "noise=no", "--set", "name=z", SAR_TOY_SPEED="7")
    assert (seen["speed"], seen["noise"], seen["names"]) == (8, False, ("z",))


def test_tables_are_for_the_command(tmp_path: Path) -> None:
    (tmp_path / "toy.toml").write_text("[coop]\nn_ctx = 4\nshared = true\n")
    seen = values("--config", tmp_path / "toy.toml", "--set", "coop.n_ctx=8", "--set", "sar.tau=0.1")
    assert seen["tables"] == {
        "--config": {"coop": {"n_ctx": 4, "shared": True}},
        "--set": {"coop": {"n_ctx": "8"}, "sar": {"tau": "0.1"}},
    }


def test_a_group_has_settings_for_its_commands(tmp_path: Path) -> None:
    (tmp_path / "toys.toml").write_text("size = 2\n[toy]\nspeed = 3\n")
    seen = values("--config", tmp_path / "toys.toml", "toy", command=toys)
    assert (seen["size"], seen["speed"]) == (2, 3)
    seen = values("--config", tmp_path / "toys.toml", "--set", "toy.speed=4", "--set", "size=5", "toy", command=toys)
    assert (seen["size"], seen["speed"]) == (5, 4)
    assert values("--set", "size=5", "toy", "--size", "6", command=toys)["size"] == 6


@pytest.mark.parametrize(
    ("words", "environment", "key"),
    [
        (["--set", "deadline=abc"], {}, "'deadline'"),
        ([], {"SAR_DEADLINE": "abc"}, "'deadline' (SAR_DEADLINE)"),
        (["--config", "serve.toml"], {}, "'deadline' (--config)"),
    ],
)
def test_a_wrong_number_is_reported_with_its_key_and_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], environment: dict[str, str], key: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("serve.toml").write_text('deadline = "abc"\n')
    result = call("sar-serve", *words, **environment)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (
        2,
        f"Error: Invalid value for {key}: 'abc' is not a valid number.",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("sar-serve", "--set", "max_bodi=3"), "--set: unknown key max_bodi; did you mean max-body?"),
        (("sar-serve", "--set", "colour=3"), "--set: unknown key colour; --help-all lists the keys"),
        (("sar-serve", "--set", "coop.n_ctx=3"), "--set: unknown key coop.n_ctx; --help-all lists the keys"),
        (("sar-serve", "--set", "port"), "--set port: expected KEY=VALUE; --help-all lists the keys"),
        (("sar-serve", "--max-body", "3"), "--max-body is a key, not an option; use --set max-body=VALUE"),
        (("sar-train", "--config", "{wrong}"), "--config: unknown key shot; did you mean shots?"),
        (("sar-train", "--config", "{broken}"), "--config {broken}: not TOML: "),
        (("sar-train", "--config", "{folder}/none"), "--config {folder}/none: cannot be read: No such file or dir"),
        (("sar-bank", "--set", "ad.strict=1", "list", "x"), "--set: unknown key ad; did you mean add?"),
        (("sar-bank", "--set", "add.strickt=1", "list", "x"), "--set: unknown key strickt; did you mean strict?"),
        (("sar-bank", "--set", "bundel=1", "list", "x"), "--set: unknown key bundel; did you mean bundle?"),
    ],
)
def test_what_cannot_be_used_is_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("shot = 3\n")
    (tmp_path / "broken").write_text("shots = \n")
    paths = {"wrong": str(tmp_path / "wrong"), "broken": str(tmp_path / "broken"), "folder": str(tmp_path)}
    result = call(*(word.format(**paths) for word in words))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {message.format(**paths)}")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("sar-serve", ["--po"], ["--port"]),
        ("sar-serve", ["--max"], []),
        ("sar-serve", ["--help-"], ["--help-all"]),
        ("sar-serve", ["--set", "max-b"], ["max-batch=", "max-body="]),
        ("sar-serve", ["--set", "max-body=1", "--por"], ["--port"]),
        ("sar-bank", ["ad"], ["add"]),
        ("sar-bank", ["add", "x", "--photos-"], ["--photos-only"]),
        ("sar-train", ["--device", "c"], ["cpu", "cuda"]),
    ],
)
def test_shells_complete_options_and_keys(name: str, words: list[str], expected: list[str]) -> None:
    complete = BashComplete(COMMANDS[name], {}, name, "_COMPLETE")
    assert [item.value for item in complete.get_completions(words[:-1], words[-1])] == expected
