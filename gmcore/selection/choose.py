"""The rule by which frames are chosen for reference calculations, step by step.

1. Broken structures are left out (`gmcore.selection.soundness`).
2. The model predicts its calibrated error and the extrapolation grade of every other candidate. The score of a
   candidate is its error over the median error of the candidates; grades serve where a model has no errors. Of forces
   the error is that of the atom where it is largest.
3. Frames of a replica that are close in time tell the same. The series of each replica is cut into stretches as long
   as the statistical inefficiency of its scores without their linear trend (`gmcore.analysis.statistics`), and of each
   stretch the frame with the largest score stays. Stretches are shorter where fewer than POOL frames for each one
   wanted would be left.
4. A frame qualifies if its error is at least `min_error` or its grade at least `min_grade`. Without either, its error
   must be above the median of all candidates or its grade above 1.
5. Near-duplicates of labeled structures are left out: those closer than NEAR in the space of features
   (`gmcore.selection.space`), whose unit is the distance of neighbors in the training data.
6. One after another the frame with the largest product

       score x distance to the nearest labeled or already chosen structure

   is chosen, so that it must be both uncertain and different. Scores above CAP count as CAP: such errors are
   extrapolated, and whether they are 10 or 100 times the median says little, but they would crowd out all others. This
   ends when enough are chosen, or when all that are left are near-duplicates of what is labeled or chosen.

For D and forces together each model has its scores and its space. A frame must qualify for one of them, is a
near-duplicate only if it is one in both spaces, and the two products are added in quadrature.

At random, as a baseline, steps 1, 3 and 5 are the same and 4 is left out. The frame that stays of a stretch, and those
that are chosen, are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms

from gmcore.analysis.statistics import statistical_inefficiency
from gmcore.errors import GMError
from gmcore.selection.candidates import Candidate
from gmcore.selection.scores import Judge, Scores
from gmcore.selection.soundness import contact_faults
from gmcore.selection.space import FeatureSpace

POOL = 3
"""Candidates that thinning leaves for each frame wanted, as far as there are so many."""
CAP = 4.0
"""Largest score that counts when scores are multiplied by distances."""
NEAR = 0.5
"""Distance below which structures count as the same, in units of the distance of neighbors in the training data."""
REPEATED = 0.01
"""The same where no training data are known, in units of the standard deviation of the candidates."""


@dataclass(frozen=True)
class Wishes:
    """What is to be chosen.

    Attributes
    ----------
    number : of frames.
    min_error : by quantity, its unit.
    min_grade : no unit.
    random : draw the frames.
    seed : of the random numbers.
    """

    number: int
    min_error: Mapping[str, float] = field(default_factory=dict)
    min_grade: float | None = None
    random: bool = False
    seed: int = 0

    @property
    def has_limits(self) -> bool:
        """Whether an error or a grade is asked for."""
        return bool(self.min_error) or self.min_grade is not None


@dataclass(frozen=True, eq=False)
class Selection:
    """The chosen frames, in the order in which they were chosen.

    Attributes
    ----------
    chosen : candidates.
    scores : of the chosen ones, one for each quantity.
    distances : (n_chosen,) in units of the distance of neighbors in the training data, from each chosen frame to the
        nearest labeled structure; NaN if none is known.
    reasons : why each was chosen.
    broken : candidates with a fault.
    counts : number of candidates that were left out for every other reason: correlated, certain, known, unneeded.
    n_known : number of labeled structures, one for each quantity.
    inefficiencies : samples per independent sample in each series.
    """

    chosen: list[Candidate]
    scores: list[Scores]
    distances: np.ndarray
    reasons: list[str]
    broken: list[Candidate]
    counts: dict[str, int]
    n_known: list[int]
    inefficiencies: list[float]


def select_frames(
    candidates: Sequence[Candidate],
    judges: Sequence[Judge],
    known: Sequence[Sequence[Atoms]],
    wishes: Wishes,
    progress: Callable[[str], None] = lambda words: None,
) -> Selection:
    """Choose frames by the rule of this module.

    Parameters
    ----------
    candidates : what to choose from; faults that are found are written down in them.
    judges : one model for each quantity that counts.
    known : for each of them the structures that have labels.
    progress : called with what is being done.

    Raises
    ------
    GMError : a model cannot be evaluated on a structure, or does not know the errors or grades that count.
    """
    progress("looking for broken structures")
    unseen = [entry for entry in candidates if not entry.fault]
    for entry, fault in zip(unseen, contact_faults([entry.atoms for entry in unseen])):
        entry.fault = fault
    sound = [entry for entry in unseen if not entry.fault]
    broken = [entry for entry in candidates if entry.fault]
    counts = dict.fromkeys(("correlated", "certain", "known", "unneeded"), 0)
    if not sound:
        return Selection([], [], np.empty(0), [], broken, counts, [len(frames) for frames in known], [])

    progress(f"predicting {len(sound)} structures")
    frames = [entry.atoms for entry in sound]
    scores = [judge.scores(frames) for judge in judges]
    _check_limits(judges, scores, wishes)
    relative = np.array([entry.relative for entry in scores])
    rng = np.random.default_rng(wishes.seed)
    total = np.sqrt(np.sum(relative**2, axis=0))
    order = rng.random(len(sound)) if wishes.random else total

    rows, inefficiencies = _thinned(sound, total, order, wishes.number)
    counts["correlated"] = len(sound) - len(rows)
    why = {row: "drawn at random" for row in rows} if wishes.random else _qualified(rows, scores, wishes)
    counts["certain"], rows = len(rows) - len(why), np.array(sorted(why), np.int64)
    if not len(rows):
        found = _parts(scores, rows)
        return Selection([], found, np.empty(0), [], broken, counts, [len(part) for part in known], inefficiencies)

    progress(f"comparing {len(rows)} structures with the training data")
    spaces = [
        FeatureSpace(judge.model, [frames[row] for row in rows], labeled) for judge, labeled in zip(judges, known)
    ]
    start = np.max([space.distances for space in spaces], axis=0)
    n_new = int(np.sum(~_near(spaces)))
    picked = _farthest(
        spaces, np.minimum(relative[:, rows], CAP), order[rows] if wishes.random else None, wishes.number
    )
    counts["known"], counts["unneeded"] = len(rows) - n_new, n_new - len(picked)
    taken = rows[picked]
    return Selection(
        [sound[row] for row in taken],
        _parts(scores, taken),
        np.where(np.isfinite(start[picked]), start[picked], np.nan),
        [why[row] for row in taken.tolist()],
        broken,
        counts,
        [len(part) for part in known],
        inefficiencies,
    )


def _check_limits(judges: Sequence[Judge], scores: Sequence[Scores], wishes: Wishes) -> None:
    """Refuse limits for what a model does not know: no frame could qualify, or raw deviations would count as errors."""
    for judge, one in zip(judges, scores):
        if one.quantity in wishes.min_error and not one.calibrated:
            raise GMError(
                f"{judge.path} has no calibrated errors of {one.quantity} for --min-error: leave the option out, or "
                "train the model with at least five validation structures"
            )
    if wishes.min_grade is not None and all(one.grades is None for one in scores):
        names = ", ".join(str(judge.path) for judge in judges)
        raise GMError(f"{names} must know grades for --min-grade: leave it out, or train again with this version")


def _thinned(
    sound: Sequence[Candidate], total: np.ndarray, order: np.ndarray, number: int
) -> tuple[np.ndarray, list[float]]:
    """Return the rows that stay of the stretches of each series, ascending, and the inefficiency of each series.

    Parameters
    ----------
    total : (n,) scores, whose correlation decides on the stretches.
    order : (n,) the frame where this is largest stays.
    """
    series = np.array([-1 if entry.series is None else entry.series for entry in sound])
    kept = [np.flatnonzero(series < 0)]
    longest = max(1, int(np.sum(series >= 0)) // (POOL * number))
    inefficiencies = []
    for one in np.unique(series[series >= 0]):
        rows = np.flatnonzero(series == one)
        inefficiencies.append(_inefficiency(total[rows]))
        length = min(math.ceil(inefficiencies[-1]), longest)
        stretches = np.arange(len(rows)) // length
        best = np.lexsort((-order[rows], stretches))
        kept.append(rows[best[np.unique(stretches[best], return_index=True)[1]]])
    return np.sort(np.concatenate(kept)), inefficiencies


def _inefficiency(values: np.ndarray) -> float:
    """Samples per independent sample of a series (n,) without its linear trend: a drift is news, not repetition."""
    if len(values) < 4:
        return 1.0
    times = np.arange(len(values)) - 0.5 * (len(values) - 1)
    slope = times @ values / (times @ times)
    return statistical_inefficiency(values - values.mean() - slope * times)


def _qualified(rows: np.ndarray, scores: Sequence[Scores], wishes: Wishes) -> dict[int, str]:
    """Return the rows that qualify, each with the reasons in words."""
    why: dict[int, list[str]] = {}
    for one in scores:
        of_what = f" of {one.quantity}" if len(scores) > 1 else ""
        limit = wishes.min_error.get(one.quantity)
        if one.errors is not None and (limit is not None or not wishes.has_limits):
            passed = one.relative > 1.0 if limit is None else one.errors >= limit
            for row in rows[passed[rows]].tolist():
                why.setdefault(row, []).append(f"error{of_what} {one.relative[row]:.3g} x median")
        if one.grades is not None and (wishes.min_grade is not None or not wishes.has_limits):
            passed = one.grades > 1.0 if wishes.min_grade is None else one.grades >= wishes.min_grade
            for row in rows[passed[rows]].tolist():
                why.setdefault(row, []).append(f"grade{of_what} {one.grades[row]:.2f}")
    return {row: ", ".join(words) for row, words in why.items()}


def _near(spaces: Sequence[FeatureSpace]) -> np.ndarray:
    """(n,) bool: near-duplicates of what is labeled or chosen, in all spaces."""
    return np.all([space.distances < (NEAR if space.has_known else REPEATED) for space in spaces], axis=0)


def _farthest(
    spaces: Sequence[FeatureSpace], relative: np.ndarray, drawn: np.ndarray | None, number: int
) -> np.ndarray:
    """Return the rows chosen, in this order.

    Parameters
    ----------
    relative : (n_quantities, n) scores, at most CAP.
    drawn : (n,) random numbers that decide instead of score and distance.
    """
    picked: list[int] = []
    while len(picked) < number:
        near = _near(spaces)
        if near.all():
            break
        if drawn is None:
            distances = np.array([space.distances for space in spaces])
            # before anything is labeled or chosen, all are equally far from it
            distances[np.isinf(distances)] = 1.0
            value = np.sqrt(np.sum((relative * distances) ** 2, axis=0))
        else:
            value = drawn
        picked.append(int(np.argmax(np.where(near, -np.inf, value))))
        for space in spaces:
            space.choose(picked[-1])
    return np.array(picked, np.int64)


def _parts(scores: Sequence[Scores], rows: np.ndarray) -> list[Scores]:
    """Return the scores of some of the structures."""
    return [
        Scores(
            one.quantity,
            one.unit,
            None if one.errors is None else one.errors[rows],
            one.calibrated,
            None if one.grades is None else one.grades[rows],
        )
        for one in scores
    ]
