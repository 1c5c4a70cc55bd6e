r"""Convergence along kernel principal components: Jacot et al. 2018, section 6.3 and figure 3.

On N points with kernel matrix $\Theta$ let $f^{(i)}$ be the eigenvectors of $\Theta/N$ (principal components, not
centred), scaled to $\lVert f^{(i)}\rVert = 1$ in $\lVert f\rVert^2 = \frac1N \sum f(x_j)^2$, and $\lambda_i$ the
eigenvalues. With the target $f^* = f_0 + 0.5 f^{(2)}$ and the loss $\frac12 \lVert f - f^*\rVert^2$ a
network of infinite width moves along $f^{(2)}$ alone: of the error

$$f_t - f^* = g_t f^{(2)} + h_t,\quad h_t \perp f^{(2)}:\qquad |g_t| = 0.5\, e^{-\lambda_2 t}, \quad h_t = 0.$$

A network of finite width has another kernel, by $O(1/\sqrt{width})$, which mixes the components.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer, number
from neuralfield.errors import ConfigError
from neuralfield.field import Field
from neuralfield.ntk.empirical import empirical_ntk, ntk_scales
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.reproduce.handwriting import digits
from neuralfield.reproduce.progress import track
from neuralfield.reproduce.report import Claim, Reproduction
from neuralfield.reproduce.sheet import legend, log_axis, name_axes, sheet
from neuralfield.reproduce.wide import parameter_groups, train, wide_field
from neuralfield.viz.style import BEST, GREY, GROUPS, INK, SMALL, Page

DEPTH, W_STD, B_STD, SIZE = 3, 1.0, 0.1, 0.5
SOURCE = "Jacot et al. 2018, section 6.3, figure 3"
WIDTH_COLOURS = ("#8fbbe8", "#4a8fd6", "#0b4f91", "#062a4f")


def reproduce(
    seed: int,
    data: str,
    n: int,
    widths: Sequence[int],
    trials: int,
    kernel_draws: int,
    mode: int,
    horizon: float,
    step: float,
) -> Reproduction:
    """The figure with its claims; the options are explained in ``configs/reproduce/kernel_modes.yaml``.

    Raises :class:`~neuralfield.errors.ConfigError` for options out of range, and
    :class:`~neuralfield.errors.MissingDependency` for ``data="digits"`` without scikit-learn.
    """
    widths = [integer("widths", width, 2, 65536) for width in widths]
    if not 2 <= len(widths) <= len(WIDTH_COLOURS) or widths != sorted(set(widths)):
        raise ConfigError(f"widths must be 2 to {len(WIDTH_COLOURS)} ascending numbers, got {widths}")
    mode, trials = integer("mode", mode, 1, min(n, 8)), integer("trials", trials, 1)
    horizon, step = number("horizon", horizon, 0, above=True), number("step", step, 0, 1.5, above=True)
    x, labels = digits(data, n, seed)
    values, components = principal_components(MLPKernel(DEPTH, "relu", W_STD, B_STD).ntk(x.double()))
    stiff = principal_components(MLPKernel(DEPTH, "relu", W_STD, 1.0).ntk(x.double()))[0]
    lr = step / float(values[0])
    steps = max(1, round(horizon / float(values[mode - 1]) / lr))
    runs = []
    target = components[:, mode - 1]
    for index, width in enumerate(widths):
        for trial in track(range(trials), f"networks of width {width:,}"):
            # Other seeds for each width: equal ones would share the first weights, and so the kernels' deviations.
            runs.append({"width": width, **_train(x, target, width, lr, steps, seed + 1000 * (index + 1) + trial)})
    draws = [
        own_rate(_network(x, widths[0], seed + 10**6 + i), x, target)
        for i in track(range(integer("kernel_draws", kernel_draws, 10)), f"kernels of width {widths[0]:,}")
    ]
    rate = -math.log1p(-lr * float(values[mode - 1])) / lr  # of discrete steps, per unit of time
    numbers: dict[str, Any] = {
        "eigenvalues": values[:8].tolist(),
        "eigenvalues_beta_1": stiff[:8].tolist(),
        "labels": labels.tolist(),
        "components": components[:, :3].T.tolist(),
        "lr": lr,
        "steps": steps,
        "mode": mode,
        "rate": rate,
        "runs": runs,
        "kernel_draws": draws,
    }
    claims = check(numbers, widths)
    return Reproduction("kernel_modes", _TITLE, claims, numbers, _draw(numbers, widths, data, n))


def principal_components(kernel: Float[Tensor, "n n"]) -> tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]:
    """Eigenvalues of K/N, descending, and eigenvectors as columns whose entries have mean square 1."""
    values, vectors = torch.linalg.eigh(kernel / len(kernel))
    return values.flip(0), vectors.flip(1) * math.sqrt(len(kernel))


def own_rate(field: Field, x: Float[Tensor, "n pixels"], component: Float[Tensor, " n"]) -> float:
    r"""$\tfrac{1}{N^2} f^\top \Theta f$ with the kernel of the present weights: how fast an error along f decays at first."""
    kernel = empirical_ntk(field, x, scales=ntk_scales(field, W_STD, B_STD)).double()
    return float(component @ kernel @ component) / len(x) ** 2


def _network(x: Tensor, width: int, seed: int) -> Field:
    return wide_field(x.shape[1], 1, width, DEPTH, W_STD, B_STD, seed=seed)


def _train(x: Tensor, component: Tensor, width: int, lr: float, steps: int, seed: int) -> dict[str, Any]:
    """g and h of one network at some 100 times; the rate of g in the first step, and what the network's own kernel says."""
    field = _network(x, width, seed)
    own = own_rate(field, x, component)
    with torch.no_grad():
        start = field(x).double()
    target = start + SIZE * component[:, None]
    found: dict[str, Any] = {"t": [], "g": [], "h": []}

    @torch.no_grad()
    def observe(at: int) -> None:
        error = (field(x).double() - target)[:, 0]
        along = float((error * component).mean())
        found["t"].append(lr * at)
        found["g"].append(abs(along))
        found["h"].append(math.sqrt(max(0.0, float(error.square().mean()) - along**2)))

    optimizer = torch.optim.SGD(parameter_groups(field, lr, "ntk", W_STD, B_STD), lr=lr)
    at = sorted({1, *(round(i * steps / 100) for i in range(101))})
    train(field, x, target.float(), optimizer, steps, "mean", at, observe)
    found["first_rate"] = (1 - found["g"][1] / found["g"][0]) / lr
    found["own_rate"] = own
    return found


