import runpy
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from neuralfield.errors import ConfigError, MissingDependency, SignalError
from neuralfield.signals import samples
from neuralfield.signals.samples import SAMPLES, sample


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_is_a_picture(name):
    array, shown = sample(name)
    assert array.shape[0] >= 300 and array.shape[1] >= 400 and array.ndim in (2, 3)
    assert array.dtype == (np.float32 if name == "zoneplate" else np.uint8) and shown
    assert array.std() > 0.01 * (1 if array.dtype == np.float32 else 255)


def test_astronaut_is_the_default():
    array, shown = sample()
    assert array.shape == (512, 512, 3) and shown == "astronaut"


def test_known_shapes():
    assert sample("logo")[0].shape == (500, 500, 4)
    assert sample("camera")[0].shape == (512, 512)


def test_zoneplate_reaches_the_nyquist_limit_and_no_further():
    array = samples.zoneplate(64)
    assert array.min() >= 0 and array.max() <= 1
    assert np.array_equal(array, array[::-1]) and np.array_equal(array, array.T)
    phase = np.pi / 64 * (np.arange(64) + 0.5 - 32) ** 2
    assert abs(phase[-1] - phase[-2]) == pytest.approx(np.pi * 62 / 64)  # just below half a cycle per pixel


def test_text_is_fixed_and_reaches_every_part():
    first, second = samples.text(), samples.text()
    assert np.array_equal(first, second)
    assert all((block < 128).any() for half in np.split(first, 4) for block in np.split(half, 2, axis=1))


def test_unknown_names_are_answered():
    with pytest.raises(ConfigError, match=r"did you mean 'astronaut'.*zoneplate.*signal.path"):
        sample("astronaot")


def test_without_scikit_image(monkeypatch):
    monkeypatch.setattr(samples.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install scikit-image"):
        sample("coffee")
    assert sample("text")[1] == "text"


def test_a_file_that_scikit_image_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(samples, "_skimage_data", lambda: tmp_path)
    with pytest.raises(SignalError, match="zoneplate"):
        sample("coffee")


def test_the_script_writes_the_drawn_samples(tmp_path):
    script = Path(__file__).parents[2] / "data" / "make_samples.py"
    written = runpy.run_path(str(script))["main"]([str(tmp_path / "new")])
    assert [path.name for path in written] == ["zoneplate.png", "text.png"]
    assert np.array_equal(imageio.imread(written[1]), sample("text")[0])
    assert np.abs(imageio.imread(written[0]) / 255.0 - sample("zoneplate")[0]).max() <= 0.5 / 255 + 1e-6
