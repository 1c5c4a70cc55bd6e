r"""The time to learn a frequency follows the kernel's spectrum: $k^2$ on the circle.

On uniform points of the circle the kernel is circulant, so its eigenvectors are sinusoids and its eigenvalues $\lambda_k$ the
Fourier transform of one row. Gradient descent of step $\eta$ has learned half of frequency k after
$t_k = \ln\frac12 / \ln(1 - \eta\lambda_k)$ steps. For ReLU networks $\lambda_k \sim k^{-2}$, hence $t_k \sim k^2$; a network
with one hidden layer and no biases has $\lambda_k = 0$ at odd $k > 1$ and never learns those (Basri et al. 2019, theorem 1
and section 4). That low frequencies come first was seen by Rahaman et al. 2019, whose heat map of steps and frequencies is
drawn here for both networks.

Of a finite network without biases the claim is exact at every width, and beyond the linear regime: with
$\mathrm{relu}(z) = (z + |z|)/2$ the odd part of $\sum_i a_i\,\mathrm{relu}(w_i \cdot x)$ is linear in x, so it holds
frequency 1 and no higher one.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.reproduce.report import Claim, Reproduction
from neuralfield.reproduce.sheet import log_axis, name_axes, sheet
from neuralfield.reproduce.wide import circle, log_steps, parameter_groups, slope, wide_field
from neuralfield.reproduce.wide import train as descend
from neuralfield.viz.style import BEST, GREY, HELDOUT, INK, SMALL, Axes, Page, tick_labels

HALF = 0.5
"""A frequency counts as learned when this part of its amplitude is there."""
LAW_POINTS, LAW = 4096, range(8, 65)
"""Points and frequencies from which the exponent of the infinitely wide kernel is read: far below the points' own limit."""
ASYMPTOTIC = 4
"""The smallest frequency from which the exponent of the trained network is read."""
TIMES, EXPONENT, NOTHING = 0.15, 0.2, 1e-3
"""Allowed: median deviation of measured from predicted times (the kernel of a network of this width differs by several per
cent from the limit); of exponents from 2; and the part of an unlearnable frequency that may be there."""


@dataclass
class Course:
    """What a training showed.

    - `steps`: when it was looked at.
    - `shares`: |Fourier coefficient of f - f0| / amplitude, [times, frequencies].
    - `times`: steps until half was learned, by frequency; infinity where that did not happen.
    - `predicted`: the same from the infinitely wide network's kernel.
    """

    steps: list[int]
    shares: Float[Tensor, "times frequencies"]
    times: list[float]
    predicted: list[float]


def reproduce(
    width: int, n_points: int, highest: int, steps: int, amplitude: float, w_std: float, b_std: float, seed: int
) -> Reproduction:
    """Train two wide networks, with biases and without, on a sum of sinusoids, and compare times with the spectrum.

    The options are those of ``configs/reproduce/frequency_rates.yaml``.
    """
    highest = integer("highest", highest, ASYMPTOTIC + 2, 1024)
    n, steps = integer("n_points", n_points, 2 * highest + 1, 4096), integer("steps", steps, 10)
    n += n % 2  # with each point its opposite, which the claim on odd frequencies is about
    amplitude, b_std = number("amplitude", amplitude, 0, above=True), number("b_std", b_std, 0, above=True)
    biased, bare = (train(width, n, highest, steps, amplitude, w_std, b, seed) for b in (b_std, None))
    law = {name: spectrum(LAW_POINTS, w_std, b) for name, b in (("biased", b_std), ("bare", None))}
    ks = list(range(1, highest + 1))
    numbers: dict[str, Any] = {
        "frequencies": ks,
        "eigenvalues": {k: v[: 2 * LAW.stop].tolist() for k, v in law.items()},
    }
    for name, course in (("biased", biased), ("bare", bare)):
        numbers[name] = {**vars(course), "shares": course.shares.tolist()}
    checked = claims(ks, biased, bare, law["biased"], law["bare"])
    title = "A wide network learns frequency k in time k², as its kernel says; odd k > 1 need biases"
    notes = (
        f"One hidden ReLU layer of {width:,}, {n} points of the circle, a sum of {highest} sinusoids of equal amplitude, "
        f"{steps:,} steps of gradient descent"
    )
    return Reproduction("frequency_rates", title, checked, numbers, draw(title, notes, ks, biased, bare))


