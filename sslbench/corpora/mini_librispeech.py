"""Mini LibriSpeech (OpenSLR 31): train-clean-5 and dev-clean-2, in LibriSpeech's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sslbench.corpora import PrepareOptions
from sslbench.corpora.librispeech import prepare_parts


def prepare(root: Path, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Make manifests of the splits found; see `sslbench.corpora.librispeech.prepare`."""
    from lhotse.recipes.librispeech import MINI_LIBRISPEECH

    return prepare_parts("mini_librispeech", sorted(MINI_LIBRISPEECH, reverse=True), root, out, options)
