"""Advice on the mistakes of an evaluation: which class needs photos, another name, or to be one with another."""

from __future__ import annotations

import shlex
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sar_infer.bank_advice import Finding
from sar_infer.evaluation.evaluation import Advice, Evaluation, Pair

ENOUGH = 16
"""Photos of a class beyond which more of them are not the first advice."""
SURE = 0.9
"""Score of a wrong answer from which the label is worth a look."""
OFF = 0.05
"""Calibration error beyond chance that is worth a word."""
CALIBRATED_FROM = 50
"""Photos that `sar-bank calibrate` needs."""
_MOST = 8
_NAMED = 3
_OFTEN = 0.35
"""Share of the photos of each of two classes that go to the other, from which they look like one: half is a toss-up."""
_SELDOM = 0.1
"""Share of the photos of a class that go to another, below which the pair gets no advice."""
_NAME_KINDS = ("odd-characters", "odd-tokens", "wording", "too-long", "unusable")


def bank_command(command: str, *words: str) -> str:
    """Return a command of ``sar-bank`` on a bank file that has to be filled in."""
    return shlex.join(["sar-bank", command, "BANK_FILE", *words])


@dataclass(frozen=True)
class Facts:
    """Facts of the classes beside the answers.

    Attributes:
        photos: How many photos each class has learned from.
        findings: Remarks on the classes, from ``bank_advice``.
        alike: Classes that are spelled like a label that is no class.
        background: Labels that are no class to choose from because the bank says so.
        fittable: The bank has photos enough to fit class statistics to, and none were fitted.
        command: Returns a command of ``sar-bank`` on the bank that answered; None if there is no bank file to change.
    """

    photos: Mapping[str, int] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    alike: Mapping[str, Sequence[str]] = field(default_factory=dict)
    background: Sequence[str] = ()
    fittable: bool = False
    command: Callable[..., str] | None = bank_command

    def say(self, *words: str) -> str | None:
        """Return a command of ``sar-bank``, if there is a bank file."""
        return None if self.command is None else self.command(*words)


def advise(evaluation: Evaluation, facts: Facts) -> tuple[Advice, ...]:
    """Return what to do, the most useful first: what is about the most mistakes.

    Args:
        evaluation: What was measured.
        facts: What is known of the classes.
    """
    advice = [*_other_classes(evaluation, facts), *_pairs(evaluation, facts), *_names(evaluation, facts)]
    advice += [*_labels(evaluation), *_scores(evaluation, facts)]
    advice.sort(key=lambda one: -one.mistakes)
    return (*_spelled(evaluation, facts), *_fit(evaluation, facts), *advice, *_strangers(evaluation, facts))[:_MOST]


def _spelled(evaluation: Evaluation, facts: Facts) -> Iterator[Advice]:
    """Yield one for each label that is no class but is spelled like one."""
    for label, count in _stranger_labels(evaluation, facts).most_common():
        for alike in facts.alike.get(label, ())[:1]:
            message = f"{label!r} is no class to choose from; if it is {alike!r}, make it an alias"
            yield Advice("class", (label, alike), count, message, facts.say("alias", alike, label))


def _stranger_labels(evaluation: Evaluation, facts: Facts) -> Counter[str]:
    """Count the photos of each label that is no class, but for background."""
    labels = (answer.label for answer in evaluation.answers if answer.stranger)
    return Counter(label for label in labels if label not in facts.background)


def _fit(evaluation: Evaluation, facts: Facts) -> Iterator[Advice]:
    """Yield one if mistakes are made without class statistics, which could be fitted."""
    mistakes = evaluation.accuracy.of - evaluation.accuracy.count
    if facts.fittable and mistakes:
        message = "The bank has photos enough to fit class statistics to, which answer better, with truer scores"
        yield Advice("fit", (), mistakes, message, facts.say("fit"))


