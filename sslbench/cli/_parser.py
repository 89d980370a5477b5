"""The argument parser of every verb."""

from __future__ import annotations

import argparse
from typing import Any


class Parser(argparse.ArgumentParser):
    """argparse's, without abbreviations; its subparsers are of this class too.

    A verb that starts itself again with some options replaced knows them by their whole names.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
