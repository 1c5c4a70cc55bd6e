"""`neuralfield reproduce NAME`: names, options, help, files and exit codes."""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from neuralfield import reproduce
from neuralfield.cli.configuration import config_folder
from neuralfield.errors import ConfigError
from tests.conftest import Ran

SMALL = ("random_features", "widths=[32,128,512]", "draws=24", "n_points=8", "steps=150")


def test_it_writes_figure_and_numbers_and_prints_the_claims(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command("reproduce", *SMALL, "folder=here/there")
    assert ran.code == 0, ran.err
    folder = tmp_path / "here" / "there"
    assert sorted(path.name for path in folder.iterdir()) == ["figure.png", "numbers.json"]
    with Image.open(folder / "figure.png") as image:
        assert image.width > 1000
    content = json.loads((folder / "numbers.json").read_text())
    assert content["name"] == "random_features" and content["options"]["widths"] == [32, 128, 512]
    assert all(claim["holds"] is True and claim["measured"] and claim["source"] for claim in content["claims"])
    assert "yes" in ran.out and "NO" not in ran.out and "numbers.json" in ran.out
    assert not (tmp_path / "outputs").exists()


def test_the_default_folder_is_named_after_the_reproduction(command: Callable[..., Ran], tmp_path: Path) -> None:
    command("reproduce", *SMALL[:1], "widths=[8,16]", "draws=2", "n_points=4", "steps=2")
    assert (tmp_path / "outputs" / "reproduce" / "random_features" / "numbers.json").is_file()


def test_a_claim_that_does_not_hold_is_exit_code_1_and_is_written_all_the_same(
    command: Callable[..., Ran], tmp_path: Path
) -> None:
    # A narrow network with a large target is not lazy.
    ran = command(
        "reproduce", "spectral_bias", "width=16", "depth=1", "n_points=8", "steps=60", "amplitude=5", "folder=out"
    )
    assert ran.code == 1, ran.err
    assert "NO" in ran.out
    claims = json.loads((tmp_path / "out" / "numbers.json").read_text())["claims"]
    assert not all(claim["holds"] for claim in claims)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spectral_bais"], "unknown reproduction 'spectral_bais'"),
        (["spectral_bais"], "did you mean 'spectral_bias'?"),
        (["spectral_bias", "wdith=3"], "did you mean 'width'?"),
        (["spectral_bias", "width"], "write KEY=VALUE"),
        (["spectral_bias", "--width=3"], "write KEY=VALUE"),
        (["spectral_bias", "n_points=2"], "n_points must be"),
        (["random_features", "widths=[64,32]"], "widths must be a list of at least two ascending"),
    ],
)
def test_what_can_be_mended_is_exit_code_2_with_one_line(
    command: Callable[..., Ran], arguments: list[str], message: str, tmp_path: Path
) -> None:
    ran = command("reproduce", *arguments)
    assert ran.code == 2
    assert message in ran.err and "Traceback" not in ran.err
    assert not (tmp_path / "outputs").exists()


def test_help_lists_the_names_and_each_ones_options(command: Callable[..., Ran]) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        ran = command("reproduce", *arguments)
        assert ran.code == 0
        assert all(name in ran.out for name in reproduce.NAMES)
    ran = command("reproduce", "lazy_training", "--help")
    assert ran.code == 0 and "alphas:" in ran.out and "# output scales" in ran.out


@pytest.mark.parametrize("name", reproduce.NAMES)
def test_every_reproduction_has_a_file_of_its_options(name: str) -> None:
    text = (config_folder() / "reproduce" / f"{name}.yaml").read_text()
    options = yaml.safe_load(text)
    function = importlib.import_module(f"neuralfield.reproduce.{name}").reproduce
    parameters = inspect.signature(function).parameters
    named = {key for key, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD}
    assert named == set(options) if len(named) == len(parameters) else named < set(options)
    assert "seed" in options and not any(isinstance(value, dict) for value in options.values())
    assert text.startswith("# ") and text.count(" # ") >= len(options) // 2


def test_names_are_checked_from_python() -> None:
    with pytest.raises(ConfigError, match="did you mean 'kernel_modes'"):
        reproduce.run("kernel_mode", {})


def test_the_script_is_the_same_command() -> None:
    script = config_folder().parent / "scripts" / "reproduce.py"
    ran = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0 and "usage: reproduce.py NAME" in ran.stdout
