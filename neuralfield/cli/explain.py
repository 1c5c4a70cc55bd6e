"""`neuralfield explain` and `scripts/explain.py`: which encoding will serve an image, a volume or a shape, and why."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from neuralfield.cli import configuration
from neuralfield.cli.guard import guarded
from neuralfield.errors import ConfigError, nearest

if TYPE_CHECKING:
    from neuralfield.explain.explanation import Explanation

_OWN = ("sweep", "folder")  # beside those of configs/explain


def main(argv: list[str] | None = None) -> int:
    """The whole of `scripts/explain.py`: returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    return guarded(lambda: explain(arguments))


def explain(arguments: list[str]) -> int:
    """Explain a signal, or a finished sweep, as the arguments say; returns the exit code."""
    if any(argument in ("-h", "--help", "help") for argument in arguments):
        print(_usage())
        return 0
    own, options, overrides = _divided(arguments)
    if own.get("sweep"):
        if options or overrides:
            raise ConfigError(
                f"sweep=DIR takes everything from the sweep's own runs; leave out {', '.join([*options, *overrides])}"
            )
        return _sweep(Path(own["sweep"]), own.get("folder"))
    return _signal({**_defaults(), **options}, overrides, own.get("folder"))


def _signal(chosen: Mapping[str, Any], overrides: list[str], folder: str | None) -> int:
    from neuralfield import devices, signals
    from neuralfield.checks import flag, integer
    from neuralfield.explain.api import explain_settings
    from neuralfield.explain.candidates import comparison, explainable, judged, merged
    from neuralfield.fitting import defaults
    from neuralfield.fitting.options import FitOptions
    from neuralfield.plugins import import_modules

    verify = flag("explain.verify", chosen["verify"])
    # Left open they depend on the signal: a window in space has fewer samples along its side.
    side, windows = chosen["side"], chosen["windows"]
    side = None if side is None else integer("explain.side", side, 4, 64)
    windows = None if windows is None else integer("explain.windows", windows, 1)
    config, choice = _composed(overrides)
    import_modules(config.get("imports") or [])
    device, seed = devices.resolve(config["device"]), integer("seed", config["seed"], 0)
    options = FitOptions.from_dict(defaults.fit_options(config["fit"]))
    signal = explainable(signals.load(config["signal"]))
    judge, _ = judged(signal)
    own = _own_settings(config, choice, overrides, judge, options, seed, device)
    settings = merged(comparison(judge, config["network"], seed), own)
    explanation = explain_settings(
        signal, settings, options, device=device, seed=seed, verify=verify, side=side,
        windows=windows, base=[o for o in overrides if not _about_encoding(o)],
    )  # fmt: skip
    where = Path(folder) if folder else _fresh(signal.name)
    explanation.save(where)
    _print(explanation, where)
    return 0


def _own_settings(
    config: dict[str, Any], choice: str, overrides: list[str], judge: Any, options: Any, seed: int, device: Any
) -> list[Any]:
    """The encoding that the arguments name, if they do."""
    from neuralfield.explain.candidates import setting
    from neuralfield.fitting import defaults
    from neuralfield.run import chosen_encoding

    given = [override for override in overrides if _about_encoding(override)]
    encoding = configuration.own_options(config["encoding"], choice, overrides)
    if not given or encoding.get("name") == defaults.AUTO:
        return []
    words = [str(encoding["name"])]
    if defaults.asks_for_a_choice(encoding):
        asked = encoding
        encoding, why = chosen_encoding(asked, judge, config["network"], options, seed, device)
        print(why, flush=True)
        for key in (k for k in asked if asked[k] != encoding[k]):
            given = [o for o in given if o.lstrip("+").partition("=")[0] != f"encoding.{key}"]
            given.append(f"encoding.{key}={encoding[key]:g}")
    words += [o.lstrip("+").removeprefix("encoding.") for o in given if "encoding." in o]
    return [setting(judge, encoding, config["network"], seed, own=True, overrides=given, name=" ".join(words))]


def _sweep(source: Path, folder: str | None) -> int:
    from rich.console import Console
    from rich.table import Table

    from neuralfield.explain.sweep import explain_sweep

    explained = explain_sweep(source)
    where = Path(folder) if folder else _fresh(f"sweep_{source.resolve().name}")
    explained.save(where)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for key in explained.keys:
        table.add_column(key)
    for column in ("predicted", "measured", "error"):
        table.add_column(column, justify="right")
    for run in explained.runs:
        numbers = (f"{run.predicted:.2f}", f"{run.measured:.2f}", f"{run.predicted - run.measured:+.2f}")
        table.add_row(*(str(run.swept.get(key)) for key in explained.keys), *numbers)
    Console().print(table)
    print(f"{explained}\nresults in {where}")
    return 0


