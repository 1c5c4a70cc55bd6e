"""Every format and depth against exact arrays; every kind of bad file against the one error that may come out."""

import io
import os
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from neuralfield.errors import ConfigError, MissingDependency, SignalError
from neuralfield.signals import raw as raw_module
from neuralfield.signals import read_float, read_png, read_tiff, reading
from neuralfield.signals.reading import read_image

from .image_files import chunk, noise, orientation_note, png, png_of, turn_back

imagecodecs = pytest.importorskip("imagecodecs", reason="16-bit PNG, HDR and compressed TIFF are read through imagecodecs")
OpenEXR = pytest.importorskip("OpenEXR", reason="EXR files are written for these tests with OpenEXR")


@pytest.fixture
def read(tmp_path):
    """Write bytes into a file (without an extension: formats are recognised by content) and read them."""
    def write_and_read(data, frame=None):
        path = tmp_path / "picture"
        path.write_bytes(bytes(data))
        return read_image(path, frame)
    return write_and_read


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(pixels, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


def exr(tmp_path, channels, header=None, name="made.exr"):
    path = tmp_path / name
    header = {"type": OpenEXR.scanlineimage, "compression": OpenEXR.ZIP_COMPRESSION, **(header or {})}
    OpenEXR.File(header, channels).write(str(path))
    return path


def fails(text, function, *arguments, **options):
    with pytest.raises(SignalError, match=text) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 700


# --- PNG ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("without_codecs", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png(read, monkeypatch, channels, dtype, without_codecs):
    pixels = noise((5, 7, channels), dtype)
    if without_codecs:
        monkeypatch.setattr(read_png, "_imagecodecs", lambda: None)
        if dtype == np.uint16 and channels > 1:
            monkeypatch.setitem(__import__("sys").modules, "imagecodecs", None)
            with pytest.raises(MissingDependency, match="pip install imagecodecs"):
                read(png_of(pixels))
            return
    raw = read(png_of(pixels))
    assert raw.pixels.dtype == dtype and np.array_equal(raw.pixels, pixels)
    assert (raw.has_alpha, raw.premultiplied, raw.linear, raw.format) == (channels in (2, 4), False, False, "PNG")


@pytest.mark.parametrize("without_codecs", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_png_of_few_bits_fills_the_range(read, monkeypatch, depth, without_codecs):
    if without_codecs:
        monkeypatch.setattr(read_png, "_imagecodecs", lambda: None)
    top = (1 << depth) - 1
    levels = noise((3, 8), np.uint8) & top
    bits = np.unpackbits(levels[..., None], axis=-1)[..., 8 - depth:].reshape(3, -1)
    raw = read(png([np.packbits(row).tobytes() for row in bits], 8, depth, 0))
    assert np.array_equal(raw.pixels[..., 0], levels * (255 // top)) and not raw.has_alpha


@pytest.mark.parametrize("without_codecs", [False, True])
@pytest.mark.parametrize("transparent", [False, True])
def test_png_palette(read, monkeypatch, transparent, without_codecs):
    if without_codecs:
        monkeypatch.setattr(read_png, "_imagecodecs", lambda: None)
    table = noise((4, 3), np.uint8)
    index = noise((5, 6), np.uint8) % 4
    notes = chunk(b"PLTE", table.tobytes()) + (chunk(b"tRNS", b"\x00\x80") if transparent else b"")
    raw = read(png([row.tobytes() for row in index], 6, 8, 3, notes))
    assert np.array_equal(raw.pixels[..., :3], table[index]) and raw.has_alpha == transparent
    if transparent:
        assert np.array_equal(raw.pixels[..., 3], np.array([0, 128, 255, 255])[index])


@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 1), (np.uint16, 3)])
def test_png_colour_key(read, dtype, channels):
    pixels = noise((4, 5, channels), dtype) % 3
    key = pixels[2, 3]
    raw = read(png_of(pixels, chunk(b"tRNS", key.astype(">u2").tobytes())))
    assert raw.has_alpha and raw.pixels.dtype == dtype and np.array_equal(raw.pixels[..., :-1], pixels)
    assert np.array_equal(raw.pixels[..., -1] == 0, (pixels == key).all(-1))


def test_png_beyond_the_limits_of_pillow(read, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    pixels = noise((9, 9, 3), np.uint8)
    assert np.array_equal(read(png_of(pixels)).pixels, pixels)
    assert read(saved(Image.fromarray(pixels), "JPEG")).pixels.shape == (9, 9, 3)
    assert Image.MAX_IMAGE_PIXELS == 10  # put back


# --- JPEG, WebP, BMP, GIF -------------------------------------------------------------------------------------------

def test_jpeg(read):
    pixels = np.repeat(np.repeat(noise((4, 4, 3), np.uint8), 16, 0), 16, 1)
    for shown in (pixels, pixels[..., 0]):
        image = Image.fromarray(shown)
        data = saved(image, "JPEG", quality=95)
        raw = read(data)
        assert raw.format == "JPEG" and not raw.has_alpha
        assert np.array_equal(raw.pixels.squeeze(), np.asarray(Image.open(io.BytesIO(data))))


def test_pictures_behind_the_first_of_a_jpeg_are_previews(read):
    first, second = (Image.new("RGB", (16, 16), shade) for shade in ((200, 100, 50), (0, 0, 0)))
    raw = read(saved(first, "MPO", save_all=True, append_images=[second]))
    assert np.abs(raw.pixels - np.array([200.0, 100.0, 50.0])).max() < 4 and raw.format == "JPEG"


@pytest.mark.parametrize(("kind", "channels"), [("WEBP", 3), ("WEBP", 4), ("BMP", 3), ("PNG", 3), ("PNG", 4)])
def test_lossless_colours(read, kind, channels):
    pixels = noise((6, 9, channels), np.uint8)
    pixels[..., 3:] |= 1  # WebP does not keep the colours of what is invisible
    raw = read(saved(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert np.array_equal(raw.pixels, pixels) and raw.has_alpha == (channels == 4)
    assert raw.format.upper() == kind


def test_bmp_grey_and_bilevel(read):
    grey = noise((6, 9), np.uint8)
    assert np.array_equal(read(saved(Image.fromarray(grey), "BMP")).pixels[..., 0], grey)
    assert np.array_equal(read(saved(Image.fromarray(grey > 99), "BMP")).pixels[..., 0], 255 * (grey > 99))


def test_gif_and_transparent_gif(read):
    index = noise((6, 9), np.uint8) % 4
    image = Image.fromarray(index)
    image = Image.frombytes("P", (9, 6), index.tobytes())
    image.putpalette(list(range(12)))
    table = np.arange(12, dtype=np.uint8).reshape(4, 3)
    assert np.array_equal(read(saved(image, "GIF")).pixels, table[index])
    raw = read(saved(image, "GIF", transparency=2))
    assert raw.has_alpha and np.array_equal(raw.pixels[..., 3] == 0, index == 2)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animations(read, kind):
    levels = (0, 120, 250)
    frames = [Image.fromarray(np.full((8, 8, 3), level, np.uint8)) for level in levels]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=50,
                 **({"lossless": True} if kind == "WEBP" else {}))
    fails(r"3 animation frames; choose one with signal.frame=0", read, data)
    for k, level in enumerate(levels):
        assert np.abs(read(data, k).pixels[..., :3].astype(int) - level).max() <= 4
    fails("no picture 3: signal.frame goes from 0 to 2", read, data, 3)


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_wrong_frame_numbers(read, wrong):
    with pytest.raises((ConfigError, TypeError), match="frame"):
        read(png_of(noise((3, 3, 3), np.uint8)), wrong)


# --- TIFF -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib", "predictor": True}, {"tile": (16, 16)}, {"bigtiff": True},
                                     {"byteorder": ">"}, {"rowsperstrip": 5, "compression": "lzw"}])
def test_tiff(read, dtype, channels, options):
    pixels = noise((20, 30, channels), dtype)
    extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
    raw = read(tiff(pixels if channels > 1 else pixels[..., 0], photometric="rgb" if channels > 1 else "minisblack", **extra,
                    **options))
    expected = pixels.astype(np.float32) if np.dtype(dtype).kind == "f" else pixels
    assert raw.pixels.dtype == expected.dtype and raw.pixels.dtype.isnative and np.array_equal(raw.pixels, expected)
    assert (raw.has_alpha, raw.premultiplied, raw.linear, raw.format) == (channels == 4, False, False, "TIFF")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiff_in_planes(read, compression):
    pixels = noise((20, 30, 3), np.uint16)
    data = tiff(np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate", compression=compression)
    assert np.array_equal(read(data).pixels, pixels)


@pytest.mark.parametrize(("extra", "alpha", "premultiplied"), [("assocalpha", True, True), ("unassalpha", True, False),
                                                               ("unspecified", False, False)])
def test_tiff_extra_samples(read, extra, alpha, premultiplied):
    pixels = noise((6, 7, 4), np.uint8)
    raw = read(tiff(pixels, photometric="rgb", extrasamples=[extra]))
    assert np.array_equal(raw.pixels, pixels) and (raw.has_alpha, raw.premultiplied) == (alpha, premultiplied)


def test_tiff_white_is_zero_and_bilevel(read):
    grey = noise((6, 9), np.uint16)
    assert np.array_equal(read(tiff(grey, photometric="miniswhite")).pixels[..., 0], 65535 - grey)
    fails("white as zero", read, tiff(grey.astype(np.float32), photometric="miniswhite"))
    for kind in ("minisblack", "miniswhite"):
        bits = grey > 30000
        shown = bits if kind == "minisblack" else ~bits
        assert np.array_equal(read(tiff(bits, photometric=kind)).pixels[..., 0], 255 * shown)


@pytest.mark.parametrize("bits", [4, 12])
def test_tiff_of_odd_depth_fills_the_range(read, bits):
    top = (1 << bits) - 1
    levels = noise((6, 8), np.uint16) & top
    stored = levels.astype(np.uint8 if bits <= 8 else np.uint16)
    packed = imagecodecs.packints_encode(stored, bits)
    data = bytearray(tiff(np.frombuffer(packed, np.uint8).reshape(6, -1), photometric="minisblack", metadata=None,
                          rowsperstrip=6))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tags = file.pages[0].tags
        width, depth = tags["ImageWidth"], tags["BitsPerSample"]
    for tag, value in ((width, 8), (depth, bits)):
        struct.pack_into("<H", data, tag.offset + 8, value)
    limit = 255 if bits <= 8 else 65535
    assert np.array_equal(read(data).pixels[..., 0], np.rint(levels * (limit / top)).astype(stored.dtype))


@pytest.mark.parametrize(("factor", "dtype"), [(257, np.uint8), (256, np.uint8), (1, np.uint8), (None, np.uint16)])
def test_tiff_palette(read, factor, dtype):
    table = noise((3, 256), np.uint8).astype(np.uint16)
    stored = table * factor if factor else noise((3, 256), np.uint16)
    index = noise((6, 9), np.uint8)
    raw = read(tiff(index, photometric="palette", colormap=stored))
    assert raw.pixels.dtype == dtype and np.array_equal(raw.pixels, (table if factor else stored).T[index])


def test_tiff_ycbcr_and_jpeg(read):
    pixels = np.repeat(np.repeat(noise((4, 4, 3), np.uint8), 8, 0), 8, 1)
    converted = Image.fromarray(pixels).convert("YCbCr")
    expected = np.asarray(converted.convert("RGB")).astype(int)
    assert np.abs(read(saved(converted, "TIFF")).pixels - expected).max() <= 1
    jpeg = read(tiff(pixels, photometric="ycbcr", compression="jpeg", compressionargs={"level": 95}))
    assert np.abs(jpeg.pixels.astype(int) - pixels).mean() < 12


def test_tiff_pages(read):
    stack = noise((3, 6, 9), np.uint8)
    data = tiff(stack, photometric="minisblack")
    fails("3 pages; choose one with signal.frame=0", read, data)
    for k in range(3):
        assert np.array_equal(read(data, k).pixels[..., 0], stack[k])
    fails("no picture 7", read, data, 7)


def test_tiff_pyramids_are_one_picture(read):
    buffer, pixels = io.BytesIO(), noise((32, 32, 3), np.uint8)
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(pixels, photometric="rgb")
        writer.write(pixels[::2, ::2], photometric="rgb", subfiletype=1)
    assert np.array_equal(read(buffer.getvalue()).pixels, pixels)


def test_tiff_stays_on_disk_when_it_is_large(tmp_path, monkeypatch):
    monkeypatch.setattr(read_tiff, "MAP_FROM", 100)
    # Nothing needs to fit into memory, so that nothing is compared with it.
    monkeypatch.setattr(raw_module, "available_memory", lambda: 10)
    pixels = noise((20, 30, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    tifffile.imwrite(tmp_path / "b.tif", np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate")
    before = (tmp_path / "a.tif").read_bytes()
    for name in ("a.tif", "b.tif"):
        raw = read_image(tmp_path / name)
        assert isinstance(raw.pixels, np.memmap) and np.array_equal(raw.pixels, pixels)
    raw = read_image(tmp_path / "a.tif")
    raw.pixels[:] = 0
    assert (tmp_path / "a.tif").read_bytes() == before
    monkeypatch.undo()
    assert not isinstance(read_image(tmp_path / "a.tif").pixels, np.memmap)


@pytest.mark.parametrize(("dtype", "text"), [(np.int16, "int16"), (np.complex64, "complex64"), (np.uint64, "uint64")])
def test_tiff_types_without_a_range(read, dtype, text):
    fails(text, read, tiff(np.ones((4, 4), dtype)))


@pytest.mark.parametrize(("kind", "mode", "text"), [("TIFF", "LAB", "CIELAB"), ("TIFF", "CMYK", "SEPARATED"),
                                                    ("JPEG", "CMYK", "CMYK")])
def test_other_colour_spaces(read, kind, mode, text):
    image = Image.fromarray(noise((8, 8, 3), np.uint8)).convert(mode)
    fails(f"colour space {text}.*convert it", read, saved(image, kind))


# --- EXR, HDR, NPY --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.uint32])
@pytest.mark.parametrize("names", ["RGB", "RGBA", "Y", "YA"])
@pytest.mark.parametrize("tiled", [False, True])
def test_exr(tmp_path, dtype, names, tiled):
    pixels = (noise((20, 30, len(names)), np.float32) * 50).astype(dtype)
    # Written one by one and backwards: the order in the file must not matter.
    channels = {name: pixels[:, :, k].copy() for k, name in reversed(list(enumerate(names)))}
    header = {"type": OpenEXR.tiledimage, "tiles": OpenEXR.TileDescription()} if tiled else {}
    raw = read_image(exr(tmp_path, channels, header))
    assert raw.pixels.dtype == np.float32 and np.array_equal(raw.pixels, pixels.astype(np.float32))
    assert (raw.has_alpha, raw.premultiplied, raw.linear, raw.format) == ("A" in names, "A" in names, True, "EXR")


def test_exr_data_window(tmp_path):
    pixels = noise((20, 30, 3), np.float32)
    window = (np.array([-5, 7], np.int32), np.array([24, 26], np.int32))
    path = exr(tmp_path, {"RGB": pixels}, {"dataWindow": window, "displayWindow": (np.zeros(2, np.int32),
                                                                                  np.array([99, 99], np.int32))})
    assert np.array_equal(read_image(path).pixels, pixels)


def test_exr_lists_the_channels_that_are_there(tmp_path):
    plane = noise((8, 8), np.float32)
    fails("its channels are: Z, diffuse.R", read_image, exr(tmp_path, {"Z": plane, "diffuse.R": plane}))


def test_exr_parts(tmp_path):
    pixels, depth = noise((8, 9, 3), np.float32), noise((8, 9), np.float32)
    path = tmp_path / "parts.exr"
    OpenEXR.File([OpenEXR.Part({}, {"Z": depth}, name="z"), OpenEXR.Part({}, {"RGB": pixels}, name="c")]).write(str(path))
    assert np.array_equal(read_image(path).pixels, pixels)  # the only one with colours
    assert np.array_equal(read_image(path, 1).pixels, pixels)
    fails("its channels are: Z", read_image, path, 0)
    OpenEXR.File([OpenEXR.Part({}, {"RGB": pixels}, name="a"), OpenEXR.Part({}, {"RGB": pixels + 1}, name="b")]).write(str(path))
    fails("2 parts; choose one", read_image, path)
    assert np.array_equal(read_image(path, 1).pixels, pixels + 1)


def test_exr_without_openexr(tmp_path, monkeypatch):
    path = exr(tmp_path, {"Y": noise((8, 8), np.float32)})
    monkeypatch.setitem(__import__("sys").modules, "OpenEXR", None)
    with pytest.raises(MissingDependency, match="pip install OpenEXR"):
        read_image(path)


@pytest.mark.parametrize("width", [30, 5])  # run-length coding starts at 8
def test_hdr(read, width):
    pixels = noise((20, width, 3), np.float32) * 40
    raw = read(imagecodecs.rgbe_encode(pixels, header=True))
    # 8 bits of mantissa, shared by the three colours of a pixel
    assert raw.pixels.dtype == np.float32 and (np.abs(raw.pixels - pixels) <= pixels.max(-1, keepdims=True) / 128).all()
    assert (raw.has_alpha, raw.linear, raw.format) == (False, True, "HDR")


@pytest.mark.parametrize(("old", "new", "text"), [(b"-Y 20 +X 30", b"+Y 20 +X 30", "order"), (b"rgbe", b"xyze", "XYZ"),
                                                  (b"-Y 20 +X 30", b"-Y 2x +X 30", "size line")])
def test_hdr_of_other_kinds(read, old, new, text):
    fails(text, read, imagecodecs.rgbe_encode(noise((20, 30, 3), np.float32), header=True).replace(old, new))


@pytest.mark.parametrize("dtype", [bool, np.uint8, ">u2", np.uint32, np.float16, np.float32, ">f4", np.float64])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 1), (5, 7, 2), (5, 7, 3), (5, 7, 4)])
def test_npy(tmp_path, dtype, shape):
    array = (noise(shape, np.uint8) > 99) if dtype is bool else (noise(shape, np.float32) * 9).astype(dtype)
    for order in "CF":
        np.save(tmp_path / "a.npy", np.asarray(array, order=order))
        raw = read_image(tmp_path / "a.npy")
        expected = array * np.uint8(255) if dtype is bool else array
        assert np.array_equal(raw.pixels, expected.reshape(5, 7, -1)) and raw.pixels.dtype.isnative
        assert raw.pixels.dtype.name in raw_module.STORAGE and raw.has_alpha == (len(shape) == 3 and shape[2] in (2, 4))


def test_npy_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)
    np.save(tmp_path / "a.npy", np.array([[Bomb(), Bomb()]], dtype=object), allow_pickle=True)
    fails("never loaded", read_image, tmp_path / "a.npy")
    assert not (tmp_path / "exploded").exists()


# --- orientation ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG", "PNG without imagecodecs"])
def test_orientation(read, monkeypatch, kind, orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8], upright[:8, 8:], upright[8:, :16] = (250, 10, 10), (10, 250, 10), (10, 10, 250)
    stored = np.ascontiguousarray(turn_back(upright, orientation))
    note = b"Exif\0\0" + orientation_note(orientation)
    if kind.startswith("PNG"):
        if kind != "PNG":
            monkeypatch.setattr(read_png, "_imagecodecs", lambda: None)
        data = png_of(stored, chunk(b"eXIf", note[6:]))
    elif kind == "TIFF":
        data = tiff(stored, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    else:
        data = saved(Image.fromarray(stored), kind, exif=note, **({"lossless": True} if kind == "WEBP" else
                                                                 {"quality": 98, "subsampling": 0}))
    found = read(data).pixels
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= (6 if kind == "JPEG" else 0)


@pytest.mark.parametrize("note", [b"", b"nonsense", orientation_note(99)])
def test_unreadable_notes_do_not_spoil_a_picture(read, note):
    pixels = noise((4, 6, 3), np.uint8)
    assert np.array_equal(read(png_of(pixels, chunk(b"eXIf", note))).pixels, pixels)


# --- bad files ------------------------------------------------------------------------------------------------------

def whole_files():
    rgb = noise((24, 32, 3), np.uint8)
    image = Image.fromarray(rgb)
    files = {"png": png_of(rgb), "png16": png_of(noise((24, 32, 3), np.uint16)), "jpeg": saved(image, "JPEG"),
             "progressive": saved(image, "JPEG", progressive=True), "webp": saved(image, "WEBP"),
             "lossless": saved(image, "WEBP", lossless=True), "bmp": saved(image, "BMP"), "gif": saved(image, "GIF"),
             "tiff": tiff(rgb, photometric="rgb"), "zlib": tiff(rgb, photometric="rgb", compression="zlib"),
             "lzw": tiff(rgb, photometric="rgb", compression="lzw"), "tiles": tiff(rgb, photometric="rgb", tile=(16, 16)),
             "tiffjpeg": tiff(rgb, photometric="ycbcr", compression="jpeg"),
             "hdr": imagecodecs.rgbe_encode(noise((24, 32, 3), np.float32), header=True)}
    buffer = io.BytesIO()
    np.save(buffer, rgb)
    files["npy"] = buffer.getvalue()
    return files


WHOLE = whole_files()


@pytest.mark.parametrize("part", [1, 3, 9, 30, 60, 0.3, 0.6, 0.9, 0.99, -40, -1])
@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_files_that_were_cut_short(read, kind, part):
    data = WHOLE[kind]
    assert read(data).pixels.shape == (24, 32, 3)
    length = int(part * len(data)) if isinstance(part, float) else part if part > 0 else len(data) + part
    if kind in ("gif", "jpeg") and part == -1:  # only the closing mark is missing, so that all pixels may be there
        try:
            assert np.array_equal(read(data[:-1]).pixels, read(data).pixels)
        except SignalError as error:
            assert kind == "jpeg" and "truncated" in str(error)
    else:
        fails("picture", read, data[:length])


@pytest.mark.parametrize("part", [3, 30, 200, 0.2, 0.5, 0.9, -1])
@pytest.mark.parametrize("compression", ["NO", "ZIP", "PIZ"])
def test_exr_files_that_were_cut_short(tmp_path, capsys, compression, part):
    path = exr(tmp_path, {"RGB": noise((40, 50, 3), np.float32)}, {"compression": getattr(OpenEXR, f"{compression}_COMPRESSION")})
    data = path.read_bytes()
    length = int(part * len(data)) if isinstance(part, float) else part if part > 0 else len(data) + part
    path.write_bytes(data[:length])
    fails("made.exr", read_image, path)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("kind", sorted(WHOLE))
def test_damaged_files_give_nothing_but_the_one_error(read, kind):
    random = np.random.default_rng(3)
    data = np.frombuffer(WHOLE[kind], np.uint8)
    for _ in range(25):
        damaged = data.copy()
        where = random.integers(0, min(len(data), 300 if random.random() < 0.6 else len(data)), 4)
        damaged[where] = random.integers(0, 256, 4)
        try:
            raw = read(damaged.tobytes())
        except SignalError:
            continue
        assert raw.pixels.ndim == 3 and raw.pixels.dtype.name in raw_module.STORAGE


@pytest.mark.parametrize(("data", "text"), [
    (b"", "empty file"), (b"hello, this is a note\n", "text file"), ("schöne Grüße".encode(), "text file"),
    (b"\n<!DOCTYPE html><html>404</html>", "web page"), (b"<HTML>", "web page"), (b"<svg xmlns=''>", "SVG"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"), (b"PK\x03\x04rest", "npz"),
    (b"\0\0\0\x1cftypavif", "AVIF"), (b"\0\0\0\x18ftypheic", "HEIC"), (b"%PDF-1.7", "PDF"), (b"8BPS\0\1", "Photoshop"),
    (b"\x1f\x8b\x08", "gzip"), (bytes(128) + b"DICM", "DICOM"), (b"\x00\x01\x02\x03" * 9, "starts with 00 01 02 03"),
])
def test_what_is_no_image(read, data, text):
    fails(text, read, data)


@pytest.mark.parametrize("data", [
    png([b"\0\0\0"], 1, 8, 2), png_of(noise((1, 9, 3), np.uint8)), saved(Image.new("L", (1, 1)), "BMP"),
    tiff(noise((1, 5), np.uint8)), imagecodecs.rgbe_encode(noise((1, 1, 3), np.float32), header=True)])
def test_nothing_to_fit(read, data):
    fails("2 x 2", read, data)


@pytest.mark.parametrize("data", [png([b""], 0, 8, 2, height=0), png([b"\0"], 5, 8, 0, height=0)])
def test_sizes_of_zero(read, data):
    fails("0 pixels|empty|0 x", read, data)


@pytest.mark.parametrize("size", [10**6, 2**31 - 1])
def test_hostile_sizes_of_png(read, size):
    fails("memory", read, png([b"\0" * 9], size, 8, 2, height=size))


def test_hostile_sizes_of_other_formats(read, tmp_path):
    data = bytearray(tiff(noise((8, 8, 3), np.uint8), photometric="rgb", compression="zlib"))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tags = [file.pages[0].tags[name] for name in ("ImageWidth", "ImageLength")]
    for tag in tags:
        data[tag.offset + 2:tag.offset + 4] = struct.pack("<H", 4)  # LONG
        data[tag.offset + 8:tag.offset + 12] = struct.pack("<I", 10**6)
    fails("memory", read, data)
    fails("memory", read, b"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y 1000000 +X 1000000\n" + bytes(50))
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000, 3), }\n"
    fails("memory", read, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(40))
    bmp = bytearray(saved(Image.new("RGB", (4, 4)), "BMP"))
    bmp[18:26] = struct.pack("<ii", 10**6, 10**6)
    fails("memory", read, bmp)
    path = exr(tmp_path, {"RGB": noise((8, 8, 3), np.float32)})
    low, high = (struct.pack("<ii", *corner) for corner in ((0, 0), (7, 7)))
    path.write_bytes(path.read_bytes().replace(low + high, low + struct.pack("<ii", 10**6, 10**6)))
    fails("made.exr", read_image, path)


@pytest.mark.parametrize(("value", "count"), [(np.nan, 2), (np.inf, 1), (-np.inf, 3)])
def test_values_that_are_not_finite(read, tmp_path, value, count):
    pixels = noise((9, 8, 3), np.float32)
    pixels[4, 5, 2] = value
    pixels[6, :count - 1, 0] = value
    text = f"{count} value.* NaN or infinite, the first at row 4, column 5, channel 2"
    fails(text, read, tiff(pixels, photometric="rgb"))
    fails(text, read_image, exr(tmp_path, {"RGB": pixels}))
    np.save(tmp_path / "a.npy", pixels)
    fails(text, read_image, tmp_path / "a.npy")


def test_missing_files(tmp_path):
    (tmp_path / "kodim03.png").write_bytes(b"x")
    fails("did you mean 'kodim03.png'", read_image, tmp_path / "kodim3.png")
    fails("check the name", read_image, tmp_path / "zzzzzzzzzzzz")
    fails("there is no folder", read_image, tmp_path / "a" / "b" / "c.png")
    fails("does not exist", read_image, tmp_path / "kodim03.png" / "inside.png")
    fails("folder; give one image file, for example .*kodim03.png", read_image, tmp_path)
    fails("not a file name|does not exist", read_image, "a\0b")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_pipes_do_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    fails("not a regular file", read_image, tmp_path / "pipe")


def test_no_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png_of(noise((4, 4, 3), np.uint8)))

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr(reading.Path, "open", refuse)
    fails("no permission to read .*chmod u\\+r", read_image, path)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "a.png").write_bytes(png_of(noise((4, 4, 3), np.uint8)))
    assert read_image("~/a.png").pixels.shape == (4, 4, 3)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("lines\nof text " * 50), KeyError("x"), RecursionError()])
def test_whatever_a_reader_raises(read, monkeypatch, error):
    def reader(path, frame):
        raise error
    monkeypatch.setitem(reading._READERS, "PNG", reader)
    with pytest.raises(SignalError) as caught:
        read(png_of(noise((4, 4, 3), np.uint8)))
    assert caught.value.__cause__ is error and "\n" not in str(caught.value)


def test_memory_of_containers(tmp_path):
    limits = {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 500\ninactive_file 150\n"}
    for name, content in limits.items():
        (tmp_path / name).write_text(content)
    assert raw_module._container_memory(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert raw_module._container_memory(tmp_path) is None
    assert raw_module._container_memory(tmp_path / "none") is None


def test_read_float_says_which_openexr(tmp_path, monkeypatch):
    path = exr(tmp_path, {"Y": noise((8, 8), np.float32)})
    monkeypatch.setattr(read_float, "require", lambda *arguments: object())
    with pytest.raises(MissingDependency, match="3.3"):
        read_image(path)
