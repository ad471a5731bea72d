"""Published figures, transcribed as they stand, and names as people write them."""

from __future__ import annotations

import statistics
import subprocess
import sys

import pytest

from sar_train.data.layouts import LAYOUTS
from sar_train.evaluation.accuracy import harmonic_mean
from sar_train.report import published
from sar_train.report.published import method_name


@pytest.mark.parametrize("method", ["clip", "coop", "cocoop", "prograd", "kgcoop", "maple", "promptsrc", "tcp"])
def test_averages_over_the_eleven_datasets_agree_with_the_printed_ones(method: str) -> None:
    datasets = published.load()["datasets"]
    assert set(datasets) <= {*LAYOUTS, "imagenet", "fgvc_aircraft"}
    assert len(datasets) == 11
    figures = [published.of_dataset(dataset)[method] for dataset in datasets]
    base, new = statistics.fmean(f.base for f in figures), statistics.fmean(f.new for f in figures)
    assert (base, new) == pytest.approx(published.load()["averages"][method]["scores"][:2], abs=0.05)


def test_printed_harmonic_means_are_those_of_the_averages() -> None:
    for method, entry in published.load()["averages"].items():
        base, new, both = entry["scores"]
        assert harmonic_mean(base, new) == pytest.approx(both, abs=0.02), method
        assert entry["source"]


@pytest.mark.parametrize(
    ("backbone", "pretrained", "dataset", "scores", "source"),
    [
        ("ViT-B-16", "openai", "dtd", (53.24, 59.90), "CoCoOp"),
        ("ViT-B-16-quickgelu", "openai", "dtd", (53.24, 59.90), "CoCoOp"),
        ("sar-mini", None, "caltech101", (59.910, 57.860), "experiments/results/default"),
        ("ViT-B-16", "laion2b", "dtd", None, ""),
        ("ViT-L-14", "openai", "dtd", None, ""),
        ("ViT-B-16", "openai", "mine", None, ""),
        ("sar-mini", None, "dtd", None, ""),
    ],
)
def test_zero_shot_of_clip_and_of_our_own_set_up(
    backbone: str, pretrained: str | None, dataset: str, scores: tuple[float, float] | None, source: str
) -> None:
    reference = published.reference_zero_shot(backbone, pretrained, dataset)
    assert (reference is None) == (scores is None)
    if reference and scores:
        assert (reference.base, reference.new) == pytest.approx(scores, abs=0.001)
        assert source in reference.source


@pytest.mark.parametrize(
    ("name", "key", "shown"),
    [
        ("coop", "coop", "CoOp"),
        ("coop+sar", "coop", "CoOp + SAR"),
        ("dept:kgcoop+sar", "dept-kgcoop", "DePT on KgCoOp + SAR"),
        ("dept", "dept-coop", "DePT"),
        ("dept:coop+sar", "dept-coop", "DePT on CoOp + SAR"),
        ("Mine+sar", "mine", "Mine + SAR"),
    ],
)
def test_names_of_methods(name: str, key: str, shown: str) -> None:
    assert published.method_key(name) == key
    assert method_name(name) == shown
    assert method_name(f"{name} (epochs=5)") == f"{shown} (epochs=5)"


def test_reports_load_no_torch_and_published_figures_no_matplotlib() -> None:
    program = (
        "import sys; from sar_train.report import published, tables; "
        "assert not {'torch', 'matplotlib', 'jinja2'} & set(sys.modules); "
        "from sar_train.report import page; assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
