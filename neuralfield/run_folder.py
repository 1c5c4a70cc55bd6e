"""The files in a run's folder, by name, and reading the JSON ones back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS, FAILED, CONFIG = "metrics.json", "failed.json", "config.yaml"
FIELD, BEST, HISTORY = "field.safetensors", "field_best.safetensors", "history.csv"
RECONSTRUCTION, COMPARISON, TRAINING = "reconstruction.png", "comparison.png", "training.png"
TRUTH, MESH = "truth.png", "mesh.ply"
VOLUMES = ("volume.nii.gz", "volume.nrrd", "volume.npy")
RESULTS = (FIELD, BEST, HISTORY, RECONSTRUCTION, COMPARISON, TRAINING, TRUTH, MESH, *VOLUMES)
"""What a finished run may leave beside its metrics."""


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where the file is missing, broken, or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
