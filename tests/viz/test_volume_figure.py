"""The figure of a volume's fit: planes and projections as defined, proportions, every case a valid picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralfield.errors import ConfigError, OutputError, SignalError
from neuralfield.viz.volume_figure import _sizes, display, middle_planes, projection, volume_comparison
from tests.viz.pictures import amount, holds, pixels

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pages, for speed."""
    monkeypatch.setattr("neuralfield.viz.volume_figure._WIDEST", 900)
    monkeypatch.setattr("neuralfield.viz.volume_figure._TALLEST", 900)


def blocks(shape: tuple[int, ...], channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).random((*shape, channels)).astype(np.float32)


def draw(path: Path, truth: np.ndarray, fit: np.ndarray | None = None, **options: Any) -> np.ndarray:
    settings = {"spacing": (1.0, 1.0, 1.0), "title": "t", "captions": {}} | options
    fit = truth if fit is None else fit
    volume_comparison(middle_planes(truth), middle_planes(fit), path=path, **settings)
    return pixels(path)


def test_planes_and_projections(tmp_path: Path) -> None:
    volume = blocks((5, 6, 8), 2)
    np.save(tmp_path / "v.npy", volume)
    for source in (volume, np.load(tmp_path / "v.npy", mmap_mode="r")):
        axial, coronal, sagittal = middle_planes(source)
        assert np.array_equal(axial, volume[2])
        assert np.array_equal(coronal, volume[:, 3]) and np.array_equal(sagittal, volume[:, :, 4])
    for axis, k in (("z", 0), ("y", 1), ("x", 2)):
        slabs = (volume[a:b] for a, b in ((0, 1), (1, 1), (1, 4), (4, 5)))
        assert np.array_equal(projection(slabs, axis), volume.max(axis=k))
    volume[2, 3, 4] = np.nan
    assert np.isfinite(projection([volume], "x")).all()
    with pytest.raises(SignalError, match="nothing to project"):
        projection([])
    with pytest.raises(ConfigError, match="axis must be one of x, y, z"):
        projection([volume], "t")
    with pytest.raises(SignalError, match=r"got one of shape \[5, 6\]"):
        middle_planes(np.zeros((5, 6)))


