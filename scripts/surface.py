"""List everything that users can hold on to, one line each, so that a change of it shows in a diff.

    python -m scripts.surface            writes docs/surface.txt
    python -m scripts.surface --check    compares with the committed list; exit code 1 if they differ

Commands with their options, routes with their parameters, public names with their signatures, and every key of every
file and answer. Keys are not read off the code: the script trains on the shipped features for one epoch, exports,
classifies, edits a bank and asks a server, in a scratch folder, and walks what came out. Places in files and answers
are written as paths: ``[]`` is any entry of a list, ``{}`` any key of a mapping whose keys are data (class names, say).
"""

from __future__ import annotations

import base64
import contextlib
import csv
import difflib
import importlib
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from scripts import docs_commands

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "surface.txt"
CLASSES = ("latte art", "pour-over coffee")
KEY = "surface-key-surface-key"
_DATA_KEYS = re.compile(
    r"\.(classes|per_class\.\w+|per_class_counts\.\w+|files|thresholds|versions|phases|aliases|settings|counts)$"
)
"""Mappings whose keys are data."""


def main(arguments: list[str]) -> int:
    """Write the list, or compare it with the committed one."""
    text = "\n".join(lines()) + "\n"
    if "--check" not in arguments:
        TARGET.write_text(text, "utf-8")
        return 0
    committed = TARGET.read_text("utf-8")
    changes = difflib.unified_diff(committed.splitlines(), text.splitlines(), "committed", "now", n=0, lineterm="")
    if not (changed := "\n".join(changes)):
        return 0
    print(f"{changed}\nThe surface has changed. If it should have: make surface, and say so in the CHANGELOG.")
    return 1


def lines() -> list[str]:
    """Return the whole list, sorted within its parts."""
    with tempfile.TemporaryDirectory() as scratch:
        keys = sorted(set(files_and_answers(Path(scratch))))
    sections = (commands(), routes(), public_names(), keys)
    return [line for section in sections for line in sorted(section)]


# ---------------------------------------------------------------------------------------------------------- commands
def commands() -> Iterator[str]:
    """Yield a line for each command, argument and option of the installed programs."""
    programs = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    for name in programs:
        for command, context in docs_commands.commands(name):
            yield from _command(command, context)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"command {context.command_path}"
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        names = " ".join(sorted([*parameter.opts, *parameter.secondary_opts]))
        shape = "|".join(map(str, getattr(parameter.type, "choices", ()))) or parameter.type.name.replace(" ", "-")
        notes = [
            "several" * (parameter.multiple or parameter.nargs == -1),
            "required" * parameter.required,
            f"env={_environment(parameter, context)}" * bool(_environment(parameter, context)),
            f"default={_default(parameter)}" * (_default(parameter) is not None),
        ]
        kind = "option" if isinstance(parameter, click.Option) else "argument"
        yield " ".join([kind, context.command_path, names, shape, *filter(None, notes)])


def _environment(parameter: click.Parameter, context: click.Context) -> str:
    """Return the environment variable that sets a parameter, as click derives it."""
    variable = parameter.envvar
    if variable or not (isinstance(parameter, click.Option) and parameter.allow_from_autoenv):
        return variable if isinstance(variable, str) else " ".join(variable or ())
    return f"{context.auto_envvar_prefix}_{parameter.name}".upper() if context.auto_envvar_prefix else ""


def _default(parameter: click.Parameter) -> Any:
    """Return the default value where click knows one; callables and click's own mark for none are none."""
    default = parameter.to_info_dict().get("default")
    return default if isinstance(default, str | int | float | list | tuple) and default not in (False, (), []) else None


# ------------------------------------------------------------------------------------------------------------ routes
def routes() -> Iterator[str]:
    """Yield a line for each route of the server, its parameters and bodies."""
    with _service() as service:
        from sar_infer.server.app import build_app

        app: Any = build_app(service)
        while not hasattr(app, "openapi"):
            app = app._app  # the frame around it
        described = app.openapi()["paths"]
        for route in _walk(app.router):
            for method in sorted(route.methods):
                yield f"route {method} {route.path}"
                entry = described.get(route.path, {}).get(method.lower(), {})
                for parameter in entry.get("parameters", ()):
                    yield f"route {method} {route.path} {parameter['in']} {parameter['name']}"
                for kind in entry.get("requestBody", {}).get("content", {}):
                    yield f"route {method} {route.path} body {kind}"


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


