"""render, info, doctor, and the command itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import tifffile

import neuralfield as nf
from neuralfield.cli import COMMANDS
from tests.conftest import Ran


@pytest.fixture
def run_folder(tmp_path: Path, picture: np.ndarray) -> Path:
    field = nf.fit(picture, encoding="fourier", network={"width": 16, "depth": 1}, steps=5, progress=False)
    nf.save(field, tmp_path / "run" / "field.safetensors")
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ((), (32, 24)),
        (("--scale", "2.5"), (80, 60)),
        (("--size", "50x10"), (50, 10)),
        (("--size", "64"), (64, 48)),
        (("--scale", "2", "--region", "0.5,0,1,0.5"), (32, 24)),
    ],
)
def test_render_draws_at_any_size(
    command: Callable[..., Ran], run_folder: Path, arguments: tuple[str, ...], size: tuple[int, int]
) -> None:
    ran = command("render", str(run_folder), *arguments, "-o", "drawn.png")
    assert ran.code == 0, ran.err
    assert iio.imread("drawn.png").shape == (size[1], size[0], 3)


def test_render_writes_floats_and_its_default_name(command: Callable[..., Ran], run_folder: Path) -> None:
    assert command("render", str(run_folder / "field.safetensors"), "-o", "drawn.tiff").code == 0
    expected = nf.render(nf.load(run_folder / "field.safetensors"), 32, 24)
    assert np.array_equal(tifffile.imread("drawn.tiff"), expected)
    assert command("render", str(run_folder), "--scale", "2").code == 0
    assert (run_folder / "render_64x48.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "does not exist"),
        ((".",), "there is one in run"),
        (("run", "--scale", "-1"), "positive"),
        (("run", "--scale", "1e9"), "not drawable"),
        (("run", "--size", "0x5"), "not drawable"),
        (("run", "--size", "big"), "WIDTHxHEIGHT"),
        (("run", "--region", "0.5,0,0.2,1"), "empty"),
        (("run", "--region", "0,0,1"), "four numbers"),
        (("run", "--region", "a,b,c,d"), "LEFT,TOP,RIGHT,BOTTOM"),
        (("run", "-o", "drawn.xyz"), "known formats"),
        (("run", "--scle", "2"), "did you mean '--scale'"),
        (("run", "--scale", "2", "--size", "3"), "not allowed with"),
        ((), "required"),
    ],
)
def test_render_explains_mistakes(
    command: Callable[..., Ran], run_folder: Path, arguments: tuple[str, ...], words: str
) -> None:
    before = sorted(Path().rglob("*"))
    ran = command("render", *arguments)
    assert ran.code == 2 and words in ran.err and "Traceback" not in ran.err
    assert sorted(Path().rglob("*")) == before


def test_info_describes_a_run(command: Callable[..., Ran], run_folder: Path) -> None:
    ran = command("info", str(run_folder))
    assert ran.code == 0
    for part in ("32 x 24", "fourier", "sigma=10.0", "parameters"):
        assert part in ran.out
    parsed = json.loads(command("info", str(run_folder), "--json").out)
    assert parsed["encoding"]["name"] == "fourier" and parsed["signal"]["width"] == 32


def test_info_of_a_broken_file(command: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "field.safetensors").write_bytes(b"\x80\x04pickle")
    ran = command("info", "field.safetensors")
    assert ran.code == 2 and "cannot be read as a field" in ran.err


def test_doctor_names_versions_device_engine_and_what_is_missing(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralfield.cli.doctor._found", lambda module: module != "tinycudann")
    ran = command("doctor")
    assert ran.code == 0, ran.err
    words = ("torch", "device", "engine", "LPIPS", "tinycudann", "not installed", "subdirectory=bindings")
    for part in (nf.__version__, *words):
        assert part in ran.out


def test_the_command_lists_what_it_can_do_and_corrects_typos(command: Callable[..., Ran]) -> None:
    assert all(name in command("--help").out for name in COMMANDS)
    assert command("--version").out.strip() == f"neuralfield {nf.__version__}"
    wrong = command("rendr")
    assert wrong.code == 2 and "did you mean 'render'" in wrong.err
