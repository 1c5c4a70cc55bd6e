"""Why an encoding works on an image, and how far it will get, before a step is made."""

from neuralfield.explain.api import explain
from neuralfield.explain.auto import AutoEncoding, AutoSigma, encoding_for, sigma_for
from neuralfield.explain.explanation import After, Candidate, Explanation, KernelView, SigmaCurve, Verdict
from neuralfield.explain.patches import Patch, patches
from neuralfield.explain.predictor import Curve, predict
from neuralfield.explain.sweep import SweepExplanation, explain_sweep

__all__ = [
    "After",
    "AutoEncoding",
    "AutoSigma",
    "Candidate",
    "Curve",
    "Explanation",
    "KernelView",
    "Patch",
    "SigmaCurve",
    "SweepExplanation",
    "Verdict",
    "encoding_for",
    "explain",
    "explain_sweep",
    "patches",
    "predict",
    "sigma_for",
]
