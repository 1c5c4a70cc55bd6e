"""A volume in the browser: three slices that move, with window and level, and the surface at a value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64

from neuralfield.signals.volume import VolumeSignal
from neuralfield.viewer.desk import Desk
from neuralfield.viewer.image_model import heat
from neuralfield.viewer.runs import Run, load_truth
from neuralfield.viewer.space import SpaceStage, clear_limits, look, look_along, look_from
from neuralfield.viewer.volume_model import AXES, PLANES, VolumeModel, windowed
from neuralfield.viewer.worker import Check

SLICES = tuple(f"/volume/slice_{axis}" for axis in AXES)
SURFACE, BOX = "/volume/surface", "/volume/box"
"""Names in the scene."""

# Turns of pictures, whose columns run along their own x and rows along their own y, as quaternions (w, x, y, z):
# columns and rows along y, z; x, z; x, y.
_TURNS = ((0.5, 0.5, 0.5, 0.5), (0.5**0.5, 0.5**0.5, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
_AWAY = 1.4  # for the whole cube to be seen
_COARSE = 4.0  # times coarser than asked for is what is shown at once
_LARGE = 1 << 15  # points from which that is worth it
_BONE, _LINE = (226, 217, 196), (120, 120, 120)


class VolumeStage(SpaceStage):
    """The view of a run of a volume.

    **Arguments**

    - `desk`: where to show it.
    - `run`: what to show.
    """

    def __init__(self, desk: Desk, run: Run) -> None:
        super().__init__(desk, "volume/")
        self._run = run
        self.model = VolumeModel(run.field)
        self._values: dict[int, tuple[str, np.ndarray]] = {}
        self._build_panel()
        self._build_scene()
        self._evaluate_all()
        desk.submit("volume/truth", self._load_truth)

    def joined(self, client: Any) -> None:
        """Show a browser the box from the front."""
        clear_limits(client)
        look(client, *look_from("z", _AWAY))

    def _build_panel(self) -> None:
        gui = self._desk.server.gui
        # Values of a field are 0 to 1 as a rule, but need not be.
        least, divide, most = self.model.levels()
        low, high = min(0.0, _round(least, math.floor)), max(1.0, _round(most, math.ceil))
        step = (high - low) / 200

        def snapped(value: float) -> float:
            return low + step * round((min(max(value, low), high) - low) / step)

        usual = least > -0.5 and most < 1.5  # what a fit overshoots is no reason for another window
        middle, width = (0.5, 1.0) if usual else (snapped((low + high) / 2), high - low)
        self._folder = gui.add_folder("Volume")
        with self._folder:
            self.shown = gui.add_dropdown("Show", ("fit",), initial_value="fit")
            self.channel = gui.add_dropdown("Channel", self._channels(), visible=self.model.channels > 1)
            self.slices = tuple(
                gui.add_slider(axis, 0.0, max(n - 1.0, 0.25), 0.25, float(n // 2), hint="voxel; fractions lie between")
                for axis, n in zip(AXES, self.model.voxels, strict=True)
            )
            self.visible = tuple(gui.add_checkbox(f"Slice across {axis}", True) for axis in AXES)
            self.detail = gui.add_slider("Detail", 1, 8, 1, 1, hint="samples of the fit to a voxel's side")
            self.level = gui.add_slider("Level", low, high, step, middle, hint="the value that is middle grey")
            self.window = gui.add_slider("Window", step, 2 * (high - low), step, width, hint="black to white")
            self.limit = gui.add_slider("Error range", step, high - low, step, 20 * step, visible=False)
            self.along = gui.add_button_group("Look along", AXES)
            surface = gui.add_folder("Surface")
        with surface:
            self.surface = gui.add_checkbox("Show surface", False)
            self.iso = gui.add_slider("At value", low, high, step, snapped(divide))
            self.resolution = gui.add_slider("Resolution", 16, 512, 16, 96, hint="cells along the longest side")
            self.opacity = gui.add_slider("Opacity", 0.1, 1.0, 0.05, 1.0)
            self.note = gui.add_markdown("")
        self._connect()

    def _connect(self) -> None:
        def urgent(number: int) -> Callable[[Any], None]:
            return lambda _: self._evaluate(number)

        for number, handle in enumerate(self.slices):
            handle.on_update(urgent(number))
        for handle in (self.shown, self.detail):
            handle.on_update(lambda _: self._evaluate_all())
        for handle in (self.level, self.window, self.limit, self.channel):
            handle.on_update(lambda _: self._desk.submit("volume/colours", self._recolour, urgent=True))
        for handle in self.visible:
            handle.on_update(lambda _: self._show_or_hide())
        for handle in (self.surface, self.iso, self.resolution, self.channel):
            handle.on_update(lambda _: self._desk.submit("volume/surface", self._extract))
        self.opacity.on_update(lambda _: self._fade())
        self.along.on_click(lambda event: self._look(event.client, self.along.value))

    def _channels(self) -> tuple[str, ...]:
        each = tuple(str(number) for number in range(self.model.channels))
        return ("colours", *each) if self.model.channels == 3 else each

    def _channel(self) -> int | None:
        return None if self.channel.value == "colours" else int(self.channel.value)

    def _build_scene(self) -> None:
        server = self._desk.server
        position, target, up = look_from("z", _AWAY)
        server.scene.set_up_direction("+z")
        server.initial_camera.up = up
        server.initial_camera.position = position
        server.initial_camera.look_at = target
        self._nodes[BOX] = server.scene.add_line_segments(
            BOX, box_edges(self.model.low, self.model.high) - 0.5, _LINE, thickness=1.0, thickness_units="screen"
        )

    def _load_truth(self, check: Check) -> None:
        try:
            signal = load_truth(self._run, self._desk.watched(check))
        finally:
            self._desk.progress(None)
        assert isinstance(signal, VolumeSignal)
        self.model = VolumeModel(self._run.field, signal)
        self.shown.options = ("fit", "truth", "error")

    def _evaluate_all(self) -> None:
        self.limit.visible = self.shown.value == "error"
        for number in range(3):
            self._evaluate(number)

    def _evaluate(self, number: int) -> None:
        self._desk.submit(f"volume/slice/{number}", lambda check: self._slice(number, check), urgent=True)

    def _slice(self, number: int, check: Check) -> None:
        shown, voxel, detail = self.shown.value, float(self.slices[number].value), float(self.detail.value)
        plane = PLANES[number]
        points = self.model.voxels[plane.rows] * self.model.voxels[plane.columns] * detail**2
        if shown == "fit" and points > _LARGE:
            self._put(number, voxel, shown, self.model.values(shown, number, voxel, detail / _COARSE))
        values = self.model.values(shown, number, voxel, detail, check)
        check()
        self._put(number, voxel, shown, values)

    def _put(self, number: int, voxel: float, shown: str, values: np.ndarray) -> None:
        self._values[number] = shown, values
        plane, model = PLANES[number], self.model
        middle = (model.low + model.high) / 2 - 0.5
        middle[number] = model.place(number, voxel) - 0.5
        size = model.high - model.low
        pixels = self._coloured(shown, values)
        name = SLICES[number]
        node = self._nodes.get(name)
        if node is None:
            self._nodes[name] = self._desk.server.scene.add_image(
                name, pixels, float(size[plane.columns]), float(size[plane.rows]), format="png", wxyz=_TURNS[number],
                position=middle, visible=self.visible[number].value, cast_shadow=False, receive_shadow=False,
            )  # fmt: skip
            self._show_or_hide()  # the box may have been ticked meanwhile
            return
        with self._desk.server.atomic():
            node.image = pixels
            node.position = middle

    def _coloured(self, shown: str, values: np.ndarray) -> np.ndarray:
        if shown == "error":
            channel = self._channel()
            picked = values.mean(axis=2) if channel is None else values[..., channel]
            return heat(picked / self.limit.value)
        return windowed(values, self.level.value, self.window.value, self._channel())

    def _recolour(self, check: Check) -> None:
        for number, (shown, values) in list(self._values.items()):
            node = self._nodes.get(SLICES[number])
            if node is not None:
                node.image = self._coloured(shown, values)
            check()

    def _show_or_hide(self) -> None:
        for name, handle in zip(SLICES, self.visible, strict=True):
            if name in self._nodes:
                self._nodes[name].visible = handle.value

    def _extract(self, check: Check) -> None:
        if not self.surface.value:
            self._drop_surface()
            return
        level, channel = float(self.iso.value), self._channel() or 0
        try:
            watched = self._desk.watched(check)
            mesh = self.model.surface(level, int(self.resolution.value), channel, watched)
        except ValueError:
            self._drop_surface()
            raise
        finally:
            self._desk.progress(None)
        check()
        self._nodes[SURFACE] = self._desk.server.scene.add_mesh_simple(
            SURFACE, mesh.vertices - 0.5, mesh.faces, color=_BONE, side="double", opacity=self._opacity()
        )
        self._fade()  # the slider may have moved meanwhile
        self.note.content = f"{len(mesh.faces):,} triangles at {self.model.in_source(level):.4g} of the source"

    def _opacity(self) -> float | None:
        return None if self.opacity.value >= 1 else float(self.opacity.value)

    def _fade(self) -> None:
        if SURFACE in self._nodes:
            self._nodes[SURFACE].opacity = self._opacity()

    def _drop_surface(self) -> None:
        node = self._nodes.pop(SURFACE, None)
        if node is not None:
            node.remove()
        self.note.content = ""

    def _look(self, client: Any, axis: str) -> None:
        for one in [client] if client is not None else list(self._desk.server.get_clients().values()):
            look(one, *look_along(axis))


def box_edges(low: Float64[np.ndarray, " 3"], high: Float64[np.ndarray, " 3"]) -> Float64[np.ndarray, "12 2 3"]:
    """The ends of a box's edges."""
    corners = np.array([[(low, high)[(n >> k) & 1][k] for k in range(3)] for n in range(8)])
    return np.array([corners[[n, n | (1 << k)]] for n in range(8) for k in range(3) if not (n >> k) & 1])


def _round(value: float, towards: Callable[[float], int]) -> float:
    """To two digits, up or down; of values near 0 to 1 nothing but those."""
    if -0.1 <= value <= 1.1:
        return min(max(value, 0.0), 1.0)
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - 1)
    return towards(value / unit) * unit
