"""``sar-train`` on the tiny backbone, as people type it, and photos to type it on."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from PIL import Image
from support.tiny import VIT, register

from sar_train.cli.train import main

WHOLE = ("--backbone", VIT, "--pretrained", "random", "--epochs", "2", "--learning-rate", "0.005")
TINY = (*WHOLE, "--prompt", "learned")
PLAIN = (*WHOLE, "--no-sar", "--no-statistics", "--set", "views=1")
"""The least that a run can do."""


def sar_train(*arguments: object, code: int = 0) -> Result:
    """Run the command, which has to end with this code."""
    register()
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def refused(*arguments: object) -> str:
    """Return the last line on stderr of a command that ends with code 2 and without a traceback."""
    result = sar_train(*arguments, code=2)
    assert isinstance(result.exception, SystemExit)
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("Error: ")
    return line


def coloured_photos(folder: Path, *names: str, count: int = 5) -> Path:
    """Write so many plain photos of each class, which has a colour of its own."""
    for colour, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        channels = [200 if channel == colour else 30 for channel in range(3)]
        for number in range(count):
            pixels = tuple(value + 4 * number for value in channels)
            Image.new("RGB", (40 + number, 40), pixels).save(folder / name / f"{number}.png")
    return folder
