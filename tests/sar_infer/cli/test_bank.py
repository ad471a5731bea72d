"""``sar-bank`` as it is typed."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, image_weight, name_rows, write_bundle
from support.disk import fill_disk
from support.hostile_graphs import endless
from support.terminals import on_a_terminal

from sar_infer import Classifier, default_bundle
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bank_advice.linter import CHUNK
from sar_infer.bundle import bank_file
from sar_infer.bundle.manifest import NAME_ENCODER
from sar_infer.cli.bank import main

ROOT = Path(__file__).parents[3]
BANK = Path("mine.safetensors")

pytestmark = pytest.mark.usefixtures("here")


def run(*arguments: object, code: int = 0, **settings) -> Result:
    """In this process; an exception that reaches the user as a traceback fails the test."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], **settings)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return result


def refused(*arguments: object, code: int = 2) -> str:
    """The one line on stderr, with nothing on stdout."""
    result = run(*arguments, code=code)
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]
    assert line.startswith("Error: ")
    return line


def answer(*arguments: object, code: int = 0) -> object:
    return json.loads(run(*arguments, "--format", "json", code=code).stdout)


def names() -> list[str]:
    return list(ClassBank.load(BANK).names)


def content(path: Path = BANK) -> bytes:
    return path.read_bytes()


# ------------------------------------------------------------------------------------------------------------------ add
def test_a_missing_file_starts_as_the_bundles_bank() -> None:
    result = run("add", BANK, "owl")
    assert result.stderr.splitlines()[-1] == "mine.safetensors did not exist: made as a copy of the 4 classes of tiny"
    assert "did not exist" not in run("add", BANK, "cat", "--no-lint").stderr
    BANK.unlink()
    result = run("add", BANK, "owl")
    assert result.stdout == "added 'owl'; 5 classes; undo: sar-bank rollback mine.safetensors --to 0\n"
    bank = ClassBank.load(BANK, ENCODER_DIGEST)
    assert bank.names == (*BANK_NAMES, "owl")
    np.testing.assert_allclose(bank.embeddings[4], name_rows(["owl"])[0], atol=1e-6)
    assert bank.info["owl"].added is not None
    assert bank.history[-1].by == "sar-bank add"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["lint", "SKU-12345"], 1), (["remove", "owk"], 2), (["add", "red"], 0)],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_missing_file_that_nothing_is_written_to_is_named(arguments: list[str], code: int) -> None:
    command, *rest = arguments
    result = run(command, BANK, *rest, code=code)
    assert "mine.safetensors does not exist: these are the 4 classes of tiny\n" in result.stderr
    assert not BANK.exists()


