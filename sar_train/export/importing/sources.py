"""Where published towers are, a folder or a repository on a hub, and which of its files they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sar_infer.bundle import hub
from sar_infer.errors import InputError, raised_as
from sar_train.errors import ConfigError

Precision = Literal["fp32", "fp16"]
LARGEST_TEXT = 2**27
"""Bytes of a JSON or text file; the largest tokenizers of today have 35 MB."""
_SUFFIXES: dict[Precision, str] = {"fp32": ".onnx", "fp16": "_fp16.onnx"}
_LICENCE = re.compile(r"^license:[ \t]*['\"]?([^\s'\"#]+)", re.MULTILINE)
_PREPROCESS, _CONFIG, _TOKENIZER = "preprocessor_config.json", "config.json", "tokenizer.json"
_LAYOUTS = (
    ("visual/ and textual/ (Immich)", "visual/model", "visual/preprocess_cfg.json",
     "textual/model", f"textual/{_TOKENIZER}"),
    ("two towers in onnx/ (transformers.js, optimum)", "onnx/vision_model", _PREPROCESS, "onnx/text_model", _TOKENIZER),
    ("two towers in a folder (optimum)", "vision_model", _PREPROCESS, "text_model", _TOKENIZER),
    ("a folder for each tower (fastembed)", "model", _PREPROCESS, "model", _TOKENIZER),
    ("a folder for each tower (fastembed)", "onnx/model", _PREPROCESS, "onnx/model", _TOKENIZER),
)  # fmt: skip
"""Name, image tower, preprocessing, text tower, tokenizer; a graph of both names is an image tower without --text."""


@dataclass(frozen=True)
class Source:
    """Files by name, with ``/`` between folders.

    Attributes:
        label: The folder, or ``hf://USER/NAME@COMMIT``.
        has: Whether there is a file of this name.
        size: Its bytes.
        get: Its path; it is fetched if it is on a hub.
    """

    label: str
    has: Callable[[str], bool]
    size: Callable[[str], int]
    get: Callable[[str], Path]

    def text(self, name: str) -> str:
        """Return the content of a text file.

        Raises:
            ConfigError: It is missing or too large.
            InputError: It is not text.
        """
        if not self.has(name):
            raise ConfigError(f"{self.label}: has no {name}")
        if self.size(name) > LARGEST_TEXT:
            raise ConfigError(f"{self.label}: {name} has {self.size(name):,} bytes; expected {LARGEST_TEXT:,} at most")
        path = self.get(name)
        with raised_as(InputError, f"{path}: not UTF-8 text", UnicodeDecodeError):
            return path.read_text("utf-8")

    def json(self, name: str, *, optional: bool = False) -> dict[str, Any]:
        """Return the content of a configuration, ``{}`` if it is optional and missing.

        Raises:
            ConfigError: As in ``text``, or it is not an object.
            InputError: As in ``text``, or it is not JSON.
        """
        if optional and not self.has(name):
            return {}
        text = self.text(name)
        with raised_as(InputError, f"{self.label}: {name} is not JSON", (ValueError, RecursionError)):
            content = json.loads(text)
        if not isinstance(content, dict):
            raise ConfigError(f"{self.label}: {name}: expected an object, got {type(content).__name__}")
        return content

    def licence(self) -> str | None:
        """Return the licence that the front matter of the model card states."""
        card = self.text("README.md") if self.has("README.md") else ""
        match = _LICENCE.search(card.split("\n---")[0]) if card.startswith("---") else None
        return match[1] if match else None


@dataclass(frozen=True)
class Towers:
    """The files of two towers, or of one that sees images.

    Attributes:
        layout: What they were recognised by.
        images: Where the image tower's files are.
        image: Its graph.
        preprocess: The configuration of how images become its input.
        texts: Where the text tower's files are.
        text: Its graph; None if there is none.
        tokenizer: Its ``tokenizer.json``; not read without a text tower.
        config: The configuration of the model, which may be missing.
    """

    layout: str
    images: Source
    image: str
    preprocess: str
    texts: Source
    text: str | None
    tokenizer: str
    config: str


def open_source(location: str) -> Source:
    """Open a folder, or a repository, of which only the list of files is fetched.

    Raises:
        ConfigError: There is no such folder.
        InputError: The location on a hub is not understood, or `huggingface_hub` is not installed.
        BundleError: The hub does not have it, or cannot be reached.
    """
    if location.startswith(hub.SCHEME):
        origin, sizes = hub.list_files(location)
        return Source(
            origin, sizes.__contains__, sizes.__getitem__, lambda name: hub.fetch_file(origin, name, sizes[name])
        )
    folder = Path(location)
    if not folder.is_dir():
        raise ConfigError(f"{location}: no such folder; expected published ONNX towers, or {hub.SCHEME}USER/NAME")
    return _folder(location, folder)


def _folder(label: str, folder: Path) -> Source:
    """Return a folder; names that begin with ``/`` are files anywhere, which may be links within their own folder."""

    def get(name: str) -> Path:
        return _inside((folder / name).parent if Path(name).is_absolute() else folder, folder / name)

    return Source(label, lambda name: (folder / name).is_file(), lambda name: (folder / name).stat().st_size, get)


def _inside(folder: Path, file: Path) -> Path:
    """Return a file's path; a link may lead to the blobs of the hub's cache that the folder belongs to."""
    root, target = folder.resolve(), file.resolve()
    blobs = [parent.parent / "blobs" for parent in root.parents if parent.name == "snapshots"]
    if not any(target.is_relative_to(allowed) for allowed in (root, *blobs)):
        raise ConfigError(f"{file}: leads out of the folder; replace the link by the file")
    return file


def recognise(source: Source, text: str | None, precision: Precision) -> Towers:
    """Return the towers of a folder or repository.

    Args:
        source: Where they are.
        text: Folder or repository of the text tower, if it has one of its own.
        precision: Which of the publisher's graphs.

    Raises:
        ConfigError: No layout fits, or the publisher has no graph of this precision.
    """
    texts = source if text is None else open_source(text)
    for layout, image_stem, preprocess, text_stem, tokenizer in _LAYOUTS:
        if (image := _graph(source, image_stem, precision)) is None:
            continue
        words = None if text is None and text_stem == image_stem else _graph(texts, text_stem, precision)
        if text is not None and words is None:
            raise ConfigError(f"{texts.label}: has no {text_stem}.onnx")
        return Towers(layout, source, image, preprocess, texts, words, tokenizer, _CONFIG)
    stems = ", ".join(f"{image}.onnx" for _, image, *_ in _LAYOUTS)
    raise ConfigError(
        f"{source.label}: no published towers; expected one of {stems}; name other files with --image, --text, "
        "--tokenizer and --preprocess"
    )


def from_files(image: Path, preprocess: Path, text: Path | None, tokenizer: Path | None) -> Towers:
    """Return towers whose files are named one by one; data and other configuration are next to each.

    Raises:
        ConfigError: Only one of ``text`` and ``tokenizer`` is given.
    """
    if (text is None) is not (tokenizer is None):
        raise ConfigError("--text and --tokenizer belong together")
    source = _folder(image.stem, Path.cwd())
    files = (image, preprocess, text, tokenizer, tokenizer and tokenizer.with_name(_CONFIG))
    tower, settings, words, vocabulary, config = (file.absolute().as_posix() if file else "" for file in files)
    return Towers("files named one by one", source, tower, settings, source, words or None, vocabulary, config)


def _graph(source: Source, stem: str, precision: Precision) -> str | None:
    if source.has(stem + _SUFFIXES[precision]):
        return stem + _SUFFIXES[precision]
    for other, suffix in _SUFFIXES.items():
        if source.has(stem + suffix):
            raise ConfigError(f"{source.label}: has {stem}{suffix}, and no {precision} graph; use --precision {other}")
    return None


def section(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return an object inside a configuration, ``{}`` if it is absent or null.

    Raises:
        ConfigError: It is something else.
    """
    content = config.get(key) or {}
    if not isinstance(content, dict):
        raise ConfigError(f"{key}: expected an object, got {content!r:.80}")
    return content
