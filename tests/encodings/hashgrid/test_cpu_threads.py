"""Tasks of the CPU engine on torch's threads and on a pool."""

from __future__ import annotations

import threading

import pytest

from neuralfield.encodings.hashgrid import cpu_threads


def test_tasks_run_on_several_threads(either_threads, torch_threads) -> None:  # type: ignore[no-untyped-def]
    """Two tasks that wait for each other end only if they run at the same time."""
    barrier = threading.Barrier(2)
    seen: list[int] = []

    def meet() -> None:
        barrier.wait(timeout=20)
        seen.append(threading.get_ident())

    cpu_threads.run([meet, meet], 2)
    assert len(set(seen)) == 2


def test_an_error_in_a_task_is_raised_and_the_pool_goes_on(either_threads, torch_threads) -> None:  # type: ignore[no-untyped-def]
    done: list[int] = []

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cpu_threads.run([fail, fail, fail], 2)
    cpu_threads.run([lambda: done.append(1)] * 5, 2)
    assert len(done) == 5
