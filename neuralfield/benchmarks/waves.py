"""What is timed of fits with Fourier features: the 2D protocol of Tancik et al. 2020 on the full batch, and mini-batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from neuralfield.benchmarks import peers
from neuralfield.benchmarks.timing import alternate, ratio
from neuralfield.field import Field
from neuralfield.fitting.evaluation import Probe
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.run import build_field
from neuralfield.signals.image import ImageSignal, load_image

Row = dict[str, Any]

ENCODING = {"name": "fourier", "n_features": 256, "sigma": 10.0}
NETWORK = {"width": 256, "depth": 3, "output_activation": "sigmoid", "initialization": "xavier"}
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}
"""Those of configs/experiment/tancik2d.yaml; four layers of weights, of which three are hidden."""

BATCH = 4096
MINI_STEPS = 10
"""Mini-batch steps for each one of the full batch: a batch is so many times as small on 256 x 256 training pixels, nearly."""


@dataclass
class Contest:
    """One field and the same in plain torch, from equal weights, each with its optimiser and its own way to take a step."""

    trainer: Trainer
    plain: nn.Sequential
    plain_step: Callable[[], object]

    def our_step(self) -> None:
        """One step, as `scripts/fit.py` takes it."""
        self.trainer.train_step()
        self.trainer.state.step += 1

    def plain_field(self) -> Field:
        """The plain network's weights in our field, so that both are judged by the same arithmetic."""
        ours = self.trainer.field
        copy = build_field(self.trainer.signal, ENCODING, NETWORK, 0, ours.device)  # type: ignore[arg-type]
        copy.encoding.load_state_dict(ours.encoding.state_dict())
        with torch.no_grad():
            for mine, theirs in zip(copy.network.parameters(), self.plain.parameters(), strict=True):
                mine.copy_(theirs)
        return copy


def tancik(steps: int, device: torch.device, image: str | None, crop: int = 512, precision: str = "auto") -> list[Row]:
    """Seconds a step and PSNR after equal steps from equal weights, against float32 torch as research scripts write it.

    **Arguments**

    - `steps`: optimiser steps of each; the first is not timed. Mini-batches take ten times as many.
    - `image`: a path; None: the astronaut sample. Its centre of `crop` x `crop` pixels is fitted, every other one trains.
    - `precision`: of ours; the peer's is float32.
    """
    rows = []
    for batch, count in (("full", steps), (BATCH, MINI_STEPS * steps)):
        signal = load_image(image, name="astronaut", crop=crop, holdout="every_other" if batch == "full" else "none")
        contest = enter(signal, device, batch, precision, count)
        tasks = {"neuralfield": contest.our_step, "plain torch": contest.plain_step}
        times = alternate(tasks, count - 1, device)
        said = f"{contest.trainer.batch_size:,} samples a step, {count:,} steps"
        fields = {"neuralfield": contest.trainer.field, "plain torch": contest.plain_field()}
        samples = list(signal.judged_on().values())[-1]
        probe = Probe(signal, samples, samples.n)
        for name, timing in times.items():
            rows.append(
                {
                    "case": f"{signal.name}, {signal.width} x {signal.height}, {said}",
                    "what": f"neuralfield ({contest.trainer.precision})" if name == "neuralfield" else name,
                    "ms": 1e3 * timing.median, "ratio": ratio(timing, times["neuralfield"]),
                    "psnr": probe.quality(fields[name]),
                }
            )  # fmt: skip
    return rows


def enter(signal: ImageSignal, device: torch.device, batch: int | str, precision: str, steps: int) -> Contest:
    """Both contestants at step 0."""
    field = build_field(signal, ENCODING, NETWORK, 0, device)
    plain = peers.fourier_network(field)
    options = FitOptions.from_dict(
        {"steps": steps, "batch_size": batch, "schedule": "constant", "precision": precision, **ADAM}
    )
    trainer = Trainer(field, signal, options, progress=False)
    adam = torch.optim.Adam(plain.parameters(), ADAM["lr"], betas=(ADAM["beta1"], ADAM["beta2"]), eps=ADAM["eps"])
    index = signal.split.train(torch.arange(signal.split.n_train))
    x, y = signal.coordinates(index).to(device), signal.values(index).to(device)
    frequencies = field.encoding.frequencies
    assert isinstance(frequencies, Tensor)

    def step() -> None:
        pick = slice(None) if batch == "full" else torch.randint(len(x), (int(batch),), device=device)
        loss = (plain(peers.fourier_features(x[pick], frequencies)) - y[pick]).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()

    return Contest(trainer, plain, step)
