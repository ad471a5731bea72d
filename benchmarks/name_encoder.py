"""New class names at run time, `name_encoder.onnx` against open_clip's ``encode_text``: seconds, ratio, agreement.

    python benchmarks/name_encoder.py [--backbone ViT-B-16] [--names 1000] [--threads 1 2] [--repeats 3]

Both start from strings and end with unit rows, for ImageNet's names behind ``a photo of a``, with random weights (the
time does not depend on them). Ours is what `sar-classify` does: its own tokenizer, then the exported graph in
onnxruntime, names of equal length together. The alternative tokenises to 77 positions and runs them all in torch. The
two take turns in one process; the session is open and the first run is not counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TEMPLATE = "a photo of a {}."
CHUNK = 100
Encode = Callable[[Sequence[str]], np.ndarray]


def with_open_clip(backbone: Any) -> Encode:
    """``encode_text`` of whole prompts, in chunks, because a thousand at once need several GiB."""
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
    """The run time's tokenizer and name encoder, exported to ``folder``."""
    from sar_infer.encoders.encoders import NameEncoder
    from sar_infer.text.tokenizer import Tokenizer, encode_name
    from sar_train.export import tokenizer
    from sar_train.export.compact import compact
    from sar_train.export.fixed import handcrafted
    from sar_train.export.layout import layout, tokenizer_spec
    from sar_train.export.name_encoder import export_name_encoder

    prompted = handcrafted(backbone, TEMPLATE)
    placed = layout(prompted)
    spec = tokenizer_spec(backbone.text, placed)
    graph, merges = folder / "name_encoder.onnx", folder / "tokenizer.bpe.gz"
    if not graph.exists():
        graph.write_bytes(compact(export_name_encoder(prompted, placed)).SerializeToString())
        merges.write_bytes(tokenizer.compress(tokenizer.merges_text(spec.end_token)))
    encoder = NameEncoder(graph, backbone.embed_dim, spec.end_token, "cpu", threads)
    reader = Tokenizer.open(merges)
    return lambda names: encoder.encode([encode_name(reader, spec, name) for name in names])


def measure(backbone: Any, folder: Path, names: Sequence[str], threads: int, repeats: int) -> dict[str, float]:
    """Median seconds of both, by turns."""
    import torch

    torch.set_num_threads(threads)
    encoders = {"open_clip": with_open_clip(backbone), "onnx": with_our_graph(backbone, folder, threads)}
    for encode in encoders.values():
        encode(names[:10])
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    rows = {}
    for _ in range(repeats):
        for name, encode in encoders.items():
            start = time.perf_counter()
            rows[name] = encode(names)
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    difference = float(np.abs(rows["onnx"] - rows["open_clip"]).max())
    return median | {"ratio": median["open_clip"] / median["onnx"], "max_difference": difference}


def main() -> None:
    """Print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="ViT-B-16")
    parser.add_argument("--names", type=int, nargs="+", default=[1000])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()

    import open_clip

    from sar_train.clip import backbone

    loaded, table = backbone.load(given.backbone, backbone.RANDOM), []
    print(f"{'names':>6} {'threads':>8} {'open_clip s':>12} {'onnx s':>8} {'ratio':>7} {'difference':>11}")
    with tempfile.TemporaryDirectory() as folder:
        for count in given.names:
            for threads in given.threads:
                names = open_clip.IMAGENET_CLASSNAMES[:count]
                row = measure(loaded, Path(folder), names, threads, given.repeats)
                table.append({"backbone": given.backbone, "names": len(names), "threads": threads} | row)
                print(
                    f"{len(names):>6} {threads:>8} {row['open_clip']:>12.3f} {row['onnx']:>8.3f} {row['ratio']:>6.1f}x "
                    f"{row['max_difference']:>11.1e}",
                    flush=True,
                )
    print(json.dumps(table))


if __name__ == "__main__":
    main()
