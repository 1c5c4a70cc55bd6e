"""Adam in function space against Adam on the parameters of linear models."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.networks import MLP
from neuralfield.ntk import adam_dense
from neuralfield.ntk.adam import predict_adam
from neuralfield.ntk.adam_moments import LastLayer, Moments, Start

BETA1, BETA2, EPS = 0.9, 0.99, 1e-8


class Linear:
    """f = sum_g J_g w_g with one set of weights per channel; Adam's second moment is the tensor's mean."""

    def __init__(self, jacobians: dict[str, Tensor], rates: dict[str, float], channels: int, f0: Tensor) -> None:
        self.jacobians, self.rates = jacobians, rates
        self.f = f0.clone()
        self.m = {name: j.new_zeros(j.shape[1], channels) for name, j in jacobians.items()}
        self.v = dict.fromkeys(jacobians, 0.0)
        self.count = 0

    def step(self, y: Tensor, train: slice, factor: float = 1.0) -> None:
        """One step on the loss over the training rows; the values of every row move."""
        self.count += 1
        r = self.f[train] - y
        moves = []
        for name, j in self.jacobians.items():
            gradient = 2 / r.numel() * j[train].T @ r
            self.v[name] = BETA2 * self.v[name] + (1 - BETA2) * float(gradient.square().mean())
            self.m[name] = BETA1 * self.m[name] + (1 - BETA1) * gradient
            root = math.sqrt(self.v[name] / (1 - BETA2**self.count)) + EPS
            step = self.rates[name] * factor / root * self.m[name] / (1 - BETA1**self.count)
            moves.append(j @ step)
        self.f = self.f - torch.stack(moves).sum(0)


def _problem(n: int = 12, m: int = 5, channels: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(3)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    jacobians = {"a": draw(n + m, 40), "b": 0.1 * draw(n + m, 7), "c": 3 * draw(n + m, 20)}
    return {
        "n": n,
        "jacobians": jacobians,
        "rates": {"a": 1e-3, "b": 3e-2, "c": 5e-4},
        "y": draw(n, channels),
        "y_test": draw(m, channels),
        "f0": 0.5 * draw(n + m, channels),
    }


def _predicted(p: dict[str, Any], steps: int, **options: Any) -> adam.AdamPrediction:
    n = p["n"]
    return predict_adam(
        {name: j[:n] @ j[:n].T for name, j in p["jacobians"].items()},
        {name: j.shape[1] * p["y"].shape[1] for name, j in p["jacobians"].items()},
        p["y"],
        steps,
        learning_rate=p["rates"],
        f0=p["f0"][:n],
        parts_test={name: j[n:] @ j[:n].T for name, j in p["jacobians"].items()},
        y_test=p["y_test"],
        f0_test=p["f0"][n:],
        beta1=BETA1,
        beta2=BETA2,
        eps=EPS,
        **options,
    )


def test_single_steps_are_those_of_adam_on_the_parameters() -> None:
    p, steps = _problem(), 64
    schedule = lambda step: 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.1  # noqa: E731
    model = Linear(p["jacobians"], p["rates"], 2, p["f0"])
    errors = []
    for step in range(steps):
        model.step(p["y"], slice(0, p["n"]), schedule(step))
        errors.append(float((model.f[: p["n"]] - p["y"]).square().mean()))
    found = _predicted(p, steps, schedule=schedule, at=[1, 7, 30])
    size = float(model.f.abs().max())
    assert found.train_residual.double().sub(model.f[: p["n"]] - p["y"]).abs().max() < 1e-5 * size
    assert found.test_residual is not None
    assert found.test_residual.double().sub(model.f[p["n"] :] - p["y_test"]).abs().max() < 1e-5 * size
    assert found.steps.tolist() == [1, 7, 30, 64]
    assert np.allclose(found.train_mse, [errors[s - 1] for s in (1, 7, 30, 64)], rtol=2e-5)
    assert errors[-1] < 0.5 * errors[0]  # something happened


def test_per_number_adam_is_the_same_where_all_gradients_of_a_tensor_are_alike() -> None:
    # Signs as features and one training point: every number's gradient has the same magnitude.
    signs = torch.randint(0, 2, (1, 64), generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    w = torch.zeros(64, 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=2e-3, betas=(BETA1, BETA2), eps=EPS)
    y = torch.tensor([[1.3]], dtype=torch.float64)
    for _ in range(50):
        optimizer.zero_grad()
        ((signs @ w - y) ** 2).mean().backward()
        optimizer.step()
    found = predict_adam(
        {"w": signs @ signs.T}, {"w": 64}, y, 50, learning_rate=2e-3, beta1=BETA1, beta2=BETA2, eps=EPS
    )
    assert float(found.train_residual) == pytest.approx(float((signs @ w - y).detach()), abs=1e-5)


def test_what_is_left_of_the_initial_function_follows_the_same_steps() -> None:
    p, steps = _problem(), 40
    model = Linear(p["jacobians"], p["rates"], 2, p["f0"])
    alone = Linear(p["jacobians"], p["rates"], 2, p["f0"])
    for _ in range(steps):
        model.step(p["y"], slice(0, p["n"]))
        # The same second moments, but a residual of f0 alone: linear in it.
        alone.count += 1
        r = alone.f[: p["n"]]
        moves = []
        for name, j in p["jacobians"].items():
            alone.m[name] = BETA1 * alone.m[name] + (1 - BETA1) * 2 / r.numel() * j[: p["n"]].T @ r
            root = math.sqrt(model.v[name] / (1 - BETA2**model.count)) + EPS
            moves.append(j @ (p["rates"][name] / root * alone.m[name] / (1 - BETA1**model.count)))
        alone.f = alone.f - torch.stack(moves).sum(0)
    found = _predicted(p, steps)
    assert found.f0_mse is not None
    assert found.f0_mse[-1] == pytest.approx(float(alone.f[p["n"] :].square().mean()), rel=1e-5)


def test_the_last_layer_grows_and_the_parts_before_it_with_it() -> None:
    p, steps, squares = _problem(), 64, 1e-4
    names = {"a": "layers.0.weight", "b": "layers.1.bias", "c": "layers.1.weight"}
    for key in ("jacobians", "rates"):
        p[key] = {names[name]: value for name, value in p[key].items()}
    schedule = lambda step: 1 - 0.5 * step / steps  # noqa: E731
    train, first, last = slice(0, p["n"]), "layers.0.weight", "layers.1.weight"
    model, size = Linear(p["jacobians"], p["rates"], 2, p["f0"]), p["jacobians"][last].shape[1] * 2
    gain = 1.0
    for step in range(steps):
        model.count += 1
        r, moves = model.f[train] - p["y"], []
        for name, j in p["jacobians"].items():
            larger = gain if name == first else 1.0
            gradient = 2 / r.numel() * j[train].T @ r
            model.v[name] = BETA2 * model.v[name] + (1 - BETA2) * larger * float(gradient.square().mean())
            model.m[name] = BETA1 * model.m[name] + (1 - BETA1) * gradient
            root = math.sqrt(model.v[name] / (1 - BETA2**model.count)) + EPS
            rate = p["rates"][name] * schedule(step)
            moves.append(j @ (larger * rate / root * model.m[name] / (1 - BETA1**model.count)))
        model.f = model.f - torch.stack(moves).sum(0)
        gain += size * (p["rates"][last] * schedule(step)) ** 2 / squares
    assert gain > 3
    found = _predicted(p, steps, schedule=schedule, last_layer=(last, squares))
    assert found.train_residual.double().sub(model.f[train] - p["y"]).abs().max() < 1e-5 * float(model.f.abs().max())
    assert found.test_residual is not None
    rest = model.f[p["n"] :] - p["y_test"]
    assert found.test_residual.double().sub(rest).abs().max() < 1e-5 * float(model.f.abs().max())
    still = _predicted(p, steps, schedule=schedule)
    assert found.train_mse[-1] < 0.9 * still.train_mse[-1]
    for wrong in (("layers.2.weight", 1.0), (last, 0.0)):
        with pytest.raises(ConfigError, match="last_layer"):
            _predicted(p, 3, last_layer=wrong)


def test_a_real_last_layer_grows_as_a_random_walk() -> None:
    """What the prediction rests on, measured: full batches, a constant rate, a last layer at a tenth of its usual size."""
    torch.manual_seed(0)
    rows, columns = torch.meshgrid(torch.arange(16) / 16, torch.arange(16) / 16, indexing="ij")
    x = torch.stack([columns, rows], dim=-1).reshape(-1, 2)
    y = torch.stack([torch.sin(20 * x[:, 0] * x[:, 1]), torch.sign(x[:, 0] - x[:, 1]), x[:, 0]], dim=1) / 2 + 0.5
    field = nf.build(2, 3, {"name": "fourier", "sigma": 2.0, "n_features": 64}, {"width": 128, "depth": 2})
    assert isinstance(field.network, MLP)
    weight = field.network.linear_layers()[-1].weight
    start, steps, rate = float(weight.detach().square().sum()), 200, 1e-3
    optimizer = torch.optim.Adam(field.parameters(), rate, betas=(0.9, 0.99), eps=1e-15)
    for _ in range(steps):
        optimizer.zero_grad()
        (field(x) - y).square().mean().backward()
        optimizer.step()
    measured = float(weight.detach().square().sum()) / start
    walked = 1 + weight.numel() * steps * rate**2 / start
    assert walked > 2
    assert 0.5 < measured / walked < 2


def test_intervals_agree_with_single_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    p = _problem(n=24, channels=1)
    # A budget at which the error falls by orders of magnitude, with rates that let it.
    p["rates"] = dict.fromkeys(p["rates"], 2e-4)
    schedule = lambda step: 0.5 * (1 + math.cos(math.pi * step / 1200))  # noqa: E731
    at = [100, 300, 600, 900]
    quick = _predicted(p, 1200, schedule=schedule, at=at)
    monkeypatch.setattr(adam_dense, "SINGLE_STEPS", 10**6)
    slow = _predicted(p, 1200, schedule=schedule, at=at)
    assert slow.test_mse is not None and quick.test_mse is not None
    assert slow.train_mse[-1] < 0.2 * slow.train_mse[0]
    assert np.abs(10 * np.log10(quick.train_mse / slow.train_mse)).max() < 0.6
    assert np.abs(10 * np.log10(quick.test_mse / slow.test_mse)).max() < 0.4


def test_a_sample_of_the_points_moves_as_it_does_among_all() -> None:
    # Four blocks of points with features of their own and equal targets: one of them is a sample of the whole.
    generator = torch.Generator().manual_seed(5)
    j = torch.randn(6, 10, generator=generator, dtype=torch.float64)
    y = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    model = Linear({"w": torch.block_diag(j, j, j, j)}, {"w": 1e-2}, 1, torch.zeros(24, 1, dtype=torch.float64))
    for _ in range(30):
        model.step(y.repeat(4, 1), slice(None))
    found = predict_adam(
        {"w": j @ j.T}, {"w": 40}, y, 30, learning_rate=1e-2, beta1=BETA1, beta2=BETA2, eps=EPS, n_total=24
    )
    assert found.train_residual.double().sub(model.f[:6] - y).abs().max() < 1e-5
    side_by_side = predict_adam(
        {"w": j @ j.T}, {"w": 40}, y.repeat(1, 4), 30, learning_rate=1e-2, beta1=BETA1, beta2=BETA2, eps=EPS, patches=4
    )
    assert side_by_side.train_residual.sub(found.train_residual).abs().max() < 1e-5


def test_a_batch_adds_its_scatter_to_the_second_moment() -> None:
    generator = torch.Generator().manual_seed(6)
    j = torch.randn(60, 30, generator=generator, dtype=torch.float64)
    y = torch.randn(60, 1, generator=generator, dtype=torch.float64)
    squares = []
    for _ in range(4000):
        drawn = torch.randperm(60, generator=generator)[:5]
        squares.append(float((2 / 5 * j[drawn].T @ -y[drawn]).square().mean()))
    whole = 2 / 60 * j.T @ -y
    # Momentum and both corrections are 1 at the first step.
    expected = -y - j @ (1e-3 / math.sqrt(np.mean(squares)) * whole)
    found = predict_adam({"w": j @ j.T}, {"w": 30}, y, 1, learning_rate=1e-3, batch=5).train_residual.double()
    without = predict_adam({"w": j @ j.T}, {"w": 30}, y, 1, learning_rate=1e-3).train_residual.double()
    moved = float((expected + y).norm())
    assert float((found - expected).norm()) < 0.05 * moved
    assert float((without - expected).norm()) > 0.5 * moved


def test_uncounted_points_do_not_enter_the_test_error() -> None:
    p = _problem()
    counted = torch.tensor([1.0, 0, 0, 1, 1])[:, None].expand(-1, 2)
    found = _predicted(p, 20, counted=counted)
    assert found.test_residual is not None and found.test_mse is not None
    kept = found.test_residual[[0, 3, 4]].square().mean()
    assert found.test_mse[-1] == pytest.approx(float(kept), rel=1e-5)
    everything = _predicted(p, 20).test_mse
    assert everything is not None and everything[-1] != pytest.approx(float(kept), rel=1e-3)


def test_mistakes_are_named() -> None:
    k, y = torch.eye(3), torch.ones(3, 1)
    with pytest.raises(ConfigError, match="needs a size"):
        predict_adam({"w": k}, {"v": 3}, y, 5)
    with pytest.raises(ConfigError, match="steps"):
        predict_adam({"w": k}, {"w": 3}, y, 0)
    with pytest.raises(ConfigError, match="learning_rate"):
        predict_adam({"w": k}, {"w": 3}, y, 5, learning_rate={"v": 1.0})
    with pytest.raises(ConfigError, match="finite"):
        predict_adam({"w": k * math.nan}, {"w": 3}, y, 5)


def test_the_last_layer_grows_by_what_it_contributes_and_by_its_steps() -> None:
    # A whole network, hidden layers and all, with one second moment per tensor: the identity needs no standing kernel.
    torch.manual_seed(1)
    network = MLP(6, 2, width=24, depth=2).double()
    x, y = torch.randn(40, 6, dtype=torch.float64), torch.randn(40, 2, dtype=torch.float64)
    weight, bias = network.layers[-1].weight, network.layers[-1].bias
    named = dict(network.named_parameters())
    sizes = torch.tensor([float(p.numel()) for p in named.values()])
    names = list(named)
    last = LastLayer(
        names.index("layers.2.weight"), float(weight.detach().square().sum()),
        torch.tensor([not n.startswith("layers.2.") for n in names]), names.index("layers.2.bias"),
        bias.detach().float().clone(),
    )  # fmt: skip
    moments = Moments(sizes, BETA1, BETA2, EPS, len(x), 2, 1.0, 0.0, last)
    m = {name: torch.zeros_like(p) for name, p in named.items()}
    u, rates = torch.zeros_like(y), torch.full((len(names),), 1e-4)
    for _ in range(600):
        r = network(x) - y
        gradients = torch.autograd.grad(r.square().mean(), list(named.values()))
        squares = torch.tensor([float(g.square().mean()) for g in gradients])
        weights = moments.single(rates, squares)
        with torch.no_grad():
            u = BETA1 * u + (1 - BETA1) * moments.scale * r
            moments.grow(rates, weights / moments.gain, u.float(), r.float(), y.float())
            for index, (name, p) in enumerate(named.items()):
                m[name] = BETA1 * m[name] + (1 - BETA1) * gradients[index]
                p -= float(weights[index] / moments.gain[index]) * m[name]
    grown = float(weight.detach().square().sum()) / last.squares
    walk = 600 * weight.numel() * 1e-8 / last.squares  # what Adam's own steps are taken for, at the most
    assert grown > 1.05
    assert float(moments.gain[0]) == pytest.approx(grown, abs=walk + 0.05 * (grown - 1))


@pytest.mark.parametrize(("falls", "spectrum", "gap"), [(0.7, 0.6, 0.3), (0.8, 0.5, 0.3), (0.8, 0.6, 0.1)])
def test_training_stays_at_the_edge_of_stability(
    falls: float, spectrum: float, gap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a linear model whose residual falls by orders of magnitude, and the second moments with it."""
    n, steps, generator = 24, 2000, torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(n, 1, dtype=torch.float64), draw(n, n - 1)], dim=1))
    values = torch.tensor([1.0, *(gap * spectrum**k for k in range(n - 1))], dtype=torch.float64)
    jacobians = {}
    for name, count, size, power in (("a", 60, 1.0, 0.5), ("b", 30, 0.3, 0.75)):
        rows, _ = torch.linalg.qr(draw(count, n))
        jacobians[name] = size * math.sqrt(n) * (basis * values**power) @ rows.T
    y = 5 * basis @ (falls ** torch.arange(n, dtype=torch.float64))[:, None]
    rates = {"a": 5e-3, "b": 1e-2}
    model = Linear(jacobians, rates, 1, torch.zeros_like(y))
    for _ in range(steps):
        model.step(y, slice(0, n))

    kernels = {name: j @ j.T for name, j in jacobians.items()}

    def slow(**options: Any) -> float:
        """The squared residual in all but the first five directions, which have been learned."""
        found = predict_adam(
            kernels, {name: j.shape[1] for name, j in jacobians.items()}, y, steps,
            learning_rate=rates, beta1=BETA1, beta2=BETA2, eps=EPS, **options,
        )  # fmt: skip
        return float((basis.T @ found.train_residual.double())[5:].square().sum())

    real = float((basis.T @ (model.f - y))[5:].square().sum())
    assert slow() == pytest.approx(real, rel=0.15)
    assert slow(spread=kernels) == pytest.approx(slow(), rel=0.15)
    assert slow(spread={name: 9 * k for name, k in kernels.items()}) > 2 * real  # the edge is reached sooner
    monkeypatch.setattr(Moments, "bounded", lambda self, rates, square, top, count: square)
    assert slow() < real / 2


