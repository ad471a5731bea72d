"""Learn six garments from 13 photos each, and write the bundle that needs no torch.

python examples/train_and_export.py [FOLDER]
"""

import sys
from pathlib import Path

from sar_train import export, train

CLOTHES = Path(__file__).parent / "clothes"


def main(folder: Path) -> None:
    """Train, say how good it is, export, and show what is in the bundle."""
    run = train(
        CLOTHES / "train",
        out=folder / "run",
        epochs=20,  # left out: as many as the method's authors publish
        overwrite=True,
        progress=print,
    )
    print(f"\nzero-shot {run.zero_shot.base_accuracy:.1f} %, this run {run.scores.base_accuracy:.1f} %")

    bundle = export(run, out=folder / "bundle", photos=CLOTHES / "test" / "hat", overwrite=True, progress=print)
    print(f"\n{folder / 'bundle'}: {', '.join(bundle.bank.names)}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example"))
