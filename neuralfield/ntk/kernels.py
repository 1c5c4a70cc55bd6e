r"""The kernels of an infinitely wide MLP on an encoding: exact, blocked, in the precision of the coordinates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from neuralfield.checks import choice, flag, integer, number
from neuralfield.encodings import Encoding
from neuralfield.errors import ConfigError
from neuralfield.field import Field
from neuralfield.ntk import activations
from neuralfield.ntk.blocks import Prepared
from neuralfield.ntk.conventions import PARAMETERIZATIONS, coordinates
from neuralfield.ntk.covariance import Covariance, Inputs
from neuralfield.ntk.initialization import initial_deviations
from neuralfield.ntk.memory import require_dense
from neuralfield.ntk.recursion import Affine, Network, diagonal

__all__ = ["Kernels", "MLPKernel", "Prepared"]

_INSTEAD = "ntk.kernel_operator(kernel, x)"


class Kernels(NamedTuple):
    """Both kernels of the same pairs."""

    nngp: Tensor
    ntk: Tensor


class MLPKernel:
    r"""The NNGP kernel $\Sigma$ and the tangent kernel $\Theta$ of an MLP whose hidden layers are infinitely wide.

    At initialisation the outputs are Gaussian processes of covariance $\Sigma$ (Lee et al. 2018), and under gradient descent
    they move by $\Theta$, which then stays constant (Jacot et al. 2018). Per output; outputs are independent of each other.
    With $S_0 = \gamma(x)\cdot\gamma(x')/M$, the mean over the M input features, and $T_0 = 0$ (or the kernel of the
    encoding's own parameters, see :mod:`.covariance`), each affine layer does

    $$ \text{ntk:}\quad T \leftarrow w^2 S + b^2 + w^2 T, \qquad
       \text{standard:}\quad T \leftarrow \text{fan-in}\cdot S + [1] + w^2 T, \qquad S \leftarrow w^2 S + b^2 $$

    ([1] where there are biases), and each activation $T \leftarrow T\,\mathbb{E}[\phi'\phi'],\; S \leftarrow
    \mathbb{E}[\phi\phi]$ (Jacot et al. 2018, theorem 1; Lee et al. 2019, appendix E).

    Errors near the diagonal are of the size of the rounding there too, also of $K(x, x) - K(x, x')$, since pairs are kept
    as $1 - \cos\theta$; see :mod:`.duals`. The kernels differentiate twice with respect to coordinates and to `w_std` and
    `b_std` given as tensors; where two points coincide and the kernel has a kink, the derivative is taken as 0.

    **Arguments**

    - `depth`: hidden layers; there are depth + 1 affine ones.
    - `activation`: relu, leaky_relu, abs, erf, sin, cos, gaussian ($e^{-z^2}$), gelu, identity in closed form (also linear
      for identity, sine for sin); silu, elu, softplus, tanh, sigmoid, or any elementwise function, by quadrature.
    - `w_std`, `b_std`: standard deviations, at least 0: one number, or one for each affine layer. Weights are
      $\mathcal{N}(0, w^2/\text{fan-in})$, biases $\mathcal{N}(0, b^2)$. `b_std` None means no biases; 0 means biases that
      start at 0 and are trained.
    - `parameterization`: "ntk" or "standard", see :data:`~neuralfield.ntk.conventions.PARAMETERIZATIONS`.
    - `width`: neurons of the hidden layers, one number or one for each; the standard parameterisation and `skip` need it.
    - `encoding`: any :class:`~neuralfield.encodings.Encoding`, at its present values; None means the coordinates.
    - `activation_scale`: c in $\phi(c z)$: $\omega_0$ of a SIREN. Default 1.
    - `negative_slope`: of leaky_relu.
    - `output_activation`: none, sigmoid, tanh, relu, softplus, exp, or any name of `activation`.
    - `skip`: hidden layers after which the features are concatenated again; see :class:`~neuralfield.networks.MLP`.
    - `frequencies`: "sampled" or "expected"; see :class:`~neuralfield.ntk.covariance.Covariance`.
    - `train_encoding`: whether an encoding's trainable parameters belong to the tangent kernel.
    - `differentiate_encoding`: record derivatives with respect to the encoding's parameters.

    Raises :class:`~neuralfield.errors.ConfigError` for unknown names and values out of range, and
    :class:`~neuralfield.errors.DeviceError` for a matrix that does not fit the memory.
    """

    def __init__(
        self,
        depth: int,
        activation: str | Callable[[Tensor], Tensor] = "relu",
        w_std: float | Sequence[float] | Tensor = 1.0,
        b_std: float | Sequence[float] | Tensor | None = 0.0,
        parameterization: str = "ntk",
        width: int | Sequence[int] | None = None,
        encoding: Encoding | None = None,
        *,
        activation_scale: float = 1.0,
        negative_slope: float = 0.01,
        output_activation: str = "none",
        skip: int | Sequence[int] | None = None,
        frequencies: str = "sampled",
        train_encoding: bool = True,
        differentiate_encoding: bool = False,
    ) -> None:
        self.depth = integer("depth", depth, 0, 10**4)
        self.activation, self.output_activation = activation, output_activation
        self.activation_scale = number("activation_scale", activation_scale, 0, above=True)
        self.negative_slope = number("negative_slope", negative_slope)
        self.parameterization = choice("parameterization", parameterization, PARAMETERIZATIONS)
        self.w_std = _deviations("w_std", w_std, self.depth + 1)
        self.b_std = None if b_std is None else _deviations("b_std", b_std, self.depth + 1)
        self.width = _widths(width, self.depth)
        skips = [] if skip is None else list(skip) if isinstance(skip, Sequence) else [skip]
        self.skip = sorted({integer("skip", layer, 1, max(self.depth - 1, 0)) for layer in skips})
        if self.width is None and self.depth and (self.parameterization == "standard" or self.skip):
            why = "the standard parameterization" if self.parameterization == "standard" else "skip"
            raise ConfigError(
                f"{why} needs the width of the hidden layers; give width=256, or one number for each layer"
            )
        self.covariance = Covariance(
            encoding,
            frequencies,
            flag("train_encoding", train_encoding),
            flag("differentiate_encoding", differentiate_encoding),
        )
        self.encoding, self.frequencies = encoding, frequencies
        self._dual = activations.dual(activation, self.negative_slope)
        self._output = None if output_activation == "none" else activations.dual(output_activation, self.negative_slope)

    @classmethod
    def of(cls, field: Field, **options: Any) -> MLPKernel:
        r"""The limit of a field's kernels as its hidden layers grow, in the standard parameterisation.

        Depth, widths, activations and the variances of weights and biases at *initialisation* are those of the field's MLP:
        its present weights have no influence, those of its encoding have. The empirical kernel of a wide such field tends
        to this one (a hidden layer of n neurons leaves a relative difference of some $n^{-1/2}$), if the encoding has many
        features or normal weights follow it: uniform weights (pytorch, siren) on a few features are not yet Gaussian.

        **Arguments**

        - `field`: a :class:`~neuralfield.Field` whose network is :class:`~neuralfield.networks.MLP`.
        - `options`: further arguments of the constructor: frequencies, train_encoding, differentiate_encoding.
        """
        network = initial_deviations(field)
        return cls(encoding=field.encoding, parameterization="standard", **{**network, **options})

    def nngp(self, x1: Shaped[Tensor, "n dim"], x2: Shaped[Tensor, "m dim"] | None = None) -> Float[Tensor, "n m"]:
        r"""$\Sigma(x_1, x_2)$ in the dtype of the coordinates (integers and half precision: float32); x2 None means x1.

        With an output activation $\psi$: $\mathbb{E}[\psi\psi']$, means not subtracted.
        """
        return self._dense(x1, x2, "nngp")[0]  # type: ignore[return-value]

    def ntk(self, x1: Shaped[Tensor, "n dim"], x2: Shaped[Tensor, "m dim"] | None = None) -> Float[Tensor, "n m"]:
        r"""$\Theta(x_1, x_2)$, as :meth:`nngp`. With an output activation multiplied by $\mathbb{E}[\psi'\psi']$."""
        return self._dense(x1, x2, "ntk")[1]  # type: ignore[return-value]

    def both(self, x1: Shaped[Tensor, "n dim"], x2: Shaped[Tensor, "m dim"] | None = None) -> Kernels:
        """Both kernels, at the cost of :meth:`ntk`."""
        return Kernels(*self._dense(x1, x2, "both"))  # type: ignore[arg-type]

    def diagonal(self, x: Shaped[Tensor, "n dim"]) -> Kernels:
        """Both kernels of each point with itself, [n]."""
        points, dtype = self._points("x", x)
        inputs = self.covariance.inputs(points, None)
        network = self.network(inputs.n_features)
        start = None
        if inputs.tangent is not None:
            blocks = [slice(k, min(k + 32, len(points))) for k in range(0, len(points), 32)]
            start = torch.cat([inputs.tangent(b, b).diagonal() for b in blocks] or [points.new_zeros(0).double()])
        t, s = diagonal(network, inputs.rows.expand(len(points)), start)
        return Kernels(s.to(dtype), t.to(dtype))

    @property
    def stationary(self) -> bool:
        """Whether the kernels depend on $x_1 - x_2$ alone; then :meth:`of_offsets` gives a row of a grid's kernel."""
        return self.covariance.stationary

    def of_offsets(self, dv: Shaped[Tensor, "m dim"], which: str = "ntk") -> Float[Tensor, " m"]:
        """A stationary kernel of pairs with $x_1 - x_2$ = ``dv``.

        **Arguments**

        - `dv`: offsets, in units of the coordinates.
        - `which`: "ntk" or "nngp".
        """
        choice("which", which, ("ntk", "nngp"))
        if not self.stationary:
            raise ConfigError(
                "of_offsets needs a stationary kernel: a Fourier or Positional encoding without include_input and without "
                "trained frequencies; use .ntk(x1, x2)"
            )
        dv, dtype = self._points("dv", dv)
        q, u = self.covariance.of_offsets(dv)
        pair = Inputs(q, q, lambda *_: u, None, (len(u), 1), self.covariance.n_features(dv.shape[1]))
        prepared = Prepared(self.network(pair.n_features), pair, dtype, dv.device)
        s, t = prepared.at(u.to(dtype), which)
        return t if which == "ntk" else s  # type: ignore[return-value]

    def lines(self) -> tuple[Float[Tensor, "lines dim"], Float[Tensor, " lines"]]:
        r"""The lines of a stationary encoding: frequencies $b_j$ in cycles per unit and $a_j^2$, float64, with
        $\gamma\cdot\gamma' = \sum_j a_j^2 \cos 2\pi b_j\cdot(x - x')$."""
        return self.covariance.lines()

    def prepare(self, x1: Shaped[Tensor, "n dim"], x2: Shaped[Tensor, "m dim"] | None = None) -> Prepared:
        """All that concerns single points, worked out once, for callers that go through the matrix in blocks."""
        a, dtype = self._points("x1", x1)
        b = None
        if x2 is not None:
            b, other = self._points("x2", x2)
            dtype = torch.promote_types(dtype, other)
            if b.shape[1] != a.shape[1] or b.device != a.device:
                raise ConfigError(
                    f"x1 and x2 must have as many coordinates and be on one device; got {tuple(a.shape)} on {a.device} "
                    f"and {tuple(b.shape)} on {b.device}"
                )
        inputs = self.covariance.inputs(a, b)
        return Prepared(self.network(inputs.n_features), inputs, dtype, a.device, symmetric=x2 is None)

    def _dense(self, x1: Tensor, x2: Tensor | None, which: str) -> tuple[Tensor | None, Tensor | None]:
        rows, columns = len(x1), len(x1 if x2 is None else x2)
        dtype = x1.dtype if x1.is_floating_point() and x1.dtype.itemsize > 2 else torch.float32
        require_dense(rows * (1 + (which == "both")), columns, dtype, _INSTEAD, x1.device)
        return self.prepare(x1, x2).dense(which)

    def _points(self, name: str, x: Tensor) -> tuple[Tensor, torch.dtype]:
        x = coordinates(name, x, None if self.encoding is None else self.encoding.in_dim)
        dtype = x.dtype if x.dtype in (torch.float32, torch.float64) else torch.float32
        return x.to(dtype), dtype

    def network(self, n_features: int) -> Network:
        """The layers that the recursion goes through, behind so many features."""
        widths = [0] * self.depth if self.width is None else self.width
        layers = []
        for index, w in enumerate(self.w_std):
            hidden = widths[index - 1] if index else n_features
            fan_in = hidden + n_features * (index in self.skip)
            b = torch.zeros_like(w) if self.b_std is None else self.b_std[index]
            gain, bias_gain = w, b
            if self.parameterization == "standard":
                gain = torch.tensor(float(fan_in), dtype=torch.float64).sqrt()
                bias_gain = torch.tensor(float(self.b_std is not None), dtype=torch.float64)
            layers.append(Affine(w, b, gain, bias_gain, hidden / fan_in if index in self.skip else 1.0))
        return Network(layers, self._dual, self.activation_scale, self._output)

    def __repr__(self) -> str:
        activation = self.activation if isinstance(self.activation, str) else activations.name_of(self.activation)
        shown = {
            "activation": activation,
            "w_std": _shown(self.w_std),
            "b_std": None if self.b_std is None else _shown(self.b_std),
            "parameterization": self.parameterization,
            "width": None if self.width is None else self.width[0] if len(set(self.width)) == 1 else self.width,
            "encoding": self.encoding,
            "activation_scale": self.activation_scale,
            **({"negative_slope": self.negative_slope} if activation == "leaky_relu" else {}),
            "output_activation": self.output_activation,
            "skip": self.skip,
            "frequencies": self.frequencies,
            "train_encoding": self.covariance.train_encoding,
        }
        return f"MLPKernel({self.depth}, " + ", ".join(f"{k}={v!r}" for k, v in shown.items()) + ")"


def _deviations(name: str, value: float | Sequence[float] | Tensor, count: int) -> list[Tensor]:
    """One 0-d float64 tensor for each layer."""
    if isinstance(value, Tensor):
        values: list[float | Tensor] = list(value.unbind()) if value.ndim == 1 else [value] * count
    elif isinstance(value, Sequence) and not isinstance(value, str):
        values = list(value)
    else:
        values = [value] * count
    if len(values) != count:
        raise ConfigError(
            f"{name} needs one number, or {count} (one for each affine layer: depth + 1); got {len(values)}"
        )
    checked = []
    for v in values:
        number(name, v.item() if isinstance(v, Tensor) and v.ndim == 0 else v, 0)
        checked.append(v.double() if isinstance(v, Tensor) else torch.tensor(float(v), dtype=torch.float64))
    return checked


def _widths(width: int | Sequence[int] | None, depth: int) -> list[int] | None:
    if width is None:
        return None
    values = list(width) if isinstance(width, Sequence) else [width] * depth
    if len(values) != depth:
        raise ConfigError(f"width needs one number, or {depth} (one for each hidden layer); got {len(values)}")
    return [integer("width", value, 1) for value in values]


def _shown(values: list[Tensor]) -> float | list[float]:
    numbers = [float(f"{v.item():.6g}") for v in values]
    return numbers[0] if len(set(numbers)) == 1 else numbers
