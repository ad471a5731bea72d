"""Small models as open_clip loads them from a folder (``local-dir:``), some with a ``tokenizer.json``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from support.tiny import VIT, register

WORDS = ("a photo of a dog", "a cat", "red fox", "kitchen sink", "Golden Retriever", "crème brûlée") * 8


def model_folder(folder: Path, kind: str) -> str:
    """Write a model without weights and return its name for ``backbone.load``.

    Args:
        folder: becomes the model's.
        kind: ``bert``, whose tokens are lower case and whose last special token open_clip removes; ``siglip``, without
            punctuation, with a bias and an image that is squashed; or ``bpe``, CLIP's tokenizer before a tower that
            sees all tokens.
    """
    register()
    config: dict[str, Any] = open_clip.get_model_config(VIT)
    text = config["text_cfg"] | {"context_length": 40, "no_causal_mask": True}
    preprocess = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}
    folder.mkdir(parents=True)
    if kind != "bpe":
        save_tokenizer(folder, bert=kind == "bert")
        text |= {"hf_tokenizer_name": "own", "vocab_size": 400, "pool_type": "last"}
        text["tokenizer_kwargs"] = {"strip_sep_token": True} if kind == "bert" else {"clean": "canonicalize"}
    if kind == "siglip":
        config |= {"custom_text": True, "init_logit_bias": -10, "init_logit_scale": 2.302}
        preprocess["resize_mode"] = "squash"
    content = {"model_cfg": config | {"text_cfg": text}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return f"local-dir:{folder}"


def save_tokenizer(folder: Path, *, bert: bool) -> None:
    """Train a tokenizer on a few words, and save it as ``transformers`` does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    if bert:
        special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
        tokenizer = Tokenizer(models.WordPiece(unk_token=special[1]))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
        form, roles = "[CLS] $A [SEP]", {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    else:
        special, unknown = ["<pad>", "</s>", "<unk>"], "<unk>"
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=special, unk_token=unknown, show_progress=False
        )
        form, roles = "$A </s>", {"pad_token": "</s>", "eos_token": "</s>"}
    tokenizer.train_from_iterator(WORDS, trainer)
    pairs = [(token, tokenizer.token_to_id(token)) for token in special]
    tokenizer.post_processor = processors.TemplateProcessing(single=form, special_tokens=pairs)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles).save_pretrained(folder)
