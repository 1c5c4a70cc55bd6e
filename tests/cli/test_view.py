"""`scripts/view.py`: where it says the page is, how it ends, and its complaints."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest

import neuralfield as nf
from neuralfield.cli.view import invitation, main

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "view.py"


@pytest.fixture
def run_folder(tmp_path: Path, picture: np.ndarray) -> Path:
    field = nf.fit(picture, encoding="fourier", network={"width": 16, "depth": 1}, steps=2, progress=False)
    nf.save(field, tmp_path / "run" / "field.safetensors")
    return tmp_path / "run"


def test_the_script_serves_until_it_is_interrupted(run_folder: Path) -> None:
    pytest.importorskip("viser")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, str(SCRIPT), str(run_folder), "--port", str(port)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        # A shell starts a job in the background without the signal of Ctrl-C; this one has it.
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        try:
            assert process.stdout is not None
            lines: list[str] = []
            while not lines or "Ctrl-C" not in lines[-1]:
                lines.append(process.stdout.readline())
                assert lines[-1], process.communicate()
            said = "".join(lines)
            assert f"port {port} is taken; took " in said and "1 run at http://127.0.0.1:" in said
            address = said.split("1 run at ")[1].split()[0]
            chosen = int(address.rsplit(":", 1)[1])
            assert f"ssh -L {chosen}:127.0.0.1:{chosen} " in said
            with urllib.request.urlopen(address, timeout=20) as page:
                assert page.status == 200
            process.send_signal(signal.SIGINT)
            _, complaints = process.communicate(timeout=20)
            assert process.returncode in (0, 130) and "Traceback" not in complaints
        finally:
            process.kill()
            process.wait()


def test_what_it_says() -> None:
    assert "port" not in invitation(2, "127.0.0.1", 8080, 8080)[0] and "2 runs at" in invitation(2, "::1", 8080, 0)[0]
    assert "http://[::1]:8080" in invitation(1, "::1", 8080, 8080)[0]
    open_to_all = "\n".join(invitation(1, "0.0.0.0", 8080, 8080))
    assert socket.gethostname() in open_to_all and "whoever reaches" in open_to_all and "ssh" not in open_to_all


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "required: RUN"),
        (("nowhere",), "does not exist"),
        ((".",), "holds no runs"),
        (("run", "--prot", "3"), "did you mean '--port'"),
        (("run", "--port", "many"), "invalid int value"),
        (("run", "--port", "99999"), "between 0 and 65535"),
        (("run", "--host", "203.0.113.7"), "cannot listen"),
        (("run", "--device", "abacus"), "abacus"),
        (("run", "--import", "no_such_module"), "no_such_module"),
    ],
)
def test_mistakes_are_explained(
    run_folder: Path,
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "--port" in arguments or "--host" in arguments:
        pytest.importorskip("viser")
    monkeypatch.delenv("NEURALFIELD_DEBUG", raising=False)
    (run_folder.parent / "empty").mkdir()
    monkeypatch.chdir(run_folder.parent / "empty" if arguments == (".",) else run_folder.parent)
    assert main(list(arguments)) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_without_viser_it_names_the_command(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main([str(run_folder)]) == 2
    assert 'pip install "neuralfield[view]"' in capsys.readouterr().err
