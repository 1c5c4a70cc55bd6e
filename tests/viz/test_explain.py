"""Figures of an explanation: valid pictures in every case, the same bytes each time, showing what they should."""

from __future__ import annotations

import copy
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from neuralfield.errors import ConfigError, OutputError
from neuralfield.explain.explanation import Explanation, SigmaCurve
from neuralfield.signals.image import ImageSignal
from neuralfield.viz import explain
from neuralfield.viz.explain_curves import rank_correlation
from neuralfield.viz.explain_parts import BIASES, ELSE, FIRST, GRID, HIDDEN, OUTPUT, contrasting, grouped, local_rms
from neuralfield.viz.explain_sigma import bandwidths, chosen_sigma
from neuralfield.viz.explain_style import colours, mixed, modes_for, shown
from neuralfield.viz.style import BEST, HELDOUT, Page
from tests.explain.synthetic import candidate, curve, explanation
from tests.viz.pictures import amount, pixels

pytestmark = pytest.mark.filterwarnings("error")
FIGURES = {
    "kernels": explain.kernels_figure,
    "spectra": explain.spectra_figure,
    "curves": explain.curves_figure,
    "sigma": explain.sigma_figure,
    "parts": explain.parts_figure,
    "unlearned": explain.unlearned_figure,
    "bands": explain.bands_figure,
    "after": explain.after_figure,
}


@pytest.fixture(scope="module")
def found() -> Explanation:
    y, x = np.mgrid[0:24, 0:32] / 32
    pixels = np.stack([x, y, x * y], axis=-1).astype(np.float32)
    return explanation(ImageSignal.from_array(pixels, holdout="every_other"))


@pytest.mark.parametrize("name", FIGURES)
def test_png_and_svg(name: str, found: Explanation, tmp_path: Path) -> None:
    hostile = copy.copy(explanation(found.signal, trained=True) if name == "after" else found)
    hostile.candidates = [copy.copy(c) for c in hostile.candidates]
    hostile.candidates[0].name = "none $x_1$ 漢字 <&> " + "long " * 12
    FIGURES[name](hostile, tmp_path / "a.png", str(tmp_path / "a.svg"))
    for kind in ("png", "svg"):  # one drawing gives each file what a drawing of its own would
        FIGURES[name](hostile, tmp_path / f"b.{kind}")
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    image = pixels(tmp_path / "a.png")
    assert image.shape[1] == 1080 and 350 < image.shape[0] < 1400
    assert (image[-6:] == 255).all() and (image[:, -6:] == 255).all()  # nothing touches the edge
    root = ElementTree.fromstring((tmp_path / "a.svg").read_text(encoding="utf-8"))
    assert root.tag.endswith("svg") and root.get("viewBox")


