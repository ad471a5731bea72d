"""The files of a run: prompts without the backbone, the class model, the record, and the state of an unfinished run.

All but the record are safetensors files with a format, one JSON object of metadata and a digest of both and of the
tensors; the record's digest is in the metadata of the prompts.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sar_infer.class_model.model import ClassModel
from sar_infer.storage.files import write_atomically
from sar_train.errors import RunError

PROMPTS = "prompts.safetensors"
STATE = "state.safetensors"
HALVES = "halves.safetensors"
"""Rows under the prompts of the two halves, so that a resumed run does not train them again."""
RECORD = "record.json"
FITTED_CLASS_MODEL = "fitted_statistics.safetensors"
PromptName = Literal["learned", "handcrafted"]
HANDCRAFTED: PromptName = "handcrafted"
"""Method of a run or bundle without training, and its prompt."""


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


def save_run(folder: Path, run: Run) -> None:
    """Write ``prompts.safetensors``, then ``record.json``; a folder with a record is a finished run.

    Raises:
        RunError: one of them cannot be written.
    """
    record = (json.dumps(run.record, indent=2, ensure_ascii=False) + "\n").encode()
    meta = {f.name: getattr(run, f.name) for f in dataclasses.fields(run) if f.name not in ("tensors", "record")}
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in run.tensors.items()}
    _save(folder / PROMPTS, tensors, meta | {"record": hashlib.sha256(record).hexdigest()})
    _write(folder / RECORD, record)


def load_run(path: Path) -> Run:
    """Read a run folder, or a checkpoint of KaiyangZhou/CoOp (``model.pth.tar…``, or the folder that holds it).

    Raises:
        RunError: there is no finished run, or the file cannot be used.
    """
    prompts, record = path / PROMPTS, path / RECORD
    if not prompts.is_file() or not record.is_file():
        checkpoints = sorted(path.glob("**/model*.pth.tar*")) if path.is_dir() else [path] if path.is_file() else []
        if not checkpoints:
            names = {file.name for file in path.iterdir()} if path.is_dir() else {""}
            if not names or names & {STATE, HALVES, PROMPTS}:
                raise RunError(f"{path}: the run is not finished; the same sar-train command continues it")
            raise RunError(f"{path}: expected a run folder with {PROMPTS} and {RECORD}, or a CoOp checkpoint")
        return load_coop(checkpoints[-1])
    tensors, meta = _load(prompts)
    content = record.read_bytes()
    if hashlib.sha256(content).hexdigest() != meta.pop("record"):
        raise RunError(f"{record}: damaged: it is not the record of {prompts}; restore it, or train again")
    return Run(tensors, record=json.loads(content), **meta | {"class_names": tuple(meta["class_names"])})


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
    return Run({"context": context.float()}, "coop", {"context_init": "", "n_ctx": len(context)})


@dataclass(frozen=True)
class FittedClassModel:
    """A class model with the prompt that it belongs to.

    Attributes:
        model: the class model.
        means: (C, D) mean features of the trained classes.
        counts: (C,) numbers of their photos.
        prompt: the prompt of the bundle.
        template: the hand-crafted one.
        record: the entry of ``record.json``, plain JSON values.
    """

    model: ClassModel
    means: npt.NDArray[np.float32]
    counts: npt.NDArray[np.int64]
    prompt: PromptName
    template: str
    record: dict[str, Any]


def save_class_model(folder: Path, fitted: FittedClassModel) -> None:
    """Write the class model into a run folder, whole or not at all.

    Raises:
        RunError: it cannot be written.
    """
    arrays = fitted.model.tensors() | {"means": fitted.means, "counts": fitted.counts}
    tensors = {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
    meta = {"prompt": fitted.prompt, "template": fitted.template, "record": fitted.record}
    _save(folder / FITTED_CLASS_MODEL, tensors, meta)


def load_class_model(folder: Path) -> FittedClassModel | None:
    """Read the class model of a run folder; None if it has none.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / FITTED_CLASS_MODEL
    if not path.is_file():
        return None
    tensors, meta = _load(path, "train again, or delete the file to go without a class model")
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    prompt: PromptName = "learned" if meta["prompt"] == "learned" else "handcrafted"
    return FittedClassModel(
        ClassModel.from_tensors(arrays), arrays["means"], arrays["counts"], prompt, meta["template"], meta["record"]
    )


def remove_class_model(folder: Path) -> None:
    """Remove the class model of a run folder, if it has one."""
    (folder / FITTED_CLASS_MODEL).unlink(missing_ok=True)


def save_state(folder: Path, tensors: dict[str, Tensor], meta: Mapping[str, Any], name: str = STATE) -> None:
    """Write a state of an unfinished run; ``meta`` holds config, and of `STATE` epoch and history.

    Raises:
        RunError: it cannot be written; the state before it stays.
    """
    _save(folder / name, tensors, meta)


def load_state(folder: Path, name: str = STATE) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read a state of an unfinished run; return None where there is none.

    Raises:
        RunError: the file is damaged.
    """
    path = folder / name
    return _load(path, "start anew with --no-resume") if path.is_file() else None


def remove_state(folder: Path) -> None:
    """Delete the states of a run, and temporary files that a killed process left."""
    for name in (STATE, HALVES):
        for path in (folder / name, *folder.glob(f".{name}.*")):
            path.unlink(missing_ok=True)


def _save(path: Path, tensors: dict[str, Tensor], meta: Mapping[str, Any]) -> None:
    text = json.dumps(meta, ensure_ascii=False)
    metadata = {"format": _format(path), "meta": text, "digest": _digest(tensors, text)}
    _write(path, save(tensors, metadata))  # save_file would make it unreadable for others


def _load(path: Path, advice: str = "train again") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the metadata of a file of a run; raise RunError if it is damaged."""
    try:
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            metadata = stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged or not a safetensors file ({error}); {advice}") from None
    text = metadata.get("meta", "")
    if metadata.get("format") != _format(path) or metadata.get("digest") != _digest(tensors, text):
        raise RunError(f"{path}: damaged: its content does not have its digest; {advice}")
    return tensors, json.loads(text)


def _format(path: Path) -> str:
    return f"sar-{path.stem}-1"


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    sha256 = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        sha256.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        sha256.update(tensor.contiguous().reshape(-1).view(torch.uint8).cpu().numpy().data)
    return sha256.hexdigest()


def _write(path: Path, content: bytes) -> None:
    try:
        write_atomically(path, [content])
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written ({error.strerror or error}); free space and give the same command again, or "
            "choose another --out"
        ) from None
