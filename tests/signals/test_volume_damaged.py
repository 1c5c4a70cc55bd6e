"""Every kind of bad volume file against the one error that may come out."""

import gzip
import re
import struct

import nibabel
import numpy as np
import pytest

from neuralfield.errors import SignalError
from neuralfield.signals.volume import load_volume
from neuralfield.signals.volume_files import read_volume

from .volume_files import AFFINE, nifti, nifti_bytes, noise, npy_bytes, nrrd_file, tiff_bytes


def whole_files(folder):
    array = noise("i2", (5, 16, 17))
    np.savez_compressed(folder / "v.npz", array)
    for encoding in ("raw", "gzip", "bzip2", "ascii"):
        nrrd_file(folder / f"{encoding}.nrrd", array, encoding=encoding, spacings=[1.0, 2.0, 3.0])
    plain = nifti_bytes(array)
    files = {
        "v.nii": plain,
        "v.nii.gz": gzip.compress(plain, mtime=0),
        "v.npy": npy_bytes(array),
        "plain.tif": tiff_bytes(array),
        "zlib.tif": tiff_bytes(array, compression="zlib"),
        "tiles.tif": tiff_bytes(array, tile=(16, 16)),
        "imagej.tif": tiff_bytes(array, imagej=True),
        "v.ome.tif": tiff_bytes(array, ome=True),
    }
    for path in folder.iterdir():
        files[path.name] = path.read_bytes()
    return files, array


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_files(tmp_path_factory.mktemp("whole"))


NAMES = ["v.nii", "v.nii.gz", "v.npy", "v.npz", "raw.nrrd", "gzip.nrrd", "bzip2.nrrd", "ascii.nrrd", "plain.tif",
         "zlib.tif", "tiles.tif", "imagej.tif", "v.ome.tif"]  # fmt: skip


def refused_or_read(path):
    """Whatever is in the file: an array, or one sentence; nothing else is raised and nothing warned about."""
    try:
        read_volume(path)
    except SignalError as error:
        assert str(path) in str(error) or "header promises" in str(error)
        assert "\n" not in str(error) and len(str(error)) < 700
        return str(error)
    return None


@pytest.mark.parametrize("name", NAMES)
def test_files_that_were_cut_short(whole, tmp_path, name):
    files, array = whole
    data, path = files[name], tmp_path / name
    path.write_bytes(data)
    assert np.array_equal(read_volume(path).array[..., 0], array)
    whole_at = len(data)
    # a trailer (checksum, central directory, tables behind the pixels) may go missing without a loss of voxels
    for length in [0, 1, 2, 3, 7, 9, 30, 100, 347, 348, 351, 352, 400, *np.linspace(500, whole_at - 1, 12, dtype=int)]:
        path.write_bytes(data[: min(int(length), whole_at - 1)])
        if refused_or_read(path) is None:
            assert np.array_equal(read_volume(path).array[..., 0], array), length
    path.write_bytes(data[: whole_at // 2])
    assert refused_or_read(path)


@pytest.mark.parametrize("name", NAMES)
def test_flipped_bytes(whole, tmp_path, name):
    files, _ = whole
    data = files[name]
    rng = np.random.default_rng(0)
    # headers first, which are at the beginning, of TIFF also at the end
    places = [*range(0, 360, 7), *rng.integers(0, len(data), 30)]
    if name.endswith("tif"):
        places += [*range(len(data) - 300, len(data), 9)]
    for place in places:
        damaged = bytearray(data)
        damaged[min(int(place), len(data) - 1)] ^= int(rng.integers(1, 256))
        path = tmp_path / name
        path.write_bytes(damaged)
        refused_or_read(path)


def test_headers_that_claim_terabytes(tmp_path):
    def refused(path, words):
        with pytest.raises(SignalError, match=words):
            read_volume(path)

    header = nibabel.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    header.set_data_dtype(np.float64)
    head = header.binaryblock + bytes(400)
    (tmp_path / "v.nii").write_bytes(head)
    refused(tmp_path / "v.nii", "cut short: its header promises 216,000,000,000,000 bytes")
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress(head, mtime=0))
    refused(tmp_path / "v.nii.gz", "needs 216,000,000,000,000 bytes in .* are free")
    (tmp_path / "v.nrrd").write_bytes(
        b"NRRD0004\ntype: double\ndimension: 3\nsizes: 300000 300000 300000\nencoding: gzip\nendian: little\n\n"
        + bytes(99)
    )
    refused(tmp_path / "v.nrrd", "needs 216,000,000,000,000,000 bytes")
    shape = b"(99999, 99999, 99999), }"
    array = npy_bytes(noise("u1")).replace(b"(5, 6, 7), }" + b" " * (len(shape) - 12), shape, 1)
    (tmp_path / "v.npy").write_bytes(array)
    refused(tmp_path / "v.npy", "cut short: its header promises 999,970,000,299,999 bytes")


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (b" BDV\0\0\0\0" + bytes(50), "smoke.vdb", r"OpenVDB.*no reader of it on PyPI.*np\.save"),
        (bytes(50), "smoke.vdb", "named like an OpenVDB file"),
        (bytes(128) + b"DICM" + bytes(50), "scan.dcm", "DICOM file.*dcm2niix"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "v.h5", "HDF5"),
        (b"ObjectType = Image\n", "v.mha", "MetaImage"),
        (gzip.compress(b"hello" * 100, mtime=0), "v.gz", "gzip file without a NIfTI"),
        (bytes(range(1, 100)), "v.nrdd", r"did you mean '\.nrrd'\?.*expected NIfTI"),
        (b"text", "readme", "not a volume that can be read here"),
        (b"", "v.nii", "empty file"),
        (bytes(400), "v.nii", "cannot be read|damaged|empty|cut short"),
        (npy_bytes(np.array([[[None] * 2] * 2] * 2)), "v.npy", "Python objects"),
        (npy_bytes(np.zeros((3, 4, 5), complex)), "v.npy", "complex numbers"),
        (npy_bytes(np.zeros((3, 4, 5), "U3")), "v.npy", "holds <U3 values"),
        (npy_bytes(np.zeros((4, 5))), "v.npy", "2-dimensional.*signal=image"),
        (npy_bytes(np.zeros((2, 2, 2, 2, 3))), "v.npy", "has 5 axes"),
        (npy_bytes(np.zeros((3, 0, 5))), "v.npy", "is empty"),
        (npy_bytes(np.zeros((1, 4, 5))), "v.npy", "5 x 4 x 1 voxels, which is not a volume"),
        (b"NRRD0004\ntype: float\n\n", "v.nrrd", "without the field 'sizes:'"),
        (b"NRRD0004\ntype: block\ndimension: 3\nsizes: 2 2 2\nencoding: raw\n\n", "v.nrrd", "type 'block'"),
        (b"NRRD0004\ntype: float\ndimension: 3\nsizes: 2 2 2\nencoding: hex\n\n", "v.nrrd", "encoding 'hex'"),
    ],
)  # fmt: skip
def test_what_is_no_volume(tmp_path, data, name, words):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SignalError, match=words):
        read_volume(tmp_path / name)


