"""Weights of a TorchScript archive, read without ``torch.jit.load``, which runs code that the archive holds.

An archive is a zip file. ``NAME/data.pkl`` pickles a module and what is in it, ``NAME/data/KEY`` holds the elements of
one storage, and ``NAME/code/`` holds the source of each class, which begins with the names of its parameters and
buffers. The source is searched for those names and never run; the pickle is interpreted here, by the few instructions
that ``torch.jit.save`` writes and with nothing that calls anything but the functions of ``_CALLS``.

Classes that save and restore themselves (``__getstate__``, ``__setstate__``) are refused: only their own code knows
which weights they have.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sar_train.errors import BackboneError

MOST_TEXT = 4 * 2**20
"""Bytes of the pickle and of all sources together, unpacked; a CLIP of the size of RN50x64 has 0.7 million."""
MOST_INSTRUCTIONS = 400_000
"""Of the pickle; a CLIP of the size of RN50x64 has a seventh of it."""
MOST_NAMES = 100_000
"""Tensors and modules together; a CLIP of the size of RN50x64 has 2,700."""
LONGEST_NAME = 1000
"""Characters of a tensor's name, modules included."""
_MOST_DIMENSIONS = 16
_LARGEST_NUMBER = 2**62
"""Of a shape: torch counts in 64 bits."""
_DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}
_OF_ZIPFILE = (zipfile.BadZipFile, struct.error, zlib.error)
_NAMES = r'\[((?:"[^"\n]+", )*)\]\n'
_MEMBERS = re.compile(rf"(\w+)\(Module\):\n  __parameters__ = {_NAMES}(?:  __buffers__ = {_NAMES})?")


class _Refused(Exception):  # noqa: N818 - never leaves this module
    """The reason why an archive is not read, as the end of a sentence."""


@dataclass(frozen=True)
class _Global:
    """The name of a class or function; what it stands for is never looked up."""

    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype


