"""What keeps a candidate from more, in one word: read off its predicted curve, against the best one's."""

from __future__ import annotations

import numpy as np

from neuralfield.explain.explanation import Candidate, Explanation
from neuralfield.explain.words import words

BUDGET, SMOOTH, ALIASING, INITIAL, IMAGE = "budget", "too smooth", "aliasing", "f0", "the image itself"

WORDS = {
    BUDGET: "budget: it is still learning when the steps end",
    SMOOTH: "too smooth: detail is learned too slowly, even on the training pixels",
    ALIASING: "aliasing: it fits the training pixels and errs between them",
    INITIAL: "f0: the random initial function stays between the training pixels",
    IMAGE: "the image itself: what lies between the training pixels cannot be told from them",
}
"""Each limit in words for the reader; :func:`~neuralfield.explain.words.in_words` says them of other signals than images."""

_RISING, _STEEP = 0.3, 1.0  # dB of held-out PSNR over the last doubling of the steps, of the best and of the others
_FITTED = 20.0  # dB of training pixels above the best held-out PSNR


def limit(explanation: Explanation, candidate: Candidate) -> str:
    """What limits a candidate: :data:`BUDGET`, :data:`SMOOTH`, :data:`ALIASING`, :data:`INITIAL` or :data:`IMAGE`.

    f0, where most of the held-out error is the initial function's. Of the best and those level with it, within the
    uncertainty of predictions: budget where held-out PSNR still rises by 0.3 dB per doubling of the steps, else the image.
    Of the others: budget where it rises by 1 dB, aliasing where training pixels are fitted at least as well as by the best
    one, or to a hundredth of the error that the best one makes between them, else too smooth.
    """
    curve, best = candidate.curve, max(explanation.candidates, key=lambda c: c.heldout)
    if curve.f0_mse[-1] > 0.5 * curve.heldout_mse[-1]:
        return INITIAL
    if candidate.heldout >= best.heldout - words(explanation.signal).tie:
        return BUDGET if rise(candidate) > _RISING else IMAGE
    if rise(candidate) > _STEEP:
        return BUDGET
    fitted = min(best.curve.train_psnr[-1], best.heldout + _FITTED)
    return ALIASING if curve.train_psnr[-1] >= fitted else SMOOTH


def rise(candidate: Candidate) -> float:
    """dB of held-out PSNR that the last doubling of the steps brought."""
    steps, psnr = candidate.curve.steps, candidate.curve.heldout_psnr
    return float(psnr[-1] - np.interp(np.log(max(steps[-1] / 2, 1)), np.log(steps), psnr))
