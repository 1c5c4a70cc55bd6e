"""One thread for everything that takes long, so that the browser never waits: :class:`Worker`.

All fields are evaluated on this one thread. Two at once would gain nothing (torch uses every core already), and the
compiled engines are not made to be entered twice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

Check = Callable[[], None]
"""To be called often by a job: it ends the job, by raising :class:`Superseded`, when its result is not wanted any more."""

Job = Callable[[Check], None]


class Superseded(Exception):
    """A newer job took this one's place, or nobody waits for it."""


@dataclass(eq=False)
class _Task:
    key: str
    job: Job
    urgent: bool
    stopped: bool = False


class Worker:
    """Runs jobs one after the other, of each key only the newest.

    A job that is submitted while another of its key waits or runs takes its place: the old one is dropped, or ended at its
    next ``check()``. Urgent jobs go first, and run inside the ``check()`` of one that is not urgent.

    **Arguments**

    - `on_error`: called on the worker's thread with the key and what a job raised.
    """

    def __init__(self, on_error: Callable[[str, Exception], None]) -> None:
        self._on_error = on_error
        self._pending: dict[str, _Task] = {}
        self._running: list[_Task] = []
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="neuralfield-viewer", daemon=True)
        self._thread.start()

    def submit(self, key: str, job: Job, *, urgent: bool = False) -> None:
        """Have `job` run soon, instead of any other of this key."""
        with self._changed:
            self._stop(lambda task: task.key == key)
            self._pending[key] = _Task(key, job, urgent)
            self._changed.notify_all()

    def cancel(self, prefix: str = "") -> None:
        """Drop the jobs whose keys begin so; one that runs ends at its next ``check()``."""
        with self._changed:
            self._stop(lambda task: task.key.startswith(prefix))
            self._changed.notify_all()

    def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs or waits; whether that came about within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._pending and not self._running, timeout)

    def close(self, timeout: float = 5.0) -> None:
        """End what runs, drop what waits, and wait for the thread to end."""
        with self._changed:
            self._closed = True
            self._stop(lambda task: True)
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)

    def _stop(self, which: Callable[[_Task], bool]) -> None:
        for task in self._running:
            task.stopped = task.stopped or which(task)
        self._pending = {key: task for key, task in self._pending.items() if not which(task)}

    def _loop(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if self._closed:
                    return
                task = self._next()
            if task is not None:
                self._run(task)

    def _next(self, urgent_only: bool = False) -> _Task | None:
        """The task to run now, moved from the waiting to the running ones; urgent ones first."""
        with self._changed:
            waiting = sorted(self._pending.values(), key=lambda task: not task.urgent)  # stable: else in order
            if not waiting or (urgent_only and not waiting[0].urgent):
                return None
            self._running.append(self._pending.pop(waiting[0].key))
            return waiting[0]

    def _run(self, task: _Task) -> None:
        try:
            task.job(lambda: self._check(task))
        except Superseded:
            pass
        except Exception as error:
            if not task.stopped:
                self._on_error(task.key, error)
        finally:
            with self._changed:
                self._running.remove(task)
                self._changed.notify_all()

    def _check(self, task: _Task) -> None:
        while not (task.stopped or task.urgent):
            inner = self._next(urgent_only=True)
            if inner is None:
                break
            self._run(inner)
        if task.stopped:
            raise Superseded
