r"""Width and output scale make training lazy: the loss falls as before, weights and kernel barely move.

The toy of a line: two points, two hidden ReLU layers, PyTorch's own initialisation (``torch.nn.Linear``), mean squared error.

**Width m.** Let $K = \sum_l K_l$ be the tangent kernel by layers. To take away the error e a layer moves by
$\lVert\Delta W_l\rVert^2 = e^\top K^{-1} K_l K^{-1} e$. In the standard parameterisation $K \sim m$ with $K_1 \sim 1$,
$K_2 \sim K_3 \sim m$, and $\lVert W_1\rVert \sim \lVert W_2\rVert \sim \sqrt m$, $\lVert W_3\rVert \sim 1$, hence

| layer | first | hidden | last |
|---|---|---|---|
| $\lVert\Delta W_l\rVert / \lVert W_l\rVert$ | $m^{-3/2}$ | $m^{-1}$ | $m^{-1/2}$ |

(Lee et al. 2019, figure 1, have $m^{-1}$ and $m^{-1/2}$ for hidden and last layers, and find the kernel's movement below
$m^{-1/2}$ and nearer to $m^{-1}$; their first layer is in the NTK parameterisation). All weights together, of which nearly
all are hidden, go as $m^{-1}$.

**Output scale $\alpha$.** Train $\alpha h$ with $h = f - f_0$ on the loss divided by $\alpha^2$. For large $\alpha$ the
weights move as $1/\alpha$, and the kernel and the distance between $\alpha h$ and the linearised model trained alike, on the
training points at any time, are $O(1/\alpha)$ (Chizat et al. 2019, theorem 2.2). The theorem wants a Lipschitz derivative,
which ReLU has where no kink passes; kinks that pass over training points at smaller $\alpha$ let both fall faster. Between
the training points some kink always passes: there the two differ by a part that does not shrink, over a stretch of the line
as short as the kink's way, $1/\alpha$, so by $\alpha^{-1/2}$ in the root mean square.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.encodings import Identity
from neuralfield.errors import ConfigError, DivergedError
from neuralfield.field import Field
from neuralfield.networks import MLP
from neuralfield.ntk.dynamics import Dynamics
from neuralfield.ntk.empirical import empirical_ntk
from neuralfield.ntk.linearize import scaled
from neuralfield.ntk.movement import LazinessProbe
from neuralfield.reproduce.lazy_figure import draw
from neuralfield.reproduce.progress import track
from neuralfield.reproduce.report import Claim, Reproduction
from neuralfield.reproduce.wide import log_steps, slope, train

X, Y = ((-3.0,), (0.5,)), ((2.0,), (-1.0,))
"""The two training points and their targets."""
DONE = 1e-10
"""Loss at which training stops."""
LAZY = 0.1
"""The kernel's relative movement below which training counts as lazy: there the laws in alpha are read."""
WIDE = 32
"""Width from which the laws in width are read."""
TOLERANCE = 0.2
"""Allowed difference of a measured exponent from that of the limit: trials scatter, and the widths are finite."""
LAYERS = {"network.layers.0": "first layer", "network.layers.1": "hidden layer", "network.layers.2": "last layer"}
EXPONENTS = {"first layer": -1.5, "hidden layer": -1.0, "last layer": -0.5, "all weights": -1.0}


def reproduce(
    widths: list[int], clock: float, width_steps: int, shown_widths: list[int], shown_lr: float, shown_steps: int,
    alphas: list[float], alpha_width: int, alpha_lr: float, alpha_steps: int, trials: int, seed: int,
) -> Reproduction:  # fmt: skip
    """Train by width and by output scale; the options are those of ``configs/reproduce/lazy_training.yaml``."""
    _ascending("widths", widths)
    _ascending("alphas", alphas)
    clock, trials = number("clock", clock, 0, above=True), integer("trials", trials, 1)
    by_width: dict[str, Any] = {"widths": widths, **by_widths(widths, clock, width_steps, trials, seed)}
    by_alpha: dict[str, Any] = {"alphas": alphas, **by_alphas(alphas, alpha_width, alpha_lr, alpha_steps, trials, seed)}
    shown = {}
    x, y = points()
    for width in track(shown_widths, "widths with one learning rate"):
        field = toy(width, seed)
        shown[str(width)] = train(field, x, y, _sgd(field, shown_lr), shown_steps, loss="mse", until=DONE)
    numbers = {"width": by_width, "alpha": by_alpha, "loss_by_width": shown}
    title = "A wide network or a large output scale learns the same while its weights barely move"
    notes = (
        f"Two points of a line, two hidden ReLU layers, gradient descent on the mean squared error; geometric means of "
        f"{trials} network{'s' if trials > 1 else ''}"
    )
    return Reproduction("lazy_training", title, claims(by_width, by_alpha), numbers, draw(title, notes, numbers))


