r"""Each eigen-component of the error decays at its eigenvalue's rate.

For a wide network under gradient flow on $\frac12 \sum (f - y)^2$ the error obeys $e(t) = e^{-K t} e(0)$ with the tangent
kernel K of the training points (Jacot et al. 2018, section 5; Lee et al. 2019, equation 8), so its component along the
eigenvector $q_i$ falls as $e^{-\lambda_i t}$. One step of gradient descent of size $\eta$ multiplies it by
$1 - \eta\lambda_i$. Here a network is trained, the factor per step of every component is read off its course, and the rate
that this factor means, $(1 - \text{factor})/\eta$, is held against $\lambda_i$: of the network's own kernel at the start, and
of the infinitely wide one.

The error at the start is chosen, so that no mode is empty: amplitude $\sqrt{\lambda_i / \lambda_1}$ with a random sign in
the $i$-th mode, which is the typical size of a Gaussian process that has the kernel as its covariance.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.field import Field
from neuralfield.ntk.dynamics import Dynamics
from neuralfield.ntk.empirical import empirical_ntk, ntk_scales
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.reproduce.report import Claim, Reproduction
from neuralfield.reproduce.sheet import log_axis, name_axes, sheet
from neuralfield.reproduce.wide import circle, log_steps, parameter_groups, slope, train, wide_field
from neuralfield.viz.style import BEST, GREY, GROUPS, HELDOUT, SMALL, Page

FALL = 0.1
"""A component that has lost a smaller part than this by the end has no rate that could be read off."""
START = 1 / 3
"""A component that starts with less than this part of its due is mostly what leaks in from others as they decay."""
FOLD = 1 / math.e
"""Rates are read between the start and this part of the component: later, what leaks in from slower modes takes over."""
OWN, INFINITE = 0.05, 0.15
"""Median deviation of rates from eigenvalues that is allowed. Of the network's own kernel the theory is exact but for the
kernel's movement, which is to be small; from the infinite one a kernel of some thousand neurons differs by several per cent,
and single eigenvalues by more. A factor of two in a convention, or a mode with another's rate, is far outside."""
SOURCE = "Jacot et al. 2018, section 5"


@dataclass
class Rates:
    """Measured decay beside what theory says, one entry per group of equal eigenvalues, in the order of the kernel's.

    - `eigenvalue`: predicted rate; `measured`: the rate that gradient descent showed.
    - `fell`: the part of the component that was gone at the end.
    - `start`: the component at the start, as a part of what a mode of this eigenvalue was given.
    - `frequency`: mean frequency of the eigenvectors, in cycles per turn.
    - `course`: the component at the recorded steps, as a part of its first value.
    """

    eigenvalue: list[float]
    measured: list[float]
    fell: list[float]
    start: list[float]
    frequency: list[float]
    course: list[list[float]]

    @property
    def fitted(self) -> list[int]:
        """Groups that were there at the start and fell enough for a rate."""
        return [i for i, fell in enumerate(self.fell) if fell >= FALL and self.start[i] >= START]

    def agreement(self) -> dict[str, float]:
        """How measured and predicted rates agree, over the fitted groups."""
        pairs = [(self.eigenvalue[i], self.measured[i]) for i in self.fitted]
        usable = [(a, b) for a, b in pairs if a > 0 and b > 0]
        if len(usable) < 3 or len(usable) < len(pairs):  # an error that grows has no logarithm: as bad as can be
            return {"modes": len(pairs), "slope": math.nan, "deviation": math.inf, "ratio": math.nan}
        ratios = torch.tensor([b / a for a, b in usable], dtype=torch.float64)
        return {
            "modes": len(pairs),
            "slope": slope(*zip(*usable, strict=True)),
            "deviation": float((ratios - 1).abs().median()),
            "ratio": float(ratios.median()),
        }