def test_the_way_back_names_the_bundle_where_it_was_named(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_bundle(tmp_path / "my bundle")
    monkeypatch.delenv("SAR_BUNDLE")
    stdout = run("add", "my bank.safetensors", "owl", "--bundle", bundle).stdout
    words = shlex.split(stdout.partition("undo: ")[2])
    assert words == ["sar-bank", "rollback", "my bank.safetensors", "--to", "0", "--bundle", str(bundle)]
    run(*words[1:])
    assert ClassBank.load(Path("my bank.safetensors")).names == BANK_NAMES
    monkeypatch.setenv("SAR_BUNDLE", str(bundle_path))
    assert run("add", BANK, "owl").stdout.endswith("undo: sar-bank rollback mine.safetensors --to 0\n")


def test_phrases_are_averaged_on_the_sphere(tmp_path: Path) -> None:
    Path("new.txt").write_text("zebra = zebra | striped horse\nowl\n# a comment\nOwl\n")
    result = run("add", BANK, "pet = cat | dog", "--classes", "new.txt")
    assert "Warning: new.txt:4: class name 'Owl' is already on line 2; used once" in result.stderr
    bank = ClassBank.load(BANK)
    assert bank.names[4:] == ("pet", "zebra", "owl")
    mean = name_rows(["zebra", "striped horse"]).mean(axis=0)
    np.testing.assert_allclose(bank.embeddings[5], mean / np.linalg.norm(mean), atol=1e-6)
    assert bank.info["zebra"].phrases == ("zebra", "striped horse")
    assert bank.info["owl"].phrases == ()


def test_the_classifier_takes_what_was_written(bundle_path: Path) -> None:
    run("add", BANK, "owl")
    (result,) = Classifier.open(bundle_path, bank=BANK).classify(np.zeros((40, 40, 3), np.uint8), top_k=9)
    assert {p.label: p.source for p in result.predictions}["owl"] == "bank"


def test_background_and_threshold() -> None:
    run("add", BANK, "sky", "--background")
    run("add", BANK, "owl", "--threshold", "0.25")
    info = ClassBank.load(BANK).info
    assert (info["sky"].background, info["sky"].threshold) == (True, None)
    assert (info["owl"].background, info["owl"].threshold) == (False, 0.25)


def test_a_class_that_is_there_keeps_what_is_not_said_anew() -> None:
    run("add", BANK, "owl", "--threshold", "0.25")
    run("alias", BANK, "owl", "night bird")
    said = answer("add", BANK, "owl = owl | bird of the night", "red")
    assert said["summary"] == "replaced 'owl'"
    assert ClassBank.load(BANK).info["owl"].phrases == ("owl", "bird of the night")
    assert ClassBank.load(BANK).info["owl"].aliases == ("night bird",)
    assert ClassBank.load(BANK).info["owl"].threshold == 0.25
    assert len(names()) == 5


def test_adding_what_is_there_changes_nothing() -> None:
    run("add", BANK, "owl")
    before = content()
    said = answer("add", BANK, "owl")
    assert (said["changed"], said["summary"], said["undo_to"]) == (False, "nothing to change", None)
    assert content() == before


def test_many_names_are_embedded_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"{first} {second}" for first in range(100) for second in range(50)]
    Path("many.txt").write_text("\n".join(many))
    sizes: list[int] = []
    embed = Classifier.embed_phrases

    def watched(self: Classifier, groups: list[tuple[str, ...]]) -> object:
        sizes.append(len(groups))
        return embed(self, groups)

    monkeypatch.setattr(Classifier, "embed_phrases", watched)
    said = answer("add", BANK, "--classes", "many.txt")
    assert said["classes"] == 5004
    assert (max(sizes), sum(sizes)) == (CHUNK, 5000)
    bank = ClassBank.load(BANK)
    np.testing.assert_allclose(bank.embeddings[4:], name_rows(many), atol=1e-6)
    assert bank.names[4:] == tuple(many)


# ---------------------------------------------------------------------------------------------------- lint while adding
def test_findings_are_shown_and_do_not_stop() -> None:
    result = run("add", BANK, "Red ", "SKU-12345", "owl")
    assert "Warning: 'SKU-12345' looks like a code" in result.stderr
    assert "Warning: 'Red' is a name of 'red' already [duplicate] -> 'red'" in result.stderr
    assert names() == [*BANK_NAMES, "SKU-12345", "owl"]
    said = answer("add", BANK, "SKU-12346")
    assert said["findings"][0]["kind"] == "wording"


def test_strict_refuses_warnings_and_writes_nothing() -> None:
    assert "nothing was added: --strict, and there are warnings" in refused("add", BANK, "owl", "SKU-12345", "--strict")
    assert not BANK.exists()
    run("add", BANK, "wet owl", "--strict", "--bundle", default_bundle())  # what is only good to know is no warning


def test_what_cannot_be_embedded_stops_all() -> None:
    long = " ".join(["cat"] * 30)
    result = run("add", BANK, "owl", long, code=2)
    assert "18 tokens fit, so this would be lost" in result.stderr
    assert "nothing was added: not all of them can be embedded (1 finding)" in result.stderr
    assert not BANK.exists()
    assert "is too long: 31 tokens, 18 fit" in refused("add", BANK, long, "--no-lint")
    Path("new.txt").write_text(f"owl\n{long}\n")
    assert "new.txt:2: class name" in refused("add", BANK, "--classes", "new.txt", "--no-lint")


def test_many_findings_are_counted() -> None:
    result = run("add", BANK, *(f"SKU-{number}" for number in range(10_000, 10_030)))
    assert result.stderr.count("looks like a code") <= 20
    assert re.search(r"and \d+ more of severity warning", result.stderr)
    assert len(names()) == 34


