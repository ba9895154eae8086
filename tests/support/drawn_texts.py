"""The texts of a drawing, as a browser has measured them: large enough, inside of it, and none over another."""

from __future__ import annotations

from itertools import combinations
from typing import Any

SMALLEST_PIXELS = 9.0  # of a text that a person reads on a phone without zooming
TOUCHING_PIXELS = 0.5  # boxes that share less than this touch, and do not overlap


def check_texts(drawing: dict[str, Any]) -> None:
    texts = drawing["texts"]
    assert len(texts) > 5, "the drawing's texts were found"
    left, top, right, bottom = drawing["box"]
    for text in texts:
        assert text["scales"], text
        # matplotlib draws letters of 100 units, and scales them to the font's size in points of the drawing.
        assert min(text["scales"]) * 100 * drawing["pixels"] >= SMALLEST_PIXELS, text["said"]
        x_0, y_0, x_1, y_1 = text["box"]
        assert left <= x_0 and x_1 <= right and top <= y_0 and y_1 <= bottom, f"clipped: {text}"
    for one, other in combinations(texts, 2):
        assert not overlap(one["box"], other["box"]), f"{one['said']!r} overlaps {other['said']!r}"


def overlap(one: list[float], other: list[float]) -> bool:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return wide > TOUCHING_PIXELS and high > TOUCHING_PIXELS
