"""The settings of one run as a frozen dataclass, from the command line and a TOML file, with all problems at once."""

from __future__ import annotations

import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from sar_train.errors import ConfigError

T = TypeVar("T")
Protocol = Literal["auto", "base-to-new", "all", "pseudo"]

ELSEWHERE = ("data_root", "cache_dir", "device", "llm_url")
"""Settings that say where things are on this machine; no result depends on them."""
OF_STATISTICS = ("statistics", "prompt", "quick")
"""Settings of class statistics. They came when runs had been kept, so at their defaults they are no part of a key."""
OF_SAR = ("novel", "novel_count", "exclude_eval_names", "llm_model")
"""Settings that mean nothing without SAR."""
_LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class RunConfig:
    """Everything that the result of a run depends on.

    Attributes:
        data: what to train on: a dataset's name, a folder, a list or a feature file.
        data_root: the folder that holds datasets by name.
        backbone: open_clip model name, or ``sar-mini``.
        pretrained: tag or file of its weights.
        method: name of the prompt-tuning method.
        sar: whether SAR is added.
        novel: where novel names come from: ``wordnet``, ``words``, ``dataset:NAME``, ``llm``, ``none``, a file, ….
        novel_count: how many to take.
        exclude_eval_names: leave the evaluated new names out of the novel ones.
        llm_url: base URL of the OpenAI-compatible endpoint that ``llm`` asks; no result depends on it.
        llm_model: the model to ask there.
        shots: photos per class; 0 means all.
        seed: of the few-shot draw, the start values and the order of photos.
        views: how many views of each photo have their features cached: the plain one and ``views - 1`` random crops,
            from which training then draws. Methods that prompt the image tower take fresh crops instead.
        protocol: ``base-to-new``, ``all`` classes, or ``pseudo`` (the base classes split again, for tuning).
        base_classes: the classes that are base, where they are not the first half: names separated by commas, or
            ``deal:K`` for half of them at random (`sar_train.training.protocol.plan`).
        template: hand-crafted template of the teacher and of zero-shot; empty means the dataset's.
        epochs, learning_rate, batch_size: None means the method's published value.
        device: ``cpu`` or ``cuda``; `sar_train.api.run_config` takes ``auto`` for the one that there is.
        precision: of the towers while training: ``fp32``, or ``bf16`` or ``fp16`` by autocast.
        micro_batch: photos that go through the towers at once, to save memory; 0 means the whole batch.
        cache_dir: where image features are kept between runs.
        allow_missing: go on without photos that a split file names but that are not there.
        skip_unreadable: leave unreadable photos out instead of stopping.
        statistics: fit class statistics.
        prompt: the prompt that is exported with them: the learned one, the hand-crafted one, or by leaving classes out
            in turn the better of the two.
        quick: take the hand-crafted prompt where classes are left out, instead of training the prompt again.
        sections: settings of methods and regularisers by their name, as in ``[coop]`` or ``[sar]`` of the TOML file.
    """

    data: str
    data_root: str | None = None
    backbone: str = "sar-mini"
    pretrained: str | None = None
    method: str = "coop"
    sar: bool = True
    novel: str = "wordnet"
    novel_count: int = 400
    exclude_eval_names: bool = True
    llm_url: str | None = None
    llm_model: str | None = None
    shots: int = 16
    seed: int = 1
    views: int = 4
    protocol: Protocol = "auto"
    base_classes: str | None = None
    template: str = ""
    epochs: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    device: str = "cpu"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    micro_batch: int = 0
    cache_dir: str | None = None
    allow_missing: bool = False
    skip_unreadable: bool = False
    statistics: bool = True
    prompt: Literal["auto", "learned", "handcrafted"] = "auto"
    quick: bool = False
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lowest = {"shots": 0, "views": 1, "novel_count": 1, "epochs": 1, "batch_size": 1, "seed": 0, "micro_batch": 0}
        problems = [
            f"{name}: expected {low} or more, got {value}"
            for name, low in lowest.items()
            if (value := getattr(self, name)) is not None and value < low
        ]
        if self.learning_rate is not None and self.learning_rate <= 0:
            problems.append(f"learning_rate: expected more than 0, got {self.learning_rate}")
        if self.seed > _LARGEST_SEED:
            problems.append(f"seed: expected at most {_LARGEST_SEED}, got {self.seed}")
        texts = {name: value for name, value in vars(self).items() if isinstance(value, str)}
        problems += [f"{name}: {text!a} is not UTF-8 text; rename it" for name, text in texts.items() if _broken(text)]
        if problems:
            raise ValueError("; ".join(problems))

    def section(self, name: str, kind: type[T]) -> T:
        """Return the settings of one method or regulariser, as its own dataclass.

        Raises:
            ConfigError: unknown or unusable settings, all of them in the message.
        """
        return build(kind, self.sections.get(name, {}), f"[{name}]")


