"""Print the size of each package beside its budget, ``[tool.weight]`` in ``pyproject.toml``.

``python scripts/layout.py`` prints all packages; with ``--check``, those above their budget, and it fails if there are
any.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(text: str) -> int:
    """Return how many lines of Python are neither comment, nor docstring, nor blank."""
    lines = set[int]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def sizes(root: Path, budget: dict[str, dict[str, int]]) -> dict[str, tuple[int, int]]:
    """Return size and budget of each entry of a budget.

    Args:
        root: The checkout.
        budget: ``code`` has lines of code by folders, ``lines`` has all lines by pattern.
    """
    result = {}
    for folders, most in budget["code"].items():
        files = [path for folder in folders.split() for path in (root / folder).rglob("*.py")]
        result[folders] = sum(code_lines(path.read_text("utf-8")) for path in files), most
    for pattern, most in budget["lines"].items():
        result[pattern] = sum(len(path.read_text("utf-8").splitlines()) for path in root.glob(pattern)), most
    return result


def main(*, check: bool) -> int:
    """Print the sizes; return 1 if something is above its budget, and that matters."""
    budget = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["weight"]
    rows = sizes(ROOT, budget)
    above = {name for name, (size, most) in rows.items() if size > most}
    for name, (size, most) in rows.items():
        if name in above or not check:
            print(f"{name:<40}{size:>7,} of {most:>7,}{'  above its budget' if name in above else ''}")
    if check and above:
        print("Remove lines, or raise the number in [tool.weight] in a commit that says what a user gets for it.")
    return int(check and bool(above))


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
