"""Phases on OneFlow: what is frozen stays as it is, and the rest goes on as if nothing else had happened."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.isolation import values_of
from tests.support.widths import keep_some


def timeline(name: str, parts: int, case: str) -> dict[str, float]:
    """Freeze the first layers, then the last, then train all of them; what moved that must not, and what did not."""
    import numpy as np

    import layered_lr as ll
    from layered_lr.backend.loading import load_backend
    from layered_lr.backend.phased_session import open_session
    from layered_lr.backend.session import Extras
    from layered_lr_oneflow.runtime import flow
    from tests.support import optimizer_cases as cases
    from tests.support import state_cases as runs

    backend = load_backend(name, "cpu")
    groups = [ll.Group(["1", "2"], lr_scale=0.5, name="body"), ll.Group("4", name="head")]
    phases = [ll.Phase(3, frozen="body"), ll.Phase(6, frozen="head"), ll.Phase()]
    clip = {"clip_grad_norm": 0.5} if parts == 1 else {}
    spec = ll.Spec(cases.CASES[case], groups, ll.StepLR(2, 0.8), phases=phases, **clip)
    model = backend.build(runs.normed(flow), runs.CLASSES, 0.0, 0)
    backend.load(model, runs.start())
    plan = ll.resolve(spec, model, total_steps=9)
    session = open_session(backend, plan, model, runs.CLASSES, Extras(parts, grad_norms=True))
    wrong = 0.0
    counts: dict[str, int] = {}
    for at in range(9):
        before, slots = session.weights(), session.export_state().slots
        runs.update(session, at)
        after, later = session.weights(), session.export_state().slots
        frozen = {"body": ("1.", "2."), "head": ("4.",)}.get(["body", "head", ""][at // 3], ("none",))
        for key, array in after.items():
            still = key.startswith(frozen)
            wrong += float(still == (not np.array_equal(array, before[key])))
            if still and key in slots:
                wrong += float(any(not np.array_equal(slots[key][slot], later[key][slot]) for slot in slots[key]))
            if not still and key in later and "step" in later[key]:
                counts[key] = counts.get(key, 0) + 1
                wrong += abs(float(later[key]["step"]) - counts[key])
    rates, norms = session.rates(0, 9), session.grad_norms(0, 9)
    table = plan.table(0, 9)
    wrong += float(np.abs(rates - table).max() > 1e-7 * table.max())
    wrong += float((norms[:3, 0] != 0).any() + (norms[3:6, 1] != 0).any() + (norms[6:] == 0).any())
    return {"wrong": wrong, "tracked": float(session.weights()["2.num_batches_tracked"])}


CASES = ["SGD nesterov", "SGD dampening", "AdamW", "RMSprop odd", "Adagrad odd"]
ALL = [(case, parts) for case in CASES for parts in (1, 2)]
SOME = [(case, 1 + number % 2) for number, case in enumerate(CASES)]  # each once, each number of parts


@pytest.mark.parametrize("chosen", keep_some([SOME, ALL], lambda chosen: chosen is SOME), ids=["some", "all"])
@pytest.mark.parametrize("name", ["oneflow-eager", pytest.param("oneflow-graph", marks=pytest.mark.slow)])
def test_frozen_is_bitwise_still(oneflow: Any, name: str, chosen: list[tuple[str, int]]) -> None:
    """Weights, statistics and slots of what is frozen; counts are each parameter's own; its rate and norm are 0."""
    answers = values_of(timeline, [(name, parts, case) for case, parts in chosen])
    wanted = [{"wrong": 0.0, "tracked": 6.0 * parts} for _, parts in chosen]
    assert dict(zip(chosen, answers, strict=True)) == dict(zip(chosen, wanted, strict=True))


