"""A result's name: no other settings, seed or code can have it, and its TOML file repeats the run."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from sar_train.config.run import RunConfig
from sar_train.experiment.job import Job, contents, slug
from sar_train.experiment.plan import read_plan

CODE = "0123456789abcdef"
BASIC = RunConfig(data="demo", method="coop", sections={"coop": {"n_ctx": 8}, "sar": {"weight": 0.5}})
JOB = Job("base-to-new", "coop+sar", BASIC)


def with_config(**changes: Any) -> Job:
    return dataclasses.replace(JOB, config=dataclasses.replace(BASIC, **changes))


@pytest.mark.parametrize(
    "other",
    [
        with_config(seed=2),
        with_config(shots=4),
        with_config(data="photos/"),
        with_config(method="kgcoop", sections={}),
        with_config(sar=False),
        with_config(novel="words"),
        with_config(novel_count=100),
        with_config(template="{} texture."),
        with_config(epochs=3),
        with_config(pretrained="openai"),
        with_config(allow_missing=True),
        with_config(sections={"coop": {"n_ctx": 4}, "sar": {"weight": 0.5}}),
        with_config(sections={"coop": {"n_ctx": 8}, "sar": {"weight": 0.6}}),
        dataclasses.replace(JOB, targets=("pacs/sketch",)),
        dataclasses.replace(JOB, experiment="few-shot"),
    ],
)
def test_other_settings_give_another_file(other: Job) -> None:
    assert other.key(CODE) != JOB.key(CODE)
    assert other.path(CODE) != JOB.path(CODE)


def test_other_photos_in_a_folder_give_another_file(tmp_path: Path) -> None:
    """A sweep would take a result for done that was made of photos that are no longer there."""
    photos = tmp_path / "photos"
    (photos / "cat").mkdir(parents=True)

    def keys() -> tuple[str, str]:
        contents.cache_clear()  # as in another process
        over = dataclasses.replace(JOB, targets=("photos",), config=dataclasses.replace(BASIC, data_root=str(tmp_path)))
        learned = with_config(data="photos", data_root=str(tmp_path))
        return learned.key(CODE), over.key(CODE)

    def change(name: str, text: str) -> None:
        (photos / name).write_text(text)

    change("cat/a.jpg", "1")
    change(".hidden", "")
    changes = [keys()]
    os.utime(photos / "cat" / "a.jpg", ns=(1, 1))
    change(".hidden", "more")
    assert keys() == changes[0]
    for name, text in (
        ("cat/b.jpg", "1"),
        ("cat/a.jpg", "12"),
        ("metadata.csv", "a.jpg,cat"),
        ("metadata.csv", "a.jpg,dog"),
    ):
        change(name, text)
        changes.append(keys())
    learned, evaluated = (set(column) for column in zip(*changes, strict=True))
    assert (len(learned), len(evaluated)) == (5, 5)


def test_other_code_gives_another_file_and_places_and_spelled_out_defaults_do_not() -> None:
    assert len({JOB.path(code) for code in (CODE, "f" * 16, None)}) == 3
    sections = {"coop": {"n_ctx": 8, "position": "end"}, "sar": {"weight": "0.5"}}
    for same in (with_config(data_root="/somewhere", cache_dir="cache", device="cuda"), with_config(sections=sections)):
        assert same.key(CODE) == JOB.key(CODE)
    plain = with_config(sar=False, sections={"coop": {"n_ctx": 8}})
    of_sar = {"novel": "words", "novel_count": 7, "sections": {"coop": {"n_ctx": 8}, "sar": {"tau": 0.5}}}
    assert with_config(sar=False, **of_sar).key(CODE) == plain.key(CODE)


def test_stems_are_readable() -> None:
    assert JOB.stem == "coop+sar-16shots-s1"
    assert with_config(shots=0).stem == "coop+sar-all-s1"
    assert with_config(data="pacs/photo").path(CODE).parent == Path("pacs-photo")
    assert slug("a photo, of/ü?.") == "a-photo-of"
    assert slug("///") == "data"


@pytest.mark.parametrize(
    "job",
    [
        JOB,
        with_config(sar=False),
        with_config(seed=3, shots=4, template="{} texture.", data_root="/data", learning_rate=0.5),
        Job(
            "cross-dataset",
            "dept:kgcoop+sar",
            RunConfig("a b", method="dept", sections={"dept": {"on": "kgcoop"}}),
            ("x",),
        ),
    ],
)
def test_its_toml_file_repeats_the_run(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(job.toml())
    (again,) = read_plan(str(path), {}, {})
    assert again.key(CODE) == job.key(CODE)
    assert (again.name, again.experiment, again.targets) == (job.name, job.experiment, job.targets)
    assert "/data" not in job.toml()
