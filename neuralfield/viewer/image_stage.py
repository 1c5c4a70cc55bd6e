"""An image in the browser: drag to move it, wheel to zoom, and the field is drawn anew for what is seen."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from neuralfield.signals.image import ImageSignal
from neuralfield.viewer import image_plane as plane
from neuralfield.viewer.desk import Desk
from neuralfield.viewer.image_model import SHOWN, ImageModel
from neuralfield.viewer.runs import Run, load_truth
from neuralfield.viewer.worker import Check

WHOLE, GROUND = "/image/whole", "/image/ground"
"""Names in the scene: the whole image, coarsely, and the plane behind it that is dragged. What a browser sees sharply is in
its own scene."""

_WHOLE_SIDE = 512  # pixels of the whole image
_COARSER = (8, 3)  # times coarser than the screen is what is shown at once, and then before it is sharp
_DECODING, _REPLACING = 0.1, 0.4  # seconds until a picture is shown, then until the last one is taken away
_HELP = "Drag to move, wheel to zoom (about the middle), right button or touch with two fingers as well."


@dataclass(eq=False)
class _Shown:
    node: Any
    picture: plane.Picture


@dataclass(eq=False)
class _Seen:
    """What one browser was shown: its pictures, the part of the image in the last finished one, and what was in it."""

    nodes: list[_Shown]
    picture: plane.Picture | None = None
    content: object = None
    count: int = 0
    grab: tuple[float, float] | None = None


class ImageStage:
    """The view of a run of an image.

    **Arguments**

    - `desk`: where to show it.
    - `run`: what to show.
    """

    def __init__(self, desk: Desk, run: Run) -> None:
        self._desk, self._run = desk, run
        self.model = ImageModel(run.field)
        self._size = plane.plane_size(*self.model.aspect)
        self._seen: dict[int, _Seen] = {}
        self._lock = threading.Lock()
        self._build_panel()
        self._build_scene()
        desk.submit("image/whole", self._draw_whole)
        desk.submit("image/truth", self._load_truth)

    def joined(self, client: Any) -> None:
        """Show the whole image in a browser."""
        camera = client.camera
        with self._lock:
            self._seen.setdefault(client.client_id, _Seen([]))
        camera.min_orbit_distance = 0.01
        camera.max_orbit_distance = 4 * plane.fitting(self._size, camera.fov, 1.0)
        camera.min_orbit_distance = plane.fitting(self._size, camera.fov, 1e9) / plane.MOST_ZOOM
        self._go(client, 0.0, 0.0, plane.fitting(self._size, camera.fov, camera.aspect))

    def left(self, client: Any) -> None:
        """Forget a browser."""
        with self._lock:
            self._seen.pop(client.client_id, None)
        self._desk.worker.cancel(f"image/view/{client.client_id}/")

    def moved(self, client: Any) -> None:
        """Draw what a browser sees now, unless it has that already."""
        camera = client.camera
        forward = np.asarray(camera.look_at) - np.asarray(camera.position)
        if forward[2] <= 0 or np.hypot(forward[0], forward[1]) > 1e-3 * forward[2]:
            # Turned, by the arrow keys: an image is looked at from the front.
            x, y, z = (float(c) for c in camera.position)
            self._go(client, x, y, max(abs(z), 1e-3))
            return
        self._desk.submit(f"image/view/{client.client_id}/", lambda check: self._draw_view(client, check), urgent=True)

    def close(self) -> None:
        """Take everything of this view away."""
        self._desk.worker.cancel("image/")
        self._desk.hush("image/")
        with self._lock:
            shown = [one for seen in self._seen.values() for one in seen.nodes]
            for seen in self._seen.values():
                seen.nodes = []
            self._seen.clear()
        for one in shown:
            one.node.remove()
        for handle in (self._whole, self._ground):
            if handle is not None:
                handle.remove()
        self._folder.remove()

    def _build_panel(self) -> None:
        gui = self._desk.server.gui
        self._folder = gui.add_folder("Image")
        with self._folder:
            self.shown = gui.add_dropdown("Show", ("fit",), initial_value="fit")
            self.limit = gui.add_slider("Error range", 1, 255, 1, 26, visible=False, hint="brightest colour, of 255")
            self.whole = gui.add_button("Whole image", color="gray")
            self.natural = gui.add_button("Pixel for pixel", color="gray")
            self.note = gui.add_markdown(_HELP)
        self.shown.on_update(lambda _: self._content_changed())
        self.limit.on_update(lambda _: self._content_changed())
        self.whole.on_click(lambda event: self._for_each(event.client, self._go_whole))
        self.natural.on_click(lambda event: self._for_each(event.client, self._go_natural))

    def _build_scene(self) -> None:
        server = self._desk.server
        fov = server.initial_camera.fov
        server.scene.set_up_direction("-y")
        server.initial_camera.up = (0.0, -1.0, 0.0)
        server.initial_camera.position = (0.0, 0.0, -plane.fitting(self._size, fov, 1.5))
        server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self._whole: Any = None
        far = 100 * plane.SIDE
        corners = np.array([[-far, -far, 1.0], [far, -far, 1.0], [far, far, 1.0], [-far, far, 1.0]])
        self._ground: Any = server.scene.add_mesh_simple(
            GROUND, corners, np.array([[0, 1, 2], [0, 2, 3]]), opacity=0.0, side="double", cast_shadow=False,
            receive_shadow=False,
        )  # fmt: skip

        async def dragged(event: Any) -> None:
            self.drag(event)

        self._ground.on_drag("left")(dragged)

    def drag(self, event: Any) -> None:
        """Move the camera so that what was grabbed stays under the pointer."""
        camera = _camera_of(event.client)
        with self._lock:
            seen = self._seen.get(event.client_id)
        if seen is None:
            return
        if event.phase == "start" or seen.grab is None:
            seen.grab = plane.under(camera, event.start_screen_pos)
        # From where the pointer is alone: what a late message says of the scene is out of date.
        x, y = plane.centred(camera, seen.grab, event.end_screen_pos)
        self._go(event.client, x, y, camera.distance)
        if event.phase == "end":
            seen.grab = None

    def _go(self, client: Any, x: float, y: float, distance: float) -> None:
        camera = client.camera
        with client.atomic():
            camera.up_direction = (0.0, -1.0, 0.0)
            camera.position = (x, y, -distance)
            camera.look_at = (x, y, 0.0)

    def _go_whole(self, client: Any) -> None:
        self._go(client, 0.0, 0.0, plane.fitting(self._size, client.camera.fov, client.camera.aspect))

    def _go_natural(self, client: Any) -> None:
        if self.model.pixels is None:
            return
        camera = _camera_of(client)
        height = camera.height * self._size[0] / self.model.pixels[0]
        self._go(client, camera.x, camera.y, height / (2 * math.tan(camera.fov / 2)))

    def _for_each(self, client: Any, act: Any) -> None:
        for one in [client] if client is not None else list(self._desk.server.get_clients().values()):
            act(one)

    def _content_changed(self) -> None:
        self.limit.visible = self.shown.value == "error"
        self._desk.submit("image/whole", self._draw_whole)
        for client in self._desk.server.get_clients().values():
            self.moved(client)

    def _load_truth(self, check: Check) -> None:
        signal = load_truth(self._run, self._desk.watched(check))
        self._desk.progress(None)
        assert isinstance(signal, ImageSignal)
        self.model = ImageModel(self._run.field, signal)
        self.shown.options = SHOWN

    def _content(self) -> tuple[Any, ...]:
        shown = self.shown.value
        return (shown, self.limit.value / 255) if shown == "error" else (shown, 0.1)

    def _draw_whole(self, check: Check) -> None:
        shown, limit = self._content()
        longest = max(self.model.aspect)
        for side in (_WHOLE_SIDE // 4, _WHOLE_SIDE):
            width, height = (max(1, round(side * n / longest)) for n in self.model.aspect)
            pixels = self.model.draw(shown, (0, 0, 1, 1), width, height, limit=limit, check=check)
            check()
            if self._whole is None:
                self._whole = self._desk.server.scene.add_image(
                    WHOLE, pixels, *self._size, format="png", cast_shadow=False, receive_shadow=False
                )
            else:
                self._whole.image = pixels

    def _draw_view(self, client: Any, check: Check) -> None:
        camera, content = _camera_of(client), self._content()
        picture = plane.visible(camera, self._size)
        with self._lock:
            seen = self._seen.get(client.client_id)
        if picture is None or seen is None or (picture, content) == (seen.picture, seen.content):
            return
        began = time.perf_counter()
        factors = (1,) if content == seen.content and _similar(seen.picture, picture) else (*_COARSER, 1)
        for factor in factors:
            size = max(1, picture.width // factor), max(1, picture.height // factor)
            # The first is always finished: while a camera moves on and on there is something to see.
            ended = None if factor == _COARSER[0] else check
            pixels = self.model.draw(content[0], picture.region, *size, limit=content[1], check=ended)
            self._put(client, seen, picture, camera, pixels)
            seen.picture, seen.content = plane.Picture(picture.region, *size), content
            check()
        zoom = plane.zoom(camera, self._size, self.model.pixels) if self.model.pixels else None
        words = "" if zoom is None else f"{_times(zoom)} pixels of the screen to one of the image; "
        self.note.content = f"{_HELP}\n\n{words}drawn in {time.perf_counter() - began:.1f} s"

    def _put(self, client: Any, seen: _Seen, picture: plane.Picture, camera: plane.Camera, pixels: np.ndarray) -> None:
        """Show a browser a sharp picture instead of the last one.

        A picture is white until the browser has decoded it, and does not say when. So it is hidden first, then comes behind
        the last one, which is taken away a little later.
        """
        middle, width, height = plane.placed(picture, camera, self._size)
        seen.count += 1
        node = client.scene.add_image(
            f"/image/sharp{seen.count}", pixels, width, height, position=middle, visible=False, format="png",
            cast_shadow=False, receive_shadow=False,
        )  # fmt: skip
        time.sleep(_DECODING)
        with self._lock:
            older, last = seen.nodes[:-1], seen.nodes[-1:]
            seen.nodes = [*last, _Shown(node, picture)]
        with client.atomic():
            for one in last:
                middle, width, height = plane.placed(one.picture, camera, self._size, layer=2)
                one.node.position, one.node.render_width, one.node.render_height = middle, width, height
            node.visible = True
            for one in older:
                one.node.remove()
        if last:
            timer = threading.Timer(_REPLACING, lambda: self._forget(seen, last[0]))
            timer.daemon = True
            timer.start()

    def _forget(self, seen: _Seen, one: _Shown) -> None:
        with self._lock:
            there = one in seen.nodes
            seen.nodes = [other for other in seen.nodes if other is not one]
        if there:
            one.node.remove()


def _camera_of(client: Any) -> plane.Camera:
    camera = client.camera
    x, y, z = (float(c) for c in camera.position)
    return plane.Camera(
        x, y, max(-z, 1e-6), float(camera.fov), max(1, int(camera.image_width)), max(1, int(camera.image_height))
    )


def _similar(old: plane.Picture | None, new: plane.Picture) -> bool:
    """Whether most of the new picture is in the old one, about as sharp: then the old one is better than a coarse one."""
    if old is None:
        return False
    over = 1.0
    for low, high, n, m in ((0, 2, old.width, new.width), (1, 3, old.height, new.height)):
        shared = min(old.region[high], new.region[high]) - max(old.region[low], new.region[low])
        length = new.region[high] - new.region[low]
        sharpness = (n / (old.region[high] - old.region[low])) / (m / length)
        over *= max(0.0, shared / length) if sharpness > 0.5 else 0.0
    return over > 0.6


def _times(zoom: float) -> str:
    return f"{zoom:.3g}"
