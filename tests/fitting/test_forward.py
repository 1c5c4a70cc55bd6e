"""Chunks and kept features change how a step is computed, not what it gives."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import neuralfield as nf
from neuralfield import encodings
from neuralfield import field as fields
from neuralfield.field import Field
from neuralfield.fitting import features, forward, losses
from neuralfield.fitting.data import Batch
from neuralfield.fitting.loop import Trainer
from neuralfield.fitting.options import FitOptions
from neuralfield.signals.shape import load_shape

OPTIONS = FitOptions(steps=600, batch_size=50, checkpoint_seconds=1e-9)
FIXED = [
    {"name": "fourier", "n_features": 24, "sigma": 3.0},
    {"name": "positional", "n_frequencies": 4, "include_input": True},
    {"name": "none", "centered": True},
    {"name": "bounded", "encoding": {"name": "fourier", "in_dim": 2, "n_features": 9}, "low": -1.0},
]


def build(encoding: dict, **network: object) -> Field:
    torch.manual_seed(0)
    return fields.build(2, 3, encoding, {"width": 16, **network})


def trainer(signal: nf.ImageSignal, encoding: dict, options: FitOptions = OPTIONS, **more: object) -> Trainer:
    return Trainer(build(encoding), signal, options, progress=False, **more)


def steps(job: Trainer, count: int) -> list[Tensor]:
    """The losses of some steps."""
    found = []
    for _ in range(count):
        found.append(job.train_step())
        job.state.step += 1
    return found


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("n", [101, 96, 17, 3])
def test_chunks_add_up_to_the_gradient_of_the_whole_batch(signal: nf.ImageSignal, name: str, n: int) -> None:
    job = trainer(signal, FIXED[0])
    generator = torch.Generator().manual_seed(n)
    batch = Batch(torch.rand(n, 2, generator=generator), torch.rand(n, 3, generator=generator), None)
    exact = copy.deepcopy(job.field).double()
    wanted = losses.LOSSES[name](exact(batch.coordinates.double()), batch.target.double())
    wanted.backward()
    job.gradients._wanted = False
    job.gradients.loss, job.gradients.rows = losses.LOSSES[name], 17
    seen: list[int] = []
    job.field.network.register_forward_hook(lambda module, given, out: seen.append(len(out)))
    found = job.gradients.add(batch)
    assert sum(seen) == n and max(seen) <= 17 and len(seen) == -(-n // 17)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)
    for ours, theirs in zip(job.field.parameters(), exact.parameters(), strict=True):
        scale = float(theirs.grad.abs().max())
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=2e-5 * scale)


@pytest.mark.parametrize("batch_size", [50, "full"])
@pytest.mark.parametrize("encoding", FIXED, ids=lambda encoding: encoding["name"])
def test_kept_features_give_the_same_fit(
    signal: nf.ImageSignal, encoding: dict, batch_size: int | str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = replace(OPTIONS, batch_size=batch_size)
    kept, fresh = trainer(signal, encoding, options), trainer(signal, encoding, options)
    fresh.gradients._wanted = False
    calls: list[int] = []
    for job in (kept, fresh):
        monkeypatch.setattr(job.gradients, "rows", 23)
    kept.field.encoding.register_forward_hook(lambda module, given, out: calls.append(len(out)))
    assert steps(kept, 20) == steps(fresh, 20)
    assert sum(calls) == signal.split.n_train  # each sample once
    for one, other in zip(kept.field.parameters(), fresh.field.parameters(), strict=True):
        assert torch.equal(one, other)


class Annealed(encodings.Fourier):
    """An encoding of a user's own, which may change from step to step."""


class OtherField(Field):
    """A field of a user's own, which may do anything between encoding and network."""


