"""Photos that may lie in the wrong folder: one line, JSON, and a page on which a person decides about each."""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import ClassBank, PhotoSet
from sar_infer.bank.edits import moves
from sar_infer.bundle.bundle import Bundle
from sar_infer.class_model.labels import LabelIssues, label_issues
from sar_infer.class_model.model import ClassModel, Rivals
from sar_infer.evaluation.findings import Finding
from sar_infer.evaluation.html import write_page
from sar_infer.images.thumbnail import file_of, picture_of, short_name

CONFUSED = 0.25
"""Share of the photos of a class that lie nearer to another class from which the pair is reported."""
LIST = "labels.csv"
"""The name under which the page saves its list."""
_MOST_SHOWN, _TYPICAL, _SIDE, _IN_A_LINE = 100, 3, 120, 2
Pair = tuple[tuple[str, str], tuple[str, str]]
"""Photo and class of a photo, and of another one of the same content."""


@dataclass(frozen=True)
class LabelIssue:
    """A photo whose label is in doubt.

    Attributes:
        photo: Its name, the path of a file.
        label: Its class.
        suggested: The class that fits better.
        probability: That the label is right, 0..1.
    """

    photo: str
    label: str
    suggested: str
    probability: float


@dataclass(frozen=True, eq=False)
class LabelCheck:
    """Labels of N photos as their embeddings see them.

    Attributes:
        names: Class names: those of the photos, then those of classes whose photos are not at hand.
        rows: (N, D) unit embeddings.
        labels: (N,) positions in ``names``.
        photos: (N,) name of each, the path of a file.
        only: Rows that are reported on, all by default; other rows only take part in the model.
        others: Photos that are not at hand, as `label_issues` takes them.
        twice: Photos of the same content in two classes.
        copies: Training photos, and test photos of the same content.
    """

    names: Sequence[str]
    rows: Floats
    labels: Indices
    photos: Sequence[str]
    only: Indices | None = None
    others: Rivals | None = None
    twice: Sequence[Pair] = ()
    copies: Sequence[Pair] = ()

    @functools.cached_property
    def result(self) -> LabelIssues:
        """Return the probabilities."""
        return label_issues(self.rows, self.labels, others=self.others)

    @property
    def judged(self) -> Indices:
        """Return the rows that are reported on."""
        return np.arange(len(self.labels)) if self.only is None else self.only

    @property
    def issues(self) -> list[LabelIssue]:
        """Return the photos in doubt, the least probable label first."""
        result = self.result
        return [
            LabelIssue(self.photos[row], self.names[label], self.names[other], round(float(result.probability[row]), 4))
            for row in result.doubtful[np.isin(result.doubtful, self.judged)]
            for label, other in [(self.labels[row], result.suggested[row])]
        ]

    def line(self, page: Path | str | None) -> str | None:
        """Return the line for people, which ends with the page, if any; None if there is nothing to show."""
        issues, parts = self.issues, []
        if issues:
            first = ", ".join(f"{short_name(one.photo)} (like {one.suggested!r})" for one in issues[:_IN_A_LINE])
            verb, more = "looks" if len(issues) == 1 else "look", ", …" * (len(issues) > _IN_A_LINE)
            parts.append(f"{len(issues):,} of {len(self.judged):,} photos {verb} like another class: {first}{more}")
        for pairs, text in ((self.twice, "in two classes"), (self.copies, "in training and test")):
            if pairs:
                parts.append(f"{len(pairs):,} photo{'s' * (len(pairs) > 1)} {text}")
        return "; ".join([*parts, *([] if page is None else [f"page: {page}"])]) if parts else None

    def confused(self) -> Iterator[Finding]:
        """Yield the pairs of classes of which many photos lie nearer to the other class."""
        photos, reported = Counter(self.labels[self.judged].tolist()), set[frozenset[int]]()
        nearer = self.judged[self.result.nearer[self.judged]]
        pairs = Counter(zip(self.labels[nearer].tolist(), self.result.suggested[nearer].tolist(), strict=True))
        for (label, other), count in pairs.most_common():
            if count >= max(2, CONFUSED * photos[label]) and frozenset((label, other)) not in reported:
                reported.add(frozenset((label, other)))
                text = f"{count} of {photos[label]} photos lie nearer to the photos of {self.names[other]!r}"
                message = f"{text}; add photos that show the difference"
                yield Finding("confused", self.names[label], message, self.names[other])

    def findings(self) -> list[Finding]:
        """Return confused pairs and photos in doubt as findings about classes."""
        wrong = (
            Finding("wrong-class", one.label, f"photo {one.photo!r:.200} looks like {one.suggested!r}", one.suggested)
            for one in self.issues
        )
        return [*self.confused(), *wrong]


