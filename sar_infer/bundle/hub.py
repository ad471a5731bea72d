"""Bundles on a Hugging Face hub: fetched into the cache of `huggingface_hub`, and pushed as one commit.

That library (the extra ``hub``) is imported on use. Its own settings hold: ``HF_TOKEN``, ``HF_HOME``, ``HF_ENDPOINT``,
``HF_HUB_OFFLINE`` and the rest. Only the files that a manifest lists are fetched, and none unless the sizes of all are
those that it gives; whoever opens the bundle checks them.
"""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sar_infer.bundle.manifest import CARD, MANIFEST, Manifest
from sar_infer.errors import BundleError, InputError, SarInferError, WriteError, install, reason_of

SCHEME = "hf://"
_NAME = r"[\w.-]+/[\w.-]+"
_LOCATION = re.compile(rf"{SCHEME}({_NAME})(?:@([^\s@]+))?", re.ASCII)
_NEWEST = "main"
_README, _ATTRIBUTES = "README.md", ".gitattributes"
_MOST_FILES = 100
"""The most files of a bundle; an export writes about a dozen."""
_MOST_MANIFEST = 2**24
"""The most bytes of a manifest; an export writes some thousand."""
_SIGN_IN = "set HF_TOKEN, or run `hf auth login`"


def fetch(location: str) -> tuple[Path, str]:
    """Return the folder in the hub's cache that holds a bundle's files, and the location of their commit.

    Files that are not there are downloaded. A commit that is in the cache needs no network; a branch or tag that cannot
    be looked up is taken as it was last seen.

    Args:
        location: ``hf://USER/NAME@REVISION``; without a revision, the newest files.

    Raises:
        InputError: the location is not understood, or `huggingface_hub` is not installed.
        BundleError: there is no such repository or revision, no access to it, no bundle in it, or a file whose size
            is not that of the manifest; then nothing is fetched.
    """
    with _asked(location) as (hub, repository, revision):
        size = _size(hub, repository, revision, MANIFEST)
        if size is not None and size > _MOST_MANIFEST:
            raise BundleError(f"{location}: {MANIFEST} has {size:,} bytes; expected {_MOST_MANIFEST:,} at most")
        manifest = Path(_file(hub, repository, revision, MANIFEST))
        commit = manifest.parent.name
        files = Manifest.parse(manifest.read_text("utf-8"), f"{location}: {MANIFEST}").files
        if len(files) > _MOST_FILES:
            raise BundleError(f"{location}: {MANIFEST} lists {len(files):,} files; expected {_MOST_FILES} at most")
        for name, entry in files.items():
            size = _size(hub, repository, commit, name)
            if size is not None and size != entry.size:
                raise BundleError(
                    f"{location}: {name} has {size:,} bytes on the hub, and {entry.size:,} by {MANIFEST}; nothing was "
                    "fetched; push the bundle again"
                )
        for name in files:
            _file(hub, repository, commit, name)
    return manifest.parent, f"{SCHEME}{repository}@{commit}"


def list_files(location: str) -> tuple[str, dict[str, int]]:
    """Return the location of a repository's commit, and the size in bytes of each of its files.

    Raises:
        InputError: see ``fetch``.
        BundleError: there is no such repository or revision, no access to it, or the hub leaves out commit or sizes.
    """
    with _asked(location) as (hub, repository, revision):
        info = hub.HfApi(library_name="sar-clip").model_info(repository, revision=revision, files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings or ()}
    if not info.sha or not all(isinstance(size, int) for size in sizes.values()):
        raise BundleError(
            f"{location}: the hub states no commit, or no size of a file; download the files and name their folder"
        )
    return f"{SCHEME}{repository}@{info.sha}", sizes


def fetch_file(location: str, name: str, size: int) -> Path:
    """Return the path in the hub's cache of one file that ``list_files`` has listed.

    Raises:
        BundleError: the hub does not have it, or has another size of it; then it is not fetched.
    """
    with _asked(location) as (hub, repository, commit):
        if (offered := _size(hub, repository, commit, name)) not in (None, size):
            raise BundleError(f"{location}: {name} has {offered:,} bytes on the hub, and {size:,} in its list")
        return Path(_file(hub, repository, commit, name))


def check_push(repository: str) -> None:
    """Check, before a bundle is made, that it can be pushed as far as that is known without a network.

    Raises:
        InputError: the name is not USER/NAME, `huggingface_hub` is not installed, or there is no token.
    """
    if re.fullmatch(_NAME, repository, re.ASCII) is None:
        raise InputError(f"--push: expected USER/NAME, got {repository!r:.80}")
    if _library("--push").get_token() is None:
        raise InputError(f"--push: there is no token for the hub: {_SIGN_IN}")


