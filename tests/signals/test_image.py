"""The image signal: values, opacity, spaces, and what the other parts ask of it."""

import json

import numpy as np
import pytest
import torch

from neuralfield.errors import ConfigError, SignalError
from neuralfield.signals import colour
from neuralfield.signals.image import ImageSignal, load_image

from .image_files import noise, png_of

make = ImageSignal.from_array
every = torch.arange


def all_values(signal):
    return signal.values(every(signal.n_pixels)).reshape(signal.height, signal.width, -1).numpy()


@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.uint32, 4294967295), (np.float32, 1)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_values_are_the_stored_ones_over_the_maximum(dtype, top, channels):
    array = noise((5, 7, channels), dtype)
    signal = make(array)
    expected = (array.astype(np.float64) / top).astype(np.float32)
    assert np.array_equal(all_values(signal), expected)
    assert np.array_equal(signal.rows(1, 4), expected[1:4]) and signal.rows(1, 4).dtype == np.float32
    assert (signal.in_dim, signal.out_dim, signal.shape, signal.n_pixels, signal.n_values) == (
        2,
        channels,
        (5, 7),
        35,
        35 * channels,
    )
    assert signal.source_dtype == np.dtype(dtype).name and signal.space == "srgb"
    assert signal._stored.array.dtype == dtype


def test_coordinates_are_pixel_centres_x_first():
    signal = make(np.zeros((2, 4), np.uint8))
    found = signal.coordinates(every(8))
    assert found.dtype == torch.float32
    assert found.tolist() == [
        [0.125, 0.25],
        [0.375, 0.25],
        [0.625, 0.25],
        [0.875, 0.25],
        [0.125, 0.75],
        [0.375, 0.75],
        [0.625, 0.75],
        [0.875, 0.75],
    ]


def test_coordinates_and_values_belong_together():
    row, column = np.mgrid[:6, :9]
    ramp = np.stack([(column + 0.5) / 9, (row + 0.5) / 6, 0 * row], -1).astype(np.float32)
    signal = make(ramp)
    index = torch.tensor([53, 0, 17, 30])
    torch.testing.assert_close(signal.coordinates(index), signal.values(index)[:, :2])


@pytest.mark.parametrize(
    "given",
    [
        torch.rand(3, 4, 3),
        torch.rand(3, 4).bfloat16(),
        torch.rand(3, 4, 1).double(),
        (torch.rand(3, 4, 3) * 255).to(torch.uint8),
        torch.rand(3, 4, requires_grad=True),
    ],
)
def test_torch_tensors(given):
    signal = make(given)
    unit = given.detach().float() / (255 if given.dtype == torch.uint8 else 1)
    assert np.array_equal(all_values(signal), unit.reshape(3, 4, -1).numpy())


def test_bool_half_double_and_odd_strides():
    mask = noise((4, 5), np.uint8) > 128
    assert np.array_equal(all_values(make(mask))[..., 0], mask.astype(np.float32))
    half = noise((4, 5), np.float16)
    assert np.array_equal(all_values(make(half))[..., 0], half.astype(np.float32))
    array = noise((8, 10, 3), np.float64)
    assert np.array_equal(all_values(make(array[::-2, ::-1])), array[::-2, ::-1].astype(np.float32))
    assert np.array_equal(all_values(make(np.asfortranarray(array))), array.astype(np.float32))
    assert np.array_equal(all_values(make(noise((4, 5), np.uint8).astype(">u2")))[..., 0].shape, (4, 5))


def test_later_changes_of_the_array_do_not_show():
    array = np.zeros((4, 4), np.float32)
    signal = make(array)
    array[:] = 1
    block = signal.rows(0, 4)
    block[:] = 5
    assert signal.max_value == 0.0 and not all_values(signal).any()


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.full((3, 3), np.nan), "9 values are NaN or infinite, the first at row 0, column 0"),
        (np.pad(np.full((1, 1), np.inf), 2), "1 value is NaN or infinite, the first at row 2, column 2"),
        (np.full((3, 3), 1e300), "NaN or infinite"),
        (np.zeros((3, 3), np.int64), "int64"),
        (np.zeros((3, 3), complex), "complex128"),
        (np.zeros((3, 3), np.uint64), "uint64"),
        (np.array([["a", "b"]] * 2), "<U1"),
        (np.zeros(5), "shape"),
        (np.zeros((2, 3, 4, 5)), "shape"),
        (np.zeros((3, 8, 8)), "moveaxis"),
        (np.zeros((9, 8, 8)), "8 channels"),
        (np.zeros((0, 4, 3)), "empty"),
        (np.zeros((1, 1)), "1 x 1"),
        (np.zeros((1, 9)), "9 x 1"),
    ],
)
def test_arrays_that_are_no_images(array, text):
    with pytest.raises(SignalError, match=text) as caught:
        make(array)
    assert "\n" not in str(caught.value)


