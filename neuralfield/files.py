"""Writing results so that a reader never sees half a file: write beside, then rename."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from neuralfield.errors import OutputError

_TEMPORARY = ".writing-"


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` when the block ends well.

    The temporary file keeps the suffix of ``path``, so that writers that choose a format by suffix choose the same one.
    It is removed when the block fails; a full disk or a missing permission becomes an :class:`OutputError`.
    """
    target = Path(path)
    temporary = target.with_name(f"{_TEMPORARY}{secrets.token_hex(4)}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except OSError as error:
        raise explain_os_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True) if temporary.parent.is_dir() else None


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of a process that was killed while it wrote."""
    for path in folder.glob(f"{_TEMPORARY}*"):
        path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as indented JSON (non-finite numbers become null), whole or not at all."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write named tensors and a header as one safetensors file, whole or not at all."""
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        try:
            save_file(ready, temporary, metadata=dict(metadata))
        except SafetensorError as error:  # how its own code reports a full disk
            code = errno.ENOSPC if "no space" in str(error).lower() else errno.EIO
            raise OSError(code, str(error), str(path)) from error


def explain_os_error(error: OSError, path: Path) -> OutputError:
    """Say in one sentence why ``path`` could not be written, and what to do about it."""
    if isinstance(error, OutputError):
        return error
    if error.errno == errno.ENOSPC:
        return OutputError(
            f"disk full while writing {path}; nothing half-written was left. Free some space and run again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return OutputError(f"no permission to write {path}; choose another folder, for example hydra.run.dir=out")
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return OutputError(f"cannot write {path}: a part of that path is a file, not a folder; choose another folder")
    return OutputError(f"cannot write {path}: {error.strerror or error}")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
