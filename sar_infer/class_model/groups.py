"""Groups of photos that are of no class yet, and photos whose label would help most: plain functions on arrays.

All distances are squared Mahalanobis distances under the precision matrix P of the class model. Features are
whitened, ``z = (x - centre) L`` with ``P = L L'``, so that they become squared lengths.

**Groups.** Ward's clustering (Ward, "Hierarchical Grouping to Optimize an Objective Function", 1963) of all photos. The
mean of n photos of a class has covariance (v + 1/n) S around the mean that the class model gives it, that of n photos
of a class which the bank lacks (1/k0 + 1/n) S around the centre: a group looks like the class of the largest density,
unless the latter is larger. How many groups: new classes are taken to be as common as those of the bank. If groups that
look like M classes have a share of the photos, there are M / share classes, and a few groups are made for each.

**Labels.** The doubt about a photo is one minus the margin of its two best scores. Photos are chosen one after another
so that as much doubt as possible lies near one of them: facility location by the greedy algorithm (Nemhauser, Wolsey
and Fisher, 1978), as in submodular active learning (Wei, Iyer and Bilmes, ICML 2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sar_infer._arrays import Floats, Indices
from sar_infer.class_model.model import ClassModel, Doubles
from sar_infer.errors import InputError, install

LABELS = 20
"""Photos that are named as worth a label, at most."""
NEAREST = 3
"""Classes reported with a group, and best classes of a photo that are considered."""
_GROUPS = 3
"""Groups for each class that is expected."""
_PHOTOS = 4
"""Photos that a group has on average, at least."""
_ANSWERED = 0.5
"""Mean score from which a group looks like a class where there is no model and text answers."""
_CLUSTERED, _CHOSEN_AMONG = 4096, 2048
"""Photos that are clustered, and that are chosen among: of more a sample is drawn, since both take their square."""
_NEAR = 0.2
"""Share of pairs of photos that count as near each other."""
_CHUNK = 8192


@dataclass(frozen=True, eq=False)
class Answers:
    """The best answers for N photos, and the K classes that they name.

    Attributes:
        classes: (N, T) row of each answered class among the K, the best first.
        scores: (N, T) their scores.
        means: (K, D) means of the classes.
        counts: (K,) photos of each; 0 for a class known by name only.
    """

    classes: Indices
    scores: Floats
    means: Doubles
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Group:
    """Photos that look alike.

    Attributes:
        photos: (n,) their rows, the most typical first.
        like: The class, one of the K, that they look like; None if they look like none.
        nearest: At most `NEAREST` classes with their mean score over the group, the best first.
    """

    photos: Indices
    like: int | None
    nearest: tuple[tuple[int, float], ...]


@dataclass(frozen=True, eq=False)
class Suggestions:
    """Suggestions for photos that nobody labelled.

    Attributes:
        groups: Those that look like no class first, and of these the largest; every photo is in one.
        labels: Rows of photos whose label would help most, the best first.
    """

    groups: tuple[Group, ...]
    labels: Indices


def suggest(model: ClassModel | None, features: Floats, answers: Answers) -> Suggestions:
    """Return groups of photos and the photos worth a label.

    Args:
        model: The class model; None where names are all that is known: distances are then Euclidean, and scores decide
            which class a group looks like.
        features: (N, D) unit image features.
        answers: What the bank answers for them.

    Raises:
        InputError: scipy is not installed.
    """
    if not len(features):
        return Suggestions((), np.empty(0, np.intp))
    white = features.astype(np.float64) if model is None else (features - model.centre) @ model.root
    return Suggestions(_groups(white, model, answers), worth_a_label(white, answers.scores))


def worth_a_label(white: Doubles, scores: Floats, count: int = LABELS) -> Indices:
    """Return the photos near which most doubt lies, the best first.

    The first is the photo i with the largest ``sum_j (1 - margin_j) near_ij``, where ``near_ij`` falls from 1 to 0 as
    the squared distance grows to the fifth part of all; what is near a chosen photo no longer counts.

    Args:
        white: (N, D) whitened features, of which 2,048 at most are looked at.
        scores: (N, T) of the best answers, the best first.
        count: Photos to return, at most.
    """
    rows = _sample(len(white), _CHOSEN_AMONG)
    points, best = white[rows], scores[rows].astype(np.float64)
    doubts = 1 - (best[:, 0] - best[:, 1] if best.shape[1] > 1 else best[:, 0])
    distances = _squares(points, points)
    reach = max(float(np.quantile(distances, _NEAR)), 1e-9 * float(distances.max()), np.finfo(np.float64).tiny)
    near = np.maximum(0.0, 1 - distances / reach)
    covered, chosen = np.zeros(len(rows)), list[int]()
    for _ in range(min(count, len(rows))):
        gains = np.maximum(0.0, near - covered) @ doubts
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered = np.maximum(covered, near[chosen[-1]])
    result: Indices = rows[np.array(chosen, np.intp)]
    return result


def _groups(white: Doubles, model: ClassModel | None, answers: Answers) -> tuple[Group, ...]:
    """Return the groups of N whitened photos (N, D)."""
    cut, means, size = _clustered(white), answers.means, white.shape[1]
    spreads = np.zeros(len(means))
    if model is not None:  # of the classes, and of a class that the bank lacks
        means = np.append((means - model.centre) @ model.root, np.zeros((1, size)), axis=0)
        spreads = 1 / np.append(answers.counts + model.prior, model.broad)

    def likeness(numbers: Indices) -> Indices:
        """Return the class (G,) that each group looks like, K for none."""
        if model is None:
            shares = _mean_scores(numbers, answers, len(means))
            return np.where(shares.max(axis=1) >= _ANSWERED, shares.argmax(axis=1), len(means))
        spread = spreads + 1 / np.bincount(numbers)[:, None]
        deviances: Doubles = _squares(_centres(white, numbers), means) / spread + size * np.log(spread)
        nearest: Indices = deviances.argmin(axis=1)
        return nearest

    classes, most = len(answers.means), max(1, len(white) // _PHOTOS)
    numbers = cut(min(_GROUPS * classes, most))
    like = likeness(numbers)
    owned = like < classes
    expected = len(set(like[owned].tolist())) / owned[numbers].mean() if owned.any() else classes
    numbers = cut(min(round(_GROUPS * expected), most))
    like, shares, centres = likeness(numbers), _mean_scores(numbers, answers, classes), _centres(white, numbers)
    groups = []
    for number, alike in enumerate(like.tolist()):
        members = np.flatnonzero(numbers == number)
        typical = members[np.argsort(((white[members] - centres[number]) ** 2).sum(axis=1), kind="stable")]
        best = np.argsort(-shares[number], kind="stable")[:NEAREST]
        nearest = tuple((int(row), float(shares[number, row])) for row in best if shares[number, row] > 0)
        groups.append(Group(typical, alike if alike < classes else None, nearest))
    return tuple(sorted(groups, key=lambda group: (group.like is not None, -len(group.photos))))


def _centres(white: Doubles, numbers: Indices) -> Doubles:
    """Return the centres (G, D) of groups."""
    centres = np.zeros((int(numbers.max()) + 1, white.shape[1]))
    np.add.at(centres, numbers, white)
    return centres / np.bincount(numbers)[:, np.newaxis]


def _mean_scores(numbers: Indices, answers: Answers, classes: int) -> Doubles:
    """Return the mean score (G, K) of each class over each group; answers below the best T count nothing."""
    sizes = np.bincount(numbers)
    sums = np.zeros((len(sizes), classes))
    np.add.at(sums, (np.broadcast_to(numbers[:, np.newaxis], answers.classes.shape), answers.classes), answers.scores)
    result: Doubles = sums / sizes[:, np.newaxis]
    return result


def _clustered(white: Doubles) -> Callable[[int], Indices]:
    """Return what cuts Ward's clustering of a sample of photos (N, D) into about as many groups, 1 at least.

    It returns the number (N,) of each photo's group, 0 to G - 1; photos beyond the sample join the nearest group.
    """
    rows = _sample(len(white), _CLUSTERED)
    if len(rows) < 2:
        return lambda groups: np.zeros(len(white), np.intp)
    try:
        from scipy.cluster.hierarchy import fcluster, ward
    except ImportError:
        raise InputError(f"groups of photos need scipy: {install('suggest')}") from None
    links = ward(white[rows])

    def cut(groups: int) -> Indices:
        _, numbers = np.unique(fcluster(links, max(1, groups), "maxclust"), return_inverse=True)
        if len(rows) == len(white):
            return numbers.astype(np.intp)
        centres = _centres(white[rows], numbers)
        starts = range(0, len(white), _CHUNK)
        return np.concatenate([_squares(white[s : s + _CHUNK], centres).argmin(axis=1) for s in starts])

    return cut


def _sample(count: int, most: int) -> Indices:
    """Return the rows of all photos, rising, or of a sample of them."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _squares(points: Doubles, others: Doubles) -> Doubles:
    """Return squared distances (N, M) of points (N, D) and others (M, D)."""
    result: Doubles = (points**2).sum(axis=1)[:, np.newaxis] + (others**2).sum(axis=1) - 2 * points @ others.T
    return np.maximum(result, 0.0)
