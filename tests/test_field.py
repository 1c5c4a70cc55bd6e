"""Fields: encoding plus network, what is saved of them, and files that are broken or written by an enemy."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import neuralfield as nf
from neuralfield import field
from neuralfield.encodings import Encoding, Fourier, HashGrid
from neuralfield.errors import ConfigError, FieldFileError, OutputError
from neuralfield.networks import MLP
from tests.encodings.test_contract import CASES, Case


def small(**signal: Any) -> nf.Field:
    torch.manual_seed(0)
    return nf.build(2, 3, {"name": "fourier", "n_features": 4}, {"width": 8}, signal)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_saved_and_loaded(case: Case, tmp_path: Path) -> None:
    encoding = case.build()
    original = nf.Field(
        encoding, MLP(encoding.out_dim, 2, width=8, skip=1, activation="sine"), {"width": 7, "a": [None]}
    )
    nf.save(original, tmp_path / "field.safetensors")
    loaded = nf.load(tmp_path / "field.safetensors")
    x = torch.rand(20, encoding.in_dim)
    assert torch.equal(loaded(x), original(x))
    assert loaded.config == original.config and loaded.signal == original.signal
    assert field.read_header(tmp_path / "field.safetensors")["signal"] == {"width": 7, "a": [None]}
    assert [(n, p.shape, p.requires_grad) for n, p in loaded.named_parameters()] == [
        (n, p.shape, p.requires_grad) for n, p in original.named_parameters()
    ]
    loaded(x).sum().backward()  # it can be trained on


def test_composition() -> None:
    f = small()
    x = torch.rand(2, 5, 2)
    assert torch.equal(f(x), f.network(f.encoding(x)))
    assert (f.in_dim, f.out_dim, f.device) == (2, 3, torch.device("cpu"))
    assert f.n_parameters == 8 * 8 + 8 + 8 * 8 + 8 + 8 * 3 + 3  # the frequencies are not trained


def test_build_from_modules_names_or_options() -> None:
    grid, network = HashGrid(2, log2_hashmap_size=8), MLP(32, 1)
    assert (nf.build(2, 1, grid, network).encoding, nf.build(2, 1, grid, network).network) == (grid, network)
    assert isinstance(nf.build(2, 1, "fourier").encoding, Fourier)
    assert nf.build(3, 1, {"name": "bounded", "encoding": {"name": "none", "in_dim": 3}, "low": -1.0}).in_dim == 3
    with pytest.raises(ConfigError, match="32 features but the network takes 31; build it with in_dim=32"):
        nf.Field(grid, MLP(31, 1))
    with pytest.raises(ConfigError, match="takes 2 coordinates but the signal has 3"):
        nf.build(3, 1, grid)


def test_an_encoding_without_a_name_is_not_saved(tmp_path: Path) -> None:
    class Mine(Encoding):
        out_dim = 2

        def encode(self, x: torch.Tensor) -> torch.Tensor:
            return x

    with pytest.raises(ConfigError, match="Mine is not a registered encoding"):
        nf.save(nf.Field(Mine(2), MLP(2, 1)), tmp_path / "field.safetensors")
    assert not list(tmp_path.iterdir())


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """Writing past this fails in the system call, as on a full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_up_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "field.safetensors"
    nf.save(small(), path)
    before = path.read_bytes()
    larger = nf.build(2, 3, HashGrid(2, log2_hashmap_size=17))
    with pytest.raises(OutputError, match=r"field\.safetensors"), file_size_limit(2**20):
        nf.save(larger, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["field.safetensors"]


def test_a_writer_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "field.safetensors"
    nf.save(small(), path)
    before = path.read_bytes()

    def fail(_: object, where: Path, **__: object) -> None:
        Path(where).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuralfield.files.save_file", fail)
    with pytest.raises(OutputError, match="disk full"):
        nf.save(small(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["field.safetensors"]


# Files that are broken, or written by an enemy: always FieldFileError, soon, and without much memory.


class Trap:
    """Unpickling one leaves a trace."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def nested(depth: int) -> dict:
    inner: dict = {"name": "none", "in_dim": 2}
    for _ in range(depth):
        inner = {"name": "bounded", "encoding": inner}
    return inner


def grid_header(**options: Any) -> dict:
    return {"encoding": {"name": "hashgrid", "in_dim": 2, **options}}


# What replaces entries of the header of a valid file (None removes one).
WORDS = (True, 3, "abc", [1, 2], {"a": 1})
HEADERS: dict[str, dict[str, Any]] = {
    "later format": {"format": "neuralfield/2"},
    **{f"no {key}": {key: None} for key in ("encoding", "network", "format")},
    **{f"{key} is {word}": {key: word} for key in ("encoding", "network", "format") for word in WORDS},
    **{f"signal is {word}": {"signal": word} for word in WORDS[:4]},
    **{f"name is {word}": {"encoding": {"name": word, "in_dim": 2}} for word in WORDS},
    **{f"base resolution {n!r}": grid_header(base_resolution=n) for n in (0, -1, "16", [], 1e999)},
    "unknown encoding": {"encoding": {"name": "os.system", "in_dim": 2}},
    "unknown network": {"network": {"name": "eval", "in_dim": 8, "out_dim": 3}},
    "encoding without a name": {"encoding": {"in_dim": 2}},
    "other features": {"network": {"name": "mlp", "in_dim": 9, "out_dim": 3}},
    "a billion features": {"encoding": {"name": "fourier", "in_dim": 2, "n_features": 10**9}},
    "half a gigabyte of noise": {"encoding": {"name": "fourier", "in_dim": 64, "n_features": 2**20}},
    "a huge table": grid_header(log2_hashmap_size=30, max_resolution=2**20),
    "tables of terabytes": grid_header(
        log2_hashmap_size=30, n_levels=64, n_features_per_level=64, max_resolution=2**22
    ),
    **{f"resolution {n}": grid_header(max_resolution=n) for n in (1e999, -1e999, float("nan"), 0, "")},
    **{f"{n} levels": grid_header(n_levels=n) for n in (1e999, float("nan"), 0, None)},
    "a wide network": {"network": {"name": "mlp", "in_dim": 8, "out_dim": 3, "width": 65536, "depth": 200}},
    "2^63 outputs": {"network": {"name": "mlp", "in_dim": 8, "out_dim": 2**63}},
    "skip is a dictionary": {"network": {"name": "mlp", "in_dim": 8, "out_dim": 3, "skip": {"a": 1}}},
    "sigma is a dictionary": {"encoding": {"name": "fourier", "in_dim": 2, "n_features": 4, "sigma": {"a": 1}}},
    "seed beyond 64 bits": {"encoding": {"name": "fourier", "in_dim": 2, "n_features": 4, "seed": 2**70}},
    "amplitudes are a number": {"encoding": {"name": "fourier", "in_dim": 2, "n_features": 4, "amplitudes": 4}},
    "bounded by itself": {"encoding": {"name": "bounded", "encoding": "bounded"}},
    "300 boxes in each other": {"encoding": nested(300)},
    "another encoding's tensors": {"encoding": {"name": "positional", "in_dim": 2, "n_frequencies": 2}},
}

TENSORS: dict[str, Callable[[dict], object]] = {
    "a tensor is missing": lambda t: t.pop("network.layers.1.weight"),
    "no tensors": lambda t: t.clear(),
    "a tensor too many": lambda t: t.update(extra=torch.zeros(1)),
    "wrong shape": lambda t: t.update({"network.layers.0.weight": torch.zeros(8, 9)}),
    "transposed": lambda t: t.update({"encoding.frequencies": torch.zeros(4, 2)}),
    "whole numbers": lambda t: t.update({"network.layers.0.bias": torch.zeros(8, dtype=torch.int64)}),
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every file that must be refused, by what is wrong with it."""
    folder = tmp_path_factory.mktemp("bad")
    made: dict[str, Path] = {}

    def new(what: str) -> Path:
        return made.setdefault(what, folder / f"{len(made)}.safetensors")

    good = folder / "good"
    nf.save(small(), good)
    content, tensors, header = good.read_bytes(), load_file(good), field.read_header(good)
    for what, changes in HEADERS.items():
        changed = {key: value for key, value in {**header, **changes}.items() if value is not None}
        save_file(tensors, new(what), metadata={"neuralfield": json.dumps(changed)})
    for what, change in TENSORS.items():
        change(changed := dict(tensors))
        save_file(changed, new(what), metadata={"neuralfield": json.dumps(header)})
    for text in ("", "{", "null", "[]", "3", '"abc"', "{}", "[" * 100_000, "[" * 500 + "]" * 500, "nan", "\0"):
        save_file(tensors, new(f"header {text[:9]!r} of {len(text)}"), metadata={"neuralfield": text})
    save_file(tensors, new("another program's safetensors"), metadata={"format": "pt"})
    save_file(tensors, new("no metadata"))
    start = int.from_bytes(content[:8], "little") + 8
    for length in {*range(12), *range(0, start, 61), start + 1, *range(start, len(content), 97), len(content) - 1}:
        new(f"cut to {length} bytes").write_bytes(content[:length])
    new("with bytes after the end").write_bytes(content + b"\0" * 8)
    for length in (1, 8, 9, 100, 5000):
        new(f"{length} random bytes").write_bytes(np.random.default_rng(length).bytes(length))
    for length in (2**63, 2**64 - 1, 2**40, 100_000_001):
        new(f"a header of {length} bytes").write_bytes(length.to_bytes(8, "little") + content[8:])
    claim = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    new("tensors of terabytes").write_bytes(len(claim).to_bytes(8, "little") + claim + b"\0" * 64)
    new("a pickle").write_bytes(pickle.dumps(Trap(folder / "trace")))
    torch.save({"trap": Trap(folder / "trace")}, new("torch.save"))
    new("text").write_text("a field of wheat\n" * 50)
    new("a folder").mkdir()
    return made | {"nothing": folder / "nothing"}


def test_no_bad_file_is_loaded(bad_files: dict[str, Path]) -> None:
    wrong = []
    for what, path in bad_files.items():
        start = time.perf_counter()
        try:
            nf.load(path)
            wrong.append(f"{what}: loaded")
        except FieldFileError as error:
            if str(path) not in str(error) or time.perf_counter() - start > 5:
                wrong.append(f"{what}: {time.perf_counter() - start:.1f} s, {error}")
        except Exception as error:
            wrong.append(f"{what}: {type(error).__name__}: {error}"[:160])
    assert wrong == []
    assert not (bad_files["text"].parent / "trace").exists()  # no pickle was executed


_LOAD_ALL = """
import json, pathlib, re, sys
import neuralfield as nf
from neuralfield.errors import FieldFileError

def peak_mib():
    status = pathlib.Path("/proc/self/status")  # where there is none, memory is not watched
    return int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) / 1024 if status.exists() else 0

for what, path in json.load(sys.stdin).items():
    before = peak_mib()
    try:
        nf.load(path)
        print(f"{what}: loaded")
    except FieldFileError:
        pass
    except BaseException as error:
        print(f"{what}: {type(error).__name__}: {error}"[:160])
    if peak_mib() > before + 100:
        print(f"{what}: took {peak_mib() - before:.0f} MiB")
"""


def test_no_bad_file_is_loaded_without_type_checks(bad_files: dict[str, Path]) -> None:
    """The same in a process of its own, where nothing but the package stands between the file and torch."""
    paths = json.dumps({what: str(path) for what, path in bad_files.items()})
    done = subprocess.run(
        [sys.executable, "-c", _LOAD_ALL], input=paths, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == []


def test_damaged_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    """One changed byte anywhere in header or data: either it is refused, or a field comes out (JSON has slack, and
    weights have no checksum); nothing else happens."""
    path = tmp_path / "field.safetensors"
    nf.save(small(name="a picture"), path)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    refused = 0
    for position in [*range(8), *rng.integers(8, len(content), 250).tolist()]:
        damaged = bytearray(content)
        damaged[position] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            assert isinstance(nf.load(path), nf.Field)
        except FieldFileError:
            refused += 1
    assert 50 < refused < 258


def test_pickles_are_never_opened_and_headers_need_no_tensors(bad_files: dict[str, Path]) -> None:
    for what in ("a pickle", "torch.save", "text", "a folder", "nothing", "no metadata"):
        with pytest.raises(FieldFileError):
            field.read_header(bad_files[what])
    assert field.read_header(bad_files["no tensors"])["format"] == field.FORMAT


@pytest.mark.parametrize("encoding", ["none", "positional", "fourier", "hashgrid"])
def test_loading_imports_no_compiler(tmp_path: Path, encoding: str) -> None:
    """torch would import its own, and Triton where it is installed, to draw weights on the meta device: seconds, 150 MiB."""
    path = tmp_path / "field.safetensors"
    nf.save(nf.build(2, 3, {"name": encoding}, {"width": 8}), path)
    code = "import sys, neuralfield as nf; nf.load(sys.argv[1]); print({'torch._dynamo', 'triton'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "set()"
