"""The command as people run it, and its complaints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Ran

SMALL = (
    "signal.crop=24", "fit.steps=12", "network.width=16", "network.depth=1", "explain.side=8", "explain.windows=1",
)  # fmt: skip


def test_an_image_is_explained_with_the_users_encoding_beside_the_others(
    command: Callable[..., Ran], tmp_path: Path
) -> None:
    ran = command("explain", *SMALL, "encoding=fourier", "encoding.sigma=3", "folder=why")
    assert ran.code == 0, ran.err
    content = json.loads((tmp_path / "why" / "explanation.json").read_text())
    names = [c["name"] for c in content["candidates"]]
    assert names[:2] == ["none", "positional"] and "hashgrid" in names and names[-1] == "fourier sigma=3"
    assert sum(name.startswith("fourier sigma=") for name in names) == 7
    assert content["steps"] == 12 and content["assumed_holdout"] and "nothing is held out" in ran.out
    assert content["verdict"]["text"] in ran.out and "bicubic" in ran.out
    assert "signal.crop=24" in content["verdict"]["command"] and content["verdict"]["command"] in ran.out
    assert (tmp_path / "why" / "report.html").is_file()
    assert "\x1b" not in ran.out


def test_its_folder_is_named_after_the_image(command: Callable[..., Ran], tmp_path: Path) -> None:
    assert command("explain", *SMALL, "signal.name=camera").code == 0
    (report,) = tmp_path.glob("outputs/explain/*_camera/report.html")
    assert report.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["encoding=hashgird"], "did you mean 'hashgrid'"),
        (["fit.stesp=3"], "did you mean 'fit.steps'"),
        (["explain.verfy=true"], "did you mean 'explain.verify'"),
        (["swep=runs"], "did you mean 'sweep'"),
        (["fit.steps=0"], "fit.steps must be between 1"),
        (["fit.loss=l1", *SMALL], "fit.loss=mse"),
        (["fit.seconds=3"], "number of steps"),
        ([*SMALL, "explain.side=2"], "explain.side must be"),
        ([*SMALL, "explain.verify=perhaps"], "explain.verify must be"),
        (["sweep=nothing"], "no such folder"),
        (["sweep=.", "fit.steps=3"], "leave out fit.steps=3"),
        (["-m"], "KEY=VALUE"),
        (["signal.path=nothere.png"], "does not exist"),
    ],
)
def test_a_mistake_is_explained_in_one_line_and_leaves_nothing(
    command: Callable[..., Ran], tmp_path: Path, arguments: list[str], words: str
) -> None:
    ran = command("explain", *arguments)
    assert ran.code == 2
    assert words in ran.err and "Traceback" not in ran.err and len(ran.err.strip().splitlines()) == 1
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


def test_help_names_every_key(command: Callable[..., Ran]) -> None:
    ran = command("explain", "--help")
    assert ran.code == 0
    assert all(word in ran.out for word in ("explain.verify", "explain.side", "sweep", "folder", "signal.path"))