def test_without_lint_nothing_is_said() -> None:
    assert "code" not in run("add", BANK, "SKU-12345", "--no-lint").stderr
    assert "contradict" in refused("add", BANK, "owl", "--no-lint", "--strict")


# ----------------------------------------------------------------------------------------------------------- lint alone
def test_lint_says_what_it_thinks_and_writes_nothing() -> None:
    result = run("lint", BANK, "latte art", "the sea", "--bundle", default_bundle())
    assert "Info: 'the sea' the prompt adds the article [wording] -> 'sea'" in result.stdout
    found = answer("lint", BANK, "goldenRetriever", code=1)
    assert {finding["kind"] for finding in found} == {"odd-tokens"}
    Path("new.txt").write_text("x" * 4000 + "\n")
    assert "Error: " in run("lint", BANK, "--classes", "new.txt", code=1).stdout
    assert not BANK.exists()


def test_lint_of_a_banks_own_classes() -> None:
    run("add", BANK, "owl", "owls", "--no-lint")
    (double,) = [finding for finding in answer("lint", BANK, code=1) if finding["kind"] == "duplicate"]
    assert (double["name"], double["suggestion"]) == ("owls", "owl")


# -------------------------------------------------------------------------------------------------------------- editing
def test_remove_is_all_or_nothing() -> None:
    run("add", BANK, "owl")
    before = content()
    assert "no class 'owk' in the bank; did you mean 'owl'?" in refused("remove", BANK, "red", "owk")
    assert content() == before
    said = answer("remove", BANK, "RED", "owl")
    assert (said["changed"], said["classes"], said["undo_to"]) == (True, 3, 1)
    assert names() == ["green", "blue", "grey thing"]


def test_rename_keeps_the_row_unless_asked() -> None:
    run("rename", BANK, "red", "scarlet")
    bank = ClassBank.load(BANK)
    np.testing.assert_allclose(bank.embeddings[0], name_rows(["red"])[0], atol=1e-6)
    assert bank.info["scarlet"].phrases == ("red",)
    run("rename", BANK, "green", "olive", "--embed")
    bank = ClassBank.load(BANK)
    np.testing.assert_allclose(bank.embeddings[1], name_rows(["olive"])[0], atol=1e-6)
    assert bank.info["olive"].phrases == ()
    assert [step.action for step in bank.history] == ["rename", "rename"]
    assert "the new name is empty" in refused("rename", BANK, "olive", "  ")
    assert "already stands for class 'blue'" in refused("rename", BANK, "olive", "Blue")


def test_aliases() -> None:
    run("alias", BANK, "red", "scarlet", "crimson")
    run("alias", BANK, "red", "Scarlet", "ruby", "Ruby")
    assert ClassBank.load(BANK).info["red"].aliases == ("scarlet", "crimson", "Ruby")
    assert "alias 'ruby' of class 'green' already stands for class 'red'" in refused("alias", BANK, "green", "ruby")
    run("alias", BANK, "crimson", "ruby", "--remove")
    assert ClassBank.load(BANK).info["red"].aliases == ("scarlet", "crimson")
    assert "it has: scarlet, crimson" in refused("alias", BANK, "red", "ruby", "--remove")


def test_a_class_that_is_removed_by_its_alias_is_named() -> None:
    run("alias", BANK, "red", "fire engine")
    result = run("remove", BANK, "Fire Engine")
    assert result.stdout.startswith("removed 'red' (given by its alias 'Fire Engine'); 3 classes; undo: ")
    how = "undo this, then: sar-bank alias mine.safetensors red 'Fire Engine' --remove\n"
    assert result.stderr == f"to drop the alias 'Fire Engine' alone, {how}"
    run("rollback", BANK, "--steps", "1")
    run(*shlex.split(how)[4:])
    assert "given by" not in run("remove", BANK, "red").stdout


