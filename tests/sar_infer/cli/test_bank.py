"""``sar-bank`` as it is typed: each command once, what it prints, and what it refuses. Rules are those of the bank."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from PIL import Image
from support.bank_commands import BANK, Command, class_names, content
from support.bundles import BANK_NAMES, ENCODER_DIGEST, image_weight, name_rows, write_bundle
from support.disk import fill_disk
from support.terminals import on_a_terminal

from sar_infer import Classifier
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bundle import bank_file
from sar_infer.cli.bank import editing, main
from sar_infer.storage.files import owned

run = Command(main)
OTHER = Path("other.safetensors")

pytestmark = pytest.mark.usefixtures("here")


def info(name: str) -> ClassInfo:
    return ClassBank.load(BANK).info_of(name)


# ------------------------------------------------------------------------------------------------------------------ add
def test_a_missing_file_starts_as_the_bundles_bank() -> None:
    result = run("add", BANK, "owl")
    assert result.stdout == "added 'owl'; 5 classes; undo: sar-bank rollback mine.safetensors --to 0\n"
    assert result.stderr == "mine.safetensors did not exist: made as a copy of the 4 classes of tiny\n"
    assert run("add", BANK, "cat").stderr == ""
    bank = ClassBank.load(BANK, ENCODER_DIGEST)
    assert bank.names == (*BANK_NAMES, "owl", "cat")
    np.testing.assert_allclose(bank.embeddings[4:], name_rows(["owl", "cat"]), atol=1e-6)
    assert [step.by for step in bank.history] == ["sar-bank add"] * 2


@pytest.mark.parametrize(("arguments", "code"), [(["remove", "owk"], 2), (["add", "red"], 0)])
def test_a_missing_file_that_nothing_is_written_to_is_named(arguments: list[str], code: int) -> None:
    command, *rest = arguments
    result = run(command, BANK, *rest, code=code)
    assert "mine.safetensors does not exist: these are the 4 classes of tiny\n" in result.stderr
    assert not BANK.exists()


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
    assert [bank.info[name].phrases for name in bank.names[4:]] == [("cat", "dog"), ("zebra", "striped horse"), ()]
    assert {(bank.info[name].background, bank.info[name].threshold) for name in bank.names[4:]} == {(True, 0.25)}


def test_a_class_that_is_there_keeps_what_is_not_said_anew() -> None:
    run("add", BANK, "owl", "--threshold", "0.25", "--background")
    run("alias", BANK, "owl", "night bird")
    added = run.report("add", BANK, "owl = owl | bird of the night", "red")
    assert (added["changed"], added["summary"], added["undo_to"], added["step"]) == (True, "replaced 'owl'", 2, 3)
    phrases, aliases, background, threshold, _ = vars(info("owl")).values()
    assert (phrases, aliases) == (("owl", "bird of the night"), ("night bird",))
    assert (background, threshold) == (True, 0.25)
    before = content()
    again = run.report("add", BANK, "owl = owl | bird of the night")
    assert (again["changed"], again["summary"], again["undo_to"]) == (False, "nothing to change", None)
    assert content() == before


def test_many_names_are_embedded_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    embed = Classifier.embed_phrases

    def counting(self: Classifier, groups: list[tuple[str, ...]]) -> object:
        sizes.append(len(groups))
        return embed(self, groups)

    monkeypatch.setattr(Classifier, "embed_phrases", counting)
    monkeypatch.setattr(editing, "_CHUNK", 3)
    names = [f"{number} cups" for number in range(7)]
    run("add", BANK, *names)
    assert sizes == [3, 3, 1]
    np.testing.assert_allclose(ClassBank.load(BANK).embeddings[4:], name_rows(names), atol=1e-6)


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
    run("rename", BANK, "red", "scarlet")
    run("rename", BANK, "green", "olive", "--embed")
    bank = ClassBank.load(BANK)
    np.testing.assert_allclose(bank.embeddings[:2], name_rows(["red", "olive"]), atol=1e-6)
    assert (bank.phrases("scarlet"), bank.phrases("olive")) == (("red",), ("olive",))
    assert [step.by for step in bank.history] == ["sar-bank rename", "sar-bank rename --embed"]
    assert "already stands for class 'blue'" in run.refused("rename", BANK, "olive", "Blue")


def test_aliases() -> None:
    run("alias", BANK, "red", "scarlet", "crimson")
    run("alias", BANK, "red", "Scarlet", "ruby", "Ruby")
    assert info("red").aliases == ("scarlet", "crimson", "Ruby")
    assert "alias 'ruby' of class 'green' already stands for class 'red'" in run.refused("alias", BANK, "green", "ruby")
    run("alias", BANK, "crimson", "ruby", "--remove")
    assert info("red").aliases == ("scarlet", "crimson")
    assert "it has: scarlet, crimson" in run.refused("alias", BANK, "red", "ruby", "--remove")


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
    assert info("red") == ClassInfo(background=True, threshold=0.4)
    run("set", BANK, "red", "--foreground")
    assert info("red") == ClassInfo(threshold=0.4)
    run("set", BANK, "red", "--no-threshold")
    assert info("red") == ClassInfo()
    assert "contradict" in run.refused("set", BANK, "red", "--threshold", "0.4", "--no-threshold")
    assert "nothing to set" in run.refused("set", BANK, "red")


def test_background_alone_is_warned_of() -> None:
    warning = "Warning: every class is background now"
    run("remove", BANK, "red", "green", "blue")
    assert warning in run("set", BANK, "grey thing", "--background").stderr
    assert warning not in run("add", BANK, "owl").stderr
    assert warning in run("remove", BANK, "owl").stderr


def test_merge_and_rollback() -> None:
    run("add", OTHER, "owl", "red = scarlet", "--threshold", "0.5")
    run("remove", OTHER, "blue")
    line = run.refused("merge", BANK, OTHER)
    assert "1 class conflicts: both banks have class 'red'" in line
    assert "--conflict keep|take" in line
    run("merge", BANK, OTHER, "--conflict", "take", "--removals")
    bank = ClassBank.load(BANK)
    assert (bank.names, bank.info["owl"].threshold) == (("red", "green", "grey thing", "owl"), 0.5)
    np.testing.assert_allclose(bank.embeddings[0], name_rows(["scarlet"])[0], atol=1e-6)
    run("add", BANK, "cat")
    run("add", BANK, "ox")
    run("rollback", BANK, "--steps", "1")
    back = run.report("rollback", BANK, "--to", "1")
    assert (back["step"], back["undo_to"]) == (5, None)
    assert ClassBank.load(BANK).content_digest == bank.content_digest
    assert "expected either --to STEP or --steps COUNT" in run.refused("rollback", BANK)
    assert "no step 99" in run.refused("rollback", BANK, "--to", "99")
    assert "cannot go back 2 steps, there are 1" in run.refused("rollback", BANK, "--steps", "2")


def test_changes_are_carried_over_to_another_bundle(tmp_path: Path) -> None:
    run("add", BANK, "owl", "cup = mug | tea cup", "--threshold", "0.4")
    run("alias", BANK, "owl", "night bird")
    run("remove", BANK, "green")
    newer = write_bundle(tmp_path / "newer", encoder_digest="f" * 64)
    line = run.refused("list", BANK, "--bundle", newer)
    assert f"mine.safetensors: belongs to another encoder than the bundle {newer}; name the bundle" in line
    assert f"sar-bank rebase mine.safetensors --bundle {newer}" in line
    result = run("rebase", BANK, "--bundle", newer)
    assert (result.stdout, result.stderr) == ("carried over from encoder eeeeeeee; 5 classes\n", "")
    bank = ClassBank.load(BANK, "f" * 64)
    assert bank.names == ("red", "blue", "grey thing", "owl", "cup")
    assert (bank.info["owl"].aliases, bank.info["owl"].threshold) == (("night bird",), 0.4)
    assert bank.phrases("cup") == ("mug", "tea cup")
    assert len(run.report("history", BANK)) == 3
    assert run("rebase", BANK, "--bundle", newer).stdout == "belonged to this encoder already; 5 classes\n"


# -------------------------------------------------------------------------------------------------------------- looking
def test_list() -> None:
    run("alias", BANK, "red", "scarlet")
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


def test_nearest_to_texts_and_photos() -> None:
    from support.bundles import PREPROCESS

    Image.new("RGB", (40, 50), (200, 20, 30)).save("photo.png")
    run("alias", BANK, "red", "scarlet")
    (text, photo) = run.report("nearest", BANK, "green", "--image", "photo.png", "-k", "2")
    assert (text["query"], text["nearest"][0]["name"]) == ("green", "green")
    assert text["nearest"][0]["cosine"] == pytest.approx(1, abs=1e-5)
    row = (np.array((200, 20, 30)) / 255 - PREPROCESS.mean) / np.array(PREPROCESS.std) @ image_weight()
    expected = name_rows(BANK_NAMES) @ row / np.linalg.norm(row)
    best = np.argsort(-expected)[:2]
    assert [answer["name"] for answer in photo["nearest"]] == [BANK_NAMES[position] for position in best]
    assert [answer["cosine"] for answer in photo["nearest"]] == pytest.approx(expected[best].tolist(), abs=1e-5)
    assert run("nearest", BANK, "green", "-k", "1").stdout == "green\n   1.0000  green\n"
    assert "nothing to compare with" in run.refused("nearest", BANK)
    assert "absent.png" in run.refused("nearest", BANK, "--image", "absent.png")


def test_diff() -> None:
    run("add", BANK, "owl")
    assert run("diff", BANK, BANK).stdout == ""
    OTHER.write_bytes(BANK.read_bytes())
    run("add", OTHER, "cat", "red = scarlet")
    run("remove", OTHER, "green")
    run("rename", OTHER, "blue", "azure")
    run("set", OTHER, "owl", "--background")
    run("set", OTHER, "grey thing", "--threshold", "0.5")
    lines = run("diff", BANK, OTHER, code=1).stdout.splitlines()
    assert lines[:3] == ["+ cat", "- green", "> blue  ->  azure"]
    assert any(re.match(r"~ red  cosine -?0\.\d{4}", line) for line in lines)
    assert any(line.startswith("~ owl  added: ") and "  ->  background  added: " in line for line in lines)
    assert "~ grey thing  its name alone  ->  threshold: 0.5" in lines
    difference = run.report("diff", BANK, OTHER, code=1)
    assert (difference["added"], difference["removed"]) == (["cat"], ["green"])
    assert difference["renamed"] == {"blue": "azure"}


def test_verify() -> None:
    run("add", BANK, "owl")
    verified = run.report("verify", BANK)
    assert [verified[key] for key in ("sound", "classes", "own", "steps")] == [True, 5, 4, 1]
    assert run("verify", BANK).stdout.endswith("sound; 5 classes, 4 of them from training; 1 steps of history\n")
    data = bytearray(BANK.read_bytes())
    data[-9] ^= 1
    BANK.write_bytes(data)
    assert "does not match its digest" in run.refused("verify", BANK, code=1)
    assert run.report("verify", BANK, code=1)["sound"] is False


def test_history() -> None:
    run("add", BANK, "owl")
    run("remove", BANK, "red")
    run("rollback", BANK, "--to", "1")
    first, second, _ = run("history", BANK).stdout.splitlines()
    assert re.fullmatch(r" +1 \* \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ  add       added 'owl'", first)
    assert re.fullmatch(r" +2   .*removed 'red'", second)
    assert [(step["can_undo"], step["to"]) for step in run.report("history", BANK)] == [
        (True, None),
        (False, None),
        (False, 1),
    ]


def test_freeze_says_where_it_went() -> None:
    assert "freeze has moved: sar-bundle freeze BUNDLE --bank BANK_FILE" in run.refused(
        "freeze", BANK, "--out", "frozen"
    )
    assert "freeze" not in run("--help").stdout


# -------------------------------------------------------------------------------------------------------- what is wrong
@pytest.mark.parametrize("command", ["add owl", "list", "nearest owl", "rollback --to 0", f"diff {BANK}"])
def test_a_bank_of_another_encoder_is_refused_with_both_digests(command: str) -> None:
    ClassBank.of(("a",), name_rows(["a"]), "f" * 64).save(BANK)
    name, *more = command.split()
    assert f"(expected {ENCODER_DIGEST[:8]}, the bank has ffffffff)" in run.refused(name, BANK, *more)
    assert os.listdir() == [BANK.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            ([*command, str(BANK), *more], "mine.safetensors: no such bank file")
            for command, more in (
                (["list"], []),
                (["history"], []),
                (["verify"], []),
                (["nearest"], ["red"]),
                (["diff"], [str(BANK)]),
                (["rollback"], ["--to", "0"]),
            )
        ),
        (["add", str(BANK)], "no class given; name one"),
        (["add", "jacket"], "no class given ('jacket' was taken as BANK_FILE); name one"),
        (["add", "tram", str(BANK)], "no such bank file; the name of a new one ends in .safetensors"),
        (["add", "absent/b.safetensors", "owl"], "absent/b.safetensors: no such folder"),
        (["add", "x" * 300, "owl"], "File name too long"),
        (["add", "", "owl"], "BANK_FILE is empty; expected a bank file"),
        (["add", "folder", "owl"], "folder: is a folder; expected a bank file, such as shop.safetensors"),
        (["verify", "folder"], "folder: is a folder; expected a bank file that sar-bank wrote"),
        (["add", str(BANK), "--classes", "folder"], "folder: is a folder; expected a text file"),
        (["add", str(BANK), "--classes", "empty.txt"], "empty.txt: empty"),
        (["add", "text", "owl"], "not a bank file; expected one that sar-bank wrote"),
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
    run("alias", BANK, "red", "first of all")
    monkeypatch.setattr(Classifier, "embed_phrases", None)
    assert "another name of class 'red'" in run.refused("add", BANK, "owl", "first of all")
    assert r"'a\tb' has a control character" in run.refused("add", BANK, "owl", "a\tb")


@pytest.mark.parametrize("command", ["add", "remove", "nearest", "rename red", "alias red"])
def test_arguments_that_are_no_text(command: str) -> None:
    name, *more = command.split()
    run("alias", BANK, "red", "scarlet")
    before = content()
    result = run(name, BANK, *more, os.fsdecode(b"\xff\xfe"), code=2)
    shown = result.stderr
    assert all(line.isprintable() for line in shown.splitlines())
    assert re.search(r"is not text|no class '\\udcff", shown), shown
    assert content() == before


def test_text_of_a_bank_cannot_steer_the_terminal() -> None:
    odd = "a\u202eb"
    rows, aliases = name_rows(["a", "b"]), {odd: ClassInfo(aliases=("c\u2028d",))}
    ClassBank.of((odd, "b"), rows, ENCODER_DIGEST, info=aliases).save(BANK)
    run("remove", BANK, odd)
    run("rollback", BANK, "--to", "0")
    for arguments in (["list", BANK, "--long"], ["history", BANK], ["nearest", BANK, "red"]):
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


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_a_link_that_is_turned_meanwhile_does_not_lead_a_change_into_another_bank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, read = Path("first.safetensors"), bank_file.read
    for file in (first, OTHER):
        run("add", file, "owl")
    BANK.symlink_to(first)
    before = content(OTHER)

    def turned(*arguments: Any, **options: Any) -> ClassBank:
        BANK.unlink(missing_ok=True)
        BANK.symlink_to(OTHER)
        return read(*arguments, **options)

    monkeypatch.setattr(bank_file, "read", turned)
    run("add", BANK, "newt")
    assert (content(OTHER), class_names(first)[-2:]) == (before, ["owl", "newt"])


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


def test_every_option_has_a_twin_that_help_shows() -> None:
    shared = {"bundle": "SAR_BUNDLE", "form": "SAR_FORMAT", "top_k": "SAR_TOP_K"}
    for name, command in ((name, command) for name, command in main.commands.items() if not command.hidden):
        shown = re.sub(r"\s", "", run(name, "--help").stdout)
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "help":
                twin = f"SAR_BANK_{name}_{option.opts[-1].lstrip('-')}".upper().replace("-", "_")
                assert f"[envvar:{shared.get(str(option.name), twin)}" in shown
