"""``sar-serve``: parse options, open the bundle, listen. Heavy modules are imported after parsing."""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import os
import re
import signal
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer import __version__
from sar_infer.cli.command import Command, Key
from sar_infer.cli.options import CONTEXT, COUNT, Number, Refusal, model_options, one_blas_thread, option
from sar_infer.cli.variables import unknown_variables
from sar_infer.errors import InputError, SarInferError, install, one_line, raised_as, reason_of
from sar_infer.images.formats import IMAGE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from sar_infer.server.service import Service
    from sar_infer.server.settings import Settings

_MEMORY = "give it more memory, and 1 GB of address space (ulimit -v)"
GROUPS = {
    "Classes": "bundle bank banks",
    "Network": "host port api_key_file",
    "Running": "device workers check",
}
_MODULES = ("fastapi", "httptools", "prometheus_client", "python_multipart", "starlette", "uvicorn", "uvloop")
_UNCHANGED = ("bundle", "device", "precision", "threads", "max_batch", "metrics", "pages")
"""Options that the settings have by the same name."""
MIB = 2**20
DOORS = ("custom-vision", "photoprism")
"""Doors that ``--doors`` opens; the others of `sar_infer.doors` are always open."""
KEY = "SAR_API_KEY"
"""The environment variable of the key."""


@click.command(cls=Command, groups=GROUPS, context_settings=CONTEXT)
@model_options
@option("--bank", type=click.Path(), help="Bank file to serve. With a key it can be changed, and is made if missing.")
@option("--banks", type=click.Path(), help="Folder of bank files. ?bank=NAME asks for NAME.safetensors in it.")
@option("--doors", default="", help="APIs of other services to serve too, comma-separated: custom-vision, photoprism.")
@option("--host", default="127.0.0.1", help="Address to listen on.")
@option("--port", type=click.IntRange(0, 65535), default=8000, help="Port to listen on; 0: a free one.")
@option("--api-key-file", type=click.Path(), help="File of keys, one per line. Requests must have one of them.")
@option(
    "--allowed-host",
    multiple=True,
    metavar="NAME",
    help="Accept requests for this host name too, if there is no key; * accepts any. Repeatable.  "
    "[default: localhost, this machine's name and addresses]",
)
@option(
    "--cors-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Origin of web pages that may call the API, such as https://shop.example; * allows any. Repeatable.",
)
@option(
    "--workers",
    type=click.IntRange(min=0),
    help="Processes that decode and encode; 0: one process does all.  "
    "[default: 2, or a quarter of the cores if memory suffices; 0 on a GPU]",
)
@click.option("--check", is_flag=True, help="Verify and describe the bundle, then exit.")
@option("--threads", cls=Key, type=COUNT, help="Threads for a batch.  [default: cores / workers]")
@option(
    "--max-batch",
    cls=Key,
    type=COUNT,
    help="Most images in a batch.  [default: 1; 8 with a large encoder; 32 on a GPU]",
)
@option("--queue", cls=Key, type=COUNT, default=64, help="Most waiting images. More get status 429.")
@option("--max-body", cls=Key, type=COUNT, default=10, help="Most MiB in a request.")
@option("--max-images", cls=Key, type=COUNT, default=32, help="Most images in a request.")
@option("--max-megapixels", cls=Key, type=Number(min=0.001, max=50), default=50, help="Most megapixels of an image.")
@option("--max-classes", cls=Key, type=COUNT, default=1000, help="Most class names in a request.")
@option(
    "--banks-memory", cls=Key, type=COUNT, help="Most MiB for the banks of --banks.  [default: a quarter of the memory]"
)
@option(
    "--formats",
    cls=Key,
    default="JPEG,PNG,WEBP",
    help="Accepted formats. GIF, BMP, TIFF, HEIF and AVIF can be added.",
)
@option("--deadline", cls=Key, type=Number(min=0.01), default=30, help="Seconds until a request gets status 504.")
@option(
    "--image-timeout",
    cls=Key,
    type=Number(min=0.01),
    default=IMAGE_SECONDS,
    help="Seconds for a worker process to decode an image.",
)
@option("--body-timeout", cls=Key, type=Number(min=0.01), default=10, help="Seconds to receive a request body.")
@option("--drain", cls=Key, type=click.IntRange(min=0), default=20, help="Seconds to finish requests after SIGTERM.")
@option("--notice", cls=Key, type=Number(min=0), default=0, help="Seconds to serve as unready after SIGTERM.")
@option("--log-format", cls=Key, type=click.Choice(["text", "json"]), default="text", help="Log format.")
@option("--access-log/--no-access-log", cls=Key, default=True, help="Log each request.")
@option("--metrics/--no-metrics", cls=Key, default=True, help="Serve /metrics.")
@option("--pages/--no-pages", cls=Key, default=True, help="Serve /ui.")
@click.version_option(__version__, prog_name="sar-serve")
def main(**values: Any) -> None:
    """Serve a bundle over HTTP.

    \b
    sar-serve --bundle bundles/mine
    curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg \\
         localhost:8000/v1/classify

    Open /ui to try it. /openapi.json describes the API. Requests must have the key in the environment variable
    SAR_API_KEY. Without a key anybody can classify, and nobody can change classes or reload.

    SIGTERM finishes running requests and stops. SIGHUP opens the bundle again. Exit code: 0 after a stop; 2 if the
    call is wrong, and nothing was served.
    """  # noqa: D301 - \b is for click
    one_blas_thread()
    try:
        _serve(values)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _MODULES:
            raise
        raise Refusal(f"sar-serve needs {error.name}: {install('serve')}") from None
    except (ImportError, MemoryError, RuntimeError) as error:  # such as a library that cannot be mapped
        if isinstance(error, RuntimeError) and "start new thread" not in str(error):
            raise
        for worker in multiprocessing.active_children():  # one that starts would print that its parent is gone
            worker.kill()
        raise Refusal(f"sar-serve cannot be loaded: {reason_of(error)}; {_MEMORY}") from None
    except SarInferError as error:
        raise Refusal(str(error)) from None


