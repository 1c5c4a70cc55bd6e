"""Loss and gradients of one batch: from kept features where there are any, and in chunks that suit the memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from neuralfield.field import Field
from neuralfield.fitting import features
from neuralfield.fitting.data import Batch, TrainingData
from neuralfield.fitting.options import FitOptions
from neuralfield.networks import MLP

_IN_CACHE = 12 * 2**20
"""Bytes of activations that a processor's last cache holds: 2,048 rows of 512 features and three layers of 256."""

_IN_MEMORY = 2**32
"""Bytes of activations where a chunk costs more than it saves; on a GPU no more than an eighth of its memory."""

_FEW = 2**14
"""Parameters of an encoding whose dense gradient may well be added up once per chunk; a table has more."""


class Gradients:
    """Adds the gradients of a batch's loss to the parameters.

    **Arguments**

    - `field`: on the device that it is trained on.
    - `data`: whose training samples the batches are of.
    - `loss`: a mean over samples and channels; the mean over a batch is then the mean over its chunks, weighted by size.
    - `batch_size`: samples a step; `options`: see :class:`FitOptions`.
    - `precision`: of the network's products, "float32" or "bfloat16"; the encoding stays in float32.
    """

    def __init__(
        self,
        field: Field,
        data: TrainingData,
        loss: Callable[[Tensor, Tensor], Tensor],
        batch_size: int,
        options: FitOptions,
        precision: str,
    ) -> None:
        self.field, self.data, self.loss, self.options = field, data, loss, options
        self.half = precision == "bfloat16"
        self.rows = chunk_rows(field, 2 if self.half else 4)
        n = data.signal.split.n_train
        self._wanted = data.coordinates is not None and features.worthwhile(field, n, batch_size, options)
        self._features: Tensor | None = None

    def add(self, batch: Batch) -> Tensor:
        """Run forward and backward; returns the loss, detached."""
        self._prepare()
        n = len(batch.target)
        count = max(1, math.ceil(n / self.rows))
        size = max(1, math.ceil(n / count))
        total = torch.zeros((), device=batch.target.device)
        for start in range(0, max(n, 1), size):
            part = slice(start, start + size)
            target = batch.target[part]
            loss = self.loss(self._predict(batch, part).float(), target)
            if count > 1:
                loss = loss * (len(target) / n)
            loss.backward()
            total += loss.detach()
        return total

    def _predict(self, batch: Batch, part: slice) -> Tensor:
        with torch.autocast(batch.target.device.type, torch.bfloat16, enabled=self.half):
            if self._features is None:
                return self.field(batch.coordinates[part])  # type: ignore[no-any-return]
            known = self._features[part] if batch.position is None else self._features[batch.position[part]]
            return self.field.network(known)  # type: ignore[no-any-return]

    def _prepare(self) -> None:
        """Compute the features that are kept, at the first step: a part of the training time, and after a checkpoint."""
        if not self._wanted:
            return
        self._wanted = False
        assert self.data.coordinates is not None
        # An MLP's first product would round them to bfloat16 in every step, to the same numbers.
        dtype = torch.bfloat16 if self.half and isinstance(self.field.network, MLP) else torch.float32
        self._features = features.compute(self.field.encoding, self.data.coordinates, dtype, self.options.seconds)


def chunk_rows(field: Field, itemsize: int = 4) -> int:
    """Samples that go through the field at a time; ``itemsize``: bytes of a number that layers hand on.

    On a CPU so many that what the layers hand on stays in its cache: several times as fast as through memory. A function
    of the field and of the machine's size, not of what is free just now, so that a fit gives the same numbers again.
    """
    widths = [layer.out_features for layer in field.network.modules() if isinstance(layer, nn.Linear)]
    row = itemsize * (field.encoding.out_dim + sum(widths))
    learned = sum(p.numel() for p in field.encoding.parameters() if p.requires_grad)
    if field.device.type == "cpu":
        limit = _IN_CACHE if learned <= _FEW else _IN_MEMORY
    else:
        whole = torch.cuda.get_device_properties(field.device).total_memory if field.device.type == "cuda" else 2**40
        limit = min(_IN_MEMORY, whole // 8)
    return max(64, limit // row)
