"""Every format against the library that wrote it."""

import nibabel
import numpy as np
import pytest
import tifffile

from neuralfield.errors import ConfigError, MissingDependency, SignalError
from neuralfield.signals.volume_files import read_volume

from .volume_files import AFFINE, DEPTH, HEIGHT, WIDTH, nifti, noise, nrrd_file

TYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8"]


def is_mapped(array):
    while array is not None:
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def same(raw, array):
    expected = array if array.ndim == 4 else array[..., None]
    return raw.array.shape == expected.shape and np.array_equal(raw.array, expected)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", TYPES)
def test_nifti(tmp_path, dtype, suffix):
    array = noise(dtype)
    raw = read_volume(nifti(tmp_path / f"v{suffix}", array))
    assert same(raw, array) and raw.array.dtype.newbyteorder("=") == np.dtype(dtype)
    assert raw.spacing == (2, 3, 0.5) and raw.unit == "mm" and np.array_equal(raw.affine, AFFINE)
    assert is_mapped(raw.array) == (suffix == ".nii")


def test_nifti_scaling_byte_order_version_and_pairs(tmp_path):
    array = noise("i2")
    raw = read_volume(nifti(tmp_path / "scaled.nii", array, slope=(0.25, -3)))
    image = nibabel.load(tmp_path / "scaled.nii")
    assert np.allclose(raw.array[..., 0] * raw.slope + raw.intercept, image.get_fdata().T, rtol=0, atol=1e-12)
    assert (raw.slope, raw.intercept) == (0.25, -3)
    big = read_volume(nifti(tmp_path / "big.nii", array.astype(">i2"), endianness=">"))
    assert big.array.dtype == np.dtype(">i2") and same(big, array)
    assert same(read_volume(nifti(tmp_path / "two.nii", array, kind=nibabel.Nifti2Image)), array)
    nifti(tmp_path / "pair.hdr", array, kind=nibabel.Nifti1Pair)
    for name in ("pair.hdr", "pair.img"):
        assert same(read_volume(tmp_path / name), array)
    (tmp_path / "pair.img").unlink()
    with pytest.raises(SignalError, match=r"pair\.img"):
        read_volume(tmp_path / "pair.hdr")


def test_the_name_does_not_matter_where_the_content_speaks(tmp_path):
    array = noise("f4")
    nifti(tmp_path / "v.nii.gz", array).rename(tmp_path / "scan.backup")
    assert same(read_volume(tmp_path / "scan.backup"), array)


def test_nifti_frames_vectors_and_colours(tmp_path):
    series = noise("i2", (9, DEPTH, HEIGHT, WIDTH))  # [t, z, y, x]
    path = nifti(tmp_path / "series.nii", series)
    with pytest.raises(SignalError, match=r"holds 9 volumes.*signal\.frame=0"):
        read_volume(path)
    assert same(read_volume(path, frame=4), series[4])
    assert same(read_volume(path, channels="first"), np.moveaxis(series, 0, -1))
    with pytest.raises(SignalError, match="from 0 to 8"):
        read_volume(path, frame=9)
    assert same(read_volume(nifti(tmp_path / "two.nii", series[:2])), np.moveaxis(series[:2], 0, -1))
    vectors = noise("f4", (3, 1, DEPTH, HEIGHT, WIDTH))
    assert same(read_volume(nifti(tmp_path / "vectors.nii", vectors)), np.moveaxis(vectors[:, 0], 0, -1))
    moving = noise("f4", (3, 4, DEPTH, HEIGHT, WIDTH))
    path = nifti(tmp_path / "moving.nii", moving)
    assert same(read_volume(path, frame=2), np.moveaxis(moving[:, 2], 0, -1))
    with pytest.raises(SignalError, match="series of 4 volumes with 3 components"):
        read_volume(path)
    colours = noise("u1", (DEPTH, HEIGHT, WIDTH, 3))
    rgb = colours.transpose(2, 1, 0, 3).copy().view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(rgb, AFFINE), tmp_path / "rgb.nii")
    assert same(read_volume(tmp_path / "rgb.nii"), colours)


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2", "ascii"])
@pytest.mark.parametrize("dtype", ["u1", "i2", ">u2", "f4", "f8"])
def test_nrrd(tmp_path, dtype, encoding):
    array = noise(dtype)
    header = {"encoding": encoding, "spacings": [0.5, 0.75, 2.0], "space units": ["mm", "mm", "mm"]}
    raw = read_volume(nrrd_file(tmp_path / "v.nrrd", array, **header))
    assert raw.array.shape == (*array.shape, 1) and np.allclose(raw.array[..., 0], array, rtol=1e-12)
    assert raw.spacing == (0.5, 0.75, 2.0) and raw.affine is None
    assert is_mapped(raw.array) == (encoding == "raw")