def test_set() -> None:
    run("set", BANK, "red", "--threshold", "0.4", "--background")
    assert ClassBank.load(BANK).info["red"] == ClassInfo(background=True, threshold=0.4)
    run("set", BANK, "red", "--foreground")
    assert ClassBank.load(BANK).info["red"] == ClassInfo(threshold=0.4)
    run("set", BANK, "red", "--no-threshold")
    assert "red" not in ClassBank.load(BANK).info
    assert "contradict" in refused("set", BANK, "red", "--threshold", "0.4", "--no-threshold")
    assert "nothing to set" in refused("set", BANK, "red")


def test_remove_what_a_file_lists() -> None:
    Path("gone.txt").write_text("red\n# a comment\nGreen = verdant\n")
    said = answer("remove", BANK, "blue", "--classes", "gone.txt")
    assert (said["classes"], said["changed"], names()) == (1, True, ["grey thing"])
    assert "no class given" in refused("remove", BANK)
    assert "class 'grey thing' is the last one; add another" in refused("remove", BANK, "grey thing")


def test_background_alone_is_warned_of() -> None:
    run("remove", BANK, "red", "green", "blue")
    result = run("set", BANK, "grey thing", "--background")
    assert "Warning: every class is background now" in result.stderr
    assert "Warning" not in run("add", BANK, "owl").stderr
    assert "every class is background now" in run("add", BANK, "owl", "--background").stderr
    assert "Warning" not in run("add", BANK, "emu").stderr
    assert "every class is background now" in run("remove", BANK, "emu").stderr


@pytest.mark.parametrize(("conflict", "row"), [("keep", "red"), ("take", "scarlet")])
def test_merge(conflict: str, row: str) -> None:
    run("add", "other.safetensors", "owl", "red = scarlet", "--threshold", "0.5")
    run("add", BANK, "cat")
    line = refused("merge", BANK, "other.safetensors")
    assert "1 class conflicts: both banks have class 'red'" in line
    assert "--conflict keep|take" in line
    run("merge", BANK, "other.safetensors", "--conflict", conflict)
    bank = ClassBank.load(BANK)
    assert bank.names == (*BANK_NAMES, "cat", "owl")
    assert bank.info["owl"].threshold == 0.5
    np.testing.assert_allclose(bank.embeddings[0], name_rows([row])[0], atol=1e-6)


def test_every_change_can_be_taken_back() -> None:
    run("add", BANK, "owl")
    before = ClassBank.load(BANK)
    for arguments in (
        ("add", BANK, "cat", "red = scarlet"),
        ("remove", BANK, "green", "cat"),
        ("rename", BANK, "blue", "azure", "--embed"),
        ("alias", BANK, "owl", "bird"),
        ("set", BANK, "owl", "--background"),
    ):
        run(*arguments)
    last = answer("set", BANK, "owl", "--threshold", "0.1")
    said = answer("rollback", BANK, "--to", "1")
    after = ClassBank.load(BANK)
    assert (after.names, after.info) == (before.names, before.info)
    assert after.content_digest == before.content_digest
    assert (said["step"], said["undo_to"]) == (last["step"] + 1, None)
    assert "expected either --to STEP or --steps COUNT" in refused("rollback", BANK)
    assert "no step 99" in refused("rollback", BANK, "--to", "99")


def test_rollback_by_a_number_of_steps_counts_what_still_stands() -> None:
    for name in ("owl", "cat", "dog"):
        run("add", BANK, name)
    run("rollback", BANK, "--steps", "1")
    assert names() == [*BANK_NAMES, "owl", "cat"]
    run("rollback", BANK, "--steps", "1")
    assert names() == [*BANK_NAMES, "owl"]
    run("add", BANK, "ox")
    run("rollback", BANK, "--steps", "2")
    assert names() == [*BANK_NAMES]
    assert "cannot go back 1 steps, there are 0" in refused("rollback", BANK, "--steps", "1")


# -------------------------------------------------------------------------------------------------------------- looking
def test_list() -> None:
    run("alias", BANK, "red", "scarlet")
    assert run("list", BANK).stdout.split("\n")[:-1] == [*BANK_NAMES]
    run("add", BANK, "zebra = zebra | striped horse", "--threshold", "0.5")
    assert run("list", BANK, "--like", "SCAR").stdout == "red\n"
    (line,) = run("list", BANK, "--like", "zebra", "--long").stdout.splitlines()
    assert re.fullmatch(r"zebra  phrases: zebra \| striped horse  threshold: 0.5  added: \d{4}-.*Z", line)
    (found,) = answer("list", BANK, "--like", "red")
    assert found == {
        "name": "red", "phrases": [], "aliases": ["scarlet"], "background": False, "threshold": None, "added": None,
        "photos": 0, "photos_only": False,
    }  # fmt: skip


