"""Measure how many small faults the tests notice: ``python -m scripts.mutants ROOM... --seed 1 --out out.jsonl``.

A room is a folder such as ``sar_infer/bank``. From all places where its code could be wrong in a small way, a seeded
sample is drawn: another comparison, sum, boolean, number or return value, the opposite condition, a ``not`` or minus
gone. Each fault is written into a copy of the tree and meets the fast tests of its room that import its module, or a
neighbour that does. Texts, annotations, decorators, what is raised and ``strict=`` stay as they are.

Results are JSON lines. Another run with the same file tries only survivors and what is not in it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import importlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
WARM = ("numpy", "onnxruntime", "torch", "open_clip", "matplotlib.pyplot", "hypothesis")
CPU_S, WALL_S = 90, 600  # for one fault; what takes longer counts as noticed
Change = tuple[str, object]  # a field of a node, and its other value
SKIPPED = {"annotation", "returns", "decorator_list"}
SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div},
    **{ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.USub: ast.UAdd},
}


def negated(test: ast.expr) -> ast.expr:
    """Return the opposite of a condition."""
    return ast.UnaryOp(ast.Not(), test)


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes in which a fault changes behaviour, always in the same order."""
    yield node
    for name, value in ast.iter_fields(node):
        for child in value if isinstance(value, list) else [value]:
            hidden = isinstance(child, ast.Raise) or (isinstance(child, ast.keyword) and child.arg == "strict")
            if isinstance(child, ast.AST) and name not in SKIPPED and not hidden:
                yield from walk(child)


def of_operators(node: ast.AST) -> Iterator[Change]:
    """Yield what can be another operator."""
    match node:
        case ast.Compare(ops=ops):
            for at, op in enumerate(ops):
                yield "ops", [*ops[:at], SWAPPED[type(op)](), *ops[at + 1 :]]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield "operand", negated(operand)
        case ast.BinOp(op=op) | ast.AugAssign(op=op) | ast.BoolOp(op=op) | ast.UnaryOp(op=op) if type(op) in SWAPPED:
            yield "op", SWAPPED[type(op)]()


def of_values(node: ast.AST) -> Iterator[Change]:
    """Yield what can be another number, boolean, return value or the opposite condition."""
    match node:
        case ast.Constant(value=bool() as value):
            yield "value", not value
        case ast.Constant(value=int() | float() as value):
            yield "value", value + 1
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) != "None":
            yield "value", ast.Constant(None)
        case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
            yield "test", negated(test)
        case ast.comprehension(ifs=ifs):
            for at, test in enumerate(ifs):
                yield "ifs", [*ifs[:at], negated(test), *ifs[at + 1 :]]


def faults(tree: ast.AST) -> list[tuple[ast.AST, Change]]:
    """Return every small fault that a module can have."""
    return [(node, change) for node in walk(tree) for change in (*of_operators(node), *of_values(node))]


def sample(room: str, seed: int, count: int) -> list[tuple[str, int]]:
    """Return module and number of each fault that is drawn for a room."""
    drawable = []
    for path in sorted((ROOT / room).rglob("*.py")):
        number = len(faults(ast.parse(path.read_text(encoding="utf-8"))))
        drawable += [(path.relative_to(ROOT).as_posix(), at) for at in range(number)]
    return random.Random(f"{seed} {room}").sample(drawable, min(count, len(drawable)))


