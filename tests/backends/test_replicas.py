"""Phases where several processes train one model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.old_torch import skip_without_fully_shard
from tests.support.replicas import spread_once


@pytest.fixture(scope="module")
def answers(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return spread_once(tmp_path_factory)


def test_replicas_stay_equal_through_phases(answers: dict[str, Any]) -> None:
    """Whichever comes first, ``compile`` or ``DistributedDataParallel``; with any of its options."""
    found = answers["replicas_with_phases"]
    assert isinstance(found, dict), found
    assert len(found) == 8
    for order, (between_ranks, from_one_process) in found.items():
        assert between_ranks == 0, order
        assert from_one_process < 1e-5, order  # the mean of two means rounds otherwise, in float32


def test_sharded_models_train_as_whole_ones(answers: dict[str, Any]) -> None:
    skip_without_fully_shard()
    found = answers["sharded_models"]
    assert isinstance(found, dict), found
    for name, from_one_process in found.items():
        assert from_one_process < 1e-5, name  # the mean of two means rounds otherwise, in float32


def test_states_of_sharded_models_go_on_bitwise(answers: dict[str, Any]) -> None:
    skip_without_fully_shard()
    found = answers["sharded_states"]
    assert isinstance(found, dict), found
    assert set(found.values()) == {0.0}, found


def test_phases_of_a_model_that_is_sharded_too_late_are_refused(answers: dict[str, Any]) -> None:
    skip_without_fully_shard()
    assert "Call it after fully_shard." in answers["sharded_too_late"]
