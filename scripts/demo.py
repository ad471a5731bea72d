"""The whole loop on photos, offline: train six garments, export, add four by name and by photos, learn unlabelled ones.

    python scripts/demo.py [FOLDER]

FOLDER (default ``runs/demo``) takes the run, the bundle and the bank; a finished run or bundle in it is used again. The
photos are in ``examples/clothes`` (CC0). Each step is one command, printed before it runs, so that it can be repeated
by hand; after each the demo says how many of 150 test photos got the right name. In the last step the bank learns from
one half of these photos, without their names, and names the other half; then the other way round.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import harmonic_mean, mean

CLOTHES = Path("examples/clothes")
TRAIN, ADDED, TEST = CLOTHES / "train", CLOTHES / "added", CLOTHES / "test"


def main() -> None:
    """Train, export, classify; add classes by name, then by photos, learn from others, and measure each."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    run, bundle, bank = folder / "run", folder / "bundle", folder / "shop.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    bank.unlink(missing_ok=True)
    if not (run / "record.json").is_file():
        step("learn six garments from 13 photos each", "sar-train", str(TRAIN), "--out", str(run))
    if not (bundle / "manifest.json").is_file():
        step("export them: from here on without PyTorch", "sar-export", str(run), "--out", str(bundle))
    on_bundle = ("--bundle", str(bundle))
    step("classify photos", "sar-classify", str(TEST / "hat"), *on_bundle, "--top-k", "2", show=6)
    tell("trained garments only", named([TEST], *on_bundle), added=False)
    step("add four garments by their names", "sar-bank", "add", str(bank), *garments(ADDED), *on_bundle)
    on_bank = (*on_bundle, "--bank", str(bank))
    tell("by name", named([TEST], *on_bank))
    step("show two photos of each", "sar-bank", "add", str(bank), "--photos", str(ADDED), *on_bundle)
    tell("by name and two photos", named([TEST], *on_bank))
    halves = [sorted(TEST.glob("*/*.jpg"))[start::2] for start in (0, 1)]
    answers: list[tuple[str, str]] = []
    for number, (half, other) in enumerate((halves, halves[::-1]), start=1):
        photos = folder / f"unlabelled-{number}.txt"
        photos.write_text("".join(f"{path}\n" for path in half))
        learn = ("sar-bank", "learn", str(bank), "--photos", str(photos), "--all-known", *on_bundle)
        step(f"learn from half of the test photos without their names ({number} of 2)", *learn, show=6)
        answers += named(other, *on_bank)
    tell("and photos without names", answers)


def step(title: str, *command: str, show: int = 0) -> None:
    """Print a title and run a command, all of its output or the first ``show`` lines; stop if it fails."""
    print(f"\n# {title}\n$ {shlex.join(command)}", flush=True)
    done = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE if show else None)
    if done.returncode:
        sys.exit(done.returncode)
    if show:
        print("\n".join([*done.stdout.splitlines()[:show], "..."]))


def named(photos: Sequence[Path], *options: str) -> list[tuple[str, str]]:
    """Return the garment and the best answer of each photo."""
    command = ("sar-classify", *map(str, photos), *options, "--top-k", "1", "--format", "jsonl")
    printed = subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout
    results = map(json.loads, printed.splitlines())
    return [(Path(result["image"]).parent.name, result["predictions"][0]["label"]) for result in results]


def tell(label: str, answers: Sequence[tuple[str, str]], *, added: bool = True) -> None:
    """Print the share of photos that are found, the mean over the trained garments and over the added ones."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for garment, answer in answers:
        hits[garment].append(garment == answer)
    trained = mean(100 * mean(hits[name]) for name in garments(TRAIN))
    if not added:
        print(f"\n=> {label}: {trained:.0f} % of their photos are found", flush=True)
        return
    others = mean(100 * mean(hits[name]) for name in garments(ADDED))
    both = harmonic_mean([trained, others])
    print(f"\n=> {label}: {trained:.0f} % of trained, {others:.0f} % of added (harmonic mean {both:.0f} %)", flush=True)


def garments(folder: Path) -> list[str]:
    """Return the names of the classes in a folder."""
    return sorted(path.name for path in folder.iterdir())


if __name__ == "__main__":
    main()
