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
from neuralfield.explain.predictor import look
from neuralfield.explain.views import energies, kernel_view, modes, picture, views, width
from neuralfield.fitting.options import FitOptions
from neuralfield.ntk.empirical import empirical_ntk, empirical_parts

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
    # Halfway to a far level of 0.6 would be 0.8; but nothing there has dropped to half.
    assert width(distances, 0.6 + 0.4 * np.exp(-0.5 * (distances / 3) ** 2)) == np.inf
    assert width(distances, np.ones_like(distances)) == np.inf
    lifted = 0.2 + 0.8 * np.exp(-0.5 * (distances / 3) ** 2)  # a half at 0.2 + 0.8 g = 0.5
    assert width(distances, lifted) == pytest.approx(2 * 3 * np.sqrt(2 * np.log(8 / 3)), rel=0.01)
    field = setting(photograph, {"name": "fourier", "sigma": 4.0}, NETWORK).build(photograph, 0, torch.device("cpu"))
    view = kernel_view(field, photograph)
    assert view.plane.shape == (49, 49) and view.plane[24, 24] == pytest.approx(1)
    assert view.plane[24, 27] == pytest.approx(view.row[12], abs=1e-5)  # 3 pixels to the right


def test_parts_count_in_the_view_as_adam_trains_them(photograph: nf.ImageSignal) -> None:
    field = setting(photograph, {"name": "hashgrid", "n_levels": 4}, NETWORK).build(photograph, 0, torch.device("cpu"))
    window, options = patches(photograph, 8, 4)[1], FitOptions(steps=60, batch_size=512)
    inside = look(field, photograph, options, window)
    seen = views(field, photograph, options, window).kernel
    middle, shift = torch.tensor([[20.5, 20.5]]) / 40, torch.tensor([[3.0, 0.0]]) / 40
    parts = empirical_parts(inside.field, torch.cat([middle, middle + shift]), middle)
    weighted = torch.stack([inside.prediction.weights[name] * part[:, 0] for name, part in parts.items()]).sum(dim=0)
    assert seen.row[12] == pytest.approx(float(weighted[1] / weighted[0]), rel=1e-3)
    plain = empirical_ntk(inside.field, torch.cat([middle, middle + shift]), middle)[:, 0]
    alike = kernel_view(inside.field, photograph)
    assert alike.row[12] == pytest.approx(float(plain[1] / plain[0]), rel=1e-3)
    assert abs(alike.row[12] - seen.row[12]) > 0.02


def test_spectrum_and_picture_put_things_where_they_belong(photograph: nf.ImageSignal) -> None:
    values, vectors = modes(torch.diag(torch.tensor([1.0, 4.0, 2.0])))
    energy = energies(vectors, torch.tensor([[1.0], [-1.0], [0.0]]))
    assert values.tolist() == [4, 2, 1] and energy == pytest.approx([0.5, 0, 0.5])
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
