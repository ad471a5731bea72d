"""Towers as others publish them: ONNX graphs of torch models, laid out as Immich, transformers.js and fastembed do."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import open_clip
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers import float16
from torch import Tensor, nn

from sar_infer._arrays import Floats
from sar_infer.bundle.bundle import default_bundle
from sar_infer.bundle.manifest import IMAGE_ENCODER

LENGTH = 77
WORDS = 24
"""Positions of the tower of `bag_of_words`."""
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
) -> None:
    """Export ``call`` as publishers do, with torch's first exporter, and a batch of any size or of the example's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    axes = {0: "batch"} | ({1: "length"} if length else {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Lambda(model, call).eval(),
            tuple(inputs.values()),
            path,
            input_names=[*inputs],
            output_names=[*outputs],
            dynamic_axes=dict.fromkeys(inputs, axes) if dynamic else None,
            opset_version=17,
            dynamo=False,
        )
    if data:
        onnx.save(onnx.load(path), path, save_as_external_data=True, location=f"{path.name}_data")


def save_in_half(folder: Path, *, keep_io_types: bool) -> None:
    """Write each graph of a folder in float16 too, as converters do, which leave casts of inputs at the end."""
    for path in [*folder.rglob("*.onnx")]:
        model = float16.convert_float_to_float16(onnx.load(path), keep_io_types=keep_io_types)
        onnx.save(model, path.with_name(f"{path.stem}_fp16.onnx"))


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


def shipped_image_tower(path: Path, *, factor: float = 1.0) -> None:
    """Write `sar-mini`'s image tower as transformers.js would; it takes pixels that are ``factor`` times as large."""
    model = onnx.load(default_bundle() / IMAGE_ENCODER)
    model = onnx.compose.add_prefix(model, "inner/")
    (port,) = model.graph.input
    model.graph.initializer.append(numpy_helper.from_array(np.float32(1 / factor), "factor"))
    model.graph.node.insert(0, helper.make_node("Mul", ["pixel_values", "factor"], [port.name]))
    model.graph.node.append(helper.make_node("Identity", [model.graph.output[0].name], ["image_embeds"]))
    port.name, model.graph.output[0].name = "pixel_values", "image_embeds"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def bag_of_words(
    folder: Path, names: Sequence[str], rows: Floats, graph: str, *, output: str = "pooler_output"
) -> None:
    """Write a text tower that reads all positions, the padding too, as SigLIP's does: a sum of a vector for each token.

    The vectors are such that a name in the template, padded with ``<pad>``, has its row. The end token has a large one.

    Args:
        folder: Gets tokenizer, configuration and graph.
        names: C names.
        rows: (C, D) their embeddings.
        graph: The file of the graph.
        output: What its embedding is called.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = sorted({word for name in names for word in name.lower().split()} | {*["a", "photo", "of", "."]})
    vocabulary = {word: at for at, word in enumerate(["<pad>", "</s>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(".", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", {"pad_token": "<pad>", "model_input_names": ["input_ids"]})
    write_json(folder / "config.json", {"model_type": "siglip", "text_config": {"max_position_embeddings": WORDS}})
    counts = np.zeros((len(names), len(vocabulary)))
    for count, name in zip(counts, names, strict=True):
        np.add.at(count, tokenizer.encode(f"a photo of a {name}.").ids, 1)
    end = np.random.default_rng(0).choice([-3.0, 3.0], rows.shape[1])
    counts[:, 1] = 0
    table = np.linalg.lstsq(counts, np.arctanh(rows.astype(np.float64)) - end, rcond=None)[0]
    table[1] = end
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("ReduceSum", ["vectors", "positions"], ["sum"], keepdims=0),
        helper.make_node("Tanh", ["sum"], [output]),
    ]
    constants = {"table": table.astype(np.float32), "positions": np.array([1], np.int64)}
    write_graph(
        folder / graph, nodes, constants, "input_ids", TensorProto.INT64, ["n", "l"], output, ["n", rows.shape[1]]
    )


def write_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Any],
    port: str,
    kind: int,
    shape: Sequence[int | str],
    output: str,
    output_shape: Sequence[int | str],
) -> None:
    """Write a graph of nodes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [helper.make_tensor_value_info(port, kind, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    domains = {"": 17} | {node.domain: 1 for node in nodes if node.domain}
    opsets = [helper.make_opsetid(*pair) for pair in domains.items()]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
