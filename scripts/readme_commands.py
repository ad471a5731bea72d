"""Run the commands that a Markdown file shows, so that they cannot go stale.

Every fenced ``console``, ``sh``, ``bash`` or ``python`` block carries a mark on the line before it::

    <!-- run -->               it is run; every command has to succeed
    <!-- run: output -->       and print what a console block shows after it (``...`` stands for anything), or a Python
                               block in comments behind its lines with ``print``
    <!-- run: words -->        the same but for numbers and bars, which differ from machine to machine after training
    <!-- not run: REASON -->   it is not

A block without a mark is an error. In a console block the commands are the lines after ``$ `` (a trailing backslash
continues one). The blocks of a file run in order, in a scratch folder of its own that holds links to everything in the
checkout and, as ``.venv``, the environment that runs this script; so they read like commands typed in the checkout,
leave nothing, and no page needs what another one made. A console command that several of the files show is run once
where it finds the same files: the other pages get what it printed and what it left.
"""

from __future__ import annotations

import doctest
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHECKED = ("bash", "console", "python", "sh")
BLOCK = re.compile(
    r"(?P<mark>[^\n]*)\n(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=fence)$", re.MULTILINE | re.DOTALL
)
MARK = re.compile(r"<!-- (?:(?P<run>run)(?:: (?P<compared>output|words))?|not run: (?P<reason>.+\S)) -->")
PRINTED = re.compile(r"^ *print\(.*\)  # (.*)$", re.MULTILINE)
NUMBERS = re.compile(r"\d+(?:[.,]\d+)*|[█·]+")
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
        """Return pairs of a command and its output (console blocks), or the block with what it is said to print."""
        if self.language != "console":
            return [(self.body, "\n".join(PRINTED.findall(self.body)))]
        prompts = re.split(r"^\$ ", self.body.replace("\\\n", "\\\0"), flags=re.MULTILINE)[1:]
        pairs = (prompt.partition("\n") for prompt in prompts)
        return [(command.replace("\\\0", "\\\n"), output) for command, _, output in pairs]


@dataclass
class Shared:
    """Console commands that stand on several pages, and what they have made.

    Attributes:
        folder: has a folder for each, with the files that were there after it.
        commands: those that stand on several pages.
        outputs: what was printed, by the digest of the command and of the files that it found.
    """

    folder: Path
    commands: set[str]
    outputs: dict[str, str] = field(default_factory=dict)

    def key(self, command: str, scratch: Path) -> str:
        """Return the digest of a command and of the files that a page has made so far; links lead to the checkout."""
        digest = hashlib.sha256(command.encode())
        for path in sorted(scratch.rglob("*")):
            if path.is_file() and not path.is_symlink():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"\0{path.relative_to(scratch)}\0{content}".encode())
        return digest.hexdigest()

    def keep(self, key: str, output: str, scratch: Path) -> None:
        """Keep what a command printed, and the files that are there after it."""
        shutil.copytree(scratch, self.folder / key, symlinks=True)
        self.outputs[key] = output

    def restore(self, key: str, scratch: Path) -> str:
        """Leave the same files as the command left on another page, and return what it printed there."""
        shutil.rmtree(scratch)
        shutil.copytree(self.folder / key, scratch, symlinks=True)
        return self.outputs[key]


def main(files: list[str]) -> int:
    """Run the marked blocks of each file; the exit code is 1 if one failed or is unmarked."""
    pages = [read(Path(file)) for file in files]
    problems = [f"{b.file}:{b.line}: {b.language} block without a mark" for p in pages for b in p if b.mark is None]
    if not problems:
        shown = Counter(command for page in pages for command in {pair[0] for block in page for pair in block.commands})
        with tempfile.TemporaryDirectory(prefix="sar-readme-") as folder:
            shared = Shared(Path(folder), {command for command, pages in shown.items() if pages > 1})
            problems = [problem for page in pages for problem in run(page, shared)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return int(bool(problems))


def read(file: Path) -> list[Block]:
    """Read the blocks of a file whose language is one of `CHECKED`."""
    text = "\n" + file.read_text(encoding="utf-8")
    return [
        Block(
            file,
            text.count("\n", 0, match.start("fence")),
            match["language"],
            match["body"],
            MARK.fullmatch(match["mark"].strip()),
        )
        for match in BLOCK.finditer(text)
        if match["language"] in CHECKED
    ]


def run(page: list[Block], shared: Shared) -> list[str]:
    """Run the blocks of one file and return what went wrong."""
    with tempfile.TemporaryDirectory(prefix="sar-readme-") as scratch:
        furnish(Path(scratch))
        return [problem for block in page for problem in check(block, Path(scratch), shared)]


def furnish(scratch: Path) -> None:
    """Link the checkout's entries and the running environment into the scratch folder."""
    for entry in ROOT.iterdir():
        if entry.name not in (".git", ".venv", "build", "dist", "runs"):
            (scratch / entry.name).symlink_to(entry)
    (scratch / ".venv").symlink_to(sys.prefix)


def check(block: Block, scratch: Path, shared: Shared) -> list[str]:
    """Run one block if its mark says so, and return what went wrong."""
    where = f"{block.file}:{block.line}"
    if block.mark is None or not block.mark["run"]:
        print(f"{where}: not run: {block.mark['reason'] if block.mark else 'no mark'}", flush=True)
        return []
    for command, shown in block.commands:
        started = time.monotonic()
        key = shared.key(command, scratch) if block.language == "console" and command in shared.commands else ""
        if shared_output := key in shared.outputs:
            output, problem = shared.restore(key, scratch), None
        else:
            output, problem = execute(block.language, command, scratch)
            if key and not problem:
                shared.keep(key, output, scratch)
        problem = problem or compare(shown, output, block.mark["compared"])
        how = "failed" if problem else "as on another page" if shared_output else "ok"
        print(f"{where}: {how}, {time.monotonic() - started:.1f} s: {command.strip()[:100]}", flush=True)
        if problem:
            return [f"{where}: {problem}"]
    return []


def execute(language: str, command: str, scratch: Path) -> tuple[str, str | None]:
    """Run one command; return what it printed and, unless it succeeded, what is wrong."""
    program = [sys.executable, "-"] if language == "python" else ["bash", "-euo", "pipefail", "-s"]
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
        return "", "\n".join([f"still running after {TIME_LIMIT} s", *process.communicate()])
    return output, f"exit {process.returncode}\n{output}{errors}" if process.returncode else None


def compare(shown: str, output: str, compared: str | None) -> str | None:
    """Return how an output differs from what is shown, or None."""
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    if compared and not doctest.OutputChecker().check_output(_read(shown, compared), _read(output, compared), flags):
        return f"shows\n{shown}\nbut the command printed\n{output}"
    return None


def _read(text: str, compared: str) -> str:
    """Return what of an output is compared."""
    return NUMBERS.sub("0", text) if compared == "words" else text


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:] or ["README.md"]))