def check(numbers: dict[str, Any], widths: Sequence[int]) -> list[Claim]:
    """Rates and largest excursions by width; adds them to ``numbers``."""
    runs, mode = numbers["runs"], numbers["mode"]
    values, stiff = numbers["eigenvalues"], numbers["eigenvalues_beta_1"]
    rates, across = [], []
    for width in widths:
        of_width = [run for run in runs if run["width"] == width]
        rates.append(float(np.mean([_rate(run) for run in of_width])) / numbers["rate"])
        across.append(float(np.mean([max(run["h"]) for run in of_width])))
    span = math.log(widths[-1] / widths[0])
    power = math.log(across[0] / across[-1]) / span
    excess = math.log(abs(rates[0] - 1) / abs(rates[-1] - 1)) / span
    first = np.array([run["first_rate"] for run in runs]) / values[mode - 1]
    own = np.array([run["own_rate"] for run in runs]) / values[mode - 1]
    drawn = np.array(numbers["kernel_draws"]) / values[mode - 1]
    mean, error = float(drawn.mean()), float(drawn.std(ddof=1)) / math.sqrt(len(drawn))
    gaps = values[0] / values[1], stiff[0] / stiff[1]
    numbers |= {"relative_rates": rates, "largest_h": across, "power": power, "rate_power": excess, "gaps": gaps}
    numbers |= {"first_rates": first.tolist(), "own_rates": own.tolist()}
    by_width = lambda numbers: ", ".join(f"{v:.3f} at {w:,}" for v, w in zip(numbers, widths, strict=True))  # noqa: E731
    return [
        Claim(
            f"at the start the error along component {mode} decays as the network's own kernel says",
            f"first step against f Θ f of each network: apart by at most {100 * np.abs(first / own - 1).max():.2f} %",
            bool(np.abs(first / own - 1).max() < 0.05),
            SOURCE,
        ),
        Claim(
            f"and the average of such kernels says the eigenvalue of the infinite-width kernel, λ{mode}",
            f"f Θ f / λ{mode}: {mean:.3f} ± {error:.3f} over {len(drawn)} networks of width {widths[0]:,} (accepted: 3.3 "
            f"standard errors); λ{mode} = {values[mode - 1]:.3g}",
            abs(mean - 1) < 3.3 * error,
            SOURCE,
        ),
        Claim(
            f"over the whole course, too, the rate tends to λ{mode} with the width",
            f"rate / λ{mode} by width: {by_width(rates)}: its excess falls with the power {-excess:.2f} "
            "(accepted: below -0.3)",
            excess > 0.3,
            SOURCE,
        ),
        Claim(
            "narrower networks converge faster",
            f"rate / λ{mode} falls with the width: {by_width(rates)}",
            rates == sorted(rates, reverse=True),
            SOURCE,
        ),
        Claim(
            "the error across it vanishes with the width, as 1/sqrt(width)",
            f"largest |h| by width: {by_width(across)}: power {-power:.2f}, expected -0.5 (accepted: -0.3 to -0.8)",
            0.3 < power < 0.8,
            SOURCE,
        ),
        Claim(
            "a larger bias (β = 1 for 0.1) widens the gap between the first two eigenvalues, so that training is slower",
            f"λ1/λ2 = {gaps[1]:.0f} with β = 1, {gaps[0]:.0f} with β = 0.1: {gaps[1] / gaps[0]:.1f} times (about 10 on "
            f"MNIST; accepted: above 3)",
            gaps[1] > 3 * gaps[0],
            SOURCE,
        ),
    ]


