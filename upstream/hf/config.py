"""Settings of the generic Hugging Face family."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

MODELS = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "data2vec-audio": "Data2VecAudio",
    "unispeech-sat": "UniSpeechSat",
    "wav2vec2-conformer": "Wav2Vec2Conformer",
    "wav2vec2-bert": "Wav2Vec2Bert",
}
"""`model_type` of a config.json -> prefix of transformers' classes."""


@dataclass
class HFConfig:
    """One speech encoder of transformers, without weights."""

    model_type: Literal[
        "wav2vec2",
        "hubert",
        "wavlm",
        "data2vec-audio",
        "unispeech-sat",
        "wav2vec2-conformer",
        "wav2vec2-bert",
    ] = "wav2vec2"
    """As in a folder's config.json."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Differences from transformers' defaults for that type, by the names of its configuration class."""
    preprocessor: dict[str, Any] = field(default_factory=dict)
    """As in a folder's preprocessor_config.json; `do_normalize` and the fbank's settings are used."""
