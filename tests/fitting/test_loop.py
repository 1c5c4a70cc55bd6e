from __future__ import annotations

import math
import os
import signal as signals
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield import field as fields
from neuralfield.errors import DeviceError, DivergedError, FieldFileError
from neuralfield.fitting import checkpoint
from neuralfield.fitting.loop import Outcome, Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.fitting.progress import Report, Silent

GRID = {"name": "hashgrid", "n_levels": 4, "log2_hashmap_size": 8, "base_resolution": 4, "max_resolution": 16}
OPTIONS = FitOptions(steps=60, batch_size=64, checkpoint_seconds=1e-9)


def trainer(signal: nf.ImageSignal, options: FitOptions = OPTIONS, **more: object) -> Trainer:
    torch.manual_seed(0)
    field = fields.build(2, 3, {**GRID, "seed": 0}, {"width": 16})
    return Trainer(field, signal, options, **{"progress": False, **more})


class StopAt(Silent):
    """Behaves like a person who presses Ctrl-C when a step is reached, or like kill -9."""

    interval = 0.0

    def __init__(self, step: int, error: BaseException | None = None) -> None:
        self.step, self.error = step, error

    def update(self, report: Report) -> None:
        if report.step == self.step:
            if self.error is not None:
                raise self.error
            os.kill(os.getpid(), signals.SIGINT)


def test_a_fit_learns_and_records_itself(signal: nf.ImageSignal) -> None:
    outcome = trainer(signal, replace(OPTIONS, steps=200)).run()
    history = outcome.state.history
    assert [row["step"] for row in history[:8]] == [0, 1, 2, 3, 4, 6, 8, 11]
    assert history[-1]["step"] == 200
    assert math.isnan(history[0]["loss"]) and history[-1]["loss"] < 0.1 * history[1]["loss"]
    assert history[-1]["psnr_train"] > history[0]["psnr_train"] + 15
    assert outcome.stopped_by == "steps"
    assert outcome.state.best_quality == max(row["psnr_heldout"] for row in history)


@pytest.mark.parametrize("killed_at", [1, 17, 33, 59])
def test_a_killed_run_resumes_to_the_same_bits(signal: nf.ImageSignal, tmp_path: Path, killed_at: int) -> None:
    whole = trainer(signal)
    expected = whole.run()
    with pytest.raises(SystemError):
        trainer(signal, folder=tmp_path, progress=StopAt(killed_at, SystemError())).run()
    resumed = trainer(signal, replace(OPTIONS, resume=True), folder=tmp_path)
    outcome = resumed.run()
    _assert_equal(resumed, outcome, whole, expected)


def test_an_interrupted_run_keeps_what_was_reached_and_resumes_to_the_same_bits(
    signal: nf.ImageSignal, tmp_path: Path
) -> None:
    whole = trainer(signal)
    expected = whole.run()
    options = replace(OPTIONS, checkpoint_seconds=1e9)
    stopped = trainer(signal, options, folder=tmp_path, progress=StopAt(20)).run()
    assert stopped.stopped_by == "interrupt"
    assert stopped.state.step == stopped.state.history[-1]["step"] == 20
    resumed = trainer(signal, replace(OPTIONS, resume=True), folder=tmp_path)
    _assert_equal(resumed, resumed.run(), whole, expected)


def _assert_equal(a: Trainer, end_a: Outcome, b: Trainer, end_b: Outcome) -> None:
    for (name, one), other in zip(a.field.state_dict().items(), b.field.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    strip = [[{k: v for k, v in row.items() if k != "seconds"} for row in end.state.history] for end in (end_a, end_b)]
    assert str(strip[0]) == str(strip[1])  # as text, in which nan equals nan
    assert end_a.state.best_step == end_b.state.best_step


def test_a_checkpoint_of_other_options_is_refused(signal: nf.ImageSignal, tmp_path: Path) -> None:
    with pytest.raises(SystemError):
        trainer(signal, folder=tmp_path, progress=StopAt(5, SystemError())).run()
    with pytest.raises(FieldFileError, match=r"fit\.steps is 60 there, 70 now"):
        trainer(signal, replace(OPTIONS, steps=70, resume=True), folder=tmp_path).run()
    other = nf.ImageSignal.from_array(np.zeros((24, 32, 3), np.uint8), holdout="every_other")
    with pytest.raises(FieldFileError, match="signal is"):
        trainer(other, replace(OPTIONS, resume=True), folder=tmp_path).run()


def test_limits(signal: nf.ImageSignal) -> None:
    by_time = trainer(signal, replace(OPTIONS, steps=None, seconds=0.3)).run()
    assert by_time.stopped_by == "seconds"
    assert 0.3 <= by_time.state.seconds < 5
    by_quality = trainer(signal, replace(OPTIONS, steps=5000, target_psnr=15.0)).run()
    assert by_quality.stopped_by == "target_psnr"
    assert by_quality.state.history[-1]["psnr_heldout"] >= 15
    assert by_quality.state.step % 50 == 0


@pytest.mark.parametrize("options", [{"batch_size": "full"}, {"loss": "l1"}, {"precision": "bfloat16"}])
def test_variants_learn(signal: nf.ImageSignal, options: dict) -> None:
    history = trainer(signal, replace(OPTIONS, steps=100, **options)).run().state.history
    assert history[-1]["psnr_train"] > history[0]["psnr_train"] + 8


def test_keep_best_gives_the_best_evaluated_state(signal: nf.ImageSignal) -> None:
    # A rate that destroys what the first steps learned.
    options = replace(OPTIONS, lr=0.3, encoding_lr=0.3, keep="best", schedule="constant", eval_every=1)
    job = trainer(signal, options)
    outcome = job.run()
    reached = job.probes["psnr_heldout"].quality(job.field)
    assert reached == pytest.approx(outcome.state.best_quality)
    assert outcome.state.best_step < 60


def test_divergence_is_named_with_the_step_and_the_rate(signal: nf.ImageSignal) -> None:
    with pytest.raises(DivergedError, match=r"step \d+; learning rates were 1e\+30.*smaller fit.lr"):
        trainer(signal, replace(OPTIONS, lr=1e30)).run()


def test_exhausted_memory_names_the_batch(signal: nf.ImageSignal, monkeypatch: pytest.MonkeyPatch) -> None:
    job = trainer(signal)

    def exhausted(step: int) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(job.data, "batch", exhausted)
    with pytest.raises(DeviceError, match=r"fit\.batch_size=64 .* try fit\.batch_size=16"):
        job.run()


def test_other_threads_can_fit_too(signal: nf.ImageSignal) -> None:
    ends: list[Outcome] = []
    thread = threading.Thread(target=lambda: ends.append(trainer(signal, replace(OPTIONS, steps=3)).run()))
    thread.start()
    thread.join()
    assert ends[0].state.step == 3


def test_deterministic_mode_is_switched_back(signal: nf.ImageSignal, tmp_path: Path) -> None:
    ends = [trainer(signal, replace(OPTIONS, steps=10, deterministic=True)) for _ in range(2)]
    for job in ends:
        job.run()
    assert not torch.are_deterministic_algorithms_enabled()
    a, b = (list(job.field.parameters()) for job in ends)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert not checkpoint.exists(tmp_path)