def points() -> tuple[Float[Tensor, "2 1"], Float[Tensor, "2 1"]]:
    """The training set."""
    return torch.tensor(X, dtype=torch.float64), torch.tensor(Y, dtype=torch.float64)


def toy(width: int, seed: int) -> Field:
    """From a number to a number with two hidden layers, as torch.nn.Linear starts it, float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MLP(1, 1, width, 2, initialization="pytorch", output_scale=1.0)
    return Field(Identity(1), network).double()


def by_widths(widths: Sequence[int], clock: float, steps: int, trials: int, seed: int) -> dict[str, list[float]]:
    """Geometric means over trials of what had moved when training was done, for each width."""
    x, y = points()
    found: dict[str, list[float]] = {name: [] for name in ("loss", "kernel", *EXPONENTS)}
    for width in track(widths, "widths"):
        rows = []
        for trial in range(trials):
            field = toy(width, seed + trial)
            probe = LazinessProbe(field, x)
            losses = train(field, x, y, _sgd(field, clock / width), steps, loss="mse", until=DONE)
            moved = probe.measure()
            layers = {LAYERS[group]: value for group, value in moved.groups.items()}
            rows.append({"loss": losses[-1], "kernel": moved.kernel, "all weights": moved.weights, **layers})
        _append(found, rows)
    return found


def by_alphas(
    alphas: Sequence[float], width: int, lr: float, steps: int, trials: int, seed: int
) -> dict[str, list[Any]]:
    """The same for each output scale, with distances to the linearised model, and one course of the loss.

    "linearised" is the largest distance on the training points over all steps, "linearised between" the one on points around
    and between them at the end; relative to the targets and to the linearised model.
    """
    x, y = points()
    between = torch.linspace(-4, 1.5, 45, dtype=torch.float64)[:, None]
    names = ("loss", "kernel", "all weights", "linearised", "linearised between", "course")
    found: dict[str, list[Any]] = {name: [] for name in names}
    at = log_steps(steps, 30)
    for alpha in track(alphas, "output scales"):
        rows: list[dict[str, Any]] = []
        course: list[float] = []
        for trial in range(trials):
            field = toy(width, seed + trial)
            start, probe, model = copy.deepcopy(field), LazinessProbe(field, x), scaled(field, alpha)
            seen: list[Tensor] = []
            look = torch.no_grad()(lambda step, model=model, seen=seen: seen.append(model(x)))
            optimizer = _sgd(field, lr * model.loss_factor)
            try:
                losses = train(model, x, y, optimizer, steps, "mse", at, look, until=DONE)
            except DivergedError as error:
                raise DivergedError(f"alpha {alpha:g}: {error}") from error
            course = course or losses
            moved = probe.measure()
            # Scaled and divided by alpha^2, the model follows the kernel of the field itself.
            dynamics = Dynamics(
                empirical_ntk(start, x), empirical_ntk(start, between, x), method="gd", learning_rate=lr, loss="mse"
            )
            on_points = dynamics.predict(y, at[: len(seen)]).train
            linear = dynamics.predict(y, len(losses) - 1).test
            assert linear is not None
            with torch.no_grad():
                rows.append(
                    {
                        "loss": losses[-1],
                        "kernel": moved.kernel,
                        "all weights": moved.weights,
                        "linearised": float((torch.stack(seen) - on_points).norm(dim=(1, 2)).max() / y.norm()),
                        "linearised between": float((model(between) - linear).norm() / linear.norm()),
                    }
                )
        _append(found, rows)
        found["course"].append(course)
    return found


def claims(width: dict[str, Any], alpha: dict[str, Any]) -> list[Claim]:
    """What the papers say about laziness, checked."""
    wide = [i for i, m in enumerate(width["widths"]) if m >= WIDE]
    measured = {
        name: slope([width["widths"][i] for i in wide], [width[name][i] for i in wide])
        for name in (*EXPONENTS, "kernel")
    }
    right = all(abs(measured[name] - wanted) <= TOLERANCE for name, wanted in EXPONENTS.items())
    lazy = [i for i, value in enumerate(alpha["kernel"]) if value < LAZY]
    scales = [alpha["alphas"][i] for i in lazy]
    laws = {
        name: slope(scales, [alpha[name][i] for i in lazy]) if len(lazy) > 2 else math.nan
        for name in ("all weights", "kernel", "linearised", "linearised between")
    }
    kinks = laws.pop("linearised between")
    fallen = [alpha["loss"][i] / alpha["course"][i][0] for i in lazy]
    half = [_steps_to(alpha["course"][i], 0.01) for i in lazy]
    return [
        Claim(
            "with width m weights move less: last layer as m^(-1/2), hidden as 1/m, first as m^(-3/2), together as 1/m",
            ", ".join(f"{name} {measured[name]:.2f}" for name in EXPONENTS) + f" (exponents from width {WIDE})",
            right,
            "Lee et al. 2019, figure 1; Chizat et al. 2019, section 1",
        ),
        Claim(
            "the kernel's movement falls at least as fast as m^(-1/2), nearer to 1/m",
            f"exponent {measured['kernel']:.2f}; {width['kernel'][-1]:.1%} at width {width['widths'][-1]:,}",
            measured["kernel"] <= -0.5,
            "Lee et al. 2019, figure 1",
        ),
        Claim(
            "every width learns the points all the same",
            f"largest final loss {max(width['loss']):.1e}",
            max(width["loss"]) <= 1e-6,
            "Du et al. 2019, theorem 4.1; Chizat et al. 2019, section 1",
        ),
        Claim(
            "with the output scale alpha weights move as 1/alpha; kernel and linearised model part at least as fast",
            ", ".join(f"{name} {value:.3f}" for name, value in laws.items())
            + f" (exponents over {len(lazy)} scales at which the kernel moves by less than {LAZY:.0%})",
            abs(laws["all weights"] + 1) <= TOLERANCE / 2
            and all(laws[name] <= TOLERANCE - 1 for name in ("kernel", "linearised")),
            "Chizat et al. 2019, theorem 2.2",
        ),
        Claim(
            "between the training points, where kinks of ReLU pass, the distance falls as alpha^(-1/2) only",
            f"exponent {kinks:.3f}",
            abs(kinks + 0.5) <= TOLERANCE,
            "follows from Chizat et al. 2019, theorem 2.2, whose smoothness ReLU lacks there",
        ),
        Claim(
            "the loss does not notice alpha there: it falls as far, in as many steps",
            f"to at most {max(fallen, default=math.inf):.0e} of its start; to 1 % in {min(half, default=0)} to "
            f"{max(half, default=0)} steps",
            bool(lazy) and max(fallen) <= 1e-6 and max(half) <= 1.1 * min(half),
            "Chizat et al. 2019, section 1.1",
        ),
        Claim(
            "with a small alpha training is not lazy: the kernel changes altogether",
            f"by {alpha['kernel'][0]:.0%} at alpha {alpha['alphas'][0]:g}",
            alpha["kernel"][0] > 1,
            "Chizat et al. 2019, section 3",
        ),
    ]


def _sgd(field: Field, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(field.parameters(), lr=lr)


def _append(found: dict[str, list[Any]], rows: list[dict[str, Any]]) -> None:
    for name in rows[0]:
        found[name].append(math.exp(sum(math.log(max(row[name], 1e-300)) for row in rows) / len(rows)))


def _steps_to(course: list[float], part: float) -> int:
    return next((step for step, loss in enumerate(course) if loss <= part * course[0]), len(course))


def _ascending(name: str, values: list[Any]) -> None:
    if not isinstance(values, list) or len(values) < 3 or values != sorted(set(values)):
        raise ConfigError(f"{name} must be a list of at least three ascending numbers, got {values!r}")
