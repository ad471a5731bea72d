"""The files of a run: prompts without the backbone, class statistics, the record, and the state of an unfinished run.

Prompts and statistics are safetensors files with everything needed to use them.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sar_infer.classifiers.left_out import HANDCRAFTED, LEARNED
from sar_infer.classifiers.statistics import Statistics
from sar_infer.errors import BankError, BundleError
from sar_infer.storage.files import write_atomically
from sar_infer.storage.strict_json import build
from sar_train.errors import RunError

PROMPTS = "prompts.safetensors"
STATE = "state.safetensors"
RECORD = "record.json"
FITTED_STATISTICS = "fitted_statistics.safetensors"
FORMER_STATISTICS = "statistics.safetensors"
"""Their name in older run folders; a bundle has another file of that name."""
FORMAT = "sar-prompts"
SCHEMA_VERSION = 2
STATISTICS_FORMAT = "sar-statistics"
STATISTICS_SCHEMA_VERSION = 1
PromptName = Literal["learned", "handcrafted"]


@dataclass(frozen=True)
class Run:
    """A trained prompt and what it belongs to; fields that an imported checkpoint does not know are empty.

    ``tensors`` are the method's own, by name, and ``settings`` those of its config;
    `sar_train.training.prompted.restore` makes the method from them.
    """

    tensors: Mapping[str, Tensor]
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    backbone_name: str = ""
    pretrained: str | None = None
    weights_digest: str = ""
    template: str = ""
    class_names: tuple[str, ...] = ()
    regularisers: Mapping[str, float] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Prompts:
    """Metadata of a prompt file, as JSON values."""

    method: str
    settings: Mapping[str, Any]
    backbone: str
    pretrained: str
    weights_digest: str
    template: str
    class_names: tuple[str, ...]
    regularisers: Mapping[str, float]


def save_run(folder: Path, run: Run) -> None:
    """Write ``prompts.safetensors``, then ``record.json``; a folder with a record is a finished run.

    Raises:
        RunError: one of them cannot be written.
    """
    metadata = {
        "format": FORMAT,
        "schema_version": str(SCHEMA_VERSION),
        "method": run.method,
        "settings": json.dumps(dict(run.settings)),
        "backbone": run.backbone_name,
        "pretrained": run.pretrained or "",
        "weights_digest": run.weights_digest,
        "template": run.template,
        "class_names": json.dumps(run.class_names, ensure_ascii=False),
        "regularisers": json.dumps(dict(run.regularisers)),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in run.tensors.items()}
    save_tensors(folder / PROMPTS, tensors, metadata)
    _write(folder / RECORD, (json.dumps(run.record, indent=2, ensure_ascii=False) + "\n").encode())


def load_run(path: Path) -> Run:
    """Read a run folder, or a checkpoint of KaiyangZhou/CoOp (``model.pth.tar…``, or the folder that holds it).

    Raises:
        RunError: there is no finished run, or the file cannot be used.
    """
    prompts = path / PROMPTS
    if not prompts.is_file():
        checkpoints = sorted(path.glob("**/model*.pth.tar*")) if path.is_dir() else [path] if path.is_file() else []
        if not checkpoints:
            state = " (it was not finished: run the same sar-train command again)" if (path / STATE).is_file() else ""
            raise RunError(f"{path}: expected a run folder with {PROMPTS}, or a CoOp checkpoint{state}")
        return load_coop(checkpoints[-1])
    tensors, metadata = load_tensors(prompts)
    if metadata.get("format") != FORMAT:
        raise RunError(f"{prompts}: not a prompt file of sar-train")
    if not metadata.get("schema_version", "").isdigit() or int(metadata["schema_version"]) > SCHEMA_VERSION:
        raise RunError(
            f"{prompts}: schema {metadata.get('schema_version')}, this reads {SCHEMA_VERSION}: upgrade sar-clip"
        )
    if "settings" not in metadata and "context" in tensors:  # schema 1, which had CoOp alone
        metadata["settings"] = json.dumps(_coop_settings(tensors["context"]))
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise RunError(f"{prompts}: damaged: a tensor holds numbers that are not finite")
    entries: dict[str, Any] = {key: metadata[key] for key in metadata.keys() & _Prompts.__dataclass_fields__}
    for key in ("settings", "class_names", "regularisers"):
        if key in entries:
            entries[key] = _parsed(entries[key], f"{prompts}: {key}")
    try:
        fields = build(_Prompts, entries, f"{prompts}: damaged")
    except BundleError as error:
        raise RunError(str(error)) from None
    record = _object(_text(path / RECORD), path / RECORD) if (path / RECORD).is_file() else {}
    return Run(
        tensors=tensors,
        method=fields.method,
        settings=fields.settings,
        backbone_name=fields.backbone,
        pretrained=fields.pretrained or None,
        weights_digest=fields.weights_digest,
        template=fields.template,
        class_names=fields.class_names,
        regularisers=fields.regularisers,
        record=record,
    )


def load_coop(path: Path) -> Run:
    """Read the context of a CoOp checkpoint, without running what a pickle may hold.

    The file knows neither its backbone nor its class names. ``token_prefix`` and ``token_suffix`` belong to the class
    list it was trained on and are dropped, as the reference implementation does.

    Raises:
        RunError: not such a checkpoint, or class-specific contexts.
    """
    import numpy

    scalar: Any = numpy.float64(0).__reduce__()  # begins with a function that makes a number from bytes, nothing else
    harmless = [numpy.dtype, type(numpy.dtype("f8")), type(numpy.float64(0)), scalar[0]]  # Dassl's val_result
    try:
        with torch.serialization.safe_globals(harmless):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, LookupError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise RunError(f"{path}: cannot be read safely as a checkpoint ({reason})") from None
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    context = state.get("ctx", state.get("prompt_learner.ctx"))
    if not isinstance(context, Tensor):
        raise RunError(f"{path}: expected a CoOp checkpoint with a tensor 'ctx', got {sorted(map(str, state))[:5]}")
    if context.ndim != 2:
        raise RunError(f"{path}: class-specific contexts {tuple(context.shape)} cannot be used for other class names")
    return Run({"context": context.float()}, "coop", _coop_settings(context))


def _coop_settings(context: Tensor) -> dict[str, Any]:
    """Return settings of CoOp that give a context of this shape."""
    return {"context_init": "", "n_ctx": len(context)}


@dataclass(frozen=True)
class FittedStatistics:
    """Class statistics with the prompt that they belong to.

    Attributes:
        statistics: fitted, or the defaults.
        prompt: the prompt of the bundle.
        template: the hand-crafted one.
        record: the entry of ``record.json``, plain JSON values.
    """

    statistics: Statistics
    prompt: PromptName
    template: str
    record: dict[str, Any]


def save_statistics(folder: Path, fitted: FittedStatistics) -> None:
    """Write the statistics into a run folder, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    metadata = {
        "format": STATISTICS_FORMAT,
        "schema_version": str(STATISTICS_SCHEMA_VERSION),
        "prompt": fitted.prompt,
        "template": fitted.template,
        "record": json.dumps(fitted.record, ensure_ascii=False),
    }
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in fitted.statistics.tensors().items()}
    save_tensors(folder / FITTED_STATISTICS, tensors, metadata)


