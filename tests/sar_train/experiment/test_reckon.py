"""Reckon what runs take on a GPU."""

from __future__ import annotations

import pytest

from sar_train.config.run import RunConfig
from sar_train.experiment.job import Job
from sar_train.experiment.reckon import CARDS, LAUNCH, UTILISATION, reckon


def job(method: str = "coop", **settings: object) -> Job:
    config = RunConfig(**{"data": "caltech101", "method": method, "protocol": "base-to-new", "sar": False, **settings})  # type: ignore[arg-type]
    return Job("base-to-new", method, config)


def test_steps_are_those_of_the_loop() -> None:
    assert reckon([job()]).steps == 200 * (50 * 16 // 32)  # CoOp's epochs and batch on 50 base classes
    assert reckon([job(epochs=3, batch_size=900)]).steps == 3  # a batch larger than the data is one step
    assert reckon([job("cocoop")]).steps == 10 * 800
    assert reckon([job(protocol="all")]).steps == 200 * (100 * 16 // 32)


def test_many_small_steps_wait_for_their_launches_on_any_card() -> None:
    first, second = (reckon([job(epochs=epochs)]) for epochs in (100, 200))
    for card in CARDS:
        seconds = 3600 * (second.hours[card] - first.hours[card])
        assert seconds == pytest.approx(100 * 25 * 175 * 12 * LAUNCH)


def test_photos_are_encoded_once_for_a_seed() -> None:
    one, two, other = (reckon(jobs) for jobs in ([job()], [job(), job("kgcoop")], [job(), job("kgcoop", seed=2)]))
    alone = reckon([job("kgcoop")])
    encoding = 1649 + 2465 + 50 * 16 * 4
    name, peak = next(iter(CARDS.items()))
    longest = max(2 * 17.6e9 / (UTILISATION * peak), 10e-3 / 4)
    assert one.hours[name] + alone.hours[name] - two.hours[name] == pytest.approx(encoding * longest / 3600)
    assert other.hours[name] - two.hours[name] == pytest.approx(50 * 16 * 4 * longest / 3600)


def test_sar_image_prompts_and_classes_take_memory() -> None:
    plain, with_sar, both, large = (
        reckon([made]).memory for made in (job(), job(sar=True), job("maple"), job(data="imagenet"))
    )
    assert plain < with_sar < both
    assert plain < large < 16  # fits a small card


def test_a_faster_card_is_never_slower() -> None:
    reckoned = reckon([job(method, seed=seed) for method in ("coop", "maple") for seed in (1, 2)])
    assert reckoned.hours["H100"] <= reckoned.hours["A100"]
    assert str(reckoned).startswith("4 runs, ")
    assert "estimated, not measured" in str(reckoned)
    assert " min on one H100" in str(reckoned)
