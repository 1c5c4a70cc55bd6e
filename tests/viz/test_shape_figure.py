"""The figure of a shape's fit: valid in every case, the same bytes each time, with the right numbers and colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralfield.errors import ConfigError, OutputError, SignalError
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viz.shape_figure import BOTH, MISSING, SURPLUS, Cut, _enlarged, _scale, cuts, shaded, shape_comparison
from neuralfield.viz.style import Page
from tests.viz.pictures import amount, pixels
from tests.viz.solids import BALL, box

pytestmark = pytest.mark.filterwarnings("error")


PANEL = 180


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small panels, for speed."""
    monkeypatch.setattr("neuralfield.viz.shape_figure._PANEL", PANEL)


def ball(radius: float, middle: float = 0.5) -> Any:
    return lambda points: ((points - [middle, 0.5, 0.5]) ** 2).sum(axis=1) < radius**2


def draw(path: Path, fit: TriangleMesh | None = BALL, error: np.ndarray | None = None, **options: Any) -> np.ndarray:
    settings = {"title": "t", "captions": {}, "cuts": cuts(ball(0.4), ball(0.38), resolution=64)} | options
    shape_comparison(BALL, fit, error, path=path, **settings)
    return pixels(path)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every line that is written on pages."""
    lines: list[str] = []
    write = Page.text

    def text(page: Page, x: float, y: float, text: str, *rest: Any, **style: Any) -> None:
        lines.append(text)
        write(page, x, y, text, *rest, **style)

    monkeypatch.setattr(Page, "text", text)
    return lines


def test_cuts_of_a_known_shape() -> None:
    def half(points: np.ndarray) -> np.ndarray:
        assert points.shape == (400, 3) and points.dtype == np.float64 and 0 <= points.min() <= points.max() <= 1
        return points @ [1.0, 2.0, 4.0] < 3.0

    for up, normals in (("y", "zxy"), ("z", "yxz")):
        for cut, normal in zip(cuts(half, half, resolution=20, place=0.3, up=up), normals, strict=True):
            assert cut.normal == normal and cut.iou == 1
            assert sorted(cut.normal + cut.across + cut.upward) == ["x", "y", "z"]
            assert cut.upward == up or cut.normal == up
            weight = {"x": 1.0, "y": 2.0, "z": 4.0}
            place = (np.arange(20) + 0.5) / 20
            value = weight[cut.across] * place + weight[cut.upward] * place[:, None] + weight[normal] * 0.3
            assert np.array_equal(cut.truth, value < 3)
    small, large = ball(0.2), ball(0.4)
    for cut in cuts(large, small, resolution=200):
        assert cut.iou == pytest.approx(0.25, rel=0.02)
    assert cuts(ball(0), ball(0), resolution=4)[0].iou == 1


def test_colours_of_a_cut(tmp_path: Path) -> None:
    truth, fit = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    truth[:10, :], fit[:10, 20:], fit[30:, 30:] = True, True, True  # rows count upwards
    cut = Cut("z", 0.5, "x", "y", truth, fit)
    plain, image = draw(tmp_path / "a.png", cuts=[]), draw(tmp_path / "b.png", cuts=[cut])
    assert image.shape[0] > plain.shape[0] + PANEL
    side = PANEL**2
    for colour, share in ((BOTH, 1 / 8), (MISSING, 1 / 8), (SURPLUS, 1 / 16)):
        assert amount(image, colour) - 256 == pytest.approx(share * side, rel=0.1)  # 256: the legend
    rows = {colour: np.flatnonzero((image == np.frombuffer(bytes.fromhex(colour[1:]), np.uint8)).all(2).sum(1) > 25)
            for colour in (MISSING, SURPLUS)}  # fmt: skip
    assert rows[SURPLUS].max() < rows[MISSING].min()
    with pytest.raises(SignalError, match="at most three cuts"):
        draw(tmp_path / "c.png", cuts=[cut] * 4)


def test_outlines_between_squares() -> None:
    rng = np.random.default_rng(0)
    inside = rng.random((7, 7)) < 0.5
    assert np.array_equal(_enlarged(inside, 7), inside)
    fine = _enlarged(inside, 7 * 9)
    assert np.array_equal(fine[4::9, 4::9], inside)  # the centres keep their values
    line = np.zeros((10, 10), bool)
    line[:, :3] = True
    assert (_enlarged(line, 100)[:, :30] == 1).all() and _enlarged(line, 100).sum() == 3000
    assert _enlarged(np.ones((1, 1), bool), 5).all()
    assert _enlarged(np.eye(3, 5, dtype=bool), 30).shape == (30, 30)


def test_the_scale_of_errors() -> None:
    n = len(BALL.vertices)
    assert _scale(np.full(n, 0.3), BALL) == (0.5, "mean 0.3 %, largest 0.3 %")
    assert _scale(np.full(n, 0.2), BALL)[0] == pytest.approx(0.2)
    assert _scale(np.full(n, 70.0), BALL)[0] == pytest.approx(10)  # stray pieces do not take all the colours
    assert _scale(np.zeros(n), BALL) == (1.0, "none: equal everywhere")
    assert _scale(np.full(n, np.nan), BALL) == (1.0, "no finite value")
    few = np.zeros(n)
    few[:3] = 4.0  # far less than 1 % of the surface
    assert _scale(few, BALL)[0] == 5
    # Means are over the surface: a fine patch does not count more than a coarse one.
    quad = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [5.1, 0, 0], [5, 0.1, 0]])
    mesh = TriangleMesh(quad, np.array([[0, 1, 2], [3, 4, 5]]))
    assert _scale(np.array([1.0] * 3 + [102.0] * 3), mesh)[1] == "mean 2 %, largest 1e+02 %"


def test_what_the_figure_says(tmp_path: Path, written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralfield.viz.shape_figure._PANEL", 532)
    captions = {
        "encoding": "hashgrid",
        "iou_uniform": 0.98765,
        "iou_surface": 0.9,
        "chamfer": 0.0012345,
        "f_score": None,
    }
    image = draw(tmp_path / "a.png", error=np.full(4000, 0.001), captions=captions | {"train_seconds": 61, "steps": 5})
    assert "hashgrid · IoU 0.9877 · IoU near the surface 0.9000 · Chamfer distance 0.00123 · 61 s · 5 steps" in written
    assert {"Truth", "Fit", "Error", "mean 0.1 %, largest 0.1 %", "Cut at z = 0.5", "x →", "y ↑"} <= set(written)
    assert image.shape[1] == 1800 and 1200 < image.shape[0] < 1400
    assert (image[-10:] == 255).all() and (image[:, -6:] == 255).all()


def test_error_colours_the_surface(tmp_path: Path) -> None:
    high = np.where(BALL.vertices[:, 1] > 0.5, 0.01, 0.0)
    image = draw(tmp_path / "a.png", error=high, cuts=[]).astype(int)[
        :, 36 + 2 * (PANEL + 18) : 36 + 2 * (PANEL + 18) + PANEL
    ]
    warm = image[..., 0] - image[..., 2]
    grey = (np.abs(warm) < 25) & (image.sum(axis=2) < 730)
    dark = image.sum(axis=2) < 200
    rows = np.arange(len(image))[:, None]
    assert (dark & (rows > 136)).sum() > 1000 and grey.sum() > 1000
    assert (rows * dark)[136:].sum() / dark[136:].sum() < (rows * grey).sum() / grey.sum()
    high[:] = np.nan
    image = draw(tmp_path / "b.png", error=high, cuts=[]).astype(int)
    assert ((image[..., 0] < 10) & (image[..., 1] > 100) & (image[..., 1] == image[..., 2])).sum() > 4000


@pytest.mark.parametrize("case", ["no fit", "no fit, error of the truth", "not measured", "hostile", "stray piece"])
def test_every_case(case: str, tmp_path: Path, written: list[str]) -> None:
    options: dict[str, Any] = {}
    if case.startswith("no fit"):
        options["fit"] = None
        if "truth" in case:
            options |= {"error_on": "truth", "error": np.full(4000, 0.2)}
    elif case == "hostile":
        options |= {
            "title": "cost $5 \\frac{1}{ 写真\n" + "long " * 90,
            "captions": {"a $x_1": "b^$", "iou_uniform": 1.0},
        }
    elif case == "stray piece":
        stray = box((1.5, 1.5, 1.5), (1.6, 1.6, 1.6))
        faces = np.concatenate([BALL.faces, stray.faces + 4000])
        options["fit"] = TriangleMesh(np.concatenate([BALL.vertices, stray.vertices]), faces)
        options["error"] = np.repeat([0.0, 1.7], [4000, 8])
    image = draw(tmp_path / "a.png", **options)
    assert image.shape[1] == 36 * 3 + 3 * PANEL + 96 and (image[:, -6:] == 255).all()
    assert written.count("no surface") == {"no fit": 3, "no fit, error of the truth": 2}.get(case, 0)
    if case != "stray piece":
        return
    draw(tmp_path / "b.png", **options)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(SignalError, match="7 distances for the 4000 vertices of the fit"):
        draw(tmp_path / "a.png", error=np.zeros(7))
    with pytest.raises(ConfigError, match="error_on must be one of fit, truth"):
        draw(tmp_path / "a.png", error_on="both")
    with pytest.raises(ConfigError, match="up must be one of y, z"):
        draw(tmp_path / "a.png", up="x")
    with pytest.raises(ConfigError, match="resolution must be between 2 and 4096"):
        cuts(ball(1), ball(1), resolution=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        draw(tmp_path / "file" / "a.png")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_picture_alone() -> None:
    image = shaded(BALL, width=120, height=80)
    assert image.shape == (80, 120, 3)
    seen = (image < 250).any(axis=2)
    assert seen.any(axis=1)[4:-4].all() and seen.sum() == pytest.approx(np.pi / 4 * (80 * 0.92) ** 2, rel=0.03)
    assert shaded(None, width=50, height=30).shape == (30, 50, 3)
