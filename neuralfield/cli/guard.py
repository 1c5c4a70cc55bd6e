"""One place where an error becomes a message and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from neuralfield.errors import NeuralFieldError

MEND, INTERRUPTED = 2, 130
"""Exit codes: something that the user can mend; Ctrl-C (128 + SIGINT, as shells expect)."""


_NO_MEMORY = ("out of memory", "can't allocate memory", "unable to allocate")


def debugging() -> bool:
    """Whether NEURALFIELD_DEBUG asks for tracebacks."""
    return os.environ.get("NEURALFIELD_DEBUG", "") not in ("", "0")


def guarded(task: Callable[[], int]) -> int:
    """Run `task`; errors that a person can mend are printed in one line, unless NEURALFIELD_DEBUG=1."""
    try:
        return task()
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output (head, less) left; nobody is there to be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debugging():
            traceback.print_exc()
        else:
            say(message_of(error))
        return MEND


def message_of(error: BaseException) -> str:
    """The error in words: its own message where it was written for people, else with a hint how to see more."""
    if isinstance(error, NeuralFieldError):
        return str(error)
    text = str(error).strip().splitlines()
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY):
        return (
            f"out of memory ({text[0] if text else 'no details'}); a smaller fit.batch_size, network.width, "
            f"encoding.log2_hashmap_size or signal.resize needs less"
        )
    what = f"{type(error).__name__}: {text[0] if text else 'no message'}"
    return f"{what} (an unexpected error; NEURALFIELD_DEBUG=1 shows where it arose)"


def say(text: str) -> None:
    """One message on standard error."""
    print(f"neuralfield: {text}", file=sys.stderr, flush=True)
