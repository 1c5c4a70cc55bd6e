"""A browser without a screen: it opens the page's connection, and sends the camera and what the pointer does."""

from __future__ import annotations

import threading
from typing import Any

import msgspec
import viser
from websockets.sync.client import connect


class Browser:
    """One tab, `width` x `height` pixels; what the server sends is counted and thrown away."""

    START = -99.0  # z of its camera when it comes

    def __init__(self, port: int, width: int = 64, height: int = 48) -> None:
        self.size, self.received = (width, height), 0
        self._connection = connect(
            f"ws://127.0.0.1:{port}", subprotocols=[f"viser-v{viser.__version__}"], max_size=None, compression=None
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.camera((0.0, 0.0, self.START))

    def camera(self, position: tuple[float, float, float], look_at: tuple[float, float, float] | None = None) -> None:
        """Say where the camera is; unless told otherwise it looks along z."""
        width, height = self.size
        self._send(
            type="ViewerCameraMessage", wxyz=(1.0, 0.0, 0.0, 0.0), position=position, fov=1.0, near=0.01, far=1000.0,
            image_height=height, image_width=width, look_at=look_at or (position[0], position[1], 0.0),
            up_direction=(0.0, -1.0, 0.0),
        )  # fmt: skip

    def drag(self, name: str, start: tuple[float, float], *ends: tuple[float, float]) -> None:
        """Press at a place of the canvas, 0 to 1, move to others, and release at the last."""
        phases = ["start", *["update"] * (len(ends) - 1), "end"]
        for phase, end in zip(phases, (start, *ends), strict=True):
            self._send(
                type="SceneNodeDragMessage", phase=phase, name=name, instance_index=None, start_position=(0, 0, 0),
                start_screen_pos=start, end_position=(0, 0, 0), end_screen_pos=end, button="left", modifier=None, owner="",
            )  # fmt: skip

    def close(self) -> None:
        self._connection.close()
        self._reader.join(5)

    def _send(self, **message: Any) -> None:
        self._connection.send(msgspec.msgpack.encode(message))

    def _read(self) -> None:
        for message in self._connection:
            self.received += len(message)
