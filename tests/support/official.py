"""Learning problems on which this project and the official trainers must give the same numbers.

Everything comes from `noise`, whose numbers are the same on every machine and under every version of torch and numpy:
the weights of a CLIP, the images, and the start values that a method draws at random. `ours` solves a case with this
project's code; `tests/parity/make_official.py` solves it with the official code and writes the golden numbers.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor

from sar_train.clip import backbone as backbones
from sar_train.clip.backbone import Backbone
from sar_train.data.layouts import LAYOUTS
from sar_train.data.task import Task
from sar_train.methods.base import PromptMethod, Schedule, Setup, methods
from sar_train.training import loop
from sar_train.training.prompted import PromptedCLIP
from sar_train.training.state import State, start

FOLDER = Path(__file__).parents[1] / "parity" / "official"
BASE = ("face", "dollar_bill", "gerenuk", "saxophone", "motorbike")
NEW = ("water lilly", "stop_sign", "Boeing 737-800")
EPOCHS = 4
LABELS = (0, 1, 2, 3, 4, 0)
"""One batch holds all images, so that no random order has a part in the numbers."""


@dataclass(frozen=True)
class Case:
    """One method on one dataset's templates.

    Attributes:
        name: of the case and of its golden file.
        method: ours.
        clip: ``small``; ``text`` or ``both`` where the official code has CLIP's widths and depth written into it.
        dataset: key of `LAYOUTS`, which decides the templates.
        settings: of our method.
        words: parameters that start from words or constants. Both sides make them by themselves; all others are given
            the same noise.
        contradict: label each image with the class that zero-shot thinks least likely, so that ProGrad's gradients
            conflict.
    """

    name: str
    method: str
    clip: str = "small"
    dataset: str = "caltech101"
    settings: Mapping[str, Any] = field(default_factory=dict)
    words: tuple[str, ...] = ("context",)
    contradict: bool = False

    @property
    def schedule(self) -> Schedule:
        """The method's own, short."""
        return dataclasses.replace(methods.get(self.method).schedule, epochs=EPOCHS, batch_size=len(LABELS))


FILM = ("scale.image", "scale.text", "shift.image", "shift.text")
CASES = {
    case.name: case
    for case in (
        Case("coop", "coop"),
        Case("coop-middle", "coop", settings={"context_init": "", "n_ctx": 6, "position": "middle"}, words=()),
        Case("cocoop", "cocoop"),
        Case("kgcoop", "kgcoop", dataset="oxford_pets"),
        Case("prograd", "prograd", contradict=True),
        Case("prograd-pets", "prograd", dataset="oxford_pets", contradict=True),
        Case("prograd-dtd", "prograd", dataset="dtd"),
        Case("tcp", "tcp", "text", words=()),
        Case("tcp-cars", "tcp", "text", "stanford_cars", words=()),
        Case("tcp-dtd", "tcp", "text", "dtd", words=()),
        Case("tcp-ucf101", "tcp", "text", "ucf101", words=()),
        Case("maple", "maple", "both"),
        Case("promptsrc", "promptsrc", "both", settings={"mean": 3.0, "sigma": 1.0}),
        Case("dept-coop", "dept", settings={"on": "coop"}, words=FILM),
        Case("dept-kgcoop", "dept", settings={"on": "kgcoop"}, words=("base.context", *FILM)),
    )
}


