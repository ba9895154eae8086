"""``ll.audit`` in several processes: it names the rank whose groups differ; and the rates of a loop of one's own."""

from __future__ import annotations

from typing import Any

import pytest

from layered_lr.findings import Finding
from tests.support.old_torch import skip_without_fully_shard
from tests.support.replicas import spread_once

EXPECTED = {
    "alike": [],
    "rate": [["Rank 1: body has lr=0.3, and 0.1 on rank 0.", "body"]],
    "decay": [["Rank 1: body has weight_decay=0.1, and 0 on rank 0.", "body"]],
    "turned": [["Rank 1: the groups are in another order than on rank 0.", "body", "head"]],
    "moved": [["Rank 1: 0.bias is in no group, and on rank 0 in body.", "body"]],
    "other schedule": [["Rank 1: CosineAnnealingLR has T_max=10, and 9 on rank 0."]],
    "other function": [["Rank 1: LambdaLR gives body lr=0.05 at step 1, and 0.08 on rank 0.", "body", "head"]],
    "other model": [],
    "compiled, update 0": [],
    "compiled, update 7": [],
    "sharded": [],
}


@pytest.fixture(scope="module")
def answers(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    found = spread_once(tmp_path_factory)["audits_of_ranks"]
    assert isinstance(found, dict), found
    return found


@pytest.mark.parametrize("case", EXPECTED)
def test_the_rank_the_group_and_the_values_are_named(answers: dict[str, Any], case: str) -> None:
    if case == "sharded":
        skip_without_fully_shard()
    assert answers[case]["ranks"] == EXPECTED[case]
    assert answers["first"][case]["ranks"] == EXPECTED[case]  # all ranks hear the same
    assert answers["first"][case]["others"] == []


def test_another_optimizer_is_said_without_what_follows_from_it(answers: dict[str, Any]) -> None:
    said = [what for what, *_ in answers["other optimizer"]["ranks"]]
    assert said[0] == "Rank 1: AdamW where rank 0 has SGD."
    assert not any("momentum" in each or "betas" in each for each in said)


def test_what_cannot_be_compared_is_said(answers: dict[str, Any]) -> None:
    (other,) = answers["other model"]["unchecked"]
    assert "the model there has other parameters than on rank 0 (2 parameters and not 6)" in other
    (alone,) = answers["without the first"]["unchecked"]
    assert "another rank did not call ll.audit within 0.2 seconds. Call it in every rank" in alone
    assert answers["alike"]["unchecked"] == answers["compiled, update 7"]["unchecked"] == []


def test_a_loop_of_ones_own_has_the_same_rates_in_each_rank(answers: dict[str, Any]) -> None:
    assert answers["equal rates"] is True


def described(**changes: Any) -> dict[str, Any]:
    group = {"label": "body", "options": {"lr": 0.1}, "parameters": [0, 1]}
    return {
        "model": "one",
        "parameters": 2,
        "frozen": [],
        "optimizers": ["SGD"],
        "groups": [group],
        "schedulers": [],
        "curves": [],
        **changes,
    }


def say(*ranks: dict[str, Any]) -> list[Finding]:
    from layered_lr_torch.audit.rank_differences import compare

    return compare(ranks, ["0.weight", "0.bias"])[0]


def test_ranks_with_the_same_difference_are_one_finding(torch: Any) -> None:
    other = described(frozen=[1])
    (finding,) = say(described(), *[other] * 7)
    assert finding.what == "Ranks 1, 2, 3, 4 and 3 more: 0.bias is frozen, and trains on rank 0."
    assert finding.parameters == ("0.bias",)


def test_later_rates_that_no_sample_shows_are_found(torch: Any) -> None:
    curve = {"kind": "set_rates", "labels": ["body"], "steps": [0, 25], "rates": [[0.1], [0.2]], "digest": "one"}
    one, other = (described(curves=[{**curve, "digest": digest}]) for digest in ("one", "two"))
    assert say(one, one) == []
    (finding,) = say(one, other)
    assert finding.what == "Rank 1: set_rates has other rates in later updates than on rank 0."


def test_other_differences_are_named(torch: Any) -> None:
    group = described()["groups"][0]
    turned, grown = {**group, "parameters": [1, 0]}, {**group, "options": {"lr": 0.1, "lr_scale": 2}}
    cases = {
        "Rank 1: body has its parameters in another order than on rank 0.": {"groups": [turned]},
        "Rank 1: body has lr_scale=2, and none on rank 0.": {"groups": [grown]},
        "Rank 1: 2 groups where rank 0 has 1.": {"groups": [group, group]},
        "Rank 1: StepLR where rank 0 has no scheduler.": {"schedulers": [{"kind": "StepLR", "state": {}}]},
    }
    for words, changes in cases.items():
        assert [finding.what for finding in say(described(), described(**changes))] == [words]
    nan = described(groups=[{**group, "options": {"lr": float("nan")}}])
    assert say(nan, nan) == [] and say(described(), nan)[0].groups == ("body",)
