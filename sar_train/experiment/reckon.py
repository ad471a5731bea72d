"""Reckon what planned runs take on a GPU, before it is rented: from FLOPs, kernel launches and photos to decode.

Nothing here is measured on such a card. A step takes the longest of three: its FLOPs at `UTILISATION` of the card's
peak, the launches of its kernels one after the other, which bounds the small steps of text-side methods, and the
photos that it decodes. Activations are counted as in Korthikanti et al., "Reducing Activation Recomputation in Large
Transformer Models" (arXiv 2205.05198): 34 bytes a token, layer and unit of width in half precision; here twice that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sar_train.config.run import RunConfig
from sar_train.data.layouts import LAYOUTS, find
from sar_train.experiment.job import Job
from sar_train.methods.base import methods
from sar_train.regularisers.sar import SARConfig

CARDS = {"A100": 312e12, "H100": 989e12}
"""GPUs, with their dense FLOPs a second in half precision, as their data sheets promise."""
UTILISATION = 0.3
LAUNCH = 10e-6
"""Seconds a kernel, launched from Python without a CUDA graph."""
KERNELS, FORWARD_KERNELS = 175, 60
"""For a layer of the text tower, forward and backward, and forward alone; torch's profiler counts them in our step."""
DECODE = 10e-3
"""Seconds a photo and decoder, and `DECODERS` work at once (`sar_train.data.features`)."""
DECODERS = 4
NAME_TOKENS, SHARED_TOKENS = 6, 20
"""Tokens of a name behind the shared prefix, and of the prefix."""
LAYERS, TEXT_WIDTH, IMAGE_WIDTH, IMAGE_TOKENS = 12, 512, 768, 197
"""Of CLIP ViT-B/16."""
TEXT_WEIGHTS, IMAGE_MACS = 12 * LAYERS * TEXT_WIDTH**2, 17.6e9
"""Weights that a token meets in the text tower, and multiplications of one photo."""
ACTIVATION_BYTES = 68
RESIDENT = 2 * 2**30
"""Bytes of weights in float32, the libraries' own and the allocator's slack."""


@dataclass(frozen=True)
class Reckoned:
    """Time and memory that runs take.

    Attributes:
        runs: how many.
        steps: of training, over all runs.
        hours: on each card, by its name, one run after the other.
        memory: GiB at the largest run.
    """

    runs: int
    steps: int
    hours: dict[str, float]
    memory: float

    def __str__(self) -> str:
        took = {name: f"{h:.0f} h" if h > 2 else f"{max(1, 60 * h):.0f} min" for name, h in self.hours.items()}
        hours = ", ".join(f"{time} on one {name}" for name, time in took.items())
        return (
            f"{self.runs} runs, {self.steps:,} steps: estimated, not measured: about {hours}, {self.memory:.0f} GiB of "
            "its memory and 4 CPU cores"
        )


@dataclass(frozen=True)
class _Work:
    """Work that is done ``times`` times: FLOPs, kernels and photos to decode each time."""

    times: int
    flops: float
    kernels: int = 0
    photos: float = 0

    def seconds(self, peak: float) -> float:
        """Return the time on a card of so many FLOPs a second."""
        longest = max(self.flops / (UTILISATION * peak), self.kernels * LAUNCH, self.photos * DECODE / DECODERS)
        return self.times * longest


def reckon(jobs: Sequence[Job]) -> Reckoned:
    """Reckon runs of base-to-new or all classes on known datasets under ViT-B/16.

    Args:
        jobs: the runs; features of a dataset are encoded once for each seed and number of shots, test photos once.
    """
    work: list[_Work] = []
    encoded: set[tuple[object, ...]] = set()
    steps, memory = 0, 0.0
    for job in jobs:
        config = job.config
        layout = LAYOUTS[find(config.data) or config.data]
        trained = layout.classes if config.protocol == "all" else (layout.classes + 1) // 2
        for key, photos in (
            ((config.data,), sum(layout.counts[1:])),
            ((config.data, config.seed, config.shots), trained * config.shots * config.views),
        ):
            if key not in encoded:
                encoded.add(key)
                work.append(_Work(photos, 2 * IMAGE_MACS, photos=1))
        training, used = _training(config, trained)
        steps, memory = steps + training.times, max(memory, used)
        work += [training, *_evaluation(config, trained, layout.classes, layout.counts[2])]
    hours = {name: sum(item.seconds(peak) for item in work) / 3600 for name, peak in CARDS.items()}
    return Reckoned(len(jobs), steps, hours, (RESIDENT + memory) / 2**30)


def _training(config: RunConfig, classes: int) -> tuple[_Work, float]:
    """Return the work of a run's steps, and the bytes of activations that one step keeps."""
    kind = methods.get(config.method)
    schedule = kind.schedule
    batch, epochs = config.batch_size or schedule.batch_size, config.epochs or schedule.epochs
    subset = config.section("sar", SARConfig).subset if config.sar else 0.0
    names = classes + round(subset * classes if subset < 1 else subset)
    prompts = batch if kind.per_image else 1
    tokens = prompts * (names * NAME_TOKENS + SHARED_TOKENS)
    activations = tokens * TEXT_WIDTH * LAYERS * ACTIVATION_BYTES
    flops = 4.0 * tokens * TEXT_WEIGHTS  # the weights are frozen: backward makes gradients of activations alone
    kernels, photos = KERNELS * LAYERS, 0
    if "image" in kind.towers:
        flops += 3 * 2 * IMAGE_MACS * batch  # forward and backward, and forward without prompts
        activations += batch * IMAGE_TOKENS * IMAGE_WIDTH * LAYERS * ACTIVATION_BYTES
        kernels, photos = 2 * kernels, batch
    return _Work(epochs * max(1, classes * config.shots // batch), flops, kernels, photos), activations


def _evaluation(config: RunConfig, base: int, classes: int, photos: int) -> list[_Work]:
    """Return the work on test photos whose features are not cached, or that have prompts of their own."""
    kind = methods.get(config.method)
    work = []
    if "image" in kind.towers:
        work.append(_Work(photos, 2 * IMAGE_MACS, photos=1))
    if kind.per_image:
        flops = 2.0 * classes * NAME_TOKENS * TEXT_WEIGHTS
        work.append(_Work(photos, flops, 2 * FORWARD_KERNELS * LAYERS if base < classes else FORWARD_KERNELS * LAYERS))
    return work