def test_pictures_stand_upright_at_their_places(tmp_path: Path) -> None:
    volume = np.full((10, 10, 10, 3), 0.5, np.float32)
    volume[:, :3], volume[7:, 3:], volume[:7, 3:, :3] = (1, 0, 0), (0, 1, 0), (0, 0, 1)  # low y, high z, low x
    image = draw(tmp_path / "a.png", volume)
    red, green, blue = ((image == colour).all(axis=2) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    rows = np.flatnonzero(image[:, :, 0].std(axis=1) > 60)
    third = [rows.min(), (2 * rows.min() + rows.max()) // 3, (rows.min() + 2 * rows.max()) // 3, rows.max()]
    for part, (low, high), above in ((0, (red, blue), True), (1, (blue, green), True), (2, (red, green), None)):
        band = slice(third[part], third[part + 1])
        one, other = np.argwhere(low[band]).mean(axis=0), np.argwhere(high[band]).mean(axis=0)
        if above:  # the second stands above the first
            assert other[0] < one[0] - 20
        else:  # sagittal: low y at the left, all of it
            left = np.argwhere(red[band])[:, 1].min()
            assert left <= np.argwhere(green[band])[:, 1].min()


def test_proportions_follow_the_spacing(tmp_path: Path) -> None:
    # 4 slices 5 mm apart of 20 x 10 voxels of 1 mm: 20 x 10 x 20 mm.
    white = np.ones((4, 10, 20, 1), np.float32)
    image = draw(tmp_path / "a.png", white * np.float32(0.2), spacing=(1.0, 1.0, 5.0))
    grey = (image == 51).all(axis=2)
    width = [grey[row].sum() / 2 for row in np.flatnonzero(grey.sum(axis=1) > 100)]  # truth and fit
    assert np.unique(np.round(width, -1)).size == 2  # axial and coronal are 20 wide, sagittal 10
    assert max(width) == pytest.approx(2 * min(width), rel=0.01)
    assert len(width) == pytest.approx(max(width) * (0.5 + 1 + 1), rel=0.01)
    assert _sizes([(20, 10), (20, 20), (10, 20)])[0][0] == pytest.approx(max(width), rel=0.01)


def test_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    rng = np.random.default_rng(0)
    for _ in range(200):
        x, y, z = 10 ** rng.uniform(-3, 3, 3)
        sizes = _sizes([(x, y), (x, z), (y, z), (x, z)])
        assert min(min(size) for size in sizes) >= 40 - 1e-9
        assert max(w for w, _ in sizes) < 556 and sum(h for _, h in sizes) < 1420


CASES: dict[str, tuple[tuple[int, ...], int, tuple[float, float, float]]] = {
    "one voxel": ((1, 1, 1), 1, (1, 1, 1)),
    "cube": ((12, 12, 12), 1, (1, 1, 1)),
    "slices": ((3, 40, 40), 1, (0.5, 0.5, 8.0)),
    "needle": ((1, 1, 300), 1, (1, 1, 1)),
    "tower": ((300, 2, 2), 3, (1, 1, 1)),
    "two channels": ((8, 9, 10), 2, (1, 1, 1)),
    "four channels": ((8, 9, 10), 4, (2, 1, 1)),
    "microns": ((8, 9, 10), 1, (1e-6, 1e-6, 3e-6)),
}


@pytest.mark.parametrize("case", CASES)
def test_every_case(case: str, tmp_path: Path) -> None:
    shape, channels, spacing = CASES[case]
    truth = blocks(shape, channels)
    fit = np.clip(truth + np.float32(0.1), 0, 2)
    projections = [projection([v]) for v in (truth, fit, np.abs(fit - truth))]
    options: dict[str, Any] = {"spacing": tuple(float(s) for s in spacing), "captions": {"psnr": 20.0}}
    options["title"] = "cost $5 \\frac{1}{ 写真\n" + "long " * 60
    for given in (None, projections) if case == "cube" else (projections[:2],):
        image = draw(tmp_path / "a.png", truth, fit, projections=given, places=["z = 3"] * 3, **options)
        assert max(image.shape[:2]) <= 960 and image.shape[1] >= 900
        assert (image[-10:] == 255).all() and (image[:, -6:] == 255).all()
    if case != "cube":
        return
    draw(tmp_path / "b.png", truth, fit, projections=projections, places=["z = 3"] * 3, **options)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_errors_are_drawn(tmp_path: Path) -> None:
    truth = np.zeros((6, 6, 6, 2), np.float32)
    fit = truth.copy()
    same = draw(tmp_path / "a.png", truth, fit)
    assert holds(same, "#000004") and not holds(same, "#00ffff")
    fit[..., 1] = 0.2  # the mean over the channels is 0.1, a limit of the scale: the brightest colour
    image = draw(tmp_path / "b.png", truth, fit)
    assert (np.abs(image.astype(int) - [252, 255, 164]).max(axis=2) <= 1).sum() > 10_000
    fit[3, 3, 3] = np.nan
    assert amount(draw(tmp_path / "c.png", truth, fit), "#00ffff") > 300
    for bad in (np.nan, np.inf):
        draw(tmp_path / "d.png", truth, np.full_like(truth, bad))


def test_pixels_of_a_plane() -> None:
    plane = np.array([[[0.0], [0.5]], [[2.0], [np.nan]]])
    expected = [[[0] * 3, [128] * 3], [[255] * 3, [0, 255, 255]]]
    assert display(plane).tolist() == expected
    assert display(np.concatenate([plane, 0 * plane], axis=2)).tolist() == expected  # the first of two
    assert display(np.float32([[[0.2, 1.0, -3.0]]])).tolist() == [[[51, 255, 0]]]


def test_bad_input(tmp_path: Path) -> None:
    volume, path = blocks((4, 5, 6)), tmp_path / "a.png"
    planes = middle_planes(volume)
    options: dict[str, Any] = {"spacing": (1.0, 1.0, 1.0), "title": "", "captions": {}, "path": path}
    with pytest.raises(SignalError, match="three planes of equal shapes"):
        volume_comparison(planes, planes[:2], **options)
    with pytest.raises(SignalError, match=r"are \[y, x\], \[z, x\] and \[z, y\]"):
        volume_comparison(planes[::-1], planes[::-1], **options)
    with pytest.raises(SignalError, match="two or three pictures"):
        volume_comparison(planes, planes, projections=[planes[0]], **options)
    with pytest.raises(ConfigError, match="spacing along y must be"):
        volume_comparison(planes, planes, **options | {"spacing": (1.0, 0.0, 1.0)})
    with pytest.raises(ConfigError, match="projected_along must be one of"):
        volume_comparison(planes, planes, projections=[planes[1]] * 2, projected_along="t", **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        volume_comparison(planes, planes, **options | {"path": tmp_path / "file" / "a.png"})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_colour_bar_is_that_of_the_errors_whatever_is_drawn_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = []
    monkeypatch.setattr("neuralfield.viz.volume_figure._bar", lambda page, shown, *_: limits.append(shown.get_clim()))
    truth = [np.full((8, 8, 1), 0.5)] * 3
    fit = [plane + 0.04 for plane in truth]
    for projections in (None, [truth[0], fit[0]], [truth[0], fit[0], fit[0] - truth[0]]):
        volume_comparison(
            truth, fit, spacing=(1, 1, 1), title="t", captions={}, path=tmp_path / "a.png", projections=projections
        )
    assert limits == [(0.0, 0.05)] * 3