def spectrum(n: int, w_std: float, b_std: float | None) -> Float[Tensor, " k"]:
    """Eigenvalues of the infinitely wide network's kernel on n points of the circle, by frequency 0, 1, ..., n / 2."""
    x = circle(n)
    return torch.fft.rfft(MLPKernel(1, "relu", w_std, b_std or 0.0).ntk(x[:1], x)[0]).real


def train(
    width: int, n: int, highest: int, steps: int, amplitude: float, w_std: float, b_std: float | None, seed: int
) -> Course:
    """Gradient descent towards f0 plus the sum of sinusoids, watched by frequency."""
    x, field = circle(n).float(), wide_field(2, 1, width, 1, w_std, b_std, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    ks = torch.arange(1, highest + 1)
    phase = 2 * math.pi * torch.rand(highest, 1, generator=generator, dtype=torch.float64)
    angle = 2 * math.pi / n * torch.arange(n, dtype=torch.float64)
    f0 = field(x).detach()
    y = f0 + amplitude * torch.cos(ks[:, None] * angle + phase).sum(0).float()[:, None]
    values = spectrum(n, w_std, b_std)
    lr = 1 / float(values.max())  # half of the largest that is stable
    at = log_steps(steps, 160)
    shares: list[Tensor] = []

    @torch.no_grad()
    def observe(step: int) -> None:
        learned = torch.fft.rfft((field(x) - f0)[:, 0].double())
        shares.append(2 / n / amplitude * learned[1 : highest + 1].abs())

    optimizer = torch.optim.SGD(parameter_groups(field, lr, "ntk", w_std, b_std), lr=lr)
    name = f"steps {'without' if b_std is None else 'with'} biases"
    descend(field, x, y, optimizer, steps, "sum", at, observe, what=name)
    found = torch.stack(shares)
    return Course(at, found, half_times(at, found), predicted_times(values[1 : highest + 1], lr))


def predicted_times(values: Float[Tensor, " k"], lr: float) -> list[float]:
    """Steps of gradient descent until half of each mode is learned; infinity for a mode without an eigenvalue."""
    floor = 1e-12 * float(values.max())
    return [math.log(1 - HALF) / math.log1p(-lr * v) if v > floor else math.inf for v in values.tolist()]


def half_times(steps: list[int], shares: Float[Tensor, "times frequencies"]) -> list[float]:
    """Steps until half was learned, between two looks by straight line."""
    found = []
    for column in shares.T.tolist():
        over = next((i for i, share in enumerate(column) if share >= HALF), None)
        if over is None:
            found.append(math.inf)
        elif over == 0:
            found.append(0.0)
        else:
            part = (HALF - column[over - 1]) / (column[over] - column[over - 1])
            found.append(steps[over - 1] + part * (steps[over] - steps[over - 1]))
    return found


def claims(ks: list[int], biased: Course, bare: Course, law: Tensor, bare_law: Tensor) -> list[Claim]:
    """What the papers say about times, checked."""
    exponents = {
        name: slope(ks_, [1 / float(law[k]) for k in ks_]) for name, ks_ in (("even", LAW[::2]), ("odd", LAW[1::2]))
    }
    done = [i for i, time in enumerate(biased.times) if 0 < time < math.inf]
    ratios = torch.tensor([biased.times[i] / biased.predicted[i] for i in done], dtype=torch.float64)
    deviation = float((ratios - 1).abs().median()) if done else math.inf
    tail = [i for i in done if ks[i] >= ASYMPTOTIC]
    exponent, foreseen = (
        slope([ks[i] for i in tail], [times[i] for i in tail]) if len(tail) > 2 else math.nan
        for times in (biased.times, biased.predicted)
    )
    odd = [i for i, k in enumerate(ks) if k % 2 and k > 1]
    even = [i for i, k in enumerate(ks) if k % 2 == 0]
    worst = float(bare.shares[:, odd].max())
    zero = float(bare_law[3::2].abs().max() / bare_law.max())
    return [
        Claim(
            "the infinitely wide network with biases learns frequency k in a time that grows as k²",
            f"exponent {exponents['even']:.3f} over even and {exponents['odd']:.3f} over odd k from {LAW[0]} to {LAW[-1]}",
            all(abs(value - 2) <= EXPONENT / 2 for value in exponents.values()),
            "Basri et al. 2019, section 4",
        ),
        Claim(
            "a trained wide network takes, frequency by frequency, the time that the infinitely wide kernel predicts",
            f"{len(done)} of {len(ks)} frequencies learned; times off by {deviation:.1%} (median), "
            f"from {float(ratios.min()) if done else 0:.2f} to {float(ratios.max()) if done else 0:.2f} of the prediction",
            len(done) == len(ks) and deviation <= TIMES,
            "Basri et al. 2019, section 5; Jacot et al. 2018, section 5",
        ),
        Claim(
            "so its time to learn frequency k grows as k²",
            f"exponent {exponent:.2f} over k from {ASYMPTOTIC} to {ks[-1]}, predicted {foreseen:.2f}",
            abs(exponent - 2) <= EXPONENT,
            "Basri et al. 2019, figure 4",
        ),
        Claim(
            "lower frequencies are learned first",
            f"{_inversions(biased.times)} of {len(ks) - 1} neighbours in the wrong order",
            _inversions(biased.times) == 0,
            "Rahaman et al. 2019, figure 1",
        ),
        Claim(
            "without biases odd frequencies above 1 have no eigenvalue and are never learned, the even ones are",
            f"at most {worst:.1e} of an odd one after {bare.steps[-1]:,} steps, at least "
            f"{float(bare.shares[-1, even[: len(even) // 2]].min()):.2f} of the lower even ones; odd eigenvalues at most "
            f"{zero:.0e} of the largest",
            worst <= NOTHING and zero <= 1e-10 and all(bare.times[i] < math.inf for i in even[: len(even) // 2]),
            "Basri et al. 2019, theorem 1",
        ),
    ]


def _inversions(times: list[float]) -> int:
    return sum(a >= b for a, b in itertools.pairwise(times))


def draw(title: str, notes: str, ks: list[int], biased: Course, bare: Course) -> Page:
    """Two heat maps and the times."""
    headings = [
        [
            ("With biases", "dark: learned; orange: predicted half"),
            ("Without biases", "odd frequencies above 1 have eigenvalue 0"),
            ("Steps until half is learned", "dots: trained network; line: predicted"),
        ]
    ]
    page, (one, two, three) = sheet(title, notes, headings, 420, shares=[1.0, 1.0, 0.9])
    for axes, course in ((one, biased), (two, bare)):
        _heat(axes, ks, course)
    three.plot(ks, biased.predicted, color=BEST, linewidth=2)
    three.plot(ks, biased.times, "o", color=HELDOUT, markersize=7)
    start = biased.predicted[-1] / ks[-1] ** 2 * 3
    ends = [2, ks[-1]]
    three.plot(ends, [start * k**2 for k in ends], color=GREY, linewidth=1.4, linestyle="--")
    three.annotate("∝ k²", (ends[1], start * ends[1] ** 2), (-12, 0), textcoords="offset points", color=GREY,
                   fontsize=SMALL + 1, fontweight="bold", ha="right")  # fmt: skip
    log_axis(three, "y")
    three.set_xscale("log")
    marks = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= ks[-1]]
    tick_labels(three, "x", marks, [str(k) for k in marks])
    name_axes(three, "frequency k (cycles per turn)", "steps")
    return page


def _heat(axes: Axes, ks: list[int], course: Course) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    shades = LinearSegmentedColormap.from_list("learned", ["#ffffff", HELDOUT, INK])
    edges = [max(step, 0.7) for step in course.steps]
    values = course.shares[1:].clamp(0, 1).T.numpy()
    axes.pcolormesh(edges, [k - 0.5 for k in [*ks, ks[-1] + 1]], values, cmap=shades, vmin=0, vmax=1, rasterized=True)
    for k, time in zip(ks, course.predicted, strict=True):
        if time < course.steps[-1]:
            axes.plot([max(time, 0.7)] * 2, [k - 0.42, k + 0.42], color=BEST, linewidth=2.4)
    log_axis(axes, "x")
    axes.set(xlim=(1, course.steps[-1]), ylim=(0.5, ks[-1] + 0.5))
    marks = ks if len(ks) <= 20 else ks[:: len(ks) // 10]
    tick_labels(axes, "y", marks, [str(k) for k in marks])
    axes.grid(visible=False)
    name_axes(axes, "step", "frequency k")
