from __future__ import annotations

import pytest
from support.bundles import ENCODER_DIGEST, name_rows, write_bundle

from sar_infer import Classifier, default_bundle, open_bundle
from sar_infer.bank import ClassBank, set_class
from sar_infer.bank_advice import Finding, Linter, worst_first
from sar_infer.bank_advice import linter as module
from sar_infer.bank_advice.linter import chunked
from sar_infer.bundle.bundle import Bundle

WORDS = ("red", "green", "blue", "grey", "small", "large", "old", "new", "round", "flat")
NAMES = tuple(f"{first} {second}" for first in WORDS for second in ("cat", "dog", "cup", "hat", "car", "tree"))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return open_bundle(write_bundle(tmp_path_factory.mktemp("advice") / "bundle", NAMES))


@pytest.fixture(scope="module")
def mini() -> Classifier:
    return Classifier.open(default_bundle())


def kinds(findings: list[Finding], name: str) -> set[tuple[str, str]]:
    return {(finding.kind, finding.severity) for finding in findings if finding.name == name}


def run(bundle: Bundle, *names: str, **phrases: tuple[str, ...]) -> list[Finding]:
    classes = {name: (name,) for name in names} | phrases
    linter, embed = Linter(bundle, bundle.bank), Classifier(bundle).embed_phrases
    return [finding for chunk in chunked(classes) for finding in linter.check(chunk, embed)]


# ------------------------------------------------------------------------------------------------------------ together
def test_real_names_on_the_shipped_bundle(mini: Classifier) -> None:
    names = ("tabby", "latte art", "Tabby Cats", "golden_retriever", "fire engine", "SKU-12345", "espresso", "the sea")
    linter = Linter(mini.bundle, mini.bundle.bank)
    findings = linter.check({name: (name,) for name in names}, mini.embed_phrases)
    assert kinds(findings, "tabby") == {("near-duplicate", "warning")}
    assert kinds(findings, "fire engine") == {("near-duplicate", "warning")}
    assert kinds(findings, "Tabby Cats") == {("duplicate", "warning")}
    assert kinds(findings, "golden_retriever") == {("duplicate", "warning")}  # said once, not as near-duplicate too
    assert kinds(findings, "SKU-12345") == {("wording", "warning")}
    assert kinds(findings, "espresso") == {("duplicate", "info")}
    assert kinds(findings, "the sea") == {("wording", "info")}
    assert kinds(findings, "latte art") == set()
    assert {f.name: f.suggestion for f in findings}["fire engine"] == "fire truck"


def test_the_banks_own_names_double_none(mini: Classifier) -> None:
    bank = mini.bundle.bank
    linter = Linter(mini.bundle, bank, within=True)
    findings = linter.texts({name: entry.texts for name, entry in zip(bank.names, bank.entries.values(), strict=True)})
    assert [finding for finding in findings if finding.kind == "duplicate"] == []
    assert {finding.severity for finding in findings} <= {"info", "warning"}


def test_an_unusable_name_is_not_embedded(bundle: Bundle) -> None:
    long = " ".join(["cat"] * 40)
    findings = run(bundle, "", "red  cat", dog=("flat dog", long))
    assert kinds(findings, "") == {("unusable", "error")}
    assert kinds(findings, "dog") == {("too-long", "error")}
    assert kinds(findings, "red  cat") == {("duplicate", "warning")}


def test_a_finding_about_a_phrase_names_the_phrase(bundle: Bundle) -> None:
    linter = Linter(bundle, bundle.bank)
    (finding,) = linter.texts({"teapot": ("teapot", "a pot of tea")})
    assert (finding.name, finding.suggestion) == ("teapot", "pot of tea")
    assert finding.message == "phrase 'a pot of tea': the prompt adds the article"
    (finding,) = linter.texts({"cup": ("red", " ".join(["cat"] * 40))})
    assert finding.message.startswith("phrase 'cat cat ")


def test_aliases_are_known(bundle: Bundle) -> None:
    bank = set_class(ClassBank.of(NAMES, name_rows(NAMES), ENCODER_DIGEST), "red cat", aliases=("garfield",))
    (finding,) = Linter(bundle, bank).texts({"Garfield": ("Garfield",)})
    assert (finding.kind, finding.suggestion) == ("duplicate", "red cat")


def test_chunks_change_nothing(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*NAMES[::3], "old owl", "new owl", "red-cat", "Old Owl", *("x" * length for length in range(1, 9))]
    whole = run(bundle, *names)
    monkeypatch.setattr(module, "CHUNK", 3)
    assert sorted(map(str, run(bundle, *names))) == sorted(map(str, whole))


def test_worst_first() -> None:
    kinds = {"i": "info", "w": "warning", "e": "error"}
    findings = [Finding("wording", kinds[letter], str(number), "") for number, letter in enumerate("iwewi")]  # type: ignore[arg-type]
    assert [finding.name for finding in worst_first(findings)] == ["2", "1", "3", "0", "4"]
