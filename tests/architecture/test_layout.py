"""The budget counts code."""

from __future__ import annotations

from pathlib import Path

from scripts.layout import code_lines, sizes

TEXT = '''"""A docstring
of two lines."""

# a comment
def answer() -> int:
    """Another one."""
    text = """this
    counts"""
    return len(
        text,  # with what follows
    )
'''


def test_comments_docstrings_and_blanks_do_not_count() -> None:
    assert code_lines(TEXT) == 6


def test_entries_may_name_several_folders_or_a_pattern(tmp_path: Path) -> None:
    for name in ("a/b/one.py", "c/two.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(TEXT)
    budget = {"code": {"a c": 11, "missing": 0}, "lines": {"a/**/*.py": 11}}
    assert sizes(tmp_path, budget) == {"a c": (12, 11), "missing": (0, 0), "a/**/*.py": (11, 11)}
