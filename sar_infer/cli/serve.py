"""``sar-serve``: parse options, open the bundle, listen. Heavy modules are imported after parsing."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sar_infer import __version__
from sar_infer.cli.options import Number, Refusal, one_blas_thread, option
from sar_infer.errors import InputError, SarInferError

if TYPE_CHECKING:
    from sar_infer.server.settings import Settings

_MODULES = ("fastapi", "httptools", "prometheus_client", "python_multipart", "starlette", "uvicorn", "uvloop")
MIB = 2**20


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@option("--bundle", type=click.Path(), help="Bundle folder.  [default: the one that ships with sar-clip]")
@option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0 takes a free one.")
@option("--state", type=click.Path(), help="Folder for classes that are added at run time.  [default: none]")
@option("--api-key-file", type=click.Path(), help="File with the key that requests must carry.")
@option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to run.")
@option("--precision", type=click.Choice(["fp32", "fp16", "int8", "auto"]), default="fp32", show_default=True,
        help="Smaller graphs that the bundle has; auto: int8 on a CPU, fp16 on a GPU, where it has them.")  # fmt: skip
@option(
    "--workers", type=click.IntRange(min=1), help="Batches that run at once.  [default: 2, or a quarter of the cores]"
)
@option("--threads", type=click.IntRange(min=1), help="Threads of one batch.  [default: cores / workers]")
@option("--max-batch", type=click.IntRange(min=1), help="Images of a batch at most.  [default: measured at the start]")
@option("--decoders", type=click.IntRange(min=0),
        help="Threads that decode ahead; 0: workers do it.  [default: 0, one a core with a GPU]")  # fmt: skip
@option("--decode-memory", type=click.IntRange(min=1),
        help="MiB for decoding; other images wait.  [default: what the memory limit and the model leave]")  # fmt: skip
@option("--queue", type=click.IntRange(min=1), default=64, show_default=True, help="Images inside at most; then 429.")
@option("--max-body", type=click.IntRange(min=1), default=10, show_default=True, help="MiB of a request.")
@option("--max-images", type=click.IntRange(min=1), default=32, show_default=True, help="Images of a request.")
@option("--max-megapixels", type=Number(min=0.001, max=50), default=50, show_default=True, help="Of an image.")
@option("--max-classes", type=click.IntRange(min=1), default=1000, show_default=True, help="Class names of a request.")
@option("--formats", default="JPEG,PNG,WEBP", show_default=True, help="Image formats taken; also GIF, BMP, TIFF.")
@option("--deadline", type=Number(min=0.01), default=30, show_default=True, help="Seconds of a request.")
@option("--body-timeout", type=Number(min=0.01), default=10, show_default=True, help="Seconds for a body to come.")
@option("--drain", type=click.IntRange(min=0), default=20, show_default=True, help="Seconds to end on SIGTERM.")
@option("--notice", type=Number(min=0), default=0, show_default=True,
        help="Seconds between not being ready and closing the port on SIGTERM.")  # fmt: skip
@option("--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Of stderr.")
@option("--access-log/--no-access-log", default=True, show_default=True, help="A line for each request.")
@option("--metrics/--no-metrics", default=True, show_default=True, help="Serve /metrics.")
@option("--pages/--no-pages", default=True, show_default=True, help="Serve /ui and /docs.")
@click.option("--check", is_flag=True, help="Open and verify the bundle, say what it is, and exit.")
@click.version_option(__version__, prog_name="sar-serve")
def main(**values: Any) -> None:
    """Serve a bundle over HTTP.

    \b
    sar-serve --bundle exports/mine
    curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg localhost:8000/v1/classify

    /ui is a page to try it, /docs describes the API. The environment variable SAR_API_KEY holds the key that requests
    must carry; without one everybody is answered, and nobody can change classes or reload.

    SIGTERM drains and stops, SIGHUP opens the bundle's path again. Exit code: 0 after a stop, 2 if nothing was served
    because something in the call is wrong.
    """  # noqa: D301 - \b is for click
    one_blas_thread()
    try:
        _serve(values)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _MODULES:
            raise
        raise Refusal(f"sar-serve needs {error.name}: pip install 'sar-clip[serve]'") from None
    except SarInferError as error:
        raise Refusal(str(error)) from None


def _serve(values: dict[str, Any]) -> None:
    from sar_infer.encoders.waiting import in_background, leave, waited
    from sar_infer.server.run import bind, serve, set_up_logging
    from sar_infer.server.service import Service

    signal.signal(signal.SIGTERM, lambda *_: leave(0))  # until uvicorn handles it; the kernel ignores it for process 1
    settings = _settings(values)
    warnings.filterwarnings("ignore", module="PIL")  # what matters about an image becomes its error
    set_up_logging(values["log_format"], values["access_log"])
    listener = None if values["check"] else bind(values["host"], values["port"])
    try:
        service = waited(in_background(lambda: Service.open(settings)))  # a signal need not wait for it
    except KeyboardInterrupt:
        click.echo("Aborted!", err=True)
        leave(1)
    if listener is None:
        from sar_infer.artefact.describe import describe

        click.echo(describe(service.engine.bundle), nl=False)
        service.close()
        return
    if settings.state and not settings.key:
        logging.getLogger("sar_infer.server").warning(
            "--state without a key: nobody can change classes; set SAR_API_KEY"
        )
    serve(service, listener, values["drain"], values["notice"])
    leave(0)  # even if a worker's graph is still running


def _settings(values: dict[str, Any]) -> Settings:
    from sar_infer.images.formats import FORMATS
    from sar_infer.server.settings import Limits, Settings

    formats = tuple(part.strip().upper() for part in values["formats"].split(",") if part.strip())
    if not formats or not set(formats) <= set(FORMATS):
        raise InputError(f"--formats: expected some of {', '.join(FORMATS)}, got {values['formats']!r}")
    limits = Limits(
        body_bytes=values["max_body"] * MIB,
        body_seconds=values["body_timeout"],
        seconds=values["deadline"],
        images=values["max_images"],
        pixels=int(values["max_megapixels"] * 1e6),
        formats=formats,
        classes=values["max_classes"],
        queue=values["queue"],
    )
    return Settings(
        bundle=Path(values["bundle"]) if values["bundle"] else None,
        state=Path(values["state"]) if values["state"] else None,
        key=_key(values["api_key_file"]),
        device=values["device"],
        precision=values["precision"],
        threads=values["threads"],
        workers=values["workers"],
        max_batch=values["max_batch"],
        decoders=values["decoders"],
        decode_memory=values["decode_memory"] and values["decode_memory"] * MIB,
        metrics=values["metrics"],
        pages=values["pages"],
        limits=limits,
    )


def _key(path: str | None) -> str | None:
    """Return the key from the file, else the environment; an empty key is refused."""
    if path is not None:
        if "SAR_API_KEY" in os.environ:
            raise InputError("two keys, SAR_API_KEY and --api-key-file: give one")
        try:
            key = Path(path).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--api-key-file: {path} cannot be read ({error})") from None
    elif (given := os.environ.get("SAR_API_KEY")) is None:
        return None
    else:
        key = given.strip()
    if not key or not key.isascii() or not key.isprintable():
        what = "has characters that no header carries" if key else "is empty"
        raise InputError(
            f"the key {what}: set SAR_API_KEY or --api-key-file to one in ASCII, or neither to ask for none"
        )
    return key


if __name__ == "__main__":
    main()
