"""Errors meant for people: what happened, where, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SslbenchError(Exception):
    """A fault the user can mend. The command line prints its message as one line and exits with 2."""


class AudioError(SslbenchError):
    """A recording that cannot be read, or is not what it claims to be. Long runs skip, count and name it."""


class CorruptFileError(SslbenchError):
    """A checkpoint, manifest or result whose content does not match its own checksum or format."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest known names, or all of them when none is close and they are few."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + ", ".join(known[:12]) + (", …" if len(known) > 12 else "")
