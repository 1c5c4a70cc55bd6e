"""The multiresolution hash grid of Müller et al. 2022 (instant-NGP)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from neuralfield.checks import choice, integer, number
from neuralfield.encodings.base import Encoding, register
from neuralfield.encodings.hashgrid import engines, reference
from neuralfield.encodings.hashgrid.layout import GridLayout, Level, growth_factor, make_layout
from neuralfield.errors import ConfigError, DeviceError

__all__ = ["GridLayout", "HashGrid", "Level", "growth_factor", "make_layout"]

INTERPOLATIONS = ("linear", "smoothstep", "nearest")
TABLE_DTYPES = (None, torch.float32, torch.float16, torch.bfloat16)
OUTSIDE = ("clamp", "error", "wrap", "zero")


@register("hashgrid")
class HashGrid(Encoding):
    r"""Learned features at the vertices of L grids of growing resolution, interpolated and concatenated.

    Coordinates are meant for $[0, 1]^D$; `outside` says what becomes of others (default: clamped to the cube). For a
    scene with another bounding box wrap the grid: ``encodings.Bounded(HashGrid(3), low=-1, high=1)``.

    Level l has $N_l \approx N_\text{min}\, s^l$ vertices per axis. While $N_l^D \le 2^T$ its table is dense, else
    vertices share rows by a hash and training resolves the collisions (Müller et al. 2022, section 3). The layout, the
    arithmetic and the order of the parameters are exactly tiny-cuda-nn's; see :mod:`.layout` and :mod:`.reference`.

    Linear interpolation has zero second derivative inside a cell and a gradient that jumps at its faces; take
    ``interpolation="smoothstep"`` where derivatives of the field enter the loss.

    **Arguments**

    - `in_dim`: D, 1 to 7.
    - `n_levels`: L.
    - `n_features_per_level`: F; the output has L F features, level-major.
    - `log2_hashmap_size`: T; at most 2^T rows per level.
    - `base_resolution`: vertices per axis of the coarsest level.
    - `max_resolution`: of the finest level. Give this or `per_level_scale`, not both; neither means 2048.
    - `per_level_scale`: s, the ratio of resolutions of successive levels.
    - `interpolation`: "linear", "smoothstep" ($w^2(3-2w)$) or "nearest" (no gradient to x).
    - `outside`: "clamp" to the cube, "error", "wrap" (periodic), or "zero" (features are zero).
    - `engine`: "auto", "reference", "cpu", "triton" or "tinycudann"; see :mod:`.engines`.
    - `seed`: of the initial values, uniform in [-1e-4, 1e-4]; `None` draws from torch's global generator.

    **Attributes**

    - `params`: the one flat Parameter: level 0's rows, then level 1's, ...; the feature index runs fastest.
    - `layout`: resolutions, offsets and lengths of the levels.
    - `active_levels`: how many levels count, coarsest first, or `None` for all. The others give zeros and get no gradient,
      at no cost: for coarse-to-fine training, set it as training goes on (Li et al. 2023, Neuralangelo, section 3.2).
      It belongs to the training, so it is not saved.
    - `table_dtype`: `torch.float16` or `torch.bfloat16` evaluates from a copy of `params` rounded to it, half as large in
      the cache, while `params`, features and gradients stay in float32; `None` evaluates from `params`. In float16
      numbers below 6e-5 are multiples of 6e-8. Not saved either.
    - `engine_choice`: the engine that evaluated the last training batch, and why.

    Raises :class:`~neuralfield.errors.DeviceError` for a table that does not fit into memory, here or on the way to a GPU.

    A grid converted by ``.half()`` or ``.bfloat16()`` keeps the table in that precision and gives features of it;
    coordinates, weights and sums are in float32 all the same.
    """

    _active_levels: int | None = None
    _table_dtype: torch.dtype | None = None
    _ran: engines.EngineChoice | None = None
    _trained: engines.EngineChoice | None = None

    def __init__(
        self,
        in_dim: int,
        n_levels: int = 16,
        n_features_per_level: int = 2,
        log2_hashmap_size: int = 19,
        base_resolution: int = 16,
        max_resolution: float | None = None,
        per_level_scale: float | None = None,
        interpolation: str = "linear",
        outside: str = "clamp",
        engine: str = "auto",
        seed: int | None = None,
    ) -> None:
        super().__init__(in_dim)
        if max_resolution is not None and per_level_scale is not None:
            raise ConfigError(
                f"give max_resolution or per_level_scale, not both (got {max_resolution:g} and {per_level_scale:g})"
            )
        if per_level_scale is None:
            base_resolution = integer("base_resolution", base_resolution, 1)
            highest = number("max_resolution", 2048 if max_resolution is None else max_resolution, base_resolution)
            per_level_scale = growth_factor(integer("n_levels", n_levels, 1, 64), base_resolution, highest)
        self.interpolation = choice("interpolation", interpolation, INTERPOLATIONS)
        self.outside = choice("outside", outside, OUTSIDE)
        self.engine = choice("engine", engine, ("auto", *engines.ENGINES))
        self.layout = make_layout(
            in_dim, n_levels, n_features_per_level, log2_hashmap_size, base_resolution, per_level_scale
        )
        try:
            self.params = nn.Parameter(torch.empty(self.layout.n_parameters))
        except (RuntimeError, MemoryError) as error:
            raise DeviceError(self._too_large()) from error
        self.reset_parameters(seed)

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw the table anew, uniformly from [-1e-4, 1e-4] (Müller et al. 2022, section 4)."""
        if self.params.is_meta:
            return
        generator = None if seed is None else torch.Generator(self.params.device).manual_seed(integer("seed", seed, 0))
        with torch.no_grad():
            self.params.uniform_(-1e-4, 1e-4, generator=generator)

    def _too_large(self) -> str:
        size = self.layout.n_parameters * 4 / 2**30
        return (
            f"the grid's table of {self.layout.n_parameters:,} parameters ({size:,.1f} GiB in float32) does not fit into "
            f"memory; take a smaller log2_hashmap_size, n_levels or n_features_per_level"
        )

    def _apply(self, *arguments: Any, **options: Any) -> HashGrid:
        # All moves between devices and precisions come through here.
        before = self.params.device
        try:
            super()._apply(*arguments, **options)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(f"{self._too_large()}, or another device ({str(error).splitlines()[0]})") from error
        if self.params.device != before:
            self._ran = self._trained = None
        return self

    @property
    def out_dim(self) -> int:
        return self.layout.out_dim

    @property
    def active_levels(self) -> int | None:
        """How many levels count, coarsest first; `None`: all."""
        return self._active_levels

    @active_levels.setter
    def active_levels(self, levels: int | None) -> None:
        highest = len(self.layout.levels)
        self._active_levels = None if levels is None else integer("active_levels", levels, 1, highest)

    @property
    def engine_choice(self) -> engines.EngineChoice:
        """The engine that evaluated the last batch of training, and why; before any, of the last batch, or the one meant.

        Raises, before the first batch, what :func:`.engines.choose` raises.
        """
        return self._trained or self._ran or engines.choose(self.engine, self.params.device)

    def _note(self, choice: engines.EngineChoice) -> None:
        self._ran = choice
        if torch.is_grad_enabled() and self.params.requires_grad:
            self._trained = choice

    @property
    def table_dtype(self) -> torch.dtype | None:
        """Precision of the table that features come from; `None`: that of `params`."""
        return self._table_dtype

    @table_dtype.setter
    def table_dtype(self, dtype: torch.dtype | None) -> None:
        if dtype not in TABLE_DTYPES:
            known = ", ".join(map(str, TABLE_DTYPES))
            raise ConfigError(f"table_dtype must be one of {known}; got {dtype!r}")
        self._table_dtype = dtype

    def _dtype(self, x: Tensor) -> torch.dtype:
        # Half precision cannot tell the points of a fine level apart; it is for the table only.
        return torch.promote_types(self.params.dtype, torch.float32)

    def level_tables(self) -> list[Float[Tensor, "entries features"]]:
        """The rows of each level, as views into `params`."""
        return reference.level_tables(self.params, self.layout)

    def place(self, x: Float[Tensor, "n in_dim"]) -> tuple[Float[Tensor, "n in_dim"], Bool[Tensor, "n 1"] | None]:
        """Where in the cube the levels look for points anywhere, as `outside` says; differentiable.

        **Returns**

        the points in [0, 1]^D, and which of them have features at all, or None where all have.

        Raises :class:`~neuralfield.errors.ConfigError` for points outside where ``outside="error"``.
        """
        if self.outside == "wrap":
            return x - x.detach().floor(), None
        if self.outside == "zero":
            return x.clamp(0.0, 1.0), ((x >= 0) & (x <= 1)).all(dim=-1, keepdim=True)
        if self.outside == "clamp":
            return x.clamp(0.0, 1.0), None
        if x.numel() and not bool(((x >= 0) & (x <= 1)).all()):
            raise ConfigError(
                f"coordinates reach from {x.min().item():.4g} to {x.max().item():.4g}, outside [0, 1]; rescale them, wrap "
                f"the grid in encodings.Bounded(grid, low, high), or choose outside='clamp', 'wrap' or 'zero'"
            )
        return x, None

    def encode(self, x: Float[Tensor, "n in_dim"]) -> Float[Tensor, "n out_dim"]:
        x, inside = self.place(x)
        options = self.active_levels, self.table_dtype, self._note
        features = engines.encode(x, self.params, self.layout, self.interpolation, self.engine, *options)
        return features if inside is None else features * inside.to(features.dtype)
