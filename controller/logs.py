"""Log lines for people and for programs. Details travel as `extra` and are written after the message."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}


def configure(style: str, *, level: int = logging.INFO) -> None:
    """Sends log lines to standard error: `text`, `json`, or `bare`, which leaves the time to whoever relays them."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter({"json": _Json(), "text": _Text(), "bare": _Bare()}[style])
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "watchfiles", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


@contextmanager
def silence() -> Iterator[None]:
    """No log lines within, for a command whose output says it all."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)


class _Bare(logging.Formatter):
    """`INFO bundle live  gateway=local version=ab12`."""

    def format(self, record: logging.LogRecord) -> str:
        details = " ".join(f"{name}={_shown(value)}" for name, value in _details(record).items())
        line = f"{record.levelname} {record.getMessage()}" + (f"  {details}" if details else "")
        return line + (f"\n{self.formatException(record.exc_info)}" if record.exc_info else "")


class _Text(_Bare):
    """`12:30:01.250 INFO bundle live  gateway=local version=ab12`."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        return f"{time} {super().format(record)}"


class _Json(logging.Formatter):
    """One object per line."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": time,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in _details(record).items() if name not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _details(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _shown(value: object) -> str:
    shown = f"{value:.1f}" if isinstance(value, float) else str(value)
    return json.dumps(shown) if " " in shown or not shown else shown
