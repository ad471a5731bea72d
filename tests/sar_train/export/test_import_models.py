"""Models of other architectures, small and with random weights, published as others do, embed as in torch."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from support import towers as published
from support.hub_models import save_tokenizer
from torch.nn.functional import normalize

from sar_infer import Classifier
from sar_infer.bundle.bundle import open_bundle
from sar_infer.encoders.gate import shipped_photos
from sar_train.cli.importing import main

pytestmark = pytest.mark.slow
PHOTOS = [*shipped_photos().values()]
NAMES = [f"{name} {number}" for name in shipped_photos() for number in ("one", "isn't 2")]
TEXTS = [f"a photo of a {name}." for name in NAMES]


def check(folder: Path, out: Path, images: Callable[[list[Any]], Any], texts: Callable[[list[str]], Any]) -> None:
    """Import, and compare photos and names with torch."""
    main(["--no-check", str(folder), "--out", str(out), "-q"], standalone_mode=False)
    classifier = Classifier.open(out)
    with torch.no_grad():
        rows = normalize(images([Image.open(path).convert("RGB") for path in PHOTOS]), dim=-1).numpy()
        words = normalize(texts(TEXTS), dim=-1).numpy()
    assert (classifier.embed_images(PHOTOS) * rows).sum(1).min() > 0.9999
    assert (classifier.embed_names(NAMES) * words).sum(1).min() > 0.99999
    assert np.linalg.matrix_rank(words) > 10  # names differ


def smaller(config: dict[str, Any], width: int = 128) -> dict[str, Any]:
    """Return a configuration of open_clip with few and narrow layers of the same kinds."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    config["embed_dim"] = width
    vision["image_size"] = 64
    if "timm_model_name" not in vision:
        vision |= {"layers": 2, "width": 2 * vision.get("head_width", 64), "patch_size": 16}
    if "hf_model_name" not in text:
        text |= {"layers": 2, "width": width, "heads": 2}
        if "hf_tokenizer_name" in text:
            text["vocab_size"] = 1000
    return config


def smaller_timm(create: Callable[..., Any], name: str, **settings: Any) -> Any:
    """Do as ``timm.create_model``, with few and narrow layers of the same kinds."""
    small = {"depth": 2, "embed_dim": 128, "num_heads": 2, "img_size": 64, "patch_size": 16}
    return create(name, **settings | ({"layers": (1,) * 4} if name.startswith("fastvit") else small))


@pytest.mark.parametrize(
    "name", ["MobileCLIP2-S0", "PE-Core-T-16-384", "ViT-B-16-SigLIP2", "xlm-roberta-base-ViT-B-32"]
)
def test_open_clip_in_the_layout_of_immich(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    config = smaller(copy.deepcopy(open_clip.get_model_config(name)))
    tokenizer = tmp_path / "tokenizer"
    if "SigLIP" in name:
        save_tokenizer(tokenizer, bert=False)
        config["text_cfg"]["hf_tokenizer_name"] = str(tokenizer)
    if "roberta" in name:
        save_roberta(tokenizer)
        config["text_cfg"] |= {"hf_tokenizer_name": str(tokenizer), "hf_model_name": str(tokenizer)}
    own = not tokenizer.exists()
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "small", config)
    monkeypatch.setattr(timm, "create_model", partial(smaller_timm, timm.create_model))
    torch.manual_seed(3)
    model = open_clip.create_model("small", load_weights=False, pretrained_text=False).eval()
    tokens = open_clip.get_tokenizer("small")
    preprocess = published.OPEN_CLIP_PREPROCESS | {"size": model.visual.image_size, "interpolation": "bilinear"}
    folder = published.immich(tmp_path / "towers", model, config, preprocess)
    if own:
        published.save_clip_tokenizer(folder / "textual")
    else:
        shutil.copytree(tokenizer, folder / "textual", dirs_exist_ok=True)
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**preprocess), is_train=False)
    check(
        folder,
        tmp_path / "bundle",
        lambda photos: model.encode_image(torch.stack([transform(photo) for photo in photos])),
        lambda texts: model.encode_text(tokens(texts)),
    )
    spec = open_bundle(tmp_path / "bundle").spec
    assert spec.kind == ("clip-bpe" if own else "tokenizer.json")
    assert spec.pad_token == (0 if own else tokens.tokenizer.pad_token_id)


