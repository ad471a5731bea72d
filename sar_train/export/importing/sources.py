"""Where published towers are, a folder or a repository on a hub, and which of its files they are."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sar_infer.bundle import hub
from sar_train.errors import ConfigError

Precision = Literal["fp32", "fp16"]
LARGEST_TEXT = 2**27
"""Bytes of a JSON or text file; the largest tokenizers of today have 35 MB."""
_SUFFIXES: dict[Precision, str] = {"fp32": ".onnx", "fp16": "_fp16.onnx"}
_LICENCE = re.compile(r"---\n(?:.*\n)*?license:[ \t]*['\"]?([^\s'\"#]+)")
_PREPROCESS, _CONFIG, _TOKENIZER = "preprocessor_config.json", "config.json", "tokenizer.json"


@dataclass(frozen=True)
class Source:
    """Files by name, with ``/`` between folders.

    Attributes:
        label: The folder, or ``hf://USER/NAME@COMMIT``.
        has: Whether there is a file of this name.
        get: Its path; it is fetched if it is on a hub.
    """

    label: str
    has: Callable[[str], bool]
    get: Callable[[str], Path]

    def text(self, name: str) -> str:
        """Return the content of a text file.

        Raises:
            ConfigError: It is missing, too large or not text.
        """
        if not self.has(name):
            raise ConfigError(f"{self.label}: has no {name}")
        path = self.get(name)
        if path.stat().st_size > LARGEST_TEXT:
            raise ConfigError(f"{path}: {path.stat().st_size:,} bytes; expected {LARGEST_TEXT:,} at most")
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text ({error})") from None

    def json(self, name: str | None) -> dict[str, Any]:
        """Return the content of a configuration, ``{}`` for None.

        Raises:
            ConfigError: As in ``text``, or it is not a JSON object.
        """
        if name is None:
            return {}
        try:
            content = json.loads(self.text(name))
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{self.label}: {name} is not JSON ({error})") from None
        if not isinstance(content, dict):
            raise ConfigError(f"{self.label}: {name}: expected an object, got {type(content).__name__}")
        return content

    def licence(self) -> str | None:
        """Return the licence that the model card states."""
        match = _LICENCE.match(self.text("README.md")) if self.has("README.md") else None
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
        tokenizer: Its ``tokenizer.json``.
        config: The configuration of the model, if there is one.
    """

    layout: str
    images: Source
    image: str
    preprocess: str
    texts: Source
    text: str | None = None
    tokenizer: str = _TOKENIZER
    config: str | None = None


def open_source(location: str) -> Source:
    """Open a folder, or a repository, of which only the list of files is fetched.

    Raises:
        ConfigError: There is no such folder.
        InputError: The location on a hub is not understood, or `huggingface_hub` is not installed.
        BundleError: The hub does not have it, or cannot be reached.
    """
    if location.startswith(hub.SCHEME):
        origin, sizes = hub.list_files(location)
        return Source(origin, sizes.__contains__, lambda name: hub.fetch_file(origin, name, sizes[name]))
    folder = Path(location)
    if not folder.is_dir():
        raise ConfigError(f"{location}: no such folder; expected published ONNX towers, or {hub.SCHEME}USER/NAME")
    return Source(location, lambda name: (folder / name).is_file(), lambda name: _inside(folder, folder / name))


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
    graph = functools.partial(_graph, precision=precision)
    if text is not None:
        texts = open_source(text)
        image, words = (graph(where, "model") or graph(where, "onnx/model") for where in (source, texts))
        if image is None or words is None:
            raise ConfigError(f"{source.label if image is None else texts.label}: has no model.onnx")
        return _towers("a folder for each tower (fastembed)", source, image, words, texts)
    if image := graph(source, "visual/model"):
        files = "visual/preprocess_cfg.json", f"textual/{_TOKENIZER}"
        return _towers("visual/ and textual/ (Immich)", source, image, graph(source, "textual/model"), None, *files)
    for folder in ("onnx/", ""):
        if image := graph(source, f"{folder}vision_model"):
            layout = f"{folder}vision_model.onnx and {folder}text_model.onnx (transformers.js, optimum)"
            return _towers(layout, source, image, graph(source, f"{folder}text_model"))
    if image := graph(source, "model") or graph(source, "onnx/model"):
        return _towers(f"{image}, an image tower", source, image)
    raise ConfigError(
        f"{source.label}: no published towers; expected visual/model.onnx, onnx/vision_model.onnx, vision_model.onnx "
        "or model.onnx; name other files with --image, --text, --tokenizer and --preprocess"
    )


def from_files(image: Path, preprocess: Path, text: Path | None, tokenizer: Path | None) -> Towers:
    """Return towers whose files are named one by one; data and other configuration are next to each.

    Raises:
        ConfigError: A file is missing, or only one of ``text`` and ``tokenizer`` is given.
    """
    if (text is None) is not (tokenizer is None):
        raise ConfigError("--text and --tokenizer belong together")
    for file in (image, preprocess, text, tokenizer):
        if file is not None and not file.is_file():
            raise ConfigError(f"{file}: no such file")
    source = Source(image.stem, lambda name: Path(name).is_file(), lambda name: _inside(Path(name).parent, Path(name)))
    files = {} if tokenizer is None else {"tokenizer": tokenizer.as_posix()}
    config = tokenizer.with_name(_CONFIG) if tokenizer else None
    return Towers(
        "files named one by one",
        source,
        image.as_posix(),
        preprocess.as_posix(),
        source,
        text.as_posix() if text else None,
        config=config.as_posix() if config and config.is_file() else None,
        **files,
    )


def _towers(
    layout: str,
    images: Source,
    image: str,
    text: str | None = None,
    texts: Source | None = None,
    preprocess: str = _PREPROCESS,
    tokenizer: str = _TOKENIZER,
) -> Towers:
    texts = texts or images
    config = _CONFIG if texts.has(_CONFIG) else None
    return Towers(layout, images, image, preprocess, texts, text, tokenizer, config)


def _graph(source: Source, stem: str, *, precision: Precision) -> str | None:
    if source.has(stem + _SUFFIXES[precision]):
        return stem + _SUFFIXES[precision]
    for other, suffix in _SUFFIXES.items():
        if source.has(stem + suffix):
            raise ConfigError(f"{source.label}: has {stem}{suffix}, and no {precision} graph; use --precision {other}")
    return None
