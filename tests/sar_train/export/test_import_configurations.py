"""Published configurations are read as their owners read them: pixels and ids of open_clip and transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import open_clip
import pytest
import skimage
import tokenizers
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from support import towers as published
from support.hub_models import save_tokenizer

from sar_infer.bundle.bundle import Bundle
from sar_infer.encoders.gate import shipped_photos
from sar_infer.errors import BundleError
from sar_infer.images.preprocess import to_input
from sar_infer.text import TokenizerSpec
from sar_infer.text.tokenizer import token_row
from sar_train.errors import ConfigError
from sar_train.export.importing.preprocessing import read_preprocess
from sar_train.export.importing.sources import Towers, open_source
from sar_train.export.importing.tokens import read_tokenizer
from sar_train.export.sealing import write_tokenizer

SKIMAGE = Path(skimage.__file__).parent / "data"
PHOTOS = [
    *shipped_photos().values(),
    *(SKIMAGE / name for name in ("rocket.jpg", "astronaut.png", "coins.png", "retina.jpg", "page.png", "color.png")),
]
"""Twenty, landscape, portrait and grey."""
FORTY = """cat|Cup of Coffee|brick wall|T-shirt|fire engine|12½ eggs|isn't it|rock'n'roll|café au lait|crème brûlée
naïve|Straße|日本の城|Ａ ｗｉｄｅ name|ladybird’s wing|“quoted”|tom & jerry|a&amp;b|50% off!|C++|e-mail|(bracketed)
semi:colon|x/y|UPPER CASE|two  spaces|tab\there|emoji 🦊 fox|Ελλάδα|Москва|العربية|हिन्दी|한국어|antidisestablishment
1st|2024|$5 note|@home|#tag|under_scored""".replace("\n", "|").split("|")
REPAIRED = ["Ａ ｗｉｄｅ name", "ladybird’s wing", "“quoted”", "a&amp;b"]
"""Texts that OpenAI's own tokenizer of CLIP repairs first, and transformers' does not."""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"size": 224, "resize_mode": "squash", "interpolation": "bilinear", "mean": [0.1, 0.2, 0.3]},
        {"size": [97, 97], "resize_mode": "longest", "fill_color": 9, "std": [0.2, 0.3, 0.4]},
        {"size": 131, "interpolation": "bilinear"},
    ],
)
def test_pixels_are_those_of_open_clip(changes: dict[str, Any]) -> None:
    config = published.OPEN_CLIP_PREPROCESS | changes
    spec = read_preprocess(config, "preprocess_cfg.json")
    transform = image_transform_v2(PreprocessCfg(**config), is_train=False)
    for path in PHOTOS:
        image = Image.open(path).convert("RGB")
        np.testing.assert_allclose(to_input(image, spec), transform(image).numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("CLIP", {}),
        ("CLIP", {"size": {"shortest_edge": 131}, "crop_size": {"height": 131, "width": 131}, "resample": 2}),
        ("CLIP", {"size": 224, "crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor"}),
        ("CLIP", {"do_normalize": False}),
        ("Siglip", {"size": {"height": 97, "width": 97}, "do_center_crop": None, "crop_size": None, "resample": 2}),
    ],
)
def test_pixels_are_those_of_transformers(kind: str, changes: dict[str, Any]) -> None:
    import transformers

    config = published.CLIP_PROCESSOR | changes
    spec = read_preprocess(config, "preprocessor_config.json")
    settings = {key: value for key, value in config.items() if not key.endswith("_type") and value is not None}
    processor = getattr(transformers, f"{kind}ImageProcessorPil")(**settings)
    for path in PHOTOS:
        image = Image.open(path).convert("RGB")
        (reference,) = processor(image, return_tensors="np")["pixel_values"]
        np.testing.assert_allclose(to_input(image, spec), reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "changes", "line"),
    [
        (published.CLIP_PROCESSOR, {"do_flip": True}, "key 'do_flip' is not understood"),
        (published.CLIP_PROCESSOR, {"resample": 1}, "interpolation: expected bicubic or bilinear, got 'lanczos'"),
        (published.CLIP_PROCESSOR, {"size": {"shortest_edge": 292}}, "resizes to 292 and crops to 256 pixels"),
        (published.CLIP_PROCESSOR, {"do_center_crop": False}, "resizes the shortest edge and does not crop"),
        (published.CLIP_PROCESSOR, {"do_center_crop": None}, "has crop_size, and does not state do_center_crop"),
        (published.CLIP_PROCESSOR, {"size": {"height": 256, "width": 128}}, "size: expected one side of a square"),
        (
            published.CLIP_PROCESSOR,
            {"rescale_factor": 1.0},
            "rescale_factor: expected 1/255, pixels",
        ),
        (published.CLIP_PROCESSOR, {"do_rescale": False}, "do_rescale: expected True, got False"),
        (published.CLIP_PROCESSOR, {"image_mean": None}, "does not state image_mean"),
        (published.CLIP_PROCESSOR, {"image_mean": [0.5]}, "mean"),
        (published.CLIP_PROCESSOR, {"max_num_patches": 256}, "NaFlex"),
        (published.OPEN_CLIP_PREPROCESS, {"mode": "L"}, "mode: expected RGB, got 'L'"),
        (published.OPEN_CLIP_PREPROCESS, {"resize_mode": "stretch"}, "resize_mode"),
        (published.OPEN_CLIP_PREPROCESS, {"interpolation": "random"}, "interpolation: expected bicubic or bilinear"),
        (published.OPEN_CLIP_PREPROCESS, {"gamma": 2}, "key 'gamma' is not understood"),
    ],
)
def test_preprocessing_that_is_not_understood_is_refused_by_name(
    config: dict[str, Any], changes: dict[str, Any], line: str
) -> None:
    with pytest.raises((ConfigError, BundleError), match=re.escape(line)):
        read_preprocess(config | changes, "the configuration")


