"""Volumes that are written against the libraries that read them."""

import errno
import os

import nibabel
import nrrd
import numpy as np
import pytest
import tifffile

from neuralfield.errors import OutputError
from neuralfield.signals.volume import load_volume
from neuralfield.signals.volume_files import read_volume
from neuralfield.volume_export import SUFFIXES, write_volume

AFFINE = np.array([[1.5, 0.25, 0, -30], [0, 3.0, 0.5, 12.5], [0.125, 0, 0.5, 7], [0, 0, 0, 1]])
SHAPE = (9, 6, 7)


def values(channels=1):
    return np.random.default_rng(0).normal(size=(*SHAPE, channels)).astype(np.float32)


def slabs(array, thickness=2):
    return (array[k : k + thickness] for k in range(0, len(array), thickness))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trips(tmp_path, suffix, channels):
    array, fractions = values(channels), []
    path = tmp_path / f"v{suffix}"
    write_volume(path, slabs(array), array.shape, spacing=(0.5, 0.25, 2), unit="mm", on_progress=fractions.append)
    raw = read_volume(path)
    assert np.array_equal(raw.array, array) and raw.array.dtype == np.float32
    if suffix != ".npy":
        assert raw.spacing == (0.5, 0.25, 2) and raw.unit == "mm"
    assert fractions[-1] == 1.0 and fractions == sorted(fractions)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("channels", [1, 2])
def test_nibabel_reads_it(tmp_path, name, channels):
    array = values(channels)
    write_volume(tmp_path / name, slabs(array), array.shape, affine=AFFINE, unit="mm")
    image = nibabel.load(tmp_path / name)
    expected = array[..., 0].transpose(2, 1, 0) if channels == 1 else array.transpose(2, 1, 0, 3)
    assert np.array_equal(image.get_fdata(dtype=np.float32), expected)
    assert np.array_equal(image.affine, AFFINE) and image.header.get_xyzt_units()[0] == "mm"
    assert np.allclose(image.header.get_zooms()[:3], np.linalg.norm(AFFINE[:3, :3], axis=0))


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image, nibabel.Nifti1Pair])
@pytest.mark.parametrize("endianness", ["<", ">"])
def test_the_header_of_a_source_is_kept(tmp_path, kind, endianness):
    rng = np.random.default_rng(0)
    data = rng.integers(-3000, 3000, SHAPE[::-1]).astype(np.int16)
    image = kind(data, AFFINE, kind.header_class(endianness=endianness))
    image.header.set_xyzt_units("micron", "sec")
    image.header["descrip"] = b"knee, T1"
    image.header["cal_max"] = 4711
    image.set_sform(AFFINE, code=4)
    image.set_qform(np.diag([2.0, 3, 4, 1]), code=1)
    image.header.set_slope_inter(0.5, 10)
    source = tmp_path / ("v.hdr" if kind is nibabel.Nifti1Pair else "v.nii")
    nibabel.save(image, source)
    signal = load_volume(source)
    array = values()
    write_volume(tmp_path / "out.nii.gz", slabs(array), array.shape, like=signal.header, affine=signal.affine,
                 spacing=signal.spacing)  # fmt: skip
    found = nibabel.load(tmp_path / "out.nii.gz")
    assert np.array_equal(found.get_fdata(dtype=np.float32), array[..., 0].transpose(2, 1, 0))
    assert np.array_equal(found.affine, nibabel.load(source).affine) and np.array_equal(found.affine, AFFINE)
    header = found.header
    assert header.get_xyzt_units() == ("micron", "sec") and bytes(header["descrip"]).startswith(b"knee, T1")
    assert header["cal_max"] == 4711 and (int(header["sform_code"]), int(header["qform_code"])) == (4, 1)
    assert np.allclose(found.get_qform(), np.diag([2.0, 3, 4, 1]))
    assert header.get_data_dtype().newbyteorder("=") == np.float32 and found.dataobj.slope == 1
    assert isinstance(header, nibabel.Nifti2Header) == (kind is nibabel.Nifti2Image)


