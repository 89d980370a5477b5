"""Discrete units: k-means over frame features, labels on cuts, and how good the labels are."""

from sslbench.data.units.apply import label_manifest, merge_shards, parse_units
from sslbench.data.units.external import import_labels
from sslbench.data.units.features import FRAME_SAMPLES, Features, open_features
from sslbench.data.units.fit import FitSettings, fit_units
from sslbench.data.units.model import UnitModel
from sslbench.data.units.quality import measure, quality

__all__ = [
    "FRAME_SAMPLES",
    "Features",
    "FitSettings",
    "UnitModel",
    "fit_units",
    "import_labels",
    "label_manifest",
    "measure",
    "merge_shards",
    "open_features",
    "parse_units",
    "quality",
]
