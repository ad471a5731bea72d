"""What every registered method must do, with and without SAR; a new file in ``methods/`` is picked up by itself."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file
from support.exported import export_run
from support.problems import (
    BASE,
    NOVEL,
    TEMPLATE,
    embed,
    equal,
    generated_photos,
    interrupted,
    problem_for,
    prompted,
    regularisation,
    schedule,
    started,
    train,
)
from support.tiny import VIT, tiny_backbone
from torch import Tensor

import sar_train.methods
from sar_infer.classifier import Classifier
from sar_train.clip.backbone import RANDOM
from sar_train.experiment.job import Experiment
from sar_train.experiment.plan import ELEVEN, PROTOCOLS, read_plan
from sar_train.methods.base import PromptMethod, describe_methods, methods
from sar_train.training.checkpoint import PROMPTS, Run, load_run, save_run
from sar_train.training.prompted import PromptedCLIP, restore
from sar_train.training.state import State

ROOT = Path(__file__).parents[3]
PIXELS = generated_photos([0, 1, 2, 3], 7)
every_method = pytest.mark.parametrize("name", methods.entries)
both = pytest.mark.parametrize("with_sar", [False, True], ids=["plain", "sar"])


@pytest.fixture(autouse=True, scope="module")
def untouched() -> Iterator[None]:
    """The backbone is the same afterwards, to the bit."""
    model = tiny_backbone().model
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    yield
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())


def trained_anew(name: str, *, with_sar: bool) -> State:
    plan = schedule(name, epochs=6)
    return train(started(name, plan), name, plan, regularisation(weight=0.5) if with_sar else None)


@cache
def trained(name: str, *, with_sar: bool) -> State:
    return trained_anew(name, with_sar=with_sar)


def run_of(method: PromptMethod, name: str) -> Run:
    return Run(
        tensors=method.state_dict(),
        method=name,
        settings=dataclasses.asdict(type(method).Config()),
        backbone_name=VIT,
        pretrained=RANDOM,
        weights_digest=tiny_backbone().weights_digest,
        template=TEMPLATE,
        class_names=BASE,
        regularisers={"sar": 0.5},
        record={"metrics": {}},
    )


@every_method
@both
def test_the_loss_falls_and_only_the_method_learns(name: str, *, with_sar: bool) -> None:
    state = trained(name, with_sar=with_sar)
    first, *_, last = state.history
    terms = first.keys() - {"epoch", "learning_rate", "regulariser", *methods.get(name).reference_terms}
    assert sum(last[term] for term in terms) < sum(first[term] for term in terms)
    assert last["cross_entropy"] < first["cross_entropy"]
    assert ("regulariser" in first) == with_sar
    assert all(p.grad is None and not p.requires_grad for p in tiny_backbone().model.parameters())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in state.method.parameters())
    assert equal(trained_anew(name, with_sar=with_sar).method, state.method), "the same seed gives the same numbers"


@every_method
@both
@pytest.mark.parametrize("names", [BASE, ("never seen",), ("Œuvre d'été", "sea_or lake", "x", "x")], ids=len)
def test_any_list_of_names_gets_unit_rows(name: str, names: tuple[str, ...], *, with_sar: bool) -> None:
    ready = prompted(trained(name, with_sar=with_sar).method)
    rows = ready.embed(names)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(names)))
    assert ready.logits(problem_for(name).features[:2, 0], names).shape == (2, len(names))
    torch.testing.assert_close(ready.embed(names[::-1]).flip(0), rows, atol=1e-6, rtol=0)


@every_method
@both
def test_a_run_holds_prompts_only_and_comes_back_equal(name: str, tmp_path: Path, *, with_sar: bool) -> None:
    method = trained(name, with_sar=with_sar).method
    save_run(tmp_path, run_of(method, name))
    stored, backbone = load_file(tmp_path / PROMPTS), tiny_backbone()
    model = backbone.model.state_dict().values()
    assert 0 < sum(t.numel() for t in stored.values()) < 0.02 * sum(t.numel() for t in model)
    assert not [key for key, t in stored.items() for b in model if t.shape == b.shape and torch.equal(t, b)]
    assert (tmp_path / PROMPTS).stat().st_size < 100_000
    back, ours = restore(load_run(tmp_path), backbone), prompted(method)
    names = (*BASE, *NOVEL)
    assert torch.equal(back.embed(names), ours.embed(names))
    assert torch.equal(back.encode_images(PIXELS), ours.encode_images(PIXELS))
    images = problem_for(name).features[:3, 0]
    for several in (BASE, NOVEL):
        assert torch.equal(back.logits(images, several), ours.logits(images, several))
    assert not any(parameter.requires_grad for parameter in back.method.parameters())


@every_method
def test_an_interrupted_run_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    whole, resumed = interrupted(tmp_path, name, 2)
    assert equal(resumed.method, whole.method)
    assert resumed.history == whole.history


@every_method
def test_images_are_prompted_where_the_method_says_so(name: str) -> None:
    method, backbone = trained(name, with_sar=False).method, tiny_backbone()
    same = torch.allclose(prompted(method).encode_images(PIXELS), backbone.encode_images(PIXELS), atol=1e-5)
    assert same == ("image" not in method.towers)
    entry = next(entry for entry in describe_methods() if entry["name"] == name)
    assert entry["features_cached"] == same
    assert entry["prompt_per_image"] == method.per_image


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("cocoop", "reduction", 0),
        ("coop", "n_ctx", 0),
        ("dept", "mix", 1.1),
        ("dept", "head_rate", 0),
        ("dept", "feature_length", 0),
        ("kgcoop", "n_ctx", 65),
        ("kgcoop", "weight", -1.0),
        ("maple", "depth", 13),
        ("prograd", "weight", -1),
        ("prograd", "temperature", 0),
        ("promptsrc", "depth_text", 0),
        ("promptsrc", "depth_image", 13),
        ("promptsrc", "n_ctx_image", 0),
        ("promptsrc", "sigma", 0),
        ("tcp", "block", 12),
        ("tcp", "share", 1.5),
        ("tcp", "reduction", 0),
    ],
)
def test_settings_are_checked(name: str, setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=setting):
        methods.get(name).Config(**{setting: value})


def pictures() -> tuple[list[npt.NDArray[np.uint8]], Tensor]:
    """Pictures of the backbone's own size, and their pixels as it takes them."""
    images = np.random.default_rng(3).integers(0, 256, (3, 4, 4, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    preprocess = tiny_backbone().preprocess
    pixels = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255).permute(0, 2, 3, 1)
    return list(images), ((pixels - torch.tensor(preprocess.mean)) / torch.tensor(preprocess.std)).permute(0, 3, 1, 2)


def check_export(ready: PromptedCLIP, folder: Path) -> None:
    """``sar_infer`` answers as the prompted backbone does, for trained names, and for others beside them."""
    classifier = Classifier.open(export_run(ready, BASE, folder), device="cpu")
    images, pixels = pictures()
    for names in (BASE, (*BASE, *NOVEL)):
        expected = ready.logits(ready.encode_images(pixels), names, text_only=True, frozen=True)
        for row, result in zip(
            expected, classifier.classify(images, NOVEL if len(names) > 4 else None, only=False, top_k=9), strict=True
        ):
            logits = {prediction.label: prediction.logit for prediction in result.predictions}
            assert logits == {
                label: pytest.approx(float(value), abs=2e-3) for label, value in zip(names, row, strict=True)
            }


@every_method
@pytest.mark.slow
def test_a_bundle_answers_the_same(name: str, tmp_path: Path) -> None:
    check_export(prompted(trained(name, with_sar=True).method), tmp_path / "bundle")


@pytest.fixture
def stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A ninth method: the file of ``examples/new_method.py`` in a folder of the package, and nothing else."""
    file = tmp_path / "methods" / "stay.py"
    file.parent.mkdir()
    file.write_text((ROOT / "examples" / "new_method.py").read_text("utf-8").partition("\nif __name__")[0])
    monkeypatch.setattr(sar_train.methods, "__path__", [*sar_train.methods.__path__, str(file.parent)])
    yield file
    methods._entries.pop("stay", None)
    sys.modules.pop("sar_train.methods.stay", None)


@pytest.mark.slow
def test_a_ninth_method_is_one_short_file(stay: Path, tmp_path: Path) -> None:
    assert len(stay.read_text("utf-8").splitlines()) < 60
    assert "stay" in methods.entries
    assert "stay" in [entry["name"] for entry in describe_methods()]
    plan = schedule("stay", epochs=10)
    state = train(started("stay", plan), "stay", plan, regularisation(weight=0.5))
    first, *_, last = state.history
    assert first.keys() == {"epoch", "learning_rate", "cross_entropy", "stay", "regulariser"}
    assert last["cross_entropy"] < first["cross_entropy"]
    save_run(tmp_path, run_of(state.method, "stay"))
    back = restore(load_run(tmp_path), tiny_backbone())
    assert torch.equal(back.embed(NOVEL), embed(state.method, NOVEL))
    check_export(back, tmp_path / "bundle")


@every_method
@pytest.mark.parametrize("experiment", list(PROTOCOLS))
def test_what_its_paper_sets_for_a_protocol_can_be_set(name: str, experiment: Experiment) -> None:
    shots, datasets = [1, 2, 4, 8, 16, 0], [*ELEVEN, "photos"]
    options = {"methods": [name], "datasets": datasets, "seeds": [1], "sar": "off", "shots": shots}
    for job in read_plan(experiment, options, {"backbone": "ViT-B-16"}):
        assert job.settings()["sections"].keys() == {name}
