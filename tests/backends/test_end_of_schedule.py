"""The last ``scheduler.step()`` of a loop: a schedule need not have a rate for an update that never comes."""

from __future__ import annotations

from typing import Any

import pytest

import layered_lr as ll
from tests.support.models import ones, taken, unit_gradients

TABLE = [0.5, 0.25, 0.125]
ENDING = {
    "a table": ll.Table(TABLE),
    "after another": ll.SequentialLR([ll.Table(TABLE[:1]), ll.Table(TABLE[1:])], milestones=[1]),
    "of factors": ll.Table([2 * rate for rate in TABLE], factor=True),
}


@pytest.mark.parametrize("schedule", ENDING.values(), ids=ENDING)
@pytest.mark.parametrize("total_steps", [None, 3])
def test_a_table_ends_with_the_loop(framework: Any, schedule: Any, total_steps: int | None) -> None:
    model = unit_gradients(framework, ["p0"])
    optimizer, scheduler = ll.compile(ll.Spec(ll.SGD(0.5), schedule=schedule), model, total_steps=total_steps)
    steps = []
    for _ in TABLE:
        optimizer.zero_grad(set_to_none=True)
        model(ones(framework)).backward()
        optimizer.step()
        scheduler.step()
        steps += taken(model, framework).tolist()
    assert steps == TABLE
    assert scheduler.get_last_lr() == [0.125]
    with pytest.raises(ll.SpecError, match=r"Table has . values, .* and was asked for step [34]"):
        scheduler.step()


def test_a_table_of_epochs_ends_with_the_loop(framework: Any) -> None:
    model = unit_gradients(framework, ["p0"])
    spec = ll.Spec(ll.SGD(0.5), schedule=ll.Table([0.5, 0.25], unit="epoch"))
    optimizer, scheduler = ll.compile(spec, model, steps_per_epoch=2)
    rates = []
    for _ in range(4):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    assert rates == [0.5, 0.5, 0.25, 0.25]
    with pytest.raises(ll.SpecError, match="asked for epoch 2"):
        scheduler.step()
