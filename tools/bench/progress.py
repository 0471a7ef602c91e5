"""Says where a benchmark is: on a terminal in one line, elsewhere a line each."""

import sys
from collections.abc import Callable

Progress = Callable[[str], None]


def progress(name: str) -> Progress:
    """Says to standard error what a benchmark does next."""

    def say(what: str) -> None:
        on_terminal = sys.stderr.isatty()
        sys.stderr.write(f"\r\x1b[K{name}: {what}" if on_terminal else f"{name}: {what}\n")
        sys.stderr.flush()

    return say


def done() -> None:
    """Ends the line on a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write("\r\x1b[K")
