"""Commands on the bank file of the working folder, and photos that the encoder of the tiny bundle tells apart."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sar_infer.bank import ClassBank
from sar_infer.bundle.bundle import open_bundle

BANK = Path("mine.safetensors")
COLOURS = {"red": (210, 60, 50), "green": (60, 190, 70), "blue": (50, 70, 220), "iris": (140, 60, 220)}


class Command:
    """A command as it is typed, in this process; an exception that reaches the user as a traceback fails the test."""

    def __init__(self, main: click.Command) -> None:
        self._main = main

    def __call__(self, *arguments: object, code: int = 0) -> Result:
        result = CliRunner().invoke(self._main, [str(argument) for argument in arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.exit_code == code, result.output
        return result

    def report(self, *arguments: object, code: int = 0) -> Any:
        """Return what is printed for programs."""
        return json.loads(self(*arguments, "--format", "json", code=code).stdout)

    def answers(self, *arguments: object) -> list[dict[str, Any]]:
        """Return what ``sar-classify`` prints for programs, image by image."""
        return [json.loads(line) for line in self(*arguments, "--format", "jsonl").stdout.splitlines()]

    def refused(self, *arguments: object, code: int = 2) -> str:
        """Return the line on stderr that says why nothing was done: stdout is empty, and the bank is as before."""
        before = content()
        result = self(*arguments, code=code)
        assert (result.stdout, content()) == ("", before)
        line = result.stderr.splitlines()[-1]
        assert line.startswith("Error: ")
        return line


def start(path: Path = BANK) -> None:
    """Make a bank file of the bundle's classes."""
    open_bundle(os.environ["SAR_BUNDLE"]).bank.save(path)


def content(path: Path = BANK) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


@contextmanager
def working_in(folder: Path, bundle: Path) -> Iterator[Path]:
    """Make a folder the working folder, in which commands use a bundle."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SAR_BUNDLE", str(bundle))
        yield folder


def class_names(path: Path = BANK) -> list[str]:
    return list(ClassBank.load(path).names)


def paint(path: str | Path, colour: Sequence[int], generator: np.random.Generator, spread: float = 45) -> None:
    """Write a photo of about this colour."""
    tint = np.clip(np.array(colour) + generator.normal(0, spread, 3), 0, 255)
    pixels = np.clip(tint + generator.normal(0, 8, (32, 32, 3)), 0, 255).astype(np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def paint_folders(
    root: str, count: int, seed: int, names: Sequence[str] = (*COLOURS,), wrong: float = 0.0, spread: float = 45
) -> str:
    """Write ``root/CLASS/NUMBER.png``, some of which show another class; return the root."""
    generator = np.random.default_rng(seed)
    for name in names:
        for number in range(count):
            shown = str(generator.choice(names)) if wrong and generator.random() < wrong else name
            paint(Path(root, name, f"{number}.png"), COLOURS.get(shown, (90, 90, 90)), generator, spread)
    return root
