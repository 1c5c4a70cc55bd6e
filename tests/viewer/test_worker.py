"""The worker: one job of a key, the newest; urgent ones in between; errors are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from neuralfield.viewer.worker import Check, Worker


@pytest.fixture
def told() -> list[tuple[str, str]]:
    return []


@pytest.fixture
def worker(told: list[tuple[str, str]]) -> Iterator[Worker]:
    one = Worker(lambda key, error: told.append((key, str(error))))
    yield one
    one.close()


class Running:
    """A job that goes on until it is ended or told to go on."""

    def __init__(self) -> None:
        self.started, self.free, self.ended = threading.Event(), threading.Event(), False
        self.checks = 0

    def __call__(self, check: Check) -> None:
        self.started.set()
        while not self.free.is_set():
            check()
            self.checks += 1
            time.sleep(0.001)
        self.ended = True


def test_jobs_run_in_order_urgent_ones_first(worker: Worker) -> None:
    first, done = Running(), []
    worker.submit("first", first)
    assert first.started.wait(5)
    for key in ("a", "b"):
        worker.submit(key, lambda check, key=key: done.append(key))
    first.free.set()
    assert worker.idle(5) and done == ["a", "b"] and first.ended
    blocked = Running()
    # An urgent job does not look for others in its check(), so both of these wait until it ends.
    worker.submit("blocked", blocked, urgent=True)
    assert blocked.started.wait(5)
    done.clear()
    worker.submit("a", lambda check: done.append("a"))
    worker.submit("b", lambda check: done.append("b"), urgent=True)
    blocked.free.set()
    assert worker.idle(5) and done == ["b", "a"]


def test_an_urgent_job_runs_inside_a_long_one(worker: Worker) -> None:
    long, inner = Running(), threading.Event()
    worker.submit("long", long)
    assert long.started.wait(5)
    worker.submit("urgent", lambda check: inner.set(), urgent=True)
    assert inner.wait(5) and not long.ended
    long.free.set()
    assert worker.idle(5) and long.ended


def test_a_newer_job_ends_the_older_one_of_its_key(worker: Worker, told: list) -> None:
    old, done = Running(), []
    worker.submit("key", old)
    assert old.started.wait(5)
    worker.submit("key", lambda check: done.append("waiting"))  # is replaced before it runs
    worker.submit("key", lambda check: done.append("newest"))
    assert worker.idle(5)
    assert done[-1] == "newest" and not old.ended and told == []


def test_cancel_ends_jobs_by_the_beginning_of_their_keys(worker: Worker) -> None:
    running, done = Running(), []
    worker.submit("a/1", running)
    assert running.started.wait(5)
    worker.submit("a/2", lambda check: done.append("a/2"))
    worker.submit("b/1", lambda check: done.append("b/1"))
    worker.cancel("a/")
    assert worker.idle(5) and done == ["b/1"] and not running.ended


def test_errors_are_told_and_the_next_job_runs(worker: Worker, told: list) -> None:
    done = []

    def wrong(check: Check) -> None:
        raise ValueError("no such thing")

    worker.submit("wrong", wrong)
    worker.submit("right", lambda check: done.append(1))
    assert worker.idle(5) and told == [("wrong", "no such thing")] and done == [1]


def test_what_a_job_raises_after_it_was_replaced_is_not_told(worker: Worker, told: list) -> None:
    started, free = threading.Event(), threading.Event()

    def late(check: Check) -> None:
        started.set()
        free.wait(5)
        raise ValueError("too late")

    worker.submit("key", late)
    assert started.wait(5)
    worker.cancel("key")
    free.set()
    assert worker.idle(5) and told == []


def test_close_ends_what_runs(told: list) -> None:
    worker, running = Worker(lambda key, error: told.append(key)), Running()
    worker.submit("key", running)
    assert running.started.wait(5)
    worker.close()
    assert not running.ended and told == [] and not worker._thread.is_alive()
