"""List the public API, one line each, so that a change of it shows in a diff.

    python -m scripts.surface    writes docs/surface.txt

Commands with their options, routes with their parameters and the fields of their bodies, metrics, and public names with
their signatures.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from sar_infer.cli import variables
from sar_infer.cli.command import Key
from scripts import docs_commands

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "surface.txt"


def main() -> None:
    """Write the list, sorted within its parts."""
    parts = (commands(), routes(), public_names(), answers())
    TARGET.write_text("".join(f"{line}\n" for part in parts for line in sorted(set(part))), "utf-8")


# ---------------------------------------------------------------------------------------------------------- commands
def commands() -> Iterator[str]:
    """Yield a line for each command, argument and option of the installed programs."""
    programs = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    for name in programs:
        for command, context in docs_commands.commands(name):
            yield from _command(command, context)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"command {context.command_path}"
    for parameter in command.get_params(context):
        if "--help" in parameter.opts:
            continue
        names = " ".join(sorted([*parameter.opts, *parameter.secondary_opts]))
        variable = variables.variable(parameter, context)
        shape = "|".join(map(str, getattr(parameter.type, "choices", ()))) or parameter.type.name.replace(" ", "-")
        notes = [
            "several" * (parameter.multiple or parameter.nargs == -1),
            "required" * parameter.required,
            f"env={variable}" * bool(variable),
            f"default={_default(parameter)}" * (_default(parameter) is not None),
        ]
        kind = "key" if isinstance(parameter, Key) else "option" if isinstance(parameter, click.Option) else "argument"
        yield " ".join([kind, context.command_path, names, shape, *filter(None, notes)])


def _default(parameter: click.Parameter) -> Any:
    """Return the default value where click knows one; callables and click's own mark for none are none."""
    default = parameter.to_info_dict().get("default")
    return default if isinstance(default, str | int | float | list | tuple) and default not in (False, (), []) else None


# ------------------------------------------------------------------------------------------------------------ routes
def routes() -> Iterator[str]:
    """Yield a line for each route of the server, its parameters and bodies."""
    from sar_infer.doors import DOORS
    from sar_infer.server.front import routed

    with _service() as service:
        app = routed(service, [*DOORS.values()])
        described = app.openapi()["paths"]
        for route in _walk(app.router):
            for method in sorted(route.methods):
                path = re.sub(r":\w+}", "}", route.path)  # {name:text} is {name} there
                yield f"route {method} {path}"
                entry = described.get(path, {}).get(method.lower(), {})
                for parameter in entry.get("parameters", ()):
                    yield f"route {method} {path} {parameter['in']} {parameter['name']}"
                for kind in entry.get("requestBody", {}).get("content", {}):
                    yield f"route {method} {path} body {kind}"


def _walk(router: Any) -> Iterator[Any]:
    for route in router.routes:
        if inner := getattr(route, "original_router", None):
            yield from _walk(inner)
        else:
            yield route


# ------------------------------------------------------------------------------------------------------ public names
def public_names() -> Iterator[str]:
    """Yield a line for each public name of the packages, and for what its class offers."""
    for package in ("sar_infer", "sar_train"):
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            yield f"name {package}.{name}{_signature(value)}"
            if inspect.isclass(value):
                for member in sorted(set(dir(value)) - set(dir(Exception))):
                    if not member.startswith("_"):
                        attribute = inspect.getattr_static(value, member)
                        yield f"name {package}.{name}.{member}{_signature(getattr(attribute, '__func__', attribute))}"


def _signature(value: Any) -> str:
    try:
        return re.sub(r"( object)? at 0x\w+", "", str(inspect.signature(value))) if callable(value) else ""
    except ValueError:
        return ""


# --------------------------------------------------------------------------------------------------- answers, metrics
def answers() -> Iterator[str]:
    """Yield a line for each field of the server's schemas, and for each of its metrics."""
    from starlette.testclient import TestClient

    from sar_infer.doors import DOORS
    from sar_infer.server.front import build_app

    with _service() as service:
        client = TestClient(build_app(service, [*DOORS.values()]), base_url="http://localhost")
        for name, schema in client.get("/openapi.json").json()["components"]["schemas"].items():
            yield from (f"key schema {name} {field}" for field in schema.get("properties", ()))
        for line in client.get("/metrics").text.splitlines():
            if line.startswith("# TYPE "):
                yield f"metric {line.removeprefix('# TYPE ')}"


@contextlib.contextmanager
def _service() -> Iterator[Any]:
    """Open a service of the shipped bundle."""
    from sar_infer.bundle.bundle import default_bundle
    from sar_infer.server.service import Service
    from sar_infer.server.settings import Settings

    with contextlib.closing(Service(Settings(bundle=str(default_bundle())))) as service:
        yield service


if __name__ == "__main__":
    main()