def _rate(run: dict[str, Any]) -> float:
    """The slope of -log |g| by least squares, where |g| is still above 5 % of its start."""
    t, g = np.array(run["t"]), np.array(run["g"])
    kept = g > 0.05 * g[0]
    kept[np.argmin(kept) if not kept.all() else len(kept) :] = False  # up to the first time below
    return float(-np.polyfit(t[kept], np.log(g[kept]), 1)[0])


_TITLE = "Towards one kernel component, a wide network moves along it alone, at its eigenvalue's rate"


def _draw(numbers: dict[str, Any], widths: Sequence[int], data: str, n: int) -> Page:
    mode = numbers["mode"]
    subtitle = (
        f"{n} {'digits drawn in a font' if data == 'drawn' else 'digits of scikit-learn'}, 3 hidden ReLU layers, "
        f"β = {B_STD}; target: the network's own start + {SIZE} × component {mode}; {numbers['steps']} steps"
    )
    best, worst = numbers["largest_h"][-1], numbers["largest_h"][0]
    headings = [
        [
            ("The data in components 2 and 3", "of the infinite-width kernel, one sign per digit"),
            (
                f"Error along component {mode}",
                f"rate / λ{mode}: " + ", ".join(f"{r:.2f}" for r in numbers["relative_rates"]) + ", tends to 1",
            ),
            ("Error across it", f"at most {worst:.3f} at width {widths[0]:,}, {best:.3f} at {widths[-1]:,}"),
        ]
    ]
    page, (cloud, along, across) = sheet(_TITLE, subtitle, headings, 380)
    for x, y, label in zip(*numbers["components"][1:3], numbers["labels"], strict=True):
        cloud.text(x, y, str(label), color=GROUPS[label % len(GROUPS)], fontsize=SMALL - 3.5, ha="center", va="center")
    reach = 1.08 * max(abs(v) for component in numbers["components"][1:3] for v in component)
    cloud.set(xlim=(-reach, reach), ylim=(-reach, reach))
    name_axes(cloud, "component 2", "component 3")
    for run in numbers["runs"]:
        first = run is next(r for r in numbers["runs"] if r["width"] == run["width"])
        style = {"color": WIDTH_COLOURS[widths.index(run["width"])], "linewidth": 1.8}
        label = f"width {run['width']:,}" if first else ""
        along.plot(run["t"], run["g"], label=label, **style)
        across.plot(run["t"], run["h"], label=label, **style)
    t = numbers["runs"][0]["t"]
    theory = [SIZE * math.exp(-numbers["rate"] * v) for v in t]
    along.plot(t, theory, color=BEST, linewidth=2.2, linestyle="--", label=f"0.5 exp(-λ{mode} t)")
    across.plot([0, t[-1]], [0, 0], color=BEST, linewidth=2.2, linestyle="--", label="infinite width: 0")
    log_axis(along, "y")
    along.set_ylim(min(theory[-1], min(min(run["g"]) for run in numbers["runs"])) * 0.8, 0.6)
    across.set_ylim(-0.03 * worst, 1.45 * max(max(run["h"]) for run in numbers["runs"]))
    for axes in (along, across):
        name_axes(axes, "training time t = steps × learning rate")
    legend(along, "lower left")
    legend(across, "upper left", ncols=2)
    across.axhline(0, color=GREY, linewidth=0.5)
    cloud.grid(axis="both", color="#eceef2")
    along.tick_params(colors=INK)
    return page
