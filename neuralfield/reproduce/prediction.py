"""How well fits are predicted before a step is made: the study behind :mod:`neuralfield.explain`, on any images.

Every image is fitted with every setting (no encoding, positional encoding, Gaussian Fourier features over a wide sweep of
sigma, hash grids that end at several resolutions), every other pixel held out, and the same is predicted from kernels alone.
Nothing of the prediction is fitted to these or other fits. Beside it stand what a person would do without it: short sweeps,
the sigma that is best for other images, a fixed share of the Nyquist frequency, bicubic interpolation.

Real fits are kept in the folder `runs` and found again by all that decides them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuralfield import devices
from neuralfield.checks import choice
from neuralfield.errors import ConfigError
from neuralfield.explain.verify import SHORT
from neuralfield.reproduce.prediction_figure import draw
from neuralfield.reproduce.prediction_images import images as chosen_images
from neuralfield.reproduce.prediction_statistics import STRATEGIES, by_setting, mean, measures, record
from neuralfield.reproduce.prediction_study import Study, all_jobs
from neuralfield.reproduce.progress import track
from neuralfield.reproduce.report import Claim, Reproduction

BUDGETS: dict[str, dict[str, Any]] = {
    "small": {"size": 80, "photographs": 2, "texts": 1, "textures": 2, "steps": 150, "sigmas": [1, 2, 4, 8, 16]},
    "full": {
        "size": 128, "photographs": 11, "texts": 3, "textures": 3, "steps": 2000, "sigmas": [0.5, 1, 2, 4, 8, 16, 32],
    },
}  # fmt: skip

AIMS = {
    "error": 0.5, "curve": 0.8, "spearman_sigma": 0.93, "spearman": 0.85, "auto": 0.1, "encoding": 0.15, "cost": 0.1,
}  # fmt: skip
"""What is wanted, means over images: dB, dB, rank correlations, dB lost, dB lost, part of one fit's processor time."""

SOURCE = "neuralfield's aim"


def reproduce(
    seed: int, device: str, budget: str, images: Any, width: int, depth: int, n_features: int,
    batch_size: int | str | None, runs: str, **options: Any,
) -> Reproduction:  # fmt: skip
    """The study with its claims; the options are explained in ``configs/reproduce/prediction.yaml``.

    Raises :class:`~neuralfield.errors.ConfigError` for options out of range, and
    :class:`~neuralfield.errors.SignalError` for an image that cannot be used.
    """
    chosen = {**BUDGETS[choice("budget", budget, BUDGETS)], **{k: v for k, v in options.items() if v is not None}}
    where = devices.resolve(device)
    study = Study(chosen["sigmas"], chosen["steps"], batch_size, width, depth, n_features, seed, where, runs)
    found = chosen_images(
        _paths(images), chosen["photographs"], chosen["texts"], chosen["textures"], chosen["size"], seed
    )
    if not found:
        raise ConfigError("there is no image to study: give images=[a.png,b.png], or photographs=2")
    cases = [study.case(signal) for signal in found]
    for case, one, steps in track(all_jobs(study, cases), "fits"):
        study.fit(case, one, steps)
    for case in cases:
        study.train(case)
    for case, one in track([(each, one) for each in cases for one in each.settings], "predictions"):
        case.predictions.append(study.predict(case, one))
    for case in track(cases, "choices of sigma"):
        study.choose(case)
    numbers: dict[str, Any] = {
        "budget": {
            **chosen, "width": study.network["width"], "depth": study.network["depth"], "n_features": study.n_features,
            "batch_size": batch_size, "images": "given" if images else "samples", "device": devices.describe(where),
        },
        "images": [record(study, case) for case in cases],
    }  # fmt: skip
    title, claims = "What fits will reach, predicted before training", check(numbers)
    numbers["table"] = table(numbers)
    return Reproduction("prediction", title, claims, numbers, draw(finding(numbers), numbers))