def text_files(folder: Path, config: dict[str, Any]) -> Towers:
    published.write_json(folder / "config.json", config)
    source = open_source(str(folder))
    return Towers("", source, "", "", source, "model.onnx", "tokenizer.json", "config.json")


def rows_of(towers: Towers, length: int, folder: Path) -> tuple[TokenizerSpec, list[list[int]]]:
    """The rows of forty names, by the tokenizer that a bundle stores."""
    folder.mkdir(exist_ok=True)
    vocabulary, spec, _ = read_tokenizer(towers, "{}", length)
    write_tokenizer(folder, spec, vocabulary)
    bundle = Bundle(folder, SimpleNamespace(tokenizer=spec), None)  # type: ignore[arg-type]
    return spec, [token_row(spec, bundle.encode_name(name)) for name in FORTY]


def test_ids_are_those_of_open_clip(tmp_path: Path) -> None:
    published.save_clip_tokenizer(tmp_path)
    spec, rows = rows_of(text_files(tmp_path, {"text_cfg": {"context_length": 77}}), 77, tmp_path)
    assert spec.kind == "clip-bpe"
    assert rows == open_clip.get_tokenizer("ViT-B-32")([name.replace("_", " ") for name in FORTY]).tolist()


@pytest.mark.parametrize(("cleaning", "bert"), [("canonicalize", False), ("whitespace", True), ("lower", False)])
def test_ids_are_those_of_open_clip_with_a_tokenizer_of_the_hub(tmp_path: Path, cleaning: str, bert: bool) -> None:
    save_tokenizer(tmp_path, bert=bert)
    own = {"context_length": 40, "hf_tokenizer_name": "own", "tokenizer_kwargs": {"clean": cleaning}}
    spec, rows = rows_of(text_files(tmp_path, {"text_cfg": own}), 40, tmp_path / "out")
    reference = open_clip.tokenizer.HFTokenizer(str(tmp_path), context_length=40, clean=cleaning)
    assert spec.kind == "tokenizer.json"
    assert rows == reference([name.replace("_", " ") for name in FORTY]).tolist()


def test_ids_are_those_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    published.save_clip_tokenizer(tmp_path / "clip")
    spec, rows = rows_of(text_files(tmp_path / "clip", {"model_type": "clip"}), 77, tmp_path)
    ours = dict(zip(FORTY, rows, strict=True))
    own = AutoTokenizer.from_pretrained(tmp_path / "clip")
    theirs = own([name.replace("_", " ") for name in FORTY], padding="max_length", max_length=77)["input_ids"]
    differ = [name for name, row in zip(FORTY, theirs, strict=True) if ours[name] != row]
    assert spec.kind == "clip-bpe"
    assert differ == REPAIRED


def test_ids_are_those_of_transformers_with_another_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path, bert=False)
    spec, rows = rows_of(text_files(tmp_path, {"model_type": "siglip"}), 64, tmp_path / "out")
    own = AutoTokenizer.from_pretrained(tmp_path)
    assert spec.clean == "none"
    assert rows == own([name.replace("_", " ") for name in FORTY], padding="max_length", max_length=64)["input_ids"]


def test_lower_case_that_the_configuration_states_is_made(tmp_path: Path) -> None:
    save_tokenizer(tmp_path, bert=False)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"do_lower_case": True}))
    _, rows = rows_of(text_files(tmp_path, {"model_type": "siglip"}), 64, tmp_path / "out")
    assert rows[FORTY.index("UPPER CASE")] != rows[FORTY.index("cat")]
    tokenizer = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    tokenizer.no_padding()
    expected = tokenizer.encode("upper case").ids
    assert rows[FORTY.index("UPPER CASE")][: len(expected)] == expected
