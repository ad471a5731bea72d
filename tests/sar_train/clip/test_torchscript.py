"""Weights of TorchScript archives: the same as torch reads, and none of an archive's code is run."""

from __future__ import annotations

import importlib.util
import pickle
import random
import re
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from support.tiny import RESNET, VIT, register, register_quick
from torch import nn

from sar_train.clip import backbone, torchscript
from sar_train.errors import BackboneError

ATTACK = """
import torch

class Attack(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(2))
        self.training = False

    @torch.jit.export
    def __getstate__(self):
        return (self.w, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.w = state[0]
        self.training = state[1]
        torch.save(state[0], {target!r})

    def forward(self, x: torch.Tensor):
        return x + self.w
"""
SOURCE = 'class M(Module):\n  __parameters__ = ["w", ]\n  __buffers__ = []\n  w : Tensor\n'
OTHERS = SOURCE.replace("class M", "class Own") + "  def __setstate__(self: __torch__.Own,\n"
OLD = 'class Old(Module):\n  __parameters__ = ["w", ]\n  w : Tensor\n'  # as the first releases of TorchScript wrote it


class Sample(nn.Module):
    """A module with all that archives may hold beside plain layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.tied, self.norm = nn.Linear(3, 2), nn.Linear(3, 2), nn.BatchNorm1d(2)
        self.tied.weight = self.first.weight
        self.part = nn.Parameter(torch.arange(8.0)[2:4])
        self.named = nn.Sequential()
        self.named.add_module("-1", nn.Linear(2, 2, bias=False))  # as in OpenAI's residual networks
        self.register_buffer("turned", torch.arange(6.0).reshape(2, 3).t(), persistent=False)
        self.register_buffer("whole", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(0, 4))
        self.register_buffer("small", torch.ones(3).bfloat16())
        self.register_buffer("mask", torch.tensor([True, False]))
        self.plain = torch.ones(2)  # neither parameter nor buffer
        self.numbers, self.table, self.word = [1, 2], {"a": 1.5}, "word"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.named(self.norm(self.first(x)) + self.tied(x) + self.part) * self.plain


def tiny_clip(name: str, *, half: bool) -> nn.Module:
    register()
    model: nn.Module = open_clip.create_model(name, precision="fp16" if half else "fp32")
    return model.eval()


def traced(model: nn.Module, *inputs: torch.Tensor) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return torch.jit.trace(model, inputs, check_trace=False)


def clip_inputs(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    side, length = model.visual.image_size, model.context_length
    pixels = torch.zeros(1, 3, *(side if isinstance(side, tuple) else (side, side)))
    return pixels.to(model.visual.conv1.weight.dtype), torch.zeros(1, length, dtype=torch.long)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.jit.script(Sample().eval()),
        lambda: traced(Sample().eval(), torch.zeros(1, 3)),
        lambda: torch.jit.script(tiny_clip(VIT, half=False)),
        lambda: traced(model := tiny_clip(VIT, half=False), *clip_inputs(model)),
        lambda: traced(model := tiny_clip(VIT, half=True), *clip_inputs(model)),
        lambda: traced(model := tiny_clip(RESNET, half=False), *clip_inputs(model)),
    ],
    ids=["scripted", "traced", "clip scripted", "clip traced", "clip traced in half precision", "resnet traced"],
)
def test_tensors_are_those_that_torch_reads(make: Callable[[], torch.jit.ScriptModule], tmp_path: Path) -> None:
    make().save(tmp_path / "archive.pt")
    assert torchscript.is_torchscript(tmp_path / "archive.pt")
    found = torchscript.load_tensors(tmp_path / "archive.pt")
    expected = torch.jit.load(tmp_path / "archive.pt").state_dict()
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape, found[name].stride()) == (
            tensor.dtype,
            tensor.shape,
            tensor.stride(),
        )
        assert torch.equal(found[name], tensor), name


def test_what_shares_a_storage_shares_it_afterwards(tmp_path: Path) -> None:
    torch.jit.script(Sample()).save(tmp_path / "archive.pt")
    found = torchscript.load_tensors(tmp_path / "archive.pt")
    assert found["tied.weight"].data_ptr() == found["first.weight"].data_ptr()


@pytest.fixture
def attack(tmp_path: Path) -> tuple[Path, Path]:
    """An archive whose ``__setstate__`` writes a file, and that file."""
    target = tmp_path / "written"
    (tmp_path / "attack.py").write_text(ATTACK.format(target=str(target)))
    spec = importlib.util.spec_from_file_location("attack", tmp_path / "attack.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.jit.script(module.Attack()).save(tmp_path / "attack.pt")
    return tmp_path / "attack.pt", target


def test_the_code_of_an_archive_is_not_run(attack: tuple[Path, Path], tmp_path: Path) -> None:
    archive, target = attack
    with pytest.raises(BackboneError, match="__torch__.attack.Attack"):
        torchscript.load_tensors(archive)
    for name in (register_quick(tmp_path), VIT, "sar-mini", "sar-mini-vit"):
        with pytest.raises(BackboneError):
            backbone.load(name, str(archive))
    assert not target.exists()
    torch.jit.load(archive)
    assert target.exists()  # so this archive would have


# --------------------------------------------------------------------------------------------------- made by hand
def literal(value: object) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def tensor(
    size: object = (2,),
    stride: object = (1,),
    offset: object = 0,
    key: object = "0",
    kind: str = "torch\nFloatStorage",
    rest: bytes = b"\x88ccollections\nOrderedDict\n)R",
) -> bytes:
    """The instructions that make a tensor."""
    storage = b"(" + literal("storage") + f"c{kind}\n".encode() + literal(key) + literal("cpu") + literal(2) + b"tQ"
    shape = literal(offset) + literal(size) + literal(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shape + rest + b"tR"


def module(*values: bytes, kind: str = "M") -> bytes:
    """The instructions that make a module with the attribute ``w``."""
    items = b"".join(literal("w") + value for value in values)
    return f"c__torch__\n{kind}\n".encode() + b")\x81}(" + items + b"ub"


def write(path: Path, content: bytes, *, compress: bool = False, **parts: bytes) -> Path:
    """Write an archive of one storage with the given pickle; ``parts`` go in beside what is there."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("a/code/__torch__.py", SOURCE + OLD + OTHERS)
        method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
        archive.writestr("a/data/0", torch.tensor([1.5, 2.5]).numpy().tobytes(), method)
        for name, part in parts.items():
            archive.writestr(f"a/{name}", part)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        torchscript.load_tensors(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: not read as a TorchScript archive: ")
    assert text.isprintable() and len(text) < 700
    return text


@pytest.mark.parametrize("kind", ["M", "Old"])
def test_an_archive_made_by_hand_is_read(tmp_path: Path, kind: str) -> None:
    found = torchscript.load_tensors(write(tmp_path / "a.pt", module(tensor(), kind=kind)))
    assert found.keys() == {"w"}
    assert found["w"].tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (module(tensor((3,))), "beyond the 2 elements"),
        (module(tensor((2,), (2,))), "beyond the 2 elements"),
        (module(tensor((2,), (1,), 1)), "beyond the 2 elements"),
        (module(tensor((2**61,), (0,))), "beyond the 2 elements"),
        (module(tensor((1000, 1000), (0, 0))), "beyond the 2 elements"),
        (module(tensor(kind="torch\nDoubleStorage")), "beyond the 1 elements"),
        (module(tensor((2,), (-1,), 1)), "is no shape"),
        (module(tensor((-2,))), "is no shape"),
        (module(tensor((2,), (1,), -1)), "is no shape"),
        (module(tensor((0, 2**70), (1, 1))), "is no shape"),
        (module(tensor((1.5,))), "is no shape"),
        (module(tensor((2, 1))), "no plain one"),
        (module(tensor((1,) * 17, (1,) * 17)), "no plain one"),
        (module(tensor(rest=b"\x88" + literal({"a": 1}))), "no plain one"),
        (module(tensor(rest=b"\x88}" + literal({"conj": True}))), "no plain one"),
        (module(tensor(kind="torch\nQInt8Storage")), "a kind that is not read here: torch.QInt8Storage"),
        (module(tensor(kind="os\nsystem")), "a kind that is not read here: os.system"),
        (module(tensor(key="../../etc/passwd")), "it has no data/../../etc/passwd"),
        (module(tensor(key="1")), "it has no data/1"),
        (module(tensor(key=0)), "a kind that is not read here"),
        (b"cos\nsystem\n" + literal(("true",)) + b"R", "it calls os.system"),
        (b"cbuiltins\neval\n" + literal(("1",)) + b"R", "it calls builtins.eval"),
        (b"c__torch__\nM\n)R", "it calls __torch__.M"),
        (b"cbuiltins\nobject\n)\x81", "makes an object of builtins.object"),
        (b"c__torch__\nM\n" + literal((1,)) + b"\x81", "makes an object of __torch__.M"),
        (module(tensor(), kind="Other"), "__torch__.Other is no plain module"),
        (module(tensor(), kind="Own"), "__torch__.Own is no plain module"),
        (module(tensor(), kind="\x1b[31m"), r"__torch__.\x1b[31m is no plain module"),
        (b"c__torch__.x\nM\n)\x81}b", "it has no code/__torch__/x.py"),
        (b"c__torch__\nM\n)\x81" + literal((1,)) + b"b", "restores itself by code of the archive"),
        (b"c__torch__\nM\n)\x81" + literal({"a.b": 1}) + b"b", "not as torch.jit.save writes it"),
        (b"c__torch__\nM\n}b", "not as torch.jit.save writes it"),
        (literal("os") + literal("system") + b"\x93", "not as torch.jit.save writes it"),  # STACK_GLOBAL
        (b"(S'true'\nios\nsystem\n", "not as torch.jit.save writes it"),  # INST
        (b"}" + literal((1,)) + b"Ns", "not as torch.jit.save writes it"),
        (b"", "not as torch.jit.save writes it"),
        (literal([1]), "does not hold a module"),
        (b"(" * 500_000, "more than 400,000 instructions"),
        (literal("x" * 5 * 2**20), "more than 4,194,304 bytes"),
        (b"c__torch__\nM\n)\x81q\x63}(" + literal("a") + b"h\x63ub", "modules within themselves"),
        (
            module() + b"".join(
                b"q\x00c__torch__\nM\n)\x81}(" + literal("a")[:-2] + b"h\x00" + literal("b")[:-2] + b"h\x00ub"
                for _ in range(40)
            ),
            "more than 100,000 tensors or modules",
        ),
    ],
)  # fmt: skip
def test_hostile_pickles_are_refused_in_one_line(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refusal(write(tmp_path / "a.pt", content))


def test_hostile_zip_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path, good = tmp_path / "a.pt", module(tensor())
    assert "data/0 is compressed" in refusal(write(path, good, compress=True))
    assert "another byte order" in refusal(write(path, good, byteorder=b"middle"))
    assert "found 0" in refusal(write(path, good).rename(tmp_path / "b.pt") and _renamed(tmp_path / "b.pt", path))
    with zipfile.ZipFile(write(path, good), "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("a/data/0", bytes(8))
    assert "the same name" in refusal(path)
    content = write(path, good).read_bytes()
    path.write_bytes(content[: content.index(b"PK\x01\x02") // 2] + content[content.index(b"PK\x01\x02") :])
    assert "damaged" in refusal(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # 100 MB in 100 kB
        archive.writestr("a/data.pkl", b"\x80\x02" + literal("x" * 10**8) + b".")
    assert "more than 4,194,304 bytes" in refusal(path)


def _renamed(source: Path, path: Path) -> Path:
    """The same archive, its pickle under another name."""
    path.write_bytes(source.read_bytes().replace(b"a/data.pkl", b"a/date.pkl"))
    return path


def test_parts_that_overlap_are_refused(tmp_path: Path) -> None:
    """Entries of the table that all show the same bytes, so that a small file has any number of large storages."""
    path = write(tmp_path / "a.pt", module(tensor()), **{f"data/{i}": bytes(8) for i in range(1, 10)})
    size = path.stat().st_size
    content = path.read_bytes()
    where = content.index(b"PK\x01\x02")
    sizes = re.compile(rb"(PK\x01\x02.{16})\x08\0\0\0\x08\0\0\0", re.DOTALL)
    entries = sizes.sub(lambda found: found[1] + b"\xf0\0\0\0" * 2, content[where:])
    path.write_bytes(content[:where] + entries)
    assert path.stat().st_size == size
    assert "larger than the file" in refusal(path)


def test_damaged_pickles_give_tensors_or_one_line(tmp_path: Path) -> None:
    """Changes at random: no other error, and no code."""
    torch.jit.script(Sample()).save(tmp_path / "good.pt")
    with zipfile.ZipFile(tmp_path / "good.pt") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name, path, draw = next(n for n in parts if n.endswith("/data.pkl")), tmp_path / "a.pt", random.Random(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(parts[name])
        for _ in range(draw.choice([1, 1, 3])):
            place = draw.randrange(len(changed))
            if draw.random() < 0.5:
                changed[place] = draw.randrange(256)
            else:
                changed[place : place + draw.randrange(3)] = draw.choices(b"()]}tRbQ\x81\x85KqhaesuN\x88cX", k=3)
        with zipfile.ZipFile(path, "w") as archive:
            for part, content in parts.items():
                archive.writestr(part, bytes(changed) if part == name else content)
        try:
            torchscript.load_tensors(path)
        except BackboneError as error:
            refused += str(error).isprintable()
    assert refused > 200
