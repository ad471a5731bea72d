"""Local paths and URLs of storage that fsspec knows; servers of the web are left out on purpose.

A list of inputs may come from anybody, so a URL may name storage that the user's own keys open, and no more: no web
server that a stranger chose, no archive inside an archive, no cache.
"""

from __future__ import annotations

import re
from typing import IO, Any

from sar_infer.errors import InputError

PROTOCOLS = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "az": "adlfs",
    "abfs": "adlfs",
    "file": "fsspec",
    "memory": "fsspec",
}
"""URL schemes, and the package that each needs."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:://|::)")


def is_url(place: str) -> bool:
    """Whether it is a URL rather than a local path."""
    return _SCHEME.match(place) is not None


def check_url(url: str) -> None:
    """See that a URL is one of those that are read.

    Raises:
        InputError: it is not.
    """
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if scheme in ("http", "https"):
        raise InputError(
            f"{url}: web servers are not read; download the images, or name them in storage (s3://, gs://)"
        )
    if scheme not in PROTOCOLS or "::" in url:
        known = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise InputError(f"{url}: expected a local path or a URL of {known}")


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        InputError: not a URL that is read, a package is missing, or the storage refuses.
    """
    check_url(url)
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)  # a listing may be huge
    except ImportError:
        raise InputError(
            f"{url}: needs {_needed(url)}; pip install 'sar-clip[bulk]' {_needed(url)}".replace("' fsspec", "'")
        ) from None
    except Exception as error:  # every storage has errors of its own
        raise InputError(f"{url}: cannot be opened: {one_line(error)}") from None
    return system, str(path)


def open_binary(place: str) -> IO[bytes]:
    """A seekable stream of a local file or a URL.

    Raises:
        InputError: see ``filesystem``.
        OSError: it cannot be read; storage may raise errors of its own.
    """
    if not is_url(place):
        return open(place, "rb")  # noqa: PTH123 - the caller closes it
    system, path = filesystem(place)
    stream: IO[bytes] = system.open(path, "rb")
    return stream


def size_of(place: str) -> int:
    """Bytes of a local file or a URL.

    Raises:
        InputError: see ``filesystem``.
        OSError: it cannot be read; storage may raise errors of its own.
    """
    with open_binary(place) as stream:
        return stream.seek(0, 2)


def one_line(error: BaseException) -> str:
    """What an error says, for the end of a message."""
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(reason).split())[:200]


def _needed(url: str) -> str:
    return PROTOCOLS[url.partition(":")[0].lower()]