def test_windows_share_the_moments_of_their_parameters() -> None:
    p = _problem(n=12, m=6)
    first, second = slice(0, 6), slice(6, 12)
    kernels = {name: j @ j.T for name, j in p["jacobians"].items()}
    apart = lambda k, rows: torch.stack([k[:12][rows(w), w] for w in (first, second)])  # noqa: E731
    test = {name: torch.stack([k[12:15, first], k[15:18, second]]) for name, k in kernels.items()}
    both = torch.block_diag
    sizes = {name: j.shape[1] * 2 for name, j in p["jacobians"].items()}
    split = lambda v, k: v.unflatten(0, (2, k))  # noqa: E731
    common = {"learning_rate": p["rates"], "beta1": BETA1, "beta2": BETA2, "eps": EPS, "at": [20, 64]}
    windows = predict_adam(
        {name: apart(k, lambda w: w) for name, k in kernels.items()}, sizes, split(p["y"], 6), 300,
        f0=split(p["f0"][:12], 6), parts_test=test, y_test=split(p["y_test"], 3), f0_test=split(p["f0"][12:], 3), **common,
    )  # fmt: skip
    together = predict_adam(
        {name: both(*apart(k, lambda w: w)) for name, k in kernels.items()}, sizes, p["y"], 300, f0=p["f0"][:12],
        parts_test={name: both(*k) for name, k in test.items()}, y_test=p["y_test"], f0_test=p["f0"][12:], **common,
    )  # fmt: skip
    assert torch.allclose(windows.train_residual.flatten(0, 1), together.train_residual, atol=1e-4)
    assert windows.test_residual is not None and together.test_residual is not None
    assert torch.allclose(windows.test_residual.flatten(0, 1), together.test_residual, atol=1e-4)
    assert np.allclose(windows.test_mse, together.test_mse, rtol=1e-3)
    assert together.train_mse[-1] < 0.5 * together.train_mse[0]