# ------------------------------------------------------------------------------------------------- files and answers
def files_and_answers(folder: Path) -> Iterator[str]:
    """Yield a line for each place in what the programs write and answer."""
    images = _images(folder / "images")
    run, bundle, bank = folder / "run", folder / "bundle", folder / "bank.safetensors"
    yield from _key_lines("sar-train", _json("sar-train", "demo", "--epochs", "1", "--out", run))
    yield from _folder("run", run)
    yield from _key_lines("sar-export", _json("sar-export", run, "--out", bundle))
    yield from _folder("bundle", bundle)
    for name in ("show", "verify"):
        yield from _key_lines(f"sar-bundle {name}", _json("sar-bundle", name, bundle))
    yield from _classified(folder, images, bundle)
    yield from _bank(bank, bundle)
    yield from _served(folder, images)


def _classified(folder: Path, images: Path, bundle: Path) -> Iterator[str]:
    call = ("sar-classify", images, "--bundle", bundle, "--unknown", "--coverage", "0.9", "--explain", "--top-k", "2")
    for form in ("json", "jsonl"):
        for document in _documents(_run(*call, "--format", form, codes=(0, 1))):
            yield from _key_lines(f"sar-classify {form}", document)
    for column in next(csv.reader(io.StringIO(_run(*call, "--format", "csv", codes=(0, 1))))):
        yield f"key sar-classify csv {column}"
    yield from _key_lines("sar-classify info", _json("sar-classify", "--bundle", bundle, "--info"))
    for form in ("parquet", "jsonl"):
        out = folder / f"bulk-{form}"
        _run(*call, "--out", out, "--format", form, codes=(0, 1))
        yield from _folder(f"bulk {form}", out)


def _bank(bank: Path, bundle: Path) -> Iterator[str]:
    common = ("--bundle", bundle, "--format", "json")
    changes = {
        "add": (*CLASSES, "tea cup = tea cup | cup of tea"),
        "alias": (CLASSES[0], "milk art"),
        "set": (CLASSES[0], "--threshold", "0.3"),
        "rename": (CLASSES[1], "filter coffee"),
        "list": (),
        "nearest": ("coffee", "-k", "2"),
        "lint": ("SKU-12345",),
        "remove": ("filter coffee",),
        "history": (),
        "verify": (),
        "rollback": ("--steps", "1"),
    }
    for name, arguments in changes.items():
        for document in _documents(_run("sar-bank", name, bank, *arguments, *common, codes=(0, 1))):
            yield from _key_lines(f"sar-bank {name}", document)
    yield from _file("bank", bank)
    freeze = ("sar-bundle", "freeze", bundle, "--bank", bank, "--out", bank.with_name("frozen"))
    yield from _key_lines("sar-bundle freeze", _json(*freeze))
    _run("sar-bank", "add", other := bank.with_name("other.safetensors"), "matcha", *common)
    for name in ("diff", "merge"):
        for document in _documents(_run("sar-bank", name, bank, other, *common, codes=(0, 1))):
            yield from _key_lines(f"sar-bank {name}", document)


