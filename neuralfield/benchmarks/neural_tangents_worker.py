"""neural-tangents (Novak et al. 2020), run by the Python of its own environment: `python neural_tangents_worker.py FILE`.

FILE is an .npz with what the cases work on:

- `kernel_x` [n, D]: points of the infinite-width kernel; `depth`, `w_std`, `b_std`: of all infinite-width networks.
- `empirical_x512` [512, M]: features, for any number of points.
- `weight0` [M, width], `bias0` [width], `weight1`, ...: of the finite network.
- `k_train` [n, n], `k_test` [m, n], `y` [n, C], `times` [T]: of the closed-form prediction.

The first line of the output tells the versions. Each line of the input asks for one round of a case, as JSON with `case`,
`dtype` and `n` (of "empirical", how many points); the answer is {"seconds": ...}. With `save` the numbers of the case's last
round are written to that path instead; of the predictions, those of the test points.

Nothing of the package is imported here: that environment has neither it nor torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def load() -> tuple[Any, Any]:
    """jax and neural_tangents, where the release of the one has outrun that of the other."""
    # The folder of this file, which Python puts first, must not offer its modules to others.
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    # neural_tangents imports a bridge to TensorFlow on its way in, 2.6 GiB that nothing here uses.
    sys.modules.setdefault("neural_tangents.experimental", types.ModuleType("neural_tangents.experimental"))
    jax = import_module("jax")
    # Two names that version 0.6.5 still looks for in jax.interpreters.ad (its main branch has the new places).
    ad = import_module("jax.interpreters.ad")
    for name, value in (("source_info_util", import_module("jax.extend.source_info_util")), ("config", jax.config)):
        if not hasattr(ad, name):
            setattr(ad, name, value)
    return jax, import_module("neural_tangents")


def kernel(jax: Any, nt: Any, inputs: dict[str, Any], dtype: str, _: int) -> Callable[[], Any]:
    """The infinite-width tangent kernel of one output, compiled."""
    stax, scales = nt.stax, {"W_std": float(inputs["w_std"]), "b_std": float(inputs["b_std"])}
    hidden = [layer for _ in range(int(inputs["depth"])) for layer in (stax.Dense(1, **scales), stax.Relu())]
    kernel_of = stax.serial(*hidden, stax.Dense(1, **scales))[2]
    x = jax.numpy.asarray(inputs["kernel_x"], dtype)
    compiled = jax.jit(lambda x: kernel_of(x, None, "ntk"))
    return lambda: compiled(x)


def empirical(jax: Any, nt: Any, inputs: dict[str, Any], dtype: str, n: int) -> Callable[[], Any]:
    """The finite-width kernel, mean over outputs, by structured derivatives: its fastest implementation for an MLP."""
    count = sum(name.startswith("weight") for name in inputs)
    numbers = [
        tuple(jax.numpy.asarray(inputs[f"{kind}{k}"], dtype) for kind in ("weight", "bias")) for k in range(count)
    ]
    parameters: list[Any] = []
    modules: list[Any] = []
    for index, (weight, bias) in enumerate(numbers):
        modules.append(nt.stax.Dense(weight.shape[1], parameterization="standard", b_std=0.0))
        parameters.append((weight, bias[None]))
        if index < count - 1:
            modules.append(nt.stax.Relu())
            parameters.append(())
    apply = nt.stax.serial(*modules)[1]
    implementation = nt.NtkImplementation.STRUCTURED_DERIVATIVES
    traced = nt.empirical_ntk_fn(apply, trace_axes=(-1,), vmap_axes=0, implementation=implementation)
    compiled = jax.jit(lambda x, parameters: traced(x, None, parameters))
    x = jax.numpy.asarray(inputs[f"empirical_x{n}"], dtype)
    return lambda: compiled(x, parameters)


def _problem(jax: Any, inputs: dict[str, Any], dtype: str) -> list[Any]:
    return [jax.numpy.asarray(inputs[name], dtype) for name in ("k_train", "k_test", "y", "times")]


def prediction(jax: Any, nt: Any, inputs: dict[str, Any], dtype: str, _: int) -> Callable[[], Any]:
    """Values at training and test points at all times, the eigendecomposition included (which cannot be compiled along)."""
    k_train, k_test, y, times = _problem(jax, inputs, dtype)
    return lambda: nt.predict.gradient_descent_mse(k_train, y)(times, 0.0, 0.0, k_test)


def evaluation(jax: Any, nt: Any, inputs: dict[str, Any], dtype: str, _: int) -> Callable[[], Any]:
    """The same with the decomposition at hand, compiled."""
    k_train, k_test, y, times = _problem(jax, inputs, dtype)
    predict = nt.predict.gradient_descent_mse(k_train, y)
    predict(times, 0.0, 0.0, k_test)  # decomposes, and keeps that
    compiled = jax.jit(lambda times, k_test: predict(times, 0.0, 0.0, k_test))
    return lambda: compiled(times, k_test)


CASES = {"kernel": kernel, "empirical": empirical, "prediction": prediction, "evaluation": evaluation}


def main(path: str) -> None:
    """Answer until the input ends."""
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        jax, nt = load()
    except Exception as error:
        answer(error=f"{type(error).__name__}: {error}")
        return
    numpy, enable_x64 = import_module("numpy"), import_module("jax.experimental").enable_x64
    inputs = dict(numpy.load(path))
    made: dict[tuple[str, str, int], Callable[[], Any]] = {}
    results: dict[tuple[str, str, int], Any] = {}
    answer(python=sys.version.split()[0], jax=jax.__version__, neural_tangents=nt.__version__)
    for line in sys.stdin:
        request = json.loads(line)
        key = request["case"], request["dtype"], request["n"]
        try:
            if "save" in request:
                result = results[key]
                numpy.save(request["save"], numpy.asarray(result[1] if isinstance(result, tuple) else result))
                answer()
                continue
            with enable_x64(request["dtype"] == "float64"):
                if key not in made:
                    made[key] = CASES[key[0]](jax, nt, inputs, *key[1:])
                started = time.perf_counter()
                results[key] = jax.block_until_ready(made[key]())
                seconds = time.perf_counter() - started
            answer(seconds=seconds)
        except BrokenPipeError:  # nobody listens any more
            return
        except Exception as error:
            answer(error=f"{request['case']}: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
