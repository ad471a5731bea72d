"""The settings of one run: listed here with type, default, bounds and help, from which all other places derive theirs.

`RunConfig` is built from the command line and a TOML file, with all problems at once. The options of ``sar-train`` and
``sar-experiment`` (`sar_train.cli.settings`), the keys of a TOML file and the pages of the documentation come from its
fields.
"""

from __future__ import annotations

import dataclasses
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
_LARGEST_SEED = 2**32 - 1


def setting(
    default: Any,
    help: str,  # noqa: A002 - as click calls it
    *,
    shown: str = "",
    flags: tuple[str, ...] = (),
    choices: tuple[str, ...] = (),
    minimum: int | None = None,
    scope: Literal["", "machine", "class model", "sar"] = "",
    is_path: bool = False,
) -> Any:
    """Return a field of `RunConfig`.

    Args:
        default: its value where nothing is given; None where the default depends on others.
        help: what it does, a sentence for ``--help``.
        shown: the default in words, where the value does not say it.
        flags: names on the command line, where they are not the setting's own with hyphens.
        choices: values that the command line takes, where they are not those of the type.
        minimum: the lowest value.
        scope: ``machine`` for where things are on this machine, which no result depends on; ``class model`` and ``sar``
            for what only they read.
        is_path: True for a file or folder.
    """
    about = {"help": help, "shown": shown, "flags": flags, "choices": choices, "minimum": minimum, "scope": scope}
    return field(default=default, metadata={**about, "is_path": is_path})


