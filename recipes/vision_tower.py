"""The recipe of `sar-mini-vit`'s image tower: a small vision transformer that learns `sar-mini`'s image embeddings.

Student and teacher share their first stages, so both are run from the feature map in between, and any map has a
teacher's answer. The teacher's embedding is a sum over the 8 x 8 positions of its last map, up to its length, and
the patch tokens learn these terms beside the class token, which learns the sum. Parts of maps are exchanged as CutMix
(Yun et al. 2019) exchanges parts of photos; no label is used.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import kl_div, log_softmax, normalize, softmax

from recipes import photos
from recipes.text_tower import TEMPLATE
from sar_train.clip import backbone, mini
from sar_train.clip.mini import storage
from sar_train.clip.mini.stem import STAGES


@dataclass(frozen=True)
class Recipe:
    """Every number that the tower depends on.

    Attributes:
        views: of each photo, the plain one and random crops.
        seed: of the crops, the initial weights and the batches.
        steps: of training.
        batch: feature maps in a step.
        mixed: the part of a batch in which a rectangle comes from another map.
        learning_rate: the largest, after ``warmup`` steps; half a cosine leads down from it to zero.
        warmup: steps.
        weight_decay: of weights of two and more dimensions.
        token_weight: of the patch tokens' loss.
        kl_weight: of the class probabilities' loss.
    """

    views: int = 3
    seed: int = 1
    steps: int = 3200
    batch: int = 32
    mixed: float = 0.25
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.05
    token_weight: float = 0.5
    kl_weight: float = 0.5


def distil(root: Path, recipe: Recipe, maps_file: Path | None, say: Callable[[str], None]) -> nn.Module:
    """Train a `sar-mini-vit` from photos, and return it.

    Args:
        root: the folder of the photos.
        recipe: the numbers.
        maps_file: keeps the feature maps between runs; None keeps nothing.
        say: is given lines of progress.

    Raises:
        DataError: no photos, or one that cannot be read.
    """
    original = backbone.load(mini.NAME)
    torch.manual_seed(recipe.seed)
    model = mini.create(mini.VIT_NAME)
    storage.load_shared(model, mini.WEIGHTS)
    files = photos.usable(root)

    def make() -> Tensor:
        progress = _Progress("photo", len(files), 500, say)
        stem, spec = model.visual.conv1, original.preprocess  # type: ignore[union-attr]
        return photos.maps(stem, files, root, spec, n_views=recipe.views, seed=recipe.seed, report=progress)  # type: ignore[arg-type]

    shared = hashlib.sha256(mini.WEIGHTS.read_bytes()).hexdigest()
    maps = photos.kept(maps_file, photos.key(files, root, recipe.views, recipe.seed, shared), make)
    names = original.embed_names(IMAGENET_CLASSNAMES, TEMPLATE)
    teacher = Teacher(original.model, STAGES, names)
    progress = _Progress("step", recipe.steps, 50, say)
    train(model, teacher, maps, recipe, lambda step, loss: progress(step, f"  1 - cosine {loss:.4f}"))
    return model


class _Progress:
    """Report every so often how far something is and how long it will take."""

    def __init__(self, what: str, total: int, every: int, say: Callable[[str], None]) -> None:
        self._what, self._total, self._every, self._say = what, total, every, say
        self._start = time.monotonic()

    def __call__(self, i: int, note: str = "") -> None:
        if (i + 1) % self._every == 0 or i + 1 == self._total:
            left = (time.monotonic() - self._start) / (i + 1) * (self._total - i - 1)
            self._say(f"{self._what} {i + 1}/{self._total}{note}  about {left / 60:.0f} min left")


class Teacher:
    """`sar-mini`'s image tower behind the stem."""

    def __init__(self, model: nn.Module, stages: int, names: Tensor) -> None:
        """Take the parts from `sar-mini` (its stages behind the first ``stages``) and class names' rows (C, D)."""
        visual: Any = model.visual
        self._stages = nn.Sequential(*visual.trunk.blocks[stages:], visual.trunk.conv_head, visual.trunk.bn2)
        self._stages.eval().to(memory_format=torch.channels_last)
        self._projection = visual.head.proj.weight
        self.names = names
        self.logit_scale = float(model.logit_scale.exp())  # type: ignore[operator]

    @torch.no_grad()
    def __call__(self, maps: Tensor) -> Tensor:
        """Turn (N, 112, 16, 16) maps into (N, 64, D); the mean over positions is the image embedding up to length."""
        return torch.cat([self._local(part) for part in maps.split(16)])  # small parts stay in the processor's cache

    def _local(self, maps: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            features = self._stages(maps.contiguous(memory_format=torch.channels_last))
        local: Tensor = features.float().flatten(2).mT @ self._projection.T
        return local


def encode(visual: Any, maps: Tensor) -> tuple[Tensor, Tensor]:
    """Run open_clip's tower on the stem's maps (N, 112, 16, 16): (N, D) and, from the patch tokens, (N, 64, D).

    Neither has unit length.
    """
    patches = visual.conv1.patches(maps).flatten(2).mT
    x = torch.cat([visual.class_embedding.to(patches.dtype).expand(len(maps), 1, -1), patches], dim=1)
    x = visual.ln_pre(x + visual.positional_embedding.to(x.dtype))
    x = visual.ln_post(visual.transformer(x)) @ visual.proj
    return x[:, 0], x[:, 1:]


def loss_terms(pooled: Tensor, tokens: Tensor, local: Tensor, teacher: Teacher, recipe: Recipe) -> dict[str, Tensor]:
    """Return 1 - cosine of images (N, D) and patches (N, 64, D), and KL(teacher || student) of softmaxes over names."""
    image, image_target = normalize(pooled, dim=-1), normalize(local.mean(1), dim=-1)
    patches = (normalize(tokens, dim=-1) * normalize(local, dim=-1)).sum(-1)
    student = log_softmax(teacher.logit_scale * image @ teacher.names.T, dim=1)
    target = softmax(teacher.logit_scale * image_target @ teacher.names.T, dim=1)
    return {
        "image": 1 - (image * image_target).sum(-1).mean(),
        "patches": recipe.token_weight * (1 - patches.mean()),
        "names": recipe.kl_weight * kl_div(student, target, reduction="batchmean"),
    }


def train(
    model: nn.Module,
    teacher: Teacher,
    maps: Tensor,
    recipe: Recipe,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """Train the image side of ``model`` (made by `create`) in place, in bfloat16 autocast.

    Args:
        model: its stem's frozen stages are not used.
        teacher: of the same stem.
        maps: (M, 112, 16, 16) float16.
        recipe: the numbers.
        report: called with each step and its 1 - cosine of the image embeddings.
    """
    visual: Any = model.visual
    learned = [p for p in visual.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)
    for step, batch in zip(range(recipe.steps), _batches(maps, recipe), strict=False):
        rate = 0.5 * (1 + math.cos(math.pi * step / recipe.steps)) * min(1.0, (step + 1) / recipe.warmup)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * rate
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            pooled, tokens = encode(visual, batch)
        terms = loss_terms(pooled.float(), tokens.float(), teacher(batch), teacher, recipe)
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        optimiser.zero_grad()
        report(step, float(terms["image"].detach()))


def _batches(maps: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Yield float32 batches without end; each map once before any comes again (but for a last incomplete batch)."""
    generator = torch.Generator().manual_seed(recipe.seed)
    while True:
        order = torch.randperm(len(maps), generator=generator)
        for rows in order.split(recipe.batch):
            if len(rows) == min(recipe.batch, len(maps)):
                yield cut_and_mix(maps[rows].float(), round(recipe.mixed * len(rows)), generator)


def cut_and_mix(maps: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Paste a random rectangle of the next map into the first ``count`` of (N, C, H, W) maps.

    The area is uniform in 0 to 1 as in CutMix, cut off at the border, and aligned to the 2 x 2 patches.
    """
    mixed = maps.clone()
    height, width = maps.shape[2:]
    for i in range(count):
        part, y, x = torch.rand(3, generator=generator).tolist()
        half = math.sqrt(part) / 2
        top, bottom = (2 * round(min(1.0, max(0.0, y + side)) * height / 2) for side in (-half, half))
        left, right = (2 * round(min(1.0, max(0.0, x + side)) * width / 2) for side in (-half, half))
        mixed[i, :, top:bottom, left:right] = maps[(i + 1) % len(maps), :, top:bottom, left:right]
    return mixed
