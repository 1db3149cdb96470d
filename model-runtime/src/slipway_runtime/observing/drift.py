"""How far two sets of counts over the same bins are apart.

Population stability index: the sum of (a - b) ln(a / b) over the shares of each bin; 0.1 is
commonly called a small and 0.25 a large shift. Empty bins get half a row, as ln 0 would be infinite.
Kolmogorov-Smirnov: the largest distance of the two cumulated shares, at the edges of the bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import log


def stability_index(expected: Sequence[float], found: Sequence[float]) -> float:
    """Give the population stability index; 0 where one of the two has no rows."""
    if not sum(expected) or not sum(found):
        return 0.0
    wanted, given = _shares(expected), _shares(found)
    return sum((b - a) * log(b / a) for a, b in zip(wanted, given, strict=True))


def _shares(counts: Sequence[float]) -> list[float]:
    filled = [count or 0.5 for count in counts]
    total = sum(filled)
    return [count / total for count in filled]


def largest_distance(expected: Sequence[float], found: Sequence[float]) -> float:
    """Give the Kolmogorov-Smirnov distance; 0 where one of the two has no rows."""
    wanted, given = sum(expected), sum(found)
    if not wanted or not given:
        return 0.0
    pairs = zip(accumulate(expected), accumulate(found), strict=True)
    return max(abs(a / wanted - b / given) for a, b in pairs)
