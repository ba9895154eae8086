"""``ll.plan`` of a training loop of one's own: without a data set, and equal to the scheduler's."""

from __future__ import annotations

from typing import Any

import pytest

import layered_lr as ll
from tests.support.audited_nets import convolutional, perceptron

SPEC = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.CosineDecay(warmup_steps=2))
IN_EPOCHS = ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.5)], ll.StepLR(2, unit="epoch"))


@pytest.mark.parametrize(
    ("spec", "given", "lengths"),
    [
        (SPEC, {"total_steps": 30}, (30, None)),
        (SPEC, {"total_steps": 30, "steps_per_epoch": 7}, (30, 7)),
        (SPEC, {"epochs": 3, "steps_per_epoch": 7}, (21, 7)),
        (IN_EPOCHS, {"steps_per_epoch": 7}, (None, 7)),
    ],
)
def test_the_plan_is_that_of_compile_and_scheduler(
    torch: Any, spec: ll.Spec, given: dict[str, int], lengths: tuple[int | None, int | None]
) -> None:
    net = convolutional()
    plan = ll.plan(spec, model=net, **given)
    assert (plan.total_steps, plan.steps_per_epoch) == lengths
    assert plan == ll.resolve(spec, net, *lengths)
    _, scheduler = ll.compile(spec, net, *lengths)
    assert scheduler.plan == plan
    optimizer = torch.optim.SGD(ll.param_groups(spec, net))
    assert ll.scheduler(spec, optimizer, net, *lengths).plan == plan
    assert ll.plan(spec, model=convolutional, **given) == plan


def test_a_model_known_by_name_has_a_plan_too() -> None:
    spec = ll.Spec(ll.SGD(0.1))
    assert ll.plan(spec, total_steps=30).total_steps == 30
    assert ll.plan(spec, total_steps=30, data="cifar10").parameters[-1].shape == (10,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"total_steps": 30, "max_steps": 20}, "max_steps says how long a run is that ll.run makes"),
        ({"total_steps": 30, "batch_size": 8}, "batch_size says"),
        ({"steps_per_epoch": 7, "accumulate_steps": 2}, "accumulate_steps says"),
        ({"total_steps": 30, "epochs": 3}, "give total_steps, or epochs and steps_per_epoch"),
        ({"total_steps": 30, "epochs": 3, "steps_per_epoch": 10}, "give total_steps, or epochs and steps_per_epoch"),
        ({"total_steps": -1}, "total_steps"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"epochs": 2, "steps_per_epoch": 0.5}, "steps_per_epoch"),
    ],
)
def test_lengths_that_contradict_each_other_are_refused(torch: Any, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ll.SpecError, match=message):
        ll.plan(SPEC, model=perceptron(), **given)


def test_a_schedule_that_needs_a_length_says_so(torch: Any) -> None:
    with pytest.raises(ll.SpecError, match="needs the length of the run"):
        ll.plan(SPEC, model=perceptron(), steps_per_epoch=7)
