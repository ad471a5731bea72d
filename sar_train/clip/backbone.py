"""The one module that touches open_clip: a frozen CLIP behind a small interface."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import logging
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.functional import normalize

from sar_infer.bundle.manifest import MANIFEST, Preprocess
from sar_infer.errors import install
from sar_train.clip import TIMM, mini
from sar_train.clip.full_text import FullText, full_text
from sar_train.clip.image_tower import ImageTower, image_tower
from sar_train.clip.openai_weights import is_torchscript, load_archive
from sar_train.clip.prompts import Prompts, split_template
from sar_train.clip.text_tower import TextTower
from sar_train.errors import BackboneError

TEMPLATES: tuple[str, ...] = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
"""CLIP's 80 templates for ImageNet."""
CHUNK = 2048
"""Names that go through the text tower at once."""
RANDOM = "random"
"""Instead of a tag or file: random weights from a seed."""
_GELU = "{0} contains weights trained with QuickGELU, but {1} has GELU: use --backbone {1}-quickgelu"
_NO_PROMPT = (
    "no prompt can be learned on {0}, since its text tower is not CLIP's causal one; sar-train --method gda fits the "
    "class model on it, sar-export --handcrafted 'a photo of a {{}}.' --backbone {0} makes a bundle without training"
)
_NO_TEXT = (
    "{0} has no text tower, so it knows classes by photos only: sar-export --backbone {0} --out BUNDLE, then "
    "sar-bank create FILE --photos FOLDER --bundle BUNDLE"
)
_BUNDLE = (
    "{0}: is a bundle, whose ONNX graphs have no weights to train a prompt on: sar-bank create FILE --photos FOLDER "
    "--bundle {0}, or name an open_clip model"
)
SCHEMES = ("hf-hub:", "local-dir:")
"""Names of models that are a repository or a folder with ``open_clip_config.json``, weights and tokenizer."""
CROPS: Mapping[str, Any] = {"center": "shortest", "border": "longest", "squash": "squash"}
"""timm's words for how an image is brought to the size of the input."""


@dataclass(frozen=True)
class Backbone:
    """A frozen image-text model, or only an image encoder; nothing in it ever gets a gradient.

    Attributes:
        name: open_clip's model name, ``sar-mini``, or timm's name after ``timm/``.
        pretrained: the tag or file that its weights came from, empty for seeded random weights.
        model: the open_clip model, in evaluation mode.
        tower: its text tower: CLIP's, which takes prompts, or another; None for an image encoder of timm.
        image: its image tower, where that is a vision transformer that takes prompts.
        preprocess: how images are prepared.
        embed_dim: D, the size of an embedding.
    """

    name: str
    pretrained: str
    model: nn.Module
    tower: TextTower | FullText | None
    image: ImageTower | None
    preprocess: Preprocess
    embed_dim: int

    @property
    def text(self) -> TextTower:
        """Return CLIP's text tower, which takes prompts.

        Raises:
            BackboneError: the text tower is another one, or there is none.
        """
        if isinstance(self.tower, TextTower):
            return self.tower
        raise BackboneError((_NO_TEXT if self.tower is None else _NO_PROMPT).format(self.name))

    @property
    def logit_scale(self) -> float:
        """Return the multiplier of the cosine (about 100 for CLIP)."""
        return float(self.model.logit_scale.exp())  # type: ignore[operator]

    @property
    def logit_bias(self) -> float | None:
        """Return what is added to scaled cosines (SigLIP); None where the model has no such number."""
        bias = getattr(self.model, "logit_bias", None)
        return None if bias is None else float(bias)

    @property
    def device(self) -> torch.device:
        """Return the device that holds the weights."""
        return next(self.model.parameters()).device

    @cached_property
    def weights_digest(self) -> str:
        """Return the SHA-256 over names, shapes and values of all weights, in name order."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @torch.no_grad()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (N, 3, H, W) preprocessed pixels as (N, D) unit rows."""
        return normalize(self.model.encode_image(pixels.to(self.device)), dim=-1)  # type: ignore[operator]

    def image_tower(self, method: str) -> ImageTower:
        """Return the image tower for a method that prompts it.

        Raises:
            BackboneError: this one has no token sequence.
        """
        if self.image is None:
            raise BackboneError(
                f"method {method} puts prompts among the tokens of a vision transformer, and the image tower of "
                f"{self.name} is none: choose a ViT backbone ({mini.VIT_NAME}, ViT-B-16, …) or a method that prompts "
                "only the text side (sar-train --list-methods)"
            )
        return self.image

    def handcrafted(self, template: str) -> Prompts:
        """Return a template such as ``a photo of a {}.`` as prompts without gradient."""
        before, after = split_template(template)
        return Prompts(self.text.embed_text(before), after)

    @torch.no_grad()
    def embed_names(self, names: Sequence[str], template: str, *, unit: bool = True) -> Tensor:
        """Return (C, D) class embeddings without gradient, for any number of names under a hand-crafted template.

        Raises:
            BackboneError: there is no text tower.
            ClassNameError: a name is empty or too long.
        """
        if isinstance(self.tower, FullText):
            return self.tower(names, template, unit=unit)
        prompts = self.handcrafted(template)
        embeddings = [self.text(prompts, names[i : i + CHUNK], unit=unit) for i in range(0, len(names), CHUNK)]
        return torch.cat(embeddings)

    def ensemble(self, names: Sequence[str], templates: Sequence[str], *, unit: bool) -> Tensor:
        """Return (C, D) unit rows: the mean over templates, of unit rows or of rows with the tower's own lengths."""
        rows = [self.embed_names(names, template, unit=unit) for template in templates]
        return normalize(torch.stack(rows).mean(0), dim=-1)