@dataclass(frozen=True)
class _View:
    """A tensor that has not been read: elements of a storage."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


@dataclass(eq=False)
class _Object:
    """An object of a class of the archive: attributes by name."""

    kind: str
    attributes: dict[Any, Any] = field(default_factory=dict)


def is_torchscript(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive, the form in which OpenAI publishes CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in f"/{name}" for name in archive.namelist())


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read the parameters and buffers of an archive, as ``torch.jit.load(path).state_dict()`` names them.

    Tensors that share elements in the archive share memory. Nothing of the archive is run.

    Raises:
        BackboneError: the archive is damaged, larger unpacked than its file, or holds what is not read here.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = _Archive(archive, path.stat().st_size)
            return {name: parts.tensor(view) for name, view in _named(parts, _unpickled(parts.text("data.pkl")))}
    except _Refused as error:
        reason = str(error)
    except (*_OF_ZIPFILE, OSError, EOFError, OverflowError, RuntimeError, ValueError) as error:
        reason = f"the file is damaged ({_short(str(error))})"
    raise BackboneError(
        f"{path}: not read as a TorchScript archive: {reason}; get the weights as safetensors, or OpenAI's own file"
    )


class _Archive:
    """The parts of an archive; together they take no more memory than its file and ``MOST_TEXT``."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        entries = archive.infolist()
        self._archive = archive
        self._left = MOST_TEXT
        self._entries = {entry.filename: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise _Refused("two of its parts have the same name")
        if sum(entry.compress_size for entry in entries) > size:
            raise _Refused("its parts are larger than the file")
        pickles = [name for name in self._entries if re.fullmatch(r"(?:[^/]+/)?data\.pkl", name)]
        if len(pickles) != 1:
            raise _Refused(f"expected one data.pkl, found {len(pickles)}")
        self._root = pickles[0].removesuffix("data.pkl")
        order = f"{self._root}byteorder"
        if order in self._entries and self.text("byteorder") != sys.byteorder.encode():
            raise _Refused("it was written on a machine of another byte order")
        self._storages: dict[str, bytearray] = {}
        self._sources: dict[str, dict[str, frozenset[str]]] = {}

    def text(self, name: str) -> bytes:
        """Unpack a part that holds no elements of tensors."""
        with self._archive.open(self._entry(name)) as stream:
            content = stream.read(self._left + 1)
        self._left -= len(content)
        if self._left < 0:
            raise _Refused(f"its pickle and sources have more than {MOST_TEXT:,} bytes")
        return content

    def members(self, kind: str) -> frozenset[str]:
        """Return the names of the parameters and buffers of a module's class, from its source."""
        file, _, name = kind.rpartition(".")
        part = f"code/{file.replace('.', '/')}.py"
        if part not in self._sources:
            self._sources[part] = {}
            for source in re.split(r"^class ", self.text(part).decode(errors="replace"), flags=re.MULTILINE):
                found = _MEMBERS.match(source)
                if found and "def __setstate__(" not in source:
                    names = re.findall(r'"([^"]+)"', found[2] + (found[3] or ""))
                    self._sources[part][found[1]] = frozenset(names)
        if name not in self._sources[part]:
            raise _Refused(f"{_short(kind)} is no plain module, with lists of its parameters and buffers")
        return self._sources[part][name]

    def tensor(self, view: _View) -> Tensor:
        """Read a tensor; all that share a storage share its memory."""
        data, dtype = self._storage(view.storage.key), view.storage.dtype
        held = len(data) // dtype.itemsize
        elements = math.prod(view.size)
        last = view.offset + sum((n - 1) * step for n, step in zip(view.size, view.stride, strict=True))
        if elements > held or (elements and last >= held):
            raise _Refused(f"a tensor of shape {view.size} goes beyond the {held} elements that are there")
        if not elements:
            return torch.empty(view.size, dtype=dtype)
        whole = torch.frombuffer(data, dtype=dtype, count=held)
        return whole.as_strided(view.size, view.stride, view.offset)

    def _storage(self, key: str) -> bytearray:
        if key not in self._storages:
            entry = self._entry(f"data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise _Refused(f"{_short(entry.filename)} is compressed, which torch.jit.save never does with weights")
            self._storages[key] = bytearray(self._archive.read(entry))
        return self._storages[key]

    def _entry(self, name: str) -> zipfile.ZipInfo:
        if self._root + name not in self._entries:
            raise _Refused(f"it has no {_short(name)}")
        return self._entries[self._root + name]


def _named(archive: _Archive, root: Any) -> Iterator[tuple[str, _View]]:
    """Yield the names of all parameters and buffers and where they are."""
    waiting, count = [("", root)], 0
    while waiting:
        prefix, module = waiting.pop()
        if not isinstance(module, _Object):
            raise _Refused("it does not hold a module")
        members = archive.members(module.kind)
        for name, value in module.attributes.items():
            count += 1
            if count > MOST_NAMES or len(prefix) + len(name) > LONGEST_NAME:
                raise _Refused(f"it has more than {MOST_NAMES:,} tensors or modules, or modules within themselves")
            if isinstance(value, _View) and name in members:
                yield prefix + name, value
            elif isinstance(value, _Object):
                waiting.append((f"{prefix}{name}.", value))


# ------------------------------------------------------------------------------------------------------------- pickle
def _view(storage: Any, offset: Any, size: Any, stride: Any, _gradient: Any, hooks: Any, bits: Any = None) -> _View:
    """Do what ``torch._utils._rebuild_tensor_v2`` does with plain tensors, but read nothing yet."""
    whole = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= _MOST_DIMENSIONS
    if not isinstance(storage, _Storage) or not whole or hooks or bits:
        raise _Refused("a tensor in it is no plain one")
    if not all(type(number) is int and 0 <= number < _LARGEST_NUMBER for number in (offset, *size, *stride)):
        raise _Refused("the shape of a tensor in it is no shape")
    return _View(storage, offset, size, stride)


def _same(value: Any, _kind: Any = None) -> Any:
    """Return a value that the archive only marks with a type."""
    return value


_CALLS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _view,
    "collections.OrderedDict": lambda: {},
    "torch.jit._pickle.restore_type_tag": _same,
    "torch.jit._pickle.build_intlist": _same,
    "torch.jit._pickle.build_doublelist": _same,
    "torch.jit._pickle.build_boollist": _same,
    "torch.jit._pickle.build_tensorlist": _same,
    "torch.device": _same,
}
"""All that a pickle may call."""


def _unpickled(content: bytes) -> Any:
    """Interpret a pickle; objects become ``_Object``, tensors ``_View``."""
    machine = _Machine()
    try:
        for opcode, argument, _ in islice(pickletools.genops(io.BytesIO(content)), MOST_INSTRUCTIONS):
            if opcode.name == "STOP":
                return machine.stack.pop()
            _INSTRUCTIONS[opcode.name](machine, argument)
    except (AttributeError, LookupError, TypeError, ValueError):
        raise _Refused("its data.pkl is not as torch.jit.save writes it") from None
    raise _Refused(f"its data.pkl has more than {MOST_INSTRUCTIONS:,} instructions")


class _Machine:
    """The stack and the memory of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memory: dict[int, Any] = {}
        self._marked: list[list[Any]] = []

    def mark(self, _: Any) -> None:
        self._marked.append(self.stack)
        self.stack = []

    def since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self._marked.pop()
        return found

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def keep(self, place: int) -> None:
        self.memory[place] = self.stack[-1]

    def recall(self, place: int) -> None:
        self.stack.append(self.memory[place])

    def tuple_of(self, count: int) -> None:
        found = [self.stack.pop() for _ in range(count)]
        self.stack.append(tuple(reversed(found)))

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise TypeError
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        keys, into = items[::2], self.stack[-1]
        if type(into) is not dict or not all(isinstance(key, str | int | float) for key in keys):
            raise TypeError
        into.update(zip(keys, items[1::2], strict=True))

    def load_storage(self, _: Any) -> None:
        kind, dtype, key, _place, _count = self.stack.pop()
        if kind != "storage" or not isinstance(key, str) or dtype.name not in _DTYPES:
            raise _Refused(f"it holds numbers of a kind that is not read here: {_short(dtype.name)}")
        self.stack.append(_Storage(key, _DTYPES[dtype.name]))

    def new(self, _: Any) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        if arguments != () or not kind.name.startswith("__torch__."):
            raise _Refused(f"it makes an object of {_short(kind.name)}")
        self.stack.append(_Object(kind.name))

    def call(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if function.name not in _CALLS:
            raise _Refused(f"it calls {_short(function.name)}")
        self.stack.append(_CALLS[function.name](*arguments))

    def build(self, _: Any) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if type(state) is not dict:
            raise _Refused(f"class {_short(built.kind)} restores itself by code of the archive, which is not run")
        if not all(isinstance(name, str) and name.isprintable() and "." not in name for name in state):
            raise TypeError
        built.attributes = state


_INSTRUCTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "MARK": _Machine.mark,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"), _Machine.push),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.since_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.since_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.since_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.keep),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": lambda machine, name: machine.push(_Global(name.replace(" ", "."))),
    "BINPERSID": _Machine.load_storage,
    "NEWOBJ": _Machine.new,
    "REDUCE": _Machine.call,
    "BUILD": _Machine.build,
}


def _short(text: str) -> str:
    """Return a name from the archive in a form that is fit for a message."""
    return ascii(text if len(text) < 80 else f"{text[:80]}…")[1:-1]