def test_a_fit_is_followed_from_where_it_stands() -> None:
    p, before, steps = _problem(), 80, 320
    p["rates"] = {name: 0.1 * rate for name, rate in p["rates"].items()}
    model = Linear(p["jacobians"], p["rates"], 2, p["f0"])
    for _ in range(before):
        model.step(p["y"], slice(0, p["n"]))
    p["f0"], start = model.f.clone(), Start(before, dict(model.v))
    errors = []
    for _ in range(steps):
        model.step(p["y"], slice(0, p["n"]))
        errors.append(float((model.f[: p["n"]] - p["y"]).square().mean()))
    found = _predicted(p, steps, start=start, at=[40, 160])
    assert found.steps.tolist() == [40, 160, 320] and found.f0_mse is None
    assert np.allclose(found.train_mse, [errors[s - 1] for s in (40, 160, 320)], rtol=0.05)
    anew = _predicted(p, steps, at=[40, 160])  # as if these were the first steps: gradients were larger before
    assert not np.allclose(anew.train_mse, found.train_mse, rtol=0.1)
    with pytest.raises(ConfigError, match="start"):
        _predicted(p, 5, start=Start(0, dict(model.v)))


def test_errors_of_clamped_values() -> None:
    y, kernel = torch.tensor([[0.0], [1.0], [0.5]]), torch.eye(3)
    f0 = torch.tensor([[-0.4], [1.3], [0.7]])
    values = {"f0": f0, "parts_test": {"w": 0 * kernel}, "y_test": y, "f0_test": f0, "at": [0]}
    free = predict_adam({"w": kernel}, {"w": 3}, y, 1, **values)  # type: ignore[arg-type]
    clamped = predict_adam({"w": kernel}, {"w": 3}, y, 1, limits=(0.0, 1.0), **values)  # type: ignore[arg-type]
    assert free.train_mse[0] == pytest.approx((0.16 + 0.09 + 0.04) / 3)
    assert clamped.train_mse[0] == clamped.test_mse[0] == pytest.approx(0.04 / 3)  # type: ignore[index]
    assert torch.equal(free.train_residual, clamped.train_residual)
