"""Settings that nothing uses are named: lr under a schedule with rates of its own, dropout of a user's model."""

from __future__ import annotations

from typing import Any

import pytest

import layered_lr as ll
from tests.support.models import arrays, mlp

PARAMETERS = [("head.weight", (2, 2)), ("body.weight", (2, 2))]
OWN = {
    "one cycle": ll.OneCycleLR(0.2, cycle_momentum=False),
    "cyclic": ll.CyclicLR(0.1, 0.2, cycle_momentum=False),
    "table": ll.Table([0.5] * 40),
    "function": ll.Function(lambda step: 0.1),
    "in a sequence": ll.SequentialLR([ll.CyclicLR(0.1, 0.2, cycle_momentum=False), ll.Table([0.5] * 40)], [3]),
    "in a chain": ll.ChainedScheduler([ll.OneCycleLR(0.2, 10, cycle_momentum=False), ll.ExponentialLR(0.5)]),
}
OTHERS = {
    "step": ll.StepLR(3),
    "partly": ll.SequentialLR([ll.Table([0.5] * 40), ll.ExponentialLR(0.9)], [3]),
    "factors": ll.Table([0.5] * 40, factor=True),
    "cosine": ll.CosineAnnealingLR(10, eta_min=0.01),
    "plateau": ll.ReduceLROnPlateau(),
}


def notes(of_all: Any, /, **settings: Any) -> list[str]:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("head", **settings)], of_all)
    return [note for note in ll.resolve(spec, PARAMETERS, total_steps=10).notes if "is not used" in note]


@pytest.mark.parametrize("schedule", OWN.values(), ids=OWN)
def test_an_lr_that_no_step_uses_is_noted(schedule: Any) -> None:
    (note,) = notes(schedule, lr=0.7)
    assert note.startswith("group 'head': lr=0.7 is not used, because ") and "lr_scale" in note
    assert notes(schedule, lr_scale=0.7) == [], "the optimizer's lr is nobody's choice for this group"
    assert notes(schedule, lr=0.7, schedule=ll.StepLR(2)) == []


@pytest.mark.parametrize("schedule", OTHERS.values(), ids=OTHERS)
def test_an_lr_that_is_used_is_not_noted(schedule: Any) -> None:
    assert notes(schedule, lr=0.7) == []


def test_a_run_says_what_it_does_not_use(torch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("3", lr=0.7)], ll.OneCycleLR(0.2, cycle_momentum=False))
    given = {"max_steps": 2, "batch_size": 8, "progress": False, "device": "cpu"}
    ll.run(spec, "torch-eager", mlp(torch), arrays(), dropout=0.5, **given)
    said = capsys.readouterr().err
    assert said.count("group '3': lr=0.7 is not used, because OneCycleLR") == 1
    assert said.count("dropout=0.5: not used, it is for models known by name") == 1
    ll.run(ll.Spec(ll.SGD(0.1)), "torch-eager", mlp(torch), arrays(), **given)
    assert "not used" not in capsys.readouterr().err
