"""The report of an explanation: the verdict on top, then what it rests on, in one HTML file that opens anywhere."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from neuralfield.explain.explanation import Explanation
from neuralfield.explain.limits import WORDS, limit
from neuralfield.explain.page import code, element, figure, page, table
from neuralfield.explain.sections import SECTIONS, alt, sliced
from neuralfield.explain.words import in_words, stands_in, training_db, window_words, words
from neuralfield.files import write_text
from neuralfield.signals.base import Signal
from neuralfield.signals.image import ImageSignal
from neuralfield.viz import explain as figures
from neuralfield.viz.explain_curves import rank_correlation
from neuralfield.viz.style import count, is_number, seconds

HTML, FIGURES = "report.html", "figures"

_BASELINES = {
    "bicubic": "cubic interpolation of the training pixels",
    "nearest": "the value of the nearest training pixel",
    "linear": "linear interpolation of the training pixels",
    "cubic": "cubic interpolation of the training pixels",
    "average_sigma": "the sigma that is best on average",
    "nyquist_sigma": "the same sigma, scaled to this image's sampling",
    "short_sweep_5": "training all for 5 % of the steps each",
    "short_sweep_10": "training all for 10 % of the steps each",
}


def html(explanation: Explanation) -> str:
    """The report as one self-contained page: no script, no request, light and dark, narrow and wide screens, print."""
    with tempfile.TemporaryDirectory() as folder:
        return _html(explanation, draw(explanation, folder))


def write(explanation: Explanation, folder: str | Path) -> None:
    """Write ``report.html`` and ``figures/`` (each as PNG and SVG) into ``folder``, each file whole or not at all.

    Raises :class:`~neuralfield.errors.OutputError` when a file cannot be written.
    """
    drawn = draw(explanation, Path(folder) / FIGURES)
    write_text(Path(folder) / HTML, _html(explanation, drawn))


def draw(explanation: Explanation, folder: str | Path) -> dict[str, tuple[Path, Path]]:
    """Write every figure that the explanation has into ``folder``; their SVG and PNG by name."""
    drawn = {}
    for section in SECTIONS:
        if section.present(explanation):
            paths = Path(folder) / f"{section.name}.svg", Path(folder) / f"{section.name}.png"
            getattr(figures, f"{section.name}_figure")(explanation, *paths)
            drawn[section.name] = paths
    return drawn


def _html(explanation: Explanation, drawn: Mapping[str, tuple[Path, Path]]) -> str:
    signal, verdict = explanation.signal, explanation.verdict
    body = [
        element("h1", f"What will fit {signal.name}"),
        element("p", _subject(explanation), "soft"),
        element("p", verdict.text, "verdict"),
        code(verdict.command),
    ]
    if explanation.assumed_holdout:
        note = (
            "Your signal holds nothing out. To judge what lies between pixels, every other pixel was held out here alone; a "
            "fit without a hold-out uses all of them."
        )
        body.append(element("p", in_words(note, signal)))
    if note := stands_in(signal):
        body.append(element("p", note))
    body += [element("h2", "What was compared"), _candidates(explanation)]
    if any(c.trained for c in explanation.candidates):
        body += [element("h2", "Predicted and measured"), *_measured(explanation)]
    for section in SECTIONS:
        if section.name in drawn:
            body.append(element("h2", in_words(section.head, signal)))
            sentence = in_words(section.sentence, signal) + sliced(section.name, signal)
            body.append(figure(*drawn[section.name], alt(explanation, section.name), sentence))
    body += [element("h2", "What a prediction has to beat"), *_baselines(explanation)]
    body.append(element("h2", "How it was predicted, and where that ends"))
    body += [element("p", text) for text in _method(explanation)]
    return page(f"{signal.name}: {verdict.best}", body)


def _subject(explanation: Explanation) -> str:
    signal = explanation.signal
    channels = f"{signal.out_dim} channel" + ("s" if signal.out_dim != 1 else "")
    trained = any(c.trained for c in explanation.candidates)
    took = seconds(explanation.seconds) + (", training included" if trained else ", before any training")
    size = f"{signal.width} x {signal.height} pixels" if isinstance(signal, ImageSignal) else signal.size
    return (
        f"{size} ({signal.split.n_train:,} train the field), {channels}; a budget of "
        f"{explanation.steps:,} steps; explained in {took}."
    )


def _candidates(explanation: Explanation) -> str:
    ranked = sorted(explanation.candidates, key=lambda c: -c.heldout)
    rows = []
    for c in ranked:
        train, why = (
            training_db(float(c.curve.train_psnr[-1])),
            in_words(WORDS[limit(explanation, c)], explanation.signal),
        )
        error = f"± {words(explanation.signal).uncertainty:.1f}"
        iou = [] if c.curve.iou is None else [f"{c.curve.iou:.3f}"]
        rows.append([c.name, _db(c.heldout), error, *iou, train, count(c.n_parameters), why])
    best = next((i for i, c in enumerate(ranked) if c.name == explanation.verdict.best), None)
    iou_head = ("held-out IoU",) if any(c.curve.iou is not None for c in ranked) else ()
    heads = ("field", "held-out PSNR, dB", "error, dB", *iou_head, "train PSNR, dB", "parameters", "what limits it")
    caption = (
        f"Predicted after {explanation.steps:,} steps, best first; the recommended field is marked. Held-out pixels are not "
        "trained on."
    )
    caption = in_words(caption, explanation.signal)
    return table(heads, rows, range(1, len(heads) - 1), best, caption)


def _measured(explanation: Explanation) -> list[str]:
    trained = sorted((c for c in explanation.candidates if c.measured is not None), key=lambda c: -(c.measured or 0.0))
    x, y = np.array([c.heldout for c in trained]), np.array([c.measured for c in trained], float)
    rows = []
    for candidate, predicted, measured in zip(trained, x, y, strict=True):
        last = candidate.trained[-1].get("psnr_train")
        fits = training_db(float(candidate.curve.train_psnr[-1])), "–" if last is None else _db(float(last))
        iou = [f"{v:.3f}" for v in (candidate.curve.iou, candidate.trained[-1].get("iou_surface")) if v is not None]
        rows.append([candidate.name, _db(predicted), _db(measured), f"{predicted - measured:+.2f}", *fits, *iou])
    heads: tuple[str, ...] = (
        "field",
        "held-out, predicted",
        "held-out, measured",
        "difference",
        "train, predicted",
        "train, measured",
    )
    if all(c.curve.iou is not None for c in trained):
        heads += ("IoU, predicted", "IoU, measured")
    best = int(y.argmax())
    sentence = f"Predictions miss the measured held-out PSNR by {np.abs(x - y).mean():.2f} dB on average"
    order = rank_correlation(x, y)
    if math.isfinite(order):
        sentence += f" and rank the fields with a Spearman correlation of {order:.2f}"
    chosen = next((c.measured for c in trained if c.name == explanation.verdict.best), None)
    if chosen is not None:
        sentence += f"; the recommended field loses {y[best] - chosen:.2f} dB against the best of those trained"
    caption = "PSNR in dB; the best measured field is marked."
    return [element("p", sentence + "."), table(heads, rows, range(1, len(heads)), best, caption)]


def _baselines(explanation: Explanation) -> list[str]:
    if not explanation.baselines:
        return [element("p", "No baseline was computed.")]
    say = lambda text: in_words(text, explanation.signal)  # noqa: E731
    rows = [
        [say(_BASELINES.get(name, _words(name))), _baseline(value)] for name, value in explanation.baselines.items()
    ]
    sentence = "Simpler ways to choose or to guess. Where one of them does as well, it needs no theory to be believed."
    return [element("p", sentence), table(("baseline", "what it says"), rows)]


def _method(explanation: Explanation) -> list[str]:
    signal = explanation.signal
    sides = sorted({window_words(signal, w) for w in explanation.windows})
    where = f"{len(explanation.windows)} windows of {' or '.join(sides[:3])}" if sides else "windows of the image"
    known = words(signal)
    trust = (
        f"Differences of less than {known.tie:.1f} dB mean nothing: that is how far predictions are from trained fields, "
        "as a rule, and another seed alone moves a fit by about 0.1 dB."
    )
    if known.uncertainty > known.tie:
        trust = (
            f"Predictions are {known.uncertainty:.1f} dB from trained fields, as a rule, much of which all fields of a "
            f"{known.signal} share; differences between fields of less than {known.tie:.1f} dB mean nothing."
        )
    texts = [
        "Near its initial weights a network learns as its tangent kernel says. That of each field was split by parameter "
        "tensor, and Adam was followed in it through the whole budget. Behind Fourier-like encodings the kernel is the "
        "infinitely wide network's on the exact frequencies; behind a hash grid it is the actual network's after the fit's "
        f"first dozens of steps, which are real. {_places(signal, where)} No constant was fitted to trained fields.",
        trust,
        "Where it ends: real networks learn features, which helps smooth images; the windows may not stand for the whole "
        "image; the first steps of Adam are followed roughly; PSNR is all that is predicted, and it is not how the eye "
        "judges.",
    ]
    if signal.in_dim == 3:
        texts.append(_in_space(signal))
    return [in_words(text, signal) for text in texts]


def _places(signal: Signal, where: str) -> str:
    """Where the kernels were followed."""
    windows = f"on {where} at the image's own spacing"
    if signal.type == "shape":
        return f"It was taken {windows}."
    coordinates = "" if signal.type == "volume" else " The network on plain coordinates was fitted on means of pixels."
    if signal.type == "image":
        coordinates += (
            " Where the budget is enough to learn the pixels by heart, a copy of the field that sees a few per cent of them "
            "in a step was fitted too, and has a say in what lies between them."
        )
    return (
        "A Fourier-like encoding's was followed on all training pixels at once where they lie in regular rows (on a typical "
        f"part, if there are very many), others {windows}; pictures of kernels and of what stays unlearned are of the middle "
        f"window.{coordinates}"
    )


def _in_space(signal: Signal) -> str:
    """What is different in three dimensions."""
    if signal.type == "shape":
        return (
            "A window is a cube around a point near the surface, as wide as it takes to hold as many training points as a "
            "kernel can, so that their density is the fit's own; of denser ones some are drawn. Fields are judged on fresh "
            "points near the surface inside it. A window sees a small part of the surface, and nothing far from it: whether "
            "a field invents pieces in empty space is not predicted."
        )
    return (
        "Windows are about nine training voxels a side, where the kernel does not stand still from point to point or voxels "
        "are held out at random: what fields of low frequencies gain from farther voxels is missed there. Where the volume "
        "has more windows than are computed, errors are scaled to the whole volume's roughness."
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _baseline(value: Any) -> str:
    """What a baseline says: a PSNR, a bandwidth with what is predicted for it, or what a short sweep takes."""
    if not isinstance(value, Mapping):
        return f"{value:.2f} dB" if is_number(value) else str(value)
    lost = f", {value['lost']:.2f} dB below the best" if is_number(value.get("lost")) else ""
    if is_number(value.get("sigma")):
        said = f"sigma {value['sigma']:.3g}: "
        known = is_number(value.get("predicted"))
        said += f"{value['predicted']:.2f} dB predicted" if known else "beyond the bandwidths that were compared"
        return said + (f"{lost} sigma" if lost else "") + (f" ({value['source']})" if value.get("source") else "")
    if "name" in value:
        cost = [f"{value['steps']:,} steps"] if is_number(value.get("steps")) else []
        cost += [seconds(value["seconds"])] if is_number(value.get("seconds")) else []
        return f"takes {value['name']}{lost}" + (f" ({', '.join(cost)})" if cost else "")
    pairs = ((k, f"{v:.4g}" if is_number(v) else v) for k, v in value.items() if v is not None)
    return "; ".join(f"{_words(str(k))} {v}" for k, v in pairs)


def _db(value: float) -> str:
    return f"{value:.2f}"