@dataclass(frozen=True)
class RunConfig:
    """Everything that the result of a run depends on.

    Attributes:
        data: what to train on: a dataset's name, a folder, a list or a feature file.
        sections: settings of methods and regularisers by their name, as in ``[coop]`` or ``[sar]`` of the TOML file.

    The other fields say by their help what they are. ``base_classes`` also takes ``deal:K``, half of the classes at
    random (`sar_train.data.protocol.plan`); `sar_train.api.run_config` turns the device ``auto`` into the one that
    there is.
    """

    data: str
    data_root: str | None = setting(
        None, "Folder of datasets by name, in CoOp's layout.", scope="machine", is_path=True
    )
    backbone: str = setting(
        "sar-mini", "Name of open_clip (also hf-hub: and local-dir:), timm/NAME, sar-mini or sar-mini-vit."
    )
    pretrained: str | None = setting(
        None, "Tag or file of the backbone's weights. sar-mini and sar-mini-vit include theirs."
    )
    method: str = setting("coop", "Prompt-tuning method. --list-methods shows all.")
    sar: bool = setting(True, "Add Similarity Alignment Regularization.", shown="sar; no-sar for dept and promptsrc")
    novel: str = setting(
        "wordnet",
        "Auxiliary names for SAR: wordnet (relatives; wordnet:D or wordnet:A-B steps away), words (random nouns), "
        "dataset:NAME (its class names), llm, none, or a file of names.",
        scope="sar",
    )
    novel_count: int = setting(400, "Number of auxiliary names.", minimum=1, scope="sar")
    exclude_eval_names: bool = setting(
        True,
        "Leave the evaluated new class names out of the auxiliary names.",
        shown="leave out",
        flags=("--exclude-eval-names/--keep-eval-names",),
        scope="sar",
    )
    llm_url: str | None = setting(
        None, "For --novel llm: base URL of an OpenAI-compatible endpoint. SAR_LLM_KEY is its key.", scope="machine"
    )
    llm_model: str | None = setting(None, "For --novel llm: name of the model.", scope="sar")
    shots: int = setting(16, "Training photos of each class; 0: all.", minimum=0)
    seed: int = setting(1, "Seed of all random choices.", minimum=0)
    views: int = setting(4, "Cached views of each photo: the full photo and random crops.", minimum=1)
    protocol: Protocol = setting(  # noqa: RUF009 - a field
        "auto", "Which classes are trained and which are new. pseudo: tune on the base classes only."
    )
    base_classes: str | None = setting(None, "Names of the base classes, separated by commas.", shown="the first half")
    template: str = setting("", "Hand-crafted template with {}.", shown="the dataset's, or 'a photo of a {}.'")
    epochs: int | None = setting(
        None, "Passes over the photos. The first one is a warm-up.", shown="the method's published number", minimum=1
    )
    learning_rate: float | None = setting(
        None,
        "Step size of the optimiser.",
        shown="the method's published rate; with SGD on sar-mini and sar-mini-vit ten times that",
        flags=("--learning-rate", "--lr"),
    )
    batch_size: int | None = setting(None, "Photos of each step.", shown="the method's published size", minimum=1)
    device: str = setting(
        "cpu", "Processor to train on. auto: cuda if there is a GPU.", choices=("auto", "cpu", "cuda"), scope="machine"
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting("fp32", "Number format of the towers while training.")
    micro_batch: int = setting(
        0, "Photos encoded together. Fewer save memory with image prompts.", shown="0, the batch", minimum=0
    )
    cache_dir: str | None = setting(
        None,
        "Folder of image features, used by the next runs too.",
        shown=".features next to --out",
        scope="machine",
        is_path=True,
    )
    allow_missing: bool = setting(False, "Leave out missing images of a split file.")
    skip_unreadable: bool = setting(False, "Leave out unreadable images.")
    exclude: str | None = setting(
        None, "Leave out the photos of this list, such as the page of doubtful photos saves.", is_path=True
    )
    statistics: bool = setting(
        True,
        "Fit a class model, which ranks trained classes together with classes added later.",
        shown="statistics",
        scope="class model",
    )
    prompt: Literal["auto", "learned", "handcrafted"] = setting(
        "auto",
        "The prompt of the class model; auto: the better one on held-out classes; learned: train, compare nothing; "
        "handcrafted: train nothing.",
        scope="class model",
    )
    sections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        for name, about in SETTINGS.items():
            value, minimum = getattr(self, name), about.metadata["minimum"]
            if value is not None and minimum is not None and value < minimum:
                problems.append(f"{name}: expected {minimum} or more, got {value}")
        if self.learning_rate is not None and self.learning_rate <= 0:
            problems.append(f"learning_rate: expected more than 0, got {self.learning_rate}")
        if self.seed > _LARGEST_SEED:
            problems.append(f"seed: expected at most {_LARGEST_SEED}, got {self.seed}")
        texts = {name: value for name, value in vars(self).items() if isinstance(value, str)}
        for name, text in texts.items():
            if any("\ud800" <= character <= "\udfff" for character in text):  # which no record can hold
                problems.append(f"{name}: {text!a} is not UTF-8 text; rename it")
        if problems:
            raise ValueError("; ".join(problems))

    def section(self, name: str, kind: type[T]) -> T:
        """Return the settings of one method or regulariser, as its own dataclass.

        Raises:
            ConfigError: unknown or unusable settings, all of them in the message.
        """
        return build(kind, self.sections.get(name, {}), f"[{name}]")


SETTINGS: Mapping[str, dataclasses.Field[Any]] = {f.name: f for f in fields(RunConfig) if "help" in f.metadata}
"""Fields of `RunConfig` by name, all but the data and the sections."""


def in_scope(scope: str) -> tuple[str, ...]:
    """Return the names of the settings of one scope, as `setting` has them."""
    return tuple(name for name, about in SETTINGS.items() if about.metadata["scope"] == scope)


ELSEWHERE = in_scope("machine")
"""Settings that say where things are on this machine; no result depends on them."""
OF_CLASS_MODEL = in_scope("class model")
"""Settings of the class model, newer than the committed results: at their defaults they are no part of a key."""
OF_SAR = in_scope("sar")
"""Settings that mean nothing without SAR."""


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


def build(kind: type[T], settings: Mapping[str, Any], source: str) -> T:
    """Make a config dataclass from plain values.

    Args:
        kind: the dataclass.
        settings: values by field.
        source: where they are from, for the message.

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
    raise ConfigError(f"{source}: {'; '.join(problems)}")


def coerce(kind: Any, value: Any) -> Any:
    """Convert a value to the annotated type; text is parsed as that type, and empty text as None where that is allowed.

    Raises:
        ValueError: it cannot be; the message says what was expected.
    """
    if typing.get_origin(kind) is Literal:
        options = typing.get_args(kind)
        if value in options:
            return value
        raise ValueError(f"expected one of {', '.join(map(str, options))}, got {value!r}")
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return None if value in (None, "") else coerce(typing.get_args(kind)[0], value)
    if typing.get_origin(kind) is Mapping:
        return value
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if str(value).lower() in words:
            return words[str(value).lower()]
    elif kind is str or (kind in (int, float) and not isinstance(value, bool)):
        try:
            if kind is not int or not isinstance(value, float) or value.is_integer():
                number = kind(value)
                if kind is not float or math.isfinite(number):
                    return number
        except (TypeError, ValueError, OverflowError):
            pass
    raise ValueError(f"expected {'a finite number' if kind is float else kind.__name__}, got {value!r}")
