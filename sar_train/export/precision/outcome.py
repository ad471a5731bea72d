"""What came of each part that a bundle was to get: for people, and for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sar_train.errors import ExportError
from sar_train.export.precision.jpeg import Policy
from sar_train.export.precision.variants import Attempt


@dataclass(frozen=True)
class Outcome:
    """What was tried.

    Attributes:
        attempts: smaller graphs.
        policy: for large JPEGs; None where it was not asked for.
    """

    attempts: tuple[Attempt, ...] = ()
    policy: Policy | None = None

    @property
    def runs(self) -> list[str]:
        """Precisions whose image encoder was kept."""
        return [a.precision for a in self.attempts if a.encoder == "image" and not a.failures]

    @property
    def missing(self) -> list[str]:
        """What was asked for and left out: a precision without its image encoder, or the policy; with the reasons."""
        found = [
            _reasons(_what(a), a.failures) for a in self.attempts if a.encoder == "image" and a.failures
        ]  # without a name encoder, that of float32 runs
        if self.policy is not None and self.policy.failures:
            found.append(_reasons(f"jpeg margin {self.policy.margin:g}", self.policy.failures))
        return found

    @property
    def lines(self) -> list[str]:
        """For people, a line a part."""
        lines = [_attempt(attempt) for attempt in self.attempts]
        return lines if self.policy is None else [*lines, _policy(self.policy)]

    def plain(self) -> list[dict[str, Any]]:
        """For programs: of each part what was asked, whether it was kept, figures and reasons."""
        return list(self._plain())

    def _plain(self) -> Iterator[dict[str, Any]]:
        for a in self.attempts:
            figures = None if a.variant is None else dataclasses.asdict(a.variant)
            yield _object({"precision": a.precision, "encoder": a.encoder}, figures, a.failures)
        if self.policy is not None:
            found = self.policy.figures
            figures = None if found is None else dataclasses.asdict(found)
            yield _object({"jpeg_margin": self.policy.margin}, figures, self.policy.failures)


class NothingPassedError(ExportError):
    """Nothing that was asked for may stay; ``outcome`` says why."""

    def __init__(self, message: str, outcome: Outcome) -> None:
        super().__init__(message)
        self.outcome = outcome


def _object(asked: dict[str, Any], figures: dict[str, Any] | None, failures: Sequence[str]) -> dict[str, Any]:
    return {**asked, "kept": not failures, "figures": figures, "reasons": list(failures)}


def _what(attempt: Attempt) -> str:
    return f"{attempt.precision} {attempt.encoder} encoder"


def _reasons(what: str, failures: Sequence[str]) -> str:
    return f"{what} ({'; '.join(failures)})"


def _verdict(failures: Sequence[str]) -> str:
    return _reasons("left out", failures) if failures else "kept"


def _attempt(attempt: Attempt) -> str:
    variant = attempt.variant
    if variant is None:
        return f"{_what(attempt)}: {_verdict(attempt.failures)}"
    kind = "photos" if attempt.encoder == "image" else "names"
    return (
        f"{_what(attempt)}: {variant.method}, {variant.samples:,} {kind}, cosine {variant.mean_cosine:.5f} on average, "
        f"{variant.min_cosine:.5f} on the worst, same class {variant.top1_agreement:.1%}, {variant.speedup:.2f} times "
        f"as fast; {'; '.join(variant.notes)}: {_verdict(attempt.failures)}"
    )


def _policy(policy: Policy) -> str:
    found = policy.figures
    if found is None:
        return f"jpeg margin {policy.margin:g}: {_verdict(policy.failures)}"
    return (
        f"jpeg margin {policy.margin:g}: {found.samples} large photos, cosine {found.mean_cosine:.5f} on average, "
        f"{found.min_cosine:.5f} on the worst, same class {found.top1_agreement:.1%}: {_verdict(policy.failures)}"
    )
