"""Tasks on all cores: how the CPU engine's kernels, which release the GIL, run side by side.

Tasks run on torch's own OpenMP threads where these can be reached: after each of its operations torch keeps them spinning
for some milliseconds, and other threads would have to share the cores with them. Elsewhere, and in forked processes, where
OpenMP's threads are gone, a pool of Python threads serves. numba's threading layers are not used:
its default one aborts the process when two threads call it at once.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

Task = Callable[[], object]

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_forked = False


def run(tasks: list[Task], threads: int) -> None:
    """Run all tasks, begun in order, on the calling thread and up to `threads` - 1 others; raises what a task raises."""
    queue = deque(tasks)
    helpers = min(threads, len(tasks)) - 1
    parallel = _openmp()
    if helpers < 1:
        drain(queue)
    elif parallel is None or _forked:
        _run_in_pool(queue, helpers)
    else:
        errors: list[BaseException] = []

        def body(_: int | None) -> None:
            try:
                drain(queue)
            except BaseException as error:  # must not leave through C; raised again below
                queue.clear()
                errors.append(error)

        # As many as torch has, even if fewer would do: another number would make OpenMP end and start threads.
        parallel(_BODY(body), None, torch.get_num_threads(), 0)
        if errors:
            raise errors[0]


@functools.cache
def _openmp() -> Any:
    """``GOMP_parallel(function, data, threads, flags)`` of the OpenMP library that torch itself uses, where it has one."""
    if not (sys.platform == "linux" and torch.backends.openmp.is_available()):
        return None
    function = getattr(ctypes.CDLL(None), "GOMP_parallel", None)  # torch loads it for all to see
    if function is not None:
        function.argtypes, function.restype = (_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint), None
    return function


def _run_in_pool(queue: deque[Task], helpers: int) -> None:
    global _pool, _pool_size
    if _pool is None or _pool_size < helpers:
        _pool, _pool_size = ThreadPoolExecutor(helpers, thread_name_prefix="neuralfield"), helpers
    try:
        started = [_pool.submit(drain, queue) for _ in range(helpers)]
    except RuntimeError:  # the interpreter is shutting down: the calling thread does it all
        started = []
    try:
        drain(queue)
    finally:
        queue.clear()
        for helper in started:
            if not helper.cancel():  # one that has not begun, as when other callers keep the pool busy, is not needed
                helper.result()


def drain(queue: deque[Task]) -> None:
    """Run what is left of the tasks, while others may do the same."""
    while True:
        try:
            task = queue.popleft()
        except IndexError:
            return
        task()


def _after_fork() -> None:
    """Neither OpenMP's threads nor the pool's exist in a forked child; a new pool can be made there, a new team not."""
    global _pool, _pool_size, _forked
    _pool, _pool_size, _forked = None, 0, True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
