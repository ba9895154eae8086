"""What a OneFlow session exports, another goes on from: bitwise, and from torch's state within rounding."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.arrays import COUNTS
from layered_lr.backend.loading import load_backend
from layered_lr.backend.session import Extras
from layered_lr.state import TrainingState
from tests.support import optimizer_cases as cases
from tests.support import state_cases
from tests.support.isolation import value_of, values_of


def goes_on(name: str, first: str, dtype: str) -> dict[str, list[float]]:
    """For optimizers of a family: how far a resumed run is from the undisturbed one, and whether all else is equal."""
    import layered_lr as ll
    from layered_lr.backend.loading import load_backend
    from layered_lr.backend.session import Extras
    from layered_lr_oneflow.runtime import flow
    from tests.support import optimizer_cases as cases
    from tests.support import state_cases as runs

    backend = load_backend(name, "cpu")
    plateau = ll.ReduceLROnPlateau(factor=0.5, patience=1, unit="step", threshold=0.5)
    ways: dict[str, tuple[Extras, dict[str, object]]] = {
        "plain": (Extras(), {}),
        "everything": (Extras(ema_decay=0.9, grad_norms=True), {"clip_grad_norm": 0.5}),
        "parts": (Extras(2, ema_decay=0.5), {"clip_grad_value": 0.1}),
        "reactive": (Extras(), {"schedule": plateau}),
    }
    members = cases.members(first)
    many_ways = {"SGD momentum", "SGD dampening", "AdamW", "Adagrad"}
    if dtype == "float64":  # one case of each class; float32 has all of them, in the wide matrix
        chosen = {type(optimizer): case for case, optimizer in members.items()}.values()
        more = many_ways if name == "oneflow-eager" else set()  # a graph takes time
        members = {case: members[case] for case in members if case in chosen or case in more}
    answers = {}
    for case, optimizer in members.items():
        for way, (extras, options) in ways.items():
            if way != "plain" and case not in many_ways:
                continue
            spec = runs.spec_of(optimizer, **options)
            whole = runs.opened(backend, flow, spec, extras, dtype)
            runs.trained(whole, 0, 5)
            middle = whole.export_state()
            losses, end = runs.trained(whole, 5, runs.STEPS), whole.export_state()
            again = runs.opened(backend, flow, spec, extras, dtype, step=5)
            again.import_state(middle)
            distance = runs.apart(again.export_state(), middle)
            same = runs.trained(again, 5, runs.STEPS) == losses
            same &= bool((again.rates(5, runs.STEPS) == whole.rates(5, runs.STEPS)).all())
            same &= again.rates(0, 99).shape == (runs.STEPS - 5, 3)
            if whole.extras.grad_norms:
                same &= bool((again.grad_norms(5, runs.STEPS) == whole.grad_norms(5, runs.STEPS)).all())
            distance = max(distance, runs.apart(again.export_state(), end))
            again.import_state(middle)  # back, as after a divergence
            same &= runs.trained(again, 5, runs.STEPS) == losses
            answers[f"{case}, {way}"] = [max(distance, runs.apart(again.export_state(), end)), float(same)]
    return answers


def _stopped_runs() -> Iterator[Any]:
    for name, family, dtype in product(("oneflow-eager", "oneflow-graph"), cases.FAMILIES, ("float32", "float64")):
        # float64 has one case of each class; float32 has all of them, which costs 20 s a family in graphs. Loops of a
        # user's own go on bitwise in float32, see test_own_loop_oneflow.py.
        is_wide = dtype == "float32"
        marks = [pytest.mark.slow] * (name == "oneflow-graph") + [pytest.mark.exhaustive] * is_wide
        yield pytest.param(name, family, dtype, marks=marks)


@pytest.mark.parametrize(("name", "family", "dtype"), list(_stopped_runs()))
def test_a_stopped_run_goes_on_bitwise(oneflow: Any, name: str, family: str, dtype: str) -> None:
    answers = value_of(goes_on, name, family, dtype)
    assert answers
    assert {case: answer for case, answer in answers.items() if answer != [0.0, 1.0]} == {}


@pytest.mark.parametrize("case", cases.CASES)
def test_slots_have_torchs_names(oneflow: Any, torch: Any, case: str) -> None:
    session = state_cases.opened(
        load_backend("oneflow-eager", "cpu"), oneflow, state_cases.spec_of(cases.CASES[case]), Extras()
    )
    assert session.export_state().slots == {}
    state_cases.trained(session, 0, 2)
    slots = session.export_state().slots
    optimizers = {group.label: group.optimizer for group in state_cases.spec_of(cases.CASES[case]).groups}
    for name, weight in state_cases.start().items():
        of_adamw = isinstance(cases.CASES[case], ll.Muon) and (weight.ndim == 1 or name[0] not in optimizers)
        wanted = torch_slots(torch, ll.AdamW() if of_adamw else cases.CASES[case], weight.shape)
        assert {slot: array.shape for slot, array in slots.get(name, {}).items()} == wanted, name
    steps = [own["step"] for own in slots.values() if "step" in own]
    assert all(step == 2 and step.dtype == np.float64 and step.shape == () for step in steps)


def torch_optimizer(torch: Any, case: ll.Optimizer, parameters: Any) -> Any:
    """torch's own, or the one of this library that torch has not."""
    from layered_lr_torch import paper_optimizers

    kind = getattr(torch.optim, type(case).__name__, None) or getattr(paper_optimizers, type(case).__name__)
    known = inspect.signature(kind).parameters
    return kind(
        parameters, **{name: value for name, value in {**asdict(case), "foreach": False}.items() if name in known}
    )


