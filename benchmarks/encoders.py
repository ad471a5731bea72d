"""Encoders that people use, with random weights: size and speed, which do not depend on the weights.

    python -m benchmarks.encoders [--names NAME …] [--rounds N] [--minutes N] [--out results/encoders]

Encoders that are not measured after so many minutes are left out. It writes its table, and three columns of the table
of encoders in ``docs/encoders.md``: MiB of both towers in float32, milliseconds in float32 and in INT8.

Needs `pip install '.[transformers]'`, and 10 GiB of free memory for the largest. Each model is made by open_clip's or
timm's configuration in a process of its own, and its image encoder is exported as `sar-export` does it, in float32 and
INT8. Photos are encoded one by one on two threads, in rounds that alternate with `sar-mini` in float32: its time in the
same process is the unit of the ratios. Milliseconds are processor time of both threads, the least of all rounds, so
that other programs disturb little. The names' size is that of the text tower's weights in float32.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command

LABELS = {
    "`sar-mini`": "sar-mini",
    "OpenAI CLIP B/32": "ViT-B-32-quickgelu",
    "OpenAI CLIP B/16": "ViT-B-16-quickgelu",
    "OpenAI CLIP L/14": "ViT-L-14-quickgelu",
    "SigLIP 2 B/16": "ViT-B-16-SigLIP2",
    "MobileCLIP 2 S0": "MobileCLIP2-S0",
    "MobileCLIP 2 S2": "MobileCLIP2-S2",
    "PE-Core B/16": "PE-Core-B-16",
    "DFN B/16": "ViT-B-16-quickgelu",
    "XLM-R B/32, multilingual": "xlm-roberta-base-ViT-B-32",
    "DINOv2 S/14, photos only": "timm/vit_small_patch14_dinov2",
    "SigLIP 2 SO400M/14": "ViT-SO400M-14-SigLIP2",
}
"""Models by their labels in ``docs/encoders.md``; the slowest is the last."""
PAGE = command.ROOT / "docs" / "encoders.md"
HEADS: tuple[str, ...] = ("model", "pixels", "dimensions", "images fp32 MiB", "INT8 MiB", "names MiB")
HEADS += ("fp32 ms", "INT8 ms", "fp32 / sar-mini", "INT8 / sar-mini")
XLM_ROBERTA_BASE: dict[str, Any] = {"vocab_size": 250_002, "max_position_embeddings": 514, "type_vocab_size": 1}
THREADS = 2


def measure(name: str, rounds: int, folder: Path) -> dict[str, Any]:
    """Export one encoder and return its row."""
    import open_clip
    import torch
    import transformers

    from sar_infer.bundle.manifest import IMAGE_ENCODER, Preprocess
    from sar_infer.encoders.sessions import open_session
    from sar_train.clip import backbone
    from sar_train.clip.image_tower import image_tower
    from sar_train.export.graph import write_graph
    from sar_train.export.image_encoder import export_image_encoder
    from sar_train.export.shrink import in_int8
    from sar_train.training.prompted import handcrafted

    config = transformers.XLMRobertaConfig(**XLM_ROBERTA_BASE)
    open_clip.hf_model.AutoConfig = type("Configs", (), {"from_pretrained": staticmethod(lambda *_, **__: config)})
    torch.set_num_threads(THREADS)
    model: Any
    if name.startswith("timm/") or name == "sar-mini":
        loaded = backbone.load(name, backbone.RANDOM if name != "sar-mini" else None)
        model, size, dim = loaded.model, loaded.preprocess.size, loaded.embed_dim
    else:
        model = open_clip.create_model(name, load_weights=False, pretrained_text=False).eval()
        size, dim = open_clip.get_model_preprocess_cfg(model)["size"], open_clip.get_model_config(name)["embed_dim"]
        size = size if isinstance(size, int) else size[0]
    weights, images = (sum(p.numel() for p in part.parameters()) for part in (model, model.visual))
    for text in ("text", "transformer", "token_embedding"):
        if hasattr(model, text):
            delattr(model, text)
    spec = Preprocess(size, "shortest", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    alone = backbone.Backbone(name, "", model, None, image_tower(model.visual), spec, dim)
    full, small = folder / "fp32.onnx", folder / "int8.onnx"
    write_graph(full, export_image_encoder(handcrafted(alone, "")))
    del model, alone

    def photos() -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
        generator = np.random.default_rng(0)
        yield from (generator.standard_normal((4, 3, size, size), np.float32) for _ in range(4))

    write_graph(small, in_int8(full, photos))
    paths = {"unit": command.MINI / IMAGE_ENCODER, "fp32": full, "int8": small}
    sessions = {kind: open_session(path, "cpu", THREADS, spin=False) for kind, path in paths.items()}
    inputs = {kind: next(photos())[:1] for kind in paths} | {"unit": np.ones((1, 3, 256, 256), np.float32)}
    times: dict[str, list[float]] = {kind: [] for kind in paths}
    for number in range(rounds + 1):
        for kind, session in sessions.items():
            start = time.process_time()
            session.run(None, {"pixels": inputs[kind]})
            times[kind] += [1000 * (time.process_time() - start)] * (number > 0)  # the first run is a warm-up
    least = {kind: min(values) for kind, values in times.items()}
    mib = {path: path.stat().st_size / 2**20 for path in (full, small)}
    names = 4 * (weights - images) / 2**20 * (not name.startswith("timm/"))
    row = (size, dim, mib[full], mib[small], names, least["fp32"], least["int8"])
    ratios = (least["fp32"] / least["unit"], least["int8"] / least["unit"])
    return dict(zip(HEADS, (name, *row, *ratios), strict=True))


def fill(page: str, rows: list[dict[str, Any]]) -> str:
    """Return the page of encoders with size and speed of the measured models."""
    measured = {row["model"]: row for row in rows}
    lines = page.splitlines()
    for number, line in enumerate(lines):
        cells = line.split("|")
        if len(cells) > 7 and (row := measured.get(LABELS.get(cells[1].strip(), ""))):
            mib = row["images fp32 MiB"] + row["names MiB"]
            cells[4:7] = [f" {value:.{int(value < 10)}f} " for value in (mib, row["fp32 ms"], row["INT8 ms"])]
            lines[number] = "|".join(cells)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure each encoder in a process of its own, and write a table."""
    out = command.RESULTS / "encoders"
    options = command.options(
        __doc__,
        names=[*dict.fromkeys(LABELS.values())],
        rounds=20,
        minutes=6.0,
        out=out,
        one=(False, "measure here, print JSON"),
    )
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options.names[0], options.rounds, Path(folder))))
        return
    rows: list[dict[str, Any]] = []
    started = time.monotonic()
    for name in options.names:
        call = [sys.executable, "-m", "benchmarks.encoders", "--one", "--names", name, "--rounds", str(options.rounds)]
        began = time.monotonic()
        left = max(1.0, options.minutes * 60 + started - began)
        try:
            done = subprocess.run(call, check=True, stdout=subprocess.PIPE, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            command.say(f"{name}: left out, {options.minutes:g} minutes are over")
            break
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        command.say(f"{name}: {time.monotonic() - began:.0f} s")
    lines = [
        (*(row[head] for head in HEADS[:3]), *(f"{row[head]:.0f}" for head in HEADS[3:6]),
         *(f"{row[head]:.{int(row[head] < 10)}f}" for head in HEADS[6:]))
        for row in rows
    ]  # fmt: skip
    command.save(command.markdown(HEADS, lines), None, options.out)
    PAGE.write_text(fill(PAGE.read_text("utf-8"), rows), "utf-8")
    print(options.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