def shared(case: str, parts: int, dtype: str) -> dict[str, float]:
    """Six phases in one graph, and with a graph for each; and in one graph, stopped in the fourth and gone on."""
    from dataclasses import replace

    import layered_lr as ll
    from layered_lr.backend.loading import load_backend
    from layered_lr.backend.session import Extras
    from layered_lr.models.nn_modules import set_trainable, trainable_parameters
    from layered_lr_oneflow.dropout import MaskedDropout
    from layered_lr_oneflow.runtime import flow
    from tests.support import optimizer_cases as cases
    from tests.support import state_cases as runs

    backend = load_backend("oneflow-graph", "cpu")
    groups = [ll.Group(["1", "2"], lr_scale=0.5, name="body"), ll.Group("4", name="head")]
    phases = [
        ll.Phase(2, frozen="body"),
        ll.Phase(4, frozen="head", dropout="off"),
        ll.Phase(6, frozen="1.*"),
        ll.Phase(8, frozen="body", batch_norm="moving"),
        ll.Phase(10, frozen="body", optimizer=ll.AdamW(0.01)),
        ll.Phase(optimizer=ll.AdamW(0.02)),
    ]
    spec = ll.Spec(cases.CASES[case], groups, ll.StepLR(2, 0.8), phases=phases, clip_grad_norm=0.5)
    extras = Extras(parts, ema_decay=0.9, seed=3)

    def run(timeline: bool, first: int, state: object = None) -> tuple[object, ...]:
        layers = runs.normed(flow)()
        model = backend.build(
            lambda: flow.nn.Sequential(*list(layers)[:4], MaskedDropout(0.4, runs.HIDDEN), list(layers)[4]),
            runs.CLASSES,
            0.0,
            0,
            dtype,
        )
        start = {name.replace("4.", "5."): array for name, array in runs.start(dtype).items()}
        backend.load(model, start)
        plan = ll.resolve(replace(spec, groups=[groups[0], ll.Group("5", name="head")]), model, total_steps=12)
        trainable, graphs, session, slots, losses = trainable_parameters(model), 0, None, {}, []
        middle = None
        for there in plan.phase_plans:
            if there.total_steps <= first:
                continue
            if session is not None:
                state = session.export_state()
            if session is None or not session.enter(there):
                set_trainable(model, (), trainable)
                graphs += 1
                plans = plan.phase_plans if timeline else ()
                session = backend.open(there, model, runs.CLASSES, extras, max(first, there.start), plans)
            if state is not None:
                kind = type(there.spec.optimizer).__name__
                slots = {**slots, **state.slots} if state.optimizer == kind else {}
                training = {name: own for name, own in slots.items() if name not in there.frozen}
                session.import_state(replace(state, slots=training, optimizer=kind))
            for at in range(max(first, there.start), there.total_steps):
                losses.append(runs.update(session, at))
                if at == 6:
                    middle = session.export_state()
                    middle = replace(middle, slots={**slots, **middle.slots})
        return losses, session.export_state(), graphs, middle

    whole, plain = run(True, 0), run(False, 0)
    resumed = run(True, 7, whole[3])
    return {
        "apart": runs.apart(whole[1], plain[1]),
        "losses": float(whole[0] != plain[0]),
        "graphs": whole[2],
        "rebuilt": plain[2],
        "resumed": runs.apart(whole[1], resumed[1]) + float(resumed[0] != whole[0][7:]),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "dtype", "chosen"),
    [
        *(
            pytest.param(parts, "float32", ["SGD nesterov", "RMSprop odd", "Adagrad"], marks=pytest.mark.exhaustive)
            for parts in (1, 2)
        ),
        (2, "float64", ["SGD nesterov", "RMSprop odd"]),
        pytest.param(2, "float64", ["Adagrad"], marks=pytest.mark.exhaustive),
    ],
)
def test_one_graph_for_many_phases_is_bitwise_a_graph_for_each(
    oneflow: Any, parts: int, dtype: str, chosen: list[str]
) -> None:
    answers = values_of(shared, [(case, parts, dtype) for case in chosen])
    wanted = {"apart": 0.0, "losses": 0.0, "graphs": 1, "rebuilt": 6, "resumed": 0.0}
    assert dict(zip(chosen, answers, strict=True)) == dict.fromkeys(chosen, wanted)
