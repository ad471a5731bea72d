from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.bundles import BANK_NAMES, DIM, ENCODER_DIGEST, PREPROCESS, image_weight, name_rows
from support.pictures import encoded

from sar_infer import (
    BankError,
    BundleError,
    Classifier,
    ClassNameError,
    DecisionOptions,
    DeviceError,
    ImageError,
    InputError,
)
from sar_infer.bank import ClassBank, add, edits
from sar_infer.bundle.bundle import open_bundle
from sar_infer.encoders.cache import EmbeddingCache
from sar_infer.images.preprocess import to_input


def picture(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 256, 3) * rng.uniform(0.3, 1, (40, 50, 1))).astype(np.uint8)


def expected(pixels: np.ndarray, names: tuple[str, ...]) -> list[tuple[str, float, float, float]]:
    """(label, score, logit, similarity), best first, by numpy alone."""
    row = to_input(Image.fromarray(pixels), PREPROCESS).mean(axis=(1, 2)) @ image_weight()
    similarity = name_rows(names) @ (row / np.linalg.norm(row))
    logits = 20 * similarity
    scores = np.exp(logits) / np.exp(logits).sum()
    return sorted(zip(names, scores, logits, similarity, strict=True), key=lambda item: -item[1])


def compare(predictions, answers) -> None:
    assert [p.label for p in predictions] == [label for label, *_ in answers]
    got = [(p.score, p.logit, p.similarity) for p in predictions]
    np.testing.assert_allclose(got, [numbers for _, *numbers in answers], rtol=1e-4, atol=1e-5)


def test_against_the_bank(classifier: Classifier) -> None:
    result = classifier.classify(picture())
    compare(result.predictions, expected(picture(), BANK_NAMES))
    assert (result.image, result.error) == ("image[0]", None)
    assert {p.source for p in result.predictions} == {"bank"}


def test_with_new_names_and_only_with_new_names(classifier: Classifier) -> None:
    both = classifier.classify(picture(), ["zebra", "red"], top_k=9)
    compare(both.predictions, expected(picture(), (*BANK_NAMES, "zebra")))
    assert {p.label: p.source for p in both.predictions}["zebra"] == "extended"
    only = classifier.classify(picture(), ["zebra", "red"], only=True)
    compare(only.predictions, expected(picture(), ("zebra", "red")))
    assert {p.label: p.source for p in only.predictions} == {"zebra": "extended", "red": "bank"}