def test_complex_torch_and_empty_torch():
    with pytest.raises(SignalError, match="complex64"):
        make(torch.zeros(3, 3, dtype=torch.complex64))


def test_alpha_modes():
    rgba = noise((4, 5, 4), np.uint8)
    unit = (rgba / 255).astype(np.float32)
    a = unit[..., 3:]
    np.testing.assert_allclose(all_values(make(rgba)), unit[..., :3] * a + 1 - a, atol=1e-6)
    tinted = make(rgba, background=[0.0, 0.5, 1])
    np.testing.assert_allclose(all_values(tinted), unit[..., :3] * a + (1 - a) * [0, 0.5, 1], atol=1e-6)
    assert np.array_equal(all_values(make(rgba, alpha="fit")), unit) and make(rgba, alpha="fit").out_dim == 4
    assert np.array_equal(all_values(make(rgba, alpha="drop")), unit[..., :3])
    assert make(rgba)._stored.array.dtype == np.uint8  # nothing was unrolled into floats


def test_premultiplied_alpha():
    straight = noise((4, 5, 4), np.float32) * 0.9 + 0.05
    associated = straight.copy()
    associated[..., :3] *= straight[..., 3:]
    for alpha in ("composite", "fit", "drop"):
        one, other = make(straight, alpha=alpha), make(associated, alpha=alpha, premultiplied=True)
        np.testing.assert_allclose(all_values(one), all_values(other), atol=1e-6)


def test_grey_with_alpha():
    grey = noise((3, 4, 2), np.uint16)
    assert make(grey).out_dim == 1 and make(grey, alpha="fit").out_dim == 2
    with pytest.raises(ConfigError, match=r"signal.background"):
        make(grey, background=[1, 1, 1])


@pytest.mark.parametrize("linear", [True, False])
@pytest.mark.parametrize("space", ["stored", "srgb", "linear"])
def test_space(linear, space):
    array = noise((4, 5, 3), np.float32)
    signal = make(array, linear=linear, space=space)
    stored = "linear" if linear else "srgb"
    assert signal.space == (stored if space == "stored" else space)
    assert np.array_equal(all_values(signal), colour.convert(torch.from_numpy(array), stored, signal.space).numpy())


def test_conversion_leaves_the_opacity_alone():
    rgba = noise((4, 5, 4), np.float32)
    found = all_values(make(rgba, alpha="fit", space="linear"))
    assert np.array_equal(found[..., 3], rgba[..., 3])
    np.testing.assert_allclose(found[..., :3], colour.srgb_to_linear(rgba[..., :3]), rtol=1e-5)


@pytest.mark.parametrize("resize", [None, 4])
def test_normalize(resize):
    hdr = noise((6, 8, 3), np.float32) * 30
    raw, signal = make(hdr, linear=True, resize=resize), make(hdr, linear=True, normalize=True, resize=resize)
    assert raw.max_value > 1 and signal.max_value == pytest.approx(1.0)
    np.testing.assert_allclose(all_values(signal) * raw.max_value, all_values(raw), rtol=1e-5)
    assert signal.describe()["normalized_by"] == pytest.approx(raw.max_value)


@pytest.mark.parametrize("resize", [None, 4])
def test_normalize_leaves_the_opacity_alone(resize):
    rgba = noise((6, 8, 4), np.float32)
    rgba[..., :3] *= 7
    one = all_values(make(rgba, alpha="fit", linear=True, resize=resize))
    other = all_values(make(rgba, alpha="fit", linear=True, normalize=True, resize=resize))
    assert np.array_equal(one[..., 3], other[..., 3])
    np.testing.assert_allclose(one[..., :3] / one[..., :3].max(), other[..., :3], rtol=1e-5)


def test_range_and_constant_images():
    signal = make(np.array([[0.25, -2.0], [3.5, 0.0]]))
    assert (signal.min_value, signal.max_value) == (-2.0, 3.5)
    assert make(np.full((4, 4, 3), 7, np.uint8)).max_value == pytest.approx(7 / 255)
    with pytest.raises(SignalError, match="normalize"):
        make(np.zeros((4, 4)), normalize=True)


@pytest.mark.parametrize(("option", "value"), [("alpha", "blend"), ("space", "sRGB"), ("holdout", "half")])
def test_wrong_options(option, value):
    with pytest.raises(ConfigError, match=rf"signal.{option}"):
        make(np.zeros((4, 4), np.uint8), **{option: value})