def save_roberta(folder: Path) -> None:
    """Save a configuration and a tokenizer of XLM-R, without the hub."""
    import tokenizers
    from transformers import XLMRobertaConfig, XLMRobertaTokenizer

    words = ["▁" + word for text in TEXTS for word in text.split()]
    letters = sorted({letter for word in words for letter in word})
    vocabulary = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    vocabulary += [(piece, -float(at + 1)) for at, piece in enumerate(dict.fromkeys([*letters, *words]))]
    folder.mkdir()
    tokenizer = XLMRobertaTokenizer(vocab=vocabulary)
    assert isinstance(tokenizer.backend_tokenizer, tokenizers.Tokenizer)
    tokenizer.save_pretrained(folder)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    XLMRobertaConfig(vocab_size=len(vocabulary) + 1, max_position_embeddings=90, **size).save_pretrained(folder)


def small(**further: Any) -> dict[str, Any]:
    return {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64} | further


@pytest.mark.parametrize("masked", [True, False])
def test_clip_of_transformers(tmp_path: Path, masked: bool) -> None:
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

    torch.manual_seed(3)
    text = small(vocab_size=49408, max_position_embeddings=77, eos_token_id=49407, bos_token_id=49406)
    config = CLIPConfig(text_config=text, vision_config=small(image_size=65, patch_size=13), projection_dim=32)
    model = CLIPModel(config).eval()
    processor = published.CLIP_PROCESSOR | {
        "size": {"shortest_edge": 65},
        "crop_size": {"height": 65, "width": 65},
        "image_processor_type": "CLIPImageProcessor",
    }
    folder = published.transformers_js(
        tmp_path / "towers",
        lambda pixels: (model.visual_projection(model.vision_model(pixels).pooler_output),),
        lambda ids, *mask: (model.text_projection(model.text_model(ids, *mask).pooler_output),),
        model,
        processor,
        config.to_dict(),
        mask=masked,
        data=True,
    )
    published.save_clip_tokenizer(folder)
    tokens = AutoTokenizer.from_pretrained(folder)
    owner = CLIPImageProcessorPil(**{key: value for key, value in processor.items() if key != "image_processor_type"})

    def texts(names: list[str]) -> Any:
        ids = tokens(names, padding=True, return_tensors="pt")
        return model.text_projection(model.text_model(**ids).pooler_output)

    def images(photos: list[Any]) -> Any:
        pixels = owner(photos, return_tensors="pt").pixel_values
        return model.visual_projection(model.vision_model(pixels).pooler_output)

    check(folder, tmp_path / "bundle", images, texts)


def test_siglip_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, SiglipConfig, SiglipImageProcessorPil, SiglipModel

    torch.manual_seed(3)
    config = SiglipConfig(
        text_config=small(vocab_size=400, max_position_embeddings=64),
        vision_config=small(image_size=64, patch_size=16),
    )
    model = SiglipModel(config).eval()
    size = {"size": {"height": 64, "width": 64}, "do_center_crop": None, "crop_size": None}
    processor = published.CLIP_PROCESSOR | size | {"image_processor_type": "SiglipImageProcessor"}
    folder = published.transformers_js(
        tmp_path / "towers",
        lambda pixels: (model.vision_model(pixels).last_hidden_state, model.vision_model(pixels).pooler_output),
        lambda ids: (model.text_model(ids).last_hidden_state, model.text_model(ids).pooler_output),
        model,
        processor | {"crop_size": None},
        {"model_type": "siglip", "text_config": {"model_type": "siglip_text_model"}},
        outputs=(["last_hidden_state", "pooler_output"],) * 2,
        mask=False,
        length=64,
    )
    save_tokenizer(folder, bert=False)
    tokens = AutoTokenizer.from_pretrained(folder)
    settings = {key: value for key, value in processor.items() if value is not None and not key.endswith("_type")}
    owner = SiglipImageProcessorPil(**settings)
    check(
        folder,
        tmp_path / "bundle",
        lambda photos: model.vision_model(owner(photos, return_tensors="pt").pixel_values).pooler_output,
        lambda names: (
            model.text_model(
                tokens(names, padding="max_length", max_length=64, return_tensors="pt").input_ids
            ).pooler_output
        ),
    )
