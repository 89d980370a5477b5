"""Discrete units: k-means over frame features, labels on cuts, and how good the labels are."""

from sslbench.data.units.apply import label_manifest, parse_units
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
    "label_manifest",
    "measure",
    "open_features",
    "parse_units",
    "quality",
]
