"""The form of every command: a short ``--help`` in groups, ``--help-all``, ``--config`` and ``--set``.

A value comes from the first of these that names it: an option, ``--set``, the environment, the file of ``--config``.
Without any of them it is the default. A setting that is tuned once is a `Key`: it has no option. Options that no group
names are shown by ``--help-all`` only.
"""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from sar_infer.cli.options import Refusal

_ALL, _SET, _TABLES = "sar_infer.all", "sar_infer.set", "sar_infer.tables"


class Key(click.Option):
    """A setting that is a key of ``--config`` and ``--set`` and has an environment variable, but is no option."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings | {"hidden": True})

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add nothing: the command line does not have it."""

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Return the key and where its value comes from: a variable, or the file of ``--config``."""
        source = ctx.get_parameter_source(self.name) if ctx and self.name else None
        origins = {None: "", ParameterSource.ENVIRONMENT: self.envvar, ParameterSource.DEFAULT_MAP: "--config"}
        origin = origins.get(source)
        return repr(self.opts[0][2:]) + (f" ({origin})" if origin else "")

    def record(self, ctx: click.Context) -> tuple[str, str]:
        """Return the key with the form of its value, and its help."""
        shown = copy.copy(self)
        shown.hidden, shown.secondary_opts = False, []  # with these, click names the flag as the default
        text = (shown.get_help_record(ctx) or ("", ""))[1].replace("[default: True]", "[default: true]")
        return f"{self.opts[0][2:]}={'true|false' if self.is_flag else self.make_metavar(ctx)}", text


def _keys(command: click.Command) -> dict[str, click.Option]:
    """Return the options and keys of a command by name, with underscores."""
    options = (one for one in command.params if isinstance(one, click.Option) and not one.is_eager)
    return {_name(flag): one for one in options for flag in one.opts if flag.startswith("--")}


def _name(key: str) -> str:
    return key.lstrip("-").replace("-", "_")


def _unknown(source: str, key: str, expected: Iterable[str]) -> Refusal:
    near = difflib.get_close_matches(_name(key), [*expected], n=1)
    hint = f"; did you mean {near[0].replace('_', '-')}?" if near else "; --help-all lists the keys"
    return Refusal(f"{source}: unknown key {key}{hint}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


class Command(click.Command):
    """A command with a short help and settings.

    Args:
        groups: What ``--help`` shows: names of parameters, separated by spaces, by heading.
        tables: True if dotted keys and tables are settings that the command reads with `tables`.
    """

    def __init__(self, *args: Any, groups: Mapping[str, str] | None = None, tables: bool = False, **more: Any) -> None:
        super().__init__(*args, **more)
        self.groups = {heading: names.split() for heading, names in (groups or {}).items()}
        self.tables = tables

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the parameters with ``--config``, ``--set`` and ``--help-all`` where they have something to do."""
        params = super().get_params(ctx)
        keys = any(isinstance(one, Key) for one in params)
        named = {name for names in self.groups.values() for name in names}
        more = any(isinstance(one, click.Option) and one.name not in named for one in params[:-1])
        configured = [_CONFIG, _SETTINGS] if keys or ctx.parent is None else []
        return [*params[:-1], *configured, *([_HELP_ALL] if more or ctx.parent is None else []), *params[-1:]]

    def values(self, ctx: click.Context, settings: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Return the values of parameters by name; tables go to the context.

        Raises:
            Refusal: a key is unknown or has a value of the wrong form.
        """
        keys, values = _keys(self), dict[str, Any]()
        for key, value in settings.items():
            option = keys.get(_name(key))
            if isinstance(value, Mapping):
                if not self.tables:
                    raise _unknown(source, f"{key}.{next(iter(value), '')}", keys)
                ctx.meta.setdefault(_TABLES, {}).setdefault(source, {}).setdefault(key, {}).update(value)
            elif option is None or option.name is None:
                raise _unknown(source, key, keys)
            elif option.multiple:
                values[option.name] = [_text(one) for one in (value if isinstance(value, list) else [value])]
            else:
                values[option.name] = ",".join(map(_text, value)) if isinstance(value, list) else _text(value)
        return values

    def make_parser(self, ctx: click.Context) -> Any:
        """Return a parser whose options include those of ``--set``, as if they had been typed."""
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def with_settings(args: list[str]) -> Any:
            try:
                options, rest, order = parse(args)
            except click.NoSuchOption as error:
                if isinstance(_keys(self).get(_name(error.option_name)), Key):
                    key = error.option_name.lstrip("-")
                    raise Refusal(f"{error.option_name} is a key, not an option; use --set {key}=VALUE") from None
                raise
            if not ctx.resilient_parsing:
                values = self.values(ctx, _parsed(options.get("set", ())), "--set")
                if isinstance(self, click.Group):
                    ctx.meta[_SET] = values
                else:
                    options = ctx.meta.get(_SET, {}).get(ctx.info_name, {}) | values | options
            return options, rest, order

        parser.parse_args = with_settings  # type: ignore[method-assign]
        return parser

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each group, and one for what all commands have; all options for ``--help-all``."""
        options = {one.name: one for one in self.get_params(ctx) if isinstance(one, click.Option)}
        sections = {heading: [options.pop(name, None) for name in names] for heading, names in self.groups.items()}
        last = [options.pop(one.name, None) for one in (_CONFIG, _SETTINGS, _HELP_ALL)]
        if ctx.meta.get(_ALL):
            last += [options.pop(name) for name, one in [*options.items()] if one.is_eager]
            sections["More options"] = [one for one in options.values() if not isinstance(one, Key)]
            sections["Keys of --config and --set"] = [one for one in options.values() if isinstance(one, Key)]
        for heading, shown in {**sections, "Settings and help": last}.items():
            records = [one.record(ctx) if isinstance(one, Key) else one.get_help_record(ctx) for one in shown if one]
            if any(records):
                with formatter.section(heading):
                    formatter.write_dl([record for record in records if record])


class Group(Command, click.Group):
    """A group with settings for its commands: ``KEY`` is for all that have it, ``COMMAND.KEY`` for one."""

    def values(self, ctx: click.Context, settings: Mapping[str, Any], source: str) -> dict[str, Any]:
        """Return the values of each command's parameters, by its name."""
        commands = {name: command for name in self.list_commands(ctx) if (command := self.get_command(ctx, name))}
        own = {name: command for name, command in commands.items() if isinstance(command, Command)}
        result: dict[str, dict[str, Any]] = {}
        for key, value in settings.items():
            table = isinstance(value, Mapping)
            names = [key] if table else [name for name, command in own.items() if _name(key) in _keys(command)]
            if not names or names[0] not in own:
                raise _unknown(source, key, own if table else {k for one in own.values() for k in _keys(one)})
            for name in names:
                values = own[name].values(ctx, value if table else {key: value}, source)
                result[name] = result.get(name, {}) | values if table else values | result.get(name, {})
        return result

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def tables(source: str) -> dict[str, dict[str, Any]]:
    """Return the tables of a source, ``--config`` or ``--set``, such as ``{"coop": {"n_ctx": "4"}}``."""
    return dict(click.get_current_context().meta.get(_TABLES, {}).get(source, {}))


def _parsed(settings: Iterable[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` and ``TABLE.KEY=VALUE``.

    Raises:
        Refusal: a text of another form.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        table, dot, key = name.partition(".")
        if not equals:
            raise Refusal(f"--set {setting}: expected KEY=VALUE; --help-all lists the keys")
        if dot:
            values.setdefault(table, {})[key] = value
        else:
            values[name] = value
    return values


def _read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None or ctx.resilient_parsing:
        return
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise Refusal(f"--config {path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # of UTF-8 and of TOML
        raise Refusal(f"--config {path}: not TOML: {error}") from None
    assert isinstance(ctx.command, Command)  # noqa: S101 - the option is added to no other
    ctx.default_map = {**(ctx.default_map or {}), **ctx.command.values(ctx, content, "--config")}


def _show_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    ctx.meta[_ALL] = True
    click.echo(ctx.get_help())
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            command = ctx.command.get_command(ctx, name)
            if command is not None and not command.hidden:
                inner = command.context_class(command, info_name=name, parent=ctx, **command.context_settings)
                click.echo(f"\n{inner.get_help()}")
    ctx.exit()


def _complete_key(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    names = (one.opts[0][2:] for one in _keys(ctx.command).values())
    return [CompletionItem(f"{name}=") for name in dict.fromkeys(names) if name.startswith(incomplete)]


def _setting(flag: str, text: str, **more: Any) -> click.Option:
    return click.Option([flag], is_eager=True, expose_value=False, allow_from_autoenv=False, help=text, **more)


_FILE = click.Path(path_type=Path)
_CONFIG = _setting("--config", "Read settings from this file.", type=_FILE, metavar="FILE.toml", callback=_read_config)
_SETTINGS = _setting(
    "--set", "Change a setting; repeatable.", multiple=True, metavar="KEY=VALUE", shell_complete=_complete_key
)
_HELP_ALL = _setting("--help-all", "Show all options and settings.", is_flag=True, callback=_show_all)
