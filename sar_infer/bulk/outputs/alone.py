"""One process of this machine at an output, or one for each shard of a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from sar_infer.bulk.outputs.job import WHOLE, Job
from sar_infer.bulk.outputs.store import LocalFolder
from sar_infer.errors import WriteError
from sar_infer.storage.files import locked


@contextlib.contextmanager
def alone(job: Job, out: str, file: Path | None = None) -> Iterator[None]:
    """Keep others out, by a lock in the folder or beside the file. In storage nobody is: two may put the same parts.

    Args:
        job: Whose output; its shard lets other shards of a folder in.
        out: The output as the user calls it.
        file: The output, where it is a single file.

    Raises:
        WriteError: another process is there, or the lock cannot be taken.
    """
    with contextlib.ExitStack() as locks:
        try:
            if file is not None:
                locks.enter_context(locked(file.parent.resolve() / file.name))
            elif isinstance(job.store, LocalFolder):
                folder = job.store.folder.resolve()
                locks.enter_context(locked(folder / "run", shared=job.shard != WHOLE))
                if job.shard != WHOLE:
                    locks.enter_context(locked(folder / job.shard.named("run")))
        except BlockingIOError:
            raise WriteError(f"{out}: another process is changing it; try again when it is done") from None
        yield
