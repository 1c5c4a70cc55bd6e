"""`neuralfield view`: runs in the browser."""

from __future__ import annotations

import getpass
import socket
import sys
import threading
from collections.abc import Sequence

from neuralfield.cli.arguments import Parser
from neuralfield.cli.guard import guarded
from neuralfield.plugins import import_modules

_LOCAL = ("127.0.0.1", "localhost", "::1")


def main(argv: list[str] | None = None) -> int:
    """The whole of `scripts/view.py`: returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: view(arguments))


def view(arguments: list[str]) -> int:
    """Serve runs as a web page until Ctrl-C; returns the exit code."""
    parser = Parser(
        prog="neuralfield view",
        description="Runs in the browser: images (pan and zoom beyond the pixels), shapes and volumes. Ctrl-C ends it.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folder of a run or of a sweep, or a field.safetensors")
    parser.add_argument("--import", dest="imports", action="append", default=[], help="module with your own encoding")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine alone)"
    )
    parser.add_argument(
        "--port", type=int, default=8080, help="port to listen at (default 8080, else the next free one)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    given = parser.parse_args(arguments)

    from neuralfield import devices
    from neuralfield.viewer import Viewer, find_runs

    import_modules(given.imports)
    entries = find_runs(given.runs)
    viewer = Viewer(entries, host=given.host, port=given.port, device=devices.resolve(given.device))
    try:
        print("\n".join(invitation(len(entries), viewer.host, viewer.port, given.port)), flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        return 0  # the way to end it
    finally:
        viewer.close()
    return 0


def invitation(runs: int, host: str, port: int, wanted: int) -> Sequence[str]:
    """What to tell a user: where the page is, how to reach it from another machine, and how to end."""
    lines = [f"port {wanted} is taken; took {port}"] if wanted not in (0, port) else []
    shown = f"[{host}]" if ":" in host else host
    lines.append(
        f"{runs} run{'s' if runs != 1 else ''} at http://{shown if host != '0.0.0.0' else socket.gethostname()}:{port}"
    )
    if host in _LOCAL:
        lines.append(
            f"from another machine: ssh -L {port}:{shown}:{port} {_user()}@{socket.gethostname()}, then that address"
        )
    else:
        lines.append("whoever reaches this machine can open it")
    return [*lines, "Ctrl-C ends it"]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user need not have a name
        return "USER"