def test_the_same_bytes_each_time(found: Explanation, tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "a.svg", "b.svg"):
        explain.curves_figure(found, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"<dc:date>" not in (tmp_path / "a.svg").read_bytes()


def test_a_path_without_permission(found: Explanation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for name in ("a.svg", "a.png"):
        with pytest.raises(OutputError, match="is a file, not a folder"):
            explain.curves_figure(found, tmp_path / "file" / name)


def test_measurements_appear_where_there_are_any(found: Explanation, tmp_path: Path) -> None:
    trained = explanation(found.signal, trained=True)
    shade = colours(found.candidates)["hashgrid"]
    for name, some in (("a", found), ("b", trained)):
        explain.curves_figure(some, tmp_path / f"{name}.png")
    with_dots, without = (amount(pixels(tmp_path / f"{n}.png"), shade) for n in ("b", "a"))
    assert with_dots > 1.15 * without
    explain.sigma_figure(trained, tmp_path / "c.png")
    assert amount(pixels(tmp_path / "c.png"), HELDOUT) > 500


def test_one_candidate_and_one_step(found: Explanation, tmp_path: Path) -> None:
    box = found.windows[len(found.windows) // 2].box
    one = copy.copy(found)
    only = candidate("none", {"name": "none"}, curve(20, 19), (box[3], box[2]), math.inf)
    only.curve = type(only.curve)(*(np.array([v]) for v in (1, 0.1, 0.1, 0.0)), {}, {})
    only.eigenvalues, only.energy = np.ones(1), np.ones(1)
    one.candidates, one.steps = [only], 1
    one.verdict = copy.copy(found.verdict)
    one.verdict.best, one.sigma = "none", None
    for name in ("kernels", "spectra", "curves", "unlearned"):
        FIGURES[name](one, tmp_path / f"{name}.png")
        assert pixels(tmp_path / f"{name}.png").shape[1] == 1080
    with pytest.raises(ConfigError, match="no Fourier features"):
        explain.sigma_figure(one, tmp_path / "a.png")
    with pytest.raises(ConfigError, match="known by its parts"):
        explain.parts_figure(one, tmp_path / "a.png")
    only.unlearned = None
    with pytest.raises(ConfigError, match="unlearned"):
        explain.unlearned_figure(one, tmp_path / "a.png")


_RANGE = "over the compared fields from 1.5 to 40 pixels"


def test_what_the_title_of_kernels_says(found: Explanation, tmp_path: Path, titles: list[str]) -> None:
    explain.kernels_figure(found, tmp_path / "a.png")
    assert titles == ["What fourier sigma=4 learns at one pixel spreads over 6.0 pixels; " + _RANGE]
    rising = copy.copy(found)
    rising.candidates = [copy.copy(c) for c in found.candidates]
    for some in rising.candidates:
        some.kernel = copy.copy(some.kernel)
        some.kernel.row = 1 + some.kernel.pixels / 24
    explain.kernels_figure(rising, tmp_path / "b.png")
    assert "more than the pixel itself" in titles[1]


def test_an_image_that_its_modes_do_not_hold(found: Explanation, tmp_path: Path) -> None:
    part = copy.copy(found)
    part.candidates = [copy.copy(c) for c in found.candidates]
    for some in part.candidates:
        some.energy = 0.5 * some.energy
        some.eigenvalues = np.where(np.arange(64) < 30, some.eigenvalues, 0)
    explain.spectra_figure(part, tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").shape[1] == 1080
    assert modes_for(part.candidates[0].energy) is None
    assert modes_for(np.array([0.5, 0.4, 0.06, 0.04])) == 3 and modes_for(np.array([0.95, 0.05])) == 1


def test_parts_add_up_in_the_order_of_the_network(found: Explanation) -> None:
    fourier, grid = (grouped(found.candidate(name)) for name in ("fourier sigma=4", "hashgrid"))
    for parts in (fourier, grid):
        assert sum(part.share for part in parts) == pytest.approx(1)
    assert [p.role for p in fourier] == [FIRST] * 4 + [HIDDEN] * 2 + [OUTPUT, BIASES]
    assert [p.label for p in fourier[:4]] == ["low", "", "", "high"]
    total = sum(found.candidate("fourier sigma=4").curve.energy.values())
    assert [p.share * total for p in fourier] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.2, 0.1, 0.05, 0.02])
    assert [p.role for p in grid] == [GRID] * 8 + [HIDDEN, OUTPUT, BIASES]
    assert [p.label for p in grid[:8]] == [str(i) for i in range(1, 9)]
    plain = copy.copy(found.candidates[0])
    plain.curve = curve(
        20, 19, parts={"network.layers.0.weight": 3.0, "network.layers.1.weight": 1.0, "encoding.B": 4.0}
    )
    assert [(p.role, p.share) for p in grouped(plain)] == [(FIRST, 0.375), (OUTPUT, 0.125), (ELSE, 0.5)]


def test_the_title_of_parts_names_the_largest(found: Explanation, tmp_path: Path, titles: list[str]) -> None:
    explain.parts_figure(found, tmp_path / "a.png")
    assert titles[0].startswith("73 % of what fourier sigma=4 learns with is in its first layer")  # 1.0 of 1.37


def test_the_three_that_are_shown_unlearned(found: Explanation, tmp_path: Path) -> None:
    names = [c.name for c in contrasting(found)]
    assert names == ["fourier sigma=4", "none", "fourier sigma=16"]
    explain.unlearned_figure(found, tmp_path / "a.png")
    image = pixels(tmp_path / "a.png")
    assert amount(image, BEST) > 1000  # the frame around the recommended one
    # The window itself is shown: its corner's colour is there.
    left, top, _, _ = found.windows[len(found.windows) // 2].box
    corner = np.array([left / 32, top / 32, left * top / 32**2])
    near = np.abs(image.astype(float) / 255 - corner).max(axis=2) < 0.01
    assert near.sum() > 20


def test_holes_are_filled_from_their_neighbours() -> None:
    holes = np.full((4, 4), np.nan)
    holes[::2, ::2], holes[1::2, 1::2] = 3.0, 4.0
    filled = local_rms(holes)
    assert np.isfinite(filled).all()
    assert filled[0, 0] == pytest.approx(math.sqrt((9 + 16) / 2))
    assert filled[1, 2] == pytest.approx(math.sqrt((9 * 2 + 16 * 2) / 4))
    assert np.array_equal(local_rms(np.eye(3)), np.eye(3))


def test_the_range_of_right_sigmas() -> None:
    none = np.zeros(5)
    rising = SigmaCurve(2.0 ** np.arange(5), np.array([24.0, 27.0, 28.0, 26.0, 20.0]), none, none)
    low, high = bandwidths(rising, 0.5)
    # On a line of 1 dB per octave half a dB is half an octave; of 2 dB, a quarter.
    assert low == pytest.approx(4 / 2**0.5, rel=2e-3) and high == pytest.approx(4 * 2**0.25, rel=2e-3)
    dip = SigmaCurve(2.0 ** np.arange(5), np.array([28.0, 20.0, 28.1, 20.0, 28.0]), none, none)
    assert bandwidths(dip, 0.5)[0] > 3 and bandwidths(dip, 0.5)[1] < 5
    flat = SigmaCurve(2.0 ** np.arange(5), none + 25, none, none)
    assert bandwidths(flat, 0.5) == (1.0, 16.0)
    one = SigmaCurve(np.array([3.0]), np.array([20.0]), np.array([60.0]), np.array([30.0]))
    assert bandwidths(one, 0.5) == pytest.approx((3.0, 3.0))


def test_the_sigma_that_is_marked(found: Explanation, tmp_path: Path, titles: list[str]) -> None:
    assert found.sigma is not None
    assert chosen_sigma(found, found.sigma) == 4
    grid = copy.copy(found)
    grid.verdict = copy.copy(found.verdict)
    grid.verdict.best = "hashgrid"
    grid.sigma = SigmaCurve(np.array([1.0, 2, 4]), np.array([26, 27.95, 28]), np.full(3, 50.0), np.full(3, 60.0))
    assert chosen_sigma(grid, grid.sigma) == 2
    explain.sigma_figure(grid, tmp_path / "a.png")
    assert titles == ["sigma 2 serves this image; 1.7 to 4 would do nearly as well"]


def test_many_candidates_are_thinned_and_coloured_by_family(found: Explanation, tmp_path: Path) -> None:
    many = copy.copy(found)
    many.candidates = [copy.copy(found.candidates[i % 5]) for i in range(20)]
    for i, some in enumerate(many.candidates):
        some.name, some.encoding = f"{i}", dict(some.encoding) | ({"sigma": i} if "sigma" in some.encoding else {})
    many.verdict = copy.copy(found.verdict)
    many.verdict.best = "17"
    kept = shown(many, 8)
    assert len(kept) == 8 and "17" in [c.name for c in kept]
    assert [int(c.name) for c in kept] == sorted(int(c.name) for c in kept)
    assert {c.encoding["name"] for c in kept} == {"none", "fourier", "hashgrid"}
    shades = colours(many.candidates)
    assert len({shades[str(i)] for i in range(20) if i % 5 in (1, 2, 3)}) == 12
    assert mixed("#000000", "#ffffff", 0.5) == "#808080" and mixed("#102030", "#ffffff", 0) == "#102030"
    explain.curves_figure(many, tmp_path / "a.png")
    explain.kernels_figure(many, tmp_path / "b.png")
    assert pixels(tmp_path / "b.png").shape[0] < 1400


def test_a_sweep(tmp_path: Path, titles: list[str]) -> None:
    predicted, measured = [20.0, 24.0, 22.0, 27.0], [20.5, 23.0, 23.5, 27.0]
    explain.sweep_figure(predicted, measured, ["a", "b $x", "c" * 90, "d"], tmp_path / "a.png")
    assert titles == ["Predictions miss the trained fields by 0.75 dB on average and rank them with Spearman 0.80"]
    image = pixels(tmp_path / "a.png")
    assert amount(image, BEST) > 50 and (image[:, -6:] == 255).all()
    explain.sweep_figure([20.0], [21.0], ["one"], tmp_path / "b.png")
    assert titles[1] == "Predictions miss the trained fields by 1.00 dB on average"
    explain.sweep_figure(list(range(60)), list(range(60)), [f"run {i}" for i in range(60)], tmp_path / "c.png")
    with pytest.raises(ConfigError, match="got 2, 1, 1"):
        explain.sweep_figure([1.0, 2.0], [1.0], ["a"], tmp_path / "a.png")
    with pytest.raises(ConfigError, match="got 0, 0, 0"):
        explain.sweep_figure([], [], [], tmp_path / "a.png")


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, 20).astype(float), rng.normal(size=20)  # with ties
    assert rank_correlation(x, y) == pytest.approx(float(spearmanr(x, y).statistic), abs=1e-12)
    assert math.isnan(rank_correlation(x, np.ones(20))) and math.isnan(rank_correlation(x[:2], y[:2]))


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The bold headings of the pages that a test draws, joined where they wrap."""
    written: list[str] = []
    write: Callable[..., None] = Page.text

    def text(page: Page, x: float, y: float, text: str, size: float = 13.0, *rest: object, **style: object) -> None:
        if size == 18.0:
            if y > 24 and written:
                written[-1] += " " + text
            else:
                written.append(text)
        write(page, x, y, text, size, *rest, **style)

    monkeypatch.setattr(Page, "text", text)
    return written
