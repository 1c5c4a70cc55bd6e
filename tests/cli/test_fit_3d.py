"""`neuralfield fit` of shapes and volumes, and `export` of what was fitted, from the outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import nibabel
import numpy as np
import pytest
import torch
import trimesh

import neuralfield as nf
from neuralfield.fitting.eikonal import gradient
from neuralfield.signals.analytic import SOLIDS
from tests.conftest import Ran

SMALL = ("encoding.n_levels=4", "encoding.max_resolution=32", "encoding.log2_hashmap_size=12", "network.width=16")
SHAPE = ("signal=shape", "signal.points=20000", "signal.test_points=4000", "mesh.resolution=32", *SMALL)
VOLUME = ("signal=volume", "signal.resolution=16", *SMALL)


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For speed."""
    monkeypatch.setattr("neuralfield.viz.shape_figure._PANEL", 120)
    monkeypatch.setattr("neuralfield.shape_results.SIDE", 100)


def numbers(folder: Path) -> dict:
    return json.loads((folder / "metrics.json").read_text())


def test_a_fitted_shape_leaves_its_surface_its_numbers_and_its_pictures(
    command: Callable[..., Ran], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = command("fit", *SHAPE, "signal.name=torus", "fit.steps=150", "fit.batch_size=2000", f"hydra.run.dir={out}")
    assert ran.code == 0, ran.err
    assert "near the surface" in ran.out
    found = numbers(out)
    assert found["iou_uniform"] > 0.9 and found["iou_surface"] > 0.6
    assert found["f_score"] > 0.9 and found["chamfer_l1"] < 0.01 and found["normal_consistency"] > 0.9
    assert found["best_iou"] >= found["iou_surface"] - 1e-6 and found["precision"] == "float32"
    mesh = trimesh.load(out / "mesh.ply")
    assert mesh.is_watertight and mesh.volume == pytest.approx(truth_volume(), rel=0.1)
    for name in ("comparison.png", "reconstruction.png", "truth.png", "training.png"):
        assert iio.imread(out / name).std() > 5, name
    assert not list(out.glob(".writing-*"))
    header = (out / "history.csv").read_text().splitlines()[0]
    assert header.endswith("iou_uniform,iou_surface")

    ran = command("export", str(out), "--resolution", "24", "-o", "m.stl")
    assert ran.code == 0 and trimesh.load("m.stl").is_watertight
    assert command("info", str(out)).out.startswith("signal")
    for wrong, words in (
        (("-o", "m.png"), "a mesh can be"),
        (("--level", "3"), "for volumes"),
        (("--resolution", "0"), "resolution"),
    ):
        ran = command("export", str(out), *wrong)
        assert ran.code == 2 and words in ran.err and "Traceback" not in ran.err
    ran = command("render", str(out))
    assert ran.code == 2 and "export" in ran.err
    again = command(
        "fit",
        *SHAPE,
        "signal.name=torus",
        "fit.steps=150",
        "fit.batch_size=2000",
        f"hydra.run.dir={out}",
        "fit.resume=true",
    )
    assert again.code == 0 and "complete already" in again.out


def truth_volume() -> float:
    return SOLIDS["torus"](0.05).mesh(64).volume


def test_a_mesh_comes_back_in_its_own_coordinates(command: Callable[..., Ran], tmp_path: Path) -> None:
    box = trimesh.creation.box(extents=(2.0, 1.0, 4.0))
    box.apply_translation((10.0, -5.0, 3.0))
    box.export(tmp_path / "box.obj")
    ran = command("fit", *SHAPE, "signal.path=box.obj", "fit.steps=150", "fit.batch_size=2000", "hydra.run.dir=out")
    assert ran.code == 0, ran.err
    mesh = trimesh.load(tmp_path / "out" / "mesh.ply")
    assert np.allclose(mesh.center_mass, (10, -5, 3), atol=0.1) and mesh.volume == pytest.approx(8, rel=0.1)


def test_a_signed_distance_with_the_eikonal_term_has_gradients_of_length_one(
    command: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = command(
        "fit", "signal=shape", "signal.name=sphere", "signal.kind=sdf", "signal.points=50000", "signal.test_points=4000",
        "mesh.resolution=32", "encoding=none", "network.width=48", "network.depth=2", "network.activation=sine",
        "network.activation_scale=5", "fit.eikonal=0.1", "fit.loss=l1", "fit.steps=600", "fit.batch_size=1000", "fit.lr=2e-3",
        "hydra.run.dir=out",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    found = numbers(tmp_path / "out")
    assert found["iou_uniform"] > 0.98 and found["distance_error"] < 0.01
    # Such a small network rounds the kink at the centre.
    assert found["gradient_norm"] == pytest.approx(1, abs=0.06)
    field = nf.load(tmp_path / "out" / "field.safetensors")
    assert gradient(field, torch.rand(4000, 3)).norm(dim=1).mean().item() == pytest.approx(1, abs=0.06)


def test_a_fitted_volume_comes_back_with_the_sources_header(command: Callable[..., Ran], tmp_path: Path) -> None:
    z, y, x = np.mgrid[0:14, 0:12, 0:11] / 14
    values = (np.sin(5 * x) * np.cos(4 * y) + z).astype(np.float32) * 300 - 50
    affine = np.array([[0, -2.0, 0, 7], [1.5, 0, 0, 8], [0, 0, 3.0, 9], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values.T, affine), tmp_path / "scan.nii.gz")
    ran = command(
        "fit", "signal=volume", "signal.path=scan.nii.gz", "signal.holdout=random:0.2", *SMALL, "fit.steps=300",
        "fit.batch_size=500", "hydra.run.dir=out",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    out, found = tmp_path / "out", numbers(tmp_path / "out")
    assert found["psnr"] > 25 and found["psnr_heldout"] > 20 and found["ssim"] is not None
    written = nibabel.load(out / "volume.nii.gz")
    assert np.allclose(written.affine, affine) and written.shape == (11, 12, 14)
    error = np.clip(written.get_fdata().T, values.min(), values.max()) - values
    psnr = 20 * np.log10((values.max() - values.min()) / np.sqrt((error**2).mean()))
    assert psnr == pytest.approx(found["psnr"], abs=0.01)
    for name in ("comparison.png", "reconstruction.png", "truth.png"):
        assert iio.imread(out / name).size, name

    assert command("export", str(out), "--scale", "2", "-o", "fine.nii").code == 0
    fine = nibabel.load("fine.nii")
    assert fine.shape == (22, 24, 28) and np.allclose(nibabel.affines.voxel_sizes(fine.affine), (0.75, 1, 1.5))
    # The centre of the grid stays where it was.
    middle = lambda image: image.affine @ [*((np.array(image.shape) - 1) / 2), 1]  # noqa: E731
    assert np.allclose(middle(fine), middle(written))
    assert command("export", str(out), "--level", "100", "--resolution", "24", "-o", "level.ply").code == 0
    ran = command("export", str(out), "-o", "level.ply")
    assert ran.code == 2 and "--level" in ran.err


def test_a_volume_too_large_to_reconstruct_by_the_way_is_measured_on_a_sample(
    command: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralfield.volume_results.LARGEST", 1000)
    ran = command("fit", *VOLUME, "signal.holdout=random:0.3", "fit.steps=20", "hydra.run.dir=v")
    assert ran.code == 0 and "neuralfield export" in ran.out
    found = numbers(tmp_path / "v")
    assert found["psnr"] is not None and found["psnr_heldout"] is not None and found["ssim"] is None
    assert not list((tmp_path / "v").glob("volume.*")) and iio.imread(tmp_path / "v" / "comparison.png").std() > 5


def test_an_analytic_volume_needs_no_file_and_a_sweep_compares_shapes(
    command: Callable[..., Ran], tmp_path: Path
) -> None:
    assert command("fit", *VOLUME, "signal.name=gaussians", "fit.steps=20", "hydra.run.dir=v").code == 0
    assert numbers(tmp_path / "v")["psnr"] is not None and (tmp_path / "v" / "volume.npy").is_file()
    ran = command(
        "fit", "-m", "signal=shape", "signal.name=sphere", "signal.points=5000", "signal.test_points=1000",
        "mesh.resolution=16", "fit.steps=10", "fit.batch_size=500", "network.width=16", "network.depth=1",
        "encoding=none,fourier", "hydra.sweep.dir=s",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "IoU near surface" in ran.out and (tmp_path / "s" / "summary.png").is_file()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def wrong_files(folder: Path) -> None:
    (folder / "empty.obj").write_text("")
    (folder / "points.obj").write_text("v 0 0 0\nv 1 0 0\n")
    (folder / "line.off").write_text("OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n")
    (folder / "nan.obj").write_text("v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    trimesh.creation.icosphere().export(folder / "ball.stl")
    (folder / "cut.stl").write_bytes((folder / "ball.stl").read_bytes()[:1000])
    nibabel.save(
        nibabel.Nifti1Image(np.random.default_rng(0).random((5, 6), np.float32), np.eye(4)), folder / "flat.nii"
    )
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), folder / "zero.nii")
    (folder / "v.raw").write_bytes(bytes(1000))
    np.save(
        folder / "holes.npy",
        np.where(np.arange(64).reshape(4, 4, 4) == 7, np.nan, 1.0 * np.arange(64).reshape(4, 4, 4)),
    )
    (folder / "cut.npy").write_bytes((folder / "holes.npy").read_bytes()[:200])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("signal=shape", "signal.path=empty.obj"), "empty"),
        (("signal=shape", "signal.path=points.obj"), "no"),
        (("signal=shape", "signal.path=line.off"), "area"),
        (("signal=shape", "signal.path=nan.obj"), "NaN"),
        (("signal=shape", "signal.path=cut.stl"), "cut.stl"),
        (("signal=shape", "signal.path=missing.ply"), "missing.ply"),
        (("signal=shape", "signal.name=gyriod"), "did you mean 'gyroid'"),
        (("signal=shape", "signal.kind=sdff"), "did you mean 'sdf'"),
        (("signal=shape", "signal.holdout=random:0.1"), "signal.holdout"),
        (("signal=shape", "signal.point=3"), "signal.points"),
        (("signal=shape", "fit.target_psnr=30"), "fit.target_iou"),
        (("signal=shape", "fit.eikonal=0.1"), "kind=sdf"),
        (("fit.loss=bce",), "occupancy"),
        (("signal=volume", "signal.path=flat.nii"), "flat.nii"),
        (("signal=volume", "signal.path=zero.nii"), "zero.nii"),
        (("signal=volume", "signal.path=v.raw", "signal.shape=[10,10,11]", "signal.dtype=uint8"), "1,100"),
        (("signal=volume", "signal.path=v.raw"), "signal.shape"),
        (("signal=volume", "signal.path=holes.npy"), "NaN"),
        (("signal=volume", "signal.path=cut.npy"), "cut.npy"),
        (("signal=volume", "signal.path=v.vdb"), "v.vdb"),
        (("signal=volumes",), "did you mean 'volume'"),
    ],
)
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    command: Callable[..., Ran], tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    wrong_files(tmp_path)
    before = files(tmp_path)
    small = ("signal.points=2000", "signal.test_points=500") if "signal=shape" in arguments else ()
    ran = command("fit", *arguments, *small, "fit.steps=2", "hydra.run.dir=out")
    assert ran.code == 2, ran.out + ran.err
    assert words in ran.err and "Traceback" not in ran.err and len(ran.err.splitlines()) <= 2, ran.err
    assert files(tmp_path) == before
