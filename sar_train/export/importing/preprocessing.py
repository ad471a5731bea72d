"""How images become an image tower's input, read from open_clip's or transformers' configuration and never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sar_infer.bundle.manifest import Preprocess
from sar_infer.storage.strict_json import build
from sar_train.errors import ConfigError

_RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
"""Pillow's numbers."""
_SWITCHES = {"do_resize": True, "do_rescale": True, "do_convert_rgb": True, "do_pad": False}
"""Defaults of transformers for switches that a configuration may leave out."""
_READ = {"size", "crop_size", "do_center_crop", "resample", "rescale_factor", "do_normalize", "image_mean", "image_std"}
_NO_EFFECT = {
    "image_processor_type", "feature_extractor_type", "processor_class", "auto_map", "data_format", "default_to_square",
    "model_input_names", "return_tensors", "input_data_format", "device", "disable_grouping", "use_fast", "backend",
}  # fmt: skip
_FLOAT_OF_A_BYTE = 1 / 255


def read_preprocess(config: Mapping[str, Any], label: str) -> Preprocess:
    """Return how images become input.

    Args:
        config: The configuration.
        label: Its name, for messages.

    Raises:
        ConfigError: A key is missing or not understood, or has a value that a bundle cannot state.
        BundleError: A value has the wrong type.
    """
    values = _of_open_clip(config, label) if "interpolation" in config else _of_transformers(config, label)
    if values["interpolation"] not in ("bicubic", "bilinear"):
        raise _unsupported(label, "interpolation", values["interpolation"], "bicubic or bilinear")
    preprocess: Preprocess = build(Preprocess, values, label)
    return preprocess


def _of_open_clip(config: Mapping[str, Any], label: str) -> dict[str, Any]:
    _refuse_other_keys(config, {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"}, label)
    if config.get("mode", "RGB") != "RGB":
        raise _unsupported(label, "mode", config["mode"], "RGB")
    return {
        "size": _side(config, "size", label),
        "resize_mode": _value(config, "resize_mode", label),
        "interpolation": _value(config, "interpolation", label),
        "mean": _value(config, "mean", label),
        "std": _value(config, "std", label),
        "fill": config.get("fill_color", 0),
    }


def _of_transformers(config: Mapping[str, Any], label: str) -> dict[str, Any]:
    if "max_num_patches" in config:
        raise ConfigError(f"{label}: max_num_patches: images of any shape (NaFlex); expected a model of fixed size")
    config = {key: value for key, value in config.items() if value is not None}
    _refuse_other_keys(config, _READ | _NO_EFFECT | _SWITCHES.keys(), label)
    for key, expected in _SWITCHES.items():
        if config.get(key, expected) is not expected:
            raise _unsupported(label, key, config[key], expected)
    factor = config.get("rescale_factor", _FLOAT_OF_A_BYTE)
    if not isinstance(factor, float) or abs(factor - _FLOAT_OF_A_BYTE) > 1e-9:
        raise _unsupported(label, "rescale_factor", factor, "1/255, pixels scaled to 0..1")
    size, crop = _value(config, "size", label), config.get("do_center_crop")
    if crop is None and "crop_size" in config:
        raise ConfigError(f"{label}: has crop_size, and does not state do_center_crop")
    whole = not isinstance(size, int) and "shortest_edge" not in size
    side = _side(config, "size", label)
    if not crop and not whole:
        raise ConfigError(f"{label}: resizes the shortest edge and does not crop; expected a square")
    if crop and _side(config, "crop_size", label) != side:
        raise ConfigError(
            f"{label}: resizes to {side} and crops to {_side(config, 'crop_size', label)} pixels; a bundle has one size"
        )
    normalised = config.get("do_normalize", True)
    resample = _value(config, "resample", label)
    return {
        "size": side,
        "resize_mode": "squash" if whole else "shortest",
        "interpolation": _RESAMPLE.get(resample, resample),
        "mean": _value(config, "image_mean", label) if normalised else [0.0] * 3,
        "std": _value(config, "image_std", label) if normalised else [1.0] * 3,
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


def _refuse_other_keys(config: Mapping[str, Any], known: set[str], label: str) -> None:
    if other := sorted(config.keys() - known):
        raise ConfigError(f"{label}: key {other[0]!r:.80} is not understood, and may change the pixels")


def _unsupported(label: str, key: str, value: Any, expected: object) -> ConfigError:
    return ConfigError(f"{label}: {key}: expected {expected}, got {value!r:.80}")