def test_features_are_kept_only_where_that_is_right_and_pays(
    signal: nf.ImageSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    field, n = build(FIXED[0]), signal.split.n_train
    assert features.worthwhile(field, n, 50, OPTIONS)
    grid = {"name": "hashgrid", "n_levels": 2, "log2_hashmap_size": 6, "max_resolution": 32}
    for other in (
        build({**FIXED[0], "trainable": True}),
        build(grid),
        build({"name": "bounded", "encoding": {**grid, "in_dim": 2}}),
        fields.build(2, 3, Annealed(2, 24)),
        OtherField(field.encoding, field.network),
    ):
        assert not features.worthwhile(other, n, 50, OPTIONS)
    enough = 50 * n // 50  # steps of 50 samples that see each sample 50 times
    assert features.worthwhile(field, n, 50, replace(OPTIONS, steps=enough))
    assert not features.worthwhile(field, n, 50, replace(OPTIONS, steps=enough - 1))
    assert features.worthwhile(field, n, 50, replace(OPTIONS, steps=None, seconds=10.0))
    # 20 steps of 4,096 samples on 16 megapixels
    assert not features.worthwhile(field, 2**24, 4096, replace(OPTIONS, steps=20))
    monkeypatch.setattr(features, "CACHE_BYTES", 4 * n * 48)
    assert features.worthwhile(field, n, 50, OPTIONS)
    monkeypatch.setattr(features, "CACHE_BYTES", 4 * n * 48 - 1)
    assert not features.worthwhile(field, n, 50, OPTIONS)
    monkeypatch.undo()
    monkeypatch.setattr(features, "available_bytes", lambda device: 4 * 4 * n * 48 - 1)
    assert not features.worthwhile(field, n, 50, OPTIONS)


def test_features_that_would_take_too_much_of_the_time_are_given_up() -> None:
    encoding, x = encodings.Fourier(2, 16), torch.rand(20_000, 2)
    calls: list[int] = []
    encoding.register_forward_hook(lambda module, given, out: calls.append(len(out)))
    assert features.compute(encoding, x, torch.float32, seconds=1e-6) is None
    assert len(calls) == 2  # of ten blocks
    whole = features.compute(encoding, x, torch.float32, seconds=1e6)
    assert whole is not None and torch.equal(whole, encoding(x))


def test_samples_that_are_read_on_demand_are_encoded_on_demand(
    signal: nf.ImageSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = trainer(signal, FIXED[0])
    monkeypatch.setattr("neuralfield.fitting.data._CACHE_BYTES", 0)
    fresh = trainer(signal, FIXED[0])
    assert steps(kept, 10) == steps(fresh, 10)
    assert kept.gradients._features is not None and fresh.gradients._features is None


def test_a_killed_fit_with_kept_features_resumes_to_the_same_bits(
    signal: nf.ImageSignal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(features._VISITS, "cpu", 2)
    options = replace(OPTIONS, steps=30)
    whole = trainer(signal, FIXED[0], options)
    whole.run()
    killed = trainer(signal, FIXED[0], options, folder=tmp_path)
    batch = killed.data.batch

    def fails(step: int) -> Batch:
        if step == 17:
            raise SystemError
        return batch(step)

    monkeypatch.setattr(killed.data, "batch", fails)
    with pytest.raises(SystemError):
        killed.run()
    resumed = trainer(signal, FIXED[0], replace(options, resume=True), folder=tmp_path)
    resumed.resume()
    assert 10 < resumed.state.step <= 17
    resumed.run()
    assert resumed.gradients._features is not None and whole.gradients._features is not None
    for one, other in zip(resumed.field.parameters(), whole.field.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_eikonal_term_goes_with_kept_features() -> None:
    ball = load_shape(name="sphere", kind="sdf", points=600, test_points=50, cache=False)
    jobs = []
    for wanted in (True, False):
        torch.manual_seed(0)
        field = fields.build(3, 1, {"name": "fourier", "n_features": 8, "sigma": 1.0}, {"width": 16})
        job = Trainer(field, ball, replace(OPTIONS, eikonal=0.1), progress=False)
        assert job.gradients._wanted
        job.gradients._wanted = wanted
        jobs.append(job)
    assert steps(jobs[0], 5) == steps(jobs[1], 5)
    assert jobs[0].gradients._features is not None


def test_chunks_suit_the_cache_and_spare_the_table_of_a_grid() -> None:
    wide = fields.build(2, 3, {"name": "fourier"}, {"width": 256, "depth": 3})
    assert 2048 <= forward.chunk_rows(wide) < 4096
    grid = fields.build(2, 3, {"name": "hashgrid", "log2_hashmap_size": 14}, {"width": 64})
    assert forward.chunk_rows(grid) > 10**6  # each chunk would add up a gradient of the whole table
