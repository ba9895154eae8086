"""``Result.rates`` is read back, not copied: faults that are planted below the plan show in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from tests.support.models import arrays, mlp

STEPS = 6
GROUPS = (ll.Group("1", lr_scale=0.5, schedule=ll.StepLR(step_size=4, gamma=0.5)), ll.Group("3", lr=0.2))
SPEC = ll.Spec(optimizer=ll.SGD(lr=0.1), groups=GROUPS)


def run(backend: Backend, framework: Any, spec: ll.Spec = SPEC) -> ll.Result:
    return ll.run(
        spec, backend.name, mlp(framework), arrays(), max_steps=STEPS, batch_size=8, progress=False, device="cpu"
    )


def plant(monkeypatch: pytest.MonkeyPatch, backend: Backend, faulty: ll.Spec) -> None:
    """Let the framework train under another spec; everything above it, the session's plan too, knows the true one."""
    open_session = type(backend).open

    def opened(self: Backend, plan: ll.Plan, model: Any, *rest: Any) -> Any:
        wrong = ll.resolve(faulty, model, plan.total_steps, plan.steps_per_epoch)
        session = open_session(self, wrong, model, *rest)
        session.plan = plan
        return session

    monkeypatch.setattr(type(backend), "open", opened)


def test_without_a_fault_there_is_no_difference(backend: Backend, framework_of_backend: Any) -> None:
    result = run(backend, framework_of_backend)
    assert max(result.largest_rate_differences().values()) < 1e-6


def test_a_forgotten_lr_scale_shows(
    backend: Backend, framework_of_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, backend, replace(SPEC, groups=(replace(GROUPS[0], lr_scale=1.0), GROUPS[1])))
    result = run(backend, framework_of_backend)
    assert result.largest_rate_differences() == {"1": pytest.approx(1.0), "3": pytest.approx(0, abs=1e-6)}
    np.testing.assert_allclose(result.rates["1"], [0.1] * 4 + [0.05] * 2, rtol=1e-6)


def test_a_schedule_that_is_a_step_early_shows(
    backend: Backend, framework_of_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = replace(GROUPS[0], schedule=ll.StepLR(step_size=3, gamma=0.5))
    plant(monkeypatch, backend, replace(SPEC, groups=(early, GROUPS[1])))
    result = run(backend, framework_of_backend)
    assert result.largest_rate_differences() == {"1": pytest.approx(0.5), "3": pytest.approx(0, abs=1e-6)}
    np.testing.assert_allclose(result.rates["1"], [0.05] * 3 + [0.025] * 3, rtol=1e-6)


def test_two_groups_that_changed_places_show(
    backend: Backend, framework_of_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    swapped = (replace(GROUPS[0], match="3", name="1"), replace(GROUPS[1], match="1", name="3"))
    plant(monkeypatch, backend, replace(SPEC, groups=swapped))
    assert max(run(backend, framework_of_backend).largest_rate_differences().values()) > 1e-3


def test_an_lr_scale_that_oneflow_does_not_get_shows(oneflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the last place before the compiler: the conf of one group."""
    write = oneflow.optim.Optimizer._generate_lr_scale_for_optim_conf

    def forgetful(self: Any, param_group: Any, conf: Any) -> None:
        if param_group["name"] != "1":
            write(self, param_group, conf)

    monkeypatch.setattr(oneflow.optim.Optimizer, "_generate_lr_scale_for_optim_conf", forgetful)
    result = ll.run(SPEC, "oneflow-graph", mlp(oneflow), arrays(), max_steps=STEPS, batch_size=8, progress=False)
    assert result.largest_rate_differences() == {"1": pytest.approx(1.0), "3": pytest.approx(0, abs=1e-6)}


def test_a_native_schedule_that_is_a_step_early_shows(oneflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    native = oneflow.optim.lr_scheduler.StepLR

    def early(self: Any, conf: Any) -> None:
        conf.step_conf.step_size = self.step_size - 1
        conf.step_conf.gamma = self.gamma

    monkeypatch.setattr(native, "_generate_conf_for_graph", early)
    result = ll.run(SPEC, "oneflow-graph", mlp(oneflow), arrays(), max_steps=STEPS, batch_size=8, progress=False)
    assert result.largest_rate_differences() == {"1": pytest.approx(0.5), "3": pytest.approx(0, abs=1e-6)}


def test_a_table_that_is_a_step_early_shows(oneflow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from layered_lr_oneflow.native_schedulers import TableScheduler

    write = TableScheduler._generate_conf_for_graph

    def early(self: Any, conf: Any) -> None:
        self.boundaries = [boundary - 1 for boundary in self.boundaries]
        write(self, conf)

    monkeypatch.setattr(TableScheduler, "_generate_conf_for_graph", early)
    spec = replace(SPEC, groups=(replace(GROUPS[0], schedule=ll.StepLR(step_size=4, gamma=0.0)), GROUPS[1]))
    result = ll.run(spec, "oneflow-graph", mlp(oneflow), arrays(), max_steps=STEPS, batch_size=8, progress=False)
    assert result.largest_rate_differences() == {"1": pytest.approx(1.0), "3": pytest.approx(0, abs=1e-6)}
    np.testing.assert_allclose(result.rates["1"], [0.05] * 3 + [0.0] * 3, rtol=1e-6)


@pytest.mark.parametrize("lost", ["1.weight", "3.bias"])
def test_a_parameter_in_the_wrong_group_shows(
    backend: Backend, framework_of_backend: Any, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group's rates are those of all its parameters: one that trains at another rate must not go unseen."""
    astray = ll.Group(lost, lr=7.0, name="astray")
    correct = run(backend, framework_of_backend)
    open_session = type(backend).open

    def opened(self: Backend, plan: ll.Plan, model: Any, *rest: Any) -> Any:
        wrong = ll.resolve(replace(SPEC, groups=(astray, *GROUPS)), model, plan.total_steps, plan.steps_per_epoch)
        first, *others = wrong.groups
        # Under its own group's name, but in the other group's place.
        owner = next(g for g in others if lost.startswith(g.name))
        stranger = next(g for g in others if g is not owner)
        moved = replace(stranger, parameters=(*stranger.parameters, *first.parameters))
        groups = tuple(moved if g is stranger else g for g in others)
        session = open_session(self, replace(plan, groups=groups), model, *rest)
        session.plan = plan
        return session

    monkeypatch.setattr(type(backend), "open", opened)
    assert max(correct.largest_rate_differences().values()) < 1e-6
    try:
        found = max(run(backend, framework_of_backend).largest_rate_differences().values()) > 1e-3
    except RuntimeError as error:
        found = "different rates" in str(error)
    assert found
