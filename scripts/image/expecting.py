"""What the checks of an image are made of: conditions, commands that must succeed, lines of progress."""

from __future__ import annotations

import sys

from scripts.image.builder import Builder


def output(builder: Builder, command: list[str]) -> str:
    """Standard output of a command in the image that has to succeed."""
    done = builder.run(command)
    expect(done.returncode == 0, f"{command[:2]} in the image: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def expect(met: object, complaint: str) -> None:
    """Stop with the complaint unless the condition is met.

    Raises:
        SystemExit: it is not.
    """
    if not met:
        raise SystemExit(complaint)


def say(line: str) -> None:
    """Progress, on stderr."""
    print(line, file=sys.stderr, flush=True)
