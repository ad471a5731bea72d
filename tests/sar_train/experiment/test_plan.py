"""Runs of the protocols and of plan files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sar_train.clip import mini
from sar_train.errors import ConfigError
from sar_train.experiment.job import Job
from sar_train.experiment.plan import ELEVEN, VARIANTS, chosen_methods, read_plan
from sar_train.methods.base import methods

A = {"datasets": ["a"], "methods": ["coop"], "seeds": [1], "sar": "off"}


def write(folder: Path, text: str) -> str:
    path = folder / "plan.toml"
    path.write_text(text)
    return str(path)


def runs(plan: str, options: dict[str, Any] | None = None, **overrides: Any) -> list[Job]:
    return read_plan(plan, options or {}, overrides)


# ---------------------------------------------------------------------------------------------------------- protocols
def test_a_protocol_is_run_in_full_and_in_order() -> None:
    options = {"methods": ["coop", "dept:kgcoop"], "datasets": ["a", "b"], "seeds": [1, 2], "shots": [4, 16]}
    planned = runs("base-to-new", options | {"targets": ["c"]})
    names = ["coop", "coop+sar", "dept:kgcoop", "dept:kgcoop+sar"]
    assert [(run.config.data, run.config.seed, run.config.shots, run.name) for run in planned] == [
        (data, seed, shots, name) for data in ("a", "b") for seed in (1, 2) for shots in (4, 16) for name in names
    ]
    assert len({run.path("x") for run in planned}) == len(planned)
    assert {(run.config.protocol, run.config.sar, run.targets) for run in planned} == {
        ("base-to-new", sar, ("c",)) for sar in (False, True)
    }


def test_what_each_protocol_has_by_default() -> None:
    few = runs("few-shot", {"datasets": ["a"], "methods": ["coop"]})
    assert {(run.config.seed, run.config.shots) for run in few} == {(s, n) for s in (1, 2, 3) for n in (1, 2, 4, 8, 16)}
    (cross,) = runs("cross-dataset", {"methods": ["coop"], "seeds": [1], "sar": "off"})
    assert (cross.config.data, cross.targets) == ("imagenet", ELEVEN[1:])
    (domains,) = runs("domain-generalisation", A)
    assert domains.targets == VARIANTS
    assert tuple(run.config.data for run in runs("base-to-new", A | {"datasets": ["all"]})) == ELEVEN
    assert not {"maple", "promptsrc"} & {run.name for run in runs("base-to-new", {"datasets": ["a"], "sar": "off"})}
    assert chosen_methods(["all"], mini.VIT_NAME) == list(methods.entries)


def test_a_file_has_settings_of_its_own_and_options_and_overrides_win(tmp_path: Path) -> None:
    text = """
        experiment = "base-to-new"
        datasets = ["a"]
        seeds = [1]
        common = { epochs = 7, sar = { tau = 0.5, weight = 1.0 } }
        [methods.coop.sar]
        weight = 2.0
        [methods.kgcoop]
        [methods.maple.sar]
        weight = 9.0
    """
    chosen = {"methods": ["coop", "kgcoop"]}
    planned = runs(write(tmp_path, text), chosen, sar={"tau": "0.6"}, coop={"n_ctx": "8"}, epochs="5")
    assert {run.config.epochs for run in planned} == {5}
    assert [run.config.sections for run in planned] == [
        {"coop": {"n_ctx": "8"}},
        {"coop": {"n_ctx": "8"}, "sar": {"tau": "0.6", "weight": 2.0}},
        {},
        {"sar": {"tau": "0.6", "weight": 1.0}},
    ]
    all_three = runs(write(tmp_path, text), backbone=mini.VIT_NAME)
    assert [run.name for run in all_three][::2] == ["coop", "kgcoop", "maple"]


@pytest.mark.parametrize(
    ("experiment", "method", "shots", "dataset", "epochs", "section"),
    [
        ("base-to-new", "coop", 16, "caltech101", None, {}),
        ("base-to-new", "coop", 16, "imagenet", 50, {}),
        ("few-shot", "coop", 1, "dtd", 50, {"context_init": "", "n_ctx": 16}),
        ("few-shot", "coop", 4, "dtd", 100, {"context_init": "", "n_ctx": 16}),
        ("few-shot", "coop", 16, "dtd", 200, {"context_init": "", "n_ctx": 16}),
        ("few-shot", "coop", 16, "imagenet", 50, {"context_init": "", "n_ctx": 16}),
        ("base-to-new", "tcp", 16, "sun397", 25, {}),
        ("base-to-new", "prograd", 4, "caltech101", None, {}),
        ("base-to-new", "prograd", 16, "imagenet", 50, {}),
        ("few-shot", "prograd", 2, "dtd", 100, {}),
        ("few-shot", "prograd", 8, "oxford_flowers", 200, {"weight": 0.8}),
        ("few-shot", "prograd", 16, "eurosat", 200, {"weight": 0.8}),
        ("cross-dataset", "maple", 16, "imagenet", 2, {"depth": 3}),
        ("few-shot", "promptsrc", 16, "dtd", 50, {"mean": 45.0, "sigma": 5.0}),
        ("few-shot", "promptsrc", 16, "food101", 50, {"mean": 30.0, "sigma": 30.0}),
        ("cross-dataset", "kgcoop", 16, "imagenet", None, {}),
    ],
)
def test_papers_settings_come_with_the_protocol(
    experiment: str, method: str, shots: int, dataset: str, epochs: int | None, section: dict[str, object]
) -> None:
    options = A | {"methods": [method], "datasets": [dataset], "shots": [shots]}
    (job,) = runs(experiment, options, backbone="ViT-B-16")
    assert job.config.epochs == epochs
    assert job.config.sections.get(method, {}) == section


def test_a_dataset_by_another_name_or_by_its_folder_has_the_papers_settings(tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "images").mkdir(parents=True)
    for data in ("imagenet", "ImageNet", str(tmp_path / "imagenet")):
        planned = runs("base-to-new", A | {"methods": ["coop", "tcp"], "datasets": [data]}, data_root=str(tmp_path))
        assert [job.config.epochs for job in planned] == [50, 25], data


def test_a_papers_rate_is_scaled_for_sar_mini_only() -> None:
    for backbone, rate in (("ViT-B-16", 2.6e-3), (mini.VIT_NAME, mini.RATE_FACTOR * 2.6e-3)):
        (job,) = runs("cross-dataset", A | {"methods": ["maple"], "datasets": ["imagenet"]}, backbone=backbone)
        assert job.config.learning_rate == pytest.approx(rate)


# -------------------------------------------------------------------------------------------------------- listed runs
def test_runs_come_seed_by_seed_with_common_settings(tmp_path: Path) -> None:
    text = """
        seeds = [2, 1]
        [common]
        data = "demo"
        sar.tau = 0.2
        [runs."no sar"]
        sar = false
        [runs.words]
        novel = "words"
        sar.weight = 2.0
    """
    jobs = runs(write(tmp_path, text), epochs=3)
    assert [(job.name, job.config.seed) for job in jobs] == [("no sar", 2), ("words", 2), ("no sar", 1), ("words", 1)]
    assert jobs[1].config.sections["sar"] == {"tau": 0.2, "weight": 2.0}
    assert {(job.experiment, job.config.epochs) for job in jobs} == {("custom", 3)}
    assert [job.config.seed for job in runs(write(tmp_path, text), {"seeds": [5]})] == [5, 5]


def test_every_run_meets_every_deal_of_every_set(tmp_path: Path) -> None:
    text = """
        deals = [0, 1]
        [common]
        shots = 8
        [[sets]]
        data = "demo"
        protocol = "pseudo"
        [[sets]]
        data = "list.csv"
        shots = 4
        [runs.a]
        [runs.b]
        shots = 2
    """
    planned = runs(write(tmp_path, text))
    assert [(run.config.base_classes, run.config.data, run.name, run.config.shots) for run in planned] == [
        (f"deal:{deal}", data, name, shots)
        for deal in (0, 1)
        for data, name, shots in (("demo", "a", 8), ("demo", "b", 2), ("list.csv", "a", 4), ("list.csv", "b", 2))
    ]
    assert {run.config.base_classes for run in runs(write(tmp_path, "[runs.a]\ndata = 'demo'"))} == {None}


def test_a_setting_that_no_run_uses_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "[runs.a]\ndata = 'demo'\nmethod = 'tcp'\n[runs.b]\ndata = 'demo'")
    sections = [job.config.sections for job in runs(path, tcp={"weight": 3})]
    assert sections == [{"tcp": {"weight": 3}}, {}]
    with pytest.raises(ConfigError, match=r"settings for kgcoop, but no run of .* uses them"):
        runs(path, tcp={"weight": 3}, kgcoop={"weight": 3})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds = [1]", r"expected \[runs.NAME\] or experiment"),
        ("seed = 1\n[runs.a]\ndata = 'demo'", "unknown seed"),
        ("runs = 3", "no .runs.NAME"),
        ("seeds = [1.5]\n[runs.a]\ndata = 'demo'", "seeds: "),
        ("seeds = []\n[runs.a]\ndata = 'demo'", "seeds: "),
        ("experiment = 'b2n'\n[runs.a]\ndata = 'demo'", "experiment: .*base-to-new"),
        ("deals = ['1']\n[runs.a]\ndata = 'demo'", "deals: "),
        ("sets = [3]\n[runs.a]\ndata = 'demo'", "sets: "),
        ("targets = 'x'\n[runs.a]\ndata = 'demo'", "targets: "),
        ("[runs]\na = 1", "runs.a: "),
        ("common = 3\n[runs.a]\ndata = 'demo'", "common: "),
        ("[runs.a]\ndata = 'demo'\nshot = 3", "run a: .*'shot'.*'shots'"),
        ("seeds = [1]\n[common]\nseed = 7\n[runs.a]\ndata = 'demo'", "seed: .*seeds"),
        ("[[sets]]\nseed = 7\n[runs.a]\ndata = 'demo'", "seed: .*seeds"),
        ("[runs.a]\nmethod = 'tcp'", "run a: data: is missing"),
        (
            "methods = ['coop']\n[runs.a]\ndata = 'demo'",
            r"methods: cannot be combined with \[runs\]; set data, .* in \[common\], \[\[sets\]\]",
        ),
        ("[runs.a", "TOML"),
        ("experiment = 'few-shot'", "--datasets"),
        ("experiment = 'custom'\ndatasets = ['a']", "base-to-new"),
        ("experiment = 'few-shot'\ndatasets = ['a']\nsar = true", "sar: "),
        ("experiment = 'few-shot'\ndatasets = ['a']\ndeals = [1]", "unknown deals"),
        ("experiment = 'few-shot'\ndatasets = ['a']\nmethods = ['copo']", "'copo'.*'coop'"),
        ("experiment = 'few-shot'\ndatasets = ['a']\n[methods]\ncoop = 3", "methods.coop: "),
        ("experiment = 'few-shot'\ndatasets = ['a']\n[methods.copo]", "'copo'.*'coop'"),
        ("experiment = 'few-shot'\ndatasets = ['a']\nmethods = ['coop']\n[common.tcp]\nweight = 1", "tcp"),
        ("experiment = 'few-shot'\ndatasets = ['a']\n[methods.'dept:kgcoop'.kgcoop]\nweight = 3", "kgcoop"),
        ("experiment = 'few-shot'\ndatasets = ['a']\n[common]\nshots = 4", "shots: "),
        ("experiment = 'few-shot'\ndatasets = ['a']\n[methods.coop]\nseed = 4", "seed: "),
        ("experiment = 'few-shot'\ndatasets = ['a']\nmethods = ['maple']", "maple prompts the image tower"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        runs(write(tmp_path, text))


def test_methods_without_training_run_once_and_without_sar() -> None:
    for sar in ("both", "on", "off"):
        planned = runs("base-to-new", {"datasets": ["a"], "seeds": [1], "methods": ["gda", "zero-shot"], "sar": sar})
        assert [(run.name, run.config.method, run.config.sar) for run in planned] == [
            ("gda", "gda", False),
            ("zero-shot", "zero-shot", False),
        ]
    with pytest.raises(ConfigError, match="gda .* has no targets"):
        runs("cross-dataset", {"methods": ["gda"]})
