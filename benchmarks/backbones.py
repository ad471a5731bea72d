"""Every configuration of the installed open_clip, from random weights to answers of its bundle.

    python -m benchmarks.backbones [--names NAME …] [--out results/backbones] [--scratch FOLDER]

Needs `pip install '.[transformers]'`. Each model keeps its kinds of blocks, its tokenizer and its settings, and has few
layers, narrow ones, and images of 64 pixels in patches of 16. Configurations that are the same network then are run
once. The command may be started several times with one `--scratch`, which shares the work; the last one writes all.
There is no hub, so a text tower of `transformers` is made from the library's own configuration of that architecture,
and a tokenizer of a hub is replaced by a small one of the same kind, with the same special tokens, trained here. For
each model: `sar_train.export`, with its comparisons; then the bundle's answers for photos and its rows of new names
against open_clip's own transform, tokenizer and towers. A model that fails is tried without our code: open_clip,
`torch.onnx.export` and onnxruntime.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import json
import os
import resource
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import timm
import tokenizers
import torch
import transformers
from PIL import Image
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from benchmarks import command
from sar_infer.classifier import Classifier
from sar_train.api import export
from sar_train.clip import backbone
from sar_train.clip.backbone import RANDOM

NAMES = ("hat", "dress", "shirt", "red fox", "crème brûlée")
NEW = ("blue_jay", "St. Bernard's dog", "Golden Retriever")
TEMPLATE = "a photo of a {}."
DIM = 128
"""Width of all towers and embeddings."""
MODEL_TYPES = {"roberta": "roberta", "xlm": "xlm-roberta", "mt5": "mt5", "nllb": "m2m_100"}
TEXTS = [
    TEMPLATE.format(name) for name in ("dog", "cat", "Golden Retriever", "crème brûlée", "blue jay", "red fox")
] * 9
HF_SMALL = {
    "hidden_size": DIM, "d_model": DIM, "num_hidden_layers": 2, "num_layers": 2, "encoder_layers": 2,
    "decoder_layers": 1, "num_attention_heads": 2, "num_heads": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "d_kv": 64, "intermediate_size": 256, "d_ff": 256, "encoder_ffn_dim": 256,
    "decoder_ffn_dim": 256, "vocab_size": 1000,
}  # fmt: skip
_create, _config = timm.create_model, transformers.AutoConfig


def smaller_timm(name: str, **settings: Any) -> Any:
    """Do as ``timm.create_model``, with few and narrow layers of the same kinds."""
    if name.startswith("convnext"):
        settings |= {"depths": (1, 1, 1, 1), "dims": (32, 64, 96, DIM)}
    elif name.startswith("fastvit"):
        settings |= {"layers": (1,) * (5 if name[-1] in "34" else 4)}
    elif name.startswith("swin"):
        settings |= {"depths": (2, 1, 1, 1), "embed_dim": 32, "num_heads": (1, 2, 4, 8)}
    elif name.startswith("vitamin"):
        settings |= {"depth": 1, "img_size": 64}
    elif "_mci_" in name:
        settings |= {"depth": 2, "img_size": 64}
    else:
        settings |= {"depth": 2, "embed_dim": DIM, "num_heads": 2, "img_size": 64, "patch_size": 16}
    return _create(name, **settings)


def smaller(config: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration with few and narrow layers of the same kinds."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    config["embed_dim"] = DIM
    if timm_name := vision.get("timm_model_name"):
        vision["image_size"] = 224 if timm_name.startswith("swin") else 64
        if "_mci_" in timm_name:
            config["embed_dim"] = 768  # its width is fixed
    elif isinstance(vision["layers"], list):
        vision |= {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    else:
        vision |= {"layers": 2, "width": 2 * vision.get("head_width", 64), "image_size": 64, "patch_size": 16}
    if "hf_model_name" not in text:
        text |= {"layers": 2, "width": config["embed_dim"], "heads": 2}
        if "hf_tokenizer_name" in text:
            text["vocab_size"] = 1000
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"layers": 1, "width": DIM, "heads": 2}
    return config


class SmallConfig:
    """In place of ``transformers.AutoConfig``: the library's own configuration of the architecture, made small."""

    @staticmethod
    def from_pretrained(name: str, **_: Any) -> Any:
        """Return the configuration for a name of the hub."""
        kind = next(kind for part, kind in MODEL_TYPES.items() if part in name)
        config = _config.for_model(kind)
        for key in HF_SMALL.keys() & {*config.to_dict(), *config.attribute_map}:
            setattr(config, key, HF_SMALL[key])
        return config