def test_a_bank_file_is_looked_at_for_each_class_set(bundle_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    head_logit = Classifier.open(bundle_path).bank
    add(head_logit, ["owl"], name_rows(["owl"])).save(file)
    classifier = Classifier.open(bundle_path, bank=file)
    before, bank_before = classifier.class_set(), classifier.bank
    add(bank_before, ["emu"], name_rows(["emu"])).save(file)
    assert list(classifier.class_set().names) == [*head_logit.names, "owl", "emu"]
    assert list(before.names) == list(bank_before.names) == [*head_logit.names, "owl"]  # these never change
    with pytest.raises(BankError, match="no such bank file"):
        Classifier.open(bundle_path, bank=tmp_path / "absent.safetensors")


def test_changes_of_two_threads_are_both_made(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, rename = Classifier.open(bundle_path), edits.rename
    other = threading.Thread(target=classifier.add, args=["owl"])

    def renamed(*arguments: object, **options: object) -> ClassBank:
        other.start()
        other.join(0.5)  # ends at once unless it waits for this change
        return rename(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(edits, "rename", renamed)
    classifier.rename(BANK_NAMES[0], "emu")
    other.join()
    assert list(classifier.bank.names) == ["emu", *BANK_NAMES[1:], "owl"]


def test_a_class_set_stands_in_for_names(classifier: Classifier) -> None:
    photos = {"zebra": classifier.embed_photos(picture())}
    answer = classifier.classify(picture(), classifier.class_set(["red"], only=True, photos=photos))
    assert {p.label for p in answer.predictions} == {"zebra", "red"}


def test_every_form_of_input_gives_the_same_answer(classifier: Classifier, tmp_path: Path) -> None:
    image = Image.fromarray(picture())
    path = tmp_path / "p.png"
    image.save(path)
    results = classifier.classify([path, str(path), path.read_bytes(), image, picture()])
    assert len({result.predictions for result in results}) == 1
    assert [result.image for result in results] == [str(path), str(path), "image[2]", "image[3]", "image[4]"]
    for single in (path, str(path), path.read_bytes(), image, picture()):
        compare(classifier.classify(single).predictions, expected(picture(), BANK_NAMES))


def test_batches_do_not_change_answers(classifier: Classifier) -> None:
    images = [picture(seed) for seed in range(9)]
    for batch_size in (1, 5):
        for seed, result in enumerate(classifier.stream(images, classifier.class_set(), batch_size=batch_size)):
            compare(result.predictions, expected(picture(seed), BANK_NAMES))


def test_a_bad_image_does_not_stop_the_others(classifier: Classifier) -> None:
    images = [picture(1), b"bad", picture(2), encoded(Image.fromarray(picture()), "JPEG")[:-200]]
    results = classifier.classify(images)
    assert [result.error is None for result in results] == [True, False, True, False]
    assert [len(result.predictions) for result in results] == [4, 0, 4, 0]
    compare(results[2].predictions, expected(picture(2), BANK_NAMES))
    assert [r.error is None for r in classifier.classify([b"bad", b"worse"])] == [False, False]
    assert classifier.classify([]) == []


def test_results_have_the_names_that_were_given(classifier: Classifier) -> None:
    images = [picture(1), b"bad", picture(2)]
    results = list(classifier.stream(images, classifier.class_set(), batch_size=2, names=["a", "b", "c"]))
    assert [(result.image, result.error is None) for result in results] == [("a", True), ("b", False), ("c", True)]


def test_options_are_refused_before_the_first_image(classifier: Classifier) -> None:
    classes = classifier.class_set()
    for wrong in ({"top_k": 0}, {"batch_size": 0}, {"options": DecisionOptions("score")}):
        with pytest.raises(InputError):
            classifier.stream([], classes, **wrong)


def test_logits_are_those_of_the_ranking_in_the_order_of_the_classes(classifier: Classifier) -> None:
    classes = classifier.class_set()
    rows = classifier.embed_images([picture(), picture(1)])
    ranked = [{p.label: p.logit for p in best} for best in classifier.rank(rows, classes, 99)]
    logits = classifier.logits(rows, classes)
    assert logits.tolist() == [[best[name] for name in classes.names] for best in ranked]


class Noting(EmbeddingCache):
    """A cache that notes what had to be encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []

    def put(self, key: tuple[str, str], row: np.ndarray) -> None:
        self.encoded.append(key[1])
        super().put(key, row)


def test_names_are_encoded_once_and_those_of_the_bank_never(bundle_path: Path) -> None:
    cache = Noting()
    classifier = Classifier(open_bundle(bundle_path), cache=cache)
    classifier.classify(picture())
    classifier.classify(picture(), list(BANK_NAMES))
    assert cache.encoded == []
    classifier.classify(picture(), ["owl", "red", "emu"])
    classifier.classify(picture(), {"bird": ["emu", "owl", "finch"]})
    assert cache.encoded == ["owl", "emu", "finch"]


def test_another_bank(bundle_path: Path, tmp_path: Path) -> None:
    bank = ClassBank.of(("owl", "emu"), name_rows(["owl", "emu"]), ENCODER_DIGEST)
    bank.save(tmp_path / "b.safetensors")
    for source in (bank, tmp_path / "b.safetensors", str(tmp_path / "b.safetensors")):
        compare(
            Classifier.open(bundle_path, bank=source).classify(picture()).predictions,
            expected(picture(), ("owl", "emu")),
        )


def test_a_bank_of_another_encoder(bundle_path: Path, tmp_path: Path) -> None:
    bank = ClassBank.of(("owl",), name_rows(["owl"]), "f" * 64)
    bank.save(tmp_path / "b.safetensors")
    for source in (bank, tmp_path / "b.safetensors"):
        with pytest.raises(BankError, match=f"{ENCODER_DIGEST[:8]}, .* ffffffff"):
            Classifier.open(bundle_path, bank=source)


def test_calls_that_are_refused(classifier: Classifier) -> None:
    with pytest.raises(ClassNameError, match="too long"):
        classifier.classify(picture(), ["x" * 500])
    with pytest.raises(InputError, match="no class"):
        classifier.classify(picture(), only=True)
    with pytest.raises(InputError, match="top_k"):
        classifier.classify(picture(), top_k=0)
    with pytest.raises(InputError, match="cannot go back -1 steps, there are 1"):
        classifier.add("owl").undo(-1)


# ------------------------------------------------------------------------------------------------------ rows of its own
def test_rows_of_images(classifier: Classifier) -> None:
    pictures = [picture(seed) for seed in range(3)]
    raw = [to_input(Image.fromarray(pixels), PREPROCESS).mean(axis=(1, 2)) @ image_weight() for pixels in pictures]
    rows = classifier.embed_images(pictures, batch_size=2)
    np.testing.assert_allclose(rows, [row / np.linalg.norm(row) for row in raw], atol=1e-5)
    np.testing.assert_allclose(classifier.embed_images(pictures[1]), rows[1:2], atol=1e-5)
    assert classifier.embed_images([]).shape == classifier.encode([]).shape == (0, DIM)
    with pytest.raises(ImageError, match=r"image\[1\]") as caught:
        classifier.embed_images([picture(0), b"bad"])
    assert caught.value.kind == "format"
    with pytest.raises(InputError, match="batch_size"):
        classifier.embed_images(picture(0), batch_size=0)


def test_rows_of_names_and_phrases(classifier: Classifier) -> None:
    names = ["owl", "cat", "owl"]
    np.testing.assert_allclose(classifier.embed_names(names), name_rows(names), atol=1e-6)
    np.testing.assert_array_equal(classifier.embed_names(name for name in names), classifier.embed_names(names))  # type: ignore[arg-type]
    mean = name_rows(["zebra", "striped horse"]).mean(axis=0)
    expected = [mean / np.linalg.norm(mean), name_rows(["owl"])[0]]
    np.testing.assert_allclose(classifier.embed_phrases([("zebra", "striped horse"), ("owl",)]), expected, atol=1e-6)
    assert classifier.embed_names([]).shape == classifier.embed_phrases([]).shape == (0, DIM)
    with pytest.raises(InputError, match="'owl'"):  # whose letters are no names
        classifier.embed_names("owl")
    with pytest.raises(ClassNameError, match="too long"):
        classifier.check_name("x" * 500)
    classifier.check_name("owl")


@pytest.mark.parametrize("device", ["cuda:0", "gpu", "CPU"])
def test_other_devices_are_not_taken_for_auto(bundle_path: Path, device: str) -> None:
    with pytest.raises(DeviceError, match=f"'{device}'"):
        Classifier(open_bundle(bundle_path), device=device)  # type: ignore[arg-type]


def test_once_started_the_folder_is_not_needed(bundle_copy: Path) -> None:
    classifier = Classifier(open_bundle(bundle_copy), device="cpu", cache=EmbeddingCache())
    classifier.start(names=True)
    for file in bundle_copy.iterdir():
        file.unlink()
    assert classifier.embed_images(picture(0)).shape == classifier.embed_names(["owl"]).shape == (1, DIM)
    classifier.close_images()
    with pytest.raises(BundleError):
        classifier.embed_images(picture(0))
