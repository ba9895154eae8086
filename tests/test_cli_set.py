"""``--set`` of the command: a setting of the recipe's spec, or one line that says what is wrong."""

from __future__ import annotations

from typing import Any

import pytest

import layered_lr as ll
from layered_lr.training.settings import change_spec

SPEC = ll.load_recipe("head-first").spec


def test_settings_change_what_they_name_and_nothing_else() -> None:
    changed = change_spec(
        SPEC,
        [
            "optimizer.lr=1e-3",
            "layer_decay=0.8",
            "no_weight_decay=1d",
            "groups.head.lr_scale=2",
            "phases.0.until=2 epochs",
        ],
    )
    assert changed.optimizer == ll.SGD(1e-3, momentum=0.9) and changed.no_weight_decay == ("1d",)
    assert changed.layer_decay == 0.8 and [group.lr_scale for group in changed.groups] == [0.1, 2.0]
    assert changed.phases[0].until == "2 epochs" and changed.phases[0].optimizer == SPEC.phases[0].optimizer
    undone = ["optimizer.lr=0.05", "groups.1.lr_scale=1.0", "phases.0.until=1 epoch", "no_weight_decay=[]"]
    assert change_spec(changed, undone).groups == SPEC.groups
    assert change_spec(SPEC, []) is SPEC


def test_layer_decay_and_discriminative_rates_from_the_command_line(call: Any) -> None:
    answer = call("plan", "--set", "groups=[]", "--set", "layer_decay=0.5", "--epochs", "1", "--json")
    assert answer.code == 0 and '"layer 19"' in answer.out and '"rest"' not in answer.out
    rates = "discriminative={parts=['backbone', 'head'], lr={first=1e-4, last=1e-2}}"
    answer = call("plan", "--set", "groups=[]", "--set", rates, "--epochs", "1")
    assert answer.code == 0 and "0.0001" in answer.out and "0.01" in answer.out
    answer = call("plan", "--set", "layer_decay=0.5", "--epochs", "1")
    assert answer.code == 0 and "layer_decay=0.5 changes no rate" in " ".join(answer.out.split())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("layer_decya=0.5", "Did you mean 'layer_decay'"),
        ("layer_decay=2", "layer_decay must be"),
        ("optimizer.lr", "must be KEY=VALUE"),
        ("=3", "must be KEY=VALUE"),
        ("optimizer.lr=", "must be KEY=VALUE"),
        ("groups.haed.lr_scale=3", "Did you mean 'head'"),
        ("groups.7.lr_scale=3", "groups has no '7'"),
        ("groups.head.lr_scale=-3", "lr_scale must be"),
        ("run.epochs=3", "has a flag"),
        ("optimizer.lr.x=3", "optimizer.lr is 0.1"),
        ("schedul.gamma=3", "Did you mean 'schedule'"),
        ("phases.0.until=3", "has no 'phases'"),
        ("optimizer.type=AdamW", "AdamW has no 'momentum'"),
        ("optimizer=3", "optimizer = 3"),
        ("groups.0=3", "group"),
        ("..=3", "has no ''"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(call: Any, refused: Any, setting: str, message: str) -> None:
    refused(call("plan", "--set", setting), message)