class SmallTokenizer:
    """In place of ``transformers.AutoTokenizer``: a small one of the same kind, with the same special tokens."""

    @staticmethod
    @functools.cache  # training again may give other tokens
    def from_pretrained(name: str, **_: Any) -> Any:
        """Return the tokenizer for a name of the hub."""
        if "bert-base" in name and "roberta" not in name:
            special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
            tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=special[1]))
            tokenizer.normalizer, tokenizer.pre_tokenizer = (
                normalizers.BertNormalizer(),
                pre_tokenizers.BertPreTokenizer(),
            )
            trainer: Any = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
            form, roles = "[CLS] $A [SEP]", {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        elif name.startswith("roberta"):
            special = ["<s>", "<pad>", "</s>", "<unk>"]
            tokenizer = tokenizers.Tokenizer(models.BPE(unk_token=special[3]))
            tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
            trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False)
            form, roles = "<s> $A </s>", {"pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"}
        else:
            siglip2, nllb, t5 = "SigLIP2" in name, "nllb" in name, "mt5" in name or "SigLIP" in name
            special = ["<pad>", "</s>", "<unk>"] if t5 else ["<s>", "<pad>", "</s>", "<unk>"]
            special += ["eng_Latn"] * nllb
            unknown = "<unk>"
            tokenizer = tokenizers.Tokenizer(models.Unigram())
            tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
            trainer = trainers.UnigramTrainer(
                vocab_size=200, special_tokens=special, unk_token=unknown, show_progress=False
            )
            form = "$A </s>" if t5 else "eng_Latn $A </s>" if nllb else "<s> $A </s>"
            pad = "</s>" if "SigLIP" in name and not siglip2 else "<pad>"  # open_clip pads SigLIP's with its end token
            roles = {"pad_token": pad, "eos_token": "</s>"}
        tokenizer.train_from_iterator(TEXTS, trainer)
        pairs = [(token, tokenizer.token_to_id(token)) for token in special]
        tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=pairs)
        return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)  # type: ignore[no-untyped-call]


def answers(name: str, folder: Path, photos: Sequence[Path]) -> dict[str, Any]:
    """Export a model, and compare its bundle's answers with open_clip's."""
    model: Any = backbone.load(name, RANDOM).model
    bundle = export(out=folder, handcrafted=TEMPLATE, backbone=name, pretrained=RANDOM, classes=list(NAMES))
    classifier = Classifier(bundle, device="cpu", threads=1)
    spec, parity = bundle.manifest.preprocess, bundle.manifest.quality.parity
    transform = open_clip.image_transform(
        spec.size,
        is_train=False,
        mean=spec.mean,
        std=spec.std,
        resize_mode=spec.resize_mode,
        interpolation=spec.interpolation,
    )
    with torch.no_grad():
        pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in photos])
        images = torch.nn.functional.normalize(model.encode_image(pixels), dim=-1).numpy()
        tokenizer = open_clip.get_tokenizer(name)
        texts = [TEMPLATE.format(text.replace("_", " ")) for text in (*NAMES, *NEW)]
        rows = torch.nn.functional.normalize(model.encode_text(tokenizer(texts)), dim=-1).numpy()
    best = [result.predictions[0].label for result in classifier.classify([*photos])]
    cosines = images @ rows[: len(NAMES)].T
    ties = [cosines[row, NAMES.index(label)] >= cosines[row].max() - 1e-6 for row, label in enumerate(best)]
    spec_text = bundle.spec
    if parity is None:
        raise ValueError("the manifest has no parity")
    return {
        "form": spec_text.form,
        "tokenizer": spec_text.kind,
        "resize": spec.resize_mode,
        "image_cosine": parity.image_min_cosine,
        "name_difference": max(
            parity.name_max_difference, float(abs(classifier.embed_names([*NAMES, *NEW]) - rows).max())
        ),
        "photo_cosine": float((classifier.encode([*map(str, photos)]) * images).sum(1).min()),
        "answers": sum(ties) / len(ties),
    }