def test_nrrd_in_space(tmp_path):
    array = noise("i2")
    header = {
        "space": "left-posterior-superior",
        "space directions": np.diag([2.0, 3.0, 0.5]),
        "space origin": np.array([30.0, -12.5, 7.0]),
    }
    raw = read_volume(nrrd_file(tmp_path / "v.nrrd", array, **header))
    # left and back are minus right and front
    assert np.array_equal(raw.affine, np.diag([-1, -1, 1, 1]) @ np.array(
        [[2, 0, 0, 30], [0, 3, 0, -12.5], [0, 0, 0.5, 7], [0, 0, 0, 1.0]]))  # fmt: skip
    assert raw.spacing == (2, 3, 0.5)
    detached = nrrd_file(tmp_path / "v.nhdr", array, **header)
    assert same(read_volume(detached), array)
    (tmp_path / "v.raw.gz").unlink()
    with pytest.raises(SignalError, match=r"v\.raw\.gz, which does not exist"):
        read_volume(detached)


def test_nrrd_vectors(tmp_path):
    array = noise("f4", (DEPTH, HEIGHT, WIDTH, 6))
    header = {"kinds": ["vector", "domain", "domain", "domain"], "spacings": [np.nan, 1, 2, 3]}
    path = nrrd_file(tmp_path / "v.nrrd", array, **header)
    raw = read_volume(path, channels="last")
    assert same(raw, array) and raw.spacing == (1, 2, 3)
    assert same(read_volume(path, frame=5), array[..., 5])
    with pytest.raises(SignalError, match="holds 6 volumes"):
        read_volume(path)


@pytest.mark.parametrize("dtype", [*TYPES, "f2", ">f4", "?"])
def test_npy_and_npz(tmp_path, dtype):
    array = noise("u1") > 100 if dtype == "?" else noise(dtype)
    np.save(tmp_path / "v.npy", array)
    np.savez_compressed(tmp_path / "v.npz", scan=array)
    np.save(tmp_path / "f.npy", np.asfortranarray(array))
    for name in ("v.npy", "v.npz", "f.npy"):
        raw = read_volume(tmp_path / name)
        assert same(raw, array) and is_mapped(raw.array) == name.endswith(".npy")
        assert raw.spacing is None


def test_npz_with_several_arrays(tmp_path):
    a, b = noise("u1"), noise("f4", seed=1)
    np.savez(tmp_path / "v.npz", image=a, mask=b)
    assert same(read_volume(tmp_path / "v.npz", key="mask"), b)
    with pytest.raises(SignalError, match=r"image, mask; choose one with signal.key=image"):
        read_volume(tmp_path / "v.npz")
    with pytest.raises(SignalError, match="did you mean 'image'"):
        read_volume(tmp_path / "v.npz", key="imaeg")


