"""``compare --quick``: float64 alone, few updates of the run, and probes of some parameters of each kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import layered_lr as ll
from benchmarks.certificate.faults import Faulty
from benchmarks.certificate.planted import record_reference
from layered_lr.parity.probe import choose_probed
from layered_lr.parity.recorder import prepare_task
from layered_lr.parity.recording import record_fully
from layered_lr.parity.task import Task
from layered_lr.parity.verdict import judge
from layered_lr.training.options import RunOptions
from tests.support import parity_faults as faults
from tests.support import parity_models as tiny
from tests.support.models import arrays

SPEC = ll.Spec(
    ll.AdamW(0.01, weight_decay=0.1),
    [ll.Group("3", lr_scale=3, name="head")],
    ll.CosineAnnealingLR(T_max=15),
    no_weight_decay="1d",
    phases=[ll.Phase("5 steps", frozen="rest"), ll.Phase()],
)
LAYERS = [(f"{block}.{name}", shape) for block in range(40) for name, shape in (("weight", (4, 4)), ("bias", (4,)))]


def test_all_kinds_of_parameters_are_probed() -> None:
    plan = ll.resolve(replace(SPEC, groups=[ll.Group(["1?.*", "3.bias"], name="head")]), LAYERS, total_steps=15)
    names = choose_probed(plan, 2)
    due = "0.weight 0.bias 3.bias 10.weight 19.weight 19.bias 39.weight 39.bias"
    assert names == tuple(due.split()), "the first and the last of each group's weights and biases"
    assert choose_probed(plan, None) == tuple(name for name, _ in LAYERS)


def test_a_parameter_that_trains_in_other_phases_is_of_another_kind() -> None:
    spec = ll.Spec(ll.SGD(0.1), phases=[ll.Phase("5 steps", frozen="7.weight"), ll.Phase()])
    assert choose_probed(ll.resolve(spec, LAYERS, total_steps=15), 1) == ("0.weight", "0.bias", "7.weight")


def deep(torch: Any) -> Any:
    def build() -> Any:
        layers = [torch.nn.Flatten(), torch.nn.Linear(12, 6)]
        for _ in range(5):
            layers += [torch.nn.Tanh(), torch.nn.Linear(6, 6)]
        return torch.nn.Sequential(*layers, torch.nn.Linear(6, 10))

    return build


@pytest.mark.parametrize(
    ("plant", "cause"),
    [(faults.rate_off(0, 1.001), "rate"), (faults.decay_everywhere, "decay"), (faults.other_beta2(0.998), "state")],
)
def test_a_fault_is_found_by_few_probed_parameters(torch: Any, plant: Any, cause: str) -> None:
    options = RunOptions(
        model=deep(torch),
        data=arrays(),
        max_steps=15,
        batch_size=8,
        dropout=0.0,
        device="cpu",
        precision=ll.Precision("float64"),
    )
    task = Task(
        replace(SPEC, groups=[ll.Group("1", lr_scale=3, name="head")]),
        options,
        steps=7,
        probe_steps=15,
        probed_of_each_kind=2,
        float32_norms=True,
    )
    known = record_reference(task)
    probed = known.found.run.probes["bare"]
    assert len(probed.parameters) == 6 < len(known.plan.parameters) == 14
    assert probed.weights.shape == (16, 24)
    honest = record_fully(prepare_task(Faulty(faults.rate_off(0, 1.0)), task, known.start), task, known.start)
    assert judge(known.found, honest, known.rounding, known.plan).kind != "different"
    found = record_fully(prepare_task(Faulty(plant), task, known.start), task, known.start)
    verdict = judge(known.found, found, known.rounding, known.plan)
    assert (verdict.kind, verdict.cause) == ("different", cause), verdict


@pytest.mark.usefixtures("frameworks")
def test_it_makes_a_fifth_of_the_run_and_all_of_the_probes() -> None:
    found = ll.compare(
        SPEC,
        ("torch-eager", "oneflow-eager"),
        {"torch": tiny.in_torch, "oneflow": tiny.in_oneflow},
        arrays(),
        quick=True,
        steps=15,
        batch_size=8,
        progress=False,
        device="cpu",
    )
    assert found.same, found
    seen = found.observed["oneflow-eager"]
    assert len(seen.losses) == 3
    assert len(seen.probed_rates) == 15
    assert seen.probed_rates[7:] == pytest.approx(found.observed["torch-eager"].probed_rates[7:], rel=1e-9)
