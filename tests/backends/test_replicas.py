"""Phases where several processes train one model."""

from __future__ import annotations

from typing import Any

from tests.support.replicas import spread


def test_replicas_stay_equal_through_phases(torch: Any) -> None:
    """Whichever comes first, ``compile`` or ``DistributedDataParallel``; with any of its options."""
    found = spread("replicas_with_phases")
    assert isinstance(found, dict), found
    assert len(found) == 8
    for order, (between_ranks, from_one_process) in found.items():
        assert between_ranks == 0, order
        assert from_one_process < 1e-5, order  # the mean of two means rounds otherwise, in float32