def check(numbers: dict[str, Any]) -> list[Claim]:
    """The aims, each against its mean over images. Adds measures, means and errors by setting to ``numbers``."""
    records = numbers["images"]
    numbers["measures"] = [measures(r, [o for o in records if o is not r]) for r in records]
    numbers["mean"] = mean(numbers["measures"])
    numbers["by_setting"] = by_setting(records)
    numbers["aims"] = dict(AIMS)
    m = numbers["mean"]
    lost, best = m["lost"], m["lost_encoding"]
    count = f"{len(records)} images x {len(records[0]['settings'])} settings"
    worst = max(numbers["by_setting"].items(), key=lambda item: item[1]["error"])
    costs = [setting["cost"] for setting in numbers["by_setting"].values()]
    words = lambda names, of: ", ".join(f"{STRATEGIES[n]} {_db(of[n])}" for n in names)  # noqa: E731
    rivals = [f"short_{p}" for p in SHORT[::-1]] + ["average", "nyquist", "random"]
    claims = [
        Claim(
            f"final held-out PSNR is predicted to {AIMS['error']:g} dB",
            f"mean absolute error {m['error']:.2f} dB over {count}, of Fourier features {m['error_fourier']:.2f}; bicubic "
            f"interpolation with an offset from the other images {_db(m['error_bicubic'])}; predicted worst: {worst[0]}, "
            f"{worst[1]['error']:.2f} ({worst[1]['bias']:+.2f} on average)",
            m["error"] <= AIMS["error"],
            SOURCE,
        ),
        Claim(
            f"the held-out curve is predicted to {AIMS['curve']:g} dB from step 100",
            f"{m['curve']:.2f} dB, root mean square by image",
            m["curve"] <= AIMS["curve"],
            SOURCE,
        ),
        Claim(
            f"the order of a wide sigma sweep is predicted: Spearman {AIMS['spearman_sigma']:g}",
            f"{_rank(m['spearman_sigma'])} over {_spread(numbers, 'spearman_sigma')}",
            m["spearman_sigma"] is not None and m["spearman_sigma"] >= AIMS["spearman_sigma"],
            SOURCE,
        ),
        Claim(
            f"the order of all encodings is predicted: Spearman {AIMS['spearman']:g}",
            f"{_rank(m['spearman'])} over {_spread(numbers, 'spearman')}",
            m["spearman"] is not None and m["spearman"] >= AIMS["spearman"],
            SOURCE,
        ),
        Claim(
            f"sigma=auto loses {AIMS['auto']:g} dB against the best of the sweep",
            f"{_db(lost['auto'])} on average, {max(x['lost']['auto'] for x in numbers['measures']):.2f} at most; "
            + words(["rule", *rivals], lost),
            lost["auto"] <= AIMS["auto"],
            SOURCE,
        ),
        Claim(
            "sigma=auto loses no more than a sweep of 10 % of the steps",
            f"{_db(lost['auto'])} against {_db(lost['short_10'])} for fits of that length, {_db(lost['read_10'])} for the "
            f"full fits' curves at that step, whose rate has hardly begun to fall (5 %: {_db(lost['short_5'])}, "
            f"{_db(lost['read_5'])})",
            lost["auto"] <= min(lost["short_10"], lost["read_10"]),
            SOURCE,
        ),
        Claim(
            f"the setting that is predicted best misses the best of all by {AIMS['encoding']:g} dB",
            f"{_db(best['predicted'])} on average; a short sweep of all settings: 10 % {_db(best['short_10'])}, "
            f"5 % {_db(best['short_5'])}; the best of the other images {_db(best['average'])}; at random "
            f"{_db(best['random'])}",
            best["predicted"] <= AIMS["encoding"],
            SOURCE,
        ),
        Claim(
            f"a prediction costs {AIMS['cost']:.0%} of the fit",
            f"{m['cost']:.0%} of the processor time of {chosen_steps(numbers)} steps on {_size(numbers)} pixels, by setting "
            f"{min(costs):.0%} to {max(costs):.0%}; choosing sigma {m['auto_cost']:.0%} of one fit "
            f"({np.mean([r['auto']['cpu_seconds'] for r in records]):.1f} s)",
            m["cost"] <= AIMS["cost"],
            SOURCE,
        ),
    ]
    return claims


def finding(numbers: dict[str, Any]) -> str:
    """The study in one sentence."""
    m = numbers["mean"]
    return (
        f"Predicted before training, held-out PSNR is off by {m['error']:.1f} dB; sigma=auto ends {m['lost']['auto']:.2f} dB "
        f"below the best of a sweep, a sweep of short fits {m['lost']['short_10']:.2f} dB"
    )


def table(numbers: dict[str, Any]) -> list[str]:
    """Every image and the mean, lines of Markdown."""
    columns = (
        "image", "error, dB", "Fourier", "bicubic + offset", "curve, dB", "Spearman sigma", "all", "lost, dB: sigma=auto",
        "predicted sweep", "10 % sweep", "5 % sweep", "others' best", "Nyquist share", "best of all missed by", "cost",
    )  # fmt: skip

    def row(name: str, m: dict[str, Any]) -> str:
        ways = ("auto", "rule", "short_10", "short_5", "average", "nyquist")
        values = [m["error"], m["error_fourier"], m["error_bicubic"], m["curve"], m["spearman_sigma"], m["spearman"]]
        values += [*(m["lost"][way] for way in ways), m["lost_encoding"]["predicted"]]
        cells = ["–" if v is None else f"{v:.2f}" for v in values] + [f"{m['cost']:.0%}"]
        return f"| {name.replace('|', ' ')} | " + " | ".join(cells) + " |"

    aims = numbers["aims"]
    wanted = [
        f"{aims['error']:g}", "", "", f"{aims['curve']:g}", f"{aims['spearman_sigma']:g}", f"{aims['spearman']:g}",
        f"{aims['auto']:g}", "", "", "", "", "", f"{aims['encoding']:g}", f"{aims['cost']:.0%}",
    ]  # fmt: skip
    names = [r["name"] for r in numbers["images"]]
    return [
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
        *(row(name, m) for name, m in zip(names, numbers["measures"], strict=True)),
        row("**mean**", numbers["mean"]),
        "| wanted | " + " | ".join(wanted) + " |",
    ]


def chosen_steps(numbers: dict[str, Any]) -> int:
    """Steps of the fits."""
    return int(numbers["images"][0]["steps"][-1])


def _size(numbers: dict[str, Any]) -> str:
    return " x ".join(str(side) for side in numbers["images"][0]["size"])


def _spread(numbers: dict[str, Any], name: str) -> str:
    values = [m[name] for m in numbers["measures"] if m[name] is not None]
    return (
        f"{len(values)} images, {min(values):.2f} to {max(values):.2f}" if values else "no image: the values are equal"
    )


def _rank(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} on average"


def _db(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} dB"


def _paths(given: Any) -> list[str]:
    values = [given] if isinstance(given, str) else given or []
    if not isinstance(values, (list, tuple)) or not all(isinstance(v, str) for v in values):
        raise ConfigError(f"images must be a list such as [a.png,b.png], got {given!r}")
    if len(set(values)) < len(values):
        raise ConfigError(f"images names something twice: {', '.join(values)}")
    return list(values)
