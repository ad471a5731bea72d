"""The class of the package: asks about the photos of a heap, stores the answers, and makes a bank of them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.bank import PhotoSet, edits
from sar_infer.bundle.bank_file import BankFile, check_place
from sar_infer.bundle.bundle import Bundle, Place, empty_bank
from sar_infer.classifier import Classifier
from sar_infer.errors import BankError, ClassNameError, InputError
from sar_infer.labelling import answers, choice, output
from sar_infer.labelling.answers import Answers, Look, Row
from sar_infer.labelling.beliefs import Beliefs
from sar_infer.labelling.choice import Sample
from sar_infer.labelling.estimate import EVERY, Estimate, interval, verdict
from sar_infer.labelling.heap import Heap, Photos, held_out, held_out_share
from sar_infer.text.names import name_key

_FIRST = 100
"""Photos that are embedded before the first question."""
_AUDITS, _EACH = 20, 4
"""Answers after which one question of four is held out."""
_SHOWN = 60
"""Photos of a class that are asked about together."""
_BEST = 5
_NEAREST = 256
"""Photos that are looked at as companions of a photo."""
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Question:
    """A question: which class do these photos show?

    Attributes:
        kind: ``photo``: one photo. ``group``: a photo, and others that seem to be of its class. ``class``: photos that
            seem to be of a class.
        photos: Their paths; of a group, the chosen photo first.
        proposals: Up to five likely classes of the first photo with their probabilities, the likeliest first.
        held_out: Whether it is a held-out photo, which people who answer must not know.
    """

    kind: Literal["group", "photo", "class"]
    photos: tuple[str, ...]
    proposals: tuple[tuple[str, float], ...]
    held_out: bool


@dataclass(frozen=True)
class Guess:
    """The label of a photo and the probability of it.

    Attributes:
        photo: Its path.
        name: Its class: answered (None is *none of the classes*), or else the likeliest.
        probability: Of that class by the present answers, 0 to 1.
        answered: Whether it was answered.
    """

    photo: str
    name: str | None
    probability: float
    answered: bool


class Labelling:
    """A heap of photos, the answers about it, and what follows from them. Safe to share between threads.

    Photos are embedded in the background, each file once, and are known by the digest of their pixels, so that answers
    outlive a moved folder. Each answer is committed before it counts. A random part of the heap is held out: from the
    twentieth answer on, every fourth question is one of it. Its answers neither teach nor steer the questions. They
    measure the accuracy.

    Args:
        photos: A folder, a list (a path a line, or CSV with ``photo`` and ``class``, whose classes are answers), or
            paths.
        bank: The bank file to write.
        answers: The file of answers; by default the bank file with the suffix ``.answers``.
        by: The person who answers, stored with each answer.
        bundle: The bundle of the encoder, as ``Classifier`` takes it; by default the shipped one.
        classifier: An open classifier instead, whose encoder is used.
        target: Accuracy, 0 to 1, that is enough.
        cache: Folder that stores embeddings; by default the bank file with the suffix ``.embeddings``.

    Attributes:
        photos: The paths of the photos; they do not change while this is open.

    Raises:
        InputError: There is no photo, or a file cannot be used: the answers file is damaged, for example.
        BankError: The bank file is damaged or of another encoder.
        WriteError: Another process has the answers file, or the file cannot be written.
    """

    def __init__(
        self,
        photos: Photos,
        *,
        bank: str | os.PathLike[str],
        answers: str | os.PathLike[str] | None = None,
        by: str = "",
        bundle: Bundle | Place | None = None,
        classifier: Classifier | None = None,
        target: float = 0.9,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        check_place(Path(bank))
        self._classifier = Classifier(bundle) if classifier is None else classifier
        self._file = BankFile(Path(bank), self._classifier.bundle)
        self._by, self._target = by, target
        self._heap = Heap(photos, self._classifier, Path(cache or Path(bank).with_suffix(".embeddings")))
        self.photos = self._heap.paths
        self._answers = Answers(Path(answers or Path(bank).with_suffix(".answers")), by)
        self._share = float(self._answers.setting("held out", str(held_out_share(len(self.photos)))))
        self._draws: list[float | None] = []
        self._question: Question | None = None
        self._believed: tuple[object, Beliefs | None] = None, None
        self._sampled: Sample | None = None
        self._before: dict[str, str] = {}
        self._heap.start()

    def __enter__(self) -> Labelling:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop embedding and close the answers file; every answer is stored already."""
        self._heap.close()
        with self._heap.changed:
            self._answers.close()

    # ------------------------------------------------------------------------------------------------------ the heap
    @property
    def unreadable(self) -> dict[str, str]:
        """Return the reason by path of each photo that cannot be read, of those tried so far."""
        with self._heap.changed:
            return dict(self._heap.unreadable)

    @property
    def progress(self) -> tuple[int, int]:
        """Return the number of photos that were embedded or cannot be read, and of all."""
        return self._heap.done, len(self.photos)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the class names of the encoder, for completion."""
        return tuple(self._classifier.bundle.bank.names)

    def wait(self, count: int | None = None) -> None:
        """Wait until so many photos, by default all, are embedded or cannot be read, and one is embedded.

        Raises:
            InputError: None of the photos can be read.
            SarInferError: The encoder failed, or embeddings cannot be stored.
        """
        number = len(self.photos) if count is None else count
        with self._heap.changed:
            heap = self._heap
            heap.changed.wait_for(lambda: heap.ended or bool(heap.done >= number and heap.digests))
            if self._heap.failure is not None:
                raise self._heap.failure
            if self._heap.ended and not self._heap.digests:
                path, reason = next(iter(self._heap.unreadable.items()))
                raise InputError(f"none of {len(self.photos):,} photos can be read; {path}: {reason}")

    # ----------------------------------------------------------------------------------------------------- questions
    def ask(self, name: str | None = None) -> Question | None:
        """Return the next question, the same until it is answered or skipped; None if no embedded photo is open.

        It waits until the first 100 photos are embedded.

        Args:
            name: A class, to return its likeliest open photos as a question of the kind ``class``.

        Raises:
            InputError: None of the photos can be read.
        """
        self.wait(_FIRST)
        with self._heap.changed:
            if name is not None:
                likely = [guess for guess in self.guesses(name) if not guess.answered][:_SHOWN]
                if not likely:
                    return None
                return Question("class", tuple(g.photo for g in likely), ((name, likely[0].probability),), False)
            if self._question is None:
                self._question = self._next()
            return self._question

    def answer(self, labels: Mapping[str, str | None]) -> None:
        """Commit the classes of photos; those of a group that are left out stay open.

        Args:
            labels: The class of each photo; None is *none of the classes*. A photo that was answered before moves.

        Raises:
            InputError: A photo is not of the heap or not embedded yet, or there is none.
            ClassNameError: A name is empty, too long or unsound.
            WriteError: The answer cannot be stored; nothing was changed.
        """
        with self._heap.changed:
            if not labels:
                raise InputError("an answer without a photo; expected {photo: class}, or skip(photo)")
            numbers = {photo: self._number(photo) for photo in labels}
            names = self._spelled(name for name in labels.values() if name is not None)
            question = self._question
            asked = question.photos if question and not numbers.keys().isdisjoint(question.photos) else ()
            kind = answers.GROUPED if len(asked) > 1 else answers.ANSWERED
            rows = list[tuple[str, bytes, str, str | None]]()
            for photo in dict.fromkeys((*asked, *labels)):
                digest, label = self._heap.digests[self._number(photo)], labels.get(photo)
                of_kind = answers.OPEN if photo not in labels else kind if photo in asked else answers.ANSWERED
                rows.append((of_kind, digest, photo, None if label is None else names[label]))
            self._answers.add(rows)
            self._question = None
            if answers.count(self._answers.rows) % EVERY == 0:
                self._look()

    def skip(self, *photos: str) -> None:
        """Put photos, by default the first one of the question, behind all others.

        Raises:
            InputError: There is no such photo, or no question.
            WriteError: It cannot be stored; nothing was changed.
        """
        with self._heap.changed:
            chosen = photos or (self._question.photos[:1] if self._question else ())
            if not chosen:
                raise InputError("no question to skip; ask() first")
            numbers = [(photo, self._number(photo)) for photo in chosen]
            self._answers.add([(answers.SKIPPED, self._heap.digests[n], photo, None) for photo, n in numbers])
            self._question = None

    def undo(self) -> tuple[str, ...]:
        """Take back the latest answer or skip, and ask it again; return its photos, or () if there is none.

        Raises:
            WriteError: The file cannot be written; nothing was changed.
        """
        with self._heap.changed:
            rows = [row for row in self._answers.undo() if self._heap.number_of(row.digest) is not None]
            numbers = [self._heap.number_of(row.digest) or 0 for row in rows]
            if rows and (len(rows) == 1 or rows[0].kind in (answers.GROUPED, answers.OPEN)):
                self._question = self._asked(numbers)
            elif rows:
                self._question = None
            return tuple(self._heap.files[number][0] for number in numbers)

    # ------------------------------------------------------------------------------------------------------ estimates
    def estimate(self) -> Estimate:
        """Return the accuracy on new photos with its 90 % interval, and whether it is enough."""
        with self._heap.changed:
            self._sync()
            judged, labels = self._judged(), answers.labels(self._answers.rows)
            right = sum(label == predicted for _, label, predicted in judged)
            low, high = interval(right, len(judged)) if judged else (0.0, 1.0)
            looks = self._answers.looks()
            enough, why = verdict(looks, self._target, held_out=self._share > 0)
            accuracy, total = right / len(judged) if judged else None, len(self._heap.digests)
            answered = sum(digest in labels for digest in self._heap.digests)
            here = None if accuracy is None else (answered + (total - answered) * accuracy) / total
            count = answers.count(self._answers.rows)
            return Estimate(accuracy, low, high, len(judged), count, enough, why, here)

    def curve(self) -> tuple[Estimate, ...]:
        """Return the estimate after each ten answers, the oldest first."""
        with self._heap.changed:
            looks = self._answers.looks()
        return tuple(Estimate(look.accuracy, look.low, look.high, look.held_out, look.answers) for look in looks)

    def confusions(self) -> tuple[tuple[str, str, tuple[str, ...]], ...]:
        """Return class, predicted class and photos of the held-out photos that are predicted wrong, most first."""
        with self._heap.changed:
            self._sync()
            pairs: dict[tuple[str, str], list[str]] = {}
            for number, label, predicted in self._judged():
                if predicted is not None and label != predicted:
                    pairs.setdefault((label, predicted), []).append(self._heap.files[number][0])
        return tuple((*pair, tuple(of)) for pair, of in sorted(pairs.items(), key=lambda item: -len(item[1])))

    def classes(self) -> dict[str, int]:
        """Return the number of answered photos of each class by its name, in the order of their first answers."""
        with self._heap.changed:
            counts: dict[str, int] = {}
            for label in answers.labels(self._answers.rows).values():
                if label is not None:
                    counts[label] = counts.get(label, 0) + 1
        return counts

    def guesses(self, name: str | None = None) -> tuple[Guess, ...]:
        """Return the photos of a class, answered or likely, the surest first; held-out photos only once answered.

        Args:
            name: A class; None is *none of the classes*, whose photos are all answered.
        """
        with self._heap.changed:
            guesses = [guess for guess in self._guesses() if guess.name == name]
        return tuple(sorted(guesses, key=lambda guess: -guess.probability))

    def open(self) -> tuple[Guess, ...]:
        """Return the photos that are not answered and not held out, the least sure first."""
        with self._heap.changed:
            guesses = [guess for guess in self._guesses() if not guess.answered]
        return tuple(sorted(guesses, key=lambda guess: guess.probability))

    def answer_of(self, photo: str) -> str | None:
        """Return the class that a photo was given; None is *none of the classes*.

        Raises:
            InputError: The photo is not of the heap or not embedded yet.
            KeyError: It is open.
        """
        with self._heap.changed:
            labels, digest = answers.labels(self._answers.rows), self._heap.digests[self._number(photo)]
        if digest not in labels:
            raise KeyError(photo)
        return labels[digest]

    # --------------------------------------------------------------------------------------------------------- results
    def save(self) -> Path:
        """Write the bank of the photos that teach, and return its path.

        A bank that this has written is replaced; any other one gets the photos.

        Raises:
            InputError: There are fewer than two classes.
            WriteError: Another process is changing the bank file, or it cannot be written.
        """
        with self._heap.changed:
            self._sync()
            sets: dict[str, list[int]] = {}
            for number, label in self._teaching():
                sets.setdefault(label, []).append(number)
            photos = {name: self._photo_set(numbers) for name, numbers in sets.items()}
            written = self._answers.setting("bank", "-")
        content = output.write_bank(self._file, self._classifier, photos, self._by or "sar-label", written)
        with self._heap.changed:
            self._answers.set("bank", content)
        return self._file.path

    def folders(self, out: str | os.PathLike[str], *, links: bool = False) -> int:
        """Copy the photos with a class into folders named by class, and return their number.

        Args:
            out: A new or empty folder.
            links: Make symbolic links instead of copies.

        Raises:
            InputError: The folder has content.
            WriteError: A photo cannot be copied.
        """
        return output.write_folders(Path(out), self._labelled(), links=links)

    def list(self, out: str | os.PathLike[str]) -> int:
        """Write class and path of the photos with a class to a CSV list, and return their number.

        Raises:
            WriteError: The list cannot be written.
        """
        return output.write_list(Path(out), self._labelled())

    # -------------------------------------------------------------------------------------------------------- privates
    def _number(self, photo: str) -> int:
        number = self._heap.numbers.get(photo)
        if number is None:
            raise InputError(f"{photo}: not an embedded photo of this heap")
        return number

    def _spelled(self, names: Iterable[str]) -> dict[str, str]:
        """Return the spelling by name of classes: that of the first answer, whatever its case and space."""
        spellings = {name_key(name): name for name in self.classes()}
        result: dict[str, str] = {}
        for name in names:
            clean = " ".join(unicodedata.normalize("NFC", name).split())
            self._classifier.check_name(clean)
            try:
                edits.check_names(empty_bank(self._classifier.bundle), [clean])
            except BankError as error:
                raise ClassNameError(str(error)) from None
            result[name] = spellings.setdefault(name_key(clean), clean)
        return result

    def _sync(self) -> None:
        """Take in what was embedded since the last call: its place among the held-out photos, the list's classes."""
        heap, fresh = self._heap, range(len(self._draws), len(self._heap.digests))
        if heap.names and fresh:
            had = answers.labels(self._answers.rows)
            named = [(n, heap.names[path]) for n in fresh for path in heap.files[n][:1] if path in heap.names]
            names = self._spelled(name for _, name in named)
            new = [
                (answers.LISTED, heap.digests[n], heap.files[n][0], names[name])
                for n, name in named
                if heap.digests[n] not in had
            ]
            if new:
                self._answers.add(new)
        listed = {row.digest for row in self._answers.rows if row.kind == answers.LISTED} if fresh else set()
        for number in fresh:
            digest = heap.digests[number]
            self._draws.append(None if digest in listed else held_out(digest, self._share))

    def _teaching(self) -> Iterator[tuple[int, str]]:
        """Yield number and class of each photo that teaches."""
        for digest, label in answers.labels(self._answers.rows).items():
            number = self._heap.number_of(digest)
            if number is not None and label is not None and number < len(self._draws) and self._draws[number] is None:
                yield number, label

    def _judged(self) -> Sequence[tuple[int, str, str | None]]:
        """Return number, class and predicted class of each held-out photo that was answered with a class."""
        labels = answers.labels(self._answers.rows)
        held = [number for number, draw in enumerate(self._draws) if draw is not None]
        pairs = [(number, label) for number in held if (label := labels.get(self._heap.digests[number])) is not None]
        beliefs = self._beliefs()
        if not pairs or beliefs is None:
            return [(number, label, None) for number, label in pairs]
        best = beliefs.probabilities(self._heap.rows[[number for number, _ in pairs]]).argmax(axis=1)
        return [(n, label, beliefs.names[k]) for (n, label), k in zip(pairs, best.tolist(), strict=True)]

    def _beliefs(self) -> Beliefs | None:
        """Return what the answers that teach say; None before the first."""
        version = (self._answers.rows[-1:], len(self._answers.rows), len(self._draws))
        if self._believed[0] != version:
            pairs = [*self._teaching()]
            names = [*dict.fromkeys(label for _, label in pairs)]
            beliefs = None
            if pairs:
                texts = self._classifier.class_rows({name: (name,) for name in names}, names)
                column = {name: number for number, name in enumerate(names)}
                labels = np.array([column[label] for _, label in pairs])
                manifest = self._classifier.bundle.manifest
                rows = self._heap.rows[[number for number, _ in pairs]]
                named = manifest.tokenizer is not None
                beliefs = Beliefs.of(names, texts, rows, labels, manifest.logit_scale, named)
            self._believed = version, beliefs
        return self._believed[1]

    def _next(self) -> Question | None:
        """Choose the next question."""
        self._sync()
        labels, heap = answers.labels(self._answers.rows), self._heap
        skipped = {row.digest for row in self._answers.rows if row.kind == answers.SKIPPED}
        answered = np.array([digest in labels for digest in heap.digests], np.bool_)
        later = np.array([digest in skipped for digest in heap.digests], np.bool_) & ~answered
        teaches = np.array([draw is None for draw in self._draws], np.bool_)
        open_ = teaches & ~answered & ~later
        audits = np.flatnonzero(~teaches & ~answered & ~later).tolist()
        count = answers.count(self._answers.rows)
        if audits and (not open_.any() or (count >= _AUDITS and count % _EACH == _EACH - 1)):
            return self._asked([min(audits, key=lambda number: self._draws[number] or 0.0)])
        if open_.any():
            sample = self._sample(teaches, open_)
            taught = np.flatnonzero(teaches & answered)
            chosen = int(sample.photos[self._chosen(sample, open_[sample.photos], taught)])
            return self._asked([chosen, *self._companions(sample, chosen, open_, taught)])
        if not later.any():
            return None
        order = {row.digest: place for place, row in enumerate(self._answers.rows) if row.kind == answers.SKIPPED}
        return self._asked([min(np.flatnonzero(later).tolist(), key=lambda number: order[heap.digests[number]])])

    def _sample(self, teaches: Flags, open_: Flags) -> Sample:
        """Return the part of the heap to choose from: numbers are in random order, so the first are a random part."""
        photos = np.flatnonzero(teaches)[: choice.SAMPLE]
        if int(open_[photos].sum()) < min(_NEAREST, int(open_.sum())):
            photos = np.flatnonzero(open_)[: choice.SAMPLE]
        if self._sampled is None or not np.array_equal(self._sampled.photos, photos):
            self._sampled = Sample.of(photos, self._heap.rows[photos])
        return self._sampled

    def _chosen(self, sample: Sample, open_: Flags, taught: Indices) -> int:
        beliefs = self._beliefs()
        firsts = {row.question: row.label for row in reversed(self._answers.rows) if row.kind in _COUNTED}
        held = {self._heap.digests[number] for number, draw in enumerate(self._draws) if draw is not None}
        audited = {row.question for row in self._answers.rows if row.digest in held}
        latest = [label for question, label in sorted(firsts.items()) if question not in audited]
        if beliefs is None or len(beliefs.names) < 2 or choice.brings_classes(latest):
            return choice.covering(sample, open_, self._covered(sample.photos, taught))
        return choice.doubtful(sample, open_, beliefs.probabilities(self._heap.rows[sample.photos]))

    def _covered(self, photos: Indices, taught: Indices) -> Floats:
        """Return the largest cosine (N,) of each of some photos and an answered one."""
        rows = self._heap.rows
        result: Floats = (rows[photos] @ rows[taught].T).max(axis=1, initial=-1)
        return result

    def _companions(self, sample: Sample, chosen: int, open_: Flags, taught: Indices) -> Sequence[int]:
        rows = self._heap.rows
        cosines = np.where(open_, rows @ rows[chosen], -2)
        cosines[chosen] = -2
        nearest = np.argsort(-cosines, kind="stable")[:_NEAREST]
        alike, beliefs = np.zeros(len(nearest), np.bool_), self._beliefs()
        if beliefs is not None and len(beliefs.names) > 1:
            best = beliefs.probabilities(rows[np.append(nearest, chosen)]).argmax(axis=1)
            alike = best[:-1] == best[-1]
        least = choice.threshold(sample, *self._groups())
        covered = self._covered(nearest, taught)
        numbers: Sequence[int] = nearest[choice.companions(cosines[nearest], covered, alike, least)].tolist()
        return numbers

    def _groups(self) -> tuple[Floats, Flags]:
        """Return the cosine of each photo that came with a chosen one, and whether it was of the same class."""
        groups: dict[int, list[Row]] = {}
        for row in self._answers.rows:
            if row.kind in (answers.GROUPED, answers.OPEN):
                groups.setdefault(row.question, []).append(row)
        cosines, same = list[float](), list[bool]()
        for first, *others in groups.values():
            chosen = self._heap.number_of(first.digest)
            numbers = [(self._heap.number_of(row.digest), row) for row in others]
            if chosen is not None and first.label is not None:
                pairs = [(number, row) for number, row in numbers if number is not None]
                cosines += (self._heap.rows[[n for n, _ in pairs]] @ self._heap.rows[chosen]).tolist() if pairs else []
                same += [row.label == first.label for _, row in pairs]
        return np.array(cosines, np.float32), np.array(same, np.bool_)

    def _asked(self, numbers: Sequence[int]) -> Question:
        self._sync()
        beliefs, proposals = self._beliefs(), list[tuple[str, float]]()
        if beliefs is not None:
            shares = beliefs.probabilities(self._heap.rows[[numbers[0]]])[0]
            proposals = [(beliefs.names[k], float(shares[k])) for k in np.argsort(-shares)[:_BEST].tolist()]
        photos = tuple(self._heap.files[number][0] for number in numbers)
        held = self._draws[numbers[0]] is not None
        return Question("group" if len(photos) > 1 else "photo", photos, tuple(proposals), held)

    def _guesses(self) -> Iterator[Guess]:
        """Yield what is known of each photo, of held-out ones once they are answered."""
        self._sync()
        labels, heap, beliefs = answers.labels(self._answers.rows), self._heap, self._beliefs()
        shares: npt.NDArray[Any] = (
            np.zeros((len(heap.digests), 1)) if beliefs is None else beliefs.probabilities(heap.rows)
        )
        best, column = shares.argmax(axis=1), {name: k for k, name in enumerate(beliefs.names if beliefs else ())}
        for number, digest in enumerate(heap.digests):
            photo = heap.files[number][0]
            if digest in labels:
                name = labels[digest]
                sure = float(shares[number, column[name]]) if name in column else 0.0
                yield Guess(photo, name, sure, True)
            elif self._draws[number] is None:
                name = None if beliefs is None else beliefs.names[best[number]]
                yield Guess(photo, name, float(shares[number, best[number]]), False)

    def _look(self) -> None:
        """Store the estimate after ten answers, and how many predictions on the heap are as they were at the last."""
        now = {guess.photo: guess.name or "" for guess in self._guesses() if not guess.answered}
        same = [name == self._before[photo] for photo, name in now.items() if photo in self._before]
        self._before = now
        one = self.estimate()
        agreement = float(np.mean(same)) if same else None
        self._answers.add_look(Look(one.answers, one.accuracy, one.low, one.high, one.held_out, agreement))

    def _photo_set(self, numbers: Sequence[int]) -> PhotoSet:
        digests = [self._heap.digests[number] for number in numbers]
        named = self._classifier.bundle.manifest.tokenizer is not None
        return PhotoSet.of(digests, self._heap.rows[[*numbers]], photos_only=not named)

    def _labelled(self) -> Sequence[tuple[str, str]]:
        """Return class and path of each photo that was answered with a class, of each file with its pixels."""
        with self._heap.changed:
            labels = answers.labels(self._answers.rows)
            pairs = [(labels.get(d), paths) for d, paths in zip(self._heap.digests, self._heap.files, strict=True)]
            return [(label, path) for label, paths in pairs if label is not None for path in paths]


_COUNTED = (answers.ANSWERED, answers.GROUPED)
