"""Progress with time left: a live bar in a terminal, plain lines every few seconds elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
LINE_EVERY_S = 10.0


class Progress:
    """Counts work done.

    >>> with Progress("reading", total=2) as progress:
    ...     progress.advance()
    ...     progress.advance(note="done")
    """

    def __init__(self, what: str, total: int, done: int = 0) -> None:
        self.what, self.total, self.done = what, total, done
        self._first = done  # a resumed run estimates from what it did itself
        self._started = self._printed = time.monotonic()
        self._live = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self.done:
            _show("\n")

    def advance(self, by: int = 1, note: str = "") -> None:
        """Count `by` more units; `note` is shown behind the time left."""
        self.done += by
        now = time.monotonic()
        if self._live and (now - self._printed > 0.1 or self.done >= self.total):
            self._printed = now
            _show("\r\x1b[K" + self.line(note))
        elif not self._live and now - self._printed > LINE_EVERY_S:
            self._printed = now
            _show(self.line(note) + "\n")

    def line(self, note: str = "") -> str:
        """`what 120/600 20% left 0:48 note`."""
        fresh = self.done - self._first
        left = (time.monotonic() - self._started) / fresh * (self.total - self.done) if fresh else 0.0
        share = self.done / self.total if self.total else 1.0
        return f"{self.what} {self.done}/{self.total} {share:.0%} left {clock(left)} {note}".rstrip()


def _show(text: str) -> None:
    # a terminal that was closed must not end the work, which may want to save first
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def track(items: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield items while showing progress."""
    with Progress(what, total) as progress:
        for item in items:
            yield item
            progress.advance()


def clock(seconds: float) -> str:
    """`M:SS`, or `H:MM:SS` from an hour on."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
