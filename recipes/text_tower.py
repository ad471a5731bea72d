"""The recipe of `sar-mini`'s text tower: a small causal transformer taught by class rows, without any image."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate

import open_clip
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import kl_div, log_softmax, normalize, softmax

from recipes.targets import Curriculum, Targets

TEMPLATE = "a photo of a {}."
SOT, EOT = 49406, 49407


@dataclass(frozen=True)
class Recipe:
    """Every number that the tower depends on.

    Each batch holds 5/8 ImageNet names, 1/8 nouns above several classes and 2/8 other nouns. Half of the names stand
    in ``a photo of a {}.``, an eighth alone, an eighth in one of CLIP's 80 templates, and a quarter behind 1 to
    ``longest_filler`` filler positions, so that names are met wherever a learned context may push them.
    """

    steps: int = 4000
    batch: int = 384
    learning_rate: float = 1.5e-3
    warmup: int = 100
    cosine_weight: float = 4.0
    kl_scale: float = 20.0
    longest_filler: int = 24
    held_out: int = 500
    seed: int = 1


@dataclass
class Batch:
    """Token rows (B, L) padded with 0, a mask (B, L) of positions that become random vectors, and targets (B, D)."""

    tokens: Tensor
    noise: Tensor
    targets: Tensor


class Sampler:
    """Endless batches of prompts, sorted by length so that chunks of a batch need little padding."""

    def __init__(self, curriculum: Curriculum, recipe: Recipe) -> None:
        self._rng = random.Random(recipe.seed)
        self._recipe = recipe
        eighth = recipe.batch // 8
        self._groups: list[tuple[Targets, int]] = [
            (curriculum.imagenet, recipe.batch - 3 * eighth),
            (curriculum.above, eighth),
            (curriculum.others, 2 * eighth),
        ]
        self._cumulative = {id(group): list(accumulate(group.weights)) for group, _ in self._groups}
        tokenizer = open_clip.SimpleTokenizer()
        self._encode: Callable[[str], list[int]] = tokenizer.encode
        self._fillers = sorted({t for names in curriculum.others.names for n in names[:1] for t in self._encode(n)})

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rows = [
                self._draw(group, i)
                for group, count in self._groups
                for i in self._rng.choices(range(len(group.names)), cum_weights=self._cumulative[id(group)], k=count)
            ]
            rows.sort(key=lambda row: len(row[0]))
            longest = len(rows[-1][0])
            tokens = torch.zeros(len(rows), longest, dtype=torch.long)
            noise = torch.zeros(len(rows), longest, dtype=torch.bool)
            for i, (ids, n_noise, _) in enumerate(rows):
                tokens[i, : len(ids)] = torch.tensor(ids)
                noise[i, 1 : 1 + n_noise] = True
            yield Batch(tokens, noise, torch.stack([target for _, _, target in rows]))

    def _draw(self, group: Targets, i: int) -> tuple[list[int], int, Tensor]:
        rng = self._rng
        name, target = rng.choice(group.names[i]), group.rows[i]
        kind, fillers, n_noise = rng.random(), [], 0
        if kind < 0.5:
            text = TEMPLATE.format(name)
        elif kind < 0.625:
            text = name
        elif kind < 0.75:
            text = rng.choice(open_clip.OPENAI_IMAGENET_TEMPLATES)(name)
        else:
            text = rng.choice(["{}.", "{}", "a {}."]).format(name)
            fillers = rng.choices(self._fillers, k=rng.randint(1, self._recipe.longest_filler))
            n_noise = len(fillers) if rng.random() < 0.5 else 0
        return [*[SOT, *fillers, *self._encode(text)][:76], EOT], n_noise, target


def encode(
    model: open_clip.CLIP, tokens: Tensor, *, embedded: Tensor | None = None, noise: Tensor | None = None
) -> Tensor:
    """Embed token rows (B, L) as unit rows (B, D), L at most 77; padding changes nothing, since the tower is causal.

    ``embedded`` (B, L, W) replaces the look-up of ``tokens``; positions in ``noise`` (B, L) become random vectors.
    """
    x = model.token_embedding(tokens) if embedded is None else embedded
    if noise is not None and noise.any():
        spread = x.detach().std() * torch.empty(len(x), 1, 1).uniform_(0.3, 1.5)
        x = torch.where(noise[..., None], torch.randn_like(x) * spread, x)
    length = tokens.shape[1]
    x = x + model.positional_embedding[:length]
    x = model.transformer(x, attn_mask=model.attn_mask[:length, :length])
    x = model.ln_final(x[torch.arange(len(x)), tokens.argmax(1)])
    return normalize((x @ model.text_projection).float(), dim=-1)


def loss_terms(embeddings: Tensor, targets: Tensor, class_rows: Tensor, recipe: Recipe) -> Tensor:
    """Return the mean of ``cosine_weight * (1 - cos) + KL(target || embedding)``, over softmaxes of class rows."""
    cosine = (embeddings * targets).sum(1)
    student = log_softmax(recipe.kl_scale * embeddings @ class_rows.T, dim=1)
    teacher = softmax(recipe.kl_scale * targets @ class_rows.T, dim=1)
    return (recipe.cosine_weight * (1 - cosine)).mean() + kl_div(student, teacher, reduction="batchmean")


def train(
    model: open_clip.CLIP,
    curriculum: Curriculum,
    recipe: Recipe,
    report: Callable[[int, float, float], None] = lambda step, loss, seconds: None,
) -> None:
    """Train the text side of ``model`` in place, in bfloat16 autocast; ``report(step, loss, seconds)`` each step."""
    torch.manual_seed(recipe.seed)
    text = [p for name, p in model.named_parameters() if not name.startswith("visual.") and name != "logit_scale"]
    optimiser = torch.optim.AdamW(text, lr=recipe.learning_rate, weight_decay=0.0, betas=(0.9, 0.98), fused=True)
    table_gradient = torch.zeros_like(model.token_embedding.weight)
    class_rows, start = curriculum.imagenet.rows, time.monotonic()
    for step, batch in zip(range(recipe.steps), Sampler(curriculum, recipe), strict=False):
        rate = 0.5 * (1 + math.cos(math.pi * step / recipe.steps)) * min(1.0, (step + 1) / recipe.warmup)
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * rate
        used, index = batch.tokens.unique(return_inverse=True)
        table = model.token_embedding.weight.detach()[used].requires_grad_()  # the whole table's gradient costs more
        total = 0.0
        for part in torch.arange(recipe.batch).chunk(4):
            length = int((batch.tokens[part] > 0).sum(1).max())
            tokens, noise = batch.tokens[part, :length], batch.noise[part, :length]
            with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
                embeddings = encode(model, tokens, embedded=table[index[part, :length]], noise=noise)
            loss = loss_terms(embeddings, batch.targets[part], class_rows, recipe) * len(part) / recipe.batch
            loss.backward()
            total += loss.item()
        table_gradient[used] = table.grad
        model.token_embedding.weight.grad = table_gradient
        optimiser.step()
        optimiser.zero_grad()
        table_gradient[used] = 0
        report(step, total, time.monotonic() - start)
