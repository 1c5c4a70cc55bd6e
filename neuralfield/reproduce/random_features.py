r"""Training only the last layer is kernel regression with the random-feature kernel.

With all layers but the last frozen a network is linear in what is trained, $f(x) = w \cdot \phi(x) + b$, so gradient descent
on squared loss is in function space that of the kernel
$\hat K(x, x') = \frac{\sigma_w^2}{m} \phi(x) \cdot \phi(x') + \sigma_b^2$ of its m random features $\phi$, exactly and at any
width:
$f_t(x) = \hat K(x, X) \hat K^{-1} (1 - (1 - \eta \hat K)^t)\,y$ from $f_0 = 0$ (Rahimi & Recht 2007; Jacot et al. 2018,
section 4: the last layer's part of the tangent kernel). With m its mean tends to the NNGP kernel (Lee et al. 2018), at the
rate $1/\sqrt m$ of a mean of m terms, and the regression with it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuralfield.checks import integer
from neuralfield.errors import ConfigError
from neuralfield.field import Field
from neuralfield.ntk.dynamics import Dynamics
from neuralfield.ntk.empirical import empirical_ntk, ntk_scales
from neuralfield.ntk.kernels import MLPKernel
from neuralfield.reproduce.progress import track
from neuralfield.reproduce.report import Claim, Reproduction
from neuralfield.reproduce.sheet import end_label, log_axis, name_axes, sheet
from neuralfield.reproduce.wide import circle, parameter_groups, slope, train, wide_field
from neuralfield.viz.style import BEST, GREY, HELDOUT, INK, SMALL, Page, tick_labels

EXACT, EXPONENT = 1e-6, 0.1
"""Allowed: the largest difference of training from the closed form; and of the exponent from -1/2."""
N_TEST = 256
LAYERS = "the last layer's part of the tangent kernel"


def reproduce(
    widths: list[int], depth: int, draws: int, n_points: int, steps: int, checked: int, w_std: float, b_std: float,
    seed: int,
) -> Reproduction:  # fmt: skip
    """Train last layers and compare with kernel regression.

    The options are those of ``configs/reproduce/random_features.yaml``.
    """
    widths = _ascending(widths)
    n, steps, draws = integer("n_points", n_points, 4, 1024), integer("steps", steps, 1), integer("draws", draws, 2)
    checked = integer("checked", checked, 1, draws)
    x, x_test = circle(n), circle(N_TEST)
    y = target(x)
    limit_kernel = MLPKernel(depth, "relu", w_std, b_std)
    k, k_test = limit_kernel.nngp(x), limit_kernel.nngp(x_test, x)
    lr = 1 / float(torch.linalg.eigvalsh(k)[-1])
    times = [steps, math.inf]
    limit = regression(k, k_test, y, lr, times)
    exact: dict[int, float] = {}
    kernels: dict[int, float] = {}
    distance: dict[int, list[float]] = {}
    example: dict[str, Any] = {}
    jobs = [(width, draw) for width in widths for draw in range(draws)]
    for width, draw in track(jobs, "networks"):
        field = last_layer_field(width, depth, w_std, b_std, seed + 1000 * draw)
        kernel, kernel_test = feature_kernel(field, x, x, w_std, b_std), feature_kernel(field, x_test, x, w_std, b_std)
        foreseen = regression(kernel, kernel_test, y, lr, times)
        gap = float((foreseen[0] - limit[0]).square().mean().sqrt() / limit[0].square().mean().sqrt())
        distance.setdefault(width, []).append(gap)
        if draw < checked:
            by_hand = features_product(field, x_test, x, w_std, b_std)
            kernels[width] = max(kernels.get(width, 0.0), float((by_hand - kernel_test).abs().max()))
            trained = train_last_layer(field, x, y, x_test, lr, steps, w_std, b_std)
            exact[width] = max(exact.get(width, 0.0), float((trained - foreseen[0]).abs().max()))
            if draw == 0 and width == widths[0]:
                example = {"trained": trained.tolist(), "regression": foreseen[0].tolist(), "width": width}
    rms = {width: math.sqrt(sum(v * v for v in values) / len(values)) for width, values in distance.items()}
    angle = [360 * i / N_TEST for i in range(N_TEST)]
    numbers: dict[str, Any] = {
        "widths": widths,
        "largest_difference_to_closed_form": [exact[w] for w in widths],
        "largest_difference_of_kernels": [kernels[w] for w in widths],
        "relative_rms_to_nngp": [rms[w] for w in widths],
        "of_each_network": [distance[w] for w in widths],
        "steps_left_to_infinity": float((limit[0] - limit[1]).abs().max()),
        "example": {**example, "angle": angle, "nngp": limit[0].tolist(), "targets": y[:, 0].tolist()},
    }
    title = "Training the last layer alone is kernel regression with its random features, exactly"
    notes = (
        f"{depth} hidden ReLU layer{'s' if depth > 1 else ''}, {n} points of the circle, {steps:,} steps of gradient "
        f"descent from f = 0, {draws} networks of each width"
    )
    checks = claims(widths, exact, kernels, rms)
    return Reproduction("random_features", title, checks, numbers, draw_page(title, notes, numbers))


def claims(widths: list[int], exact: dict[int, float], kernels: dict[int, float], rms: dict[int, float]) -> list[Claim]:
    """What the papers say about random features, checked."""
    exponent = slope(widths, [rms[w] for w in widths])
    narrow, wide = widths[0], widths[-1]
    return [
        Claim(
            "gradient descent on the last layer gives the closed form of kernel regression, at every width, between the "
            "training points too",
            f"largest difference {max(exact.values()):.1e} over widths {narrow:,} to {wide:,}",
            max(exact.values()) <= EXACT,
            "Rahimi & Recht 2007; Jacot et al. 2018, section 4",
        ),
        Claim(
            f"its kernel, {LAYERS}, is the product of the random features",
            f"largest difference {max(kernels.values()):.1e}",
            max(kernels.values()) <= EXACT,
            "Rahimi & Recht 2007",
        ),
        Claim(
            "with width the trained function tends to regression with the NNGP kernel, as one over the square root",
            f"distance {rms[narrow]:.1%} at width {narrow:,}, {rms[wide]:.1%} at {wide:,}; exponent {exponent:.3f}",
            abs(exponent + 0.5) <= EXPONENT,
            "Lee et al. 2018; Rahimi & Recht 2007, claim 1",
        ),
    ]


def target(x: Float[Tensor, "n 2"]) -> Float[Tensor, "n 1"]:
    """A function of three frequencies: cos a + cos(2 a + 1) / 2 + sin(3 a) / 2."""
    angle = torch.atan2(x[:, 1], x[:, 0])
    return (angle.cos() + 0.5 * (2 * angle + 1).cos() + 0.5 * (3 * angle).sin())[:, None]


def last_layer_field(width: int, depth: int, w_std: float, b_std: float, seed: int) -> Field:
    """A network of float64 weights with all layers but the last frozen, and the last at zero."""
    field = wide_field(2, 1, width, depth, w_std, b_std, seed=seed, dtype=torch.float64)
    field.requires_grad_(False)
    last = field.network.linear_layers()[-1]  # type: ignore[operator]
    for parameter in last.parameters():
        parameter.requires_grad_(True)
        parameter.data.zero_()
    return field


def feature_kernel(
    field: Field, x1: Float[Tensor, "n 2"], x2: Float[Tensor, "m 2"], w_std: float, b_std: float
) -> Float[Tensor, "n m"]:
    """The tangent kernel of what is trainable, NTK parameterisation."""
    return empirical_ntk(field, x1, None if x1 is x2 else x2, scales=ntk_scales(field, w_std, b_std))


@torch.no_grad()
def features_product(
    field: Field, x1: Float[Tensor, "n 2"], x2: Float[Tensor, "m 2"], w_std: float, b_std: float
) -> Float[Tensor, "n m"]:
    r"""$\frac{\sigma_w^2}{m} \phi(x) \cdot \phi(x') + \sigma_b^2$ from the definition."""

    def features(x: Tensor) -> Tensor:
        for layer in field.network.linear_layers()[:-1]:  # type: ignore[operator]
            x = layer(x).relu()
        return x

    phi = features(x1)
    return w_std**2 / phi.shape[1] * phi @ features(x2).T + b_std**2


def train_last_layer(
    field: Field, x: Tensor, y: Tensor, x_test: Tensor, lr: float, steps: int, w_std: float, b_std: float
) -> Float[Tensor, "m 1"]:
    """The network's values on test points after gradient descent on 1/2 sum (f - y)^2 with the last layer's parameters."""
    groups = parameter_groups(field, lr, "ntk", w_std, b_std)
    train(field, x, y, torch.optim.SGD(groups, lr=lr), steps, loss="sum")
    with torch.no_grad():
        return field(x_test)  # type: ignore[no-any-return]


def regression(
    kernel: Float[Tensor, "n n"], kernel_test: Float[Tensor, "m n"], y: Float[Tensor, "n 1"], lr: float,
    times: list[float],
) -> Float[Tensor, "t m 1"]:  # fmt: skip
    """Kernel regression from zero on the test points after some steps of gradient descent, in closed form."""
    found = Dynamics(kernel, kernel_test, method="gd", learning_rate=lr, loss="sum").predict(y, times)
    assert found.test is not None
    return found.test


def draw_page(title: str, notes: str, numbers: dict[str, Any]) -> Page:
    """One network's function, and distances against width."""
    example, widths = numbers["example"], numbers["widths"]
    headings = [
        [
            (
                f"{example['width']:,} random features, last layer trained",
                "the trained network lies on its kernel regression",
            ),
            ("Distance of the trained network from ...", "largest difference, and relative rms difference"),
        ]
    ]
    page, (left, right) = sheet(title, notes, headings, 440, right=150)
    angle = example["angle"]
    flat = {name: [row[0] for row in example[name]] for name in ("trained", "regression", "nngp")}
    left.plot(
        angle, flat["nngp"], color=BEST, linewidth=1.8, linestyle="--", label="regression, infinitely many (NNGP)"
    )
    left.plot(angle, flat["regression"], color=HELDOUT, linewidth=5, alpha=0.35, label="regression with these features")
    left.plot(angle, flat["trained"], color=INK, linewidth=1.6, label="trained network")
    step = len(angle) / len(example["targets"])
    points = [angle[round(i * step)] for i in range(len(example["targets"]))]
    left.plot(points, example["targets"], "o", color=INK, markersize=6, label="training points")
    left.set(xlim=(0, 360), ylim=(left.get_ylim()[0], 1.25 * left.get_ylim()[1] + 0.6))
    left.legend(loc="upper center", ncols=2, frameon=False, fontsize=SMALL - 1, labelcolor=INK)
    tick_labels(left, "x", [0, 90, 180, 270, 360], ["0°", "90°", "180°", "270°", "360°"])
    name_axes(left, "angle on the circle", "f")
    exact, rms = numbers["largest_difference_to_closed_form"], numbers["relative_rms_to_nngp"]
    guide = [rms[0] * (w / widths[0]) ** -0.5 for w in widths]
    right.plot(widths, guide, color=GREY, linewidth=1.4, linestyle="--")
    right.plot(widths, rms, "o-", color=BEST, linewidth=2, markersize=7)
    right.plot(widths, [max(v, 1e-17) for v in exact], "o-", color=HELDOUT, linewidth=2, markersize=7)
    for axis in ("x", "y"):
        log_axis(right, axis)
    right.set_ylim(1e-17, 3)
    end_label(right, widths[-1], rms[-1], "NNGP regression", BEST)
    end_label(right, widths[-1], max(exact[-1], 1e-17), "regression with\nits own features", HELDOUT)
    right.annotate("1 / √width", (widths[1], guide[1]), (14, 8), textcoords="offset points", color=GREY, fontsize=SMALL)
    tick_labels(right, "x", widths, [f"{w:,}" for w in widths])
    name_axes(right, "width: number of random features", "difference")
    return page


def _ascending(widths: list[int]) -> list[int]:
    found = [integer("widths", width, 4, 65536) for width in widths] if isinstance(widths, list) else []
    if len(found) < 2 or found != sorted(set(found)):
        raise ConfigError(f"widths must be a list of at least two ascending numbers, got {widths!r}")
    return found
