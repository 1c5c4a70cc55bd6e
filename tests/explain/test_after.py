"""A field against itself before training, and while it trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.errors import ConfigError
from neuralfield.explain import Explanation, explain
from neuralfield.explain.after import Watch, moments
from neuralfield.explain.candidates import setting
from neuralfield.explain.patches import patches
from neuralfield.explain.verify import train
from neuralfield.fitting.options import FitOptions
from neuralfield.ntk.alignment import alignment
from neuralfield.ntk.empirical import empirical_ntk
from tests.explain import synthetic

NETWORK = {"width": 64, "depth": 2}
FOURIER = {"name": "fourier", "sigma": 2.0}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photograph() -> nf.ImageSignal:
    return nf.load_image(name="chelsea", crop=32, holdout="every_other")


@pytest.fixture(scope="module")
def explained(photograph: nf.ImageSignal) -> Explanation:
    return explain(photograph, ["none", FOURIER], network=NETWORK, steps=40, side=12, windows=2, progress=False)


def _fitted(photograph: nf.ImageSignal, steps: int) -> nf.Field:
    return nf.fit(photograph, FOURIER, NETWORK, steps=steps, schedule="constant", progress=False)


def test_one_field_is_compared_with_its_own_beginning(explained: Explanation, photograph: nf.ImageSignal) -> None:
    after = explained.after(_fitted(photograph, 40))
    assert 0 < after.weights < 2 and after.kernel_movement > 0 and after.gap > 0
    assert after.kernel_alignment < 1 and after.target_after != after.target_before and after.history == []
    untouched = setting(photograph, FOURIER, NETWORK).build(photograph, 0, CPU)
    still = explained.after(untouched)
    assert still.weights == 0 and still.kernel_movement == 0 and still.target_after == still.target_before
    with pytest.raises(ConfigError, match="one field alone has no history"):
        after.plot("never.png")


def test_several_fields_make_a_history(explained: Explanation, photograph: nf.ImageSignal, tmp_path: Path) -> None:
    early, late = _fitted(photograph, 10), _fitted(photograph, 40)
    found = explained.after({40: late, 10: early})
    assert [m.step for m in found.history] == [0, 10, 40]
    window = explained.windows[len(explained.windows) // 2]
    begun = setting(photograph, FOURIER, NETWORK).build(photograph, 0, CPU)
    for moment, field in zip(found.history, (begun, early, late), strict=True):
        kernel = empirical_ntk(field, window.x)
        assert moment.target == pytest.approx(alignment(kernel, window.y, centred=True), rel=1e-5)
        first = empirical_ntk(begun, window.x)
        assert moment.kernel_movement == pytest.approx(float((kernel - first).norm() / first.norm()), abs=1e-5)
    assert found.target_before == found.history[0].target and found.target_after == found.history[-1].target
    alone = explained.after(late)
    assert (
        (alone.gap, alone.weights) == (found.gap, found.weights) == (found.history[-1].gap, found.history[-1].weights)
    )
    found.plot(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_a_watched_training_is_the_same_training(explained: Explanation, photograph: nf.ImageSignal) -> None:
    with pytest.raises(ConfigError, match="watched"):
        explained.plot_after("never.png")
    after = explained.train("fourier sigma=2", at=[1, 7])
    candidate = explained.candidate("fourier sigma=2")
    assert candidate.after is after and [m.step for m in after.history] == [0, 1, 7, 40]
    plain = train(setting(photograph, FOURIER, NETWORK), explained.signal, FitOptions(steps=40), 0, CPU)
    timeless = lambda rows: [{k: v for k, v in row.items() if k not in ("seconds", "loss")} for row in rows]  # noqa: E731
    assert timeless(candidate.trained) == timeless(plain)
    kept = explained.to_dict()["candidates"][1]["after"]["history"]
    assert [row["step"] for row in kept] == [0, 1, 7, 40] and kept[-1]["target"] == after.target_after
    with pytest.raises(KeyError, match="no candidate 'nobody'"):
        explained.train("nobody")
    with pytest.raises(ConfigError, match="between 1 and 40"):
        explained.train("none", at=[41])


def test_the_watch_sees_the_weights_at_each_step(photograph: nf.ImageSignal) -> None:
    field = setting(photograph, "none", NETWORK).build(photograph, 0, CPU)
    watch = Watch(field, photograph, patches(photograph, 12, 1)[0])
    with torch.no_grad():
        for parameter in field.parameters():
            parameter.mul_(1.5)
    watch.see(3)
    assert watch.after().weights == pytest.approx(0.5) and watch.history[-1].step == 3
    # f is homogeneous of degree 3 in three layers' weights without biases (they start at zero or grow alike), K of degree 4.
    assert watch.history[-1].kernel_movement > 1


def test_a_window_of_one_colour_has_nothing_to_align_with() -> None:
    image = np.full((64, 64), 0.5, np.float32)
    image[0, 0] = 0.7
    signal = nf.ImageSignal.from_array(image, holdout="every_other")
    window = patches(signal, 8, 4)[-1]
    field = setting(signal, "none", NETWORK).build(signal, 0, CPU)
    assert float(window.y.std()) == 0 and Watch(field, signal, window).after().target_before == 0


def test_fields_that_do_not_belong_together(explained: Explanation, photograph: nf.ImageSignal) -> None:
    grey = nf.fit(np.eye(8, dtype=np.float32), "none", NETWORK, steps=1, progress=False)
    with pytest.raises(ConfigError, match="channels"):
        explained.after(grey)
    other = nf.fit(photograph, "none", NETWORK, steps=1, progress=False)
    with pytest.raises(ConfigError, match="different encodings"):
        explained.after({1: other, 2: _fitted(photograph, 2)})
    with pytest.raises(ConfigError, match="there is no field"):
        explained.after({})
    with pytest.raises(ConfigError, match="a step must be at least 1"):
        explained.after({0: other})


def test_what_was_made_by_hand_cannot_train(photograph: nf.ImageSignal) -> None:
    with pytest.raises(ConfigError, match="how to build none is not known"):
        synthetic.explanation(photograph).train("none")


def test_moments() -> None:
    assert moments(1) == [1] and moments(40) == [1, 3, 10, 32, 40] and moments(1000)[-1] == 1000
