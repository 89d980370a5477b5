"""Names of this family for s3prl, torch.hub and the registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sslbench.nn.upstream import Upstream
from sslbench.upstream.hf.load import build_upstream

CONFIGS = Path(__file__).parent / "configs"


def _entry(name: str) -> Callable[..., Upstream]:
    def entry(
        ckpt: Path | str | None = None,
        model_config: Path | str | None = None,
        refresh: bool = False,
        frozen: bool = True,
        seed: int = 0,
        **kwargs: Any,
    ) -> Upstream:
        return build_upstream(CONFIGS / f"{name}.yaml", ckpt, model_config, frozen, seed)

    entry.__name__ = name
    entry.__doc__ = build_upstream.__doc__
    return entry


hf_wav2vec2_base = _entry("hf_wav2vec2_base")
hf_hubert_base = _entry("hf_hubert_base")
hf_wavlm_base = _entry("hf_wavlm_base")
hf = hf_wav2vec2_base
