"""From predictions to a recommendation, in two plain sentences with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from neuralfield.errors import ConfigError
from neuralfield.explain.candidates import rank
from neuralfield.explain.explanation import Candidate, Verdict
from neuralfield.explain.words import Words, words
from neuralfield.signals.base import Signal
from neuralfield.signals.image import ImageSignal

UNCERTAINTY = 0.5
"""dB between predicted and trained held-out PSNR, mean absolute error over photographs and settings; of other signals see
:mod:`~neuralfield.explain.words`."""

WORDS = {
    "none": "the plain coordinates",
    "positional": "positional encoding",
    "fourier": "Fourier features",
    "hashgrid": "a hash grid",
}

TOLERANCE = 0.1
"""dB: seeds make as large a difference."""

_RISING = 0.3  # dB over the last doubling of the steps


@dataclass(frozen=True)
class Choice:
    """The recommended candidate, and those that are as good as it, itself included."""

    best: Candidate
    equals: list[Candidate]
    margin_db: float


def choose(candidates: Sequence[Candidate], within: float = UNCERTAINTY) -> Choice:
    """Of the candidates whose held-out PSNR is `within` dB of the highest: the simplest, then the cheapest.

    Measured values count where all have one, and then differences of 0.1 dB do. Among bandwidths of Fourier features, whose
    predictions err together, the middle one within 0.1 dB of their highest is taken; else the highest prediction of a kind.

    Raises :class:`~neuralfield.errors.ConfigError` without a candidate.
    """
    if not candidates:
        raise ConfigError("there is no candidate to choose from")
    trained = all(c.measured is not None for c in candidates)
    tolerance = min(within, TOLERANCE) if trained else within
    ordered = sorted(candidates, key=_quality, reverse=True)
    top = ordered[0]
    equals = [c for c in ordered if _quality(c) >= _quality(top) - tolerance]
    kinds = {_kind(c): c for c in reversed(equals)}  # the best of each kind, since the last one written stays
    best = min(kinds.values(), key=lambda c: (rank(_kind(c)), c.n_parameters))
    if _kind(best) == "fourier":
        near = [c for c in ordered if _kind(c) == "fourier" and _quality(c) >= _quality(best) - TOLERANCE]
        best = sorted(near, key=_sigma)[(len(near) - 1) // 2]
    others = [c for c in ordered if _kind(c) != _kind(best)]
    margin = _quality(best) - _quality(others[0]) if others else 0.0
    return Choice(best, equals, margin)


def verdict(candidates: Sequence[Candidate], signal: Signal, steps: int, base: Sequence[str] = ()) -> Verdict:
    """The recommendation in words.

    **Arguments**

    - `base`: the user's own settings as fit.py takes them ("signal.path=photo.png"); they go into the command.
    """
    known = words(signal)
    choice = choose(candidates, known.tie)
    best, trained = choice.best, choice.best.measured is not None
    kind = _kind(best)
    first = f"For {signal.name} ({_size(signal)}) and {steps:,} steps take {_called(best)}: {_promise(best, known)}"
    rivals = {_kind(c): c for c in reversed(choice.equals) if _kind(c) != kind}
    others = sorted((c for c in candidates if _kind(c) != kind), key=_quality, reverse=True)
    if rivals:
        names = " and ".join(_called(c) for c in rivals.values())
        why = "the simpler of equals" if rank(kind) < min(rank(k) for k in rivals) else "the cheaper of equals"
        certain = "measured here" if trained else "too close to call before training"
        second = f"{names[0].upper()}{names[1:]} would do as well ({certain}); {_words(kind)} is {why}."
    elif others:
        next_best = others[0]
        second = (
            f"The next best, {_called(next_best)}, {'stayed' if trained else 'should stay'} "
            f"{choice.margin_db:.1f} dB below{_reason(best, next_best, known)}."
        )
    else:
        second = f"Among its settings the predictions differ by {_spread(candidates):.1f} dB."
    command = " ".join(["python scripts/fit.py", *(_quoted(o) for o in base), *(_quoted(o) for o in best.overrides)])
    return Verdict(f"{first} {second}", command, best.name, choice.margin_db, 0.1 if trained else known.uncertainty)


def _size(signal: Signal) -> str:
    return f"{signal.width} x {signal.height}" if isinstance(signal, ImageSignal) else signal.size


def _promise(best: Candidate, known: Words) -> str:
    """What the recommended field reaches, and how sure that is."""
    unseen = f"on {known.samples} it has not seen"
    if known.signal != "shape":
        if best.measured is not None:
            return f"it reached {_quality(best):.1f} dB {unseen}."
        return f"it is expected to reach {_quality(best):.1f} dB, give or take {known.uncertainty:g} dB, {unseen}."
    if best.measured is not None:
        last = best.trained[-1].get("iou_surface")
        iou = "" if last is None else f" and an intersection over union of {last:.2f}"
        return f"it reached {_quality(best):.1f} dB{iou} {unseen}, near the surface."
    iou = "" if best.curve.iou is None else f" and an intersection over union of {best.curve.iou:.2f}"
    return (
        f"of the fields compared it should be the best, or as good. With the squared error, which stands in for its loss, "
        f"it is expected to reach {_quality(best):.1f} dB, give or take {known.uncertainty:g} dB,{iou} {unseen}, near the "
        "surface."
    )


def _quality(candidate: Candidate) -> float:
    return candidate.heldout if candidate.measured is None else candidate.measured


def _kind(candidate: Candidate) -> str:
    return str(candidate.encoding.get("name", "hashgrid"))


def _sigma(candidate: Candidate) -> float:
    value = candidate.encoding.get("sigma", 0.0)
    return float(value) if isinstance(value, (int, float)) else max(map(float, value))


def _words(kind: str) -> str:
    return WORDS.get(kind, kind)


def _called(candidate: Candidate) -> str:
    sigma = candidate.encoding.get("sigma")
    words = _words(_kind(candidate))
    return f"{words} of sigma {sigma:g}" if isinstance(sigma, (int, float)) and _kind(candidate) == "fourier" else words


def _reason(best: Candidate, other: Candidate, known: Words) -> str:
    """Why the other one stays behind."""
    if _curve_rise(other) > _RISING:
        return " at this budget, and is still learning then"
    if other.curve.train_psnr[-1] >= best.curve.train_psnr[-1]:
        return f": it fits the given {known.samples} at least as well but errs between them"
    return f": it is too smooth for this {known.signal}"


def _curve_rise(candidate: Candidate) -> float:
    """dB over the last doubling of the steps."""
    steps, psnr = candidate.curve.steps, candidate.curve.heldout_psnr
    before = [value for step, value in zip(steps, psnr, strict=True) if step <= steps[-1] / 2]
    return float(psnr[-1] - before[-1]) if before else 0.0


def _spread(candidates: Sequence[Candidate]) -> float:
    values = [_quality(c) for c in candidates]
    return max(values) - min(values)


def _quoted(override: str) -> str:
    return f"'{override}'" if any(c in override for c in " [](){},'\"$") else override
