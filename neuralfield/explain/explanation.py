"""What an explanation holds: what each candidate will reach and why, and the sentence that follows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float

from neuralfield.errors import ConfigError
from neuralfield.explain.after import After
from neuralfield.explain.bands import Bands
from neuralfield.explain.curves import Curve
from neuralfield.explain.patches import Patch
from neuralfield.explain.words import words
from neuralfield.field import Field
from neuralfield.files import write_json
from neuralfield.signals.base import Signal

if TYPE_CHECKING:
    from neuralfield.explain.candidates import Setting
    from neuralfield.fitting.options import FitOptions

JSON = "explanation.json"


@dataclass
class KernelView:
    """A candidate's kernel to look at, all of it scaled to K(x, x) = 1 on average.

    - `pixels`: distances along a row of the image, in pixels; of a volume in voxels along x; of a shape in the distance at
      which its training points lie from each other near the surface. `row`: the kernel at those distances from the middle.
    - `plane`: the kernel between the middle pixel and those around it, [size, size]; in three dimensions across z.
    - `fwhm`: full width at half of the value at the middle, along the row, pixels; infinite where it does not fall that far.

    Parts of the network count as Adam trains them at the end of the budget.
    """

    pixels: Float[np.ndarray, " distances"]
    row: Float[np.ndarray, " distances"]
    plane: Float[np.ndarray, "size size"]
    fwhm: float


@dataclass
class Candidate:
    """One setting and its prediction.

    - `name`: as people call it: "fourier sigma=4"; `overrides`: as fit.py takes it: ["encoding=fourier", "encoding.sigma=4"].
    - `encoding`: options for :func:`neuralfield.field.build`.
    - `curve`: predicted; `n_parameters`, `seconds`: of the prediction.
    - `kernel`: to look at.
    - `eigenvalues`: of the kernel that trains, on one window, descending, relative to the first; `energy`: the part of the
      image's energy (mean removed) in each mode, same order.
    - `unlearned`: the predicted residual at the budget on one window, [height, width] root mean square over channels, or
      None; not a number where a pixel is in neither set. In three dimensions its middle slice across z.
    - `trained`: evaluations of a real fit (rows with step, psnr_train, psnr_heldout), where one was made; `after`: how far
      that took the field from its beginning.
    - `bands`: what is learned of the window, in part, and not at all; None where it is not known.
    - `own`: the user named it.
    """

    name: str
    overrides: list[str]
    encoding: dict[str, Any]
    curve: Curve
    n_parameters: int
    seconds: float
    kernel: KernelView
    eigenvalues: Float[np.ndarray, " modes"]
    energy: Float[np.ndarray, " modes"]
    unlearned: Float[np.ndarray, "height width"] | None = None
    trained: list[dict[str, Any]] = field(default_factory=list)
    bands: Bands | None = None
    own: bool = False
    after: After | None = None

    @property
    def heldout(self) -> float:
        """Predicted held-out PSNR at the budget, dB."""
        return float(self.curve.heldout_psnr[-1])

    @property
    def measured(self) -> float | None:
        """Measured held-out PSNR at the end of a real fit, dB; of a shape's labels or distances."""
        return float(self.trained[-1]["psnr_heldout"]) if self.trained else None


@dataclass
class Verdict:
    """What to do.

    - `text`: two plain sentences, with the uncertainty; `command`: fits the recommended field.
    - `best`: the recommended candidate's name.
    - `margin_db`: predicted held-out PSNR of the best prediction above the next one that is not nearly the same setting.
    - `uncertainty_db`: how far predictions are from trained fields, as a rule.
    """

    text: str
    command: str
    best: str
    margin_db: float
    uncertainty_db: float


@dataclass
class SigmaCurve:
    """Gaussian Fourier features over their bandwidth: too smooth, right, aliasing.

    - `sigmas`: ascending, cycles per image side.
    - `heldout_psnr`, `train_psnr`: predicted at the budget, dB.
    - `f0_psnr`: held-out PSNR if nothing were wrong but what remains of the initial function, dB.
    """

    sigmas: Float[np.ndarray, " sigmas"]
    heldout_psnr: Float[np.ndarray, " sigmas"]
    f0_psnr: Float[np.ndarray, " sigmas"]
    train_psnr: Float[np.ndarray, " sigmas"]


