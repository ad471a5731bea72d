"""One process of this machine at an output, or one for each shard of a folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from sar_infer.bulk.outputs.job import WHOLE, Job
from sar_infer.bulk.outputs.store import LocalFolder
from sar_infer.errors import WriteError
from sar_infer.files import locked


@contextlib.contextmanager
def alone(job: Job, out: str, *, whole: bool) -> Iterator[None]:
    """Keep others out. In storage nobody is: two who do the same put the same parts.

    Args:
        job: Whose output; its shard lets other shards in.
        out: The output as the user calls it.
        whole: Let nobody in, whatever the shard.

    Raises:
        WriteError: another process is there.
    """
    with contextlib.ExitStack() as locks:
        if isinstance(job.store, LocalFolder):
            folder, shared = job.store.folder.resolve(), not whole and job.shard != WHOLE
            try:
                locks.enter_context(locked(folder, shared=shared))
                if shared:
                    locks.enter_context(locked(folder / job.shard.named("lock")))
            except BlockingIOError:
                raise WriteError(f"{out}: another process is changing it; try again when it is done") from None
        yield