def test_split_is_of_the_final_size():
    signal = make(noise((9, 12, 3), np.uint8), crop=[8, 6], holdout="every_other")
    assert (signal.split.n_train, signal.split.n_heldout) == (12, 12)
    index = signal.split.heldout(every(12))
    assert np.array_equal(signal.values(index).numpy().reshape(3, 4, 3), signal.rows(0, 6)[1::2, 1::2])


def test_preview():
    array = noise((6, 10, 3), np.uint8)
    assert np.array_equal(make(array).preview(), array)
    assert np.array_equal(make(array[..., :1]).preview(), np.repeat(array[..., :1], 3, -1))
    flat = make(np.full((100, 301), 200, np.uint8)).preview(100)
    assert flat.shape == (25, 76, 3) and (flat == 200).all()
    stripes = np.tile(np.array([[0.0, 1.0]], np.float32), (4, 4))
    half = make(stripes).preview(4)
    assert half.shape == (2, 4, 3) and (half == 188).all()  # half of the light, not half of the number


def test_describe_is_json_and_complete():
    signal = make(noise((6, 8, 4), np.uint16), crop=[6, 4], resize=[3, 2], holdout="random:0.5", name="x", seed=3)
    said = json.loads(json.dumps(signal.describe(), allow_nan=False))
    assert said == {
        "type": "image",
        "name": "x",
        "source": "array",
        "width": 3,
        "height": 2,
        "channels": 3,
        "space": "srgb",
        "dtype": "uint16",
        "crop": [6, 4],
        "resize": [3, 2],
        "alpha": "composite",
        "holdout": "random:0.5",
        "normalized_by": 1.0,
        "n_train": 3,
        "n_heldout": 3,
    }
    assert "'x'" in repr(signal)


def test_fingerprint():
    array = noise((6, 8, 3), np.uint8)
    first = make(array).fingerprint()
    assert first == make(array, name="other", holdout="every_other").fingerprint() and len(first) == 64
    changed = array.copy()
    changed[5, 7, 2] ^= 1
    others = [
        make(changed),
        make(array.reshape(8, 6, 3)),
        make(array, space="linear"),
        make(array, crop=4),
        make(array.astype(np.uint16)),
        make(array, resize=4),
    ]
    assert len({first, *(signal.fingerprint() for signal in others)}) == 7
    assert make(array[:, :4]).fingerprint() == make(array, crop=[0, 0, 4, 6]).fingerprint()


def test_load_image_from_a_file(tmp_path):
    array = noise((6, 8, 3), np.uint16)
    (tmp_path / "deep.png").write_bytes(png_of(array))
    signal = load_image(tmp_path / "deep.png", name="ignored", holdout="every_other")
    assert (signal.name, signal.source, signal.source_dtype) == ("deep", str(tmp_path / "deep.png"), "uint16")
    assert np.array_equal(all_values(signal), array / np.float32(65535))


def test_load_image_of_a_mapped_array(tmp_path):
    array = noise((6, 8, 3), np.uint8)
    np.save(tmp_path / "a.npy", array)
    before = (tmp_path / "a.npy").read_bytes()
    signal = load_image(str(tmp_path / "a.npy"), crop=[1, 2, 5, 3])
    assert np.array_equal(all_values(signal), array[2:5, 1:6] / np.float32(255))
    signal._stored.array[:] = 0  # copy-on-write: whatever happens in memory, the file stays as it is
    assert (tmp_path / "a.npy").read_bytes() == before
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert np.array_equal(all_values(make(mapped)), array / np.float32(255))
    assert np.array_equal(all_values(make(mapped[::-1])), array[::-1] / np.float32(255))


def test_load_image_of_samples():
    assert load_image().name == "astronaut" and load_image().source == "sample:astronaut"
    assert load_image("", "logo", resize=64).out_dim == 3
    assert load_image(name="zoneplate").source_dtype == "float32"
    with pytest.raises(ConfigError, match="did you mean"):
        load_image(name="astronout")
    with pytest.raises(SignalError, match=r"signal.frame=0"):
        load_image(frame=1)


def test_configuration_lists_are_taken():
    from collections import UserList  # a sequence that is not a list, as OmegaConf hands out

    signal = make(
        noise((6, 8, 4), np.uint8), crop=UserList([4, 4]), resize=UserList([2, 3]), background=UserList([0, 0, 0])
    )
    assert signal.shape == (3, 2) and json.dumps(signal.describe()["crop"]) == "[4, 4]"
