"""What is kept between runs: found again, made again when damaged, never in the way, and bounded."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest

from neuralfield.signals import label_cache
from neuralfield.signals.label_cache import cache_folder, key, labelled

RECIPE = {"solid": "ball", "kind": "occupancy", "n": 1003, "widths": [0.1, 0.2], "seed": 0}


class Maker:
    """Makes points and labels, and counts how often."""

    def __init__(self, n: int = 1003, distances: bool = False, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.points = rng.random((n, 3), np.float32)
        values = rng.standard_normal(n).astype(np.float32)
        self.labels = values if distances else values > 0.3
        self.calls = 0

    def __call__(self) -> tuple[np.ndarray, np.ndarray]:
        self.calls += 1
        return self.points, self.labels


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEURALFIELD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "labels"


@pytest.mark.parametrize("distances", [False, True])
@pytest.mark.parametrize("n", [1, 8, 1003])
def test_made_once_and_found_again_bit_by_bit(distances: bool, n: int, folder: Path) -> None:
    make = Maker(n, distances)
    first, second = labelled(RECIPE, make), labelled(RECIPE, make)
    assert make.calls == 1
    for found in (first, second):
        assert np.array_equal(found.points, make.points) and np.array_equal(found.labels, make.labels)
        assert (found.points.dtype, found.labels.dtype) == (np.float32, make.labels.dtype)
        assert found.digest == first.digest and len(found.digest) == 64
    (path,) = folder.iterdir()
    assert path.name == f"{key(RECIPE)}.safetensors"
    assert path.stat().st_size < 12 * n + (4 * n if distances else n // 8 + 1) + 500  # labels are packed


def test_the_digest_is_that_of_points_and_labels() -> None:
    digests = {labelled({"k": k}, make).digest for k, make in enumerate((Maker(), Maker(), Maker(seed=1)))}
    assert len(digests) == 2
    other = Maker()
    other.labels = ~other.labels
    assert labelled({"k": 9}, other).digest not in digests
    assert labelled({"k": 10}, Maker(distances=True)).digest not in digests


def test_a_key_depends_on_everything() -> None:
    changed = [{**RECIPE, name: value} for name, value in (("solid", "x"), ("n", 4), ("widths", [0.1]), ("seed", 1))]
    assert len({key(recipe) for recipe in (RECIPE, *changed)}) == 5
    assert key(dict(reversed(RECIPE.items()))) == key(RECIPE)
    text = json.dumps({"format": label_cache.FORMAT, **RECIPE}, sort_keys=True)
    assert key(RECIPE) == hashlib.sha256(text.encode()).hexdigest()


def test_another_format_is_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    labelled(RECIPE, make)
    monkeypatch.setattr(label_cache, "FORMAT", label_cache.FORMAT + 1)
    labelled(RECIPE, make)
    assert make.calls == 2


def test_switched_off(folder: Path) -> None:
    make = Maker()
    for _ in range(2):
        labelled(RECIPE, make, use=False)
    assert make.calls == 2 and not folder.exists()


def damages(data: bytes) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    flipped = {}
    for k in range(40):
        place = int(rng.integers(len(data)))
        flipped[f"byte {place}"] = data[:place] + bytes([data[place] ^ 1 << k % 8]) + data[place + 1 :]
    cut = {f"cut at {n}": data[:n] for n in (0, 1, 7, 8, 9, 100, len(data) // 2, len(data) - 1)}
    return {**flipped, **cut, "text": b"hello", "longer": data + b"x", "zeros": bytes(len(data))}


@pytest.mark.parametrize("distances", [False, True])
def test_damaged_files_are_made_again(distances: bool, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    make = Maker(500, distances)
    truth = labelled(RECIPE, make)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for what, data in damages(whole).items():
        path.write_bytes(data)
        caplog.clear()
        before = make.calls
        found = labelled(RECIPE, make)
        assert np.array_equal(found.points, truth.points) and np.array_equal(found.labels, truth.labels), what
        assert (make.calls > before) == ("are made again" in caplog.text), what
        caplog.clear()
        labelled(RECIPE, make)
        assert not caplog.text, what
    assert make.calls > 40  # only what nobody reads may change unseen: padding of the header, spare bits at the end


def test_a_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("NEURALFIELD_CACHE", str(tmp_path / "file"))
    make = Maker()
    found = labelled(RECIPE, make)
    assert np.array_equal(found.labels, make.labels)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "NEURALFIELD_CACHE" in caplog.text and "signal.cache=false" in caplog.text


def test_a_full_disk_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuralfield.files.save_file", full)
    labelled(RECIPE, Maker())
    assert "disk full" in caplog.text and not list(folder.iterdir())


def test_the_oldest_go(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Maker()
    labelled({"k": 0}, make)
    size = next(folder.iterdir()).stat().st_size
    monkeypatch.setattr(label_cache, "MOST_BYTES", int(3.5 * size))
    now = time.time()
    for k in range(1, 3):
        labelled({"k": k}, make)
    for k in range(3):
        os.utime(folder / f"{key({'k': k})}.safetensors", (now - 100 + k,) * 2)
    (folder / "notes.txt").write_text("somebody else's")
    labelled({"k": 0}, make)  # used again: now the newest
    labelled({"k": 3}, make)
    kept = {k for k in range(4) if (folder / f"{key({'k': k})}.safetensors").exists()}
    assert kept == {0, 2, 3} and (folder / "notes.txt").exists() and make.calls == 4


def test_too_large_for_the_cache(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    labelled({"k": 0}, Maker(10))
    monkeypatch.setattr(label_cache, "MOST_BYTES", 5000)
    make = Maker()
    labelled(RECIPE, make)
    assert len(list(folder.iterdir())) == 1 and "too many to keep" in caplog.text


def test_what_killed_writers_left_goes(folder: Path) -> None:
    folder.mkdir(parents=True)
    old, young = folder / ".writing-0-a.safetensors", folder / ".writing-1-b.safetensors"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    labelled(RECIPE, Maker())
    assert not old.exists() and young.exists()


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NEURALFIELD_CACHE", "~/here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "here"
    monkeypatch.delenv("NEURALFIELD_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "neuralfield"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "neuralfield"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "neuralfield"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "neuralfield"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "neuralfield"
    assert not (tmp_path / "local").exists()