def _strangers(evaluation: Evaluation, facts: Facts) -> Iterator[Advice]:
    """Yield one for all labels that are no class."""
    counts = _stranger_labels(evaluation, facts)
    for label in facts.alike:
        if facts.alike[label]:
            del counts[label]
    if counts:
        names = [label for label, _ in counts.most_common()]
        message = (
            f"{_listed(names)} {'are' if len(counts) > 1 else 'is'} no class to choose from; add "
            f"{'those' if len(counts) > 1 else 'it'} whose photos should get an answer"
        )
        yield Advice("class", tuple(names), counts.total(), message, facts.say("add", *names[:_NAMED]))


def _other_classes(evaluation: Evaluation, facts: Facts) -> Iterator[Advice]:
    """Yield one if many mistakes are classes that no photo shows."""
    labelled = {result.name for result in evaluation.per_class}
    counts: Counter[str] = Counter()
    for pair in evaluation.confused:
        if pair.answer not in labelled:
            counts[pair.answer] += pair.count
    total, mistakes = sum(counts.values()), evaluation.accuracy.of - evaluation.accuracy.count
    if total < max(2, mistakes / 5):
        return
    names = [name for name, _ in counts.most_common(_NAMED)]
    shown = ", ".join(f"{name!r} ({counts[name]})" for name in names)
    message = f"{total} of {mistakes} mistakes are answers that none of these photos shows: {shown}"
    if len(counts) > len(names):
        message += (
            f" and {len(counts) - len(names)} others; if you need the classes of these photos alone, list their names "
            "in a file and choose from them: sar-classify --classes FILE --only"
        )
        yield Advice("others", tuple(names), total, message)
    else:
        yield Advice(
            "others", tuple(names), total, f"{message}; remove what you do not need", facts.say("remove", *names)
        )


def _pairs(evaluation: Evaluation, facts: Facts) -> Iterator[Advice]:
    """Yield advice on pairs of labelled classes that are confused, those that need photos of one class together."""
    labelled = {result.name for result in evaluation.per_class}
    both: dict[frozenset[str], list[Pair]] = defaultdict(list)
    for pair in evaluation.confused:
        if pair.answer in labelled:
            both[frozenset((pair.label, pair.answer))].append(pair)
    near = {
        frozenset((finding.name, finding.suggestion or ""))
        for finding in facts.findings
        if finding.kind in ("duplicate", "near-duplicate")
    }
    hungry: dict[str, list[Pair]] = defaultdict(list)
    for names, pairs in both.items():
        if sum(pair.count for pair in pairs) < max(2, _SELDOM * sum(pair.of for pair in pairs)):
            continue
        # the class with the fewest photos; of equals, the one that loses the most
        first, *_ = sorted(names, key=lambda name: (facts.photos.get(name, 0), name != pairs[0].label))
        mutual = len(pairs) == 2 and all(pair.count >= _OFTEN * pair.of for pair in pairs)
        enough = facts.photos.get(first, 0) >= ENOUGH
        if names in near or (mutual and enough):
            yield _merge(pairs, facts, near=names in near)
        elif enough:
            yield _describe(pairs, facts)
        else:
            hungry[first] += pairs
    ordered = sorted(hungry.items(), key=lambda item: -sum(pair.count for pair in item[1]))
    for name, pairs in ordered[:_NAMED]:
        yield _photos(name, pairs, facts)
    if rest := dict(ordered[_NAMED:]):
        mistakes = sum(pair.count for pairs in rest.values() for pair in pairs)
        message = f"{mistakes} more mistakes are of {_listed([*rest])}, which have few photos too: give each more"
        yield Advice("photos", tuple(rest), mistakes, message, facts.say("add", "--photos", "FOLDER_OF_CLASSES"))


def _merge(pairs: Sequence[Pair], facts: Facts, *, near: bool) -> Advice:
    label, other = pairs[0].label, pairs[0].answer
    why = "their names mean nearly the same to the encoder" if near else "photos do not tell them apart"
    message = f"{_counted(pairs)}: {why}; if they are one thing to you, make them one class"
    command = None
    if facts.command is not None:
        command = f"{facts.command('remove', other)} && {facts.command('alias', label, other)}"
    return Advice("merge", (label, other), sum(pair.count for pair in pairs), message, command)


