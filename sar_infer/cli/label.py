"""``sar-label``: name the photos of a heap in the browser, until a classifier is good enough."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from sar_infer import __version__
from sar_infer.cli.command import Command
from sar_infer.cli.options import CONTEXT, Refusal, one_blas_thread, reported
from sar_infer.errors import SarInferError, install

if TYPE_CHECKING:
    from socket import socket

    from sar_infer.labelling import Labelling

GROUPS = {"Answers": "bank answers by bundle", "Page": "port no_browser", "Instead of the page": "folders list_file"}
_HOST = "127.0.0.1"


@click.command(cls=Command, groups=GROUPS, context_settings=CONTEXT)
@click.argument("photos", type=click.Path())
@click.option("--bank", required=True, type=click.Path(), help="Bank file that the page saves.")
@click.option("--answers", type=click.Path(), help="File of the answers.  [default: BANK with the suffix .answers]")
@click.option("--by", default="", show_default=False, metavar="NAME", help="Who answers; stored with each answer.")
@click.option("--bundle", type=click.Path(), help="Bundle folder.  [default: the shipped one]")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; 0: a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address, and open no browser.")
@click.option("--folders", type=click.Path(), metavar="OUT", help="Copy the answered photos into a folder per class.")
@click.option(
    "--list", "list_file", type=click.Path(), metavar="OUT.csv", help="Write the answers as class,photo,group."
)
@click.version_option(__version__, prog_name="sar-label")
def main(**values: Any) -> None:
    """Make a classifier from a heap of photos: answer questions on a page in the browser.

    \b
    sar-label photos/ --bank shop.safetensors

    PHOTOS is a folder, a text file with one path per line, or a CSV file with the columns class and photo. Each answer
    is stored before the next question; the same command goes on. Only this machine can open the page.

    Exit code: 0 after Ctrl-C; 2 if the call is wrong.
    """  # noqa: D301 - \b is for click
    one_blas_thread()
    try:
        _label(values)
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise Refusal(f"sar-label needs {error.name}: {install('serve')}") from None


def _label(values: dict[str, Any]) -> None:
    with reported(values["photos"]):
        from sar_infer.labelling import Labelling

        names = ("bank", "answers", "by", "bundle")
        with closing(Labelling(values["photos"], **{name: values[name] for name in names})) as heap:
            if values["folders"] or values["list_file"]:
                heap.wait()
                if values["folders"]:
                    click.echo(f"{values['folders']}: {heap.folders(values['folders']):,} photos")
                if values["list_file"]:
                    click.echo(f"{values['list_file']}: {heap.list(values['list_file']):,} photos")
                return
            heap.wait(1)  # a heap without a photo that can be read ends here
            _serve(heap, values)


def _serve(heap: Labelling, values: dict[str, Any]) -> None:
    import secrets
    import socket
    import webbrowser

    import uvicorn

    from sar_infer.labelling.routes import application

    token = secrets.token_urlsafe(24)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((_HOST, values["port"]))
        except OSError as error:
            raise SarInferError(f"cannot listen on port {values['port']}: {error.strerror}; try --port 0") from None
        listener.listen()
        port = listener.getsockname()[1]
        address = f"http://{_HOST}:{port}/?token={token}"
        click.echo(address)
        sys.stdout.flush()
        windows = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        if windows and not values["no_browser"]:  # without windows a browser would take the terminal
            webbrowser.open(address)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        _run(uvicorn, application(heap, values["bank"], port, token), listener)
    click.echo(f"Everything is stored. To go on: {shlex.join(['sar-label', *sys.argv[1:]])}", err=True)


def _run(uvicorn: Any, app: Any, listener: socket) -> None:
    quiet = {"log_level": "warning", "access_log": False, "server_header": False, "lifespan": "off", "ws": "none"}
    server = uvicorn.Server(uvicorn.Config(app, proxy_headers=False, timeout_graceful_shutdown=2, **quiet))
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    main()
