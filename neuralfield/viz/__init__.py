"""The pictures: every figure that a run, a sweep or a report shows is a function here."""

from neuralfield.viz.comparison import comparison
from neuralfield.viz.style import caption_line
from neuralfield.viz.sweep import RunRow, sweep_figure
from neuralfield.viz.training import training_curve

__all__ = ["RunRow", "caption_line", "comparison", "sweep_figure", "training_curve"]
