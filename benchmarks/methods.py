"""One training step of every method, ViT-B/16: our towers against a 77-position text tower, and what SAR adds.

    python -m benchmarks.methods [--backbone ViT-B-16] [--threads 1 2] [--repeats 3] [--methods coop …]

100 base names and 128 novel ones, random weights (the time does not depend on them), each method at its published batch
size (at most 32: text-side methods train on cached features, where the batch costs nothing). ``full`` is the same step
with a text tower that runs all 77 positions of every name, as the reference implementations do; ``shared`` is ours;
``sar`` is ours with SAR at its defaults, which draws a quarter as many novel names as there are base names each step;
``sar-all`` takes all 128 novel names in every step. Every variant runs in a process of its own.
"""

from __future__ import annotations

import dataclasses
import json
import resource
from pathlib import Path
from typing import Any

from benchmarks import command

BASE, NOVEL, MOST_PHOTOS = 100, 128, 32
VARIANTS = ("full", "shared", "sar", "sar-all")
SETTINGS: dict[str, dict[str, Any]] = {"coop": {"context_init": ""}}
"""CoOp with 16 vectors, the paper's few-shot setting; the others as published."""


def measure(method: str, variant: str, backbone_name: str, threads: int, repeats: int) -> dict[str, float]:
    """Return the median seconds of a step, and the memory that steps add."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step, batch = make_step(method, variant, backbone_name)
    rows = torch.arange(batch)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024**2
    if variant != "full":  # which is long enough to do without a warm-up
        step(rows, 0.5)
    seconds = command.median_seconds(lambda: step(rows, 0.5), repeats)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "added_mib": peak - before}


def make_step(method: str, variant: str, backbone_name: str) -> tuple[Any, int]:
    """Return the loop's own step on random features, and its batch size."""
    import open_clip
    import torch
    from torch.nn.functional import normalize

    from sar_train.clip import backbone
    from sar_train.data.task import Task
    from sar_train.methods.base import Setup, methods
    from sar_train.novel_names import wordnet
    from sar_train.regularisers.base import Regularisation
    from sar_train.regularisers.sar import SAR, SARConfig
    from sar_train.training.loop import OptimiserStep
    from sar_train.training.state import start

    model = backbone.load(backbone_name, backbone.RANDOM)
    names = open_clip.IMAGENET_CLASSNAMES[:BASE]
    novel = tuple(s.name for s in wordnet.load().synsets.values() if s.offset % 97 == 0)[:NOVEL]
    kind = methods.get(method)
    batch = min(kind.schedule.batch_size, MOST_PHOTOS)
    teacher = normalize(torch.randn(BASE + NOVEL, model.embed_dim), dim=-1)
    features = normalize(torch.randn(batch, 1, model.embed_dim), dim=-1)
    labels = torch.arange(batch) % BASE
    crops = None
    if "image" in kind.towers:
        size = model.preprocess.size
        pixels = torch.randn(batch, 3, size, size)
        crops = lambda rows, epoch: pixels[rows]  # noqa: E731
    problem = Task(features, labels, names, teacher[:BASE], crops)
    setup = Setup(model, names, "a photo of a {}.", torch.Generator().manual_seed(0))
    made = kind(kind.Config(**SETTINGS.get(method, {})), setup)
    regularisation = None
    if variant.startswith("sar"):
        subset = 0 if variant == "sar-all" else SARConfig.subset
        regularisation = Regularisation(SAR(SARConfig(subset=subset)), novel, teacher)
    if variant == "full":
        model = dataclasses.replace(model, text=full_length(model.text))
    return OptimiserStep(model, problem, start(made, kind.schedule, 1), regularisation), batch


def full_length(tower: Any) -> Any:
    """Return the same tower without any sharing: every name at every position, prompts put in their places."""
    import torch
    from torch.nn.functional import normalize

    from sar_train.clip.prompts import insert
    from sar_train.clip.text_tower import TextTower

    class FullLength(TextTower):
        def __call__(self, prompts: Any, names: Any, *, unit: bool = True) -> Any:
            count, n_context = len(names.order), prompts.n_context
            first = names.ends - names.lengths + 1
            tokens = torch.zeros(count, self.context_length - 1 - n_context, dtype=torch.long)
            for row, (start, length) in enumerate(zip(first.tolist(), names.lengths.tolist(), strict=True)):
                tokens[names.order[row], :length] = names.ids[start : start + length]
            ends = torch.empty(count, dtype=torch.long)
            ends[names.order] = n_context + names.lengths
            begin = self.token_embedding.weight[self.start_token].expand(count, 1, -1)
            context = prompts.context.expand(count, -1, -1)
            x = torch.cat([begin, context, self.token_embedding(tokens)], 1) + self.positional_embedding
            mask = torch.full((x.shape[1], x.shape[1]), float("-inf")).triu(1)
            for layer, block in enumerate(self.blocks):
                if layer in prompts.text:
                    led = insert(x[:, 1 : 1 + n_context], prompts.text[layer])
                    x = torch.cat([x[:, :1], led, x[:, 1 + n_context :]], 1)
                x = block(x, attn_mask=mask)
            rows = self.ln_final(x)[torch.arange(count), ends] @ self.projection
            return normalize(rows, dim=-1) if unit else rows

    return FullLength(**{field.name: getattr(tower, field.name) for field in dataclasses.fields(tower)})


def main() -> None:
    """Run every variant in its own process and print."""
    from sar_train.methods.base import methods

    options = command.options(
        __doc__,
        backbone="ViT-B-16",
        threads=[1, 2],
        repeats=3,
        methods=list(methods.entries),
        variant=(str, "this one of the first method, here"),
    )
    if options.variant:
        print(
            json.dumps(
                measure(options.methods[0], options.variant, options.backbone, options.threads[0], options.repeats)
            )
        )
        return
    rows, results = [], []
    for method in options.methods:
        for threads in options.threads:
            seconds: dict[str, float] = {}
            for variant in VARIANTS:
                repeats = 1 if variant == "full" else options.repeats
                arguments = ("--methods", method, "--variant", variant, "--backbone", options.backbone)
                measured = command.in_own_process(
                    "benchmarks.methods", *arguments, "--threads", threads, "--repeats", repeats
                )
                seconds[variant] = measured["seconds"]
                slower = seconds["full"] / seconds[variant]
                results.append({"method": method, "threads": threads, "variant": variant, **measured})
                relative = f"{seconds[variant] / seconds['shared']:.2f}x" if "shared" in seconds else ""
                rows.append(
                    (
                        method,
                        threads,
                        variant,
                        f"{seconds[variant]:.3f}",
                        f"{slower:.1f}x",
                        relative,
                        f"{measured['added_mib']:.0f}",
                    )
                )
                command.say(f"{method}, {threads} threads, {variant}: {seconds[variant]:.3f} s")
    heads = ("method", "threads", "variant", "seconds", "full is", "to shared", "MiB")
    command.tell(command.markdown(heads, rows), results)


if __name__ == "__main__":
    main()
