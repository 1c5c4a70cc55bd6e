import json
import math

import nibabel
import numpy as np
import pytest
import torch

from neuralfield.errors import ConfigError, SignalError
from neuralfield.signals import load
from neuralfield.signals.importance import ImportanceBatches
from neuralfield.signals.sampling import StratifiedBatches
from neuralfield.signals.volume import VolumeSignal, load_volume

from .volume_files import AFFINE, nifti, noise

D, H, W = 5, 6, 7


def by_hand(signal):
    """Coordinates of every voxel by the definition, one after the other, in float64."""
    sx, sy, sz = signal.spacing
    sides = np.array([signal.width * sx, signal.height * sy, signal.depth * sz])
    corner = (1 - sides / sides.max()) / 2
    return np.array(
        [
            corner + np.array([(i + 0.5) * sx, (j + 0.5) * sy, (k + 0.5) * sz]) / sides.max()
            for k in range(signal.depth)
            for j in range(signal.height)
            for i in range(signal.width)
        ]
    )


@pytest.mark.parametrize("spacing", [(1, 1, 1), (0.5, 0.5, 3.0), (2.75, 1.0, 0.1)])
def test_coordinates_honour_the_spacing(spacing):
    signal = VolumeSignal.from_array(noise(), spacing)
    index = torch.arange(signal.n_samples)
    found = signal.coordinates(index)
    assert found.dtype == torch.float32
    expected = by_hand(signal)
    assert np.abs(found.numpy() - expected).max() < 2e-7
    k, j, i = np.unravel_index(index.numpy(), signal.shape)
    world = (np.stack([i, j, k], -1) + 0.5) * np.array(signal.spacing)
    assert np.abs(signal.placement.to_cube(world) - expected).max() < 1e-12
    assert found.min() > 0 and found.max() < 1
    longest = np.argmax([W * spacing[0], H * spacing[1], D * spacing[2]])
    assert math.isclose(found[:, longest].min() + found[:, longest].max(), 1, abs_tol=1e-6)
    low, high = signal.describe()["box"]
    assert np.isclose(max(h - n for n, h in zip(low, high, strict=True)), 1)
    assert np.allclose(np.array(low) + np.array(high), 1)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", ">i2", "u4", "i4", "f2", "f4", ">f8"])
def test_values_are_normalised_and_restored(dtype):
    array = noise(dtype, (D, H, W, 2))
    signal = VolumeSignal.from_array(array)
    exact = array.astype(np.float64)
    normal = (exact - exact.min()) / (exact.max() - exact.min())
    index = torch.randperm(signal.n_samples)
    found = signal.values(index)
    assert found.dtype == torch.float32 and found.shape == (D * H * W, 2)
    assert np.abs(found.numpy() - normal.reshape(-1, 2)[index]).max() <= 2**-25
    assert signal.slab(0, D).min() == 0 and signal.slab(0, D).max() == 1
    assert np.array_equal(signal.slab(2, 4), normal[2:4].astype(np.float32))
    back = signal.restore(signal.slab(0, D).astype(np.float64))
    assert np.abs(back - exact).max() <= 2**-24 * np.ptp(exact)
    tensor = signal.restore(found)
    assert tensor.dtype == torch.float32
    assert (signal.min_value, signal.max_value) == (exact.min(), exact.max())


def test_wide_integers_keep_their_small_differences():
    array = np.full((2, 2, 2), 2**31 - 10, np.int32)
    array[0, 0] = 2**31 - 9
    array[1, 1, 1] = 2**31 - 6
    assert sorted(set(VolumeSignal.from_array(array).values(torch.arange(8)).reshape(-1).tolist())) == [0, 0.25, 1]


def test_slope_and_intercept_are_those_of_nibabel(tmp_path):
    path = nifti(tmp_path / "v.nii.gz", noise("i2"), slope=(-0.01, 40))
    signal = load_volume(path)
    reference = nibabel.load(path).get_fdata().transpose(2, 1, 0)
    assert np.allclose(
        signal.restore(signal.slab(0, D).astype(float))[..., 0], reference, rtol=0, atol=2**-24 * np.ptp(reference)
    )
    assert np.isclose(signal.low, reference.min()) and np.isclose(signal.high, reference.max())
    assert signal.name == "v" and signal.size == "7 x 6 x 5, 2 x 3 x 0.5 mm"