def test_paths(tmp_path):
    (tmp_path / "brain.nii").write_bytes(nifti_bytes(noise("u1")))
    (tmp_path / "slices").mkdir()
    for path, words in (
        (tmp_path / "brian.nii", "does not exist; did you mean 'brain.nii'"),
        (tmp_path / "nowhere" / "v.nii", "there is no folder"),
        (tmp_path / "slices", "is a folder and not a Zarr array.*empty"),
        (tmp_path, "is a folder and not a Zarr array.*it holds brain.nii, slices"),
        (tmp_path / "a\0b", "not a file name"),
    ):
        with pytest.raises(SignalError, match=words):
            read_volume(path)


def test_nifti_that_is_no_volume(tmp_path):
    for shape in ((8, 9), (1, 8, 9)):
        path = tmp_path / "flat.nii"
        nibabel.save(nibabel.Nifti1Image(noise("u1", shape).T, AFFINE), path)
        with pytest.raises(SignalError, match="signal=image"):
            read_volume(path)
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.complex64), AFFINE), tmp_path / "complex.nii")
    with pytest.raises(SignalError, match="complex numbers"):
        read_volume(tmp_path / "complex.nii")


def test_a_damaged_spacing_can_be_given(tmp_path):
    path = nifti(tmp_path / "v.nii", noise("u1"))
    data = bytearray(path.read_bytes())
    struct.pack_into("<f", data, 76 + 4 * 2, float("nan"))  # pixdim[2]
    path.write_bytes(data)
    with pytest.raises(SignalError, match=r"spacing of the voxels, \[2\.0, nan, 0\.5\].*signal\.spacing="):
        load_volume(path)
    assert load_volume(path, spacing=[1, 2, 3]).spacing == (1, 2, 3)


def test_damaged_zarr(tmp_path):
    zarr = pytest.importorskip("zarr")
    array = zarr.create_array(str(tmp_path / "v.zarr"), shape=(6, 6, 6), dtype="f4", chunks=(3, 3, 3))
    array[:] = noise("f4", (6, 6, 6))
    rng = np.random.default_rng(0)
    for path in [p for p in (tmp_path / "v.zarr").rglob("*") if p.is_file()]:
        data = path.read_bytes()
        for cut in (0, 1, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:cut])
            refused_or_read(tmp_path / "v.zarr")
        for place in rng.integers(0, len(data), 25):
            damaged = bytearray(data)
            damaged[place] ^= 0xFF
            path.write_bytes(damaged)
            refused_or_read(tmp_path / "v.zarr")
        path.write_bytes(data)
    (tmp_path / "v.zarr" / "zarr.json").write_text("no json")
    assert re.search("cannot be read as a volume", refused_or_read(tmp_path / "v.zarr") or "")
