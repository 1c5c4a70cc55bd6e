"""Small volume files of every format, written by each format's own library, for the tests of reading."""

import io

import nibabel
import nrrd
import numpy as np
import tifffile

DEPTH, HEIGHT, WIDTH = 5, 6, 7
AFFINE = np.array([[2.0, 0, 0, -30], [0, 3.0, 0, 12.5], [0, 0, 0.5, 7], [0, 0, 0, 1]])


def noise(dtype="u1", shape=(DEPTH, HEIGHT, WIDTH), seed=0):
    """Random numbers over most of the range of a type, `[z, y, x]`."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, dtype=dtype.newbyteorder("="), endpoint=True).astype(dtype)


def nifti(path, array, affine=AFFINE, slope=None, kind=nibabel.Nifti1Image, endianness=None):
    """Write `[..., z, y, x]` with nibabel; its own axes are the other way round."""
    header = None if endianness is None else nibabel.Nifti1Header(endianness=endianness)
    image = kind(np.ascontiguousarray(array).T, affine, header, dtype=array.dtype.newbyteorder("="))
    image.header.set_xyzt_units("mm")
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return path


def nifti_bytes(array, **options):
    """The bytes of a NIfTI-1 file."""
    return nibabel.Nifti1Image(np.ascontiguousarray(array).T, AFFINE, **options).to_bytes()


def nrrd_file(path, array, **header):
    """Write `[z, y, x]` with pynrrd."""
    nrrd.write(str(path), array, header or None, index_order="C")
    return path


def npy_bytes(array):
    """The bytes of a .npy file."""
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def tiff_bytes(array, **options):
    """The bytes of a TIFF stack."""
    out = io.BytesIO()
    tifffile.imwrite(out, array, photometric="minisblack", **options)
    return out.getvalue()