def test_slices():
    array = noise("f4", (D, H, W, 3))
    signal = VolumeSignal.from_array(array, normalize="none")
    assert np.array_equal(signal.slice("z", 0.5), array[2])
    assert np.array_equal(signal.slice("y", 0.0), array[:, 0])
    assert np.array_equal(signal.slice("x", 1.0), array[:, :, W - 1])
    centre = signal.coordinates(signal.slice_indices("y", 0.5).reshape(-1))
    assert len(set(centre[:, 1].tolist())) == 1
    for axis, position in (("w", 0.5), ("x", 1.5)):
        with pytest.raises(ConfigError):
            signal.slice(axis, position)


def test_crop_and_averaging_keep_the_place_in_the_world(tmp_path):
    array = noise("i2", (20, 18, 16))
    path = nifti(tmp_path / "v.nii", array)
    cut = load_volume(path, crop=[3, 4, 5, 8, 9, 10], normalize="none")
    assert cut.shape == (10, 9, 8) and np.array_equal(cut.slab(0, 10)[..., 0], array[5:15, 4:13, 3:11])
    assert np.allclose(cut.affine @ [0, 0, 0, 1], AFFINE @ [3, 4, 5, 1])
    assert load_volume(path, crop=10).describe()["crop"] == 10
    assert np.array_equal(load_volume(path, crop=6, normalize="none").slab(0, 6)[..., 0], array[7:13, 6:12, 5:11])
    small = load_volume(path, crop=[1, 2, 3, 9, 10, 11], downsample=3, normalize="none")
    means = array[3:12, 2:11, 1:10].astype(float).reshape(3, 3, 3, 3, 3, 3).mean((1, 3, 5))
    assert np.allclose(small.slab(0, 3)[..., 0], means, rtol=1e-6)
    assert small.spacing == (6, 9, 1.5)
    # the centre of the first block of 3 x 3 x 3 is voxel (2, 3, 4)
    assert np.allclose(small.affine @ [0, 0, 0, 1], AFFINE @ [2, 3, 4, 1])
    assert np.allclose(small.affine @ [2, 1, 0, 1], AFFINE @ [8, 6, 4, 1])
    for options in ({"crop": 19}, {"crop": [0, 0, 0, 17, 2, 2]}, {"crop": [1, 2]}, {"crop": "half"}, {"crop": [4, 4, 1]},
                    {"downsample": 9}, {"downsample": 0}, {"crop": True}):  # fmt: skip
        with pytest.raises(ConfigError):
            load_volume(path, **options)


def test_description_fingerprint_and_lattice():
    array = noise()
    signal = VolumeSignal.from_array(array, (1, 1, 2), affine=AFFINE, unit="mm", name="scan", holdout="every_other")
    facts = json.loads(json.dumps(signal.describe()))
    assert facts["type"] == "volume" and (facts["width"], facts["height"], facts["depth"], facts["channels"]) == (
        7,
        6,
        5,
        1,
    )
    assert facts["spacing"] == [1, 1, 2] and facts["affine"] == AFFINE.tolist() and facts["dtype"] == "uint8"
    assert (
        (facts["n_train"], facts["n_heldout"])
        == (3 * 3 * 4, 2 * 3 * 3)
        == (signal.split.n_train, signal.split.n_heldout)
    )
    assert facts["scale"] == 10 and facts["offset"] == [-1.5, -2, 0]
    assert signal.title == "scan, 7 x 6 x 5, 1 x 1 x 2 mm, 18 samples held out"
    assert math.isclose(signal.lattice, 10 * (36 / 210) ** (1 / 3)) and signal.details == 36
    assert signal.fingerprint() == VolumeSignal.from_array(array, (2, 2, 4), name="other").fingerprint()
    assert signal.fingerprint() == VolumeSignal.from_array(torch.from_numpy(array), (1, 1, 2)).fingerprint()
    changed = array.copy()
    changed[1, 2, 3] ^= 1
    others = [VolumeSignal.from_array(changed, (1, 1, 2)), VolumeSignal.from_array(array, (1, 1, 1)),
              VolumeSignal.from_array(array, (1, 1, 2), normalize="none")]  # fmt: skip
    assert signal.fingerprint() not in {other.fingerprint() for other in others}
    assert "VolumeSignal('scan'" in repr(signal)
    assert VolumeSignal.from_array(array).size == "7 x 6 x 5"
    assert VolumeSignal.from_array(noise("u1", (D, H, W, 2)), 0.5).size == "7 x 6 x 5, 2 channels, 0.5 units"


