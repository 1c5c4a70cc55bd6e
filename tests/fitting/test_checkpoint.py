from __future__ import annotations

from pathlib import Path

import pytest
import torch

from neuralfield.errors import FieldFileError, OutputError
from neuralfield.fitting import checkpoint

STATE = checkpoint.State(
    step=7, seconds=1.25, history=[{"step": 0, "psnr_train": 0.1 + 0.2}], best_quality=30.1, best_step=4
)
IDENTITY = {"fit": {"lr": 1e-3, "steps": 10}, "seed": 0}


def test_what_goes_in_comes_out_bit_for_bit(tmp_path: Path) -> None:
    tensors = {"field/a": torch.randn(5), "optimizer/a/step": torch.tensor(3.0)}
    checkpoint.save(tmp_path, STATE, tensors, IDENTITY)
    found = checkpoint.load(tmp_path, IDENTITY)
    assert found is not None
    assert found[0] == STATE
    assert found[1].keys() == tensors.keys()
    assert all(torch.equal(found[1][k], v) for k, v in tensors.items())


def test_a_folder_without_a_checkpoint_has_none(tmp_path: Path) -> None:
    assert checkpoint.load(tmp_path, IDENTITY) is None
    assert not checkpoint.exists(tmp_path)


def test_another_configuration_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, STATE, {"x": torch.zeros(1)}, IDENTITY)
    with pytest.raises(FieldFileError, match=r"fit\.lr is 0\.001 there, 0\.01 now"):
        checkpoint.load(tmp_path, {"fit": {"lr": 1e-2, "steps": 10}, "seed": 0})


@pytest.mark.parametrize("keep", [0, 4, 60, 150])
def test_a_broken_checkpoint_is_refused_with_a_way_out(tmp_path: Path, keep: int) -> None:
    checkpoint.save(tmp_path, STATE, {"x": torch.zeros(100)}, IDENTITY)
    file = tmp_path / "checkpoint" / "latest.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(FieldFileError, match="delete that file"):
        checkpoint.load(tmp_path, IDENTITY)


def test_a_failed_write_keeps_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path, STATE, {"x": torch.zeros(1)}, IDENTITY)

    def full(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("neuralfield.files.save_file", full)
    with pytest.raises(OutputError, match="disk full"):
        checkpoint.save(tmp_path, checkpoint.State(step=99), {"x": torch.ones(1)}, IDENTITY)
    found = checkpoint.load(tmp_path, IDENTITY)
    assert found is not None
    assert found[0].step == 7
    assert [p.name for p in (tmp_path / "checkpoint").iterdir()] == ["latest.safetensors"]


def test_remove_takes_the_leftovers_of_a_killed_writer_too(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, STATE, {"x": torch.zeros(1)}, IDENTITY)
    (tmp_path / "checkpoint" / ".writing-0011-latest.safetensors").write_bytes(b"half")
    checkpoint.remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
