"""How images become an image tower's input, read from open_clip's or transformers' configuration and never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sar_infer.bundle.checks import check_numbers
from sar_infer.bundle.manifest import Preprocess
from sar_infer.storage.strict_json import build
from sar_train.errors import ConfigError

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers."""
_OPEN_CLIP = {key: key for key in ("size", "resize_mode", "interpolation", "mean", "std")}
_TRANSFORMERS = {"size": "size", "interpolation": "resample", "mean": "image_mean", "std": "image_std"}
"""Fields of a bundle by keys of a configuration, which must state them."""
_FIXED = {"mode": "RGB", "do_resize": True, "do_rescale": True, "do_convert_rgb": True, "do_pad": False}
"""The values that keys may have, which are defaults too."""
_READ = {"crop_size", "do_center_crop", "rescale_factor", "do_normalize"}
_NO_EFFECT = {
    "image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "data_format", "default_to_square",
    "model_input_names", "return_tensors", "input_data_format", "device", "disable_grouping", "use_fast", "backend",
}  # fmt: skip
_FLOAT_OF_A_BYTE = 1 / 255


def read_preprocess(config: Mapping[str, Any], label: str) -> Preprocess:
    """Return how images become input.

    Args:
        config: The configuration, of open_clip or transformers.
        label: Its name, for messages.

    Raises:
        ConfigError: A key is missing or not understood, or has a value that a bundle cannot state.
        BundleError: A value has the wrong type, or is out of a bundle's limits.
    """
    if "max_num_patches" in config:
        raise ConfigError(f"{label}: max_num_patches: images of any shape (NaFlex); expected a model of fixed size")
    config = {key: value for key, value in config.items() if value is not None}
    if not config.get("do_normalize", True):
        config |= {"image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    by_open_clip = "interpolation" in config
    fields, others = (_OPEN_CLIP, {"fill_color"}) if by_open_clip else (_TRANSFORMERS, _READ | _NO_EFFECT)
    if unread := sorted(config.keys() - {*fields.values(), *_FIXED, *others}):
        raise ConfigError(f"{label}: key {unread[0]!r:.80} is not understood, and may change the pixels")
    for key, expected in _FIXED.items():
        if config.get(key, expected) != expected:
            raise _unsupported(label, key, config[key], expected)
    values = {field: _value(config, key, label) for field, key in fields.items()}
    values["fill"] = config.get("fill_color", 0)
    values["size"] = _side(config, "size", label)
    if not by_open_clip:
        values |= _as_transformers_do(config, values["size"], label)
    if values["interpolation"] not in ("bicubic", "bilinear"):
        raise _unsupported(label, "interpolation", values["interpolation"], "bicubic or bilinear")
    preprocess: Preprocess = build(Preprocess, values, label)
    check_numbers(label, preprocess, None)
    return preprocess


def _as_transformers_do(config: Mapping[str, Any], side: int, label: str) -> dict[str, Any]:
    """Return the fields that transformers states in other words than a bundle."""
    factor = config.get("rescale_factor", _FLOAT_OF_A_BYTE)
    if not isinstance(factor, float) or abs(factor - _FLOAT_OF_A_BYTE) > 1e-9:
        raise _unsupported(label, "rescale_factor", factor, "1/255, pixels scaled to 0..1")
    crop, size, resample = config.get("do_center_crop"), config["size"], config["resample"]
    if crop is None and "crop_size" in config:
        raise ConfigError(f"{label}: has crop_size, and does not state do_center_crop")
    whole = not isinstance(size, int) and "shortest_edge" not in size
    if not crop and not whole:
        raise ConfigError(f"{label}: resizes the shortest edge and does not crop; expected a square")
    if crop and (cropped := _side(config, "crop_size", label)) != side:
        raise ConfigError(f"{label}: resizes to {side} and crops to {cropped} pixels; a bundle has one size")
    return {
        "resize_mode": "squash" if whole else "shortest",
        "interpolation": _RESAMPLE.get(resample, "") if isinstance(resample, int) else resample,
        "crop": "floor",
    }


def _side(config: Mapping[str, Any], key: str, label: str) -> int:
    """Return the side of a square that is one number, a pair, or an object of transformers."""
    value = _value(config, key, label)
    sides = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else [value]
    is_square = not isinstance(value, dict) or value.keys() in ({"shortest_edge"}, {"height", "width"})
    if not is_square or len({*map(repr, sides)}) != 1 or type(sides[0]) is not int:
        raise _unsupported(label, key, value, "one side of a square")
    return sides[0]


def _value(config: Mapping[str, Any], key: str, label: str) -> Any:
    try:
        return config[key]
    except KeyError:
        raise ConfigError(f"{label}: does not state {key}") from None


def _unsupported(label: str, key: str, value: Any, expected: object) -> ConfigError:
    return ConfigError(f"{label}: {key}: expected {expected}, got {value!r:.80}")
