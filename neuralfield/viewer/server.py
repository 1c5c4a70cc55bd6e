"""The viewer itself: a page with a list of runs, the numbers of the chosen one, and the view that its kind asks for."""

from __future__ import annotations

import contextlib
import errno
import importlib
import io
import socket
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from neuralfield.errors import ConfigError, MissingDependency
from neuralfield.viewer.desk import Desk
from neuralfield.viewer.runs import Entry, open_run
from neuralfield.viewer.summary import plain, summary
from neuralfield.viewer.worker import Check

PORT = 8080
_TRIES = 100  # ports after the one that was asked for


class Stage(Protocol):
    """The view of one run."""

    def joined(self, client: Any) -> None:
        """A browser has come, or the view is new to it."""

    def left(self, client: Any) -> None:
        """A browser has gone."""

    def moved(self, client: Any) -> None:
        """The camera of a browser has moved."""

    def close(self) -> None:
        """Take everything away."""


class Viewer:
    """A running viewer. Everything that takes long is done on a thread of its own.

    **Arguments**

    - `entries`: the runs to choose from, with different names; the first is shown.
    - `host`, `port`: where to listen. A port that is taken is replaced by the next free one; 0 takes any.
    - `device`: where fields are evaluated.

    Raises :class:`~neuralfield.errors.MissingDependency` without viser, and :class:`~neuralfield.errors.ConfigError` if it
    cannot listen there.
    """

    def __init__(
        self, entries: Sequence[Entry], *, host: str = "127.0.0.1", port: int = PORT, device: str | torch.device = "cpu"
    ) -> None:
        if not entries:
            raise ConfigError("there is no run to show")
        viser = require_viser()
        self._entries = {entry.name: entry for entry in entries}
        self._device, self._lock = device, threading.RLock()
        self.stage: Stage | None = None
        with contextlib.redirect_stdout(
            io.StringIO()
        ):  # its banner: the command says where the page is in its own words
            self.server = viser.ViserServer(host=host, port=free_port(host, port), label="neuralfield", verbose=False)
        self.host, self.port = host, int(self.server.get_port())
        self.desk = Desk(self.server)
        self._build_panel()
        self.server.on_client_connect(self._joined)
        self.server.on_client_disconnect(self._left)
        self._open(entries[0].name)

    def idle(self, timeout: float | None = None) -> bool:
        """Wait until all that was asked for is shown; whether it is within `timeout` seconds."""
        return self.desk.worker.idle(timeout)

    def close(self) -> None:
        """End it."""
        self.desk.close()

    def _build_panel(self) -> None:
        gui = self.server.gui
        # Sharing would send the page through a foreign server.
        gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
        gui.main_panel.dock_right()  # beside the picture, not over it
        names = tuple(self._entries)
        self.run = gui.add_dropdown("Run", names, initial_value=names[0])
        self.again = gui.add_button("Read again", color="gray", hint="after the run has gone on")
        self.desk.furnish()
        self._numbers_folder = gui.add_folder("Numbers", order=1e6)
        with self._numbers_folder:
            self.numbers = gui.add_markdown("")
        self.run.on_update(lambda _: self._open(self.run.value))
        self.again.on_click(lambda _: self._open(self.run.value))

    def _open(self, name: str) -> None:
        self.desk.worker.cancel()
        self.desk.submit("run", lambda check: self._show(name, check))

    def _show(self, name: str, check: Check) -> None:
        with self._lock:
            if self.stage is not None:
                self.stage.close()
                self.stage = None
            entry = self._entries[name]
            self.numbers.content = plain(entry.folder)
            run = open_run(entry, self._device)
            check()
            self.numbers.content = summary(run)
            module = importlib.import_module(
                f"neuralfield.viewer.{run.kind}_stage"
            )  # a shape's needs what others do not
            self.stage = getattr(module, f"{run.kind.capitalize()}Stage")(self.desk, run)
            for client in self.server.get_clients().values():
                self.stage.joined(client)
                self.stage.moved(client)

    def _joined(self, client: Any) -> None:
        async def moved(_: Any) -> None:
            stage = self.stage
            if stage is not None:
                stage.moved(client)

        client.camera.on_update(moved)
        with self._lock:
            if self.stage is not None:
                self.stage.joined(client)
                self.stage.moved(client)

    def _left(self, client: Any) -> None:
        with self._lock:
            if self.stage is not None:
                self.stage.left(client)


def require_viser() -> Any:
    """The module viser. Raises :class:`~neuralfield.errors.MissingDependency` without it."""
    command = 'pip install "neuralfield[view]"'
    try:
        viser = importlib.import_module("viser")
    except ImportError as error:
        raise MissingDependency(f"the viewer needs viser ({error}); install it with: {command}") from error
    # 1.1: dragging, and the panel beside the picture.
    if not hasattr(viser.MeshHandle, "on_drag") or not hasattr(viser.GuiApi, "main_panel"):
        raise MissingDependency(f"the viewer needs a newer viser than {viser.__version__}; upgrade with: {command} -U")
    return viser


def free_port(host: str, port: int) -> int:
    """`port`, or the next one that nobody listens on at `host`; 0 for any.

    Raises :class:`~neuralfield.errors.ConfigError` if there is none near, or `host` is no address of this machine.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port must be between 0 and 65535, got {port}")
    for candidate in range(port, min(port + _TRIES, 65536)):
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                return int(probe.getsockname()[1])
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ConfigError(
                    f"cannot listen on {host} ({error.strerror or error}); try --host 127.0.0.1"
                ) from error
            if error.errno == errno.EACCES and candidate >= 1024:
                raise ConfigError(f"no permission to listen on {host}, port {candidate}") from error
    raise ConfigError(f"ports {port} to {min(port + _TRIES, 65536) - 1} of {host} are all taken; give another --port")