def check_new_photos(
    bank: ClassBank,
    bundle: Bundle,
    photos: Mapping[str, PhotoSet],
    files: Mapping[tuple[str, bytes], str],
    twice: Sequence[Pair] = (),
) -> LabelCheck:
    """Check the labels of photos that a bank has not.

    Photos whose embeddings are stored take part one by one if no class model was fitted, else by their means.

    Args:
        bank: The bank without them.
        bundle: Its bundle, whose training photos count too.
        photos: The photos by class.
        files: The file of each photo by its class and digest.
        twice: As of `LabelCheck`.
    """
    model = None if bundle.trained is None else bundle.trained.model
    model = model if bank.fitted is None else ClassModel.from_tensors(bank.fitted)
    stored = {name: one for name, one in bank.photos.items() if model is None or name in photos}
    sums, counts = defaultdict[str, Any](lambda: np.zeros(bank.dim)), Counter[str]()  # of those that take part by means
    for name, had in bank.photos.items():
        at_hand = had.rows if name in stored else had.rows[:0]
        sums[name] += had.total - at_hand.sum(0, dtype=np.float64)
        counts[name] += len(had) - len(at_hand)
    if bundle.trained is not None:
        trained = bundle.trained.for_bank(bundle.bank, bank)
        for name, mean, count in zip(trained.names, trained.means, trained.counts.tolist(), strict=True):
            sums[name] += count * mean.astype(np.float64)
            counts[name] += count
    names, none = [*dict.fromkeys([*stored, *photos, *sums])], PhotoSet.of((), np.empty((0, bank.dim), np.float32))
    leaving = defaultdict[str, list[bytes]](list)  # photos that move to one of these classes do not speak against it
    for one in moves(bank, photos):
        leaving[one.old].append(one.digest)
    every = list[tuple[int, str, Floats, bool]]()  # label, name and embedding of each photo, and if it is new
    for label, name in enumerate(names):
        old, new = stored.get(name, none).without(leaving.get(name, ())), photos.get(name, none).recent.items()
        every += [(label, f"photo {n} of {name}", row, False) for n, row in enumerate(old.rows, 1)]
        added = [(files.get((name, one)), row) for one, row in new if one not in old.digest_set]
        every += [(label, file or f"new photo {n} of {name}", row, True) for n, (file, row) in enumerate(added, 1)]
    numbers = np.array([counts[name] for name in names], np.float64)
    means = np.array([sums[name] for name in names]).reshape(-1, bank.dim) / np.maximum(numbers, 1)[:, None]
    return LabelCheck(
        names,
        np.array([row for _, _, row, _ in every], np.float32).reshape(-1, bank.dim),
        np.array([label for label, *_ in every], np.intp),
        [shown for _, shown, _, _ in every],
        only=np.flatnonzero([judged for *_, judged in every]),
        others=Rivals(means, means, numbers, model),
        twice=twice,
    )


def write_labels(path: Path, check: LabelCheck, title: str, command: str = "") -> None:
    """Write the page on which a person keeps, moves or drops photos: one HTML file that saves a list and a script.

    Args:
        path: The file.
        check: What to show; names of photos that are no file have no picture.
        title: What was checked.
        command: The command that takes the list.

    Raises:
        WriteError: The file cannot be written.
    """

    def photo(name: str, label: str) -> dict[str, Any]:
        shown = {"name": short_name(name), "path": file_of(name), "picture": picture_of(name, _SIDE)}
        return shown | {"label": label}

    def typical(name: str) -> list[dict[str, Any]]:
        sure = np.setdiff1d(np.flatnonzero(check.labels == list(check.names).index(name)), check.result.doubtful)
        nearness = check.rows[sure] @ check.rows[sure].mean(0) if len(sure) else np.zeros(0)
        return [photo(check.photos[row], name) for row in sure[np.argsort(-nearness)[:_TYPICAL]]]

    issues = check.issues
    shown = issues[:_MOST_SHOWN]
    names = dict.fromkeys(name for one in shown for name in (one.label, one.suggested))
    data = {
        "command": command,
        "list": LIST,
        "judged": len(check.judged),
        "total": len(issues),
        "issues": [vars(one) | {"photo": photo(one.photo, one.label)} for one in shown],
        "typical": {name: typical(name) for name in names},
        "twice": [[photo(*one) for one in pair] for pair in check.twice[:_MOST_SHOWN]],
        "copies": [[photo(*one) for one in pair] for pair in check.copies[:_MOST_SHOWN]],
    }
    write_page(path, "labels", title, data)
