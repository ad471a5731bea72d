"""``sar-bank`` as it is typed: each command once, what it prints, and what it refuses. Rules are those of the bank."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from support.bank_commands import BANK, Command, class_names, content, paint_folders, start
from support.bundles import BANK_NAMES, ENCODER_DIGEST, name_rows, write_bundle
from support.disk import fill_disk
from support.terminals import on_a_terminal

from sar_infer import Classifier
from sar_infer.bank import ClassBank, Entry, set_class
from sar_infer.bundle import bank_file
from sar_infer.cli.bank import main
from sar_infer.storage import files
from sar_infer.storage.files import owned

run = Command(main)
OTHER = Path("other.safetensors")

pytestmark = pytest.mark.usefixtures("here")


def info(name: str) -> Entry:
    return ClassBank.load(BANK).entry(name)


# ------------------------------------------------------------------------------------------------------------------ add
def test_a_missing_file_starts_as_the_bundles_bank() -> None:
    result = run("add", BANK, "owl")
    assert result.stdout == "added 'owl'; 5 classes; undo: sar-bank rollback mine.safetensors --to 0\n"
    assert result.stderr == "new bank on tiny, with its 4 classes; for only your own classes: sar-bank create\n"
    assert run("add", BANK, "cat").stderr == ""
    bank = ClassBank.load(BANK, ENCODER_DIGEST)
    assert bank.names == (*BANK_NAMES, "owl", "cat")
    np.testing.assert_allclose(bank.embeddings[4:], name_rows(["owl", "cat"]), atol=1e-6)
    assert [step.by for step in bank.history] == ["sar-bank add"] * 2


@pytest.mark.parametrize(
    "command",
    ["remove", "rename red", "set red --alias", "rollback --to 0", "fit", "calibrate --photos", "learn --photos"],
)
def test_only_add_and_create_make_files(command: str) -> None:
    name, *more = command.split()
    last = [] if name in ("fit", "rollback") else ["tests"] if "--photos" in more else ["blue"]
    assert "no such bank file; sar-bank create or add makes one" in run.refused(name, BANK, *more, *last)
    assert not list(Path().iterdir())


def test_the_way_back_names_the_bundle_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_bundle(tmp_path / "my bundle")
    stdout = run("add", "my bank.safetensors", "owl", "--bundle", bundle).stdout
    words = shlex.split(stdout.partition("undo: ")[2])
    assert words == ["sar-bank", "rollback", "my bank.safetensors", "--to", "0", "--bundle", str(bundle)]
    monkeypatch.delenv("SAR_BUNDLE")
    run(*words[1:])
    assert class_names(Path("my bank.safetensors")) == [*BANK_NAMES]


def test_names_come_from_the_command_line_and_a_file_with_phrases_and_settings() -> None:
    Path("new.txt").write_text("zebra = zebra | striped horse\nowl\n# a comment\nOwl\nPET\n")
    result = run("add", BANK, "pet = cat | dog", "--classes", "new.txt", "--background", "--threshold", "0.25")
    assert "Warning: new.txt:4: class name 'Owl' is already on line 2; used once" in result.stderr
    bank = ClassBank.load(BANK)
    assert bank.names[4:] == ("pet", "zebra", "owl")
    added = [bank.entry(name) for name in bank.names[4:]]
    assert [entry.phrases for entry in added] == [("cat", "dog"), ("zebra", "striped horse"), ()]
    assert {(entry.background, entry.threshold) for entry in added} == {(True, 0.25)}


def test_a_class_that_is_there_keeps_what_is_not_said_anew() -> None:
    run("add", BANK, "owl", "--threshold", "0.25", "--background")
    run("set", BANK, "owl", "--alias", "night bird")
    added = run.report("add", BANK, "owl = owl | bird of the night", "red")
    assert (added["changed"], added["summary"], added["undo_to"], added["step"]) == (True, "replaced 'owl'", 2, 3)
    owl = info("owl")
    assert (owl.phrases, owl.aliases) == (("owl", "bird of the night"), ("night bird",))
    assert (owl.background, owl.threshold) == (True, 0.25)
    before = content()
    again = run.report("add", BANK, "owl = owl | bird of the night")
    assert (again["changed"], again["undo_to"]) == (False, None)
    assert again["summary"] == "nothing to change: 'owl' is a class already"
    assert (
        run("add", BANK, "red", "blue").stdout == "nothing to change: 'red' and 1 more are classes already; 5 classes\n"
    )
    assert content() == before


# ------------------------------------------------------------------------------------------------------------- findings
def test_findings_are_shown_and_do_not_stop_unless_they_are_to() -> None:
    result = run("add", BANK, "Red ", "latte art", "latte-art")
    assert "Warning: 'latte-art' is spelled almost like the class 'latte art'" in result.stderr
    assert "'Red'" not in result.stderr
    assert class_names() == [*BANK_NAMES, "latte art", "latte-art"]
    assert run.report("add", BANK, "LatteArt")["findings"][0]["kind"] == "duplicate"
    assert "nothing was added: --strict" in run.refused("add", BANK, "emu", "latte_art.", "--strict")


def test_a_name_that_cannot_be_embedded_stops_all() -> None:
    long = " ".join(["cat"] * 30)
    result = run("add", BANK, "owl", long, code=2)
    assert "has more than 18 tokens" in result.stderr
    assert "nothing was added: not all of them can be embedded (1 finding)" in result.stderr
    assert not BANK.exists()


def test_many_findings_are_counted() -> None:
    result = run("add", BANK, *(f"{'a' * number} b" for number in range(1, 31)), *(f"{'a' * n}b" for n in range(1, 31)))
    assert result.stderr.count("is spelled almost like") == 20
    assert "and 10 more" in result.stderr


# -------------------------------------------------------------------------------------------------------------- editing
def test_remove_is_all_or_nothing() -> None:
    run("add", BANK, "owl")
    assert "no class 'owk' in the bank; did you mean 'owl'?" in run.refused("remove", BANK, "red", "owk")
    removed = run.report("remove", BANK, "RED", "owl")
    assert (removed["changed"], removed["classes"], removed["undo_to"]) == (True, 3, 1)
    Path("gone.txt").write_text("# a comment\nGreen = verdant\n")
    run("remove", BANK, "blue", "--classes", "gone.txt")
    assert class_names() == ["grey thing"]
    assert "class 'grey thing' is the last one; add another" in run.refused("remove", BANK, "grey thing")
    assert "no class given" in run.refused("remove", BANK)


def test_rename_keeps_the_row_unless_asked() -> None:
    start()
    run("rename", BANK, "red", "scarlet")
    run("rename", BANK, "green", "olive", "--embed")
    bank = ClassBank.load(BANK)
    np.testing.assert_allclose(bank.embeddings[:2], name_rows(["red", "olive"]), atol=1e-6)
    assert (bank.entry("scarlet").texts, bank.entry("olive").texts) == (("red",), ("olive",))
    assert [step.by for step in bank.history] == ["sar-bank rename"] * 2
    assert "is already a name of class 'blue'" in run.refused("rename", BANK, "olive", "Blue")


def test_aliases() -> None:
    start()
    run("set", BANK, "red", "--alias", "scarlet", "--alias", "crimson")
    run("set", BANK, "red", "--alias", "Scarlet", "--alias", "Ruby")
    assert {*info("red").aliases} == {"scarlet", "crimson", "Ruby"}
    assert "alias 'ruby' is already a name of class 'red'" in run.refused("set", BANK, "green", "--alias", "ruby")
    run("set", BANK, "crimson", "--no-alias", "ruby")
    assert {*info("red").aliases} == {"scarlet", "crimson"}
    assert "'ruby' is no alias of 'red'" in run.refused("set", BANK, "red", "--no-alias", "ruby")
    run("remove", BANK, "Scarlet")
    assert class_names() == [*BANK_NAMES[1:]]


def test_set() -> None:
    start()
    run("set", BANK, "red", "--threshold", "0.4", "--background")
    assert (info("red").background, info("red").threshold) == (True, 0.4)
    run("set", BANK, "red", "--foreground")
    assert (info("red").background, info("red").threshold) == (False, 0.4)
    run("set", BANK, "red", "--no-threshold")
    assert info("red").threshold is None
    assert "contradict" in run.refused("set", BANK, "red", "--threshold", "0.4", "--no-threshold")
    assert "nothing to set" in run.refused("set", BANK, "red")


def test_background_alone_is_warned_of() -> None:
    start()
    warning = "Warning: every class is background"
    run("remove", BANK, "red", "green", "blue")
    assert warning in run("set", BANK, "grey thing", "--background").stderr
    assert warning not in run("add", BANK, "owl").stderr
    assert warning in run("remove", BANK, "owl").stderr


def test_rollback() -> None:
    for name in ("owl", "cat", "ox"):
        run("add", BANK, name)
    run("rollback", BANK, "--steps", "1")
    back = run.report("rollback", BANK, "--to", "1")
    assert (back["step"], back["undo_to"]) == (5, None)
    assert class_names() == [*BANK_NAMES, "owl"]
    assert "expected --to STEP or --steps COUNT" in run.refused("rollback", BANK)
    assert "cannot go back to step 99: there is none" in run.refused("rollback", BANK, "--to", "99")
    assert "cannot go back 2 steps, there are 1" in run.refused("rollback", BANK, "--steps", "2")


def test_a_bank_is_carried_to_another_bundle_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", BANK, "owl", "cup = mug | tea cup", "--threshold", "0.4")
    run("remove", BANK, "green")
    newer, older = write_bundle(tmp_path / "newer", encoder_digest="f" * 64), os.environ["SAR_BUNDLE"]
    line = run.refused("add", BANK, "emu", "--bundle", newer)
    assert "belongs to another encoder (expected ffffffff, the bank has eeeeeeee)" in line
    assert "name the bundle that it was made with (--bundle), or carry it over: sar-bank carry mine.safetensors" in line
    monkeypatch.delenv("SAR_BUNDLE")
    assert "--bundle BUNDLE" in run.refused("carry", BANK)
    result = run("carry", BANK, "--bundle", newer)
    assert (result.stdout, result.stderr) == ("carried; 5 classes\n", "")
    bank = ClassBank.load(BANK, "f" * 64)
    assert bank.names == ("red", "blue", "grey thing", "owl", "cup")
    assert (bank.entry("owl").threshold, bank.entry("cup").texts) == (0.4, ("mug", "tea cup"))
    assert len(run.report("history", BANK)) == 3
    assert run("carry", BANK, "--bundle", newer).stdout == "belongs to this bundle already\n"
    assert "there are 0 to take back" in run.refused("rollback", BANK, "--steps", "1", "--bundle", newer)
    assert run("carry", BANK, "--bundle", older).stdout == "carried; 5 classes\n"
    assert ClassBank.load(BANK, ENCODER_DIGEST).names == bank.names


# --------------------------------------------------------------------------------------------------------------- create
def test_create_makes_a_bank_of_exactly_these_classes() -> None:
    paint_folders("photos", 6, seed=1)
    Path("names.txt").write_text("Red = red | crimson\nowl\n")
    result = run("create", BANK, "--photos", "photos", "--classes", "names.txt")
    first, *rest = result.stdout.splitlines()
    assert first == "made mine.safetensors: 5 classes, 24 photos"
    assert rest[0].startswith("class model of 4 classes, 24 photos, ")
    assert rest[-2:] == [
        "next: sar-classify IMAGE --bank mine.safetensors",
        "      sar-bank evaluate mine.safetensors --photos OTHER_PHOTOS",
    ]
    bank = ClassBank.load(BANK)
    assert sorted(bank.names) == ["Red", "blue", "green", "iris", "owl"]
    assert (bank.base, bank.entry("red").texts, len(bank.photos_of("red"))) == (None, ("red", "crimson"), 6)
    assert (bank.fitted is not None, [step.action for step in bank.history]) == (True, ["create", "fit"])
    assert "exists; add classes with sar-bank add" in run.refused("create", BANK, "--photos", "photos")
    assert "no class given" in run.refused("create", OTHER)
    run("add", BANK, "emu")
    assert class_names()[-1] == "emu"


@pytest.mark.parametrize("other", ["create", "add"])
def test_create_beside_another_writer_replaces_nothing(monkeypatch: pytest.MonkeyPatch, other: str) -> None:
    """The other one makes the file after this one has looked for it, and before it has the lock."""
    Path("names.txt").write_text("owl\n")
    Path("other.txt").write_text("confirmed\n")

    @contextmanager
    def beaten(path: Path, wait: float) -> Iterator[Path]:
        with monkeypatch.context() as patch:
            patch.setattr(files, "owned", owned)
            run(other, BANK, "--classes", "other.txt")
        with owned(path, wait) as locked:
            yield locked

    monkeypatch.setattr(files, "owned", beaten)
    assert "exists; add classes with sar-bank add" in run("create", BANK, "--classes", "names.txt", code=2).stderr
    assert class_names()[-1] == "confirmed"


def test_two_classes_are_enough() -> None:
    paint_folders("photos", 3, seed=1, names=("red", "green"))
    assert "accuracy not measured (2 classes, fewer than 4)" in run("create", BANK, "--photos", "photos").stdout
    made = run.report("create", OTHER, "--photos", "photos")
    assert (made["classes"], made["photos"], made["fit"]["expected"]) == (["green", "red"], 6, [])


# -------------------------------------------------------------------------------------------------------------- looking
def test_list() -> None:
    start()
    run("set", BANK, "red", "--alias", "scarlet")
    assert run("list", BANK).stdout.split("\n")[:-1] == [*BANK_NAMES]
    run("add", BANK, "zebra = zebra | striped horse", "--threshold", "0.5")
    assert run("list", BANK, "--added").stdout == "zebra\n"
    assert run("list", BANK, "--like", "SCAR").stdout == "red\n"
    (line,) = run("list", BANK, "--like", "zebra", "--long").stdout.splitlines()
    assert re.fullmatch(r"zebra  phrases: zebra \| striped horse  threshold: 0.5  added: \d{4}-.*Z", line)
    (red,) = run.report("list", BANK, "--like", "red")
    assert red == {
        "name": "red", "phrases": [], "aliases": ["scarlet"], "background": False, "threshold": None, "added": None,
        "photos": 0, "photos_only": False,
    }  # fmt: skip


def test_history() -> None:
    run("add", BANK, "owl")
    run("remove", BANK, "red")
    run("rollback", BANK, "--to", "1")
    first, second, _ = run("history", BANK).stdout.splitlines()
    assert re.fullmatch(r" +1 \* \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  add        added 'owl'", first)
    assert re.fullmatch(r" +2   .*removed 'red'", second)
    assert [(step["can_undo"], step["to"]) for step in run.report("history", BANK)] == [
        (True, None),
        (False, None),
        (False, 1),
    ]


# -------------------------------------------------------------------------------------------------------- what is wrong
@pytest.mark.parametrize("command", ["add owl", "rollback --to 0", "suggest --photos ."])
def test_a_bank_of_another_encoder_is_refused_with_both_digests(command: str) -> None:
    ClassBank.of(("a",), name_rows(["a"]), "f" * 64).save(BANK)
    name, *more = command.split()
    assert f"(expected {ENCODER_DIGEST[:8]}, the bank has ffffffff)" in run.refused(name, BANK, *more)
    assert os.listdir() == [BANK.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", str(BANK)], "mine.safetensors: no such bank file"),
        (["history", str(BANK)], "mine.safetensors: no such bank file"),
        (["evaluate", str(BANK), "--photos", "folder"], "mine.safetensors: no such bank file"),
        (["add", str(BANK)], "no class given; add a NAME"),
        (["add", "jacket"], "no class given ('jacket' was taken as BANK_FILE); add a NAME"),
        (["add", "tram", str(BANK)], "no such bank file; the name of a new one ends in .safetensors"),
        (["add", "absent/b.safetensors", "owl"], "absent/b.safetensors: no such folder"),
        (["add", "x" * 300, "owl"], "File name too long"),
        (["add", "", "owl"], "BANK_FILE is empty; expected a bank file"),
        (["add", "folder", "owl"], "folder: is a folder; expected a bank file, such as shop.safetensors"),
        (["list", "folder"], "folder: is a folder; expected a bank file"),
        (["add", str(BANK), "--classes", "folder"], "folder: is a folder; expected a text file"),
        (["add", str(BANK), "--classes", "empty.txt"], "empty.txt: empty"),
        (
            ["add", "text", "owl"],
            "text: not a bank file, or a damaged one; expected one that sar-bank wrote (not a safetensors",
        ),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_a_call_that_cannot_be_meant_so_is_one_line(arguments: list[str], message: str) -> None:
    Path("folder").mkdir()
    Path("empty.txt").write_text("\n")
    Path("text").write_text("not a bank")
    assert message in run.refused(*arguments)
    assert sorted(os.listdir()) == ["empty.txt", "folder", "text"]


def test_a_bank_inside_a_bundle_is_never_changed(bundle_copy: Path) -> None:
    inside = bundle_copy / "bank.safetensors"
    before = content(inside)
    assert "is part of a bundle, which never changes" in run.refused("add", inside, "owl")
    line = run.refused("add", bundle_copy, "owl")
    assert f"such as shop.safetensors, and the bundle with --bundle {bundle_copy}" in line
    assert content(inside) == before


def test_an_unusable_name_is_refused_before_any_is_embedded(monkeypatch: pytest.MonkeyPatch) -> None:
    start()
    run("set", BANK, "red", "--alias", "first of all")
    monkeypatch.setattr(Classifier, "embed_phrases", None)
    assert "another name of class 'red'" in run.refused("add", BANK, "owl", "first of all")
    assert r"'a\tb' has a control character" in run.refused("add", BANK, "owl", "a\tb")


@pytest.mark.parametrize("command", ["add", "remove", "rename red", "set red --alias"])
def test_arguments_that_are_no_text(command: str) -> None:
    start()
    name, *more = command.split()
    run("set", BANK, "red", "--alias", "scarlet")
    before = content()
    result = run(name, BANK, *more, os.fsdecode(b"\xff\xfe"), code=2)
    shown = result.stderr
    assert all(line.isprintable() for line in shown.splitlines())
    assert re.search(r"is not text|no class '\\udcff", shown), shown
    assert content() == before


def test_text_of_a_bank_cannot_steer_the_terminal() -> None:
    odd = "a\u202eb"
    set_class(ClassBank.of((odd, "b"), name_rows(["a", "b"]), ENCODER_DIGEST), odd, aliases=("c\u2028d",)).save(BANK)
    run("remove", BANK, odd)
    run("rollback", BANK, "--to", "1")
    for arguments in (["list", BANK, "--long"], ["history", BANK]):
        assert all(line.isprintable() for line in run(*arguments).stdout.split("\n"))
    assert run.report("list", BANK)[0]["name"] == odd


def test_a_change_that_cannot_be_written_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch) -> None:
    run("add", BANK, "owl")
    monkeypatch.setattr(bank_file, "WAIT", 0.05)
    with owned(BANK):
        assert "another process is changing it" in run.refused("add", BANK, "cat", code=1)
    fill_disk(monkeypatch)
    assert "not written (No space left on device); nothing was changed" in run.refused("add", BANK, "cat", code=1)


def test_an_interrupt_changes_nothing() -> None:
    run("add", BANK, "owl")
    before = content()
    Path("many.txt").write_text("\n".join(f"{first} {second}" for first in range(400) for second in range(300)))
    progress = r"Embedding .*[1-9]\d*/120000  \d\d:\d\d:\d\d  [1-9][\d,]*/s"  # done, time left, rate
    code, shown = on_a_terminal("add", str(BANK), "--classes", "many.txt", until=progress)
    assert code == 130, shown
    assert "interrupted; nothing is half-written" in shown
    assert content() == before
    assert sorted(os.listdir()) == ["many.txt", BANK.name]


# ---------------------------------------------------------------------------------------------------------- environment
def test_what_is_set_for_other_commands_changes_nothing_here(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("new.txt").write_text("owl\n")
    for name, value in {"CLASSES": "new.txt", "THRESHOLD": "0.5", "BACKGROUND": "1", "STRICT": "1"}.items():
        monkeypatch.setenv(f"SAR_{name}", value)
    run("add", BANK, "SKU-12345")
    assert info("SKU-12345").threshold is None
    assert class_names() == [*BANK_NAMES, "SKU-12345"]
    monkeypatch.setenv("SAR_BANK_ADD_CLASSES", "new.txt")
    monkeypatch.setenv("SAR_BANK_ADD_THRESHOLD", "0.25")
    run("add", BANK)
    assert info("owl").threshold == 0.25
