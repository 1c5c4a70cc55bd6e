"""Writing whole files or none: on success, on failure, on a full disk."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from neuralfield import files
from neuralfield.errors import OutputError
from neuralfield.files import atomic, explain_os_error, remove_leftovers, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_writes_whole_files_into_new_folders(tmp_path: Path) -> None:
    with atomic(tmp_path / "a" / "b" / "values.tar.gz") as temporary:
        assert temporary.parent == tmp_path / "a" / "b"
        assert temporary.name.endswith("values.tar.gz")  # writers choose the format by suffix
        temporary.write_bytes(b"new")
        assert not (tmp_path / "a" / "b" / "values.tar.gz").exists()
    assert (tmp_path / "a" / "b" / "values.tar.gz").read_bytes() == b"new"
    assert names(tmp_path) == ["a", "b", "values.tar.gz"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
def test_a_failure_leaves_the_old_content_and_nothing_else(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "values.txt"
    path.write_text("old")
    with pytest.raises(kind), atomic(path) as temporary:
        temporary.write_text("half of the n")
        raise kind
    assert path.read_text() == "old"
    assert names(tmp_path) == ["values.txt"]


def test_replaces_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "values.txt"
    path.write_text("old")
    write_text(path, "näw\n")
    assert path.read_bytes() == "näw\n".encode()
    assert names(tmp_path) == ["values.txt"]


def test_a_full_disk_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "values.txt"
    write_text(path, "old")
    real = Path.write_text

    def fill(self: Path, text: str, **options: object) -> int:
        real(self, text[:3], **options)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(OutputError, match=r"disk full while writing .*values\.txt; nothing half-written"):
        write_text(path, "a longer text")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["values.txt"]


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_full_disk_at_the_last_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Some file systems say only at fsync that nothing fits any more."""
    path = tmp_path / "values.txt"
    write_text(path, "old")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, function, fail)
    with pytest.raises(OutputError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["values.txt"]


def test_the_content_is_on_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renamed before fsync, a file could be empty after a power failure."""
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(files.os, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    write_text(tmp_path / "values.txt", "new")
    assert calls == ["fsync", "replace"]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("")
    with pytest.raises(OutputError, match="a part of that path is a file"):
        write_text(tmp_path / "occupied" / "values.txt", "new")
    with pytest.raises(OutputError, match="a part of that path is a file"):
        write_text(tmp_path / "occupied" / "deeper" / "values.txt", "new")
    assert (tmp_path / "occupied").read_text() == ""


def test_a_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="folder"):
        write_text(tmp_path / "folder", "new")
    assert names(tmp_path) == ["folder"]


def test_a_block_that_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"), atomic(tmp_path / "values.txt"):
        pass
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "no permission to write"),
        (errno.EPERM, "no permission"),
        (errno.EROFS, "no permission"),
        (errno.ENOSPC, "disk full"),
        (errno.ENOTDIR, "is a file, not a folder"),
        (errno.EIO, "cannot write out"),
    ],
)
def test_causes_in_words(code: int, words: str) -> None:
    explained = explain_os_error(OSError(code, os.strerror(code)), Path("out"))
    assert isinstance(explained, OutputError)
    assert words in str(explained) and "out" in str(explained) and "\n" not in str(explained)


def test_an_explained_error_is_not_explained_again(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"^as it was$"), atomic(tmp_path / "outer.txt"):
        raise OutputError("as it was")


def test_leftovers_of_a_killed_process(tmp_path: Path) -> None:
    """What a kill -9 leaves is recognised and removed; nothing else is."""
    (tmp_path / "values.txt").write_text("kept")
    (tmp_path / "writing-home.txt").write_text("kept")
    block = atomic(tmp_path / "field.safetensors")
    block.__enter__().write_text("half")
    assert len(names(tmp_path)) == 3
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["values.txt", "writing-home.txt"]


def test_json_is_valid_whatever_the_numbers(tmp_path: Path) -> None:
    value = {"psnr": math.inf, "loss": [math.nan, -math.inf, 1.5], 3: {"t": (1, None, True, "ä")}}
    write_json(tmp_path / "metrics.json", value)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    assert json.loads(text, parse_constant=refuse) == {
        "psnr": None,
        "loss": [None, None, 1.5],
        "3": {"t": [1, None, True, "ä"]},
    }
    assert text.endswith("}\n") and text.startswith('{\n  "psnr"')
    assert math.isinf(value["psnr"])  # the caller's numbers are left alone


def test_what_json_cannot_hold_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "metrics.json", {"psnr": 30.0})
    with pytest.raises(TypeError):
        write_json(tmp_path / "metrics.json", {"psnr": object()})
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"psnr": 30.0}
    assert names(tmp_path) == ["metrics.json"]
