"""Run the commands that a Markdown file shows, so that they cannot go stale.

Every fenced ``console``, ``sh``, ``bash`` or ``python`` block carries a mark on the line before it::

    <!-- run -->               it is run; every command has to succeed
    <!-- run: output -->       and print what a console block shows after it (``...`` stands for anything)
    <!-- not run: REASON -->   it is not

A block without a mark is an error. In a console block the commands are the lines after ``$ `` (a trailing backslash
continues one). The blocks of a file run in order, in a scratch folder of its own that holds links to everything in the
checkout and, as ``.venv``, the environment that runs this script; so they read like commands typed in the checkout,
leave nothing, and no page needs what another one made.
"""

from __future__ import annotations

import doctest
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ("bash", "console", "python", "sh")
BLOCK = re.compile(
    r"(?P<mark>[^\n]*)\n(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL
)
MARK = re.compile(r"<!-- (?:(?P<run>run)(?P<output>: output)?|not run: (?P<reason>.+\S)) -->")
TIME_LIMIT = 900


@dataclass(frozen=True)
class Block:
    """A fenced block that has to be marked: its place in the file, and its mark."""

    file: Path
    line: int
    language: str
    body: str
    mark: re.Match[str] | None

    @property
    def commands(self) -> list[tuple[str, str]]:
        """Return pairs of a command and its output (console blocks), or the whole block without output."""
        if self.language != "console":
            return [(self.body, "")]
        parts = re.split(r"^\$ ", self.body.replace("\\\n", "\\\0"), flags=re.MULTILINE)[1:]
        pairs = (part.partition("\n") for part in parts)
        return [(command.replace("\\\0", "\\\n"), output) for command, _, output in pairs]


def main(files: list[str]) -> int:
    """Run the marked blocks of each file; the exit code is 1 if one failed or is unmarked."""
    pages = [read(Path(file)) for file in files]
    problems = [f"{b.file}:{b.line}: {b.language} block without a mark" for p in pages for b in p if b.mark is None]
    if not problems:
        problems = [problem for page in pages for problem in run(page)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def read(file: Path) -> list[Block]:
    """Read the blocks of a file whose language is one of `CHECKED`."""
    text = "\n" + file.read_text(encoding="utf-8")
    return [
        Block(
            file,
            text.count("\n", 0, found.start("fence")),
            found["language"],
            found["body"],
            MARK.fullmatch(found["mark"].strip()),
        )
        for found in BLOCK.finditer(text)
        if found["language"] in CHECKED
    ]


def run(page: list[Block]) -> list[str]:
    """Run the blocks of one file and return what went wrong."""
    with tempfile.TemporaryDirectory(prefix="sar-readme-") as scratch:
        furnish(Path(scratch))
        return [problem for block in page for problem in check(block, Path(scratch))]


def furnish(scratch: Path) -> None:
    """Link the checkout's entries and the running environment into the scratch folder."""
    for entry in ROOT.iterdir():
        if entry.name not in (".git", ".venv", "build", "dist", "runs"):
            (scratch / entry.name).symlink_to(entry)
    (scratch / ".venv").symlink_to(sys.prefix)


def check(block: Block, scratch: Path) -> list[str]:
    """Run one block if its mark says so, and return what went wrong."""
    where = f"{block.file}:{block.line}"
    if block.mark is None or not block.mark["run"]:
        print(f"{where}: not run: {block.mark['reason'] if block.mark else 'no mark'}", flush=True)
        return []
    for command, shown in block.commands:
        started = time.monotonic()
        problem = execute(block, command, shown, scratch)
        print(
            f"{where}: {'failed' if problem else 'ok'}, {time.monotonic() - started:.1f} s: {command.strip()[:100]}",
            flush=True,
        )
        if problem:
            return [f"{where}: {problem}"]
    return []


def execute(block: Block, command: str, shown: str, scratch: Path) -> str | None:
    """Run one command and return what is wrong with its exit code or output, or None."""
    program = [sys.executable, "-"] if block.language == "python" else ["bash", "-euo", "pipefail", "-s"]
    environment = os.environ | {
        "PATH": f"{Path(sys.prefix, 'bin')}{os.pathsep}{os.environ['PATH']}",
        "VENV_READY": "1",
        "VENV": ".venv",
    }
    process = subprocess.Popen(
        program,
        cwd=scratch,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(command, timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the shell and what it started
        return "\n".join([f"still running after {TIME_LIMIT} s", *process.communicate()])
    if process.returncode:
        return f"exit {process.returncode}\n{output}{errors}"
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if block.mark and block.mark["output"] and not doctest.OutputChecker().check_output(shown, output, flags):
        return f"shows\n{shown}\nbut the command printed\n{output}"
    return None


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:] or ["README.md"]))
