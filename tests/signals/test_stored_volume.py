"""Voxels on disk: the same numbers as in memory, and pages that are given back."""

import mmap
from pathlib import Path

import numpy as np
import pytest

from neuralfield.signals import stored_volume
from neuralfield.signals.stored_volume import StoredVoxels, averaged
from neuralfield.signals.volume import VolumeSignal

from .volume_files import noise


def resident():
    """Bytes of files that are mapped and present in this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile:"))


def arrangements(array, folder):
    """One volume `[z, y, x, c]` in the orders that files have, all of them mapped."""
    np.save(folder / "c.npy", array)
    np.save(folder / "f.npy", np.asfortranarray(array))
    np.save(folder / "first.npy", np.ascontiguousarray(np.moveaxis(array, -1, 0)))
    np.save(folder / "large.npy", np.pad(array, ((1, 2), (2, 1), (3, 3), (0, 0))))
    read = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("c", "f", "first", "large")}
    d, h, w, _ = array.shape
    return [
        read["c"],
        read["f"],
        np.moveaxis(read["first"], 0, -1),
        read["large"][1 : 1 + d, 2 : 2 + h, 3 : 3 + w],
        array,
    ]


@pytest.mark.parametrize("resident", [1, 1000, 1 << 17, stored_volume.RESIDENT])
@pytest.mark.parametrize("dtype", ["u1", ">i2"])
def test_the_same_numbers_whatever_may_stay_resident(tmp_path, dtype, resident):
    array = noise(dtype, (9, 10, 11, 2))
    index = np.random.default_rng(0).integers(0, 990, 300)
    for view in arrangements(array, tmp_path):
        voxels = StoredVoxels(view, resident)
        assert voxels.shape == (9, 10, 11, 2)
        assert np.array_equal(voxels.take(index), array.reshape(-1, 2)[index])
        assert voxels.take(index).dtype.isnative
        assert np.array_equal(voxels.block(2, 7), array[2:7])
        assert np.array_equal(np.concatenate([block for _, block in voxels.blocks()]), array)
        assert voxels.extremes("here") == (array.min(), array.max())


def test_digests_depend_on_the_numbers_alone(tmp_path):
    array = noise(">i2", (9, 10, 11, 2))
    digests = {StoredVoxels(view, 100).digest("") for view in arrangements(array, tmp_path)}
    digests.add(StoredVoxels(array.astype("<i2")).digest(""))
    assert len(digests) == 1 and StoredVoxels(array).digest("other") not in digests


def test_blocks_are_bounded(monkeypatch):
    monkeypatch.setattr(stored_volume, "_BLOCK_VALUES", 250)
    array = noise("f4", (9, 10, 11, 1))
    voxels = StoredVoxels(array)
    assert voxels.slices_per_block == 2
    assert [(start, len(block)) for start, block in voxels.blocks()] == [(0, 2), (2, 2), (4, 2), (6, 2), (8, 1)]
    assert voxels.extremes("here") == (array.min(), array.max())


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED") or not Path("/proc/self/status").exists(), reason="Linux only")
def test_pages_are_given_back(tmp_path):
    shape, budget = (96, 1024, 1024), 8 << 20
    path = tmp_path / "v.raw"
    with path.open("wb") as file:
        file.truncate(int(np.prod(shape)))
        file.seek(5_000_000)
        file.write(b"\xff")
    before = resident()
    signal = VolumeSignal.from_array(
        np.memmap(path, np.uint8, "r", shape=shape), holdout="every_other", resident=budget
    )
    assert resident() - before < 2.5 * budget and signal.max_value == 255
    batches = signal.batches(1 << 16, 0)
    most = 0
    for step in range(3):
        signal.values(signal.split.train(batches.batch(step)))
        most = max(most, resident() - before)
    assert most < 2.5 * budget
    signal.fingerprint()
    assert resident() - before < 2.5 * budget
    # without the budget the same work holds the whole file, so that the figures above mean something
    greedy = VolumeSignal.from_array(np.memmap(path, np.uint8, "r", shape=shape), resident=1 << 40)
    assert resident() - before > 80 << 20 and greedy.max_value == 255


def test_what_was_written_into_a_private_map_is_kept(tmp_path):
    np.save(tmp_path / "v.npy", noise("u1", (8, 8, 8, 1)))
    array = np.load(tmp_path / "v.npy", mmap_mode="c")
    array[3, 3, 3] = 99
    voxels = StoredVoxels(array, 1)
    for _ in range(3):
        assert voxels.block(3, 4)[0, 3, 3, 0] == 99


def test_averages():
    array = noise("i2", (9, 10, 11, 2))
    expected = array[:8, :10, :10].astype(float).reshape(4, 2, 5, 2, 5, 2, 2).mean((1, 3, 5))
    assert np.allclose(averaged(StoredVoxels(array), 2), expected, rtol=1e-6)


def test_what_the_kernel_says_is_mapped_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that maps more at a fault than was asked for."""
    array = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (8, 256, 256, 1))
    array[...] = np.arange(8 * 256 * 256).reshape(array.shape) % 251
    array.flush()
    voxels = StoredVoxels(np.load(tmp_path / "a.npy", mmap_mode="r"), resident=200_000)
    index = np.arange(0, 8 * 256 * 256, 97)
    for mapped, given_back in ((0, False), (10**9, True)):
        monkeypatch.setattr("neuralfield.signals.stored_volume._mapped_bytes", lambda mapped=mapped: mapped)
        voxels._before, voxels._touched = 0, 0
        assert np.array_equal(voxels.take(index[:2])[:, 0], index[:2] % 251)
        assert (voxels._touched == 0) == given_back