def load(
    name: str, pretrained: str | None = None, *, tokenizer: Path | None = None, device: str = "cpu", seed: int = 0
) -> Backbone:
    """Load a backbone.

    Args:
        name: an open_clip model name (``ViT-B-16``, ``RN50``, ``hf-hub:USER/NAME``, …), one that ships, ``sar-mini`` or
            ``sar-mini-vit``, or an image encoder of timm (``timm/NAME``).
        pretrained: an open_clip tag (downloaded) or a file; None means the weights that belong to the name, which
            those that ship, repositories, folders and timm's have. ``random`` means weights made by ``seed``, which
            only tests and timings want.
        tokenizer: ``tokenizer.json`` of a model with a tokenizer of the hub, next to its ``tokenizer_config.json``,
            instead of a download.
        device: where to put it.
        seed: for random weights.

    Raises:
        BackboneError: unknown name (the nearest are offered), a device or weights that cannot be loaded, weights that
            do not fit, or a tokenizer that cannot be loaded.
    """
    mini.register()
    _refuse(name, pretrained, device)
    torch.manual_seed(seed)
    try:
        with quiet("huggingface_hub"):  # which warns at each retry
            model = _build(name, pretrained)
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(_explain(name, pretrained, error)) from error
    model.eval().requires_grad_(requires_grad=False).to(device)
    if isinstance(model, TimmImages):
        return Backbone(name, pretrained or "", model, None, None, model.preprocess(), model.dim)
    text, image = _text_tower(name, model, tokenizer), image_tower(model.visual)  # type: ignore[arg-type]
    dim = text.projection.shape[1] if isinstance(text, TextTower) else open_clip.get_model_config(name)["embed_dim"]
    return Backbone(name, pretrained or "", model, text, image, _preprocess(name, pretrained, model), int(dim))


class TimmImages(nn.Module):
    """An image encoder of timm instead of an image-text model; the scale of its scores is CLIP's."""

    def __init__(self, name: str, pretrained: str | None) -> None:
        super().__init__()
        file: Any = {} if pretrained in (None, RANDOM) else {"pretrained_cfg_overlay": {"file": pretrained}}
        self.visual = timm.create_model(name, pretrained=pretrained != RANDOM, num_classes=0, **file)
        self.logit_scale = nn.Parameter(torch.tensor(100.0).log())
        self.settings: dict[str, Any] = resolve_model_data_config(self.visual)  # type: ignore[no-untyped-call]

    def encode_image(self, pixels: Tensor) -> Tensor:
        """Encode pixels (N, 3, H, W) as (N, D)."""
        rows: Tensor = self.visual(pixels)
        return rows

    @property
    def dim(self) -> int:
        """Return D."""
        with torch.no_grad():
            return int(self.encode_image(torch.zeros(1, *self.settings["input_size"])).shape[1])

    def preprocess(self) -> Preprocess:
        """Return how images are prepared: timm's words, except that the crop is the largest one."""
        settings = self.settings
        mode = CROPS[settings["crop_mode"]]
        return _spec(settings | {"size": settings["input_size"][1:], "resize_mode": mode})


