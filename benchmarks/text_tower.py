"""Text side of one training step, shared prefix against open_clip's 77 positions: seconds, ratio, peak memory.

    python -m benchmarks.text_tower [--backbone ViT-B-16] [--names 100 1000] [--threads 1 2] [--repeats 5]

Both compute class embeddings of the same names behind 16 context vectors and the gradient of the context, with random
weights (the time does not depend on them). The alternative is what CoOp does: splice the context into the token
embeddings and run all 77 positions; at 1,000 names it runs in chunks of 100, because it would need over 20 GiB.
``sar`` is our step for the names and 128 novel names with SAR's loss. Every variant runs in a process of its own.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks import command

if TYPE_CHECKING:
    from torch import Tensor

N_CTX, NOVEL, CHUNK = 16, 128, 100
VARIANTS = ("open_clip", "shared", "sar")


def peak_mib() -> float:
    """Return the largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(variant: str, backbone_name: str, names: int, threads: int, repeats: int) -> dict[str, float]:
    """Return the median seconds of forward and backward, and the memory that they add."""
    import open_clip
    import torch

    from sar_train.clip import backbone
    from sar_train.clip.prompts import Prompts
    from sar_train.clip.tokens import pack
    from sar_train.novel_names import wordnet
    from sar_train.regularisers.base import RegulariserInputs
    from sar_train.regularisers.sar import SAR, SARConfig

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = backbone.load(backbone_name, backbone.RANDOM)
    words = open_clip.IMAGENET_CLASSNAMES[:names]
    novel = [s.name for s in wordnet.load().synsets.values() if s.offset % 97 == 0][:NOVEL]
    context = (0.02 * torch.randn(N_CTX, model.text.width)).requires_grad_()
    direction = torch.randn(names, model.embed_dim)

    def full() -> None:
        for start in range(0, names, CHUNK):
            prompts = [" ".join(["X"] * N_CTX + [name + "."]) for name in words[start : start + CHUNK]]
            tokens = open_clip.tokenize(prompts)
            (_full_length(model.model, context, tokens) * direction[start : start + CHUNK]).sum().backward()

    packed = pack(model.text.tokenise(words, Prompts(context)))
    both = pack(model.text.tokenise([*words, *novel], Prompts(context)))
    teacher = torch.nn.functional.normalize(torch.randn(names + len(novel), model.embed_dim), dim=-1)
    is_base = torch.arange(names + len(novel)) < names

    def shared() -> None:
        (model.text(Prompts(context), packed) * direction).sum().backward()

    def sar() -> None:
        rows = model.text(Prompts(context), both)
        penalty = SAR(SARConfig())(RegulariserInputs(rows, teacher, is_base))
        ((rows[:names] * direction).sum() + penalty).backward()

    return _time({"open_clip": full, "shared": shared, "sar": sar}[variant], repeats)


def _time(step: Callable[[], None], repeats: int) -> dict[str, float]:
    before = peak_mib()
    step()
    return {"seconds": command.median_seconds(step, repeats), "added_mib": peak_mib() - before}


def _full_length(model: Any, context: Tensor, tokens: Tensor) -> Any:
    import torch

    x = model.token_embedding(tokens)
    x = torch.cat([x[:, :1], context.expand(len(tokens), -1, -1), x[:, 1 + len(context) :]], 1)
    x = model.transformer(x + model.positional_embedding, attn_mask=model.attn_mask)
    x = model.ln_final(x)[torch.arange(len(x)), tokens.argmax(-1)] @ model.text_projection
    return torch.nn.functional.normalize(x, dim=-1)


def main() -> None:
    """Run every variant in its own process and print."""
    options = command.options(
        __doc__, backbone="ViT-B-16", names=[100, 1000], threads=[1, 2], repeats=5, variant=(str, "this one, here")
    )
    if options.variant:
        print(
            json.dumps(
                measure(options.variant, options.backbone, options.names[0], options.threads[0], options.repeats)
            )
        )
        return
    results = []
    for names in options.names:
        for threads in options.threads:
            first = 0.0
            for variant in VARIANTS:
                repeats = options.repeats if variant != "open_clip" else max(1, options.repeats * 100 // names // 2)
                arguments = ("--variant", variant, "--backbone", options.backbone, "--names", names)
                measured = command.in_own_process(
                    "benchmarks.text_tower", *arguments, "--threads", threads, "--repeats", repeats
                )
                first = first or measured["seconds"]
                row = {"names": names, "threads": threads, "variant": variant, "ratio": first / measured["seconds"]}
                results.append(row | measured)
                command.say(f"{names} names, {threads} threads, {variant}: {measured['seconds']:.3f} s")
    rows = [
        (r["names"], r["threads"], r["variant"], f"{r['seconds']:.3f}", f"{r['ratio']:.1f}x", f"{r['added_mib']:.0f}")
        for r in results
    ]
    heads = ("names", "threads", "variant", "seconds", "ratio", "added MiB")
    command.tell(command.markdown(heads, rows), results)


if __name__ == "__main__":
    main()
