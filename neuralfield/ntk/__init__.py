"""The tangent kernel of a field: at infinite width, of the actual weights, and what gradient descent makes of it.

```python
from neuralfield import ntk

kernel = ntk.MLPKernel.of(field)                        # infinite width, the field's own encoding and initialisation
k = kernel.ntk(x)                                       # [n, n]
ntk.empirical_ntk(field, x)                             # [n, n], the network at its present weights, mean over outputs
ntk.NTKOperator(field, x) @ v                           # any n: products alone
ntk.kernel_operator(kernel, x)                          # by FFT where x is a grid and the kernel stationary

s = ntk.spectrum(k, target=y)                           # eigenvalues, the target's energy in each mode
p = ntk.predict(k, k_test, y, t=[10, 100], f0=f0, f0_test=f0_test, learning_rate=1e-3)
p.train, p.test                                         # [2, n, C], [2, m, C]
```

Losses, parameterisations and precisions differ by factors between papers; each result says in its repr what it means, and
:mod:`.conventions` lists them.
"""

from neuralfield.ntk.adam import AdamPrediction, predict_adam
from neuralfield.ntk.alignment import alignment
from neuralfield.ntk.bandwidth import Bandwidth, bandwidth
from neuralfield.ntk.blocked import BlockedOperator, kernel_operator
from neuralfield.ntk.clock import AdamClock
from neuralfield.ntk.conventions import LOSSES, PARAMETERIZATIONS
from neuralfield.ntk.dynamics import Dynamics, predict
from neuralfield.ntk.empirical import empirical_ntk, empirical_parts, ntk_scales
from neuralfield.ntk.jacobian import flatten, jvp, unflatten, vjp
from neuralfield.ntk.kernel_parts import kernel_parts
from neuralfield.ntk.kernels import Kernels, MLPKernel
from neuralfield.ntk.lanczos import Eigenpairs, lanczos
from neuralfield.ntk.lattice_parts import lattice_parts
from neuralfield.ntk.linearize import Linearized, Scaled, linearize, scaled
from neuralfield.ntk.movement import LazinessProbe, Movement, kernel_movement, weight_movement
from neuralfield.ntk.ntk_operator import NTKOperator
from neuralfield.ntk.operator import Dense, KernelOperator
from neuralfield.ntk.posterior import Posterior, ensemble, gp_posterior
from neuralfield.ntk.prediction import Prediction
from neuralfield.ntk.slq import SpectralDensity, spectral_density
from neuralfield.ntk.spectrum import Spectrum, spectrum
from neuralfield.ntk.toeplitz import ToeplitzOperator

__all__ = [
    "LOSSES",
    "PARAMETERIZATIONS",
    "AdamClock",
    "AdamPrediction",
    "Bandwidth",
    "BlockedOperator",
    "Dense",
    "Dynamics",
    "Eigenpairs",
    "KernelOperator",
    "Kernels",
    "LazinessProbe",
    "Linearized",
    "MLPKernel",
    "Movement",
    "NTKOperator",
    "Posterior",
    "Prediction",
    "Scaled",
    "SpectralDensity",
    "Spectrum",
    "ToeplitzOperator",
    "alignment",
    "bandwidth",
    "empirical_ntk",
    "empirical_parts",
    "ensemble",
    "flatten",
    "gp_posterior",
    "jvp",
    "kernel_movement",
    "kernel_operator",
    "kernel_parts",
    "lanczos",
    "lattice_parts",
    "linearize",
    "ntk_scales",
    "predict",
    "predict_adam",
    "scaled",
    "spectral_density",
    "spectrum",
    "unflatten",
    "vjp",
    "weight_movement",
]
