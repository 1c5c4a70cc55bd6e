"""A shape in the browser: the surface of the fit, the truth over it or beside it, and where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import UInt8

from neuralfield.errors import NeuralFieldError
from neuralfield.run_folder import MESH
from neuralfield.signals.colour import srgb_to_linear
from neuralfield.signals.mesh import TriangleMesh
from neuralfield.viewer.desk import Desk
from neuralfield.viewer.runs import Run
from neuralfield.viewer.shape_model import ShapeModel, error_colours
from neuralfield.viewer.space import SpaceStage, clear_limits, look, look_from
from neuralfield.viewer.worker import Check

FIT, TRUTH, WIRES = "/shape/fit", "/shape/truth", "/shape/wires"
"""Names in the scene."""

WRITTEN, EXTRACTED = MESH, "marching cubes"
HIDDEN, OVER, BESIDE = "hidden", "over the fit", "beside the fit"

_FIT, _OVER, _BESIDE, _WIRE = (127, 160, 203), (235, 150, 70), (200, 198, 192), (40, 44, 52)
_GAP = 1.08  # between two shapes beside each other, in widths


class ShapeStage(SpaceStage):
    """The view of a run of a shape.

    **Arguments**

    - `desk`: where to show it.
    - `run`: what to show.
    """

    def __init__(self, desk: Desk, run: Run) -> None:
        super().__init__(desk, "shape/")
        self.model = ShapeModel(run)
        self._surfaces: dict[object, TriangleMesh] = {}
        self._errors: tuple[TriangleMesh, np.ndarray] | None = None
        self._build_panel()
        self._turn()
        self._redraw()

    def joined(self, client: Any) -> None:
        """Show a browser the shape from the front."""
        clear_limits(client)
        look(client, *look_from(self.up.value))

    def _build_panel(self) -> None:
        gui = self._desk.server.gui
        self._folder = gui.add_folder("Shape")
        sources = (WRITTEN, EXTRACTED) if self.model.has_mesh else (EXTRACTED,)
        with self._folder:
            self.source = gui.add_dropdown("Surface", sources, initial_value=sources[0])
            self.resolution = gui.add_slider("Resolution", 16, 512, 16, 128, hint="cells along the cube's side")
            self.truth = gui.add_dropdown("Truth", (HIDDEN, OVER, BESIDE), initial_value=HIDDEN)
            self.errors = gui.add_checkbox("Errors", False, hint="colours: distance to the truth")
            self.limit = gui.add_slider(
                "Error range", 0.05, 5.0, 0.05, 1.0, visible=False, hint="darkest colour, in % of the longest side"
            )
            self.wires = gui.add_checkbox("Wireframe", False)
            self.up = gui.add_dropdown("Up", ("y", "z"), initial_value=self.model.up)
            self.note = gui.add_markdown("")
        for handle in (self.source, self.truth, self.errors, self.limit, self.wires):
            handle.on_update(lambda _: self._redraw())
        self.resolution.on_update(lambda _: self._refined())
        self.up.on_update(lambda _: self._turned())

    def _refined(self) -> None:
        if self.source.value == EXTRACTED:
            self._redraw()
        else:
            self.source.value = EXTRACTED  # which draws anew itself

    def _turned(self) -> None:
        self._turn()
        for client in self._desk.server.get_clients().values():
            look(client, *look_from(self.up.value))

    def _turn(self) -> None:
        server = self._desk.server
        position, target, up = look_from(self.up.value)
        server.scene.set_up_direction(up)
        server.initial_camera.up = up
        server.initial_camera.position = position
        server.initial_camera.look_at = target

    def _redraw(self) -> None:
        self.limit.visible = self.errors.value
        self._desk.submit("shape/draw", self._draw)

    def _draw(self, check: Check) -> None:
        shown, coloured, limit, wires = self.truth.value, self.errors.value, self.limit.value, self.wires.value
        # What is asked for beyond the surface may fail; the surface is shown nevertheless.
        surface, truth, errors, problem = self._surface(check), None, None, None
        check()
        try:
            truth = self.model.truth() if shown != HIDDEN or coloured else None
            check()
            errors = self._errors_of(surface) if coloured else None
            check()
        except NeuralFieldError as error:
            problem = error
        aside = _offset(surface, truth) if truth is not None and shown == BESIDE else 0.0
        with self._desk.server.atomic():
            if errors is None:
                self._put(FIT, surface, _FIT, -aside, wireframe=wires)
                self._drop(WIRES)
            else:
                self._put_coloured(surface, error_colours(errors, limit / 100), -aside)
                self._put(WIRES, surface, _WIRE, -aside, wireframe=True) if wires else self._drop(WIRES)
            if truth is not None and shown != HIDDEN:
                colour, opacity = (_OVER, 0.45) if shown == OVER else (_BESIDE, None)
                self._put(TRUTH, truth, colour, aside, wireframe=wires, opacity=opacity)
            else:
                self._drop(TRUTH)
        words = [f"{len(surface.faces):,} triangles"]
        if errors is not None:
            words.append(
                f"distance to the truth: mean {errors.mean():.2%}, largest {errors.max():.2%} of its longest side"
            )
        self.note.content = "; ".join(words)
        if problem is not None:
            raise problem

    def _surface(self, check: Check) -> TriangleMesh:
        key: object = WRITTEN if self.source.value == WRITTEN else int(self.resolution.value)
        if key not in self._surfaces:
            if key == WRITTEN:
                mesh = self.model.written()
            else:
                try:
                    mesh = self.model.extracted(int(self.resolution.value), self._desk.watched(check))
                finally:
                    self._desk.progress(None)
            # The written one is kept, and one that was extracted: a fine one takes a hundred megabytes.
            self._surfaces = {kept: old for kept, old in self._surfaces.items() if kept == WRITTEN}
            self._surfaces[key] = mesh
        return self._surfaces[key]

    def _errors_of(self, mesh: TriangleMesh) -> np.ndarray:
        if self._errors is None or self._errors[0] is not mesh:
            self._errors = mesh, self.model.errors(mesh)
        return self._errors[1]

    def _put(self, name: str, mesh: TriangleMesh, colour: tuple[int, int, int], aside: float, **look: Any) -> None:
        self._nodes[name] = self._desk.server.scene.add_mesh_simple(
            name, mesh.vertices - 0.5, mesh.faces, color=colour, side="double", position=(aside, 0.0, 0.0), **look
        )

    def _put_coloured(self, mesh: TriangleMesh, colours: UInt8[np.ndarray, "v 3"], aside: float) -> None:
        import trimesh

        # glTF's colours at vertices are linear light.
        linear = np.rint(srgb_to_linear(colours / 255.0) * 255).astype(np.uint8)
        solid = trimesh.Trimesh(mesh.vertices - 0.5, mesh.faces, vertex_colors=linear, process=False, validate=False)
        self._nodes[FIT] = self._desk.server.scene.add_mesh_trimesh(FIT, solid, position=(aside, 0.0, 0.0))

    def _drop(self, name: str) -> None:
        node = self._nodes.pop(name, None)
        if node is not None:
            node.remove()


def _offset(one: TriangleMesh, other: TriangleMesh) -> float:
    """How far two shapes have to move apart, each, to stand beside each other."""
    width = max(float(mesh.box[1][0] - mesh.box[0][0]) for mesh in (one, other))
    return _GAP * width / 2
