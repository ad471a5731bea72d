"""Models whose text tower is not CLIP's causal one: exported as they are, and equal to open_clip at run time."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from support.hub_models import model_folder
from support.photos import write_folder

from sar_infer.bundle.manifest import NAME_ENCODER, TOKENIZER, TOKENIZER_JSON
from sar_infer.classifier import Classifier
from sar_infer.errors import BundleError, ClassNameError
from sar_infer.evaluation.findings import FindingWarning
from sar_train.api import export, train
from sar_train.cli.export import main
from sar_train.clip import backbone
from sar_train.clip.backbone import RANDOM
from sar_train.clip.full_text import FullText
from sar_train.errors import BackboneError, ExportError
from sar_train.export.bundle import export_bundle
from sar_train.export.source import from_template

pytest.importorskip("transformers")
TEMPLATE = "a photo of a {}."
NAMES = ["red fox", "kitchen sink", "crème brûlée"]
NEW = ["Golden_Retriever", "St. Bernard's dog", "犬"]


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model's name for open_clip, and the classifier of its bundle."""

    kind: str
    name: str
    classifier: Classifier


@pytest.fixture(scope="module", params=["bert", "siglip", "bpe"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    folder = tmp_path_factory.mktemp(request.param)
    name = model_folder(folder / "model", request.param)
    bundle = export(out=folder / "bundle", handcrafted=TEMPLATE, backbone=name, pretrained=RANDOM, classes=NAMES)
    yield Exported(request.param, name, Classifier(bundle, device="cpu"))


def test_names_and_photos_are_encoded_as_open_clip_does(exported: Exported, tmp_path: Path) -> None:
    model = backbone.load(exported.name, RANDOM).model
    tokens = open_clip.get_tokenizer(exported.name)([TEMPLATE.format(n.replace("_", " ")) for n in NAMES + NEW])
    folder = write_folder(tmp_path, {"any": 4})
    transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)  # type: ignore[union-attr,arg-type]
    photos = sorted(folder.rglob("*.*"))
    with torch.no_grad():
        rows = torch.nn.functional.normalize(model.encode_text(tokens), dim=-1).numpy()  # type: ignore[operator]
        pixels = torch.stack([transform(Image.open(photo).convert("RGB")) for photo in photos])
        images = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1).numpy()  # type: ignore[operator]
    classifier = exported.classifier
    np.testing.assert_allclose(classifier.embed_names(NAMES + NEW), rows, atol=1e-5)
    np.testing.assert_allclose(classifier.encode(list(map(str, photos))), images, atol=1e-5)
    best = [NAMES[row] for row in (images @ rows[: len(NAMES)].T).argmax(1)]
    assert [result.predictions[0].label for result in classifier.classify(photos)] == best


def test_the_manifest_has_what_open_clips_configuration_says(exported: Exported) -> None:
    manifest, files = exported.classifier.bundle.manifest, exported.classifier.bundle.manifest.files
    spec = exported.classifier.bundle.spec
    assert (spec.form, spec.prefix, spec.suffix, spec.context_length) == ("template", "a photo of a ", ".", 40)
    assert manifest.preprocess.mean == (0.4, 0.5, 0.6)
    assert manifest.preprocess.interpolation == "bilinear"
    expected = {
        "bert": ("whitespace", 0, 0, None, "shortest"),
        "siglip": ("canonicalize", 1, 1, -10.0, "squash"),
        "bpe": ("lower", 49_407, 0, None, "shortest"),
    }[exported.kind]
    found = (spec.clean, spec.end_token, spec.pad_token, manifest.logit_bias, manifest.preprocess.resize_mode)
    assert found == expected
    assert (TOKENIZER in files, TOKENIZER_JSON in files) == (exported.kind == "bpe", exported.kind != "bpe")
    assert "tokenizer" in manifest.provenance.licences or exported.kind != "bpe"


@pytest.mark.parametrize(
    ("name", "message"), [(" ", "empty"), ("dog " * 40, "too long"), ("a [SEP] b </s> c", "reserved")]
)
def test_names_that_cannot_be_encoded_are_refused(exported: Exported, name: str, message: str) -> None:
    if message == "reserved" and exported.kind != "bert":
        pytest.skip("punctuation is removed, or it is no special token")
    with pytest.raises(ClassNameError, match=message):
        exported.classifier.embed_names([name])


@pytest.mark.filterwarnings("ignore:.*looks? like another class:UserWarning")  # random weights
def test_a_bank_from_photos_ranks_and_takes_a_class_by_name(exported: Exported, tmp_path: Path) -> None:
    photos = write_folder(tmp_path, {"apple": 4, "red ball": 4})
    classifier = Classifier(exported.classifier.bundle, device="cpu").fit(photos).add("kitchen sink")
    apples = sorted((photos / "apple").iterdir())
    assert all(len(result.predictions) == 3 for result in classifier.classify(apples))
    assert set(classifier.bank.names) == {"apple", "red ball", "kitchen sink"}
    assert classifier.bank.fitted is not None


