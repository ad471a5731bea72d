"""Towers as others publish them: ONNX graphs of torch models, laid out as Immich, transformers.js and fastembed do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import open_clip
import torch
from torch import Tensor, nn

LENGTH = 77
HALF = [0.5, 0.5, 0.5]
CLIP_PROCESSOR: dict[str, Any] = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 256, "width": 256},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": HALF,
    "image_std": HALF,
    "do_convert_rgb": True,
}
OPEN_CLIP_PREPROCESS: dict[str, Any] = {
    "size": 256,
    "mode": "RGB",
    "mean": HALF,
    "std": HALF,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


class Lambda(nn.Module):
    """A module of a function, which is what gets exported."""

    def __init__(self, owner: nn.Module, call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.owner, self.call = owner, call

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.call(*inputs)


def save(
    path: Path,
    model: nn.Module,
    call: Callable[..., Any],
    inputs: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    dynamic: bool = True,
    length: bool = False,
    data: bool = False,
    opset: int = 18,
) -> None:
    """Export ``call`` with torch's exporter, with a batch of any size or of the example's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {0: torch.export.Dim("batch")} | ({1: torch.export.Dim("length")} if length else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Lambda(model, call).eval(),
            tuple(inputs.values()),
            input_names=[*inputs],
            output_names=[*outputs],
            dynamic_shapes=(tuple(axes for _ in inputs),) if dynamic else None,
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    model_proto = program.model_proto
    if opset != 18:
        model_proto = onnx.version_converter.convert_version(model_proto, opset)
    if data:
        onnx.save(model_proto, path, save_as_external_data=True, location=f"{path.name}_data")
    else:
        onnx.save(model_proto, path)


def save_clip_tokenizer(folder: Path) -> None:
    """Save CLIP's own tokenizer as ``CLIPTokenizer.save_pretrained`` does."""
    from transformers import CLIPTokenizer

    own = open_clip.get_tokenizer("ViT-B-32")
    words = [
        {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}.get(one, one) for one in own.encoder
    ]
    merges = [pair for pair, _ in sorted(own.bpe_ranks.items(), key=lambda item: item[1])]
    tokenizer = CLIPTokenizer(vocab={word: at for at, word in enumerate(words)}, merges=merges, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def immich(
    folder: Path, model: nn.Module, config: Mapping[str, Any], preprocess: Mapping[str, Any], **how: Any
) -> Path:
    """Write an open_clip model as Immich's exporter does, but for the tokenizer: int32 ids, a batch fixed at one."""
    size = preprocess["size"]
    side = size if isinstance(size, int) else size[0]
    length = config["text_cfg"].get("context_length", LENGTH)
    write_json(folder / "config.json", config)
    write_json(folder / "visual/preprocess_cfg.json", preprocess)
    how = {"dynamic": False} | how
    image = {"image": torch.randn(1, 3, side, side)}
    save(
        folder / "visual/model.onnx",
        model,
        lambda x: model.encode_image(x, normalize=True),
        image,
        ["embedding"],
        **how,
    )
    text = {"text": torch.ones(1, length, dtype=torch.int32)}
    save(
        folder / "textual/model.onnx", model, lambda x: model.encode_text(x, normalize=True), text, ["embedding"], **how
    )
    return folder


def transformers_js(
    folder: Path,
    image: Callable[[Tensor], Sequence[Tensor]],
    text: Callable[..., Sequence[Tensor]],
    model: nn.Module,
    processor: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    outputs: tuple[Sequence[str], Sequence[str]] = (["image_embeds"], ["text_embeds"]),
    mask: bool = True,
    length: int | None = None,
    **how: Any,
) -> Path:
    """Write two towers as transformers.js and optimum do: any batch, any length unless ``length`` is given."""
    write_json(folder / "config.json", config)
    write_json(folder / "preprocessor_config.json", processor)
    crop = processor.get("crop_size") or processor["size"]
    pixels = {"pixel_values": torch.randn(2, 3, crop["height"], crop["width"])}
    save(folder / "onnx/vision_model.onnx", model, image, pixels, outputs[0], **how)
    ids = torch.ones(2, length or 9, dtype=torch.int64)
    tokens = {"input_ids": ids} | ({"attention_mask": torch.ones_like(ids)} if mask else {})
    save(folder / "onnx/text_model.onnx", model, text, tokens, outputs[1], length=length is None, **how)
    return folder
