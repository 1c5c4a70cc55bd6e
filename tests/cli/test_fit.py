"""End to end: the script as people run it, and its complaints."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import save_file

import neuralfield as nf
from tests.conftest import Ran

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "fit.py"
SMALL = ("signal.crop=32", "fit.steps=30", "fit.batch_size=256", "network.width=16", "network.depth=1")
RESULTS = {
    "config.yaml", "metrics.json", "history.csv", "reconstruction.png", "comparison.png", "training.png",
    "field.safetensors",
}  # fmt: skip


def fit(*arguments: str, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments], cwd=cwd, env=_environment(**more), capture_output=True, text=True
    )


def _environment(**more: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("NEURALFIELD_DEBUG", "HYDRA_FULL_ERROR")}
    return {**kept, "COLUMNS": "200", "OMP_NUM_THREADS": "1", **more}


def test_the_script_needs_no_argument_beyond_a_budget_and_leaves_a_complete_folder(tmp_path: Path) -> None:
    ran = fit("fit.steps=3", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    (metrics_file,) = tmp_path.glob("outputs/*/*/metrics.json")
    folder = metrics_file.parent
    assert {p.name for p in folder.iterdir() if p.name != "field_best.safetensors"} == RESULTS
    metrics = json.loads(metrics_file.read_text())
    needed = {
        "psnr", "psnr_8bit", "psnr_unclamped", "ssim", "lpips", "psnr_heldout", "steps", "train_seconds", "n_parameters",
        "parameters_per_value", "device", "engine", "seed", "versions",
    }  # fmt: skip
    assert needed <= metrics.keys()
    assert metrics["lpips"] is not None or metrics["lpips_reason"]
    assert metrics["steps"] == 3
    assert yaml.safe_load((folder / "config.yaml").read_text())["fit"]["steps"] == 3
    assert iio.imread(folder / "reconstruction.png").shape == (512, 512, 3)
    assert "PSNR" in ran.stdout and str(folder) in ran.stdout
    assert "\x1b" not in ran.stdout  # no escape codes in a log


def test_the_same_from_python(command: Callable[..., Ran], tmp_path: Path) -> None:
    ran = command("fit", *SMALL, "hydra.run.dir=out", "signal.holdout=every_other")
    assert ran.code == 0, ran.err
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["psnr_heldout"] is not None and metrics["psnr_train"] != metrics["psnr_heldout"]
    rows = list(csv.DictReader((tmp_path / "out" / "history.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in rows] == [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 30]
    field = nf.load(tmp_path / "out" / "field.safetensors")
    drawn = np.rint(np.clip(nf.render(field, 32, 32), 0, 1) * 255).astype(np.uint8)
    assert np.array_equal(drawn, iio.imread(tmp_path / "out" / "reconstruction.png"))


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("encoding=hashgird", "did you mean 'hashgrid'"),
        ("encoding.sigma=10", "belongs to encoding=fourier; add encoding=fourier"),
        ("fit.stesp=3", "did you mean 'fit.steps'"),
        ("sed=1", "did you mean 'seed'"),
        ("fit.loss=l3", "mse, l1, huber"),
        ("device=gpu", "auto, cpu, cuda"),
        ("signal.path=nothere.png", "does not exist"),
        ("signal.path=.", "folder"),
        ("signal.name=astronaught", "did you mean 'astronaut'"),
        ("signal.holdout=half", "every_other"),
        ("encoding=[1,2", "quote values"),
        ("metrics.lpips=of", "did you mean 'off'"),
        ("seed=-1", "seed must be at least 0"),
        ("+imports=[no_such_module]", "cannot be imported"),
        ("imports=[no_such_module]", "cannot be imported"),
    ],
)
def test_a_mistake_is_explained_in_one_line_and_leaves_nothing(
    command: Callable[..., Ran], tmp_path: Path, argument: str, words: str
) -> None:
    ran = command("fit", argument)
    assert ran.code == 2
    assert words in ran.err
    assert "Traceback" not in ran.err and len(ran.err.strip().splitlines()) == 1
    assert not any(p.is_file() for p in tmp_path.rglob("*"))


WRONG_KINDS = (
    "fit.steps=abc",
    "fit.resume=perhaps",
    "encoding.n_levels=many",
    "encoding.base_resolution=abc",
    "seed=abc",
)


def test_a_value_of_the_wrong_kind_too(tmp_path: Path) -> None:
    # In a process of its own: the checking of annotations in tests would answer first. One for all: it takes seconds.
    program = (
        "import contextlib, io, json, sys\n"
        "from neuralfield.cli.fit import main\n"
        "for value in sys.argv[1:]:\n"
        "    with contextlib.redirect_stderr(io.StringIO()) as said:\n"
        "        code = main([value])\n"
        "    print(json.dumps([code, said.getvalue()]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *WRONG_KINDS], cwd=tmp_path, env=_environment(), capture_output=True, text=True
    )
    assert ran.returncode == 0 and not ran.stderr, ran.stderr
    outcomes = [json.loads(line) for line in ran.stdout.splitlines()]
    for value, (code, said) in zip(WRONG_KINDS, outcomes, strict=True):
        assert code == 2, value
        assert value.split("=")[0].split(".")[-1] in said
        assert "Traceback" not in said and len(said.strip().splitlines()) == 1


def test_cuda_without_cuda(command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    ran = command("fit", "device=cuda")
    assert ran.code == 2 and "Use device=cpu" in ran.err


def test_an_output_folder_that_cannot_be(command: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ran = command("fit", *SMALL, "hydra.run.dir=file/out")
    assert ran.code == 2 and "is a file, not a folder" in ran.err


@pytest.mark.parametrize(
    ("fills_at", "kept"), [("field", {"config.yaml", "checkpoint/latest.safetensors"}), ("", {"config.yaml"})]
)
def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    command: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fills_at: str, kept: set[str]
) -> None:
    def full(tensors: dict, path: Path, metadata: dict) -> None:
        if fills_at not in path.name:
            return save_file(tensors, path, metadata)
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuralfield.files.save_file", full)
    ran = command("fit", *SMALL, "hydra.run.dir=out", "fit.checkpoint_seconds=1e-9")
    assert ran.code == 2 and "disk full" in ran.err
    assert ("no checkpoint" in ran.out) == (fills_at == "")  # training goes on without
    left = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert left == kept


def test_debugging_shows_the_traceback(command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURALFIELD_DEBUG", "1")
    ran = command("fit", "signal.path=nothere.png")
    assert ran.code == 2 and "Traceback" in ran.err


def test_help_has_groups_defaults_and_examples(command: Callable[..., Ran]) -> None:
    ran = command("fit", "--help")
    assert ran.code == 0
    for part in ("none | positional | fourier | hashgrid", "max_resolution: auto", "-m encoding=", "fit.resume=true"):
        assert part in ran.out


def kill_when(reached: Callable[[], bool], *arguments: str, cwd: Path) -> None:
    """Start the script, and kill it as soon as `reached` says so."""
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=cwd, env=_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        while not reached():
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_killed_at_any_moment_it_resumes_to_the_same_numbers(command: Callable[..., Ran], tmp_path: Path) -> None:
    arguments = (
        "signal.crop=64",
        "fit.steps=400",
        "fit.batch_size=512",
        "fit.checkpoint_seconds=0.05",
        "network.width=32",
    )
    assert command("fit", *arguments, "hydra.run.dir=whole").code == 0
    folder = tmp_path / "killed"
    checkpoint = folder / "checkpoint" / "latest.safetensors"

    def steps_done() -> int:
        with safe_open(checkpoint, "pt") as file:
            return int(json.loads(file.metadata()["state"])["step"])

    def written_again() -> bool:
        return checkpoint.stat().st_mtime_ns > known

    resuming = (*arguments, "hydra.run.dir=killed", "fit.resume=true")
    kill_when((folder / "config.yaml").exists, *resuming, cwd=tmp_path)  # before the first step, or just after
    kill_when(checkpoint.exists, *resuming, cwd=tmp_path)
    reached, known = [steps_done()], checkpoint.stat().st_mtime_ns
    kill_when(written_again, *resuming, cwd=tmp_path)
    reached.append(steps_done())
    assert 0 < reached[0] < reached[1] < 400  # so these two were killed while they trained
    kill_when((folder / "field.safetensors").exists, *resuming, cwd=tmp_path)  # while it writes the results
    assert command("fit", *resuming).code == 0
    whole, killed = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "killed"))
    for key in ("psnr", "psnr_8bit", "psnr_unclamped", "ssim", "best_psnr", "best_step", "steps"):
        assert whole[key] == killed[key], key
    fields = [(tmp_path / name / "field.safetensors").read_bytes() for name in ("whole", "killed")]
    assert fields[0] == fields[1]
    assert not list((tmp_path / "killed").rglob(".writing-*"))


@pytest.mark.slow
def test_ctrl_c_keeps_what_was_reached(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "signal.crop=64", "fit.steps=1000000", "fit.batch_size=512", "hydra.run.dir=out"],
        cwd=tmp_path, env=_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if "step" in line:
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["stopped_by"] == "interrupt" and metrics["steps"] > 0
    assert nf.load(tmp_path / "out" / "field.safetensors").out_dim == 3


def test_running_again_with_resume_does_nothing_when_complete(command: Callable[..., Ran], tmp_path: Path) -> None:
    assert command("fit", *SMALL, "hydra.run.dir=out").code == 0
    before = (tmp_path / "out" / "metrics.json").stat().st_mtime_ns
    time.sleep(0.01)
    again = command("fit", *SMALL, "hydra.run.dir=out", "fit.resume=true")
    assert again.code == 0 and "complete already" in again.out
    assert (tmp_path / "out" / "metrics.json").stat().st_mtime_ns == before
    other = command("fit", *SMALL[:-1], "network.depth=2", "hydra.run.dir=out", "fit.resume=true")
    assert other.code == 0 and "complete already" not in other.out


def test_resume_without_a_folder_finds_the_unfinished_run_of_the_same_options(
    command: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = command("fit", *SMALL, "fit.resume=true")
    assert nothing.code == 2 and "holds no unfinished run" in nothing.err
    arguments = (*SMALL, "fit.checkpoint_seconds=1e-9")
    with monkeypatch.context() as patch:
        patch.setattr("neuralfield.run.results.write", lambda *_, **__: 1 / 0)  # dies after training
        assert command("fit", *arguments).code == 2
    (folder,) = (tmp_path / "outputs").glob("*/*")
    resumed = command("fit", *arguments, "fit.resume=true")
    assert resumed.code == 0, resumed.err
    assert "resuming at step 30" in resumed.out
    assert [p.parent for p in (tmp_path / "outputs").rglob("metrics.json")] == [folder]


def test_a_changed_image_is_fitted_again(command: Callable[..., Ran], tmp_path: Path, picture: np.ndarray) -> None:
    again = ("fit", "signal.path=image.npy", *SMALL[1:], "hydra.run.dir=out", "fit.resume=true")
    np.save(tmp_path / "image.npy", picture)
    assert command(*again).code == 0
    assert "complete already" in command(*again).out
    np.save(tmp_path / "image.npy", 255 - picture)
    changed = command(*again)
    assert changed.code == 0 and "complete already" not in changed.out


def test_a_refused_resume_touches_nothing(
    command: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("neuralfield.run.results.write", lambda *_, **__: 1 / 0)
        assert command("fit", *SMALL, "hydra.run.dir=out").code == 2
    before = {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    refused = command("fit", *SMALL, "fit.lr=0.5", "hydra.run.dir=out", "fit.resume=true")
    assert refused.code == 2 and "belongs to another configuration: fit.lr" in refused.err
    assert {p: p.read_bytes() for p in (tmp_path / "out").rglob("*") if p.is_file()} == before


def test_a_folder_that_was_there_stays(command: Callable[..., Ran], tmp_path: Path) -> None:
    (tmp_path / "mine" / "out").mkdir(parents=True)
    assert command("fit", "signal.path=nothere.png", "hydra.run.dir=mine/out").code == 2
    assert (tmp_path / "mine" / "out").is_dir()


def test_exhausted_memory_is_said_wherever_it_happens(
    command: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("neuralfield.image_results.render", exhausted)
    ran = command("fit", *SMALL)
    assert ran.code == 2 and "a smaller fit.batch_size" in ran.err


def test_a_users_own_encoding(command: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_module.py").write_text(
        "from neuralfield import encodings\n"
        "@encodings.register('ownsquare')\n"
        "class Square(encodings.Encoding):\n"
        "    def __init__(self, in_dim: int, power: float = 2.0):\n"
        "        super().__init__(in_dim)\n"
        "        self.power = power\n"
        "    @property\n"
        "    def out_dim(self): return self.in_dim\n"
        "    def encode(self, x): return x**self.power\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("imports=own_module", "encoding.name=ownsquare", "+encoding.power=3.0")
    ran = command("fit", *SMALL, *own, "hydra.run.dir=out")
    assert ran.code == 0, ran.err
    assert command("render", "out", "--import", "own_module", "--scale", "2").code == 0
    assert "cannot be imported" in command("info", "out", "--import", "no_such_module").err
    field = nf.load(tmp_path / "out" / "field.safetensors")
    assert field.config["encoding"] == {"name": "ownsquare", "in_dim": 2, "power": 3.0}