def test_nearest_to_texts_and_photos() -> None:
    Image.new("RGB", (40, 50), (200, 20, 30)).save("photo.png")
    run("alias", BANK, "red", "scarlet")
    (text, photo) = answer("nearest", BANK, "green", "--image", "photo.png", "-k", "2")
    assert text["query"] == "green"
    assert text["nearest"][0]["name"] == "green"
    assert text["nearest"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    expected = name_rows(BANK_NAMES) @ image_row((200, 20, 30))
    best = np.argsort(-expected)[:2]
    assert [found["name"] for found in photo["nearest"]] == [BANK_NAMES[row] for row in best]
    assert [found["cosine"] for found in photo["nearest"]] == pytest.approx(expected[best].tolist(), abs=1e-5)
    assert run("nearest", BANK, "green", "-k", "1").stdout == "green\n   1.0000  green\n"
    assert "nothing to compare with" in refused("nearest", BANK)
    assert "absent.png" in refused("nearest", BANK, "--image", "absent.png")


def image_row(colour: tuple[int, int, int]) -> np.ndarray:
    from support.bundles import PREPROCESS

    values = (np.array(colour) / 255 - PREPROCESS.mean) / np.array(PREPROCESS.std)
    row = values @ image_weight()
    assert row.shape == (DIM,)
    return row / np.linalg.norm(row)


def test_diff() -> None:
    run("add", BANK, "owl")
    assert run("diff", BANK, BANK).stdout == ""
    Path("other.safetensors").write_bytes(content())
    run("add", "other.safetensors", "cat", "red = scarlet")
    run("remove", "other.safetensors", "green")
    run("rename", "other.safetensors", "blue", "azure")
    run("set", "other.safetensors", "owl", "--background")
    lines = run("diff", BANK, "other.safetensors", code=1).stdout.splitlines()
    assert lines[:3] == ["+ cat", "- green", "> blue  ->  azure"]
    assert any(line.startswith("~ red  cosine 0.") or line.startswith("~ red  cosine -0.") for line in lines)
    assert any(line.startswith("~ owl  added: ") and "  ->  background  added: " in line for line in lines)
    run("set", "other.safetensors", "grey thing", "--threshold", "0.5")
    lines = run("diff", BANK, "other.safetensors", code=1).stdout.splitlines()
    assert "~ grey thing  its name alone  ->  threshold: 0.5" in lines
    found = answer("diff", BANK, "other.safetensors", code=1)
    assert (found["added"], found["removed"], found["renamed"]) == (["cat"], ["green"], {"blue": "azure"})


def test_verify() -> None:
    run("add", BANK, "owl")
    said = answer("verify", BANK)
    assert (said["sound"], said["classes"], said["own"], said["steps"]) == (True, 5, 4, 1)
    data = bytearray(content())
    data[-9] ^= 1
    BANK.write_bytes(data)
    assert "does not match its digest" in refused("verify", BANK, code=1)
    broken = run("verify", BANK, "--format", "json", code=1)
    assert json.loads(broken.stdout)["sound"] is False
    assert "no such bank file" in refused("verify", "absent.safetensors")


def test_history() -> None:
    run("add", BANK, "owl")
    run("remove", BANK, "red")
    first, second = run("history", BANK).stdout.splitlines()
    assert re.fullmatch(r" +1 \* \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  add       added 'owl'", first)
    assert second.endswith("removed 'red'")
    assert [step["can_undo"] for step in answer("history", BANK)] == [True, True]


def test_freeze_says_where_it_went() -> None:
    assert "freeze has moved: sar-bundle freeze BUNDLE --bank BANK_FILE" in refused("freeze", BANK, "--out", "frozen")
    assert "freeze" not in run("--help").stdout


# -------------------------------------------------------------------------------------------------------- what is wrong
@pytest.mark.parametrize(
    "arguments",
    [
        ("add", BANK, "owl"), ("remove", BANK, "red"), ("list", BANK),
        ("nearest", BANK, "owl"), ("lint", BANK, "owl"), ("rollback", BANK, "--to", "0"),
        ("diff", BANK, BANK),
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_a_bank_of_another_encoder_is_refused_with_both_digests(arguments: tuple[object, ...]) -> None:
    ClassBank(("a",), name_rows(["a"]), "f" * 64).save(BANK)
    line = refused(*arguments)
    assert f"(expected {ENCODER_DIGEST[:8]}, the bank has ffffffff)" in line
    assert sorted(path.name for path in Path().iterdir()) == [BANK.name]


@pytest.mark.parametrize("command", ["list", "nearest", "lint", "history", "diff", "rollback"])
def test_what_needs_a_bank_file_says_that_there_is_none(command: str) -> None:
    more = {"diff": [BANK], "nearest": ["red"], "rollback": ["--to", "0"]}.get(command, [])
    assert "mine.safetensors: no such bank file" in refused(command, BANK, *more)


def test_a_bank_inside_a_bundle_is_never_changed(bundle_copy: Path) -> None:
    inside = bundle_copy / "bank.safetensors"
    before = content(inside)
    assert "is part of a bundle, which never changes" in refused("add", inside, "owl")
    told = refused("add", inside.parent, "owl")
    assert f"such as shop.safetensors, and the bundle with --bundle {inside.parent}" in told
    assert content(inside) == before


def test_a_manifest_of_something_else_makes_no_bundle() -> None:
    for text in ("{}", '{"files": ["mine.safetensors"]}', '{"files": {"other": {}}}', "[]", "{", "[" * 100_000):
        Path("manifest.json").write_text(text)
        run("add", BANK, "owl")
        run("rollback", BANK, "--steps", "1")
    Path("manifest.json").write_text('{"files": {"mine.safetensors": {}}}')
    assert "is part of a bundle" in refused("add", BANK, "owl")


def test_a_damaged_bank_is_refused_before_anything_is_embedded() -> None:
    BANK.write_bytes(b"not a bank")
    assert "not a bank file; expected one that sar-bank wrote" in refused("add", BANK, "owl")
    assert content() == b"not a bank"


@pytest.mark.parametrize(
    ("name", "message"),
    [("first of all", f"another name of class '{BANK_NAMES[0]}'"), ("a\tb", r"'a\tb' has a control character")],
)
@pytest.mark.parametrize("lint", ["--lint", "--no-lint"])
def test_what_is_wrong_with_a_name_shows_before_any_is_embedded(name: str, message: str, lint: str) -> None:
    """With a name encoder that never ends."""
    run("alias", BANK, BANK_NAMES[0], "first of all")
    endless(write_bundle(Path("endless")), NAME_ENCODER)
    assert message in refused("add", BANK, "owl", name, lint, "--bundle", "endless")


def test_a_path_that_cannot_be_one() -> None:
    assert "File name too long" in refused("add", "x" * 300, "owl")
    Path("folder").mkdir()
    for command in ("list", "verify"):
        assert "folder: is a folder; expected a bank file that sar-bank wrote" in refused(command, "folder")
    assert "folder: is a folder; expected a bank file, such as shop.safetensors" in refused("add", "folder", "owl")
    assert "BANK_FILE is empty; expected a bank file" in refused("add", "", "owl")
    assert "folder: is a folder; expected a text file" in refused("add", BANK, "--classes", "folder")


def test_no_class_given() -> None:
    assert "no class given; name one" in refused("add", BANK)
    assert "no class given ('jacket' was taken as BANK_FILE); name one" in refused("add", "jacket")
    Path("new.txt").write_text("\n")
    assert "new.txt: empty" in refused("add", BANK, "--classes", "new.txt")
    assert "absent/mine.safetensors: no such folder" in refused("add", "absent/mine.safetensors", "owl")


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_changes_at_a_time_are_refused() -> None:
    from sar_infer.storage.files import owned

    with owned(BANK):
        assert "another process is changing it" in refused("add", BANK, "owl", code=1)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_an_interrupt_changes_nothing() -> None:
    run("add", BANK, "owl")
    before = content()
    Path("many.txt").write_text("\n".join(f"{first} {second}" for first in range(400) for second in range(300)))
    progress = r"Embedding .*[1-9]\d*/120000  \d\d:\d\d:\d\d  [1-9][\d,]*/s"  # done, time left, rate
    code, shown = on_a_terminal("add", str(BANK), "--classes", "many.txt", until=progress)
    assert code == 130, shown
    assert "interrupted; nothing is half-written" in shown
    assert content() == before
    assert sorted(path.name for path in Path().iterdir()) == ["many.txt", BANK.name]


def test_a_full_disk_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", BANK, "owl")
    before = content()
    fill_disk(monkeypatch)
    assert "not written (No space left on device); nothing was changed" in refused("add", BANK, "cat", code=1)
    assert content() == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_what_cannot_be_printed_is_done_all_the_same(bundle_path: Path) -> None:
    command = [sys.executable, "-m", "sar_infer.cli.bank", "add", BANK, "owl", "--bundle", bundle_path]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[-1] == "Error: stdout: cannot be written (No space left on device); all else is done"
    )
    assert names() == [*BANK_NAMES, "owl"]


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_closed_stdout_is_left_alone(bundle_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "sar_infer.cli.bank", "add", str(BANK), "owl"])
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} >&-"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SAR_BUNDLE": str(bundle_path)},
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert names() == [*BANK_NAMES, "owl"]


