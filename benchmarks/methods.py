"""One training step of every method, ViT-B/16: our towers against a 77-position text tower, and what SAR adds.

    python benchmarks/methods.py [--backbone ViT-B-16] [--threads 1 2] [--repeats 3] [--methods coop …]

100 base names and 128 novel ones, random weights (the time does not depend on them), each method at its published batch
size (at most 32: text-side methods train on cached features, where the batch costs nothing). ``full`` is the same step
with a text tower that runs all 77 positions of every name, as the reference implementations do; ``shared`` is ours;
``sar`` is ours with SAR at its defaults, which draws a quarter as many novel names as there are base names each step;
``sar-all`` takes all 128 novel names in every step. Every variant runs in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

BASE, NOVEL, MOST_PHOTOS = 100, 128, 32
VARIANTS = ("full", "shared", "sar", "sar-all")
SETTINGS: dict[str, dict[str, Any]] = {"coop": {"context_init": ""}}
"""CoOp with 16 vectors, the paper's few-shot setting; the others as published."""


def measure(method: str, variant: str, backbone_name: str, threads: int, repeats: int) -> dict[str, float]:
    """Median seconds of a step, and the memory that steps add."""
    import torch

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    step, batch = make_step(method, variant, backbone_name)
    rows = torch.arange(batch)
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024**2
    seconds = []
    if variant != "full":  # which is long enough to do without a warm-up
        step(rows, 0.5)
    for _ in range(repeats):
        start = time.perf_counter()
        step(rows, 0.5)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(seconds), "added_mib": peak - before}


def make_step(method: str, variant: str, backbone_name: str) -> tuple[Any, int]:
    """The loop's own step on random features, and its batch size."""
    import open_clip
    import torch
    from torch.nn.functional import normalize

    from sar_train.clip import backbone
    from sar_train.methods.base import Setup, methods
    from sar_train.novel_names import wordnet
    from sar_train.regularisers.sar import SAR, SARConfig
    from sar_train.training.loop import OptimiserStep
    from sar_train.training.state import start
    from sar_train.training.task import Regularisation, Task

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
    """The same tower without any sharing: every name at every position, prompts put in their places."""
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
    """Run every variant in its own process and print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="ViT-B-16")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "VARIANT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(measure(*given.one, given.backbone, given.threads[0], given.repeats)))
        return
    from sar_train.methods.base import methods

    rows = []
    print(f"{'method':>10} {'threads':>8} {'variant':>8} {'seconds':>9} {'full is':>8} {'to shared':>10} {'MiB':>10}")
    for method in given.methods or methods.entries:
        for threads in given.threads:
            found: dict[str, dict[str, float]] = {}
            for variant in VARIANTS:
                repeats = 1 if variant == "full" else given.repeats
                command = [sys.executable, __file__, "--one", method, variant, "--backbone", given.backbone]
                command += ["--threads", str(threads), "--repeats", str(repeats)]
                found[variant] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                seconds = found[variant]["seconds"]
                slower = found["full"]["seconds"] / seconds
                relative = f"{seconds / found['shared']['seconds']:.2f}x" if "shared" in found else ""
                rows.append({"method": method, "threads": threads, "variant": variant, **found[variant]})
                print(
                    f"{method:>10} {threads:>8} {variant:>8} {seconds:>9.3f} {slower:>7.1f}x {relative:>10} "
                    f"{found[variant]['added_mib']:>10.0f}",
                    flush=True,
                )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