def _broken(text: str) -> bool:
    """Return True if a text holds bytes that are not UTF-8, as file names may, which no record can hold."""
    return any("\ud800" <= character <= "\udfff" for character in text)


def read_toml(path: Path) -> dict[str, Any]:
    """Read the settings of a TOML file: run settings at the top level, one table a method or regulariser.

    Raises:
        ConfigError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as TOML ({error})") from None


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings: later layers win, tables are merged key by key and gathered under ``sections``."""
    merged: dict[str, Any] = {"sections": {}}
    for layer in layers:
        for name, value in layer.items():
            tables = value if name == "sections" else {name: value} if isinstance(value, Mapping) else None
            if tables is None:
                merged[name] = value
            else:
                for table, settings in tables.items():
                    merged["sections"].setdefault(table, {}).update(settings)
    return merged


def build(kind: type[T], settings: Mapping[str, Any], where: str) -> T:
    """Make a config dataclass from plain values.

    Raises:
        ConfigError: unknown names (the nearest is offered), values of the wrong type or out of range; all together.
    """
    hints = typing.get_type_hints(kind)
    problems, values = [], {}
    for name, value in settings.items():
        if name not in hints:
            near = difflib.get_close_matches(name, hints, n=1)
            problems.append(f"unknown setting {name!r}" + (f", did you mean {near[0]!r}?" if near else ""))
            continue
        try:
            values[name] = coerce(hints[name], value)
        except ValueError as error:
            problems.append(f"{name}: {error}")
    needed = (f.name for f in fields(kind) if f.default is f.default_factory is MISSING)  # type: ignore[arg-type]
    problems += [f"{name}: is missing" for name in needed if name not in settings]
    try:
        if not problems:
            return kind(**values)
    except (ValueError, TypeError) as error:
        problems.append(str(error))
    raise ConfigError(f"{where}: {'; '.join(problems)}")


def coerce(kind: Any, value: Any) -> Any:
    """Convert a value to the annotated type; text from the command line is read as that type.

    Raises:
        ValueError: it cannot be; the message says what was expected.
    """
    if typing.get_origin(kind) is Literal:
        options = typing.get_args(kind)
        if value in options:
            return value
        raise ValueError(f"expected one of {', '.join(map(str, options))}, got {value!r}")
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return None if value is None else coerce(typing.get_args(kind)[0], value)
    if typing.get_origin(kind) is Mapping:
        return value
    if kind is bool:
        known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if str(value).lower() in known:
            return known[str(value).lower()]
    elif kind is str or (kind in (int, float) and not isinstance(value, bool)):
        try:
            if kind is not int or not isinstance(value, float) or value.is_integer():
                return _finite(value) if kind is float else kind(value)
        except (TypeError, ValueError, OverflowError):
            pass
    raise ValueError(f"expected {'a finite number' if kind is float else kind.__name__}, got {value!r}")


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number