def broken(module: str, number: int) -> tuple[str, str]:
    """Return a module with one fault, and a line that says which."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    node, (field, value) = faults(tree)[number]
    at: Any = node.target if isinstance(node, ast.comprehension) else node  # a comprehension knows no line
    before = ast.unparse(node).splitlines()[0].strip()
    setattr(node, field, value)
    ast.fix_missing_locations(tree)
    after = ast.unparse(node).splitlines()[0].strip()
    return ast.unparse(tree), f"{module}:{at.lineno}:{at.col_offset}: {before} -> {after}"


def tests(module: str) -> list[str]:
    """Return the test files of a module's room that import it or a neighbour that does, its own first.

    Tests of a folder within a room may lie in the room's.
    """
    path = Path(module)
    folder = next(folder for name in path.parents if (folder := ROOT / "tests" / name).is_dir())
    package = path.parent.as_posix().replace("/", ".")

    def imports(stem: str, file: Path) -> bool:
        before_name = "" if stem == "__init__" else rf"(\([^)]*|.*)\b{stem}\b"
        text = file.read_text(encoding="utf-8")
        return re.search(rf"{package}\.{stem} import|from {package} import {before_name}", text) is not None

    above = [other.stem for other in (ROOT / path.parent).glob("*.py") if imports(path.stem, other)]
    files = []
    for file in folder.rglob("test_*.py"):
        named, direct = file.stem == f"test_{path.stem}", imports(path.stem, file)
        if named or direct or any(imports(stem, file) for stem in above):
            files.append((not named, not direct, file.relative_to(ROOT).as_posix()))
    return [name for *_, name in sorted(files)]


def attempt(tree: Path, files: list[str], log: Path) -> tuple[str, float]:
    """Run tests of the copy in a fork of this process; return what came of it, and its seconds of CPU."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    pid = os.fork()
    if not pid:
        with contextlib.suppress(BaseException):
            os.setpgid(0, 0)
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir(tree)
            os.environ["PYTHONPATH"] = f"{tree}:{tree / 'tests'}"
            sys.path[:0] = [str(tree), str(tree / "tests")]
            for name in [name for name in sys.modules if name.split(".")[0] in {"sar_infer", "sar_train", "scripts"}]:
                del sys.modules[name]
            options = ["-x", "-q", "-m", "not slow and not nightly", "--assert=plain", "--tb=line"]
            options += ["-p", "no:cacheprovider"]
            os._exit(pytest.main([*options, *files]))
        os._exit(70)
    deadline = time.monotonic() + WALL_S
    while not (ended := os.waitpid(pid, os.WNOHANG))[0] and time.monotonic() < deadline:
        time.sleep(0.05)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(ended[1] if ended[0] else os.waitpid(pid, 0)[1])
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return {0: "survived", -signal.SIGKILL: "late", -signal.SIGXCPU: "late"}.get(code, "killed"), seconds


def copy(target: Path) -> None:
    """Copy what git knows, or would add, to another place."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


class Judge:
    """Tries faults in a copy of the tree, with tests that pass there without one."""

    def __init__(self, folder: Path) -> None:
        self._tree, self._log = folder / "tree", folder / "log"
        self._sound: set[str] = set()
        copy(self._tree)

    def result(self, module: str, number: int, text: str) -> tuple[str, float]:
        """Return what came of a fault, and the seconds of CPU that it took."""
        files = tests(module)
        if not files:  # only tests of other rooms meet it
            return "survived", 0.0
        (self._tree / module).write_text(text, encoding="utf-8")
        os.utime(self._tree / module, (number, number))  # another time for each, so none runs as compiled before
        result = attempt(self._tree, files, self._log)
        shutil.copy2(ROOT / module, self._tree / module)
        if result[0] != "survived":
            failed = re.search(
                r"^(?:FAILED|ERROR) (tests/[^\s\[]+)", self._log.read_text(encoding="utf-8"), re.MULTILINE
            )
            self._check(failed[1] if failed else files[0])
        return result

    def _check(self, test: str) -> None:
        """End if a test that a fault failed fails without one."""
        if test not in self._sound and attempt(self._tree, [test], self._log)[0] != "survived":
            sys.exit(f"{test} fails without a fault:\n{self._log.read_text(encoding='utf-8')[-2000:]}")
        self._sound.add(test)


def main() -> None:
    """Try the sample of each room and print scores and survivors."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0].partition(":")[0])
    parser.add_argument("rooms", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=25)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    lines = options.out.read_text(encoding="utf-8").splitlines() if options.out.exists() else []
    results = {entry["fault"]: entry["result"] for entry in map(json.loads, lines)}
    with tempfile.TemporaryDirectory() as folder, options.out.open("a", encoding="utf-8") as out:
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
            pytest.main(["--collect-only"])  # imports the plugins
        for name in WARM:
            importlib.import_module(name)
        judge = Judge(Path(folder))
        for room in options.rooms:
            noticed, faults_drawn = 0, sample(room, options.seed, options.count)
            for module, number in faults_drawn:
                text, fault = broken(module, number)
                result = results.get(fault, "survived")
                if result == "survived":
                    result, seconds = judge.result(module, number, text)
                    line = {"room": room, "fault": fault, "result": result, "cpu_s": round(seconds, 1)}
                    print(json.dumps(line, ensure_ascii=False), file=out, flush=True)
                    print(f"{result:<9}{seconds:5.1f} s  {fault}", flush=True)
                noticed += result != "survived"
            print(f"{room}: {noticed} of {len(faults_drawn)}", flush=True)


if __name__ == "__main__":
    main()