def _serve(values: dict[str, Any]) -> None:
    from sar_infer.encoders.waiting import in_background, leave, waited
    from sar_infer.server.service import Service
    from sar_infer.server.startup import bind, set_up_logging

    signal.signal(signal.SIGTERM, lambda *_: leave(0))  # until uvicorn handles it; the kernel ignores it for process 1
    settings, doors = _settings(values), _doors(values["doors"])
    if values["check"]:
        settings = dataclasses.replace(settings, key=None)  # so that nothing is written
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image becomes its error
    set_up_logging(values["log_format"], values["access_log"])
    log = logging.getLogger("sar_infer.server")
    for line in unknown_variables(main, KEY):
        log.warning(line)
    # Worker processes inherit it. Where the kernel gives huge pages to those who ask, they have fewer page faults.
    os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    listener = None if values["check"] else bind(values["host"], values["port"])
    try:
        meanwhile = _load if listener is not None else lambda: None
        service = waited(in_background(lambda: Service(settings, meanwhile)))  # a signal need not wait for it
    except KeyboardInterrupt:
        click.echo("Aborted!", err=True)
        leave(1)
    if caution := service.engine.classifier.choice.caution:
        log.warning(caution)
    if listener is None:
        from sar_infer.bundle.card import describe

        click.echo(describe(service.engine.bundle), nl=False)
        if settings.bank is not None:
            names = service.engine.banks.bank.names
            shown = ", ".join(names[:12]) + ", …" * (len(names) > 12)
            click.echo(one_line(f"{'bank':<13} {settings.bank}, {len(names):,} classes: {shown}", None))
        service.close()
        return
    if settings.bank and not settings.key:
        log.warning("--bank without a key: only sar-bank can change the classes")
    elif settings.bank and not settings.bank.exists():
        served = f"the {len(service.engine.banks.bank.names)} classes of the bundle are served until the first change"
        log.warning("%s does not exist yet; %s", settings.bank, served)
    _load()(service, doors, listener, values["drain"], values["notice"])
    leave(0)  # even if a worker's graph is still running