def test_what_is_set_for_other_commands_changes_nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("new.txt").write_text("owl\n")
    for name, value in {"CLASSES": "new.txt", "THRESHOLD": "0.5", "BACKGROUND": "1", "STRICT": "1"}.items():
        monkeypatch.setenv(f"SAR_{name}", value)
    run("add", BANK, "SKU-12345")
    assert ClassBank.load(BANK).info["SKU-12345"].threshold is None
    assert names() == [*BANK_NAMES, "SKU-12345"]
    monkeypatch.setenv("SAR_BANK_ADD_CLASSES", "new.txt")
    monkeypatch.setenv("SAR_BANK_ADD_THRESHOLD", "0.25")
    run("add", BANK)
    assert ClassBank.load(BANK).info["owl"].threshold == 0.25


def test_every_option_has_a_twin_that_help_shows() -> None:
    for name, command in ((name, found) for name, found in main.commands.items() if not found.hidden):
        shown = re.sub(r"\s", "", run(name, "--help").stdout)
        for option in (found for found in command.params if isinstance(found, click.Option) and found.name != "help"):
            shared = {"bundle": "SAR_BUNDLE", "form": "SAR_FORMAT", "top_k": "SAR_TOP_K"}
            twin = f"SAR_BANK_{name}_{option.opts[-1].lstrip('-')}".upper().replace("-", "_")
            assert f"[envvar:{shared.get(option.name, twin)}" in shown


