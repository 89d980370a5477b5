"""Numbers for people: as many digits as the measurement carries, and units that fit."""

from __future__ import annotations

import math

from sslbench.report.schema import Metric

ABSENT = "–"
_SCALES = {"parameters": (1e6, "M"), "bytes": (2**20, "MiB"), "s/s": (1.0, "")}


def quantity(value: float | None, unit: str) -> str:
    """A value with its unit; a dash for a missing one.

    >>> quantity(94371712, "parameters"), quantity(0.01234, "s/s"), quantity(None, "G"), quantity(7.3, "%")
    ('94.37 M', '0.0123', '–', '7.30 %')
    """
    if value is None:
        return ABSENT
    shown = _SCALES.get(unit, (1.0, unit))[1]
    return f"{bare(value, unit)} {shown}".rstrip()


def bare(value: float, unit: str) -> str:
    """The number alone, scaled as `quantity` scales it."""
    scale = _SCALES.get(unit, (1.0, ""))[0]
    if value == 0 and unit != "%":
        return "0"
    if unit in ("parameters", "%"):
        return f"{value / scale:.2f}"
    if unit == "bytes":
        return f"{value / scale:.0f}"
    return significant(value / scale)


def scaled(found: Metric) -> float:
    """The value in the unit that it is shown in, such as MiB for bytes."""
    return found.value / _SCALES.get(found.unit, (1.0, ""))[0]


def significant(value: float, digits: int = 3) -> str:
    """At least `digits` significant digits without exponent notation where that is readable.

    >>> significant(1665.52), significant(0.00123456), significant(12.345), significant(0)
    ('1666', '0.00123', '12.3', '0')
    """
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -5 or exponent > 8:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - exponent)}f}"


def metric(found: Metric | None) -> str:
    """A metric with its 95 % interval, where it has one."""
    if found is None:
        return ABSENT
    text = quantity(found.value, found.unit)
    if found.low is not None and found.high is not None:
        return f"{text} [{bare(found.low, found.unit)}, {bare(found.high, found.unit)}]"
    return text
