"""setup.cfg against the tree, and the promises of an import."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import yaml

import neuralfield as nf
from neuralfield.cli.configuration import config_folder

ROOT = Path(__file__).resolve().parents[1]


def _setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed() -> None:
    listed = set(_setup()["options"]["packages"].split())
    folders = {".".join(p.parent.relative_to(ROOT).parts) for p in (ROOT / "neuralfield").rglob("__init__.py")}
    assert listed == folders | {"neuralfield.configs"}


def test_every_configuration_file_is_packaged() -> None:
    patterns = _setup()["options.package_data"]["neuralfield.configs"].replace(",", " ").split()
    packaged = {p for pattern in patterns for p in (ROOT / "configs").glob(pattern)}
    assert packaged == set((ROOT / "configs").rglob("*.yaml"))
    assert config_folder() == ROOT / "configs"


def test_configurations_offer_exactly_the_options_of_the_classes() -> None:
    for name in ("none", "positional", "fourier", "hashgrid"):
        given = yaml.safe_load((ROOT / "configs" / "encoding" / f"{name}.yaml").read_text())
        assert given.pop("name") == name
        assert set(given) == set(nf.encodings.registry.options(name)) - {"in_dim"}
    network = yaml.safe_load((ROOT / "configs" / "network" / "mlp.yaml").read_text())
    assert set(network) - {"name"} == set(nf.networks.registry.options("mlp")) - {"in_dim", "out_dim"}
    fit = yaml.safe_load((ROOT / "configs" / "fit" / "default.yaml").read_text())
    from neuralfield.fitting.options import FitOptions

    assert set(fit) == set(FitOptions.__dataclass_fields__)


def test_importing_is_quiet_and_loads_nothing_optional() -> None:
    code = (
        "import sys, neuralfield\n"
        "loaded = [m for m in ('tinycudann', 'triton', 'lpips', 'torchvision', 'matplotlib', 'numba', 'jax') "
        "if m in sys.modules]\n"
        "print(loaded)"
    )
    ran = subprocess.run([sys.executable, "-W", "error::ImportWarning", "-c", code], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "[]", "")


def test_the_version_is_one() -> None:
    assert nf.__version__ in (ROOT / "CHANGELOG.md").read_text()
    assert f"version: {nf.__version__}" in (ROOT / "CITATION.cff").read_text()