def test_without_the_library_the_error_names_the_extra(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    if exported.kind == "bpe":
        assert exported.classifier.embed_names(["x"]).shape == (1, 32)
        return
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    fresh = Classifier.open(exported.classifier.bundle.path, "cpu")
    assert len(fresh.bank.names) == len(NAMES)  # the bank's own classes need no tokenizer
    with pytest.raises(BundleError, match=r"pip install '\.\[tokenizers\]'"):
        fresh.embed_names(["owl"])


def test_a_tokenizer_other_than_open_clips_is_found(tmp_path: Path) -> None:
    source = from_template(TEMPLATE, {"dog": ("dog",)}, model_folder(tmp_path / "model", "bpe"), RANDOM)
    tower = source.backbone.tower
    assert isinstance(tower, FullText)
    shorter = dataclasses.replace(tower, reference=lambda texts: tower.reference(texts) + 1)
    backbone_of = dataclasses.replace(source.backbone, tower=shorter)
    source.prompted.backbone = backbone_of
    with pytest.raises(ExportError, match="open_clip's tokenizer gives other tokens"):
        export_bundle(source, tmp_path / "out", command="tests")
    assert not (tmp_path / "out").exists()


def test_files_of_weights_and_tokenizer_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    name = model_folder(folder, "siglip")
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_tokenizer_name"] = "nobody/nothing"
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tower", config)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = backbone.load(name, RANDOM, seed=3).model
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    command = ["--handcrafted", TEMPLATE, "--backbone", "tower", "--pretrained", str(tmp_path / "weights.pt")]
    command += ["--out", str(tmp_path / "bundle"), "-q", "--tokenizer"]
    with pytest.raises(click.ClickException, match="expected a file tokenizer.json, with tokenizer_config.json next"):
        main([*command, str(folder)], standalone_mode=False)
    main([*command, str(folder / "tokenizer.json")], standalone_mode=False)
    with torch.no_grad():
        rows = model.encode_text(open_clip.get_tokenizer(name)([TEMPLATE.format("owl")]), normalize=True).numpy()  # type: ignore[operator]
    assert (Classifier(tmp_path / "bundle").embed_names(["owl"]) * rows).sum() > 0.99999


def test_a_learned_prompt_is_refused_with_what_works(tmp_path: Path) -> None:
    photos, name = write_folder(tmp_path / "photos", {"apple": 4, "red ball": 4}), model_folder(tmp_path / "m", "bpe")
    with pytest.raises(BackboneError, match="--method gda .*sar-export --handcrafted"):
        train(photos, out=tmp_path / "run", backbone=name, pretrained=RANDOM)


def test_the_class_model_is_a_method_of_its_own(tmp_path: Path) -> None:
    photos, name = write_folder(tmp_path / "photos", {"apple": 8, "red ball": 8}), model_folder(tmp_path / "m", "bpe")
    run = train(photos, out=tmp_path / "run", backbone=name, pretrained=RANDOM, method="gda", shots=4)
    assert run.record["metrics"] == run.record["other_metrics"]["statistics"]
    assert run.record["statistics"]["trained"] is False
    bundle = export(run, out=tmp_path / "bundle", pretrained=RANDOM)
    assert bundle.trained is not None
    assert (bundle.manifest.method, bundle.spec.form) == ("handcrafted", "template")


@pytest.mark.filterwarnings("ignore:.*looks? like another class:UserWarning")  # random weights
def test_an_image_encoder_of_timm_knows_classes_by_photos_only(tmp_path: Path) -> None:
    bundle = export(out=tmp_path / "bundle", backbone="timm/test_vit2", pretrained=RANDOM)
    assert bundle.manifest.tokenizer is None
    assert NAME_ENCODER not in bundle.manifest.files
    photos = write_folder(tmp_path / "photos", {"apple": 4, "red ball": 4})
    classifier = Classifier(bundle, device="cpu").fit(photos)
    assert all(entry.photos_only for entry in classifier.bank.entries.values())
    apple = sorted((photos / "apple").iterdir())
    assert {result.predictions[0].label for result in classifier.classify(apple)} == {"apple"}
    with pytest.warns(FindingWarning, match="gets 1 of the photos of 'apple'"):
        classifier.add("shoe", apple[:1])
    for call in (lambda: classifier.add("owl"), lambda: classifier.classify(apple, ["owl"])):
        with pytest.raises(ClassNameError, match="knows classes by photos only"):
            call()


def test_weights_from_a_file_get_the_preprocessing_of_the_models_tags() -> None:
    model = backbone.load("sar-mini", RANDOM).model
    spec = backbone._preprocess("ViT-B-16-SigLIP", "weights.safetensors", model)
    assert (spec.resize_mode, spec.mean, spec.interpolation) == ("squash", (0.5, 0.5, 0.5), "bicubic")
