"""How good units are: phone purity, cluster purity and phone-normalised mutual information.

Definitions of the HuBERT paper (arXiv:2106.07447, §V-A) over frames with phone y and unit z:
phone purity E_z[max_y p(y|z)], cluster purity E_y[max_z p(z|y)], PNMI = I(y; z) / H(y). Cluster purity
alone grows when units are few, phone purity when they are many; PNMI is the figure to compare.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from lhotse.cut import Cut

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.data.manifests import open_manifest
from sslbench.data.units.apply import parse_units
from sslbench.data.units.features import FRAME_SAMPLES
from sslbench.errors import SslbenchError


def quality(joint: np.ndarray[Any, Any]) -> dict[str, float]:
    """Purities and PNMI of a (phones, units) count matrix; information in nats.

    Raises:
        SslbenchError: the matrix counts nothing.
    """
    if joint.sum() <= 0:
        raise SslbenchError("units quality: no frame has both a phone and a unit")
    p = joint / joint.sum()
    h_phone, h_unit, h_joint = _entropy(p.sum(1)), _entropy(p.sum(0)), _entropy(p)
    mutual = max(0.0, h_phone + h_unit - h_joint)
    return {
        "phone_purity": float(p.max(0).sum()),
        "cluster_purity": float(p.max(1).sum()),
        "pnmi": mutual / h_phone if h_phone > 0 else 0.0,
        "mutual_information_nats": mutual,
        "h_phone_nats": h_phone,
        "h_unit_nats": h_unit,
    }


def _entropy(p: np.ndarray[Any, Any]) -> float:
    kept = p[p > 0]
    return float(-(kept * np.log(kept)).sum())


def phone_frames(cut: Cut, frames: int) -> list[str | None]:
    """The phone at the centre of each 20 ms frame, without stress digits; None where none is aligned."""
    labels: list[str | None] = [None] * frames
    items = [i for s in cut.supervisions for i in (s.alignment or {}).get("phone", [])]
    for item in items:
        # frame i belongs to the phone that covers its centre at (i + 0.5) · 20 ms
        first = _first_centre_from(item.start)
        last = _first_centre_from(item.start + item.duration)
        for index in range(max(first, 0), min(last, frames)):
            labels[index] = re.sub(r"\d+$", "", item.symbol)
    return labels


def _first_centre_from(seconds: float) -> int:
    return int(np.ceil(round(seconds * SAMPLE_RATE_HZ) / FRAME_SAMPLES - 0.5))


def measure(cuts: Iterable[Cut], clusters: int | None = None) -> dict[str, Any]:
    """Everything the report says about labelled cuts.

    Args:
        cuts: with units; those with a phone alignment also count for purity and PNMI.
        clusters: how many units were fitted; None takes the highest seen plus one.

    Returns:
        JSON-able figures; `phones` is None when no cut is aligned.

    Raises:
        SslbenchError: no cut, a cut without units, or a unit beyond `clusters`.
    """
    histogram: Counter[int] = Counter()
    joint: Counter[tuple[str, int]] = Counter()
    seconds, cut_count, aligned, runs = 0.0, 0, 0, 0
    for cut in cuts:
        units = parse_units(cut)
        histogram.update(units)
        runs += 1 + sum(a != b for a, b in pairwise(units))
        seconds, cut_count = seconds + cut.duration, cut_count + 1
        phones = phone_frames(cut, len(units))
        aligned += any(phones)
        joint.update((phone, unit) for phone, unit in zip(phones, units, strict=True) if phone is not None)
    if not histogram:
        raise SslbenchError("units report: the manifest has no cut")
    highest = max(histogram)
    if clusters is not None and highest >= clusters:
        raise SslbenchError(f"units report: unit {highest} lies beyond the {clusters} clusters fitted")
    counts = np.array([histogram[unit] for unit in range(clusters or highest + 1)])
    share = counts / counts.sum()
    entropy = _entropy(share)
    return {
        "cuts": cut_count,
        "hours": seconds / 3600,
        "frames": int(counts.sum()),
        "label_rate_hz": float(counts.sum() / seconds),
        "clusters": len(counts),
        "empty_clusters": int((counts == 0).sum()),
        "majority_share": float(share.max()),
        "entropy_nats": entropy,
        "effective_clusters": float(np.exp(entropy)),
        "mean_run_frames": float(counts.sum() / runs),
        "histogram": counts.tolist(),
        "phones": _phone_part(joint, aligned, len(counts)),
    }


def _phone_part(joint: Counter[tuple[str, int]], aligned: int, clusters: int) -> dict[str, Any] | None:
    if not joint:
        return None
    names = sorted({phone for phone, _ in joint})
    matrix = np.zeros((len(names), clusters))
    rows = {name: row for row, name in enumerate(names)}
    for (phone, unit), count in joint.items():
        matrix[rows[phone], unit] = count
    return {"cuts": aligned, "frames": int(matrix.sum()), "phones": len(names), **quality(matrix)}


def measure_manifest(manifest: Path | str, clusters: int | None = None) -> dict[str, Any]:
    """`measure` of a labelled manifest."""
    return measure(open_manifest(manifest), clusters)