def without_us(name: str) -> str:
    """Return what fails when open_clip's towers are exported and run without our code; empty if nothing does."""
    import onnxruntime

    try:
        model = open_clip.create_model(name, pretrained_text=False).eval()
        size = open_clip.get_model_preprocess_cfg(model)["size"]
        size = (size, size) if isinstance(size, int) else size
        tokens = open_clip.get_tokenizer(name)(["a", "b"])
        for method, example in (("encode_image", torch.zeros(2, 3, *size)), ("encode_text", tokens)):

            class Tower(torch.nn.Module):
                def __init__(self, call: str = method) -> None:
                    super().__init__()
                    self.model, self.call = model, call

                def forward(self, x: torch.Tensor) -> torch.Tensor:
                    rows: torch.Tensor = getattr(self.model, self.call)(x)
                    return rows

            shapes = ({0: torch.export.Dim.DYNAMIC},)
            program = torch.onnx.export(Tower().eval(), (example,), dynamo=True, dynamic_shapes=shapes, verbose=False)
            with tempfile.TemporaryDirectory() as folder:
                program.save(f"{folder}/m.onnx")  # type: ignore[union-attr]
                session = onnxruntime.InferenceSession(f"{folder}/m.onnx")
                with torch.no_grad():
                    expected = Tower()(example).numpy()
                outputs = session.run(None, {session.get_inputs()[0].name: example.numpy()})[0]
                if not np.allclose(outputs, expected, atol=1e-4):
                    return f"{method}: onnxruntime differs by {abs(outputs - expected).max():.1g}"
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return ""


