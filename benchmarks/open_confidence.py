"""How far scores can be believed with no photo held out: one ranking over trained and added classes, default settings.

    python -m benchmarks.open_confidence [--data ../shared/data] [--cache FOLDER] [--seeds 1 2 3] [--shots 16]

The sets and draws of ``benchmarks.class_statistics``, ``sar-mini``, hand-crafted prompt. Statistics, temperature and
thresholds come from the photos of trained classes alone, classes left out in turn. Then classes are added by name and
by 1, 2 and 4 photos (mean of five draws), and all test photos are ranked among all classes. Calibration error in 15
bins, before (T = 1) and after; *debiased* is less what photos whose answers are right as often as these scores say
would show (mean of 200 simulations). Likelihood: nats above those of the best temperature for these very photos.
Coverage of sets that should hold the class in 90 % of cases, trained and added photos apart; intervals by drawing
classes anew (1,000 times). Writes Markdown.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from typing import Any

import numpy as np

from benchmarks import command
from benchmarks.class_statistics import PHOTOS, Domain, Photos, domains, set_options, split

DRAWS = 5
SIMULATIONS = 200
COVERAGE = 0.9
TEMPERATURES = np.exp(np.linspace(np.log(0.3), np.log(60), 120))


def fitted(domain: Domain, backbone: Any, rows: Any, seed: int, shots: int) -> Any:
    """Return the statistics of the trained classes of a set, as ``sar-train --prompt handcrafted`` fits them."""
    from sar_infer.classifiers import left_out
    from sar_infer.classifiers.fitting import chosen
    from sar_infer.classifiers.gaussian import gaussian
    from sar_infer.classifiers.left_out_confidence import fit_confidences

    train, _ = split(domain.train.of(range(domain.trained)), shots, seed)
    features, labels = train.rows[:, None].astype(np.float64), train.labels
    texts = rows[: domain.trained].astype(np.float64)
    prompt = left_out.Prompt(left_out.HANDCRAFTED, texts)
    choice = left_out.choose(features, labels, [prompt], backbone.logit_scale, seed=seed)
    statistics = chosen(choice, gaussian(features[:, 0], labels, domain.trained), texts, 1.0)
    trust, _ = fit_confidences(features, labels, prompt, backbone.logit_scale, choice, seed=seed)
    return dataclasses.replace(statistics, confidence=trust)


def ranked(domain: Domain, test: Photos, statistics: Any, rows: Any, scale: float, photos: int) -> list[Any]:
    """Return logits (N, C) of the test photos and counts (C,), for each draw of photos of the added classes."""
    from sar_infer.classifiers.statistics import composed

    result = []
    pool = [np.flatnonzero(domain.train.labels == c) for c in range(domain.trained, len(domain.names))]
    for draw in range(DRAWS if photos else 1):
        rng = np.random.default_rng(draw)
        means = [domain.train.rows[rng.permutation(indices)[: max(photos, 1)]].mean(0) for indices in pool]
        counts = np.array([*statistics.counts, *[photos] * len(pool)])
        weights, bias = composed(statistics, scale, rows, np.concatenate([statistics.means, means]), counts)
        result.append((((test.rows - statistics.centre) @ weights.T + bias).astype(np.float64), counts))
    return result


def error(scores: Any, right: Any) -> float:
    """Return the calibration error in per cent."""
    bins = np.clip(np.ceil(scores * 15).astype(int) - 1, 0, 14)
    return float(100 * np.abs(np.bincount(bins, weights=right - scores, minlength=15)).sum() / len(scores))


def errors(probabilities: Any, labels: Any) -> tuple[float, float]:
    """Return the calibration error, and what of it is more than chance with such scores."""
    scores, right = probabilities.max(1), probabilities.argmax(1) == labels
    rng = np.random.default_rng(0)
    chance = np.mean([error(scores, rng.random(len(scores)) < scores) for _ in range(SIMULATIONS)])
    return error(scores, right), error(scores, right) - float(chance)


def likelihood(logits: Any, labels: Any, temperature: float) -> float:
    """Return the mean negative log-likelihood."""
    from sar_infer.classifiers.scores import negative_log_likelihood, softmax

    return negative_log_likelihood(softmax(logits / temperature), labels)


def measured(domain: Domain, test: Photos, statistics: Any, rows: Any, scale: float, photos: int) -> dict[str, Any]:
    """Return all figures of one set and number of photos, as means over draws, and coverage by class."""
    from sar_infer.classifiers.scores import softmax

    confidence, added = statistics.confidence, test.labels >= domain.trained
    figures: dict[str, list[Any]] = defaultdict(list)
    draws = ranked(domain, test, statistics, rows, scale, photos)
    for logits, counts in draws:
        before, after = softmax(logits), softmax(logits / confidence.temperature)
        figures["before"].append(errors(before, test.labels))
        figures["after"].append(errors(after, test.labels))
        for name, side in (("trained", ~added), ("added", added)):
            figures[name].append(errors(after[side], test.labels[side]))
        right = after.argmax(1) == test.labels
        figures["scores"].append((100 * before.max(1).mean(), 100 * after.max(1).mean(), 100 * right.mean()))
        least = confidence.least(COVERAGE, counts)
        covered = after[np.arange(len(after)), test.labels] >= least[test.labels]
        sizes = (after >= least).sum(1)
        figures["covered"].append([100 * covered[side].mean() for side in (~added, added)])
        figures["size"].append(sizes.mean())
        figures["classes"].append([100 * covered[test.labels == c].mean() for c in range(len(domain.names))])
    curve = np.mean([[likelihood(one, test.labels, t) for t in TEMPERATURES] for one, _ in draws], axis=0)
    fitted_one = np.mean([likelihood(one, test.labels, confidence.temperature) for one, _ in draws])
    plain = np.mean([likelihood(one, test.labels, 1.0) for one, _ in draws])
    means = {name: np.mean(values, axis=0) for name, values in figures.items()}
    return means | {
        "temperature": confidence.temperature,
        "best": TEMPERATURES[curve.argmin()],
        "nats": (plain - curve.min(), fitted_one - curve.min()),
        "is_added": np.arange(len(domain.names)) >= domain.trained,
    }


def interval(groups: list[Any]) -> str:
    """Return the mean over classes with a 95 % interval, from drawing the classes of each set anew."""
    rng = np.random.default_rng(0)
    means = [
        np.mean([np.mean(classes[rng.integers(len(classes), size=len(classes))]) for classes in groups])
        for _ in range(1000)
    ]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{np.mean([classes.mean() for classes in groups]):.1f} % ({low:.1f} to {high:.1f})"


def main() -> None:
    """Measure, print and write."""
    args = set_options(__doc__, shots=16, out=command.RESULTS / "open_confidence.md")
    from sar_train.clip import backbone as backbones

    backbone = backbones.load("sar-mini")
    results: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    for seed in args.seeds:
        for domain in domains(args, backbone, seed):
            rows = backbone.embed_names(domain.names, domain.template).numpy()
            statistics = fitted(domain, backbone, rows, seed, args.shots)
            for label, test in domain.tests.items():
                for photos in PHOTOS:
                    key = (f"{domain.name}{label}", photos)
                    results[key].append(measured(domain, test, statistics, rows, backbone.logit_scale, photos))
                command.say(f"{domain.name}{label}, draw {seed}")
    page = table(results, args)
    command.tell(page, out=args.out)


def table(results: dict[tuple[str, int], list[dict[str, Any]]], args: Any) -> str:
    """Return the page: means over draws of classes, and coverage over all sets of the training's kind."""
    heads = ["set", "photos", "mean score → accuracy", "T (best)", "error", "debiased", "nats above the best T"]
    heads += ["debiased, trained / added", "90 % sets cover trained / added", "classes in a set"]
    lines: list[list[str]] = []
    for (name, photos), runs in sorted(results.items(), key=lambda item: (item[0][1], list(results).index(item[0]))):

        def mean(key: str, runs: list[dict[str, Any]] = runs) -> Any:
            return np.mean([run[key] for run in runs], axis=0)

        before, after, scores = mean("before"), mean("after"), mean("scores")
        lines.append(
            [
                name,
                "by name" if photos == 0 else str(photos),
                f"{scores[0]:.0f} → {scores[1]:.0f}, {scores[2]:.0f} right",
                f"{mean('temperature'):.1f} ({mean('best'):.1f})",
                f"{before[0]:.1f} → {after[0]:.1f}",
                f"{before[1]:.1f} → {after[1]:.1f}",
                f"{mean('nats')[0]:.2f} → {mean('nats')[1]:.2f}",
                f"{mean('trained')[1]:.1f} / {mean('added')[1]:.1f}",
                f"{mean('covered')[0]:.0f} / {mean('covered')[1]:.0f}",
                f"{mean('size'):.1f}",
            ]
        )
    worse = [
        f"{name}, {'by name' if photos == 0 else photos}, draw {args.seeds[number]}, {run['before'][1]:.1f} → "
        f"{run['after'][1]:.1f} (likelihood {run['nats'][1] - run['nats'][0]:+.2f} nats)"
        for (name, photos), runs in results.items()
        for number, run in enumerate(runs)
        if run["after"][1] > run["before"][1] + 1
    ]
    covered = []
    for photos in PHOTOS:
        runs = [run for (name, n), group in results.items() if n == photos and " to " not in name for run in group]
        sides = [[run["classes"][run["is_added"] == added] for run in runs] for added in (False, True)]
        covered.append(["by name" if photos == 0 else str(photos), *map(interval, sides)])
    return "\n\n".join(
        [
            f"One ranking over trained and added classes, no photo held out, {args.shots} photos a trained class, "
            f"draws {', '.join(map(str, args.seeds))}; errors in points",
            command.markdown(heads, lines),
            "Coverage of 90 % sets over all sets but cartoons and sketches: mean over classes, 95 % interval",
            command.markdown(["photos", "trained classes", "added classes"], covered),
            "Single draws whose debiased error rose by more than a point: " + ("; ".join(worse) or "none"),
        ]
    )


if __name__ == "__main__":
    main()