def _load() -> Callable[[Service, frozenset[str], socket, int, float], None]:
    """Return what serves with some of ``DOORS``; importing it takes as long as worker processes to start."""
    from sar_infer import doors
    from sar_infer.server.run import serve

    def serve_with(service: Service, names: frozenset[str], listener: socket, drain: int, notice: float) -> None:
        opened = [door for name, door in doors.DOORS.items() if name in names or name not in DOORS]
        serve(service, opened, listener, drain, notice)

    return serve_with


def _settings(values: dict[str, Any]) -> Settings:
    from sar_infer.images.formats import FORMATS
    from sar_infer.server.settings import Limits, Settings

    for name in ("bundle", "bank", "banks", "host"):  # an empty host would be every address of this machine
        if values[name] == "":  # as of a shell variable that is not set
            raise InputError(f"--{name}: expected a value, got an empty text")
    if values["banks"] and not Path(values["banks"]).is_dir():
        raise InputError(f"--banks: {values['banks']}: no such folder; make it, and put bank files into it")
    formats = tuple(part.strip().upper() for part in values["formats"].split(",") if part.strip())
    if not formats or not set(formats) <= set(FORMATS):
        raise InputError(f"formats: expected some of {', '.join(FORMATS)}, got {values['formats']!r}")
    if "HEIF" in formats:
        from sar_infer.images.load import read_heif

        read_heif()
    limits = Limits(
        body_bytes=values["max_body"] * MIB,
        body_seconds=values["body_timeout"],
        seconds=values["deadline"],
        images=values["max_images"],
        pixels=int(values["max_megapixels"] * 1e6),
        formats=formats,
        classes=values["max_classes"],
        queue=values["queue"],
        image_seconds=values["image_timeout"],
    )
    return Settings(
        bank=values["bank"] and Path(values["bank"]),
        banks=values["banks"] and Path(values["banks"]),
        banks_memory=values["banks_memory"] and values["banks_memory"] * MIB,
        key=_key(values["api_key_file"]),
        hosts=tuple(name.lower() for name in (values["host"], *_hosts(values["allowed_host"]))),
        origins=_origins(values["cors_origin"]),
        workers=0 if values["check"] else values["workers"],
        limits=limits,
        **{name: values[name] for name in _UNCHANGED},
    )


def _doors(names: str) -> frozenset[str]:
    doors = frozenset(name.strip() for name in names.split(",") if name.strip())
    if not doors <= {*DOORS}:
        raise InputError(f"--doors: expected some of {', '.join(DOORS)}, got {names!r}")
    return doors


def _hosts(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if not re.fullmatch(r"\*|[\w.-]+", name, re.ASCII):
            raise InputError(f"--allowed-host: expected a host name without scheme and port, or *, got {name!r}")
    return names


def _origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    """Return the origins as browsers write them: in lower case."""
    for origin in origins:
        if not re.fullmatch(r"\*|https?://([\w.-]+|\[[\da-f:]+\])(:\d+)?", origin, re.ASCII | re.IGNORECASE):
            raise InputError(f"--cors-origin: expected scheme and host without path, or *, got {origin!r}")
    return tuple(origin.lower() for origin in origins)


def _key(path: str | None) -> str | None:
    """Return the keys of the file, else of the environment, one per line; refuse if there is none."""
    if path is not None:
        if KEY in os.environ:
            raise InputError(f"two keys, {KEY} and --api-key-file: give one")
        with raised_as(InputError, f"--api-key-file: {path} cannot be read", (OSError, UnicodeDecodeError)):
            text = Path(path).read_text("utf-8")
    elif (variable := os.environ.get(KEY)) is None:
        return None
    else:
        text = variable
    keys = [key for line in text.split("\n") if (key := line.strip())]
    if not keys or not all(key.isascii() and key.isprintable() for key in keys):
        fault = "has characters that no header carries" if keys else "is empty"
        raise InputError(
            f"the key {fault}: set {KEY} or --api-key-file to one of printable ASCII, or neither to have none"
        )
    return "\n".join(keys)


if __name__ == "__main__":
    main()
