"""From an image to an explanation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import neuralfield as nf
from neuralfield.errors import ConfigError, SignalError
from neuralfield.explain import Explanation, explain
from neuralfield.explain.candidates import comparison, merged, octaves, setting
from neuralfield.explain.patches import patches
from neuralfield.explain.views import kernel_view, picture, spectrum, width

NETWORK = {"width": 64, "depth": 2}


@pytest.fixture(scope="module")
def photograph() -> nf.ImageSignal:
    return nf.load_image(name="chelsea", crop=40, holdout="every_other")


@pytest.fixture(scope="module")
def explained(photograph: nf.ImageSignal) -> Explanation:
    fields = ["none", {"name": "fourier", "sigma": 2.0}, {"name": "fourier", "sigma": 6.0}]
    return explain(photograph, fields, network=NETWORK, steps=60, side=24, windows=4, verify=True, progress=False)


def test_candidates_in_the_order_given_with_everything_to_look_at(explained: Explanation) -> None:
    assert [c.name for c in explained.candidates] == ["none", "fourier sigma=2", "fourier sigma=6"]
    assert explained.steps == 60 and not explained.assumed_holdout and len(explained.windows) == 1
    for candidate in explained.candidates:
        assert candidate.curve.steps[-1] == 60
        assert candidate.eigenvalues[0] == pytest.approx(1) and np.all(np.diff(candidate.eigenvalues) <= 1e-12)
        assert candidate.energy.sum() == pytest.approx(1, abs=1e-4)  # every mode of a whole window
        assert candidate.kernel.row[0] == pytest.approx(1)
        assert candidate.unlearned is not None and candidate.unlearned.shape == (40, 40)
    narrow, wide = explained.candidate("fourier sigma=6").kernel, explained.candidate("fourier sigma=2").kernel
    assert 1.5 < wide.fwhm / narrow.fwhm < 6


def test_verify_adds_the_truth_and_short_sweeps(explained: Explanation) -> None:
    for candidate in explained.candidates:
        assert candidate.measured is not None
        assert candidate.trained[-1]["step"] == 60 and candidate.heldout == pytest.approx(candidate.measured, abs=1.5)
    best = max(c.measured or 0.0 for c in explained.candidates)
    for percent, steps in ((5, 3), (10, 6)):
        short = explained.baselines[f"short_sweep_{percent}"]
        assert isinstance(short, dict) and short["steps"] == 3 * steps
        assert short["lost"] == pytest.approx(best - (explained.candidate(short["name"]).measured or 0.0))


def test_the_sigma_curve_is_that_of_its_candidates(explained: Explanation) -> None:
    assert explained.sigma is not None and explained.sigma.sigmas.tolist() == [2, 6]
    assert explained.sigma.heldout_psnr.tolist() == [c.heldout for c in explained.candidates[1:]]
    assert np.all(explained.sigma.f0_psnr > explained.sigma.heldout_psnr)


def test_everything_is_written(explained: Explanation, tmp_path: Path) -> None:
    explained.save(tmp_path)
    content = json.loads((tmp_path / "explanation.json").read_text())
    assert content["verdict"]["best"] == explained.verdict.best and len(content["candidates"]) == 3
    assert content["candidates"][1]["measured_heldout_psnr"] == explained.candidates[1].measured
    assert (tmp_path / "report.html").stat().st_size > 1000
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {"kernels.png", "kernels.svg", "sigma.png", "curves.svg"} <= names
    explained.plot_curves(tmp_path / "mine.png")
    assert (tmp_path / "mine.png").stat().st_size > 1000


def test_after_training_the_field_is_compared_with_its_own_beginning(
    explained: Explanation, photograph: nf.ImageSignal
) -> None:
    trained = nf.fit(photograph, {"name": "fourier", "sigma": 2.0}, NETWORK, steps=60, progress=False)
    after = explained.after(trained)
    assert 0 < after.weights < 2 and after.kernel_movement > 0 and after.gap > 0
    assert after.kernel_alignment < 1 and after.target_after != after.target_before
    untouched = setting(photograph, {"name": "fourier", "sigma": 2.0}, NETWORK).build(
        photograph, 0, torch.device("cpu")
    )
    still = explained.after(untouched)
    assert still.weights == 0 and still.kernel_movement == 0 and still.target_after == still.target_before
    grey = nf.fit(np.eye(8, dtype=np.float32), "none", NETWORK, steps=1, progress=False)
    with pytest.raises(ConfigError, match="channels"):
        explained.after(grey)


def test_the_standard_comparison_scales_with_the_lattice(photograph: nf.ImageSignal) -> None:
    large = nf.load_image(holdout="every_other")
    assert large.lattice == pytest.approx(256) and octaves(large) == [1, 2, 4, 8, 16, 32]
    settings = comparison(large, {}, 0)
    assert [s.kind for s in settings] == ["none", "positional", *["fourier"] * 6, "hashgrid"]
    assert settings[4].overrides == ["encoding=fourier", "encoding.sigma=4"]
    same = setting(large, {"name": "fourier", "sigma": 4.0, "n_features": 256}, {}, own=True)
    other = setting(large, {"name": "fourier", "sigma": 4.0, "n_features": 64}, {}, own=True)
    found = merged(settings, [same, other])
    assert len(found) == len(settings) + 1 and found[4].own and found[-1].name == "fourier sigma=4 n_features=64"


def test_the_view_of_a_gaussian_kernel_has_its_width(photograph: nf.ImageSignal) -> None:
    distances = np.arange(0, 24.01, 0.25)
    assert width(distances, np.exp(-0.5 * (distances / 3) ** 2)) == pytest.approx(
        2 * 3 * np.sqrt(2 * np.log(2)), rel=0.01
    )
    assert width(distances, np.ones_like(distances)) == np.inf
    field = setting(photograph, {"name": "fourier", "sigma": 4.0}, NETWORK).build(photograph, 0, torch.device("cpu"))
    view = kernel_view(field, photograph)
    assert view.plane.shape == (49, 49) and view.plane[24, 24] == pytest.approx(1)
    assert view.plane[24, 27] == pytest.approx(view.row[12], abs=1e-5)  # 3 pixels to the right


def test_spectrum_and_picture_put_things_where_they_belong(photograph: nf.ImageSignal) -> None:
    values, energy = spectrum(torch.diag(torch.tensor([1.0, 4.0, 2.0])), torch.tensor([[1.0], [-1.0], [0.0]]))
    assert values.tolist() == [1, 0.5, 0.25] and energy == pytest.approx([0.5, 0, 0.5])
    window = patches(photograph, 8, 4)[3]
    drawn = picture(window, photograph, torch.ones(len(window.x), 3), 2 * torch.ones(len(window.x_test), 3))
    assert np.all(drawn[::2, ::2] == 1) and np.all(drawn[1::2, 1::2] == 2) and np.isnan(drawn[::2, 1::2]).all()


def test_nothing_held_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    image = np.random.default_rng(0).random((12, 12)).astype(np.float32)
    found = explain(image, ["none"], network=NETWORK, budget=5)
    assert found.assumed_holdout and "nothing is held out" in capsys.readouterr().out
    assert found.sigma is None and found.verdict.best == "none" and found.windows[0].box == (0, 0, 12, 12)


@pytest.mark.parametrize(
    ("image", "options", "error", "words"),
    [
        (np.full((16, 16), 0.3, np.float32), {}, ConfigError, "same value everywhere"),
        (np.full((16, 16), np.nan, np.float32), {}, SignalError, "finite|NaN"),
        (np.eye(16, dtype=np.float32), {"budget": 0}, ConfigError, "budget must be at least 1"),
        (np.eye(2, dtype=np.float32), {}, ConfigError, "window"),
        (np.eye(16, dtype=np.float32), {"loss": "l1"}, ConfigError, "mse"),
        (np.eye(16, dtype=np.float32), {"steps": "auto", "seconds": 3}, ConfigError, "number of steps"),
        (np.eye(16, dtype=np.float32), {"fields": []}, ConfigError, "no field"),
    ],
)
def test_bad_input_is_explained(image: np.ndarray, options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        explain(image, **{"fields": ["none"], "network": NETWORK, "progress": False, **options})