def reproduce(
    width: int, depth: int, n_points: int, steps: int, amplitude: float, w_std: float, b_std: float, seed: int
) -> Reproduction:
    """Train a wide network on the circle and compare each mode's decay with its eigenvalue.

    The options are those of ``configs/reproduce/spectral_bias.yaml``.
    """
    n, steps = integer("n_points", n_points, 8, 4096), integer("steps", steps, 10)
    amplitude = number("amplitude", amplitude, 0, above=True)
    x, field = circle(n), wide_field(2, 1, width, depth, w_std, b_std, seed=seed)
    infinite = MLPKernel(depth, "relu", w_std, b_std).ntk(x)
    start = own_kernel(field, x, w_std, b_std)
    values, vectors = descending(start)
    lr = 0.5 / float(values[0])
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1
    error = amplitude * vectors @ (signs * (values / values[0]).clamp(min=0).sqrt())
    f0 = field(x.float()).detach().double()
    at = log_steps(steps, 90)
    errors, losses = run(field, x, f0 - error[:, None], lr, w_std, b_std, at)
    moved = float((own_kernel(field, x, w_std, b_std) - start).norm() / start.norm())
    own = rates(errors, at, values, vectors, lr)
    limit = rates(errors, at, *descending(infinite), lr)
    predicted = Dynamics(start, method="gd", learning_rate=lr).predict(f0[:, 0] - error, at, f0[:, 0])
    foreseen = (0.5 * (predicted.train - (f0[:, 0] - error)).square().sum(dim=1)).tolist()
    numbers: dict[str, Any] = {
        "steps": at,
        "learning_rate": lr,
        "kernel_movement": moved,
        "kernel_distance_to_infinite": float((start - infinite).norm() / infinite.norm()),
        "loss": losses,
        "loss_predicted": foreseen,
        "own": {**vars(own), **own.agreement()},
        "infinite": {**vars(limit), **limit.agreement()},
    }
    title = "Every eigenmode of the error decays at the rate of its eigenvalue"
    notes = (
        f"ReLU network with {depth} hidden layer{'s' if depth > 1 else ''} of {width:,}, {n} points of the circle, "
        f"{steps:,} steps of gradient descent; rates off by {100 * own.agreement()['deviation']:.1f} % (median)"
    )
    checked = claims(own, limit, losses, foreseen)
    return Reproduction("spectral_bias", title, checked, numbers, draw(title, notes, own, limit, at, lr))


def claims(own: Rates, limit: Rates, losses: list[float], foreseen: list[float]) -> list[Claim]:
    """What the papers say about the decay, checked."""
    mine, infinite = own.agreement(), limit.agreement()
    order = spearman([own.frequency[i] for i in own.fitted], [own.measured[i] for i in own.fitted])
    worst = max(abs(a / b - 1) for a, b in zip(losses, foreseen, strict=True))
    say = "{modes:.0f} modes: median deviation {deviation:.1%}, log-log slope {slope:.3f}, median ratio {ratio:.3f}"
    return [
        Claim(
            "each component of the error along an eigenvector of the network's kernel decays at the eigenvalue's rate",
            say.format(**mine),
            mine["deviation"] <= OWN and abs(mine["slope"] - 1) <= OWN,
            SOURCE,
        ),
        Claim(
            "the kernel of the infinitely wide network, which knows no weights, gives the same rates",
            say.format(**infinite),
            infinite["deviation"] <= INFINITE and abs(infinite["slope"] - 1) <= OWN,
            SOURCE,
        ),
        Claim(
            "so low frequencies are learned first: the rate falls as the mode's frequency rises",
            f"rank correlation of rate and frequency {order:.3f}",
            order <= -0.9,
            "Rahaman et al. 2019; Basri et al. 2019",
        ),
        Claim(
            "the loss at every step follows from the kernel at the start alone",
            f"at most {worst:.1%} off, while the loss falls by a factor of {losses[0] / losses[-1]:,.0f}",
            worst <= 2 * OWN,  # the loss is a square: twice the relative deviation of the error
            "Lee et al. 2019, equation 8",
        ),
    ]


def own_kernel(field: Field, x: Tensor, w_std: float, b_std: float) -> Float[Tensor, "n n"]:
    """The field's own kernel in the NTK parameterisation, float64."""
    precise = copy.deepcopy(field).double()
    return empirical_ntk(precise, x.double(), scales=ntk_scales(precise, w_std, b_std))


