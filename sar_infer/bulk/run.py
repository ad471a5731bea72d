"""A bulk run: inputs are listed once, as chunks; processes write a part for each; then the output is closed.

A part holds the rows of one chunk and is committed by one rename or put: ``part-000017.parquet`` is chunk 17. The list
of chunks is written before all parts, so a run that resumes depends on nothing but a listing of its output. A run that
has ended lists in ``_SUCCESS.json`` in which chunks an outage (``OUTAGES``) set inputs aside; ``--resume`` removes
these parts first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, TypedDict

from sar_infer import __version__
from sar_infer.bulk.chunks import Chunk
from sar_infer.bulk.containers import OUTAGES, printable
from sar_infer.bulk.engine import part_name, run_local
from sar_infer.bulk.listing import InputSources
from sar_infer.bulk.progress import Progress
from sar_infer.bulk.rows import JsonLines, Parquet, RowFormat, check_parquet
from sar_infer.bulk.store import Store, open_store
from sar_infer.bulk.worker import Answerer, WorkerOptions
from sar_infer.errors import InputError, SarInferError, WriteError, install, reason_of

JOB, CHUNKS, REJECTED, SUCCESS = "_job.json", "_chunks.jsonl", "_rejected.jsonl", "_SUCCESS.json"
_PART = re.compile(r"part-(\d{6,})\.(?:jsonl|parquet)")


class Summary(TypedDict):
    """Counts of a run that has ended: inputs, with and without an answer, and parts, those of earlier runs too.

    ``seconds`` and ``rate`` (inputs a second) are of the last run.
    """

    inputs: int
    classified: int
    rejected: int
    chunks: int
    resumed: int
    seconds: float
    rate: float


def run(
    sources: InputSources,
    options: WorkerOptions,
    out: str,
    progress: Progress,
    *,
    parquet: bool = True,
    resume: bool = False,
    workers: int | None = 1,
    ray_address: str | None = None,
) -> Summary:
    """Classify everything that has no answer yet, then close the output.

    Args:
        sources: What to read.
        options: How to answer.
        out: Path or URL of the folder to write.
        progress: Notified of inputs and parts.
        parquet: Whether the parts are Parquet files, not JSON lines.
        resume: Continue an earlier run.
        workers: Processes, or Ray's tasks at a time; with Ray None is as many as the cluster has CPUs for.
        ray_address: Address of a Ray cluster; None = processes of this machine.

    Raises:
        InputError: the call contradicts itself or names something that does not exist; nothing was changed.
        WriteError: the output cannot be written; finished parts stay.
        SarInferError: see ``Answerer`` and ``run_local``.
    """
    if parquet:
        check_parquet()
    store = open_store(out)
    answerer = Answerer(options)
    if caution := answerer.classifier.choice.caution:
        progress.warn(caution)
    settings = answerer.settings() | {
        "sources": [printable(argument) for argument in sources.arguments],
        "column": options.column,
        "key_column": options.key_column,
        "chunk_size": sources.chunk_size,
        "format": "parquet" if parquet else "jsonl",
    }
    settings = json.loads(json.dumps(settings))
    metadata = settings | {"version": __version__, "encoder": answerer.classifier.bundle.manifest.encoder_digest}
    form: RowFormat = Parquet(answerer.columns, metadata) if parquet else JsonLines(answerer.columns)
    with store.locked():
        if ray_address is not None:
            from sar_infer.processes.cluster import connect

            connect(ray_address, "--address", f"--engine ray needs Ray: {install('ray')}")
        done, progress.total = _begun(store, settings, sources, progress.warn, resume=resume)

        def remaining() -> Iterator[Chunk]:
            for chunk in _listed(store):
                if chunk.number in done:
                    progress.keep(chunk.count or 0, before=True)
                else:
                    yield chunk

        work = remaining(), answerer.options, form, store
        try:
            if ray_address is not None:
                from sar_infer.bulk.ray import run_ray

                run_ray(*work, workers, progress)
            else:
                run_local(*work, workers or 1, progress)
        except SarInferError:
            _abandon(store)
            raise
        finally:
            progress.close()
        return _ended(store, form, settings, len(done), progress)


def _begun(
    store: Store, settings: Mapping[str, Any], sources: InputSources, warn: Callable[[str], None], *, resume: bool
) -> tuple[set[int], int | None]:
    """Claim the output: list the inputs, or look at what an earlier run has finished.

    Returns:
        The numbers of the chunks that are finished, and how many inputs all chunks have, if that is known before all
        are read.
    """
    names = store.names()
    done = {int(match[1]) for name in names if (match := _PART.fullmatch(name))}
    if JOB not in names and names - {CHUNKS}:
        raise InputError(f"{store.location}: not empty, and not the output of a bulk run; choose another --out")
    if JOB not in names or not (done or resume):
        return set(), _list(store, settings, sources, warn)
    if not resume:
        raise InputError(
            f"{store.location}: {len(done):,} chunks of an earlier run are there; continue it with --resume, or choose "
            "another --out"
        )
    try:
        record = _read(store, JOB)
        before, inputs = dict(record["settings"]), record["inputs"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{store.location}/{JOB}: damaged; choose another --out") from None
    if changed := [name for name in {**before, **settings} if before.get(name) != settings.get(name)]:
        shown = [[json.dumps(some.get(name), ensure_ascii=False) for some in (before, settings)] for name in changed]
        values = "; ".join(f"{name} was {a:.60}, now {b:.60}" for name, (a, b) in zip(changed, shown, strict=True))
        raise InputError(
            f"{store.location}: written with other settings ({values}); give the same, or choose another --out"
        )
    store.clear()
    if SUCCESS in names:
        try:
            again = {int(number) for number in _read(store, SUCCESS)["outages"]}
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{store.location}/{SUCCESS}: damaged; remove it, then --resume") from None
        for name in [name for name in names if (match := _PART.fullmatch(name)) and int(match[1]) in again]:
            store.discard(name)
        store.discard(SUCCESS)
        done -= again
    return done, inputs


def _list(store: Store, settings: Mapping[str, Any], sources: InputSources, warn: Callable[[str], None]) -> int | None:
    """Write the list of chunks, then the settings, which make the output that of a run; return the count of inputs."""
    inputs: int | None = 0
    empty = True

    def fill(stream: IO[bytes]) -> None:
        nonlocal inputs, empty
        for chunk in sources.chunks(warn):
            stream.write(chunk.line().encode("ascii"))
            empty = empty and chunk.count == 0
            inputs = None if inputs is None or chunk.count is None else inputs + chunk.count
        if empty:
            raise InputError(f"{', '.join(sources.arguments)}: no image in it")

    try:
        store.put(CHUNKS, fill)
        _write(store, JOB, {"format": 1, "inputs": inputs, "settings": settings})
    except BaseException:
        _abandon(store)
        raise
    return inputs


def _ended(store: Store, form: RowFormat, settings: Mapping[str, Any], resumed: int, progress: Progress) -> Summary:
    """Write the rejected inputs and the summary.

    Raises:
        WriteError: a part is missing or damaged, or a file cannot be written.
    """
    chunks = total = rejected = 0
    outages: list[int] = []

    def fill(stream: IO[bytes]) -> None:
        nonlocal chunks, total, rejected
        for chunk in _listed(store):
            name = part_name(chunk, form)
            try:
                with store.open(name) as part:
                    count, flaws = form.flaws(part)
                kinds = {flaw["error_kind"] for flaw in flaws}
                if count != (chunk.count or count) and "source" not in kinds:
                    raise ValueError(f"it has {count} of {chunk.count} rows")
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise WriteError(
                    f"{store.location}/{name}: damaged: {reason_of(error)}; remove it, then --resume"
                ) from None
            chunks, total, rejected = chunks + 1, total + count, rejected + len(flaws)
            outages.extend([chunk.number] * (not kinds.isdisjoint(OUTAGES)))
            stream.writelines(json.dumps(flaw, ensure_ascii=False).encode() + b"\n" for flaw in flaws)

    store.put(REJECTED, fill)
    summary: Summary = {
        "inputs": total,
        "classified": total - rejected,
        "rejected": rejected,
        "chunks": chunks,
        "resumed": resumed,
        "seconds": round(progress.seconds, 3),
        "rate": round(progress.inputs / max(progress.seconds, 1e-9), 2),
    }
    _write(store, SUCCESS, {"summary": summary, "outages": outages, "settings": settings})
    return summary


def _listed(store: Store) -> Iterator[Chunk]:
    with store.open(CHUNKS) as lines:
        for number, line in enumerate(lines):
            yield Chunk.parse(number, line)


def _abandon(store: Store) -> None:
    """Remove the traces of a run that has written no part."""
    if store.names() <= {JOB, CHUNKS}:
        for name in (JOB, CHUNKS):
            store.discard(name)


def _read(store: Store, name: str) -> Any:
    with store.open(name) as stream:
        return json.load(stream)


def _write(store: Store, name: str, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    store.put(name, lambda stream: stream.write(text.encode()))
