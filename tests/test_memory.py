from __future__ import annotations

import math
from pathlib import Path

from neuralfield import memory


def test_containers(tmp_path: Path) -> None:
    limits = {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 500\ninactive_file 150\n"}
    for name, content in limits.items():
        (tmp_path / name).write_text(content)
    assert memory.container_bytes(tmp_path) == 450
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.container_bytes(tmp_path) == math.inf
    assert memory.container_bytes(tmp_path / "none") == math.inf


def test_there_is_some() -> None:
    assert 2**20 < memory.available_bytes() < math.inf
