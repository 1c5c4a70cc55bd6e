"""The training loop."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from neuralfield.errors import ConfigError, DeviceError, DivergedError, OutputError
from neuralfield.field import Field
from neuralfield.fitting import checkpoint, eikonal, losses, optimizer, precision
from neuralfield.fitting.data import TrainingData
from neuralfield.fitting.evaluation import Probe
from neuralfield.fitting.forward import Gradients
from neuralfield.fitting.interrupt import Interrupt
from neuralfield.fitting.options import FitOptions
from neuralfield.fitting.progress import Report, Silent, reporter
from neuralfield.fitting.schedule import factor, warmup
from neuralfield.signals.base import Signal


@dataclass
class Outcome:
    """How a fit ended.

    - `stopped_by`: "steps", "seconds", "target_psnr", "target_iou" or "interrupt".
    - `state`: steps, training time, history, best evaluation.
    - `best`: the state_dict of the best evaluation, by the number that decides (held-out PSNR where there is one).
    """

    stopped_by: str
    state: checkpoint.State
    best: dict[str, Tensor]
    batch_size: int


_WHERE = {"train": "", "heldout": "held-out "}


class Trainer:
    """Fits a field to a signal.

    **Arguments**

    - `field`: trained in place, on the device that it is on.
    - `signal`: the ground truth.
    - `options`: see :class:`FitOptions`; `batch_size` has to be resolved to a number or "full".
    - `seed`: of the batches.
    - `folder`: where checkpoints go; None for none.
    - `progress`: True, False or a reporter.

    **Attributes**

    - `precision`: of the network's products: what `options.precision` came to here.
    """

    def __init__(
        self,
        field: Field,
        signal: Signal,
        options: FitOptions,
        *,
        seed: int = 0,
        folder: Path | None = None,
        progress: bool | Silent = True,
    ) -> None:
        self.field, self.signal, self.options, self.folder = field, signal, options, folder
        self.batch_size = options.samples_per_step(signal.split.n_train)
        self.data = TrainingData(signal, self.batch_size, seed, field.device)
        self.optimizer = optimizer.build(field, options)
        self.precision = precision.resolve(options.precision, field)
        loss = losses.of_signal(options.loss, signal)
        self.gradients = Gradients(field, self.data, loss, self.batch_size, options, self.precision)
        eikonal.check(options.eikonal, signal)
        self.eikonal_points = eikonal.EikonalPoints(seed)
        self.progress = reporter(progress)
        self.state = checkpoint.State()
        self.best: dict[str, Tensor] = {}
        for key in ("psnr", "iou"):
            if getattr(options, f"target_{key}") is not None and signal.quality.key != key:
                raise ConfigError(
                    f"fit.target_{key} is not a measure of {signal.name}; use fit.target_{signal.quality.key}"
                )
        self.probes = {
            name: Probe(signal, samples, options.eval_points) for name, samples in signal.judged_on().items()
        }
        self.deciding = list(self.probes)[-1]
        self.identity: dict[str, Any] = {
            "fit": {**options.identity(), "precision": self.precision},
            **(field.config if folder is not None else {}),
            "signal": signal.fingerprint(),
            "seed": seed,
            "device": field.device.type,
        }
        self._started = self._reported = self._saved = 0.0
        self._reported_step = 0

    def run(self, title: str = "") -> Outcome:
        """Train until a limit is reached or the user interrupts; the field holds the last or the best state.

        Raises :class:`~neuralfield.errors.DivergedError` when the loss stops being finite, and
        :class:`~neuralfield.errors.DeviceError` when memory runs out.
        """
        if self.options.resume and not self.state.history:
            self.resume()
        if self.options.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with this
        deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(self.options.deterministic or deterministic)
        self.progress.start(title)
        try:
            with Interrupt() as interrupt:
                stopped_by = self._loop(interrupt)
                if interrupt.requested:
                    self.progress.note(f"interrupted at step {self.state.step:,}; keeping what was reached")
        except (MemoryError, RuntimeError) as error:
            raise self._out_of_memory(error) or error from error
        finally:
            self.progress.stop()
            torch.use_deterministic_algorithms(deterministic)
        if self.options.keep == "best":
            self.field.load_state_dict(self.best)
        return Outcome(stopped_by, self.state, self.best, self.batch_size)

    def _loop(self, interrupt: Interrupt) -> str:
        state = self.state
        self._started = time.perf_counter() - state.seconds
        self._saved = self._reported = time.perf_counter()
        self._reported_step = state.step
        if not state.history:
            self._evaluate(loss=math.nan)
        while True:
            stopped_by = "interrupt" if interrupt.requested else self._limit()
            if stopped_by:
                break
            loss = self.train_step()
            state.step += 1
            state.seconds = time.perf_counter() - self._started
            if self._due(state.step):
                self._evaluate(loss.item())
            self._report(loss)
            self._checkpoint()
        # Drawing and measuring a large image takes long too: nothing trained should be lost then. And before the last
        # evaluation, which an uninterrupted run would not have made at this step.
        self._checkpoint(now=True)
        if state.history[-1]["step"] != state.step:
            self._evaluate(loss.item() if state.step and "loss" in locals() else math.nan)
        return stopped_by

    def train_step(self) -> Tensor:
        """One optimiser step on the batch of the current step; returns its loss. Counting is up to the caller."""
        options = self.options
        scale = warmup(self.state.step, options.warmup_steps) * factor(
            options.schedule, self._fraction(), options.final_lr
        )
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        batch = self.data.batch(self.state.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.gradients.add(batch)
        if options.eikonal:
            points = self.eikonal_points.at(self.state.step, batch.coordinates)
            term = options.eikonal * eikonal.eikonal(self.field, points)
            # The points require gradients too, but nobody wants their second derivative.
            term.backward(inputs=[p for p in self.field.parameters() if p.requires_grad])
            loss += term.detach()
        self.optimizer.step()
        return loss

    def _fraction(self) -> float:
        """How much of the fit is done, 0 to 1, by the limit that is nearer."""
        steps = self.state.step / self.options.steps if self.options.steps else 0.0
        seconds = self.state.seconds / self.options.seconds if self.options.seconds else 0.0
        return min(1.0, max(steps, seconds))

    def _limit(self) -> str:
        options, state = self.options, self.state
        row = state.history[-1]
        if options.target is not None and row["step"] == state.step and row[self.deciding] >= options.target:
            return f"target_{self.signal.quality.key}"
        if options.steps is not None and state.step >= options.steps:
            return "steps"
        return "seconds" if options.seconds is not None and state.seconds >= options.seconds else ""

    def _due(self, step: int) -> bool:
        """Whether to evaluate after this step: a function of the step alone, so that a resumed run does the same."""
        every = self.options.eval_every or (50 if self.options.target is not None else None)
        if every is not None:
            return step % every == 0
        exponent = round(2 * math.log2(step))
        return round(2 ** (exponent / 2)) == step

    def _evaluate(self, loss: float) -> None:
        paused = time.perf_counter()
        row: dict[str, Any] = {"step": self.state.step, "seconds": self.state.seconds, "loss": loss}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        for name, probe in self.probes.items():
            row[name] = probe.quality(self.field)
            if not math.isfinite(row[name]) and not row[name] > 0:
                self._diverged(row[name])
        self.state.history.append(row)
        quality = row[self.deciding]
        if self.state.best_quality is None or quality > self.state.best_quality:
            self.state.best_quality, self.state.best_step = quality, self.state.step
            self.best = {name: tensor.detach().clone() for name, tensor in self.field.state_dict().items()}
        self._started += time.perf_counter() - paused

    def _report(self, loss: Tensor) -> None:
        now, state = time.perf_counter(), self.state
        elapsed = now - self._reported
        if elapsed < self.progress.interval and self._limit() == "":
            return
        value = loss.item()
        if not math.isfinite(value):
            self._diverged(value)
        done = self._fraction()
        _, _, where = self.deciding.partition("_")
        quality = self.signal.quality.words(state.history[-1][self.deciding])
        self.progress.update(
            Report(
                step=state.step,
                fraction=done,
                loss=value,
                quality=f"{_WHERE.get(where, where + ' ')}{quality}",
                steps_per_second=(state.step - self._reported_step) / max(elapsed, 1e-9),
                seconds_left=state.seconds * (1 - done) / done if done else None,
            )
        )
        self._reported, self._reported_step = now, state.step

    def _diverged(self, value: float) -> None:
        rates = ", ".join(f"{group['base_lr']:g}" for group in self.optimizer.param_groups)
        raise DivergedError(
            f"the loss became {value} at or before step {self.state.step}; learning rates were {rates}. Try a smaller "
            f"fit.lr and fit.encoding_lr, fit.warmup_steps=100, or fit.precision=float32"
        )

    def _checkpoint(self, now: bool = False) -> None:
        interval = self.options.checkpoint_seconds
        if self.folder is None or not interval or not (now or time.perf_counter() - self._saved >= interval):
            return
        paused = time.perf_counter()
        tensors = {f"field/{k}": v for k, v in self.field.state_dict().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.items()}
        tensors |= {f"optimizer/{k}": v for k, v in optimizer.state_tensors(self.field, self.optimizer).items()}
        try:
            checkpoint.save(self.folder, self.state, tensors, self.identity)
        except OutputError as error:  # a fit is worth more than its checkpoint
            self.progress.note(f"no checkpoint this time: {error}")
        self._saved = time.perf_counter()
        self._started += self._saved - paused

    def resume(self) -> None:
        """Go to where the folder's checkpoint stands, if it has one.

        Raises :class:`~neuralfield.errors.FieldFileError` when another configuration wrote it.
        """
        found = checkpoint.load(self.folder, self.identity) if self.folder is not None else None
        if found is None:
            return
        self.state, tensors = found
        parts: dict[str, dict[str, Tensor]] = {"field": {}, "best": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, rest = name.split("/", 1)
            parts[part][rest] = tensor
        self.field.load_state_dict(parts["field"])
        self.best = {name: tensor.to(self.field.device) for name, tensor in parts["best"].items()}
        optimizer.load_state_tensors(self.field, self.optimizer, parts["optimizer"])
        self.progress.note(f"resuming at step {self.state.step:,}")

    def _out_of_memory(self, error: BaseException) -> DeviceError | None:
        text = str(error).lower()
        if not isinstance(error, MemoryError) and "out of memory" not in text and "can't allocate memory" not in text:
            return None
        where = "GPU" if self.field.device.type == "cuda" else "machine"
        return DeviceError(
            f"out of memory on the {where} with fit.batch_size={self.batch_size:,} and {self.field.n_parameters:,} "
            f"parameters; try fit.batch_size={max(1, self.batch_size // 4)}"
        )