def load_statistics(folder: Path) -> FittedStatistics | None:
    """Read the statistics of a run folder; None if it has none.

    Raises:
        RunError: the file is damaged, or of a newer version.
    """
    path = folder / (FITTED_STATISTICS if (folder / FITTED_STATISTICS).is_file() else FORMER_STATISTICS)
    if not path.is_file():
        return None
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != STATISTICS_FORMAT or metadata.get("prompt") not in (LEARNED, HANDCRAFTED):
        raise RunError(f"{path}: not a statistics file of sar-train")
    if metadata.get("schema_version") != str(STATISTICS_SCHEMA_VERSION):
        raise RunError(
            f"{path}: schema {metadata.get('schema_version')}, this reads {STATISTICS_SCHEMA_VERSION}: upgrade"
        )
    try:
        statistics = Statistics.from_tensors({name: tensor.numpy() for name, tensor in tensors.items()})
        template, record = metadata["template"], json.loads(metadata["record"])
    except (BankError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path}: {error}; train again, or delete the file to go without statistics") from None
    prompt: PromptName = "learned" if metadata["prompt"] == LEARNED else "handcrafted"
    return FittedStatistics(statistics, prompt, template, record)


def remove_statistics(folder: Path) -> None:
    """Remove the statistics of a run folder, if it has any."""
    for name in (FITTED_STATISTICS, FORMER_STATISTICS):
        (folder / name).unlink(missing_ok=True)


def save_state(folder: Path, tensors: dict[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write the state of an unfinished run; ``meta`` holds config, epoch and history.

    Raises:
        RunError: it cannot be written; the state before it stays.
    """
    save_tensors(folder / STATE, tensors, {"meta": json.dumps(meta)})


def load_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the state of an unfinished run; return None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        tensors, metadata = load_tensors(path)
        meta = _object(metadata.get("meta", ""), path)
    except RunError as error:
        raise RunError(f"{error}; start anew with --no-resume") from None
    return tensors, meta


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: cannot be read ({error})") from None


def _parsed(text: str, source: object) -> Any:
    """Return JSON of a run's file; raise RunError if it is none."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise RunError(f"{source}: damaged: not valid JSON ({error})") from None


def _object(text: str, source: object) -> dict[str, Any]:
    """Return the JSON object of a run's file; raise RunError if it is none."""
    content = _parsed(text, source)
    if not isinstance(content, dict):
        raise RunError(f"{source}: damaged: expected a JSON object, got {type(content).__name__}")
    return content


def remove_state(folder: Path) -> None:
    """Delete the state of a run, and temporary files that a killed process left."""
    for path in (folder / STATE, *folder.glob(f".{STATE}.*")):
        path.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        RunError: it cannot be written; an older file stays as it was.
    """
    _write(path, save(tensors, metadata))  # save_file would make it unreadable for others


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, [content])
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); free space and give the same command again, or "
            "choose another --out"
        ) from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors and the metadata of a safetensors file.

    Raises:
        RunError: it cannot be read.
    """
    try:
        with safe_open(path, "pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}, stored.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged or not a safetensors file ({error})") from None
