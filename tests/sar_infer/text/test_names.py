from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sar_infer.errors import ClassFileError, ClassNameError, InputError
from sar_infer.text.names import name_key, name_keys, parse_line, phrases_by_name, read_class_file


def written(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "new.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_names_phrases_comments_and_blank_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "# animals\n\n  red panda \nzebra = zebra | striped horse\n#x\nE=mc2\n")
    file = read_class_file(path)
    assert file.classes == {"red panda": ("red panda",), "zebra": ("zebra", "striped horse"), "E=mc2": ("E=mc2",)}
    assert list(file.classes) == ["red panda", "zebra", "E=mc2"]
    assert file.warnings == ()


def test_byte_order_mark_line_ends_and_a_repeated_name(tmp_path: Path) -> None:
    for content in (b"\xef\xbb\xbfcat\r\ndog\r\n", b"cat\rdog", b"cat\ndog\n\n"):
        assert list(read_class_file(written(tmp_path, content)).classes) == ["cat", "dog"]
    file = read_class_file(written(tmp_path, "cat\ndog\n Cat = feline\n"))
    assert file.classes == {"cat": ("cat",), "dog": ("dog",)}
    assert file.warnings == (f"{tmp_path / 'new.txt'}:3: class name 'Cat' is already on line 1; used once",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "new.txt: empty"),
        (b" \n\t\n", "new.txt: empty"),
        (b"# only a comment\n", "no class name"),
        (b"cat\nd\0g\n", "new.txt:2: .*0x00"),
        (b"cat\ndog\n\xff\xfe\xfa", "new.txt:3: .*0xff"),
        ("cat\n".encode("utf-16"), "UTF-16"),
        (b"cat\ndog =\n", "new.txt:2: "),
        (b"= cat\n", "new.txt:1: "),
        (b"cat = a | | b\n", "new.txt:1: "),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(ClassFileError, match=message) as caught:
        read_class_file(written(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_a_folder_and_a_phrase_that_does_not_fit(tmp_path: Path) -> None:
    with pytest.raises(ClassFileError, match=r"none\.txt"):
        read_class_file(tmp_path / "none.txt")
    with pytest.raises(ClassFileError, match="folder"):
        read_class_file(tmp_path)
    phrases: list[str] = []

    def check(phrase: str) -> None:
        phrases.append(phrase)
        if phrase == "bad":
            raise ClassNameError("too long")

    with pytest.raises(ClassFileError, match=r"new\.txt:2: too long"):
        read_class_file(written(tmp_path, "cat\nx = good | bad\n"), check)
    assert phrases == ["cat", "good", "bad"]


@given(st.text(st.characters(blacklist_characters="=|#\n\r", blacklist_categories=["Cs"]), min_size=1))
def test_a_line_without_marks_is_its_own_phrase(name: str) -> None:
    if name.strip():
        assert parse_line(name) == (name.strip(), (name.strip(),))


def test_only_the_first_equals_sign_divides() -> None:
    assert parse_line("sign = a = b | c") == ("sign", ("a = b", "c"))


def test_repeated_names_count_once() -> None:
    assert phrases_by_name(["owl", "Owl ", "emu"]) == {"owl": ("owl",), "emu": ("emu",)}
    assert phrases_by_name(np.array(["owl", "emu"])) == {"owl": ("owl",), "emu": ("emu",)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ("owl", InputError, "string"),
        ({"owl": []}, ClassNameError, "owl"),
        ([5], ClassNameError, "5"),
        ({"owl": [5]}, ClassNameError, "5"),
    ],
)
def test_wrong_classes(classes, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        phrases_by_name(classes)


def test_keys_of_many_are_those_of_each() -> None:
    assert name_key(" Red\t Panda") == name_key("red panda") != name_key("redpanda")
    chance = random.Random(0)
    parts = [*"aB \t\néΣςßİ日ﬁ\u0301\u3000\x85", "  ", "e\u0301"]
    for _ in range(2000):
        names = ["".join(chance.choices(parts, k=chance.randint(0, 5))) for _ in range(chance.randint(0, 6))]
        assert name_keys(names) == list(map(name_key, names))


def test_every_space_is_seen_in_many_names() -> None:
    for space in filter(str.isspace, map(chr, range(sys.maxunicode + 1))):
        assert name_keys([f"A{space}{space}b", "c"]) == ["a b", "c"], hex(ord(space))