@dataclass
class Explanation:
    """Which encoding will serve an image, a volume or a shape, how far it will get, and why.

    - `signal`: with the hold-out that predictions are judged by; `steps`: the budget.
    - `candidates`: in the order they were compared; `verdict`.
    - `baselines`: what a prediction has to beat, see :mod:`~neuralfield.explain.baselines`.
    - `sigma`: over the Fourier candidates, or None.
    - `windows`: where it was predicted; `seconds`: what all of it took.
    - `assumed_holdout`: the user's signal holds nothing out, and every other pixel was held out here alone.
    - `seed`: of initial weights.
    - `settings`, `options`, `device`: how the candidates, in the same order, are built and trained.
    """

    signal: Signal
    steps: int
    candidates: list[Candidate]
    verdict: Verdict
    baselines: dict[str, float | str | dict[str, Any]]
    sigma: SigmaCurve | None
    windows: list[Patch]
    seconds: float
    assumed_holdout: bool = False
    seed: int = 0
    settings: Sequence[Setting] = ()
    options: FitOptions | None = None
    device: torch.device | None = None

    def candidate(self, name: str) -> Candidate:
        """The candidate of that name; KeyError with the known names."""
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise KeyError(f"no candidate '{name}' (there are {', '.join(c.name for c in self.candidates)})")

    def plot_kernels(self, path: str | Path) -> None:
        """The kernels over distance and as images."""
        self._plot("kernels", path)

    def plot_spectra(self, path: str | Path) -> None:
        """Eigenvalues, and the image's energy over the modes."""
        self._plot("spectra", path)

    def plot_curves(self, path: str | Path) -> None:
        """Predicted PSNR against steps."""
        self._plot("curves", path)

    def plot_sigma(self, path: str | Path) -> None:
        """Held-out PSNR against sigma."""
        self._plot("sigma", path)

    def plot_parts(self, path: str | Path) -> None:
        """Which part of the network carries the kernel."""
        self._plot("parts", path)

    def plot_unlearned(self, path: str | Path) -> None:
        """What remains unlearned at the budget."""
        self._plot("unlearned", path)

    def plot_bands(self, path: str | Path) -> None:
        """What is learned of the image, in part, and not at all."""
        self._plot("bands", path)

    def plot_after(self, path: str | Path) -> None:
        """The kernel's alignment with the image while candidates trained, and how far it moved."""
        self._plot("after", path)

    def to_html(self) -> str:
        """The report as one self-contained page."""
        from neuralfield.explain.report import html

        return html(self)

    def to_dict(self) -> dict[str, Any]:
        """Everything but pictures, as plain values for JSON."""
        return {
            "signal": self.signal.describe(),
            "steps": self.steps,
            "assumed_holdout": self.assumed_holdout,
            "seed": self.seed,
            "verdict": vars(self.verdict),
            "candidates": [_plain(c, words(self.signal).samples) for c in self.candidates],
            "baselines": self.baselines,
            "sigma": None if self.sigma is None else {k: v.tolist() for k, v in vars(self.sigma).items()},
            "windows": [list(w.box) for w in self.windows],
            "seconds": self.seconds,
        }

    def save(self, folder: str | Path) -> None:
        """Write report.html, explanation.json, and figures/ as PNG and SVG."""
        from neuralfield.explain.report import write

        write_json(Path(folder) / JSON, self.to_dict())
        write(self, Path(folder))

    def after(self, trained: Field | Mapping[int, Field]) -> After:
        """How far training took a field from the one that was explained; see :class:`~neuralfield.explain.after.After`.

        **Arguments**

        - `trained`: a field, or copies of one that were kept while it trained, by their steps: ``{100: early, 2000: late}``;
          then the result has a `history`, and ``.plot(path)`` draws it.

        Raises :class:`~neuralfield.errors.ConfigError` for a field that cannot be rebuilt from its own configuration.
        """
        from neuralfield.explain.after import after

        return after(trained, self.signal, self._middle(), self.seed)

    def train(self, name: str, at: Sequence[int] | None = None) -> After:
        """Train a candidate for the whole budget, and watch its kernel.

        The candidate gets its `trained` and `after`, which reports and :meth:`plot_after` then show.

        **Arguments**

        - `name`: the candidate's.
        - `at`: steps after which the kernel is looked at, beside the last; None: 1, 3, 10, 32, ...

        Raises KeyError with the known names, and :class:`~neuralfield.errors.ConfigError` for steps beyond the budget.
        """
        from neuralfield.explain.verify import train_watched

        candidate = self.candidate(name)
        known = dict(zip((c.name for c in self.candidates), self.settings, strict=False))
        if self.options is None or name not in known:
            raise ConfigError(
                f"how to build {name} is not known here; explain(signal, fields) makes one that can train"
            )
        device = self.device or torch.device("cpu")
        candidate.trained, candidate.after = train_watched(
            known[name], self.signal, self.options, self.seed, device, self._middle(), at
        )
        return candidate.after

    def _middle(self) -> Patch:
        return self.windows[len(self.windows) // 2]

    def _plot(self, what: str, path: str | Path) -> None:
        from neuralfield.viz import explain as figures

        getattr(figures, f"{what}_figure")(self, Path(path))


def _plain(candidate: Candidate, samples: str) -> dict[str, Any]:
    curve = candidate.curve
    iou = {} if curve.iou is None else {"predicted_iou": curve.iou}
    return {
        "name": candidate.name,
        "overrides": candidate.overrides,
        "encoding": candidate.encoding,
        "n_parameters": candidate.n_parameters,
        "seconds": candidate.seconds,
        "predicted_heldout_psnr": candidate.heldout,
        "measured_heldout_psnr": candidate.measured,
        **iou,
        "curve": {
            "steps": curve.steps.tolist(),
            "train_psnr": curve.train_psnr.tolist(),
            "heldout_psnr": curve.heldout_psnr.tolist(),
            "f0_mse": curve.f0_mse.tolist(),
        },
        "parts": curve.energy,
        "kernel": {
            f"fwhm_{samples}": candidate.kernel.fwhm,
            samples: candidate.kernel.pixels.tolist(),
            "row": candidate.kernel.row.tolist(),
        },
        "eigenvalues": candidate.eigenvalues.tolist(),
        "energy": candidate.energy.tolist(),
        "bands": None if candidate.bands is None else candidate.bands.to_dict(),
        "trained": candidate.trained,
        "after": None if candidate.after is None else asdict(candidate.after),
    }