def test_the_array_is_copied_unless_it_is_mapped(tmp_path):
    array = noise("f4")
    signal = VolumeSignal.from_array(array, normalize="none")
    before = signal.slab(0, D)
    array += 1
    assert np.array_equal(signal.slab(0, D), before)
    np.save(tmp_path / "v.npy", array)
    mapped = VolumeSignal.from_array(np.load(tmp_path / "v.npy", mmap_mode="r"), normalize="none")
    assert np.array_equal(mapped.slab(0, D)[..., 0], array)


def test_loading_by_the_words_of_a_configuration(tmp_path):
    fractions = []
    signal = load({"type": "volume", "name": "gaussians", "resolution": 16, "holdout": "random:0.1"}, fractions.append)
    assert isinstance(signal, VolumeSignal) and signal.shape == (16, 16, 16) and signal.source == "density:gaussians"
    assert signal.split.n_heldout == round(0.1 * 16**3) and fractions[-1] == 1.0
    np.save(tmp_path / "v.npy", noise("u1", (4, 4, 4)))
    assert load({"type": "volume", "path": str(tmp_path / "v.npy"), "spacing": [1, 2, 3]}).spacing == (1, 2, 3)
    with pytest.raises(ConfigError, match="did you mean 'holdout'"):
        load({"type": "volume", "hold_out": "none"})


def test_batches_follow_the_option():
    array = np.zeros((8, 8, 8), np.float32)
    array[:, :, 4:] = 1.0
    uniform, edges = (VolumeSignal.from_array(array, sampling=s) for s in ("uniform", "gradient"))
    assert isinstance(uniform.batches(64, 0), StratifiedBatches)
    batches = edges.batches(64, 0)
    assert isinstance(batches, ImportanceBatches) and not batches.full
    drawn = torch.cat([batches.batch(step) for step in range(200)])
    column = torch.bincount(drawn % 8, minlength=8) / len(drawn)
    # half of the draws are even over 8 columns, the other half lie in the two columns beside the step
    expected = torch.tensor([1, 1, 1, 5, 5, 1, 1, 1]) / 16
    assert (column - expected).abs().max() < 0.01


def test_warning_about_values_outside():
    array = noise("f4") * 10
    assert VolumeSignal.from_array(array).warnings() == []
    assert "signal.normalize=minmax" in VolumeSignal.from_array(array, normalize="none").warnings()[0]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((3, 4, 5)), "every voxel has the value 1"),
        (np.where(np.arange(60).reshape(3, 4, 5) == 37, np.nan, 1.0), "1 value is NaN.*x=2, y=3, z=1, channel 0"),
        (np.where(np.arange(60).reshape(3, 4, 5) > 57, np.inf, 1.0), "2 values are NaN"),
        (np.array([-1e308, 1e308] * 4).reshape(2, 2, 2), "single precision"),
        (np.zeros((3, 4)), r"shape \[3, 4\]"),
        (np.zeros((3, 4, 0)), "empty"),
        (np.zeros((3, 4, 5), complex), "complex"),
        (np.zeros((3, 4, 5), object), "object"),
        ([[[1]]], "got list"),
    ],
)
def test_arrays_that_are_refused(array, words):
    with pytest.raises(SignalError, match=words):
        VolumeSignal.from_array(array)


@pytest.mark.parametrize("spacing", [0, -1, [1, 2], [1, 2, float("nan")], [1, 1, 1e9], ["a", 1, 1], [1, 0, 1]])
def test_spacings_that_are_refused(spacing):
    with pytest.raises(SignalError, match="three positive numbers"):
        VolumeSignal.from_array(noise(), spacing)


def test_options_that_are_refused():
    for options in ({"sampling": "edges"}, {"normalize": "std"}, {"holdout": "random:2"}, {"affine": np.eye(3)}):
        with pytest.raises((ConfigError, SignalError)):
            VolumeSignal.from_array(noise(), **options)
