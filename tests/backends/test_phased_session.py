"""A timeline of sessions, without any framework: what it asks of them, and what a switch of the optimizer does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.phased_session import PhasedSession, open_session
from layered_lr.backend.session import Extras, Session
from tests.support.quadratic import IMAGES, LABELS, Model, Quadratic, QuadraticSession

GROUPS = [ll.Group("a"), ll.Group("b", lr_scale=0.5)]


def opened(spec: ll.Spec, total: int, backend: Quadratic | None = None, curvature: float = 1.0) -> Session:
    model = Model(curvature)
    plan = ll.resolve(spec, [("a", (2,)), ("b", (2,))], total, 4)
    return open_session(backend or Quadratic(), plan, model, 2, Extras(grad_norms=True))


def train(session: Session, steps: int) -> np.ndarray:  # type: ignore[type-arg]
    """The values of ``a`` after each update."""
    values = []
    for _ in range(steps):
        session.losses([session.train_step(IMAGES, LABELS)])
        values.append(session.weights()["a"][0])
    return np.array(values)


def test_a_plan_without_phases_has_the_backends_own_session() -> None:
    assert type(opened(ll.Spec(ll.SGD(0.1)), 3)) is QuadraticSession
    assert type(opened(ll.Spec(ll.SGD(0.1), phases=[ll.Phase()]), 3)) is PhasedSession


def test_a_session_begins_right_before_its_first_update() -> None:
    backend = Quadratic()
    session = opened(ll.Spec(ll.SGD(0.1), GROUPS, phases=[ll.Phase(2, frozen="a"), ll.Phase()]), 4, backend)
    handles = [session.train_step(IMAGES, LABELS) for _ in range(2)]
    assert backend.log == ["open 0"]
    handles.append(session.train_step(IMAGES, LABELS))
    assert backend.log == ["open 0", "losses 2", "open 2"]
    losses = session.losses(handles)
    assert backend.log[3:] == ["losses 1"] and (np.diff(losses) < 0).all()
    np.testing.assert_array_equal(session.losses(handles), losses)
    np.testing.assert_allclose(session.rates(0, 3), [[0, 0.05], [0, 0.05], [0.1, 0.05]])
    np.testing.assert_array_equal(session.grad_norms(0, 3) == 0, [[True, False], [True, False], [False, False]])
    np.testing.assert_array_equal(session.rates(2, 3), session.rates(0, 3)[2:])
    assert session.rates(1, 1).shape == (0, 2)


def test_a_refused_batch_begins_nothing() -> None:
    backend = Quadratic()
    session = opened(ll.Spec(ll.SGD(0.1), GROUPS, phases=[ll.Phase(1, frozen="a"), ll.Phase()]), 4, backend)
    train(session, 1)
    with pytest.raises(ll.DataError):
        session.train_step(IMAGES, np.array([9]))
    assert session.step == 1 and backend.log.count("open 1") == 0


def test_what_the_optimizer_keeps_of_a_frozen_parameter_waits_for_it() -> None:
    phases = [ll.Phase(3), ll.Phase(5, frozen="a"), ll.Phase()]
    session = opened(ll.Spec(ll.Adam(0.01), GROUPS, phases=phases), 8)
    train(session, 3)
    waiting = session.export_state().slots["a"]
    train(session, 2)
    state = session.export_state()
    for slot, array in waiting.items():
        np.testing.assert_array_equal(state.slots["a"][slot], array)
    assert (state.slots["a"]["step"], state.slots["b"]["step"]) == (3, 5)
    train(session, 3)
    state = session.export_state()
    assert (state.slots["a"]["step"], state.slots["b"]["step"]) == (6, 8)


def test_a_state_is_of_the_segment_that_made_its_last_update() -> None:
    spec = ll.Spec(ll.Adam(0.01), GROUPS, phases=[ll.Phase(3), ll.Phase(optimizer=ll.SGD(0.1, momentum=0.5))])
    session = opened(spec, 8)
    train(session, 3)
    state = session.export_state()
    assert state.optimizer == "Adam"
    rest = train(session, 5)
    assert session.export_state().optimizer == "SGD"
    other = opened(spec, 8)
    train(other, 5)
    other.import_state(state)
    assert other.step == 3
    np.testing.assert_array_equal(train(other, 5), rest)
    with pytest.raises(ll.CheckpointError, match="the state is of Adam, but the plan trains with SGD"):
        other.import_state(ll.state.TrainingState(5, "Adam", state.weights, state.slots))


def reductions(*phases: ll.Phase, metrics: int) -> list[float]:
    plateau = ll.ReduceLROnPlateau(patience=0, factor=0.5, unit="step")
    session = opened(ll.Spec(ll.SGD(0.1), GROUPS, plateau, phases=phases), 12)
    for _ in range(metrics):
        train(session, 1)
        session.observe({"loss": 1.0}, "step")
    return [float(rate) for rate in session.rates(0, metrics)[:, 1]]


def test_reactive_schedules_go_on_through_phases() -> None:
    full = [0.05, 0.05, 0.025, 0.0125, 0.00625]
    assert reductions(ll.Phase(), metrics=5) == full
    assert reductions(ll.Phase(2, frozen="a"), ll.Phase(3), ll.Phase(), metrics=5) == full
    anew = reductions(ll.Phase(2), ll.Phase(counts_from="phase"), metrics=5)
    assert anew == [0.05, 0.05, 0.05, 0.05, 0.025]
    away = reductions(ll.Phase(3), ll.Phase(4, schedule=ll.Constant()), ll.Phase(), metrics=6)
    assert away == [0.05, 0.05, 0.025, 0.05, 0.0125, 0.00625]


def test_momentum_that_is_carried_over_keeps_its_speed() -> None:
    """Down a long slope Adam moves steadily; SGD goes on at the speed that its rate is for, or has to gain it."""
    settings: dict[str, Any] = {"optimizer": ll.SGD(0.01, momentum=0.9)}
    first, full = {}, 0.01 * 0.01 / (1 - 0.9)  # rate times gradient times the sum of momentum's powers
    for carry in ("nothing", "momentum"):
        phases = [ll.Phase(60), ll.Phase(carry=carry, **settings)]  # type: ignore[arg-type]
        session = opened(ll.Spec(ll.Adam(1e-4), phases=phases), 200, curvature=0.01)
        values = train(session, 62)
        first[carry] = values[59] - values[60]
    assert first["nothing"] == pytest.approx(full / 10, rel=0.02)
    assert first["momentum"] == pytest.approx(full, rel=0.02)


def test_a_momentum_that_warms_up_is_less_of_a_shock() -> None:
    """After the switch the heavy momentum swings past the minimum; warmed up, the first steps settle it before."""
    swing = {}
    for updates in (0, 20):
        switch = ll.Phase(optimizer=ll.SGD(0.2, momentum=0.95), momentum_warmup=updates)
        session = opened(ll.Spec(ll.Adam(0.01), phases=[ll.Phase(20), switch]), 200)
        values = train(session, 120)
        swing[updates] = -values[20:].min()
    assert swing[0] > 0.5
    assert swing[20] < swing[0] / 3


def test_momentum_rises_over_the_first_updates_of_its_phase() -> None:
    switch = ll.Phase(optimizer=ll.SGD(0.2, momentum=0.8), momentum_warmup=3)
    plan = ll.resolve(ll.Spec(ll.Adam(), phases=[ll.Phase(5), switch]), [("a", (2,))], 20)
    assert plan.momenta(4) == [None]
    assert [plan.momenta(step)[0] for step in range(5, 11)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])
    cycled = ll.Phase(optimizer=ll.SGD(0.2, momentum=0.8), momentum_warmup=3, schedule=ll.OneCycleLR(0.2))
    plan = ll.resolve(ll.Spec(ll.Adam(), phases=[ll.Phase(5), cycled]), [("a", (2,))], 20)
    full = ll.resolve(ll.Spec(ll.SGD(0.2, momentum=0.8), schedule=ll.OneCycleLR(0.2)), [("a", (2,))], 20)
    assert [plan.momenta(step)[0] for step in (5, 8)] == pytest.approx([full.momenta(5)[0] / 4, full.momenta(8)[0]])  # type: ignore[operator]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([ll.Phase(3), ll.Phase(momentum_warmup=3)], "phase 2: momentum_warmup=3: the optimizer stays SGD"),
        ([ll.Phase(optimizer=ll.Adam(), momentum_warmup=3)], "Adam has no momentum > 0"),
        ([ll.Phase(3), ll.Phase(optimizer=ll.RMSprop(), carry="momentum")], "cannot take over the momentum of SGD"),
        (
            [ll.Phase(3, optimizer=ll.Adam()), ll.Phase(optimizer=ll.SGD(0.1), carry="momentum")],
            "SGD cannot take over the momentum of Adam",
        ),
    ],
)
def test_switches_that_cannot_be(phases: list[ll.Phase], message: str) -> None:
    with pytest.raises(ll.SpecError) as caught:
        ll.resolve(ll.Spec(ll.SGD(0.1, momentum=0.9), phases=phases), [("a", (2,))], 9)
    assert message in str(caught.value)


def test_a_warmup_forgets_what_is_carried() -> None:
    with pytest.raises(ll.SpecError, match="give only one of them; a momentum that starts at 0 forgets"):
        ll.Phase(carry="momentum", momentum_warmup=3)
