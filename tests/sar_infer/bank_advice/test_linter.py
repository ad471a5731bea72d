from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.bundles import DIM, ENCODER_DIGEST, SPEC, name_graph, name_rows, reseal, write_bundle

from sar_infer import Classifier, default_bundle, open_bundle
from sar_infer.bank import ClassBank, ClassInfo
from sar_infer.bank_advice import Finding, Linter, worst_first
from sar_infer.bank_advice import linter as module
from sar_infer.bank_advice.linter import chunked, reference_embedder
from sar_infer.bundle.bundle import Bundle
from sar_infer.bundle.manifest import REFERENCE_ENCODER, Reference
from sar_infer.text import TokenizerSpec

WORDS = ("red", "green", "blue", "grey", "small", "large", "old", "new", "round", "flat")
NAMES = tuple(f"{first} {second}" for first in WORDS for second in ("cat", "dog", "cup", "hat", "car", "tree"))
SHORT = TokenizerSpec("clip-bpe", context_length=12, n_prefix=5, suffix="!", end_token=49_407, max_name_tokens=6)


@pytest.fixture(scope="module")
def referenced(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle whose hand-crafted prompt embeds as the learned one does, but for names with an owl."""
    path = write_bundle(tmp_path_factory.mktemp("lint") / "referenced", NAMES)
    graph = name_graph()
    (owl,) = open_bundle(path).tokenizer.encode("owl")
    for tensor in graph.graph.initializer:
        if tensor.name == "table":
            table = numpy_helper.to_array(tensor).copy()
            table[owl] = -9 * table[owl]
            tensor.CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save(graph, path / REFERENCE_ENCODER)
    reseal(path, reference=Reference("a photo of a {}.", SPEC))
    return open_bundle(path)


@pytest.fixture(scope="module")
def mini() -> Classifier:
    return Classifier.open(default_bundle())


def kinds(findings: list[Finding], name: str) -> set[tuple[str, str]]:
    return {(finding.kind, finding.severity) for finding in findings if finding.name == name}


def moved(findings: list[Finding]) -> list[str]:
    return [finding.name for finding in findings if finding.kind == "moved"]


def run(bundle: Bundle, *names: str, **phrases: tuple[str, ...]) -> list[Finding]:
    classes = {name: (name,) for name in names} | phrases
    linter, embed = Linter(bundle, bundle.bank), Classifier(bundle).embed_phrases
    return [finding for chunk in chunked(classes) for finding in linter.check(chunk, embed)] + linter.skipped()


# ------------------------------------------------------------------------------------------ learned and hand-crafted
def test_a_name_that_the_learned_prompt_moved(referenced: Bundle) -> None:
    assert moved(run(referenced, "old owl", "flat tree house")) == ["old owl"]


def test_without_a_reference_encoder_the_rule_says_so(bundle_path: Path) -> None:
    *_, finding = run(open_bundle(bundle_path), "old owl")
    assert (finding.kind, finding.severity, finding.name) == ("skipped", "info", "")
    assert "sar-export --with-reference" in finding.message


def test_a_small_bank_has_no_percentile(referenced: Bundle) -> None:
    few = ClassBank(NAMES[:49], name_rows(NAMES[:49]), ENCODER_DIGEST)
    linter = Linter(referenced, few)
    assert moved(linter.embeddings({"old owl": ("old owl",)}, name_rows(["old owl"]))) == []
    (finding,) = linter.skipped()
    assert "49 classes, 50 are needed" in finding.message


def test_an_untuned_bundle_has_nothing_to_compare(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "untuned", method="handcrafted"))
    (finding,) = Linter(bundle, bundle.bank).skipped()
    assert "the bundle's prompt is the hand-crafted one" in finding.message


def test_what_has_no_room_behind_the_template_is_not_compared(referenced: Bundle, tmp_path: Path) -> None:
    path = write_bundle(tmp_path / "short", NAMES)
    (path / REFERENCE_ENCODER).write_bytes((referenced.path / REFERENCE_ENCODER).read_bytes())
    reseal(path, reference=Reference("a photo of a {}!", SHORT))
    assert moved(run(open_bundle(path), "old owl", "old owl on the flat tree")) == ["old owl"]


def test_reference_rows_of_phrases_are_averaged_on_the_sphere(referenced: Bundle) -> None:
    embed = reference_embedder(referenced)
    assert embed is not None
    rows = embed([("red cat", "blue dog"), ("hat",)])
    mean = name_rows(["red cat", "blue dog"]).mean(axis=0)
    np.testing.assert_allclose(rows[0], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_allclose(rows[1], name_rows(["hat"])[0], atol=1e-6)
    assert embed([]).shape == (0, DIM)


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
    findings = linter.texts({name: bank.phrases(name) for name in bank.names})
    assert [finding for finding in findings if finding.kind == "duplicate"] == []
    assert {finding.severity for finding in findings} <= {"info", "warning"}


def test_an_unusable_name_is_not_embedded(referenced: Bundle) -> None:
    long = " ".join(["cat"] * 40)
    findings = run(referenced, "", "red  cat", dog=("flat dog", long))
    assert kinds(findings, "") == {("unusable", "error")}
    assert kinds(findings, "dog") == {("too-long", "error")}
    assert kinds(findings, "red  cat") == {("duplicate", "warning")}


def test_a_finding_about_a_phrase_names_the_phrase(referenced: Bundle) -> None:
    linter = Linter(referenced, referenced.bank)
    (finding,) = linter.texts({"teapot": ("teapot", "a pot of tea")})
    assert (finding.name, finding.suggestion) == ("teapot", "pot of tea")
    assert finding.message == "phrase 'a pot of tea': the prompt adds the article"
    (finding,) = linter.texts({"cup": ("red", " ".join(["cat"] * 40))})
    assert finding.message.startswith("phrase 'cat cat ")


def test_aliases_are_known(referenced: Bundle) -> None:
    info = {"red cat": ClassInfo(aliases=("garfield",))}
    bank = ClassBank(NAMES, name_rows(NAMES), ENCODER_DIGEST, info=info)
    (finding,) = Linter(referenced, bank).texts({"Garfield": ("Garfield",)})
    assert (finding.kind, finding.suggestion) == ("duplicate", "red cat")


def test_chunks_change_nothing(referenced: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [*NAMES[::3], "old owl", "new owl", "red-cat", "Old Owl", *("x" * length for length in range(1, 9))]
    whole = run(referenced, *names)
    monkeypatch.setattr(module, "CHUNK", 3)
    assert sorted(map(str, run(referenced, *names))) == sorted(map(str, whole))


def test_worst_first() -> None:
    kinds = {"i": "info", "w": "warning", "e": "error"}
    findings = [Finding("wording", kinds[letter], str(place), "") for place, letter in enumerate("iwewi")]  # type: ignore[arg-type]
    assert [finding.name for finding in worst_first(findings)] == ["2", "1", "3", "0", "4"]
