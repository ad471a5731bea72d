"""Settings to try for a contender, and its command line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import TypeVar

Value = TypeVar("Value")

BATCHES = (1, 8, 16)


@dataclass(frozen=True)
class Setting:
    """One way to run.

    Attributes:
        mode: ``loop`` decodes a batch, then encodes it, in one thread; ``stream`` is `sar_infer.Classifier.stream`,
            which decodes ahead in threads; ``loader`` is torch's DataLoader with processes that decode ahead.
        batch: Photos that are encoded together.
        processes: Copies of the whole contender, each with its share of the threads.
        workers: Of the DataLoader.
        channels_last: torch's memory format for convolutions.
    """

    mode: str
    batch: int
    processes: int = 1
    workers: int = 0
    channels_last: bool = False

    def arguments(self) -> list[str]:
        """For a contender's command line."""
        numbers = {key: int(value) for key, value in asdict(self).items() if key != "mode"}
        options = [f"--{key.replace('_', '-')}={value}" for key, value in numbers.items()]
        return ["--mode", self.mode, *options]

    def words(self) -> str:
        """For the table."""
        words = f"{self.mode}, batch {self.batch}"
        words += f", {self.workers} decoding processes" if self.workers else ""
        words += f", {self.processes} processes" if self.processes > 1 else ""
        return words + (", channels last" if self.channels_last else "")


def of_open_clip(cores: int, convolutional: bool) -> list[Setting]:
    """Return settings that may be best for torch: small batches for many small steps, larger ones for products."""
    settings = []
    for channels_last in (False, True) if convolutional else (False,):
        for batch in BATCHES[:2] if convolutional else BATCHES[1:]:
            settings.append(Setting("loop", batch, channels_last=channels_last))
            settings += [Setting("loop", batch, cores, 0, channels_last)] if cores > 1 else []
    return [*settings, Setting("loader", 8, 1, cores, convolutional)]


def of_ours(cores: int) -> list[Setting]:
    """Return settings as `sar-classify` has them for some images and for bulk: a worker on each core."""
    return [Setting("stream", 8), *(Setting("loop", batch, cores) for batch in BATCHES[:2])]


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Lists of ``size`` values, the last one perhaps shorter."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch
