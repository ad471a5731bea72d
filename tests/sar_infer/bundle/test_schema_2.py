"""Bundles of schema 2 open and answer as before: their manifest had other keys, their files were the same."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import SIZE
from support.rich_bundle import write_rich_bundle

from sar_infer import Classifier, DecisionOptions, open_bundle
from sar_infer.bundle.freeze import freeze
from sar_infer.bundle.manifest import MANIFEST, SCHEMA_VERSION, Manifest, file_entry
from sar_infer.errors import BundleError
from sar_infer.storage import READER_VERSION
from sar_infer.storage.strict_json import canonical_digest

OLD = (Path(__file__).parents[2] / "support" / "schema-2-manifest.json").read_text("utf-8")
"""As version 0.1 of the package wrote it, for the bundle of ``support.rich_bundle``."""


def downgrade(path: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """Give a bundle the old manifest, for the files that are there."""
    content = json.loads(OLD)
    for name in content["files"]:
        entry = file_entry(path / name)
        content["files"][name] = {"sha256": entry.sha256, "size": entry.size}
    change(content)
    del content["digest"]
    (path / MANIFEST).write_text(json.dumps({**content, "digest": canonical_digest(content)}), "utf-8")
    return path


@pytest.fixture
def rich(tmp_path: Path) -> Path:
    return write_rich_bundle(tmp_path / "rich")


def test_the_digest_is_still_the_identity_that_was_given() -> None:
    assert Manifest.parse(OLD).digest == json.loads(OLD)["digest"]


def test_an_old_bundle_says_the_same_as_a_new_one(rich: Path) -> None:
    new, old = open_bundle(rich).manifest, open_bundle(downgrade(rich)).manifest
    assert (old.schema_version, new.schema_version) == (2, SCHEMA_VERSION)
    assert old.self_test == new.self_test
    assert old.quality == new.quality
    assert (old.calibrated_for, old.calibrated, old.thresholds) == ("head", new.calibrated, new.thresholds)
    image = old.precisions["int8"].image
    assert image is not None and image.self_test_cosine == 0.5  # ``probe_cosine`` there
    assert old.sealed().schema_version == SCHEMA_VERSION


@pytest.mark.parametrize("head", [None, "head.safetensors"])
@pytest.mark.parametrize(
    "fitted",
    [{}, {"temperature": 1.5}, {"thresholds": {"score": 0.1}}, {"conformal": {"0.9": 0.1}}, {"calibrated": ["red"]}],
)
def test_an_old_calibration_is_for_the_head_if_there_is_one(fitted: dict[str, Any], head: str | None) -> None:
    nothing = {"temperature": None, "thresholds": {}, "conformal": {}, "calibrated": []}
    content = json.loads(OLD) | nothing | {"head": head} | fitted
    del content["digest"]
    manifest = Manifest.parse(json.dumps({**content, "digest": canonical_digest(content)}))
    assert manifest.calibrated_for == (None if not fitted else "text" if head is None else "head")


@pytest.mark.parametrize("classes", [None, ["purple"]])
def test_an_old_bundle_answers_to_the_bit_as_a_new_one(rich: Path, tmp_path: Path, classes: list[str] | None) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    old = downgrade(shutil.copytree(rich, tmp_path / "old"))
    options = DecisionOptions(None if classes else "score", explain=True)
    answers = []
    for path in (rich, old):
        classifier = Classifier.open(path)
        answers.append(list(classifier.stream([pixels], classifier.class_set(classes), options=options)))
    assert answers[0] == answers[1]


def test_what_is_made_from_an_old_bundle_is_new(rich: Path, tmp_path: Path) -> None:
    old = open_bundle(downgrade(rich))
    made = freeze(old, old.bank, tmp_path / "frozen", command="tests")
    assert (made.schema_version, made.min_reader) == (SCHEMA_VERSION, SCHEMA_VERSION)
    written = json.loads((tmp_path / "frozen" / MANIFEST).read_text("utf-8"))
    assert {"quality", "self_test", "calibrated_for"} <= written.keys()
    assert not {"passport", "probe"} & written.keys()


@pytest.mark.parametrize("key", ["quality", "self_test", "statistics", "calibrated_for"])
def test_a_key_of_the_new_schema_is_unknown_to_the_old(rich: Path, key: str) -> None:
    with pytest.raises(BundleError, match=key):
        open_bundle(downgrade(rich, lambda content: content.update({key: None})))


def test_keys_of_the_old_schema_are_unknown_to_the_new(rich: Path) -> None:
    with pytest.raises(BundleError, match="missing field quality"):
        open_bundle(downgrade(rich, lambda content: content.update(schema_version=3)))


def test_readers_of_schema_2_are_told_to_upgrade(rich: Path) -> None:
    """Every new bundle must state reader 3, for an old reader checks ``min_reader`` first."""
    assert json.loads((rich / MANIFEST).read_text("utf-8"))["min_reader"] == READER_VERSION == 3