def _served(folder: Path, images: Path) -> Iterator[str]:
    """Ask a server once for each kind of answer; in the process, through its application."""
    from starlette.testclient import TestClient

    _run("sar-bank", "add", bank := folder / "served.safetensors", CLASSES[0], "--format", "json")
    with _service(bank) as service:
        from sar_infer.server.app import build_app

        client = TestClient(build_app(service), headers={"Authorization": f"Bearer {KEY}"}, base_url="http://localhost")
        data = next(images.iterdir()).read_bytes()
        image, text = {"content-type": "image/png"}, {"content-type": "application/json"}
        encoded = base64.b64encode(data).decode()
        calls: Iterable[tuple[str, str, dict[str, Any]]] = (
            ("PUT", "/v1/classes/latte%20art", {"json": {"phrases": ["latte art"]}}),
            ("GET", "/v1/classes", {}),
            ("POST", "/v1/classify?explain=true&unknown=true&coverage=0.9", {"content": data, "headers": image}),
            ("POST", "/v1/classify", {"json": {"images": [encoded], "classes": list(CLASSES)}, "headers": text}),
            ("POST", "/v1/classify", {"json": {"imagse": []}, "headers": text}),
            ("POST", "/v1/embeddings", {"json": {"input": list(CLASSES), "model": "sar-clip"}}),
            ("POST", "/v1/zero-shot-image-classification",
             {"json": {"inputs": encoded, "parameters": {"candidate_labels": list(CLASSES)}}}),
            ("GET", "/v1/model", {}),
            ("GET", "/v2", {}),
            ("GET", "/v2/models/sar-clip", {}),
            ("GET", "/v2/models/sar-clip/ready", {}),
            ("GET", "/healthz", {}),
            ("GET", "/readyz", {}),
            ("GET", "/openapi.json", {}),
            ("DELETE", "/v1/classes/latte%20art", {}),
            ("GET", "/nowhere", {}),
        )  # fmt: skip
        for method, path, request in calls:
            answer = client.request(method, path, **request)
            where = f"{method} {path.partition('?')[0]} {answer.status_code}"
            if "json" in answer.headers.get("content-type", "") and path != "/openapi.json":
                yield from _key_lines(where, answer.json())
        schemas = client.get("/openapi.json").json()["components"]["schemas"]
        for name, schema in schemas.items():
            yield from (f"key schema {name} {field}" for field in schema.get("properties", ()))
        for line in client.get("/metrics").text.splitlines():
            if line.startswith("# TYPE "):
                yield f"metric {line.removeprefix('# TYPE ')}"


def _service(bank: Path | None = None) -> Any:
    """Return a context manager around a service of the shipped bundle that takes changes."""
    from sar_infer.bundle.bundle import default_bundle
    from sar_infer.server.service import Service
    from sar_infer.server.settings import Settings

    return contextlib.closing(Service.open(Settings(bundle=str(default_bundle()), key=KEY, bank=bank)))


# ------------------------------------------------------------------------------------------------------------- parts
def _images(folder: Path) -> Path:
    """Make a folder of one image and one file that is none."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        sys.exit("expected scikit-image, for an image: pip install '.[dev]'")
    folder.mkdir()
    shutil.copy(Path(package.origin).parent / "data" / "chelsea.png", folder)
    (folder / "damaged.png").write_bytes(b"no image")
    return folder


def _run(*command: object, codes: tuple[int, ...] = (0,)) -> str:
    """Return what a program of this environment prints; end if its exit code is none of ``codes``."""
    program = [str(Path(sys.executable).parent / str(command[0])), *map(str, command[1:])]
    done = subprocess.run(program, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode not in codes:
        sys.exit(f"{' '.join(program)} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def _json(*command: object) -> Any:
    return json.loads(_run(*command, "--format", "json"))


def _documents(text: str) -> Iterator[Any]:
    """Yield the JSON documents of a text: one, or one per line."""
    try:
        yield json.loads(text)
    except json.JSONDecodeError:
        yield from map(json.loads, text.splitlines())


def _folder(name: str, folder: Path) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            shown = re.sub(r"part-[\w-]+", "part-N", str(file.relative_to(folder)))
            yield f"file {name}/{shown}"
            yield from _file(f"{name}/{shown}", file)


def _file(name: str, file: Path) -> Iterator[str]:
    """Yield a line for each key of a JSON, JSON Lines, safetensors or Parquet file."""
    if file.suffix in (".json", ".jsonl"):
        for document in _documents(file.read_text("utf-8")):
            yield from _key_lines(name, document)
    elif file.suffix == ".safetensors":
        from safetensors import safe_open

        with safe_open(file, "numpy") as tensors:
            for key in tensors.keys():  # noqa: SIM118 - no mapping
                yield f"tensor {name} {key}"
            for key, value in (tensors.metadata() or {}).items():
                yield f"key {name} metadata {key}"
                if value.startswith(("{", "[")):
                    yield from _key_lines(f"{name} metadata {key}", json.loads(value))
    elif file.suffix == ".parquet":
        import pyarrow.parquet as pq

        for field in pq.read_schema(file):
            yield f"key {name} {field.name} {field.type}"


def _key_lines(name: str, value: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each place in a JSON document."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            shown = "{}" if _DATA_KEYS.search(path) else key
            yield from _key_lines(name, inner, f"{path}.{shown}")
    elif isinstance(value, list):
        for inner in value:
            yield from _key_lines(name, inner, f"{path}[]")
    if path:
        yield f"key {name} {path.removeprefix('.')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
