"""What is timed: encoding alone, one training step, and a fit for some seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from neuralfield import field as fields
from neuralfield.benchmarks import compact_sizes, peers
from neuralfield.benchmarks.timing import alternate, ratio
from neuralfield.encodings import HashGrid
from neuralfield.encodings.hashgrid import engines
from neuralfield.fitting import defaults
from neuralfield.fitting.evaluation import Probe
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.image import ImageSignal

Row = dict[str, Any]

# (dimensions, finest resolution, points): 16 levels from 16, F = 2, T = 19.
ENCODE = ((3, 2048, 2**14), (3, 2048, 2**16), (3, 2048, 2**18), (2, 768, 2**13), (2, 768, 2**18))


def encode(rounds: int, device: torch.device) -> list[Row]:
    """Forward and backward to the table, random points; seconds and how many times as long each peer takes."""
    rows = []
    for dim, highest, points in ENCODE:
        x = torch.rand(points, dim, device=device)
        grid = HashGrid(dim, max_resolution=highest).to(device)
        engine = engines.choose("auto", device).name
        modules: dict[str, nn.Module | None] = {
            f"neuralfield ({engine})": grid,
            "neuralfield (reference)": HashGrid(dim, max_resolution=highest, engine="reference").to(device),
            "plain torch, all levels at once": peers.NaiveGrid(dim, 16, 2, 19, 16, highest).to(device),
            "tinycudann": peers.tinycudann_grid(dim, _tinycudann_config(grid), device),
        }
        if dim == 3:
            modules["nerfstudio (torch)"] = peers.nerfstudio_grid(16, 2, 19, 16, highest)
        tasks = {name: _forward_backward(m, x) for name, m in modules.items() if m is not None}
        times = alternate(tasks, rounds, device)
        ours = times[f"neuralfield ({engine})"]
        for name, timing in times.items():
            case = f"D {dim}, to {highest}, {points:,} points"
            rows.append({"case": case, "what": name, "ms": 1e3 * timing.median, "ratio": ratio(timing, ours)})
    return rows


def _forward_backward(module: nn.Module, x: Tensor) -> Callable[[], object]:
    grad: list[Tensor] = []

    def task() -> None:
        for parameter in module.parameters():
            parameter.grad = None
        out = module(x)
        if not grad:
            grad.append(torch.randn_like(out))
        out.backward(grad[0])

    return task


def _tinycudann_config(grid: HashGrid) -> dict[str, object]:
    from neuralfield.interop import tinycudann

    return tinycudann.to_config(grid)


def naive_stack(
    signal: ImageSignal, device: torch.device, batch: int, sizes: Mapping[str, int] | None = None
) -> tuple[Callable[[], object], nn.Module]:
    """A training step as research scripts have it: naive grid, nn.Sequential, torch.optim.Adam, random pixels.

    `sizes`: n_levels and log2_size of the grid; None: 16, and the table that our defaults choose.
    """
    torch.manual_seed(0)
    ours = defaults.encoding_options(defaults.automatic("hashgrid", {}), signal)
    sizes = sizes or {"n_levels": 16, "log2_size": ours["log2_hashmap_size"]}
    grid = peers.NaiveGrid(2, n_features=2, base=16, highest=ours["max_resolution"], **sizes)
    layers = [nn.Linear(grid.out_dim, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, signal.out_dim)]
    model = nn.Sequential(grid, *layers).to(device)
    adam = torch.optim.Adam(model.parameters(), 1e-2, betas=(0.9, 0.99), eps=1e-15)
    everything = torch.arange(signal.split.n_train)
    index = signal.split.train(everything)
    coordinates, values = signal.coordinates(index).to(device), signal.values(index).to(device)

    def step() -> None:
        pick = torch.randint(len(coordinates), (batch,), device=device)
        loss = (model(coordinates[pick]) - values[pick]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    return step, model


def our_trainer(
    signal: ImageSignal,
    device: torch.device,
    batch: int | None = None,
    grid: Mapping[str, Any] | None = None,
    **options: Any,
) -> Trainer:
    """The default field and options for a signal, as `scripts/fit.py` builds them, or with another grid."""
    torch.manual_seed(0)
    encoding = defaults.encoding_options(grid or defaults.automatic("hashgrid", {}), signal)
    network = defaults.network_options({"width": "auto", "depth": "auto"}, "hashgrid")
    field = fields.build(2, signal.out_dim, encoding, network).to(device)
    size = batch or defaults.batch_size("hashgrid", device, signal.details)
    return Trainer(field, signal, FitOptions(batch_size=size, **options), progress=False)


def step(rounds: int, device: torch.device, signal: ImageSignal) -> list[Row]:
    """One training step at a batch of 8,192: sampling, grid, 2 x 64 network, backward, Adam."""
    batch = 2**13
    trainer = our_trainer(signal, device, batch, steps=10**6)
    naive, _ = naive_stack(signal, device, batch)

    def ours() -> None:
        trainer.train_step()
        trainer.state.step += 1

    times = alternate({"neuralfield": ours, "plain torch stack": naive}, rounds, device)
    base = times["neuralfield"]
    case = f"{signal.name}, {signal.width} x {signal.height}, batch {batch:,}"
    return [{"case": case, "what": n, "ms": 1e3 * t.median, "ratio": ratio(t, base)} for n, t in times.items()]


def fit(seconds: float, device: torch.device, signal: ImageSignal, compact: bool = False) -> list[Row]:
    """PSNR over the training pixels after some seconds of training, defaults against the naive stack.

    `compact`: both with about as many parameters, ours with at most one for every four pixel values.
    """
    trainer = our_trainer(
        signal, device, grid=compact_sizes.our_grid(signal) if compact else None, steps=None, seconds=seconds
    )
    outcome = trainer.run()
    probe = Probe(signal, signal.judged_on()["psnr_train"], signal.split.n_train)
    case = f"{signal.name}, {seconds:g} s"
    rows = [
        {
            "case": case, "what": "neuralfield", "psnr": probe.quality(trainer.field), "steps": outcome.state.step,
            "parameters": trainer.field.n_parameters,
        }
    ]  # fmt: skip
    equal = compact_sizes.naive_sizes(trainer.field.n_parameters, signal.out_dim) if compact else None
    naive, model = naive_stack(signal, device, 2**13, equal)
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        naive()
        steps += 1
    psnr = probe.quality(_AsField(model))  # type: ignore[arg-type]
    count = sum(p.numel() for p in model.parameters())
    rows.append({"case": case, "what": "plain torch stack", "psnr": psnr, "steps": steps, "parameters": count})
    return rows


class _AsField(fields.Field):
    """A torch module with the few names that evaluation asks for."""

    def __init__(self, model: nn.Module) -> None:
        nn.Module.__init__(self)
        self.encoding = model[0]  # type: ignore[index]
        self.network = model

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)
