"""Import of published towers of ViT-B/32's size: seconds and peak memory.

    python -m benchmarks.importing [--out results/importing]

The weights are random, laid out as Immich does, with a batch fixed at one. Seconds are processor time of the whole
command, ``sar-bundle import``, on two threads.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import command

MODEL = "ViT-B-32-quickgelu"


def main() -> None:
    """Make the towers, import them and write a line."""
    options = command.options(__doc__, out=command.RESULTS / "importing")
    sys.path.insert(0, str(command.ROOT / "tests"))
    import open_clip
    from support import towers

    model = open_clip.create_model(MODEL, load_weights=False).eval()
    preprocess = towers.OPEN_CLIP_PREPROCESS | {"size": 224}
    with tempfile.TemporaryDirectory() as scratch:
        folder = towers.immich(Path(scratch) / "towers", model, open_clip.get_model_config(MODEL), preprocess)
        towers.save_clip_tokenizer(folder / "textual")
        size = sum(path.stat().st_size for path in folder.rglob("*.onnx")) / 2**20
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        call = ["sar-bundle", "import", str(folder), "--out", f"{scratch}/bundle", "--no-check", "--quiet"]
        subprocess.run([str(Path(sys.executable).with_name(call[0])), *call[1:]], check=True, stdout=subprocess.DEVNULL)
        used, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    heads = ("towers", "MiB", "processor time, s", "wall, s", "peak memory, MiB")
    row = (MODEL, f"{size:.0f}", f"{processor:.0f}", f"{seconds:.0f}", f"{used.ru_maxrss / 1024:.0f}")
    command.tell(command.markdown(heads, [row]), None, options.out)


if __name__ == "__main__":
    main()