def noise(name: str, *shape: int) -> Tensor:
    """Return evenly spread float64 numbers in [-1, 1), multiples of 2^-15, which depend on the name alone."""
    count = math.prod(shape)
    raw = np.random.PCG64(zlib.crc32(name.encode())).random_raw(-(-count // 4))
    drawn = np.frombuffer(raw.astype("<u8").tobytes(), "<i2")[:count]
    return torch.from_numpy(drawn.astype(np.float64).reshape(shape) / 2**15)


@lru_cache(maxsize=1)
def clip(name: str) -> Backbone:
    """Return a CLIP with random weights in float64: matrices of about unit gain, LayerNorms and biases not trivial."""
    if f"clip-{name}" not in open_clip.list_models():
        open_clip.add_model_config(FOLDER / f"clip-{name}.json")
    backbone = backbones.load(f"clip-{name}", backbones.RANDOM)
    backbone.model.double()
    with torch.no_grad():
        for key, parameter in backbone.model.named_parameters():
            if key == "logit_scale":
                parameter.fill_(math.log(100))
                continue
            drawn = noise(f"{name}/{key}", *parameter.shape)
            if "ln_" in key:
                drawn = drawn / 16 + float(key.endswith("weight"))
            elif parameter.ndim == 1:
                drawn = drawn / 32
            else:
                drawn = drawn / 2 ** (math.log2(math.prod(parameter.shape[1:])) // 2)
            parameter.copy_(drawn)
    return backbone


def images(which: str, count: int) -> Tensor:
    """(count, 3, 32, 32) pixels."""
    return 2 * noise(f"images/{which}", count, 3, 32, 32)


def start_value(case: Case, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return what a parameter starts from where the method would draw it at random."""
    return noise(f"{case.name}/{name}", *shape) / 16


def labels(case: Case, backbone: Backbone, features: Tensor, handcrafted: Tensor) -> Tensor:
    """(N,) int64 labels of the training images."""
    return (features @ handcrafted.T).argmin(1) if case.contradict else torch.tensor(LABELS)


def summary(tensor: Tensor) -> list[float]:
    """Return a tensor's first four numbers and its products with four fixed random vectors, which any change moves."""
    flat = tensor.detach().double().flatten()
    probes = noise("summary", 4, flat.numel())
    return [*flat[:4].tolist(), *(probes @ flat).tolist()]


def make(case: Case, backbone: Backbone, features: Tensor) -> tuple[PromptMethod, str]:
    """Return our method at the start values of the case, and the teacher's template."""
    kind = methods.get(case.method)
    settled = kind.settle(kind.Config(**case.settings), LAYOUTS[case.dataset].template, case.dataset)
    setup = Setup(backbone, BASE, settled[1], torch.Generator())
    method = kind(settled[0], setup).double()
    if kind.per_image:
        method.get_buffer("mean_image").copy_(features.mean(0))
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if name not in case.words:
                parameter.copy_(start_value(case, name, tuple(parameter.shape)))
    return method, settled[1]


def ours(case: Case) -> dict[str, Any]:
    """Return the numbers of a case by this project's code, under the keys of its golden file."""
    backbone = clip(case.clip)
    pixels, tests = images("train", len(LABELS)), images("test", 3)
    features = backbone.encode_images(pixels)
    method, template = make(case, backbone, features)
    handcrafted = backbone.embed_names(BASE, template)
    problem = Task(
        features[:, None],
        labels(case, backbone, features, handcrafted),
        BASE,
        handcrafted,
        crops=(lambda rows, epoch: pixels[rows]) if "image" in method.towers else None,
    )
    prompted = PromptedCLIP(backbone, method, template, BASE)

    def logits(names: tuple[str, ...]) -> list[list[float]]:
        found: list[list[float]] = prompted.logits(prompted.encode_images(tests), names).tolist()
        return found

    numbers: dict[str, Any] = {
        "start": {name: summary(p) for name, p in method.named_parameters() if name in case.words},
        "logits at the start": logits(BASE),
    }
    state = start(method, case.schedule, 1)
    rates: list[list[float]] = []

    def after_epoch(state: State) -> None:
        rates.append([group["lr"] for group in state.optimiser.param_groups])
        if state.epoch == 1:
            numbers["gradients"] = {
                name: summary(p.grad) for name, p in method.named_parameters() if p.grad is not None
            }

    loop.train(loop.OptimiserStep(backbone, problem, state), case.schedule, after_epoch)
    added = [{k: v for k, v in entry.items() if k not in ("epoch", "learning_rate")} for entry in state.history]
    reference = [[entry.pop(name) for name in method.reference_terms] for entry in added]
    return numbers | {
        "losses": [[sum(entry.values()), *others] for entry, others in zip(added, reference, strict=True)],
        "rates": rates,
        "parameters": {name: summary(p) for name, p in method.named_parameters()},
        "logits": logits(BASE),
        "logits of new classes": logits(NEW),
    }
