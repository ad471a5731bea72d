"""What a run leaves on disk, and CoOp's own checkpoints read safely."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from support.disk import fill_disk
from support.tiny import tiny_backbone
from torch import Tensor

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
    save_tensors,
)
from sar_train.training.prompted import restore

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


def test_a_state_comes_back_to_the_bit(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(5).get_state()
    save_state(tmp_path, {"a": CONTEXT, "rng": rng}, META | {"epoch": 3, "history": [{"loss": 0.1}]})
    tensors, meta = load_state(tmp_path)
    assert torch.equal(tensors["a"], CONTEXT)
    assert torch.equal(tensors["rng"], rng)
    assert meta == META | {"epoch": 3, "history": [{"loss": 0.1}]}
    assert load_state(tmp_path / "elsewhere") is None


def test_a_state_goes_with_what_a_killed_process_left_of_it(tmp_path: Path) -> None:
    save_state(tmp_path, {"a": CONTEXT}, {})
    (tmp_path / ".state.safetensors.0123abcd").write_bytes(b"half")
    (tmp_path / "other.tmp").write_bytes(b"")
    remove_state(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other.tmp"]
    remove_state(tmp_path / "nowhere")


def test_a_full_disk_names_the_file_and_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_state(tmp_path, {"a": CONTEXT}, META)
    fill_disk(monkeypatch)
    with pytest.raises(RunError, match=r"state.safetensors: .*No space"):
        save_state(tmp_path, {"a": CONTEXT}, META | {"epoch": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["state.safetensors"]
    assert load_state(tmp_path)[1] == META


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


def save_prompts(folder: Path, context: Tensor, **changes: str) -> None:
    """Write the prompts of an older release; its metadata lacks the settings where none are given."""
    metadata = {
        "format": "sar-prompts",
        "schema_version": "1",
        "method": "coop",
        "suffix": ".",
        "backbone": "tiny",
        "pretrained": "",
        "weights_digest": "abc",
        "template": "a photo of a {}.",
        "class_names": '["cat", "dog"]',
        "regularisers": '{"sar": 0.1}',
    }
    save_tensors(folder / PROMPTS, {"context": context}, metadata | changes)


def test_runs_of_the_first_release_are_read(tmp_path: Path) -> None:
    save_prompts(tmp_path, CONTEXT)
    back = load_run(tmp_path)
    assert torch.equal(back.tensors["context"], CONTEXT)
    assert (back.method, back.settings) == ("coop", {"context_init": "", "n_ctx": 4})
    assert back.class_names == ("cat", "dog")


def test_prograd_runs_from_before_there_were_frozen_words_keep_their_prompt(tmp_path: Path) -> None:
    context = 0.1 * torch.randn(16, 32, generator=torch.Generator().manual_seed(0))
    settings = '{"n_ctx": 16, "weight": 1.0, "temperature": 1.0}'
    save_prompts(tmp_path, context, schema_version="2", method="prograd", settings=settings)
    prompted = restore(load_run(tmp_path), tiny_backbone())
    assert torch.equal(prompted.method.prompts(prompted.classes(["fox"])).context, context)


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


def replace_metadata(path: Path, **changes: str | None) -> None:
    """Write a file of a run again with other metadata; None leaves an entry out."""
    with safe_open(path, "pt") as stored:
        metadata = stored.metadata() | changes
    save_tensors(path, load_file(path), {key: value for key, value in metadata.items() if value is not None})


def refused(load: Callable[[Path], object], folder: Path, name: str, words: str) -> str:
    """Return the message of a damaged file: one line that begins with its path and has the words."""
    with pytest.raises(RunError, match=words) as caught:
        load(folder)
    message = str(caught.value)
    assert message.startswith(f"{folder / name}: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": None}, "missing field method$"),
        ({"class_names": None}, "missing field class_names$"),
        ({"settings": "{nope"}, "settings: damaged: not valid JSON"),
        ({"settings": "[]"}, r"field settings: expected Mapping.*got \[\]"),
        ({"class_names": "[1, 2]"}, r"field class_names\[0\]: expected str, got 1"),
        ({"regularisers": '{"sar": NaN}'}, "field regularisers.sar: expected float, got nan"),
    ],
)
def test_damaged_prompts_are_one_line(tmp_path: Path, changes: dict[str, str | None], words: str) -> None:
    save_run(tmp_path, dataclasses.replace(run(), tensors={"network.0.weight": torch.eye(3)}))
    replace_metadata(tmp_path / PROMPTS, **changes)
    refused(load_run, tmp_path, PROMPTS, words)


def test_numbers_that_are_not_finite_are_damage(tmp_path: Path) -> None:
    save_run(tmp_path, dataclasses.replace(run(), tensors={"context": CONTEXT / 0}))
    refused(load_run, tmp_path, PROMPTS, "not finite")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"seed": 1, ', "damaged: not valid JSON"),
        ("[]", "expected a JSON object, got list"),
    ],
)
def test_a_damaged_record_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    save_run(tmp_path, run())
    (tmp_path / RECORD).write_text(text)
    refused(load_run, tmp_path, RECORD, words)


@pytest.mark.parametrize(
    ("meta", "words"),
    [
        (None, "damaged: not valid JSON"),
        ("[]", "expected a JSON object, got list"),
    ],
)
def test_a_damaged_state_is_one_line(tmp_path: Path, meta: str | None, words: str) -> None:
    save_state(tmp_path, {"a": CONTEXT}, META)
    replace_metadata(tmp_path / STATE, meta=meta)
    assert refused(load_state, tmp_path, STATE, words).endswith("; start anew with --no-resume")


def test_what_is_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="run folder"):
        load_run(tmp_path)
    save_state(tmp_path, {"a": CONTEXT}, {})
    with pytest.raises(RunError, match="not finished"):
        load_run(tmp_path)
    (tmp_path / PROMPTS).write_bytes(b"not safetensors")
    with pytest.raises(RunError, match="damaged"):
        load_run(tmp_path)
    (tmp_path / "some.pt").write_bytes(b"text")
    with pytest.raises(RunError, match="safely"):
        load_run(tmp_path / "some.pt")
