"""What the views of images, shapes and volumes share: the server, the worker, messages and a progress bar."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from neuralfield.viewer.summary import words_of
from neuralfield.viewer.worker import Check, Worker


class Desk:
    """A server with a place for messages and a progress bar in its panel, and a worker whose errors are shown there.

    **Arguments**

    - `server`: of viser.
    """

    def __init__(self, server: Any) -> None:
        self.server = server
        self._lock = threading.Lock()
        self._said: dict[str, str] = {}
        self._bar: Any = None
        self._message: Any = None
        self.worker = Worker(self._failed)

    def furnish(self) -> None:
        """Put the progress bar and the place for messages into the panel, here."""
        self._bar = self.server.gui.add_progress_bar(0.0, visible=False)
        self._message = self.server.gui.add_markdown("", visible=False)

    @property
    def message(self) -> str:
        """What is shown to the user now, as Markdown; empty if there is nothing to say."""
        with self._lock:
            return "\n\n".join(text for text in self._said.values() if text)

    def say(self, key: str, text: str) -> None:
        """Show Markdown until something else is said under the same key; the empty text takes it away."""
        with self._lock:
            if text:
                self._said[key] = text
            else:
                self._said.pop(key, None)
        shown = self.message
        if self._message is not None:
            self._message.content = shown
            self._message.visible = bool(shown)

    def hush(self, prefix: str = "") -> None:
        """Take away all that was said under keys that begin so."""
        for key in [key for key in self._said if key.startswith(prefix)]:
            self.say(key, "")

    def submit(self, key: str, job: Callable[[Check], None], *, urgent: bool = False) -> None:
        """Have the worker do `job` next, instead of any other of this key; errors are shown until it goes well."""

        def reported(check: Check) -> None:
            job(check)
            self.say(key, "")

        self.worker.submit(key, reported, urgent=urgent)

    def progress(self, fraction: float | None) -> None:
        """Show how much of something is done, 0 to 1; None takes the bar away."""
        if self._bar is None:
            return
        if fraction is not None:
            self._bar.value = round(100 * min(max(fraction, 0.0), 1.0), 1)
        self._bar.visible = fraction is not None

    def watched(self, check: Check) -> Callable[[float], None]:
        """An ``on_progress`` that shows the fraction and ends the work when nobody waits for it."""

        def on_progress(fraction: float) -> None:
            check()
            self.progress(fraction)

        return on_progress

    def close(self) -> None:
        """End the worker, then the server."""
        self.worker.close()
        self.server.stop()

    def _failed(self, key: str, error: Exception) -> None:
        self.progress(None)
        self.say(key, words_of(error))