def push(path: Path, manifest: Manifest, repository: str, *, progress: bool = False) -> str:
    """Make a repository's newest commit hold a bundle and nothing else, and return the location that opens this commit.

    A repository that does not exist is made, and private. The model card is also its README.

    Args:
        path: The folder of a bundle that has been opened.
        manifest: Its manifest.
        repository: USER/NAME.
        progress: Show a bar for each upload on stderr.

    Raises:
        InputError: see ``check_push``.
        WriteError: the hub refuses or cannot be reached; the repository's files are as they were.
    """
    check_push(repository)
    hub = _library("--push")
    failed = f"{path} was written but not pushed to {repository}"
    with _explained(failed, WriteError), contextlib.ExitStack() as stack:
        if not progress:
            stack.enter_context(hub.utils.disable_progress_bars())
        api = hub.HfApi(library_name="sar-clip")
        api.create_repo(repository, private=True, exist_ok=True)
        files = {name: path / name for name in (*manifest.files, MANIFEST)}
        if CARD in files:
            files[_README] = files[CARD]
        stale = {*api.list_repo_files(repository)} - {*files, _ATTRIBUTES}
        commit = api.create_commit(
            repository,
            [
                *(hub.CommitOperationAdd(name, str(file)) for name, file in files.items()),
                *(hub.CommitOperationDelete(name) for name in sorted(stale)),
            ],
            commit_message=f"Bundle {manifest.digest[:12]}",
        )
    return f"{SCHEME}{repository}@{commit.oid}"


@contextlib.contextmanager
def _asked(location: str) -> Iterator[tuple[Any, str, str]]:
    """Yield the library, the repository and the revision of a location; errors of the block become one line."""
    match = _LOCATION.fullmatch(location)
    if match is None:
        raise InputError(f"{location}: expected {SCHEME}USER/NAME@REVISION")
    hub = _library(location)
    with _explained(location, BundleError):
        yield hub, match[1], match[2] or _NEWEST


def _file(hub: Any, repository: str, revision: str, name: str) -> str:
    path: str = hub.hf_hub_download(repository, name, revision=revision, library_name="sar-clip")
    return path


def _size(hub: Any, repository: str, revision: str, name: str) -> int | None:
    """Return the size of a file that has to be fetched, as the hub gives it; None if it is in the cache."""
    file = hub.hf_hub_download(repository, name, revision=revision, library_name="sar-clip", dry_run=True)
    return int(file.file_size) if file.will_download else None


def _library(asked_by: str) -> Any:
    try:
        return importlib.import_module("huggingface_hub")
    except ModuleNotFoundError:
        raise InputError(f"{asked_by}: needs huggingface_hub: {install('hub')}") from None


@contextlib.contextmanager
def _explained(task: str, kind: type[SarInferError]) -> Iterator[None]:
    """Turn whatever the hub, the network or the disk say into one line."""
    from huggingface_hub import errors, get_token

    access = f"; if it is private, {_SIGN_IN}" if get_token() is None else ", or the token does not open it"
    try:
        yield
    except SarInferError:
        raise
    except errors.GatedRepoError:
        raise kind(f"{task}: access has to be asked for on the page of the repository, and a token to be set") from None
    except errors.RepositoryNotFoundError:
        raise kind(f"{task}: there is no such repository{access}") from None
    except errors.RevisionNotFoundError:
        raise kind(f"{task}: the repository has no such revision") from None
    except errors.LocalEntryNotFoundError as error:
        raise kind(f"{task}: not in the cache, and {_unreachable(error)}") from None
    except errors.RemoteEntryNotFoundError as error:
        missing = str(error.response.url).rpartition("/")[2]
        raise kind(f"{task}: has no {missing}; expected a bundle, as sar-export --push writes it") from None
    except errors.HfHubHTTPError as error:
        said = error.server_message or error.response.reason_phrase
        raise kind(f"{task}: the hub refused with status {error.response.status_code} ({said:.200})") from None
    except UnicodeDecodeError as error:
        raise kind(f"{task}: {MANIFEST} is not UTF-8 text ({error})") from None
    except Exception as error:  # of the network, of the disk
        raise kind(f"{task}: {reason_of(error.__cause__ or error)}") from None


def _unreachable(error: BaseException) -> str:
    """Return why a hub was not asked, or did not answer."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    cause = error.__cause__
    if isinstance(cause, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to fetch it"
    return f"the hub cannot be reached ({reason_of(cause or error)})"