def _refuse(name: str, pretrained: str | None, device: str) -> None:
    """Raise for what cannot succeed, before anything is built."""
    if device not in ("cpu", "cuda"):
        raise BackboneError(f"device {device!r}: expected cpu or cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise BackboneError("device cuda: this machine or this build of torch has no CUDA device; use --device cpu")
    if name.startswith(TIMM):
        if not timm.is_model(name.removeprefix(TIMM).partition(".")[0]):
            raise BackboneError(f"unknown backbone {name!r}: timm {timm.__version__} has no model of this name")
        return
    if name.startswith(SCHEMES):
        if pretrained not in (None, RANDOM):
            raise BackboneError(f"backbone {name}: brings its own weights; leave --pretrained out")
        return
    if (Path(name) / MANIFEST).is_file():
        raise BackboneError(_BUNDLE.format(name))
    if name not in open_clip.list_models():
        near = difflib.get_close_matches(name, open_clip.list_models(), n=3, cutoff=0.4)
        raise BackboneError(f"unknown backbone {name!r}; did you mean {', '.join(near) or 'sar-mini, ViT-B-16'}?")
    if pretrained is None and name not in mini.NAMES:
        raise BackboneError(f"backbone {name} needs --pretrained: a file or one of the tags {_tags(name)}")
    if pretrained in _quick_tags(name):
        raise BackboneError(_GELU.format(f"the tag {pretrained}", name))


def _quick_tags(name: str) -> list[str]:
    """Return the tags of weights that open_clip lists for the model of that name with QuickGELU."""
    return list(open_clip.list_pretrained_tags_by_model(f"{name}-quickgelu"))


def _tags(name: str) -> str:
    """List the tags that fit a model, and those that fit its sibling with QuickGELU."""
    quick = _quick_tags(name)
    tags = [tag for tag in open_clip.list_pretrained_tags_by_model(name) if tag not in quick]
    return (", ".join(tags) or "none") + (f" ({name}-quickgelu: {', '.join(quick)})" if quick else "")


def _build(name: str, pretrained: str | None) -> nn.Module:
    if name.startswith(TIMM):
        return TimmImages(name.removeprefix(TIMM), pretrained)
    model: nn.Module
    if name in mini.NAMES:
        model = mini.create(name)
        if pretrained is None:
            mini.load_weights(model, name)
        elif pretrained != RANDOM:
            open_clip.load_checkpoint(model, pretrained)
        return model
    archive = Path(pretrained) if pretrained and is_torchscript(Path(pretrained)) else None
    whole = pretrained != RANDOM and not archive  # else nothing is downloaded
    model = open_clip.create_model(name, pretrained if whole else None, load_weights=whole, pretrained_text=whole)
    if archive:
        state = load_archive(archive)
        if not (open_clip.get_model_config(name) or {}).get("quick_gelu"):  # open_clip would classify worse, silently
            raise BackboneError(_GELU.format(archive, name))
        model.load_state_dict(state)
    return model


def _explain(name: str, pretrained: str | None, error: Exception) -> str:
    """Return one line for an error that open_clip raised while loading."""
    reason = textwrap.shorten(str(error), 200, placeholder=" …", break_on_hyphens=False) or type(error).__name__
    if isinstance(error, ImportError) or "install transformers" in reason:
        return f"backbone {name}: needs the library transformers: {install('transformers')}"
    if pretrained in (None, RANDOM):
        return f"backbone {name}: cannot be built ({reason})"
    if Path(pretrained).exists():
        return f"backbone {name}: weights {pretrained} do not fit ({reason})"
    if pretrained not in open_clip.list_pretrained_tags_by_model(name):
        return f"backbone {name}: weights {pretrained!r} are neither a file nor a known tag; tags: {_tags(name)}"
    return (
        f"backbone {name}: weights {pretrained!r} could not be downloaded ({reason}); download them on a machine with "
        "network and pass the file with --pretrained FILE"
    )


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Silence the messages of the root logger and of named ones; an error that matters is an exception."""
    loggers = [logging.getLogger(), *map(logging.getLogger, names)]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _preprocess(name: str, pretrained: str | None, model: nn.Module) -> Preprocess:
    """Return what open_clip's configuration says; for weights from a file, what all tags of the model agree on."""
    settings, tags = open_clip.get_model_preprocess_cfg(model), open_clip.list_pretrained_tags_by_model(name)
    if pretrained not in tags:
        keys = ("mean", "std", "interpolation", "resize_mode")
        of_tags = [open_clip.get_pretrained_cfg(name, tag) for tag in tags]
        listed = [{key: of_tag[key] for key in keys if of_tag.get(key)} for of_tag in of_tags]
        settings = settings | (listed[0] if listed and all(one == listed[0] for one in listed) else {})
    return _spec(settings)


def _spec(settings: Mapping[str, Any]) -> Preprocess:
    size = settings["size"]
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise BackboneError(f"expected a square input, got {height} x {width} pixels")
    return Preprocess(
        size=int(height),
        resize_mode=settings["resize_mode"],
        interpolation=settings["interpolation"],
        mean=tuple(float(v) for v in settings["mean"]),  # type: ignore[arg-type]
        std=tuple(float(v) for v in settings["std"]),  # type: ignore[arg-type]
        fill=int(settings.get("fill_color", 0)),
    )


def _tokenizer(name: str, file: Path | None) -> Any:
    """Return open_clip's tokenizer of a model.

    Raises:
        BackboneError: it cannot be loaded, or a file is given for a model with CLIP's own.
    """
    settings = (open_clip.get_model_config(name) or {}).get("text_cfg", {})
    if file is not None and (file.name != "tokenizer.json" or not file.is_file()):
        raise BackboneError(f"{file}: expected a file tokenizer.json, with tokenizer_config.json next to it")
    if file is not None and "hf_tokenizer_name" not in settings:
        raise BackboneError(f"backbone {name}: has CLIP's own tokenizer; leave --tokenizer out")
    try:
        with quiet("huggingface_hub"):
            if file is None:
                return open_clip.get_tokenizer(name)
            return open_clip.tokenizer.HFTokenizer(
                str(file.parent),
                context_length=settings.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH),
                tokenizer_mode=settings.get("tokenizer_mode"),
                **settings.get("tokenizer_kwargs", {}),
            )
    except ImportError as error:
        raise BackboneError(_explain(name, None, error)) from None
    except Exception as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" …", break_on_hyphens=False)
        if file is not None:
            raise BackboneError(f"{file}: not a usable tokenizer ({reason})") from error
        raise BackboneError(
            f"backbone {name}: its tokenizer could not be downloaded ({reason}); name its file with sar-export "
            "--tokenizer FILE, or run this command once on a machine with network, and copy what it leaves in HF_HOME"
        ) from error


def _text_tower(name: str, model: nn.Module, file: Path | None) -> TextTower | FullText:
    text: Any = getattr(model, "text", model)
    pool = getattr(text, "pool_type", getattr(text, "text_pool_type", None))
    tokenizer = _tokenizer(name, file)
    blocks = list(getattr(getattr(text, "transformer", None), "resblocks", []))
    is_clip = (
        pool == "argmax"
        and getattr(text, "attn_mask", None) is not None
        and getattr(text, "cls_emb", None) is None
        and isinstance(tokenizer, open_clip.SimpleTokenizer)
        and all(type(block).__name__ == "ResidualAttentionBlock" for block in blocks)
        and isinstance(text.text_projection, Tensor)
    )
    if not is_clip:
        return full_text(model, tokenizer, open_clip.get_model_config(name)["text_cfg"])
    return TextTower(
        token_embedding=text.token_embedding,
        positional_embedding=text.positional_embedding,
        blocks=blocks,
        ln_final=text.ln_final,
        projection=text.text_projection,
        encode=tokenizer.encode,
        start_token=tokenizer.sot_token_id,
        end_token=tokenizer.eot_token_id,
    )
