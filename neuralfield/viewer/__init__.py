"""An interactive viewer of runs in the browser, by viser: images, shapes and volumes, and switching between runs.

What is shown is computed by the models (:mod:`~neuralfield.viewer.image_model` and its like), which know nothing of a
browser; the stages put it into a scene, and :mod:`~neuralfield.viewer.server` chooses the stage.
"""

from neuralfield.viewer.runs import Entry, find_runs, open_run
from neuralfield.viewer.server import PORT, Viewer

__all__ = ["PORT", "Entry", "Viewer", "find_runs", "open_run"]
