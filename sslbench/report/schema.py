"""The result row: one model, one evaluation; quality, cost, uncertainty and provenance together."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sslbench.provenance import Provenance
from sslbench.tiers import Tier

SCHEMA_VERSION: Literal[2] = 2
"""2 added `methods` and `flags`; rows of version 1 load with none."""


SYSTEM = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""What a system may be called: the name is a folder."""
EVALUATION = r"^[a-z0-9_]+$"


class Strict(BaseModel):
    """Unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Metric(Strict):
    """One number with its unit and, where it was estimated, a 95 % interval."""

    value: float
    unit: str  # "%", "x", "G", "s", "frames", …
    higher_is_better: bool
    low: float | None = None
    high: float | None = None
    n: int | None = None  # utterances (or trials) behind the value

    @model_validator(mode="after")
    def _interval_is_whole(self) -> Metric:
        if (self.low is None) != (self.high is None):
            raise ValueError("an interval needs both ends")
        return self


class Data(Strict):
    """What the number was measured on."""

    corpus: str
    split: str
    synthetic: bool
    hours: float = Field(ge=0)


class Search(Strict):
    """The hyperparameter search behind the number."""

    lr_grid: list[float]
    lr: float  # chosen
    selected_on: str  # "dev"
    scores: dict[str, float] = {}  # lr -> selection metric


class ResultRow(Strict):
    """One file per (system, evaluation)."""

    schema_version: Literal[1, 2] = SCHEMA_VERSION
    system: str = Field(pattern=SYSTEM)  # what the report calls this model
    upstream: str  # registry or s3prl name
    evaluation: str = Field(pattern=EVALUATION)  # "asr", "pr", "sid", "profile", "pretrain", …
    tier: Tier
    weights: Literal["trained", "imported", "random", "none"]
    weights_sha256: str | None
    data: Data
    metrics: dict[str, Metric] = Field(min_length=1)  # the first one is the headline
    cost: dict[str, float] = {}  # units in the keys: wall_s, peak_mem_bytes, params_trainable, …
    search: Search | None = None
    methods: dict[str, str] = {}  # how, where there is a choice: energy, text_normaliser, engine, …
    flags: list[str] = []  # what a reader should know before trusting a figure of this row
    artifacts: dict[str, str] = {}  # name -> path relative to the row, e.g. predictions
    provenance: Provenance

    @model_validator(mode="after")
    def _trained_weights_are_named(self) -> ResultRow:
        if self.weights in ("trained", "imported") and not self.weights_sha256:
            raise ValueError(f"{self.weights} weights need their sha256")
        return self
