"""``torch-compile`` compiles once for whatever trains: not for a rate, a step, an evaluation, a resume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from layered_lr.backend.phased_session import open_session
from layered_lr.backend.session import Extras, Session
from tests.conftest import open_backend
from tests.support.models import CLASSES, arrays, mlp, mlp_weights

X, Y, _, _ = arrays(64)
STEPS = 8


def graphs(torch: Any) -> int:
    """How many graphs torch has compiled since the last reset of its counters."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


@pytest.fixture
def compiled(torch: Any) -> Callable[..., Session]:
    """A session of a small network under a spec."""
    backend = open_backend("torch-compile")
    torch._dynamo.utils.counters.clear()

    def opened(spec: ll.Spec) -> Session:
        model = backend.build(mlp(torch), CLASSES, 0.0, 0)
        backend.load(model, mlp_weights())
        plan = ll.resolve(spec, model, total_steps=STEPS, steps_per_epoch=2)
        return open_session(backend, plan, model, CLASSES, Extras())

    return opened


def batch(at: int) -> tuple[NDArray[Any], NDArray[Any]]:
    return X[8 * at : 8 * at + 8], Y[8 * at : 8 * at + 8]


def train(session: Session, steps: int) -> list[float]:
    handles = [session.train_step(*batch(at)) for at in range(session.step, session.step + steps)]
    return session.losses(handles).tolist()  # type: ignore[no-any-return]


@pytest.mark.slow
def test_rates_steps_evaluation_and_a_state_compile_nothing(torch: Any, compiled: Callable[..., Session]) -> None:
    groups = [ll.Group("1", lr_scale=0.3, schedule=ll.OneCycleLR(0.1, total_steps=STEPS))]
    session = compiled(ll.Spec(ll.AdamW(0.01), groups, ll.ExponentialLR(0.9)))
    train(session, 1)
    assert graphs(torch) == 1
    with torch.compiler.set_stance("fail_on_recompile"):
        losses = train(session, 2)
        session.logits(X[:11])
        state = session.export_state()
        later = train(session, 4)
        session.import_state(state)
        assert train(session, 4) == later
    assert graphs(torch) == 1 and np.isfinite(losses).all()
    assert len(np.unique(session.rates(3, 7))) == 8, "each step had two rates of its own"


@pytest.mark.slow
def test_a_phase_compiles_once_more_where_another_part_trains(torch: Any, compiled: Callable[..., Session]) -> None:
    spec = ll.Spec(
        ll.SGD(0.1, momentum=0.9),
        [ll.Group("1", name="body"), ll.Group("3", name="head")],
        ll.ExponentialLR(0.9),
        phases=[ll.Phase("3 steps", frozen="body"), ll.Phase()],
    )
    session = compiled(spec)
    train(session, 3)
    assert graphs(torch) == 1
    train(session, STEPS - 3)
    assert graphs(torch) == 2


@pytest.mark.slow
def test_it_is_said_before_the_first_update(
    compiled: Callable[..., Session], capsys: pytest.CaptureFixture[str]
) -> None:
    session = compiled(ll.Spec(ll.SGD(0.1)))
    assert capsys.readouterr().err == ""
    train(session, 2)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith("layered_lr: torch-compile: compiling the model")


def test_the_eager_backend_says_nothing(torch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    backend = load_backend("torch-eager", "cpu")
    model = backend.build(mlp(torch), CLASSES, 0.0, 0)
    session = backend.open(ll.resolve(ll.Spec(ll.SGD(0.1)), model, total_steps=2), model, CLASSES)
    train(session, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_what_compiling_took_stays_as_it_was_once_it_is_done(compiled: Callable[..., Session]) -> None:
    session = compiled(ll.Spec(ll.SGD(0.1)))
    assert session.compile_seconds is None
    train(session, 1)
    first = session.compile_seconds
    train(session, 2)
    assert first is not None and 0.0 < first == session.compile_seconds
