"""How far a long reproduction is: a bar on a terminal, else a line every few seconds, both on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
LOG_SECONDS = 5.0
"""Time between two lines where standard error is no terminal; work that ends before the first stays silent."""


def track(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """The items, one by one, telling how many are done.

    **Arguments**

    - `what`: what they are: "networks of width 500".
    - `total`: how many, where ``items`` has no length.
    """
    total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track as bar

        yield from bar(items, what, total, console=Console(stderr=True), transient=True)
        return
    last = time.monotonic()
    for done, item in enumerate(items):
        if time.monotonic() - last >= LOG_SECONDS:
            last = time.monotonic()
            print(f"{what}: {done}{'' if total is None else f' of {total}'}", file=sys.stderr, flush=True)
        yield item
