"""What asks a long run to end: Ctrl-C, a scheduler, a closed terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def heeding(answer: Callable[[int, object], None]) -> Iterator[None]:
    """Call `answer(number, frame)` for the signals that ask to stop, and restore their handlers afterwards.

    A hang-up that is ignored (nohup) stays ignored. Only the main thread may set handlers; in another one
    nothing is set.
    """
    previous = {}
    if threading.current_thread() is threading.main_thread():
        for number in STOPS:
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                previous[number] = signal.signal(number, answer)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
