"""Telling a person how a fit goes: a live bar on a terminal, a plain line every few seconds in a log."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

LOG_SECONDS = 5.0
"""Time between two lines in a log file."""


@dataclass
class Report:
    """What is known at one moment; `fraction` of the work done is 0 to 1, `quality` in words."""

    step: int
    fraction: float
    loss: float
    quality: str
    steps_per_second: float
    seconds_left: float | None

    def words(self) -> str:
        """The report in one line, short enough for half a terminal."""
        left = "" if self.seconds_left is None else f"  {duration(self.seconds_left)} left"
        return f"step {self.step:,}  loss {self.loss:.2e}  {self.quality}  {self.steps_per_second:.1f} steps/s{left}"


def duration(seconds: float) -> str:
    """Seconds in words: "0:42", "12:03", "1:02:03"."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class Silent:
    """Says nothing; the other reporters are told the same way."""

    interval = 1.0
    """Seconds between two updates that are worth the trouble."""

    def start(self, title: str) -> None:
        """The fit begins."""

    def update(self, report: Report) -> None:
        """A step was done."""

    def note(self, text: str) -> None:
        """Something worth a line of its own."""

    def stop(self) -> None:
        """The fit ended, well or not."""


class PlainLog(Silent):
    """One line every few seconds, the first after one second, and the last state at the end."""

    def __init__(self, stream: io.TextIOBase | None = None, every: float = LOG_SECONDS) -> None:
        self._stream = stream or cast(io.TextIOBase, sys.stdout)
        self._every = every
        self._next = 0.0
        self._last: Report | None = None
        self._shown: Report | None = None

    def start(self, title: str) -> None:
        self._next = time.monotonic() + 1.0
        self.note(title)

    def update(self, report: Report) -> None:
        self._last = report
        if time.monotonic() >= self._next:
            self._show(report)
            self._next = time.monotonic() + self._every

    def note(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def stop(self) -> None:
        if self._last is not None and self._last is not self._shown:
            self._show(self._last)

    def _show(self, report: Report) -> None:
        self._shown = report
        self.note(f"{100 * report.fraction:3.0f} %  {report.words()}")


class _Words(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["words"], no_wrap=True, overflow="ellipsis")  # one line, on narrow terminals too


class LiveBar(Silent):
    """A bar that is redrawn in place."""

    interval = 0.1

    def __init__(self, console: Console) -> None:
        self._bar = Progress(
            BarColumn(bar_width=10), TextColumn("{task.percentage:3.0f} %"), _Words(),
            console=console, refresh_per_second=8,
        )  # fmt: skip
        self._task: TaskID | None = None

    def start(self, title: str) -> None:
        self.note(title)
        self._bar.start()
        self._task = self._bar.add_task("fitting", total=1.0, words="")

    def update(self, report: Report) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=report.fraction, words=report.words())

    def note(self, text: str) -> None:
        self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def stop(self) -> None:
        self._bar.stop()


class Notes:
    """Says how far a piece of work has come, a line every few seconds: called with a fraction, 0 to 1."""

    def __init__(self, tell: Silent, what: str) -> None:
        self._tell, self._what = tell, what
        self._next = time.monotonic() + LOG_SECONDS

    def __call__(self, fraction: float) -> None:
        if time.monotonic() >= self._next:
            self._tell.note(f"{self._what}: {100 * fraction:.0f} %")
            self._next = time.monotonic() + LOG_SECONDS


@contextmanager
def log_to(tell: Silent) -> Iterator[None]:
    """Inside the block, what the package logs (a compilation, a download) reaches the person as notes."""
    logger, handler = logging.getLogger("neuralfield"), logging.Handler()
    handler.emit = lambda record: tell.note(record.getMessage())  # type: ignore[method-assign]
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def reporter(progress: bool | Any = True) -> Silent:
    """The reporter that suits where standard output goes; ``False`` for silence, a reporter for itself."""
    if isinstance(progress, Silent):
        return progress
    if not progress:
        return Silent()
    console = Console()
    return LiveBar(console) if console.is_terminal else PlainLog()