def network(name: str) -> str:
    """Return a digest of what a model is, made small: equal for configurations that are one network then."""
    config = open_clip.get_model_config(name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    tower = ""
    if timm_name := vision.pop("timm_model_name", None):
        tower = repr(smaller_timm(timm_name))
    for kind in ("hf_model_name", "hf_tokenizer_name"):
        if kind in text:
            families = ("SigLIP2", "SigLIP", "nllb", "xlm", "mt5", "roberta", "bert")
            text[kind] = next(family for family in families if family in text[kind])
    unused = ("image_size", "timm_drop", "timm_drop_path", "timm_model_pretrained")
    used = {key: value for key, value in vision.items() if key not in unused}
    content = json.dumps([config | {"vision_cfg": used}, tower], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def attempt(name: str, scratch: Path, photos: Sequence[Path]) -> dict[str, Any]:
    """Return the outcome of one configuration."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    vision = open_clip.get_model_config(name)["vision_cfg"]
    kind = vision.get("timm_model_name") or (
        "ModifiedResNet" if isinstance(vision["layers"], list) else "VisionTransformer"
    )
    outcome: dict[str, Any] = {"model": name, "image tower": kind, "error": "", "without our code": ""}
    try:
        outcome |= answers(name, scratch / "bundle", photos)
    except Exception as error:
        outcome["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        outcome["without our code"] = without_us(name)
    shutil.rmtree(scratch / "bundle", ignore_errors=True)
    return outcome | {"cpu seconds": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime - began, 1)}


def main() -> None:
    """Try all, and write a table by kind, a line for each exception, and a CSV of all."""
    options = command.options(__doc__, names=[""], out=command.RESULTS / "backbones", scratch=Path)
    torch.set_num_threads(1)
    os.environ["HF_HUB_OFFLINE"] = "1"
    scratch = options.scratch or Path(tempfile.mkdtemp())
    scratch.mkdir(parents=True, exist_ok=True)
    names, configs = open_clip.list_models(), scratch / "configs"
    configs.mkdir(exist_ok=True)
    for name in names:
        (configs / f"{name}.json").write_text(json.dumps(smaller(open_clip.get_model_config(name))))
    open_clip.add_model_config(configs)
    timm.create_model = smaller_timm  # type: ignore[assignment]
    transformers.AutoTokenizer.from_pretrained = SmallTokenizer.from_pretrained  # type: ignore[method-assign]
    open_clip.hf_model.AutoConfig = SmallConfig
    photos = sorted((command.ROOT / "examples" / "clothes" / "test").glob("*/0[0-1].jpg"))
    backbone.load = functools.cache(backbone.load)
    chosen = [name for name in names if options.names == [""] or name in options.names]
    networks = {name: network(name) for name in chosen}
    for name, digest in networks.items():
        claim, began = scratch / f"{digest}.claim", time.monotonic()
        if not claim.exists():
            claim.touch()
            folder = scratch / digest
            outcome = attempt(name, folder, photos)
            shutil.rmtree(folder, ignore_errors=True)
            backbone.load.cache_clear()
            claim.with_suffix(".json").write_text(json.dumps(outcome))
            command.say(f"{name}: {outcome['error'] or 'ok'} {time.monotonic() - began:.0f} s")
    finished = {name: scratch / f"{digest}.json" for name, digest in networks.items()}
    rows = [json.loads(path.read_text()) | {"model": name} for name, path in finished.items() if path.exists()]
    write(rows, options.out, len(photos), len({*networks.values()}))
    print(options.out.with_suffix(".md").read_text())


def write(results: Sequence[dict[str, Any]], out: Path, photos: int, networks: int) -> None:
    """Write a table by kind, a line for each exception, and a CSV of all configurations."""
    done = [row for row in results if not row["error"]]
    kinds = Counter((row["form"], row["tokenizer"]) for row in done)
    lines = [
        f"open_clip {open_clip.__version__}, torch {torch.__version__}, transformers {transformers.__version__}; "
        f"{len(done)} of {len(results)} configurations ({networks} different networks once they are small) pass: "
        f"export, parity, open_clip's answers for {photos} photos",
        "",
    ]
    rows = []
    for (form, tokenizer), count in sorted(kinds.items()):
        group = [row for row in done if (row["form"], row["tokenizer"]) == (form, tokenizer)]
        worst = [min(row[key] for row in group) for key in ("image_cosine", "photo_cosine", "answers")]
        most = max(row["name_difference"] for row in group)
        rows.append((form, tokenizer, count, f"{worst[0]:.7f}", f"{worst[1]:.7f}", f"{most:.1e}", f"{worst[2]:.0%}"))
    heads = ("form", "tokenizer", "models", "least cosine", "of photos", "names differ by", "same answers")
    lines += [command.markdown(heads, rows), ""]
    if failed := [row for row in results if row["error"]]:
        exceptions = [(row["model"], row["error"], row["without our code"] or "works") for row in failed]
        lines += [command.markdown(("exception", "error", "without our code"), exceptions)]
    command.save("\n".join(lines), None, out)
    columns = ["model", "image tower", "form", "tokenizer", "resize", "image_cosine", "photo_cosine", "name_difference"]
    columns += ["answers", "cpu seconds", "error", "without our code"]
    with out.with_suffix(".csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(results)


if __name__ == "__main__":
    main()
