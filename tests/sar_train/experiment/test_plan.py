"""Runs of the protocols and of sweep files."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.regularisers import seven

from sar_train.clip import mini
from sar_train.errors import ConfigError
from sar_train.experiment.plan import ELEVEN, VARIANTS, Grid, Modes, chosen_methods, jobs, read_spec
from sar_train.methods.base import methods


def test_a_grid_is_run_in_full_and_in_order() -> None:
    grid = Grid(("coop", "dept:kgcoop"), ("a", "b"), seeds=(1, 2), shots=(4, 16), targets=("c",))
    runs = jobs("base-to-new", grid)
    names = ["coop", "coop+sar", "dept:kgcoop", "dept:kgcoop+sar"]
    assert [(run.config.data, run.config.seed, run.config.shots, run.name) for run in runs] == [
        (data, seed, shots, name) for data in ("a", "b") for seed in (1, 2) for shots in (4, 16) for name in names
    ]
    assert len({run.path("x") for run in runs}) == len(runs)
    assert {(run.config.protocol, run.targets) for run in runs} == {("base-to-new", ("c",))}


@pytest.mark.parametrize(("modes", "sar"), [("both", [False, True]), ("on", [True]), ("off", [False])])
def test_modes(modes: Modes, sar: list[bool]) -> None:
    runs = jobs("few-shot", Grid(("coop",), ("a",), (1,), modes))
    assert [(run.config.sar, run.config.protocol) for run in runs] == [(one, "all") for one in sar]


def test_all_means_what_the_backbone_can_train_and_the_eleven() -> None:
    assert {"coop", "tcp"} <= set(chosen_methods(("all",), mini.NAME))
    assert not {"maple", "promptsrc"} & set(chosen_methods(("all",), mini.NAME))
    assert chosen_methods(("all",), mini.VIT_NAME) == list(methods.entries)
    runs = jobs("base-to-new", Grid(("coop",), ("all",), (1,), "off"))
    assert tuple(run.config.data for run in runs) == ELEVEN
    assert (len(ELEVEN), len(VARIANTS)) == (11, 4)


def test_later_layers_win_and_settings_of_one_method_leave_the_others_alone() -> None:
    grid = Grid(
        methods=("coop", "kgcoop"),
        datasets=("a",),
        seeds=(1,),
        common={"epochs": 7, "sar": {"tau": 0.5, "weight": 1.0}},
        per_method={"coop": {"sar": {"weight": 2.0}}, "maple": {"sar": {"weight": 9.0}}},
        overrides={"sar": {"tau": "0.6"}, "coop": {"n_ctx": "8"}},
    )
    runs = jobs("base-to-new", grid)
    assert {run.config.epochs for run in runs} == {7}
    assert [run.config.sections for run in runs] == [
        {"coop": {"n_ctx": "8"}},
        {"coop": {"n_ctx": "8"}, "sar": {"tau": "0.6", "weight": 2.0}},
        {},
        {"sar": {"tau": "0.6", "weight": 1.0}},
    ]


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
        ("few-shot", "prograd", 1, "caltech101", 50, {}),
        ("few-shot", "prograd", 2, "dtd", 100, {}),
        ("few-shot", "prograd", 4, "dtd", 100, {}),
        ("few-shot", "prograd", 8, "caltech101", 200, {}),
        ("few-shot", "prograd", 8, "oxford_flowers", 200, {"weight": 0.8}),
        ("few-shot", "prograd", 16, "dtd", 200, {"weight": 0.8}),
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
    grid = Grid((method,), (dataset,), (1,), "off", (shots,), common={"backbone": "ViT-B-16"})
    (job,) = jobs(experiment, grid)  # type: ignore[arg-type]
    assert job.config.epochs == epochs
    assert job.config.sections.get(method, {}) == section


def test_a_dataset_by_another_name_or_by_its_folder_has_the_papers_settings(tmp_path: Path) -> None:
    (tmp_path / "imagenet" / "images").mkdir(parents=True)
    for data in ("imagenet", "ImageNet", str(tmp_path / "imagenet")):
        grid = Grid(("coop", "tcp"), (data,), (1,), "off", overrides={"data_root": str(tmp_path)})
        assert [job.config.epochs for job in jobs("base-to-new", grid)] == [50, 25], data


def test_a_papers_rate_is_scaled_for_sar_mini_only() -> None:
    for backbone, rate in (("ViT-B-16", 2.6e-3), (mini.VIT_NAME, mini.RATE_FACTOR * 2.6e-3)):
        grid = Grid(("maple",), ("imagenet",), (1,), "off", common={"backbone": backbone})
        assert jobs("cross-dataset", grid)[0].config.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid(("copo",), ("a",)), "'copo'.*'coop'"),
        (Grid(("coop",), ("a",), per_method={"copo": {}}), "'copo'.*'coop'"),
        (Grid(("coop",), ("a",), overrides={"tcp": {"weight": 1.0}}), "tcp"),
        (Grid(("dept:kgcoop",), ("a",), per_method={"dept:kgcoop": {"kgcoop": {"weight": 3.0}}}), "kgcoop"),
        (Grid(("coop",), ("a",), common={"shots": 4}), "shots: "),
        (Grid(("coop",), ("a",), per_method={"coop": {"seed": 4}}), "seed: "),
    ],
)
def test_unknown_methods_and_settings_that_would_do_nothing_are_refused(grid: Grid, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        jobs("base-to-new", grid)


def write(folder: Path, text: str) -> Path:
    path = folder / "sweep.toml"
    path.write_text(text)
    return path


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
    jobs = read_spec(write(tmp_path, text), {"epochs": 3})
    assert [(job.name, job.config.seed) for job in jobs] == [("no sar", 2), ("words", 2), ("no sar", 1), ("words", 1)]
    assert jobs[1].config.sections["sar"] == {"tau": 0.2, "weight": 2.0}
    assert not jobs[0].config.sar
    assert {job.config.epochs for job in jobs} == {3}
    assert {job.experiment for job in jobs} == {"custom"}


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
    runs = read_spec(write(tmp_path, text))
    assert [(run.config.base_classes, run.config.data, run.name, run.config.shots) for run in runs] == [
        (f"deal:{deal}", data, name, shots)
        for deal in (0, 1)
        for data, name, shots in (("demo", "a", 8), ("demo", "b", 2), ("list.csv", "a", 4), ("list.csv", "b", 2))
    ]
    assert {run.config.base_classes for run in read_spec(write(tmp_path, "[runs.a]\ndata = 'demo'"))} == {None}


def test_a_grid_takes_the_regulariser_that_has_settings() -> None:
    common = {"seven": {"weight": 2}}
    with seven():
        without, with_seven = jobs("base-to-new", Grid(["coop"], ["demo"], [1], common=common))
        with pytest.raises(ConfigError, match="sar and seven, but a run has one regulariser"):
            jobs("base-to-new", Grid(["coop"], ["demo"], common=common, overrides={"sar": {"weight": 1}}))
    assert [without.name, with_seven.name] == ["coop", "coop with seven"]
    assert with_seven.config.sections == common
    assert not without.config.sections


def test_a_setting_that_no_run_of_a_sweep_uses_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "[runs.a]\ndata = 'demo'\nmethod = 'tcp'\n[runs.b]\ndata = 'demo'")
    sections = [job.config.sections for job in read_spec(path, {"tcp": {"weight": 3}})]
    assert sections == [{"tcp": {"weight": 3}}, {}]
    with pytest.raises(ConfigError, match=r"settings for kgcoop, but no run of .* uses them"):
        read_spec(path, {"tcp": {"weight": 3}, "kgcoop": {"weight": 3}})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seeds = [1]", r"no \[runs.NAME\]"),
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
        ("[runs.a]\ndata = 'demo'\nseed = 7", "seed: .*seeds"),
        ("[runs.a]\nmethod = 'tcp'", "run a: data: is missing"),
        ("[runs.a", "TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_spec(write(tmp_path, text))