def test_channels_of_plain_arrays(tmp_path):
    last, first = noise("u1", (5, 6, 7, 3)), noise("u1", (2, 5, 6, 7))
    many = noise("u1", (9, 5, 6, 7))
    for name, array in (("last", last), ("first", first), ("many", many)):
        np.save(tmp_path / f"{name}.npy", array)
    assert same(read_volume(tmp_path / "last.npy"), last)
    assert same(read_volume(tmp_path / "last.npy", channels="last", frame=2), last[..., 2])
    assert same(read_volume(tmp_path / "first.npy"), np.moveaxis(first, 0, -1))
    assert same(read_volume(tmp_path / "first.npy", channels="none", frame=1), first[1])
    assert same(read_volume(tmp_path / "many.npy", frame=7), many[7])
    assert same(read_volume(tmp_path / "many.npy", channels="last"), many)
    for options in ({}, {"channels": "none"}):
        with pytest.raises(SignalError, match=r"signal\.frame=0"):
            read_volume(tmp_path / "many.npy", **options)
    np.save(tmp_path / "plain.npy", noise())
    with pytest.raises(SignalError, match=r"signal\.channels=none"):
        read_volume(tmp_path / "plain.npy", channels="last")
    with pytest.raises(SignalError, match="no frame 3"):
        read_volume(tmp_path / "plain.npy", frame=3)
    assert same(read_volume(tmp_path / "plain.npy", frame=0), noise())
    with pytest.raises(ConfigError, match="did you mean 'first'"):
        read_volume(tmp_path / "plain.npy", channels="frist")


def test_raw(tmp_path):
    array = noise(">u2")
    (tmp_path / "v.raw").write_bytes(array.tobytes())
    raw = read_volume(tmp_path / "v.raw", shape=[DEPTH, HEIGHT, WIDTH], dtype=">u2")
    assert same(raw, array) and is_mapped(raw.array)
    (tmp_path / "unknown.vol").write_bytes(array.tobytes())
    assert same(read_volume(tmp_path / "unknown.vol", shape=[DEPTH, HEIGHT, WIDTH], dtype=">u2"), array)
    for options, words in (
        ({}, r"signal.shape=\[z,y,x\] and signal.dtype=uint8 must be given; it holds 420 bytes"),
        ({"shape": [5, 6, 7]}, "signal.dtype=uint8 must be given"),
        ({"shape": [5, 6, 7], "dtype": "u1"}, "make 210 bytes and the file holds 420; with signal.dtype=uint16"),
        ({"shape": [9, 6, 7], "dtype": "u2"}, r"make 756 bytes and the file holds 420; signal.shape=\[5, 6, 7\]"),
        ({"shape": [11, 13, 17], "dtype": "u1"}, "make 2,431 bytes and the file holds 420"),
    ):
        with pytest.raises(SignalError, match=words):
            read_volume(tmp_path / "v.raw", **options)
    for options in ({"shape": [5, 6], "dtype": "u1"}, {"shape": "5x6x7"}, {"shape": [5, 6, 7], "dtype": "unit8"},
                    {"shape": [5, 6, 7], "dtype": "c8"}, {"shape": [5, 6, -7], "dtype": "u1"}):  # fmt: skip
        with pytest.raises(ConfigError):
            read_volume(tmp_path / "v.raw", **options)


def test_raw_shapes_are_guessed_from_the_size_and_believed_from_the_name(tmp_path):
    (tmp_path / "v.raw").write_bytes(bytes(64**3 * 2))
    with pytest.raises(SignalError, match=r"\[64,64,64\] of uint16"):
        read_volume(tmp_path / "v.raw")
    array = noise("u2")
    (tmp_path / "skull_7x6x5_uint16.raw").write_bytes(array.tobytes())
    assert same(read_volume(tmp_path / "skull_7x6x5_uint16.raw"), array)
    (tmp_path / "skull_7x6x9_uint16.raw").write_bytes(array.tobytes())
    with pytest.raises(SignalError, match="must be given"):
        read_volume(tmp_path / "skull_7x6x9_uint16.raw")


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
def test_tiff(tmp_path, dtype, compression):
    array = noise(dtype)
    tifffile.imwrite(tmp_path / "v.tif", array, photometric="minisblack", compression=compression)
    raw = read_volume(tmp_path / "v.tif")
    assert same(raw, array) and is_mapped(raw.array) == (compression is None)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:  # one page after the other, as cameras do
        for plane in array:
            file.write(plane, photometric="minisblack", compression=compression, metadata=None)
    assert same(read_volume(tmp_path / "pages.tif"), array)