def _print(explanation: Explanation, folder: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from neuralfield.explain.limits import limit
    from neuralfield.explain.words import in_words, training_db

    verified = any(c.measured is not None for c in explanation.candidates)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("field")
    overlaps = any(c.curve.iou is not None for c in explanation.candidates)
    heads = ("parameters", "train PSNR", "held-out PSNR", *(("IoU",) if overlaps else ()))
    for column in (*heads, *(("trained", "error") if verified else ())):
        table.add_column(column, justify="right")
    table.add_column("limited by")
    for c in explanation.candidates:
        real = () if not verified else ("-", "-")
        if c.measured is not None:
            real = (f"{c.measured:.2f}", f"{c.heldout - c.measured:+.2f}")
        iou = () if c.curve.iou is None else (f"{c.curve.iou:.3f}",)
        style = "bold green" if c.name == explanation.verdict.best else ""
        numbers = (f"{c.n_parameters:,}", training_db(float(c.curve.train_psnr[-1])), f"{c.heldout:.2f}", *iou, *real)
        table.add_row(c.name, *numbers, in_words(limit(explanation, c), explanation.signal), style=style)
    Console().print(table)
    print(in_words(f"\nBaselines on the held-out pixels: {_baselines(explanation.baselines)}", explanation.signal))
    print(f"\n{explanation.verdict.text}\n  {explanation.verdict.command}\n")
    print(f"{explanation.seconds:.0f} s; {folder / 'report.html'}", flush=True)


def _baselines(given: Mapping[str, Any]) -> str:
    words = []
    for name, value in given.items():
        if name == "bicubic":
            words.append(f"bicubic interpolation {value:.2f} dB")
        elif name in ("nearest", "linear", "cubic"):
            words.append(f"{'nearest pixel' if name == 'nearest' else f'{name} interpolation'} {value:.2f} dB")
        elif name.startswith("short_sweep"):
            words.append(f"a {name.split('_')[-1]} % sweep takes {value['name']} ({value['lost']:.2f} dB lost)")
        elif value.get("predicted") is not None:
            kind = "average" if name.startswith("average") else "Nyquist-scaled"
            words.append(f"{kind} sigma {value['sigma']:g}: {value['predicted']:.2f} dB predicted")
    return "; ".join(words)


def _divided(arguments: list[str]) -> tuple[dict[str, str], dict[str, Any], list[str]]:
    """What is ours, what is of configs/explain, and what is fit.py's; an unknown key names the nearest."""
    own: dict[str, str] = {}
    options: dict[str, Any] = {}
    overrides = []
    known = _defaults()
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator or argument.startswith("-"):
            raise ConfigError(
                f"cannot read the argument {argument!r}: write KEY=VALUE; explain takes the keys of fit.py, "
                f"{', '.join(f'explain.{k}' for k in known)}, {', '.join(_OWN)}"
            )
        if key in _OWN:
            own[key] = value
        elif key.startswith("explain."):
            name = key.removeprefix("explain.")
            if name not in known:
                names = [f"explain.{k}" for k in known]
                raise ConfigError(f"there is no option '{key}' (known: {', '.join(names)}){nearest(key, names)}")
            options[name] = yaml.safe_load(value)
        else:
            overrides.append(argument)
    return own, options, overrides


def _composed(overrides: list[str]) -> tuple[dict[str, Any], str]:
    """The configuration that fit.py would have, and the encoding's choice."""
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(configuration.config_folder()), version_base="1.3"):
            config = compose("config", overrides, return_hydra_config=True)
            choice = str(config.hydra.runtime.choices["encoding"])
            OmegaConf.set_struct(config, False)
            del config["hydra"]
            plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    except Exception as error:
        raise _explained(error, overrides) from error
    finally:
        GlobalHydra.instance().clear()
    return plain, choice


def _explained(error: Exception, overrides: list[str]) -> Exception:
    """The error in our words; a key that neither command knows may be a misspelt one of ours."""
    known = configuration.explain(error)
    if known is None:
        return error
    for override in overrides:
        key = override.partition("=")[0]
        close = nearest(key, [*_OWN, "signal", "encoding", "network", "fit", "experiment", "seed", "device", "imports"])
        if f"'{key}'" in str(known) and any(f"'{name}'" in close for name in _OWN):
            return ConfigError(f"there is no option or group '{key}'{close}")
    return known


def _defaults() -> dict[str, Any]:
    path = configuration.config_folder() / "explain" / "default.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def _about_encoding(override: str) -> bool:
    key = override.lstrip("+~").partition("=")[0]
    return key == "encoding" or key.startswith("encoding.")


def _fresh(name: str) -> Path:
    """outputs/explain/2026-05-01_12-00-00_name."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)[:60]
    return Path("outputs") / "explain" / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{kept}"


def _usage() -> str:
    own = (configuration.config_folder() / "explain" / "default.yaml").read_text(encoding="utf-8")
    lines = "\n".join(f"  explain.{line}" for line in own.splitlines() if not line.startswith("#"))
    return (
        "usage: explain.py [KEY=VALUE ...]        or        neuralfield explain [KEY=VALUE ...]\n\n"
        "Says before training which encoding will serve an image (signal=volume and signal=shape likewise), how PSNR will\n"
        "grow, and why. Takes the keys of fit.py\n"
        "(signal, encoding, network, fit, seed, device), and these:\n\n"
        f"{lines}\n  folder: where the report goes; outputs/explain/... without it\n"
        "  sweep: the folder of a finished `fit.py -m ...`: predicts its runs and compares\n\n"
        "Examples\n"
        "  explain.py                                                  the sample photograph, 2000 steps\n"
        "  explain.py signal.path=photo.png fit.steps=500              your own image and budget\n"
        "  explain.py signal=shape signal.path=bunny.obj                a mesh; signal=volume: a scan\n"
        "  explain.py encoding=fourier encoding.sigma=5                your own encoding beside the others\n"
        "  explain.py signal.crop=128 explain.verify=true              with the truth over the prediction\n"
        "  explain.py sweep=outputs/sweeps/sigma-1a2b3c4d              a finished sweep, explained"
    )