def test_a_crop_lies_where_it_was(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (12, 11, 10)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), tmp_path / "v.nii")
    signal = load_volume(tmp_path / "v.nii", crop=[1, 2, 3, 6, 6, 6], downsample=2)
    blocks = (signal.restore(signal.slab(k, k + 1)) for k in range(signal.depth))
    write_volume(tmp_path / "out.nii", blocks, (*signal.shape, 1), like=signal.header, affine=signal.affine,
                 spacing=signal.spacing)  # fmt: skip
    found = nibabel.load(tmp_path / "out.nii")
    means = data[1:7, 2:8, 3:9].astype(float).reshape(3, 2, 3, 2, 3, 2).mean((1, 3, 5))
    assert np.allclose(found.get_fdata(), means, atol=1e-4)
    # voxel (0, 0, 0) is the middle between the voxels (1, 2, 3) and (2, 3, 4)
    assert np.allclose(found.affine @ [0, 0, 0, 1], AFFINE @ [1.5, 2.5, 3.5, 1], atol=1e-5)
    assert np.allclose(found.affine[:3, :3], 2 * AFFINE[:3, :3])
    assert int(found.header["sform_code"]) == int(nibabel.load(tmp_path / "v.nii").header["sform_code"])


@pytest.mark.parametrize("channels", [1, 3])
def test_pynrrd_reads_it_and_its_space_is_kept(tmp_path, channels):
    array = values(channels)
    fields = {"space": "left-posterior-superior", "space directions": AFFINE[:3, :3].T, "space origin": AFFINE[:3, 3],
              "space units": ["mm", "mm", "mm"], "content": "knee"}  # fmt: skip
    nrrd.write(str(tmp_path / "v.nrrd"), (values()[..., 0] * 99).astype(np.int16), fields, index_order="C")
    signal = load_volume(tmp_path / "v.nrrd")
    assert signal.unit == "mm"
    write_volume(tmp_path / "out.nrrd", slabs(array), array.shape, like=signal.header, affine=signal.affine)
    data, header = nrrd.read(str(tmp_path / "out.nrrd"), index_order="C")
    assert np.array_equal(data, array if channels > 1 else array[..., 0])
    directions = header["space directions"][1:] if channels > 1 else header["space directions"]
    assert np.array_equal(np.stack(directions), fields["space directions"])
    assert np.array_equal(header["space origin"], fields["space origin"])
    assert header["space"] == "left-posterior-superior" and header["content"] == "knee"
    # and as NIfTI: the same place, in the axes of that format
    write_volume(tmp_path / "out.nii", slabs(array), array.shape, like=signal.header, affine=signal.affine)
    assert np.allclose(nibabel.load(tmp_path / "out.nii").affine, np.diag([-1, -1, 1, 1]) @ AFFINE)


def test_tifffile_and_numpy_read_it(tmp_path):
    array = values(2)
    write_volume(tmp_path / "v.tiff", slabs(array), array.shape)
    assert np.array_equal(tifffile.imread(tmp_path / "v.tiff"), np.moveaxis(array, -1, 1))
    write_volume(tmp_path / "v.npy", slabs(array), array.shape)
    assert np.array_equal(np.load(tmp_path / "v.npy"), array)
    write_volume(tmp_path / "one.npy", slabs(array[..., :1]), (*SHAPE, 1))
    assert np.array_equal(np.load(tmp_path / "one.npy"), array[..., 0])


def test_equal_volumes_make_equal_files(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, slabs(values()), (*SHAPE, 1))
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_half_written(tmp_path, suffix):
    array, path = values(), tmp_path / f"v{suffix}"
    path.write_bytes(b"before")

    def full():
        yield array[:4]
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for blocks, words in (
        (slabs(array[:8]), "8 of 9 slices"),
        (slabs(np.concatenate([array, array])), "does not belong"),
        (iter([array[:, :5]]), "does not belong"),
        (full(), "disk full"),
    ):
        with pytest.raises(OutputError, match=words):
            write_volume(path, blocks, array.shape)
        assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_one_slab_at_a_time(tmp_path):
    import tracemalloc

    shape = (64, 128, 128, 1)

    def blocks():
        for k in range(64):
            yield np.full((1, *shape[1:]), k, np.float32)

    for suffix in SUFFIXES:
        tracemalloc.start()
        write_volume(tmp_path / f"v{suffix}", blocks(), shape)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2e6, suffix  # the volume takes 4.2 MB, a slab 65 kB


def test_unknown_suffix(tmp_path):
    with pytest.raises(OutputError, match=r"did you mean '\.nii'"):
        write_volume(tmp_path / "v.nni", slabs(values()), (*SHAPE, 1))
