"""Published figures: transcribed as they stand, and found by our names."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

from sar_train.data.layouts import LAYOUTS
from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report import published


@pytest.mark.parametrize("method", ["clip", "coop", "cocoop", "prograd", "kgcoop", "maple", "promptsrc", "tcp"])
def test_averages_over_the_eleven_datasets_agree_with_the_printed_ones(method: str) -> None:
    found = [published.of_dataset(dataset)[method] for dataset in published.load()["datasets"]]
    base, new = statistics.fmean(k.base for k in found), statistics.fmean(k.new for k in found)
    printed = published.load()["averages"][method]["scores"]
    assert (base, new) == pytest.approx(printed[:2], abs=0.05)


def test_printed_harmonic_means_are_those_of_the_averages() -> None:
    for method, entry in published.load()["averages"].items():
        base, new, both = entry["scores"]
        assert harmonic_mean(base, new) == pytest.approx(both, abs=0.02), method
        assert entry["source"]


def test_datasets_are_called_as_we_call_them() -> None:
    ours = {*LAYOUTS, "imagenet", "fgvc_aircraft"}
    assert set(published.load()["datasets"]) <= ours
    assert len(published.load()["datasets"]) == 11


@pytest.mark.parametrize("backbone", ["ViT-B-16", "ViT-B-16-quickgelu"])
def test_zero_shot_of_clip(backbone: str) -> None:
    reference = published.reference_zero_shot(backbone, "openai", "dtd")
    assert reference is not None
    assert (reference.base, reference.new) == (53.24, 59.90)
    assert "CoCoOp" in reference.source


def test_zero_shot_of_our_own_set_up() -> None:
    reference = published.reference_zero_shot("sar-mini", None, "caltech101")
    assert reference is not None
    assert (reference.base, reference.new) == pytest.approx((59.910, 57.860), abs=0.001)
    assert "experiments/results/default" in reference.source


@pytest.mark.parametrize(
    ("backbone", "pretrained", "dataset"),
    [
        ("ViT-B-16", "laion2b", "dtd"),
        ("ViT-L-14", "openai", "dtd"),
        ("ViT-B-16", "openai", "mine"),
        ("sar-mini", None, "dtd"),
    ],
)
def test_nothing_is_known_of_others(backbone: str, pretrained: str | None, dataset: str) -> None:
    assert published.reference_zero_shot(backbone, pretrained, dataset) is None


@pytest.mark.parametrize(
    ("name", "key", "shown"),
    [
        ("coop+sar", "coop", "CoOp"),
        ("dept:kgcoop", "dept-kgcoop", "DePT on KgCoOp"),
        ("dept", "dept-coop", "DePT on CoOp"),
        ("mine", "mine", "mine"),
    ],
)
def test_names(name: str, key: str, shown: str) -> None:
    assert published.method_key(name) == key
    assert published.label(key) == shown


def test_reports_load_no_torch_and_published_figures_no_matplotlib() -> None:
    program = (
        "import sys; from sar_train.report import published, tables; "
        "assert not {'torch', 'matplotlib', 'scipy', 'jinja2'} & set(sys.modules); "
        "from sar_train.report import page; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
