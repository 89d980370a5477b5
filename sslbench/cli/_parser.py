"""The argument parser of every verb."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any


class Parser(argparse.ArgumentParser):
    """argparse's, without abbreviations; its subparsers are of this class too.

    A verb that starts itself again with some options replaced knows them by their whole names. Names are
    spelt with underscores; dashes in their place are understood.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse's."""
        words = list(sys.argv[1:] if args is None else args)
        ours = words.index("--") if "--" in words else len(words)  # what follows is another program's
        words[:ours] = [self._underscored(word) for word in words[:ours]]
        found: tuple[argparse.Namespace, list[str]] = super().parse_known_args(words, namespace)
        return found

    def _underscored(self, word: str) -> str:
        name, equals, value = word.partition("=")
        spelt = "--" + name[2:].replace("-", "_")
        return spelt + equals + value if spelt in self._option_string_actions else word