def test_tiff_of_microscopes(tmp_path):
    array = noise("u2", (DEPTH, 2, HEIGHT, WIDTH))
    meta = {"axes": "ZCYX", "spacing": 1.5, "unit": "um"}
    tifffile.imwrite(tmp_path / "imagej.tif", array, imagej=True, resolution=(4, 2), metadata=meta)
    raw = read_volume(tmp_path / "imagej.tif")
    assert same(raw, np.moveaxis(array, 1, -1)) and raw.spacing == (0.25, 0.5, 1.5) and raw.unit == "um"
    meta = {"axes": "CZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2, "PhysicalSizeZ": 0.3}
    first = np.moveaxis(array, 1, 0)
    tifffile.imwrite(tmp_path / "v.ome.tif", first, photometric="minisblack", metadata=meta)
    raw = read_volume(tmp_path / "v.ome.tif")
    assert same(raw, np.moveaxis(first, 0, -1)) and raw.spacing == (0.1, 0.2, 0.3) and raw.unit == "um"
    film = noise("u1", (3, DEPTH, HEIGHT, WIDTH))
    tifffile.imwrite(tmp_path / "film.tif", film, imagej=True, metadata={"axes": "TZYX"})
    assert same(read_volume(tmp_path / "film.tif", frame=2), film[2])
    with pytest.raises(SignalError, match="holds 3 volumes"):
        read_volume(tmp_path / "film.tif")
    tifffile.imwrite(tmp_path / "picture.tif", noise("u1", (20, 30)), photometric="minisblack")
    with pytest.raises(SignalError, match="signal=image"):
        read_volume(tmp_path / "picture.tif")


@pytest.mark.parametrize("version", [2, 3])
def test_zarr(tmp_path, version):
    zarr = pytest.importorskip("zarr")
    array = noise("i2", (10, 6, 7))
    stored = zarr.create_array(
        str(tmp_path / "v.zarr"), shape=array.shape, dtype="i2", chunks=(4, 4, 4), zarr_format=version
    )
    stored[:] = array
    assert same(read_volume(tmp_path / "v.zarr"), array)
    group = zarr.create_group(str(tmp_path / "g.zarr"), zarr_format=version)
    five = noise("u2", (3, 2, 10, 6, 7))
    for name in ("0", "1"):
        group.create_array(name, shape=five.shape, dtype="u2")[:] = five
    with pytest.raises(SignalError, match=r"2 arrays: 0, 1; choose one with signal\.key=0"):
        read_volume(tmp_path / "g.zarr")
    assert same(read_volume(tmp_path / "g.zarr", key="1", frame=2), np.moveaxis(five[2], 0, -1))
    axes = [{"name": name, "unit": "micrometer"} for name in "tczyx"]
    scale = [{"type": "scale", "scale": [1, 1, 0.5, 0.2, 0.1]}]
    multiscales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs.update({"multiscales": multiscales} if version == 2 else {"ome": {"multiscales": multiscales}})
    raw = read_volume(tmp_path / "g.zarr", frame=1)
    assert same(raw, np.moveaxis(five[1], 0, -1)) and raw.spacing == (0.1, 0.2, 0.5) and raw.unit == "um"
    with pytest.raises(SignalError, match="holds 3 volumes"):
        read_volume(tmp_path / "g.zarr")


def test_zarr_is_an_extra(tmp_path, monkeypatch):
    (tmp_path / "v.zarr").mkdir()
    (tmp_path / "v.zarr" / "zarr.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "zarr", None)
    with pytest.raises(MissingDependency, match=r'pip install "neuralfield\[zarr\]"'):
        read_volume(tmp_path / "v.zarr")


@pytest.mark.parametrize("name", ["v.nii.gz", "v.npz", "v.nrrd"])
def test_what_is_too_large_for_memory_is_unpacked_into_a_file(tmp_path, name):
    array = noise("i2")
    if name == "v.npz":
        np.savez_compressed(tmp_path / name, array)
    else:
        nifti(tmp_path / name, array) if "nii" in name else nrrd_file(tmp_path / name, array)
    raw = read_volume(tmp_path / name, unpack_budget=100)
    assert same(raw, array) and is_mapped(raw.array)
    assert not is_mapped(read_volume(tmp_path / name).array)