@pytest.mark.parametrize("command", ["add", "lint", "remove", "nearest", "rename", "alias"])
def test_arguments_that_are_no_text(command: str) -> None:
    bad = os.fsdecode(b"\xff\xfe")
    run("alias", BANK, "red", "scarlet")
    before = content()
    more = {"rename": ["red", bad], "alias": ["red", bad]}.get(command, [bad])
    result = run(command, BANK, *more, code=1 if command == "lint" else 2)
    shown = result.stdout if command == "lint" else result.stderr
    assert all(line.isprintable() for line in shown.splitlines())
    assert re.search(r"is not text|no class '\\udcff", shown), shown
    assert content() == before
    assert "is not text" in refused("add", BANK, bad, "--no-lint")


def test_text_of_a_bank_cannot_steer_the_terminal() -> None:
    odd = "a\u202eb"
    ClassBank((odd, "b"), name_rows(["a", "b"]), ENCODER_DIGEST, info={odd: ClassInfo(aliases=("c\u2028d",))}).save(
        BANK
    )
    run("remove", BANK, odd)
    run("rollback", BANK, "--to", "0")
    for arguments in (["list", BANK, "--long"], ["history", BANK], ["nearest", BANK, "red"]):
        assert all(line.isprintable() for line in run(*arguments).stdout.split("\n"))
    assert answer("list", BANK)[0]["name"] == odd


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_a_link_that_is_turned_meanwhile_does_not_lead_a_change_into_another_bank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, second = Path("first.safetensors"), Path("second.safetensors")
    run("add", first, "owl")
    run("add", second, "fox")
    BANK.symlink_to(first)
    before, read = second.read_bytes(), bank_file.read

    def turned(*arguments: Any, **options: Any) -> ClassBank:
        BANK.unlink(missing_ok=True)
        BANK.symlink_to(second)
        return read(*arguments, **options)

    monkeypatch.setattr(bank_file, "read", turned)
    run("add", BANK, "newt")
    assert second.read_bytes() == before
    assert {"owl", "newt"} < set(ClassBank.load(first).names)


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX links and modes")
def test_a_link_stays_a_link_and_a_mode_stays() -> None:
    Path("real").mkdir()
    real = Path("real", "bank.safetensors")
    run("add", real, "owl")
    real.chmod(0o640)
    BANK.symlink_to(real)
    run("add", BANK, "cat")
    assert BANK.is_symlink()
    assert (real.stat().st_mode & 0o777, ClassBank.load(real).names[-1]) == (0o640, "cat")


