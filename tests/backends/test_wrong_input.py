"""Any schedule with any arguments, on every backend: a plan whose rates act, or a ``LayeredLRError``; nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.isolation import value_of

DRAWN = 800


def eager(framework_name: str, seed: int, drawn: int) -> dict[str, object]:
    """Draws groups, compiles each, and makes three updates; what went wrong, and how many ran."""
    import importlib
    import warnings

    import numpy as np

    import layered_lr as ll
    from tests.support import random_schedules
    from tests.support.models import ones, unit_gradients

    warnings.simplefilter("error")
    rng, wrong, ran = np.random.default_rng(seed), [], 0
    framework = None
    for _ in range(drawn):
        group = None
        try:
            group = random_schedules.group(rng, "p0")
            spec = ll.Spec(ll.SGD(lr=0.1, momentum=random_schedules.pick(rng, [0.0, 0.5])), [group])
            if framework is None:
                framework = importlib.import_module(framework_name)
            model = unit_gradients(framework, ["p0", "p1"])
            optimizer, scheduler = ll.compile(spec, model, **random_schedules.LENGTHS)
            planned = ll.resolve(spec, model, **random_schedules.LENGTHS).table()
            for step in range(3):
                rates = [entry["lr"] for entry in optimizer.param_groups]
                if not (np.isfinite(rates).all() and np.allclose(rates, planned[step], rtol=1e-6, atol=0)):
                    wrong.append(f"{group}: {rates} at step {step}, planned {planned[step]}")
                optimizer.zero_grad(set_to_none=True)
                model(ones(framework)).backward()
                optimizer.step()
                scheduler.step()
            ran += 1
        except ll.LayeredLRError:
            pass
        except Exception as error:
            wrong.append(f"{group}: {type(error).__name__}: {error}")
    return {"wrong": wrong, "ran": ran}


def graphs(seed: int, drawn: int) -> dict[str, object]:
    """Draws groups, attaches each to a graph, and runs those that are taken, many in one graph."""
    import warnings

    import numpy as np
    import oneflow as flow

    import layered_lr as ll
    from layered_lr_oneflow.lowering import is_dynamic
    from tests.support import random_schedules
    from tests.support.models import ones, taken, unit_gradients

    warnings.simplefilter("error")
    lengths = random_schedules.LENGTHS

    class Graph(flow.nn.Graph):
        def __init__(self, model: object, spec: object) -> None:
            super().__init__()
            self.model = model
            self.scheduler = ll.attach(spec, self, model, **lengths)

        def build(self, x: object) -> object:
            loss = self.model(x)
            loss.backward()
            return loss

    rng, wrong, good = np.random.default_rng(seed), [], ([], [])
    for _ in range(drawn):
        group = None
        try:
            group = random_schedules.group(rng, f"p{sum(map(len, good))}")
            spec = ll.Spec(ll.SGD(lr=0.1, momentum=0.5), [group])
            model = unit_gradients(flow, [group.match])
            Graph(model, spec)
            plan = ll.resolve(spec, model, **lengths)
            if plan.table().max() < 1e36:  # above, the momentum goes beyond float32
                good[is_dynamic(plan)].append(group)
        except ll.LayeredLRError:
            pass
        except Exception as error:
            wrong.append(f"{group}: {type(error).__name__}: {error}")
    for groups in good:
        model = unit_gradients(flow, [group.match for group in groups])
        graph = Graph(model, ll.Spec(ll.SGD(lr=0.1, momentum=0.5), groups))
        plan, buffer = graph.scheduler.plan, np.zeros(len(groups))
        for step in range(lengths["total_steps"]):
            if step:
                graph.scheduler.step()
            graph(ones(flow))
            buffer = np.array([0.5 if m is None else m for m in plan.momenta(step)]) * buffer + 1
            expected = plan.rates(step) * buffer
            for index in np.flatnonzero(~np.isclose(taken(model, flow), expected, rtol=2e-6, atol=1e-37)):
                wrong.append(f"{groups[index]}: moved otherwise than by {expected[index]:.9g} at step {step}")
    return {"wrong": wrong[:20], "native": len(good[0]), "dynamic": len(good[1])}


@pytest.mark.parametrize("framework_name", ["torch", "oneflow"])
def test_compile_applies_the_plan_or_refuses(framework_name: str, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue(framework_name)
    result = value_of(eager, framework_name, 1, DRAWN)
    assert result["wrong"] == []
    assert result["ran"] > DRAWN // 10


def test_attach_applies_the_plan_or_refuses(oneflow: Any) -> None:
    result = value_of(graphs, 2, DRAWN)
    assert result["wrong"] == []
    assert result["native"] > DRAWN // 10 and result["dynamic"] > 2
