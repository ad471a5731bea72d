"""Local paths, and URLs of storage that fsspec knows. Web servers are left out on purpose.

A list of inputs may come from anybody, so a URL may name storage that the user's own keys open, and nothing else: no
other web server, no archive inside an archive, no cache. The packages of storage retry failed requests.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import IO, Any

from sar_infer.errors import InputError, install, reason_of

PROTOCOLS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "file": "", "memory": ""}
"""URL schemes, and the package that each needs in addition to fsspec."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(?:://|::.*://)")


def is_url(location: str) -> bool:
    """Return whether it is a URL, not a local path."""
    return _SCHEME.match(location) is not None


def filesystem(url: str) -> tuple[Any, str]:
    """Return the fsspec file system of a URL, and the path in it.

    Raises:
        InputError: the URL is of a kind that is not read, a package is missing, or the storage refuses.
    """
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    if scheme in ("http", "https"):
        raise InputError(
            f"{url}: web servers are not read; download the images, or name them in storage (s3://, gs://)"
        )
    if scheme not in PROTOCOLS or "::" in url:
        protocols = ", ".join(f"{name}://" for name in PROTOCOLS)
        raise InputError(f"{url}: expected a local path or a URL of {protocols}")
    try:
        import fsspec

        system, path = fsspec.core.url_to_fs(url, use_listings_cache=False)  # a listing may be huge
    except ImportError:
        raise InputError(f"{url}: needs a package: {install('bulk', PROTOCOLS[scheme])}") from None
    except Exception as error:  # every storage has errors of its own
        raise InputError(f"{url}: cannot be opened: {reason_of(error)}") from None
    return system, str(path)


def open_binary(location: str) -> IO[bytes]:
    """Open a local file or a URL as a seekable stream.

    Raises:
        InputError: see ``filesystem``.
        OSError: it cannot be read, or is no regular file; storage may raise errors of its own.
    """
    if is_url(location):
        system, path = filesystem(location)
        stream: IO[bytes] = system.open(path, "rb")
        return stream
    if not stat.S_ISREG(Path(location).stat().st_mode):  # reading a pipe might never end
        raise OSError("not a file")
    return open(location, "rb")  # noqa: PTH123 - the caller closes it
