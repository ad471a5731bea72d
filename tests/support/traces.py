"""Graphs of equal modules: translating one takes seconds even for a tiny backbone, so a state of the code does it once.

Modules are equal here if they differ in nothing but the values of their tensors. These are exchanged in the graph,
where the exporter names a parameter or buffer as the module does, and any other tensor is known by its value. A graph
with a fraction that is neither (a product of tensors, say) serves only modules that are equal in all values.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
from collections.abc import Iterable
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
import torch
from open_clip import SimpleTokenizer
from torch import Tensor, nn

from sar_train.clip.prompts import Prompts
from sar_train.export import graph
from sar_train.export.graph import translate
from sar_train.export.image_encoder import VisionTransformerEncoder
from sar_train.export.name_encoder import PromptLayout
from sar_train.methods.base import PromptMethod

ROOT = Path(__file__).parents[2]
PACKAGES = ("clip", "export", "methods", "training")
"""Packages of ``sar_train`` whose code is in a graph."""
MOST_PARAMETERS = 20_000_000
"""Larger modules than sar-mini's are those of real architectures, which are translated once anyway."""
SOURCES = "sources"
"""Key of a kept graph's metadata: the places of the tensors that its initializers are."""


@pytest.fixture(autouse=True, scope="session")
def traced_once() -> Any:
    """Give exports the graph of an equal module where one was made by this code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graph, "translate", partial(remembered, kept_graphs()))
        yield


@cache
def kept_graphs() -> Path:
    """Return the folder of the graphs that this code has made with these packages; those of other code are removed."""
    sha256 = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(path for package in PACKAGES for path in (ROOT / "sar_train" / package).rglob("*.py")):
        sha256.update(path.relative_to(ROOT).as_posix().encode() + path.read_bytes())
    for package in ("onnx", "onnx_ir", "onnxscript", "open_clip_torch", "timm", "torch"):
        sha256.update(f"{package} {version(package)}".encode())
    folder = ROOT / "build" / "traces" / sha256.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.parent.iterdir():
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
    return folder


def remembered(folder: Path, module: nn.Module, example: Tensor, dynamic: Iterable[int]) -> onnx_ir.Model:
    """Return what `translate` returns, from the folder if it is there."""
    if sum(parameter.numel() for parameter in module.parameters()) > MOST_PARAMETERS:
        return translate(module, example, dynamic)
    content = Content(module)
    content.dump((module, example, sorted(dynamic)))
    for path in (folder / f"{digest}.onnx" for digest in (content.structure, content.exact)):
        if path.is_file():
            return filled(onnx_ir.load(path), content)
    model = translate(module, example, dynamic)
    found = sources(model, content)
    path = folder / f"{content.exact if found is None else content.structure}.onnx"
    model.metadata_props[SOURCES] = json.dumps(found or {})
    new = path.with_suffix(f".{os.getpid()}.onnx")
    onnx_ir.save(model, new)
    new.rename(path)
    del model.metadata_props[SOURCES]
    return model


def sources(model: onnx_ir.Model, content: Content) -> dict[str, int] | None:
    """Return the places of the tensors that the initializers are; None where one may be any or none of them."""
    found: dict[str, int] = {}
    others = {*range(len(content.tensors))} - {content.places[key(tensor)] for tensor in content.named.values()}
    for name, value in model.graph.initializers.items():
        if name in content.named:
            found[name] = content.places[key(content.named[name])]
        elif value.dtype is not None and value.dtype.is_floating_point():
            constant = value.const_value.numpy() if value.const_value is not None else None
            same = [n for n in others if np.array_equal(content.tensors[n].detach().numpy(), constant)]
            if len(same) != 1:
                return None
            found[name] = same[0]
    return found


def filled(model: onnx_ir.Model, content: Content) -> onnx_ir.Model:
    """Put a module's tensors into the graph of an equal one."""
    for name, place in json.loads(model.metadata_props.pop(SOURCES)).items():
        values = content.tensors[place].detach().contiguous().numpy()
        model.graph.initializers[name].const_value = onnx_ir.tensor(values, name=name)
    return model


def key(tensor: Tensor) -> tuple[Any, ...]:
    """Return the same for tensors that are the same memory."""
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype


class Content(pickle.Pickler):
    """A module's structure and tensors, after `dump`.

    Attributes:
        named: parameters and buffers by every name that they have.
        places: of each tensor in `tensors`, by its `key`.
        tensors: those that were met, each once.
    """

    def __init__(self, module: nn.Module) -> None:
        self.stream, self.values = io.BytesIO(), hashlib.sha256()
        super().__init__(self.stream)
        self.fast = True  # whether two tuples are the same object is no part of the structure, and tracing changes it
        self.named = dict(module.named_parameters(remove_duplicate=False))
        self.named |= dict(module.named_buffers(remove_duplicate=False))
        self.places: dict[tuple[Any, ...], int] = {}
        self.tensors: list[Tensor] = []

    def persistent_id(self, found: Any) -> Any:
        """Describe a tensor by its shape and place, and by its value too if it holds no fractions."""
        if isinstance(found, SimpleTokenizer):  # remembers words, so its content changes
            return type(found).__name__
        if not isinstance(found, Tensor):
            return None
        if key(found) not in self.places:
            self.places[key(found)] = len(self.tensors)
            self.tensors.append(found)
        value = found.detach().contiguous().numpy().tobytes()
        self.values.update(value)
        fractions = found.dtype.is_floating_point
        return self.places[key(found)], *key(found)[1:3], str(found.dtype), None if fractions else value

    def reducer_override(self, found: Any) -> Any:
        """Leave out what no graph depends on: the other tower's prompts, and what the module has as tensors.

        These are the template, the names of trained classes, and what all classes share of the text's prompts, but for
        how many positions come before and after a name.
        """
        if isinstance(found, PromptLayout):
            prompts = found.prompts
            if prompts.first_class_specific_layer is None:
                prompts = Prompts(torch.empty(prompts.n_context, 0), suffix_context=prompts.suffix_context)
            return PromptLayout, (prompts, found.teacher, None, found.longer)
        if isinstance(found, VisionTransformerEncoder):
            make, arguments, state, *rest = found.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
            prompts = Prompts(torch.empty(0, 0), image=found.prompts.image)
            return make, arguments, state | {"prompts": prompts}, *rest
        if isinstance(found, PromptMethod):
            make, arguments, state, *rest = found.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
            return make, arguments, state | {"class_names": ()}, *rest
        return NotImplemented

    @property
    def structure(self) -> str:
        """Return the digest without the values."""
        return hashlib.sha256(self.stream.getvalue()).hexdigest()

    @property
    def exact(self) -> str:
        """Return the digest with the values."""
        return f"{self.structure[:32]}-{self.values.hexdigest()[:32]}"
