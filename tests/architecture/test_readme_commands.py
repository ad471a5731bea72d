"""The runner of README's commands notices stale ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.readme_commands import main, read


def page(tmp_path: Path, *blocks: tuple[str, str, str], name: str = "PAGE.md") -> str:
    """A Markdown file of (mark, language, body) blocks."""
    file = tmp_path / name
    file.write_text("\n\n".join(f"Text.\n\n{mark}\n```{language}\n{body}```" for mark, language, body in blocks) + "\n")
    return str(file)


def test_blocks_run_in_order_in_one_folder_beside_the_checkout(tmp_path: Path) -> None:
    blocks = [
        ("<!-- run -->", "sh", "echo tulip > names.txt\ntest -f pyproject.toml\n.venv/bin/python --version\n"),
        ("<!-- run: output -->", "console", "$ cat \\\n    names.txt\ntulip\n$ seq 9\n1\n...\n9\n"),
        ("<!-- run: words -->", "console", "$ echo 'tulip 68.7 % ██··'\ntulip 71.25 % ███·\n"),
        ("<!-- run: output -->", "python", "names = open('names.txt').read()\nprint(names)  # tulip\nprint(2)  # 2\n"),
        ("<!-- not run: takes an hour -->", "sh", "exit 3\n"),
    ]
    assert main([page(tmp_path, *blocks)]) == 0
    assert not Path("names.txt").exists()


def test_an_equal_command_over_equal_files_is_run_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    train = f"$ seq 3 > made && rm -f old && echo >> {runs} && echo tulip\n"
    first = ("<!-- run: output -->", "console", train + "tulip\n$ cat made\n1\n2\n3\n")
    pages = {
        "SAME.md": [("<!-- run: output -->", "console", f"{train}...\n$ wc -l < made\n3\n")],
        "STALE.md": [("<!-- run: output -->", "console", f"{train}rose\n")],
        "OTHER.md": [("<!-- run -->", "sh", "touch old\n"), first, ("<!-- run -->", "sh", "test ! -e old\n")],
    }
    made = [page(tmp_path, first), *(page(tmp_path, *blocks, name=name) for name, blocks in pages.items())]
    assert main(made) == 1
    printed = capsys.readouterr()
    assert len(runs.read_text()) == 2, "once for three pages, and once for the one with another file"
    assert printed.out.count("as on another page") == 2, "the first on SAME.md, the second on OTHER.md"
    assert printed.err.startswith(f"{tmp_path}/STALE.md:4: shows\nrose")
    assert printed.err.count(".md:") == 1


@pytest.mark.parametrize(
    ("mark", "language", "body", "complaint"),
    [
        ("", "sh", "true\n", "without a mark"),
        ("<!-- not run: -->", "sh", "true\n", "without a mark"),
        ("<!-- run -->", "sh", "false\ntrue\n", "exit 1"),
        ("<!-- run -->", "console", "$ true\n$ no-such-command\n", "exit 127"),
        ("<!-- run -->", "python", "1 / 0\n", "ZeroDivisionError"),
        ("<!-- run: output -->", "python", "print('rose')  # tulip\n", "rose"),
        ("<!-- run: output -->", "console", "$ echo rose\ntulip\n", "rose"),
        ("<!-- run: output -->", "console", "$ echo tulip 1\ntulip 2\n", "tulip 1"),
        ("<!-- run: words -->", "console", "$ echo rose 1\ntulip 1\n", "rose"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mark: str, language: str, body: str, complaint: str
) -> None:
    assert main([page(tmp_path, (mark, language, body))]) == 1
    message = capsys.readouterr().err
    assert "PAGE.md:4: " in message
    assert complaint in message


def test_other_languages_need_no_mark(tmp_path: Path) -> None:
    assert read(Path(page(tmp_path, ("", "json", "{}\n"), ("", "text", "x\n")))) == []


def test_a_command_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.readme_commands.TIME_LIMIT", 1)
    assert main([page(tmp_path, ("<!-- run -->", "sh", "echo started\nsleep 60 | cat\n"))]) == 1
    message = capsys.readouterr().err
    assert "still running after 1 s" in message
    assert "started" in message
