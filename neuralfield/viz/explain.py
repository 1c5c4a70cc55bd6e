"""The figures of an explanation, each a function of the explanation and of paths (.png or .svg) to write it to."""

from neuralfield.viz.explain_after import after_figure
from neuralfield.viz.explain_bands import bands_figure
from neuralfield.viz.explain_curves import curves_figure, sweep_figure
from neuralfield.viz.explain_kernels import kernels_figure, spectra_figure
from neuralfield.viz.explain_parts import parts_figure, unlearned_figure
from neuralfield.viz.explain_sigma import sigma_figure

__all__ = [
    "after_figure",
    "bands_figure",
    "curves_figure",
    "kernels_figure",
    "parts_figure",
    "sigma_figure",
    "spectra_figure",
    "sweep_figure",
    "unlearned_figure",
]
