"""``sar-bank`` and ``sar-classify`` as they are typed, in this process, on the bank file of the working folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.testing import CliRunner, Result
from PIL import Image

from sar_infer.bank import ClassBank
from sar_infer.cli.bank import main as sar_bank
from sar_infer.cli.classify import main as sar_classify

BANK = Path("mine.safetensors")
COLOURS = {"red": (210, 60, 50), "green": (60, 190, 70), "blue": (50, 70, 220), "iris": (140, 60, 220)}
"""Mean colours that the encoder of the tiny bundle tells apart."""


def run(*arguments: object, code: int = 0, command: click.Command = sar_bank) -> Result:
    """Run a command; an exception that reaches the user as a traceback fails the test."""
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def classify(*arguments: object, code: int = 0) -> Result:
    return run(*arguments, code=code, command=sar_classify)


def report(*arguments: object, code: int = 0) -> Any:
    """What ``sar-bank`` prints for programs."""
    return json.loads(run(*arguments, "--format", "json", code=code).stdout)


def answers(*arguments: object) -> list[dict[str, Any]]:
    """What ``sar-classify`` prints for programs, image by image."""
    return [json.loads(line) for line in classify(*arguments, "--format", "jsonl").stdout.splitlines()]


def content(path: Path = BANK) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def refused(*arguments: object, code: int = 2, command: click.Command = sar_bank) -> str:
    """Return the line on stderr that says why nothing was done: nothing is on stdout, and the bank is as before."""
    before = content()
    result = run(*arguments, code=code, command=command)
    assert (result.stdout, content()) == ("", before)
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    return line


def class_names(path: Path = BANK) -> list[str]:
    return list(ClassBank.load(path).names)


def paint(path: str | Path, colour: Sequence[int], generator: np.random.Generator, spread: float = 45) -> None:
    """Write a photo of about this colour."""
    tint = np.clip(np.array(colour) + generator.normal(0, spread, 3), 0, 255)
    pixels = np.clip(tint + generator.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def paint_folders(root: str, count: int, seed: int, names: Sequence[str] = (*COLOURS,), wrong: float = 0.0) -> str:
    """Write ``root/CLASS/NUMBER.png``, some of which show another class; return the root."""
    generator = np.random.default_rng(seed)
    for name in names:
        for number in range(count):
            shown = str(generator.choice(names)) if wrong and generator.random() < wrong else name
            paint(Path(root, name, f"{number}.png"), COLOURS[shown], generator)
    return root