def test_changes_are_carried_over_to_another_bundle(tmp_path: Path) -> None:
    run("add", "old.safetensors", "owl", "cup = mug | tea cup", "--threshold", "0.4", "--no-lint")
    run("alias", "old.safetensors", "owl", "night bird")
    run("alias", "old.safetensors", BANK_NAMES[0], "first of all")
    run("remove", "old.safetensors", BANK_NAMES[1])
    run("rename", "old.safetensors", BANK_NAMES[2], "azure")
    newer = write_bundle(tmp_path / "newer", encoder_digest="f" * 64)
    line = refused("list", "old.safetensors", "--bundle", newer)
    assert f"old.safetensors: belongs to another encoder than the bundle {newer}; name the bundle" in line
    assert f"sar-bank rebase old.safetensors --bundle {newer}" in line
    result = run("rebase", "old.safetensors", "--bundle", newer)
    assert (result.stdout, result.stderr) == ("carried over from encoder eeeeeeee; 5 classes\n", "")
    rebased = ClassBank.load(Path("old.safetensors"), "f" * 64)
    assert rebased.names == (BANK_NAMES[0], "azure", BANK_NAMES[3], "owl", "cup")
    assert (rebased.info["owl"].aliases, rebased.info["owl"].threshold) == (("night bird",), 0.4)
    assert rebased.phrases("cup") == ("mug", "tea cup")
    assert rebased.info[BANK_NAMES[0]].aliases == ("first of all",)
    np.testing.assert_allclose(rebased.rows_at([3])[0], name_rows(["owl"])[0], atol=1e-5)
    assert len(answer("history", "old.safetensors")) == 5
    run("rollback", "old.safetensors", "--to", "3", "--bundle", newer)
    listed = run("list", "old.safetensors", "--bundle", newer).stdout.splitlines()
    assert listed == [*BANK_NAMES, "owl", "cup"]
    assert run("rebase", "old.safetensors", "--bundle", newer).stdout == "belonged to this encoder already; 6 classes\n"


def test_a_new_bank_file_is_called_like_one() -> None:
    assert "no such bank file; the name of a new one ends in .safetensors" in refused("add", "tram", "mine.safetensors")
    assert not Path("tram").exists()


def test_list_what_was_added() -> None:
    run("add", BANK, "owl", "--no-lint")
    assert run("list", BANK, "--added").stdout == "owl\n"


def test_when_a_class_was_added_is_no_difference() -> None:
    run("add", "one.safetensors", "owl", "--no-lint")
    bank = ClassBank.load(Path("one.safetensors"))
    later = {"owl": dataclasses.replace(bank.info["owl"], added="2030-01-01T00:00:00Z")}
    ClassBank(bank.names, bank.embeddings, bank.encoder_digest, info=later).save(Path("two.safetensors"))
    run("diff", "one.safetensors", "two.safetensors")
