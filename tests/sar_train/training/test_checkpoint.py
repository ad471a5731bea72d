"""What a run leaves on disk, and CoOp's own checkpoints read safely."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sar_train.errors import RunError
from sar_train.training.checkpoint import (
    PROMPTS,
    RECORD,
    STATE,
    Run,
    load_coop,
    load_run,
    load_state,
    remove_state,
    save_run,
    save_state,
)

META = {"config": {}, "epoch": 1, "history": [], "seconds": 0.0}
CONTEXT = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))


def run() -> Run:
    tensors = {"context": CONTEXT, "network.0.weight": torch.eye(3)}
    settings = {"context_init": "", "n_ctx": 4, "depth": 9, "class_specific": False}
    return Run(
        tensors, "coop", settings, "tiny", None, "abc", "a {}, a pet.", ("cat", "Œuf"), {"sar": 1.5}, {"seed": 1}
    )


def test_a_run_comes_back_as_it_was(tmp_path: Path) -> None:
    save_run(tmp_path, run())
    back = load_run(tmp_path)
    assert back.tensors.keys() == run().tensors.keys()
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in run().tensors.items())
    assert dataclasses.replace(back, tensors={}) == dataclasses.replace(run(), tensors={})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.safetensors", "record.json"]


def test_a_state_goes_with_what_a_killed_process_left_of_it(tmp_path: Path) -> None:
    save_state(tmp_path, {"a": CONTEXT}, {})
    (tmp_path / ".state.safetensors.0123abcd").write_bytes(b"half")
    (tmp_path / "other.tmp").write_bytes(b"")
    remove_state(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.tmp"]
    remove_state(tmp_path / "nowhere")


def dassl(path: Path, **extra: object) -> Path:
    """A file as Dassl's ``save_checkpoint`` writes it."""
    state = {"ctx": CONTEXT.half(), "token_prefix": torch.zeros(3, 1, 8), "token_suffix": torch.zeros(3, 72, 8)}
    torch.save(
        {"state_dict": state, "epoch": 200, "optimizer": {"lr": 0.002}, "val_result": np.float64(1.5)} | extra, path
    )
    return path


def test_a_coop_checkpoint_is_read_as_a_run(tmp_path: Path) -> None:
    folder = tmp_path / "prompt_learner"
    folder.mkdir()
    dassl(folder / "model.pth.tar-200")
    for path in (folder / "model.pth.tar-200", tmp_path):
        back = load_run(path)
        assert torch.equal(back.tensors["context"], CONTEXT.half().float())
        assert (back.settings, back.method, back.class_names) == ({"context_init": "", "n_ctx": 4}, "coop", ())


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("harm",)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = dassl(tmp_path / "model.pth.tar", scheduler=Harmful())
    with pytest.raises(RunError, match="safely"):
        load_coop(path)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {"ctx": torch.zeros(5, 4, 8)}}, "class-specific"),
        ({"state_dict": {"weight": CONTEXT}}, "'ctx'"),
        ([1], "'ctx'"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "model.pth.tar"
    torch.save(content, path)
    with pytest.raises(RunError, match=words):
        load_run(path)


def flipped(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x41
    path.write_bytes(content)


def test_any_changed_byte_of_a_state_or_of_prompts_is_one_line(tmp_path: Path) -> None:
    """In the name of a key of the metadata, in its text, in a tensor: nothing goes on with other numbers."""
    for load, name in ((load_state, STATE), (load_run, PROMPTS)):
        save_state(tmp_path, {"a": CONTEXT, "rng": torch.Generator().get_state()}, META)
        save_run(tmp_path, run())
        whole = (tmp_path / name).read_bytes()
        for at in (*range(0, len(whole), 97), whole.find(b'meta"'), len(whole) - 1):
            (tmp_path / name).write_bytes(whole)
            flipped(tmp_path / name, at)
            with pytest.raises(RunError, match="damaged") as caught:
                load(tmp_path)
            assert str(caught.value).startswith(f"{tmp_path / name}: ")
            assert "\n" not in str(caught.value)
            assert name == PROMPTS or str(caught.value).endswith("; start anew with --no-resume")
        (tmp_path / name).write_bytes(whole)


@pytest.mark.parametrize("text", ["{}", '{"seed": 1, ', "[]", '{"seed": 2}'])
def test_a_record_that_is_not_of_the_prompts_is_one_line(tmp_path: Path, text: str) -> None:
    save_run(tmp_path, run())
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(RunError, match=f"^{tmp_path / RECORD}: damaged: .*train again$"):
        load_run(tmp_path)


def test_what_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not finished"):
        load_run(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match="run folder"):
        load_run(tmp_path)
    save_state(tmp_path, {"a": CONTEXT}, {})
    with pytest.raises(RunError, match="not finished"):
        load_run(tmp_path)
    save_run(tmp_path, run())
    (tmp_path / RECORD).unlink()
    with pytest.raises(RunError, match="not finished"):
        load_run(tmp_path)
    (tmp_path / "some.pt").write_bytes(b"text")
    with pytest.raises(RunError, match="safely"):
        load_run(tmp_path / "some.pt")