def torch_slots(torch: Any, case: ll.Optimizer, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes in the state of torch's optimizer after an update, by name, those without a value left out."""
    parameter = torch.nn.Parameter(torch.ones(shape))
    optimizer = torch_optimizer(torch, case, [parameter])
    parameter.sum().backward()
    optimizer.step()
    return {name: np.shape(value) for name, value in optimizer.state[parameter].items() if value is not None}


def torch_run(torch: Any, case: ll.Optimizer, state: TrainingState | None, stop: int) -> TrainingState:
    """torch's own optimizer in a loop written out, from a state or from the start."""
    model = state_cases.normed(torch)()
    weights = state_cases.start() if state is None else state.weights
    model.load_state_dict({name: torch.tensor(array) for name, array in weights.items()}, strict=False)
    optimizer = torch_optimizer(torch, case, model.parameters())
    named = dict(model.named_parameters())
    for name, slots in ({} if state is None else state.slots).items():
        optimizer.state[named[name]] = {
            slot: torch.tensor(array, dtype=torch.float32 if slot in COUNTS else None) for slot, array in slots.items()
        }
    for at in range(0 if state is None else state.step, stop):
        place = at % 12 * state_cases.BATCH
        images = torch.tensor(state_cases.X[place : place + state_cases.BATCH])
        labels = torch.tensor(state_cases.Y[place : place + state_cases.BATCH])
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    slots = {
        name: {
            slot: np.array(float(value)) if slot in COUNTS else value.detach().numpy().copy()
            for slot, value in optimizer.state[parameter].items()
            if value is not None
        }
        for name, parameter in named.items()
    }
    weights = {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
    return TrainingState(stop, type(case).__name__, weights, {name: own for name, own in slots.items() if own})


def across(name: str, case: str, path: str, to: str) -> None:
    """Go on for four updates from the state in a file, and leave the new one in another."""
    import pickle
    from pathlib import Path

    import layered_lr as ll
    from layered_lr.backend.loading import load_backend
    from layered_lr.backend.session import Extras
    from layered_lr_oneflow.runtime import flow
    from tests.support import optimizer_cases as cases
    from tests.support import state_cases as runs

    state = pickle.loads(Path(path).read_bytes())  # of this very test
    backend = load_backend(name, "cpu")
    session = runs.opened(backend, flow, ll.Spec(cases.CASES[case]), Extras(), step=state.step)
    session.import_state(state)
    runs.trained(session, state.step, state.step + 4)
    Path(to).write_bytes(pickle.dumps(session.export_state()))


ACROSS = ["SGD nesterov", "SGD dampening", "LARS", "AdamW amsgrad", "NAdam", "RAdam", "LAMB", "Lion", "RMSprop odd"]
ACROSS += ["Adagrad odd", "Adagrad", "Adadelta", "Adamax", "Adafactor", "ASGD odd", "Rprop"]


# Two of OneFlow's own optimizers, with slots of other names; and three of ours: without counts, with them, and NAdam,
# which has one number more.
IN_A_GRAPH = ["SGD nesterov", "Adagrad", "SGD dampening", "AdamW amsgrad", "NAdam"]


@pytest.mark.parametrize(
    ("name", "chosen"),
    [
        pytest.param("oneflow-eager", ACROSS, id="oneflow-eager"),
        pytest.param("oneflow-graph", IN_A_GRAPH, marks=pytest.mark.slow, id="oneflow-graph"),
        pytest.param(
            "oneflow-graph", sorted({*ACROSS} - {*IN_A_GRAPH}), marks=pytest.mark.exhaustive, id="oneflow-graph, others"
        ),
    ],
)
def test_from_torch_and_back_within_rounding(
    oneflow: Any, torch: Any, tmp_path: Any, name: str, chosen: list[str]
) -> None:
    import pickle

    for case in chosen:
        (tmp_path / case).write_bytes(pickle.dumps(torch_run(torch, cases.CASES[case], None, 4)))
    values_of(across, [(name, case, str(tmp_path / case), str(tmp_path / f"{case}, later")) for case in chosen])
    apart = {}
    for case in chosen:
        later = pickle.loads((tmp_path / f"{case}, later").read_bytes())
        back, whole = (torch_run(torch, cases.CASES[case], state, 12) for state in (later, None))
        apart[case] = state_cases.apart(back, whole)
    assert {case: far for case, far in apart.items() if far >= 2e-5} == {}  # of numbers up to 2 in float32


def test_a_state_that_does_not_fit_changes_nothing(oneflow: Any) -> None:
    backend = load_backend("oneflow-eager", "cpu")
    session = state_cases.opened(backend, oneflow, state_cases.spec_of(ll.AdamW(0.01)), Extras())
    state_cases.trained(session, 0, 3)
    good = session.export_state()
    slots = {name: {**own, "exp_avg": own["exp_avg"][:1]} for name, own in good.slots.items()}
    wrong = TrainingState(7, "AdamW", good.weights, slots)
    with pytest.raises(ll.CheckpointError, match=r"exp_avg.*but the optimizer's is float32"):
        session.import_state(wrong)
    with pytest.raises(ll.CheckpointError, match="SGD"):
        session.import_state(TrainingState(7, "SGD", good.weights, good.slots))
    assert session.step == 3
    assert state_cases.apart(session.export_state(), good) == 0
