"""What the kernels are measured against: torch.func as its tutorial has it, and neural-tangents in a process of its own."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from neuralfield.benchmarks import neural_tangents_worker
from neuralfield.errors import MissingDependency
from neuralfield.networks import MLP

RECIPE = (
    "python -m venv ENV && ENV/bin/pip install jax==0.5.3 jaxlib==0.5.3 frozendict && "
    "ENV/bin/pip install --no-deps neural-tangents==0.6.5, then --neural-tangents ENV/bin/python"
)


def contraction(module: nn.Module, x: Tensor) -> Tensor:
    """The kernel traced over outputs, by the explicit Jacobian: jacrev and einsum, as PyTorch's tutorial contracts them."""
    parameters = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}

    def one(values: dict[str, Tensor], point: Tensor) -> Tensor:
        return torch.func.functional_call(module, values, (point[None],))[0]

    jacobian = torch.func.vmap(torch.func.jacrev(one), (None, 0))(parameters, x)
    parts = [
        torch.einsum("ncp,mcp->nm", part.flatten(2), part.flatten(2)) / part.shape[1] for part in jacobian.values()
    ]
    return torch.stack(parts).sum(0)


def product_by_autograd(module: nn.Module, x: Tensor, v: Tensor, rows: Tensor) -> Tensor:
    r"""$J_\text{rows} (J^\top v)$ by reverse mode: one pass over x in chunks, then each output of each of a few rows.

    **Arguments**

    - `x`: [n, D]; `v`: [n, C].
    - `rows`: [r, D]; the result is [r, C].
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for points, weights in zip(x.split(4096), v.split(4096), strict=True):
        gradients = torch.autograd.grad((module(points) * weights).sum(), list(parameters.values()))
        for name, gradient in zip(parameters, gradients, strict=True):
            total[name] += gradient
    output = module(rows)
    found = []
    for value in output.flatten():
        gradients = torch.autograd.grad(value, list(parameters.values()), retain_graph=True)
        found.append(sum((g * t).sum() for g, t in zip(gradients, total.values(), strict=True)))
    return torch.stack(found).reshape(output.shape)  # type: ignore[arg-type]


class NeuralTangents:
    """neural-tangents behind a pipe: it needs an environment of its own, with a JAX of its time.

    A context manager; the process ends with it.

    **Arguments**

    - `python`: the interpreter of that environment.
    - `inputs`: what its cases work on, see :mod:`.neural_tangents_worker`.

    Raises :class:`~neuralfield.errors.MissingDependency` where the interpreter is missing or cannot import what it needs.
    """

    def __init__(self, python: str, inputs: Mapping[str, np.ndarray]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "inputs.npz"
        np.savez(path, **inputs)  # type: ignore[arg-type]
        worker = Path(neural_tangents_worker.__file__)
        try:
            self._process = subprocess.Popen(
                [python, str(worker), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        except OSError as error:
            self._folder.cleanup()
            raise MissingDependency(f"--neural-tangents {python} cannot be run ({error}); {RECIPE}") from error
        try:
            self.versions: dict[str, str] = self._answer()
        except MissingDependency:
            self.close()
            raise

    @property
    def name(self) -> str:
        """With its version and JAX's."""
        return f"neural-tangents {self.versions['neural_tangents']} (jax {self.versions['jax']})"

    def run(self, case: str, dtype: str = "float32", n: int = 0) -> tuple[float, dict[str, Any]]:
        """One round of a case: seconds by the worker's own clock, and what to ask :meth:`result` for."""
        request = {"case": case, "dtype": dtype, "n": n}
        return float(self._ask(request)["seconds"]), request

    def result(self, request: dict[str, Any]) -> np.ndarray:
        """The numbers of the last round of a case; of a prediction those of the test points."""
        path = Path(self._folder.name) / "result.npy"
        self._ask({**request, "save": str(path)})
        return np.load(path)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()
        self._folder.cleanup()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended; there is no answer either
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process ended; what it said stands above"}
        if "error" in answer:
            raise MissingDependency(f"neural-tangents failed: {answer['error']}; a set that works: {RECIPE}")
        return answer

    def __enter__(self) -> NeuralTangents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def layers(network: MLP) -> dict[str, np.ndarray]:
    """Weights [inputs, outputs] and biases [outputs] of a network, as neural-tangents holds them."""
    found = {}
    for index, layer in enumerate(network.linear_layers()):
        found[f"weight{index}"] = layer.weight.detach().T.cpu().numpy()
        found[f"bias{index}"] = layer.bias.detach().cpu().numpy()
    return found
