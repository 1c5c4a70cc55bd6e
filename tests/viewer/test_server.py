"""The viewer as it is served: the page, the panel's handles, what is put into the scene, and that it ends."""

from __future__ import annotations

import math
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("viser")

from neuralfield.errors import ConfigError, MissingDependency
from neuralfield.viewer import Viewer, find_runs, image_stage, shape_stage, volume_stage
from neuralfield.viewer.server import free_port, require_viser
from neuralfield.viewer.worker import Superseded
from tests.viewer.browser import Browser
from tests.viewer.conftest import linear_field


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no browser whose decoding has to be waited for."""
    monkeypatch.setattr(image_stage, "_DECODING", 0.0)
    monkeypatch.setattr(image_stage, "_REPLACING", 0.01)


@pytest.fixture
def serve() -> Iterator[Callable[..., Viewer]]:
    viewers: list[Viewer] = []

    def start(*folders: Path) -> Viewer:
        viewers.append(Viewer(find_runs(folders), port=0))
        assert viewers[-1].idle(60)
        return viewers[-1]

    yield start
    for viewer in viewers:
        viewer.close()


@pytest.fixture
def browse() -> Iterator[Callable[..., Browser]]:
    browsers: list[Browser] = []

    def start(viewer: Viewer, **options: Any) -> Browser:
        browsers.append(Browser(viewer.port, **options))
        soon(lambda: len(viewer.server.get_clients()) == len(browsers))
        # The view of an image, which all of these tests begin with, has put the camera where it sees the whole.
        soon(lambda: all(one.camera.position[2] != browsers[-1].START for one in viewer.server.get_clients().values()))
        assert viewer.idle(60)
        return browsers[-1]

    yield start
    for browser in browsers:
        browser.close()


def soon(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60  # a busy machine
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


def node(viewer: Viewer, name: str) -> Any:
    return viewer.server.scene.get_handle_by_name(name)


def sharp(client: Any) -> Any:
    """The only sharp picture that a browser has in the end."""
    found: list[Any] = []

    def only_one() -> bool:
        found[:] = [one for name, one in list(client.scene._handle_from_node_name.items()) if "sharp" in name]
        return len(found) == 1

    soon(only_one)
    return found[0]


def test_the_page_is_served_to_this_machine_alone(serve: Callable[..., Viewer], image_run: Path) -> None:
    viewer = serve(image_run)
    with urllib.request.urlopen(f"http://127.0.0.1:{viewer.port}", timeout=10) as page:
        assert page.status == 200 and b"<html" in page.read(2000).lower()
    with pytest.raises(OSError):  # another address of this machine, so not any
        socket.create_connection(("127.0.0.2", viewer.port), timeout=1)
    viewer.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", viewer.port), timeout=1)


def test_an_image_is_drawn_for_what_a_browser_sees(
    serve: Callable[..., Viewer], browse: Callable[..., Browser], image_run: Path
) -> None:
    viewer = serve(image_run)
    assert viewer.stage.shown.options == ("fit", "truth", "error") and viewer.desk.message == ""
    whole = node(viewer, image_stage.WHOLE)
    assert whole.image.shape == (256, 512, 3) and (whole.render_width, whole.render_height) == (100, 50)
    browser = browse(viewer)
    (client,) = viewer.server.get_clients().values()
    # Zoomed in on the middle eighth: 100 units are 8 pixels of the image, so 12.5 of them are one.
    distance = 12.5 * 48 / 64 / (2 * math.tan(0.5))
    browser.camera((0.0, 0.0, -distance))
    soon(lambda: sharp(client).render_width < 13)
    assert viewer.idle(60)
    picture = sharp(client)
    assert picture.image.shape == (48, 64, 3) and picture.visible
    u = 0.5 + (np.arange(64) + 0.5 - 32) / 64 / 8
    v = 0.5 + (np.arange(48) + 0.5 - 24) / 64 / 4
    assert np.abs(picture.image[..., 0] - 255 * u).max() < 0.52
    assert np.abs(picture.image[..., 1] - 255 * v[:, None]).max() < 0.52
    assert "64 pixels of the screen" in viewer.stage.note.content


def test_truth_and_error_of_an_image(
    serve: Callable[..., Viewer], browse: Callable[..., Browser], image_run: Path, tmp_path: Path
) -> None:
    viewer = serve(image_run)
    browse(viewer)
    (client,) = viewer.server.get_clients().values()
    fit = sharp(client).image
    viewer.stage.shown.value = "truth"
    soon(lambda: sharp(client).image.shape != fit.shape or (sharp(client).image != fit).any())
    assert viewer.idle(60)
    pixels = np.load(tmp_path / "image.npy")
    assert {tuple(colour) for colour in sharp(client).image.reshape(-1, 3)} == {tuple(c) for c in pixels.reshape(-1, 3)}
    assert not viewer.stage.limit.visible
    viewer.stage.shown.value = "error"
    soon(lambda: viewer.stage.limit.visible)
    assert viewer.idle(60)
    before = sharp(client).image.astype(int).sum()
    viewer.stage.limit.value = 255  # the same errors in darker colours
    soon(lambda: sharp(client).image.astype(int).sum() < before)


def test_dragging_and_buttons_move_the_camera(
    serve: Callable[..., Viewer], browse: Callable[..., Browser], image_run: Path
) -> None:
    viewer = serve(image_run)
    browser = browse(viewer)
    (client,) = viewer.server.get_clients().values()
    browser.camera((0.0, 0.0, -50.0))
    soon(lambda: client.camera.position[2] == -50)
    height = 2 * 50 * np.tan(0.5)
    browser.drag(image_stage.GROUND, (0.5, 0.5), (0.6, 0.5), (0.75, 0.25))
    x, y = -0.25 * height * 64 / 48, 0.25 * height
    soon(lambda: np.allclose(client.camera.position, (x, y, -50), atol=1e-3))
    assert np.allclose(client.camera.look_at, (x, y, 0), atol=1e-3)
    viewer.stage._for_each(None, viewer.stage._go_natural)  # 100 units are 8 pixels; the canvas has 48 along its height
    assert client.camera.position[2] == pytest.approx(-600 / (2 * np.tan(0.5)))
    viewer.stage._for_each(client, viewer.stage._go_whole)
    assert np.allclose(client.camera.position[:2], 0)
    # Turned aside, it is turned back.
    browser.camera((5.0, 0.0, -30.0), look_at=(-5.0, 0.0, 0.0))
    soon(lambda: np.allclose(client.camera.look_at, (5, 0, 0)))


def test_back_at_a_view_after_another_was_left_before_it_was_sharp(
    serve: Callable[..., Viewer], browse: Callable[..., Browser], image_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = serve(image_run)
    browser = browse(viewer)
    (client,) = viewer.server.get_clients().values()
    browser.camera((0.0, 0.0, -20.0))
    soon(lambda: client.camera.position[2] == -20)
    assert viewer.idle(60)
    before, draw = sharp(client), viewer.stage.model.draw
    position, image = before.position.copy(), before.image.copy()

    def only_coarsely(*arguments: Any, **options: Any) -> np.ndarray:
        if options["check"] is not None:
            raise Superseded
        return draw(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(viewer.stage.model, "draw", only_coarsely)
        browser.camera((30.0, 0.0, -5.0))
        soon(lambda: sharp(client).image.shape == (6, 8, 3))
    browser.camera((0.0, 0.0, -20.0))
    soon(lambda: sharp(client).image.shape == image.shape)
    assert np.allclose(sharp(client).position, position) and (sharp(client).image == image).all()


def test_each_browser_has_a_view_of_its_own(
    serve: Callable[..., Viewer], browse: Callable[..., Browser], image_run: Path
) -> None:
    viewer = serve(image_run)
    first, _ = browse(viewer), browse(viewer, width=32, height=32)
    one, other = viewer.server.get_clients().values()
    first.camera((20.0, 5.0, -2.0))
    soon(lambda: sharp(one).render_width < 10)
    assert sharp(other).render_width > 90
    first.close()
    soon(lambda: len(viewer.server.get_clients()) == 1)
    soon(lambda: len(viewer.stage._seen) == 1)


def test_a_shape(serve: Callable[..., Viewer], shape_run: Path) -> None:
    viewer = serve(shape_run)
    stage = viewer.stage
    assert stage.source.options == (shape_stage.EXTRACTED,) and stage.resolution.value == 128
    stage.resolution.value = 32
    assert viewer.idle(60)
    soon(lambda: len(node(viewer, shape_stage.FIT).vertices) < 10_000)
    fit = node(viewer, shape_stage.FIT)
    assert np.allclose(fit.vertices.max(axis=0), (0, 0.5, 0.5), atol=1e-6) and node(viewer, shape_stage.TRUTH) is None
    stage.truth.value = shape_stage.BESIDE
    stage.wires.value = True
    soon(lambda: node(viewer, shape_stage.TRUTH) is not None)
    assert viewer.idle(60)
    fit, truth = node(viewer, shape_stage.FIT), node(viewer, shape_stage.TRUTH)
    assert fit.wireframe and truth.position[0] == -fit.position[0] > 0.25
    stage.errors.value = True
    soon(lambda: node(viewer, shape_stage.WIRES) is not None)
    assert viewer.idle(60)
    assert stage.limit.visible and "distance to the truth" in stage.note.content
    assert node(viewer, shape_stage.FIT).glb_data[:4] == b"glTF"
    stage.up.value = "z"
    soon(lambda: np.allclose(viewer.server.initial_camera.up, (0, 0, 1)))


def test_a_shape_whose_truth_is_lost_is_shown_all_the_same(serve: Callable[..., Viewer], shape_run: Path) -> None:
    (shape_run / "config.yaml").unlink()
    viewer = serve(shape_run)
    viewer.stage.resolution.value = 16
    viewer.stage.errors.value = True
    soon(lambda: "not known" in viewer.desk.message)
    assert node(viewer, shape_stage.FIT) is not None
    viewer.stage.errors.value = False
    soon(lambda: viewer.desk.message == "")


def test_a_volume(serve: Callable[..., Viewer], volume_run: Path, tmp_path: Path) -> None:
    viewer = serve(volume_run)
    stage, values = viewer.stage, np.load(tmp_path / "volume.npy")
    assert stage.shown.options == ("fit", "truth", "error")
    stage.shown.value = "truth"
    stage.slices[2].value = 1.0
    low, high = values.min(), values.max()
    expected = np.rint((values[1] - low) / (high - low) * 255)
    soon(lambda: np.array_equal(node(viewer, volume_stage.SLICES[2]).image[..., 0], expected))
    across_z = node(viewer, volume_stage.SLICES[2])
    assert np.allclose(across_z.position, (0, 0, 0.0625)) and (across_z.render_width, across_z.render_height) == (
        1,
        0.5,
    )
    stage.window.value = 0.5
    darker = np.rint(np.clip(((values[1] - low) / (high - low) - 0.5) * 2 + 0.5, 0, 1) * 255)
    soon(lambda: np.abs(node(viewer, volume_stage.SLICES[2]).image[..., 0] - darker).max() <= 1)
    stage.visible[0].value = False
    soon(lambda: not node(viewer, volume_stage.SLICES[0]).visible)
    stage.resolution.value = 16
    stage.surface.value = True
    soon(lambda: node(viewer, volume_stage.SURFACE) is not None)
    stage.opacity.value = 0.5
    soon(lambda: node(viewer, volume_stage.SURFACE).opacity == 0.5)
    stage.iso.value = 1.0
    soon(lambda: "no surface" in viewer.desk.message and node(viewer, volume_stage.SURFACE) is None)
    stage.surface.value = False
    soon(lambda: viewer.desk.message == "")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_stand_where_their_voxels_are(axis: int) -> None:
    """Columns and rows of a picture run along its own x and y, as viser turns them."""
    import viser.transforms

    from neuralfield.viewer.volume_model import PLANES

    turn = viser.transforms.SO3(np.array(volume_stage._TURNS[axis])).as_matrix()
    plane = PLANES[axis]
    assert np.allclose(turn[:, 0], np.eye(3)[plane.columns]) and np.allclose(turn[:, 1], np.eye(3)[plane.rows])


def test_runs_are_switched_and_broken_ones_are_explained(
    serve: Callable[..., Viewer], browse: Callable[..., Browser], image_run: Path, shape_run: Path, volume_run: Path
) -> None:
    broken = image_run.parent / "broken"
    broken.mkdir()
    (broken / "metrics.json").write_text("{}")
    viewer = serve(image_run, shape_run, volume_run, broken)
    browse(viewer)
    assert viewer.run.options == ("image", "shape", "volume", "broken") and "12.35 dB" in viewer.numbers.content
    kinds = {"shape": shape_stage.ShapeStage, "volume": volume_stage.VolumeStage, "image": image_stage.ImageStage}
    names = {"shape": shape_stage.FIT, "volume": volume_stage.SLICES[2], "image": image_stage.WHOLE}
    for name in ("shape", "volume", "broken", "image", "shape"):
        viewer.run.value = name
        soon(lambda name=name: isinstance(viewer.stage, kinds.get(name, type(None))))
        assert viewer.idle(60)
        there = {kind for kind, wanted in names.items() if node(viewer, wanted) is not None}
        assert there == ({name} if name in kinds else set())
        assert ("holds no field" in viewer.desk.message) == (name == "broken")
    (client,) = viewer.server.get_clients().values()
    assert not [name for name in client.scene._handle_from_node_name if "sharp" in name]


def test_a_run_is_read_again(serve: Callable[..., Viewer], make_run: Callable[..., Path]) -> None:
    from neuralfield import field as fields

    folder = make_run("run", linear_field([[0, 0]], [0.0]), {"steps": 1})
    viewer = serve(folder)
    assert (node(viewer, image_stage.WHOLE).image == 0).all()
    assert "not known" in viewer.desk.message  # there is no config.yaml, so no truth
    fields.save(linear_field([[0, 0]], [1.0]), folder / "field.safetensors")
    viewer._open("run")
    assert viewer.idle(60)
    assert (node(viewer, image_stage.WHOLE).image == 255).all()


def test_ports() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) > port
    assert free_port("127.0.0.1", 0) > 0
    for host, port, words in (("203.0.113.7", 8080, "cannot listen"), ("no.such.host.invalid", 1, "cannot listen"),
                              ("127.0.0.1", 70000, "between"), ("127.0.0.1", -1, "between")):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            free_port(host, port)


def test_without_viser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    with pytest.raises(MissingDependency, match=r'pip install "neuralfield\[view\]"'):
        require_viser()


def test_an_old_viser(monkeypatch: pytest.MonkeyPatch) -> None:
    import viser

    monkeypatch.delattr(viser.MeshHandle.__mro__[1], "on_drag")
    with pytest.raises(MissingDependency, match="newer viser"):
        require_viser()