def descending(kernel: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues, the largest first, and the eigenvectors as columns."""
    values, vectors = torch.linalg.eigh(kernel)
    return values.flip(0), vectors.flip(1)


def run(
    field: Field, x: Tensor, y: Tensor, lr: float, w_std: float, b_std: float, at: list[int]
) -> tuple[Float[Tensor, "times n"], list[float]]:
    """Train ``field`` in place; the error f - y and the loss 1/2 sum (f - y)^2 after the steps ``at``."""
    inputs, targets = x.float(), y.float()
    errors: list[Tensor] = []

    @torch.no_grad()
    def observe(step: int) -> None:
        errors.append((field(inputs) - targets).double()[:, 0])

    optimizer = torch.optim.SGD(parameter_groups(field, lr, "ntk", w_std, b_std), lr=lr)
    train(field, inputs, targets, optimizer, at[-1], "sum", at, observe, what="steps of gradient descent")
    stacked = torch.stack(errors)
    return stacked, (0.5 * stacked.square().sum(dim=1)).tolist()


def rates(
    errors: Float[Tensor, "times n"],
    at: list[int],
    values: Float[Tensor, " n"],
    vectors: Float[Tensor, "n n"],
    lr: float,
) -> Rates:
    r"""Decay of the errors along eigenvectors.

    Eigenvectors of equal eigenvalues (as on the circle, a cosine and a sine) span a space, and the norm of the error's
    projection on it is taken. The rate is $(1 - e^s)/\eta$, where s is the slope of the logarithm of that norm against
    steps, through its start, from the beginning until it has fallen to :data:`FOLD`.
    """
    time = torch.tensor(at, dtype=torch.float64)
    power = torch.fft.rfft(vectors, dim=0).abs().square()
    frequency = (torch.arange(len(power), dtype=torch.float64)[:, None] * power).sum(0) / power.sum(0)
    found = Rates([], [], [], [], [], [])
    parts = groups(values)
    first = (errors[0] @ vectors).square()
    due = [float(first[group].sum() / values[group].clamp(min=0).sum()) ** 0.5 for group in parts]
    for group, start in zip(parts, due, strict=True):
        course = (errors @ vectors[:, group]).norm(dim=1)
        course = course / course[0]
        low = (course < FOLD).nonzero()
        stop = max(int(low[0]) if len(low) else len(at), 2)
        logs, steps = course[1:stop].clamp(min=1e-12).log(), time[1:stop]
        factor = math.exp(float((steps * logs).sum() / (steps * steps).sum()))
        found.eigenvalue.append(float(values[group].mean()))
        found.measured.append((1 - factor) / lr)
        found.fell.append(1 - float(course[-1]))
        found.start.append(start / sorted(due)[len(due) // 2])
        found.frequency.append(float(frequency[group].mean()))
        found.course.append(course.tolist())
    return found


def groups(values: Float[Tensor, " n"], tolerance: float = 1e-6) -> list[list[int]]:
    """Indices of descending eigenvalues, those that are equal to ``tolerance`` together."""
    found = [[0]]
    for i in range(1, len(values)):
        if float(values[i - 1] - values[i]) <= tolerance * float(values[i - 1]):
            found[-1].append(i)
        else:
            found.append([i])
    return found


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation."""
    ranks = [torch.tensor(values).argsort().argsort().double() for values in (a, b)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def draw(title: str, notes: str, own: Rates, limit: Rates, at: list[int], lr: float) -> Page:
    """Rates against eigenvalues, and the course of some modes."""
    headings = [
        [
            ("Measured rate against eigenvalue", "on the line: the theory is exact"),
            (
                "Error in single modes, by frequency",
                "dots: trained network; lines: predicted from its kernel at the start",
            ),
        ]
    ]
    page, (left, right) = sheet(title, notes, headings, 500, right=60)
    shown = [value for data in (limit, own) for i in data.fitted for value in (data.eigenvalue[i], data.measured[i])]
    low, high = 0.7 * min(value for value in shown if value > 0), 1.5 * max(shown)
    left.plot([low, high], [low, high], color=GREY, linewidth=1.4, zorder=1)
    for data, colour, marker, size in ((limit, BEST, "s", 8), (own, HELDOUT, "o", 5)):
        x = [data.eigenvalue[i] for i in data.fitted]
        y = [data.measured[i] for i in data.fitted]
        fill = "none" if data is limit else colour
        left.plot(x, y, marker, color=colour, markerfacecolor=fill, markersize=size, linestyle="none")
    for axis in ("x", "y"):
        log_axis(left, axis)
    left.set(xlim=(low, high), ylim=(low, high))
    name_axes(left, "eigenvalue of the kernel", "measured rate of decay")
    words: dict[str, Any] = {"fontsize": SMALL, "fontweight": "bold", "transform": left.transAxes}
    left.text(0.05, 0.93, "● kernel of this network", color=HELDOUT, **words)
    left.text(0.05, 0.87, "□ kernel at infinite width", color=BEST, **words)
    left.text(0.62, 0.55, "rate = eigenvalue", color=GREY, **words)
    chosen = _spread_out(own)
    for i, colour in zip(chosen, GROUPS, strict=False):
        speed = lr * own.eigenvalue[i]
        theory = [abs(1 - speed) ** step for step in at[1:]]
        right.plot(at[1:], theory, color=colour, linewidth=2)
        right.plot(at[1:], own.course[i][1:], "o", color=colour, markersize=4.5)
        half = max(math.log(0.55) / math.log1p(-speed), 1.0)  # the step where the line comes by its name
        name = f"frequency\n{own.frequency[i]:.0f}" if i == chosen[-1] else f"{own.frequency[i]:.0f}"
        if half <= at[-1]:
            style: dict[str, Any] = {
                "textcoords": "offset points",
                "color": colour,
                "fontsize": SMALL + 1,
                "fontweight": "bold",
            }
            right.annotate(name, (half, min(0.55, 1 - speed)), (7, 2), annotation_clip=False, **style)
    log_axis(right, "x")
    right.set(ylim=(0, 1.04), xlim=(0.9, 1.05 * at[-1]))
    name_axes(right, "step", "component of the error / its start")
    return page


def _spread_out(own: Rates) -> list[int]:
    """Modes whose frequencies are next to 0, 1, 2, 4, 8, ...: about six, all different."""
    wanted, chosen = [0, *(2**k for k in range(12))], []
    for frequency in wanted:
        if frequency <= max(own.frequency) + 0.5:
            nearest = min(own.fitted, key=lambda i: abs(own.frequency[i] - frequency))
            if nearest not in chosen and abs(own.frequency[nearest] - frequency) < 0.6:
                chosen.append(nearest)
    return chosen
