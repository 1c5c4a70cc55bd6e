"""Why an encoding works on an image, and how far it will get, before a step is made."""

from neuralfield.explain.after import After, Moment
from neuralfield.explain.api import explain
from neuralfield.explain.auto import AutoEncoding, AutoSigma, encoding_for, sigma_for
from neuralfield.explain.auto_resolution import AutoLevels, AutoResolution, resolution_for
from neuralfield.explain.bands import Bands
from neuralfield.explain.curves import Curve
from neuralfield.explain.explanation import Candidate, Explanation, KernelView, SigmaCurve, Verdict
from neuralfield.explain.patches import Patch, patches
from neuralfield.explain.predictor import predict
from neuralfield.explain.sweep import SweepExplanation, explain_sweep

__all__ = [
    "After",
    "AutoEncoding",
    "AutoLevels",
    "AutoResolution",
    "AutoSigma",
    "Bands",
    "Candidate",
    "Curve",
    "Explanation",
    "KernelView",
    "Moment",
    "Patch",
    "SigmaCurve",
    "SweepExplanation",
    "Verdict",
    "encoding_for",
    "explain",
    "explain_sweep",
    "patches",
    "predict",
    "resolution_for",
    "sigma_for",
]