def _describe(pairs: Sequence[Pair], facts: Facts) -> Advice:
    label, other = pairs[0].label, pairs[0].answer
    message = (
        f"{_counted(pairs)}, though both have photos: look at these for wrong labels, add photos that show the "
        "difference, or say in words what it is"
    )
    command = facts.say("add", f"{label} = {label} | WHAT TELLS IT FROM {other}")
    return Advice("describe", (label, other), sum(pair.count for pair in pairs), message, command)


def _photos(name: str, pairs: Sequence[Pair], facts: Facts) -> Advice:
    count = facts.photos.get(name, 0)
    has = "is known by its name alone" if not count else f"has {count} photo{'' if count == 1 else 's'}"
    amount = "two photos or more" if not count else "more photos"
    message = f"{_counted(pairs)}; {name!r} {has}: give it {amount}, other ones than these"
    mistakes = sum(pair.count for pair in pairs)
    return Advice("photos", (name,), mistakes, message, facts.say("add", name, "--photos", "PHOTOS"))


def _listed(names: Sequence[str]) -> str:
    """Return the first names, quoted, and how many more there are."""
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(repr, names[:_NAMED])) + rest


def _counted(pairs: Sequence[Pair]) -> str:
    """Return ``'skirt' is called 'dress' (6 of 15) and 'shorts' (2 of 15)`` for some pairs."""
    answers: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs[:_NAMED]:
        answers[pair.label].append(pair)
    return ", ".join(
        f"{label!r} is called " + " and ".join(f"{pair.answer!r} ({pair.count} of {pair.of})" for pair in of_label)
        for label, of_label in answers.items()
    )


def _names(evaluation: Evaluation, facts: Facts) -> Iterator[Advice]:
    """Yield one for each class that does worse than the others and whose name says little to the encoder."""
    poor = {
        result.name: result.accuracy
        for result in evaluation.per_class
        if result.accuracy.share < evaluation.accuracy.share
    }
    for finding in facts.findings:
        if finding.kind in _NAME_KINDS and finding.severity != "info" and finding.name in poor:
            share = poor.pop(finding.name)
            message = f"{share.count} of {share.of} of {finding.name!r} are right, and its name {finding.message}"
            if finding.suggestion:
                command = facts.say("rename", finding.name, finding.suggestion, "--embed")
            else:
                command = facts.say("add", f"{finding.name} = WHAT CAN BE SEEN")
            yield Advice("name", (finding.name,), share.of - share.count, message, command)


def _labels(evaluation: Evaluation) -> Iterator[Advice]:
    """Yield one if there are mistakes as sure as they can be, in classes that are mostly answered rightly."""
    sound = {result.name for result in evaluation.per_class if result.accuracy.share >= 0.5}
    sure = [
        answer
        for answer in evaluation.answers
        if not answer.stranger and not answer.right and answer.score >= SURE and answer.label in sound
    ]
    if sure:
        worst = max(sure, key=lambda answer: answer.score)
        count, whether = ("1 photo is", "it lies") if len(sure) == 1 else (f"{len(sure)} photos are", "they lie")
        message = (
            f"{count} called another class with a score of {SURE:.0%} or more, such as {worst.image} of "
            f"{worst.label!r} ({worst.answer!r}, {worst.score:.0%}): look whether {whether} in the wrong folder"
        )
        yield Advice("labels", tuple(dict.fromkeys(answer.label for answer in sure)), len(sure), message)


def _scores(evaluation: Evaluation, facts: Facts) -> Iterator[Advice]:
    """Yield one if scores are off by more than chance."""
    scores = evaluation.calibration
    if scores.beyond_chance < OFF:
        return
    off = scores.mean_score - scores.accuracy
    message = (
        f"The best score is {scores.mean_score:.0%} on average where {scores.accuracy:.0%} are right: "
        f"scores are too {'sure' if off > 0 else 'modest' if off < 0 else 'coarse'}; "
    )
    if evaluation.accuracy.of >= CALIBRATED_FROM:
        message += "calibrate on labelled photos, and evaluate on others"
    else:
        message += f"calibrate on {CALIBRATED_FROM} labelled photos or more"
    mistakes = round(abs(off) * evaluation.accuracy.of)
    yield Advice("calibrate", (), mistakes, message, facts.say("calibrate", "--photos", "PHOTOS"))
