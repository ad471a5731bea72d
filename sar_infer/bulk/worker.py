"""Answer inputs with rows in one thread; each process of a pool holds one worker."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from sar_infer._arrays import Floats
from sar_infer.bank import ClassBank
from sar_infer.bulk.chunks import Chunk, batches
from sar_infer.bulk.containers import MOST_BYTES, Flaw, Item
from sar_infer.bulk.locations import filesystem, is_url
from sar_infer.bulk.rows import Columns, EmbeddingType, RowFormat, answered, flawed
from sar_infer.bundle.bank_file import banks_by_name
from sar_infer.classifier import Classifier
from sar_infer.classify.decision import Decide, Decision, by_bank
from sar_infer.encoders.precision import PrecisionChoice
from sar_infer.encoders.sessions import Device
from sar_infer.errors import BankError, BundleError, DeviceError, ImageError, InputError, reason_of
from sar_infer.images.formats import IMAGE_SECONDS
from sar_infer.images.load import TOO_LITTLE_MEMORY
from sar_infer.images.prefetch import decode_image
from sar_infer.images.preprocess import CROPS, images_together
from sar_infer.processes.signals import deadline
from sar_infer.results import PLAIN, DecisionOptions
from sar_infer.storage.strict_json import canonical_digest
from sar_infer.text.names import Phrases

_TRANSFERS = 16
"""Objects that one worker fetches from storage at the same time."""
_TOO_LARGE = Flaw("size", f"too large: more than {MOST_BYTES} bytes")


@dataclass(frozen=True)
class WorkerOptions:
    """Settings by which every worker answers, as plain values, since workers run in other processes.

    Attributes:
        bundle: Folder, the same path for all workers, or a place on a hub; None = the one that ships.
        bank: Bank file to use instead of the bundle's.
        classes: Phrases by name, in addition to the bank's.
        only: Choose only from ``classes``; None decides as `build_class_set` does.
        top_k: Classes of a row.
        decision: Output in addition to the classes.
        embedding: Include the image's unit row, in this type.
        batch_size: Images encoded together.
        device: Where to encode.
        threads: Threads of the encoder.
        precision: ``fp32``, or smaller graphs of the bundle.
        image_timeout: Seconds after which a process that is still decoding one image is ended.
        column: Column of the images in Parquet files.
        key_column: Column of their keys; None = ``FILE#ROW``.
        bank_digest: Checksum of the bank file, as the run began with it, or names and checksums of several; workers
            refuse another.
        banks: Several bank files, each of which gets a column; ``bank`` is then the first.
    """

    bundle: str | None = None
    bank: str | None = None
    classes: Phrases | None = None
    only: bool | None = None
    top_k: int = 5
    decision: DecisionOptions = PLAIN
    embedding: EmbeddingType | None = None
    batch_size: int = 16
    device: Device = "auto"
    threads: int | None = 1
    precision: PrecisionChoice = "fp32"
    image_timeout: float = IMAGE_SECONDS
    column: str = "image"
    key_column: str | None = None
    bank_digest: str | None = None
    banks: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnsweredRows:
    """Rows of some inputs, in order and ready to be written.

    Attributes:
        packed: The rows, in the form of the output.
        inputs: How many rows.
        rejected: How many of them have no answer.
    """

    packed: Any
    inputs: int
    rejected: int


class Answerer:
    """An open bundle with its classes.

    Attributes:
        classifier: The bundle.
        options: The options, with everything pinned that other processes could find changed.
        columns: The columns of a row.

    Raises:
        SarInferError: the bundle, the bank, a class name or a setting cannot be used.
    """

    def __init__(self, options: WorkerOptions) -> None:
        warnings.filterwarnings("ignore", module="PIL")  # what matters about an image becomes its flaw
        self.classifier = Classifier.open(
            options.bundle, options.device, options.bank, options.threads, options.precision
        )
        self._manifest = self.classifier.bundle.manifest
        bank, decision = self.classifier.bank, options.decision
        banks = banks_by_name(options.banks, self.classifier.bundle)
        if taken := set(banks) & {"key", "embedding", "error", "error_kind"}:
            raise InputError(f"a bank cannot be named {min(taken)}, as another column is; rename its file")
        digest = ", ".join(f"{name} {one.digest}" for name, one in banks.items()) or bank.digest
        if options.bank_digest not in (None, digest):
            raise BankError(
                f"{', '.join(options.banks) or options.bank}: was changed since this run began; run again, or leave "
                "the bank as it is until the run has ended"
            )
        self.options = dataclasses.replace(
            options,
            bundle=self.classifier.bundle.origin or options.bundle,  # whatever a hub has by then
            precision=cast("PrecisionChoice", self.classifier.choice.precision),
            bank_digest=digest,
        )

        def decide(bank: ClassBank) -> Decision:
            classes = self.classifier.class_set(options.classes, options.only, bank)
            return self.classifier.decide(classes, options.top_k, decision)

        self._decide: Decide = by_bank(banks, decide) if banks else decide(bank)
        self.columns = Columns(
            decision.coverage is not None,
            decision.explain,
            options.embedding,
            self._manifest.embed_dim,
            decision.several,
            tuple(banks),
        )

    def settings(self) -> dict[str, Any]:
        """Return everything that rows depend on, as plain values, with digests instead of contents."""
        options = self.options
        phrases = {name: list(phrases) for name, phrases in (options.classes or {}).items()}
        return {
            "bundle": self._manifest.digest,
            "bank": options.bank_digest,
            "classes": canonical_digest(phrases) if phrases else None,
            "only": options.only,
            "precision": options.precision,
            "top_k": options.top_k,
            **dataclasses.asdict(options.decision),
            "embeddings": options.embedding,
        }

    def answer(self, items: Sequence[Item], form: RowFormat) -> AnsweredRows:
        """Return the rows of some inputs. An image that takes too long to decode ends this process.

        Raises:
            DeviceError: the encoder failed, for lack of memory perhaps.
        """
        decoded = [self._decode(content) for content in fetched(items)]
        pixels = [content for content in decoded if not isinstance(content, Flaw)]
        try:
            embeddings = self.classifier.embed_inputs(pixels)
        except BundleError:
            raise
        except Exception as error:  # what onnxruntime raises shares no base class
            raise DeviceError(
                f"the encoder failed: {reason_of(error)}; fewer --workers or a smaller --batch-size take less memory"
            ) from None
        step = len(CROPS) if self.columns.several else 1
        results = zip(self._decide(embeddings), embeddings[::step], strict=True)
        rows = [
            flawed(item.key, content, self.columns)
            if isinstance(content, Flaw)
            else answered(item.key, *next(results), self.columns)
            for item, content in zip(items, decoded, strict=True)
        ]
        return AnsweredRows(form.pack(rows), len(rows), len(rows) - len(pixels))

    def _decode(self, content: str | bytes | Flaw) -> Floats | Flaw:
        if isinstance(content, Flaw):
            return content
        try:
            with deadline(self.options.image_timeout):
                return decode_image(content, self._manifest.preprocess, several=self.columns.several)
        except ImageError as error:
            return Flaw(error.kind, str(error))
        except MemoryError:
            return Flaw("size", TOO_LITTLE_MEMORY)


def fetched(items: Sequence[Item]) -> list[str | bytes | Flaw]:
    """Return local paths and bytes unchanged, and the content of what is in storage, fetched several at a time."""
    sources = [item.source for item in items]
    if not any(isinstance(source, str) and is_url(source) for source in sources):
        return [_checked(source) for source in sources]
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        return list(pool.map(_checked, sources))


def _checked(source: str | bytes | Flaw) -> str | bytes | Flaw:
    if not isinstance(source, str):
        return source
    try:
        if not is_url(source):
            file = Path(source)
            return _TOO_LARGE if file.is_file() and file.stat().st_size > MOST_BYTES else source
        system, path = filesystem(source)
        content: bytes = system.cat_file(path, start=0, end=MOST_BYTES + 1)
        return content if len(content) <= MOST_BYTES else _TOO_LARGE
    except InputError as error:
        return Flaw("unreadable", str(error).removeprefix(f"{source}: "))
    except Exception as error:  # every storage has errors of its own
        final = isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)) or not is_url(source)
        return Flaw("unreadable" if final else "source", f"cannot be read: {reason_of(error)}")


def begin(options: WorkerOptions, form: RowFormat) -> Callable[..., AnsweredRows | None]:
    """Open the bundle in a process, and return what answers chunks there, batch by batch.

    With arguments it opens a chunk; it returns the next rows of the chunk, None at its end:

    - chunk: The chunk; without arguments the one that is open.
    - done: How many inputs of it to pass over.
    - careful: Up to which number inputs are answered one at a time.
    - flaws: Why inputs get no answer, by number.

    Raises:
        SarInferError: see ``Answerer``.
    """
    answerer = Answerer(options)
    answerer.classifier.start()
    opened: Iterator[list[Item]] = iter(())

    def answer(
        chunk: Chunk | None = None, done: int = 0, careful: int = 0, flaws: Mapping[int, Flaw] | None = None
    ) -> AnsweredRows | None:
        nonlocal opened
        if chunk is not None:
            items = enumerate(chunk.items(options.column, options.key_column))
            rest = (
                Item(item.key, flaws[number]) if flaws and number in flaws else item
                for number, item in items
                if number >= done
            )
            singles = batches(itertools.islice(rest, max(0, careful - done)), 1)
            together = images_together(options.batch_size, several=options.decision.several)
            opened = itertools.chain(singles, batches(rest, together))
        batch = next(opened, None)
        return None if batch is None else answerer.answer(batch, form)

    return answer
