"""New class names at run time, `name_encoder.onnx` against open_clip's ``encode_text``: seconds, ratio, agreement.

    python -m benchmarks.name_encoder [--backbone ViT-B-16] [--names 1000] [--threads 1 2] [--repeats 3]

Both start from strings and end with unit rows, for ImageNet's names behind ``a photo of a``, with random weights (the
time does not depend on them). Ours is what `sar-classify` does: its own tokenizer, then the exported graph in
onnxruntime, names of equal length together. The alternative tokenises to 77 positions and runs them all in torch. The
two take turns in one process; the session is open and the first run is not counted.
"""

from __future__ import annotations

import gzip
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command

TEMPLATE = "a photo of a {}."
CHUNK = 100
Encode = Callable[[Sequence[str]], np.ndarray]


def with_open_clip(backbone: Any) -> Encode:
    """Return ``encode_text`` of whole prompts, in chunks, because a thousand at once need several GiB."""
    import open_clip
    import torch

    def encode(names: Sequence[str]) -> np.ndarray:
        rows = []
        for start in range(0, len(names), CHUNK):
            tokens = open_clip.tokenize([TEMPLATE.format(name) for name in names[start : start + CHUNK]])
            with torch.inference_mode():
                rows.append(backbone.model.encode_text(tokens, normalize=True))
        return torch.cat(rows).numpy()

    return encode


def with_our_graph(backbone: Any, folder: Path, threads: int) -> Encode:
    """Return the run time's tokenizer and name encoder, exported to ``folder``."""
    from sar_infer.encoders.encoders import NameEncoder
    from sar_infer.text.tokenizer import Tokenizer, encode_name
    from sar_train.clip.full_text import merges_text
    from sar_train.export.graph import compact
    from sar_train.export.name_encoder import export_name_encoder, layout, tokenizer_spec
    from sar_train.training.prompted import handcrafted

    prompted = handcrafted(backbone, TEMPLATE)
    ranges = layout(prompted)
    spec = tokenizer_spec(backbone.text, ranges)
    graph, merges = folder / "name_encoder.onnx", folder / "tokenizer.bpe.gz"
    if not graph.exists():
        graph.write_bytes(compact(export_name_encoder(prompted, ranges)).SerializeToString())
        merges.write_bytes(gzip.compress(merges_text(spec.end_token)))
    encoder = NameEncoder(graph, backbone.embed_dim, "cpu", threads, spec=spec)
    reader = Tokenizer.open(merges)
    return lambda names: encoder.encode([encode_name(reader, spec, name) for name in names])


def measure(backbone: Any, folder: Path, names: Sequence[str], threads: int, repeats: int) -> dict[str, float]:
    """Return the median seconds of both, which take turns, and how far they differ."""
    import torch

    torch.set_num_threads(threads)
    encoders = {"open_clip": with_open_clip(backbone), "onnx": with_our_graph(backbone, folder, threads)}
    rows: dict[str, np.ndarray] = {}

    def way(name: str) -> Callable[[], float]:
        def timed() -> float:
            start = time.perf_counter()
            rows[name] = encoders[name](names)
            return time.perf_counter() - start

        return timed

    seconds = command.take_turns({name: way(name) for name in encoders}, repeats)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    difference = float(np.abs(rows["onnx"] - rows["open_clip"]).max())
    return median | {"ratio": median["open_clip"] / median["onnx"], "max_difference": difference}


def main() -> None:
    """Measure and print."""
    options = command.options(__doc__, backbone="ViT-B-16", names=[1000], threads=[1, 2], repeats=3)

    import open_clip

    from sar_train.clip import backbone

    loaded, results = backbone.load(options.backbone, backbone.RANDOM), []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.names:
            for threads in options.threads:
                names = open_clip.IMAGENET_CLASSNAMES[:count]
                row = measure(loaded, Path(folder), names, threads, options.repeats)
                results.append({"backbone": options.backbone, "names": len(names), "threads": threads} | row)
                command.say(f"{len(names)} names, {threads} threads: {row['ratio']:.1f}x")
    rows = [
        (r["names"], r["threads"], f"{r['open_clip']:.3f}", f"{r['onnx']:.3f}", f"{r['ratio']:.1f}x",
         f"{r['max_difference']:.1e}")
        for r in results
    ]  # fmt: skip
    heads = ("names", "threads", "open_clip s", "onnx s", "ratio", "difference")
    command.tell(command.markdown(heads, rows), results)


if __name__ == "__main__":
    main()
