"""What a run notes of each update: the same numbers as lists would hold, in few bytes, and fetched in blocks."""

import tracemalloc
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.arrays import Slots
from layered_lr.backend.series import Repeats, Series
from layered_lr.backend.session import NO_EXTRAS, Extras, Session, StepOutcome
from layered_lr.data import Batches, Dataset
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.state.training_state import TrainingState
from layered_lr.training.history import History
from layered_lr.training.loop import Loop


class Counting(Session):
    """Computes nothing: a loss is the number of its update, and each wait for losses is noted."""

    def __init__(self, plan: Plan, extras: Extras = NO_EXTRAS) -> None:
        super().__init__(plan, 2, extras)
        self.waits: list[int] = []
        self.table = plan.table()
        self.steps_ahead = 50

    def _update(self, images: Any, labels: Any, parts: int) -> StepOutcome:
        return StepOutcome(self.step)

    def _losses(self, handles: Sequence[int]) -> NDArray[np.float64]:
        self.waits.append(len(handles))
        return np.array(handles, dtype=np.float64)

    def observe(self, metrics: Mapping[str, float], unit: str) -> None:
        """Nothing reacts."""

    def logits(self, images: Any, ema: bool = False, shares: bool = False) -> NDArray[Any]:
        return np.zeros((len(images), 2))

    def rates(self, start: int, stop: int) -> NDArray[np.float64]:
        return self.table[start:stop]

    def grad_norms(self, start: int, stop: int) -> NDArray[np.float64]:
        return self.table[start:stop] + 1

    def weights(self) -> dict[str, NDArray[Any]]:
        return {}

    def ema_weights(self) -> dict[str, NDArray[Any]]:
        return {}

    def _slots(self) -> Slots:
        return {}

    def _new_slots(self) -> Slots:
        return {}

    def _reactions(self) -> Mapping[str, Mapping[str, float]]:
        return {}

    def _random(self) -> Mapping[str, NDArray[Any]]:
        return {}

    def _import(self, state: TrainingState) -> None:
        raise NotImplementedError


def loop(steps: int, images: int = 64, extras: Extras = NO_EXTRAS) -> tuple[Loop, Counting]:
    """A run of two groups, four images a batch."""
    x, y = np.arange(3 * images, dtype=np.uint8).reshape(images, 1, 1, 3), np.zeros(images, np.int64)
    batches = Batches(Dataset("tiny", x, y, x[:4], y[:4]), 4)
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("a")], ll.LinearLR(total_iters=steps))
    plan = resolve(spec, [("a", (2,)), ("b", (2,))], steps, batches.steps_per_epoch)
    session = Counting(plan, extras)
    return Loop(session, plan, batches, False, History(2, steps)), session


@pytest.mark.parametrize("expected", [None, 7, 700, 100_000])
@pytest.mark.parametrize("width", [None, 2])
def test_a_series_holds_what_a_list_would(width: int | None, expected: int | None) -> None:
    draw = np.random.default_rng(1)
    series, rows = Series(width, expected), np.empty((0,) if width is None else (0, width))
    views = []
    for count in (1, 0, 3, 300, 1, 5000, 2):
        more = draw.normal(size=(count,) if width is None else (count, width))
        series.add(more.tolist() if width is None else more)
        rows = np.concatenate([rows, more])
        views.append((series.numbers(), rows))
        assert len(series) == len(rows)
        np.testing.assert_array_equal(series.numbers(2), rows[2:])
    for view, then in views:
        np.testing.assert_array_equal(view, then)
    series.cut(3)
    np.testing.assert_array_equal(series.numbers(), rows[:3])


def test_adding_one_by_one_moves_the_numbers_seldom() -> None:
    series, places = Series(), set()
    for number in range(20_000):
        series.add([number])
        places.add(series.numbers().__array_interface__["data"][0])
    assert series.numbers().tolist() == list(range(20_000))
    assert len(places) < 20  # each time by half: the time is in proportion


def test_repeats_are_told_apart_and_come_back() -> None:
    repeats, numbers = Repeats(), []
    for value, count in ((1.0, 3), (1.0, 2), (0.5, 0), (0.5, 1), (1.0, 4)):
        repeats.add(value, count)
        numbers += [value] * count
        assert repeats.numbers().tolist() == numbers and len(repeats) == len(numbers)
    assert repeats.numbers().dtype == np.float64


def test_a_history_comes_back_from_its_arrays_and_goes_on() -> None:
    history = History(2)
    history.losses.add([3.0, 2.0, np.nan])
    history.accuracies.add([0.5])
    history.rates.add([[1, 2], [3, 4], [5, 6]])
    history.planned.add([[1, 2], [3, 4], [5, 6]])
    history.rate_factors.add(1.0, 2)
    history.rate_factors.add(0.5, 1)
    arrays = history.arrays()
    again = History.of(arrays, 2)
    again.losses.add([1.0])  # the arrays that a checkpoint has stay as they are
    assert arrays["losses"].tolist()[:2] == [3.0, 2.0] and len(arrays["losses"]) == 3
    assert arrays["rate_factors"].tolist() == [1.0, 1.0, 0.5] and arrays["grad_norms"].shape == (0, 2)
    assert {name: array.dtype for name, array in arrays.items()} == dict.fromkeys(arrays, np.dtype(np.float64))
    for name, array in History.of(arrays, 2).arrays().items():
        np.testing.assert_array_equal(array, arrays[name])
    assert np.isnan(History.of(arrays, 3).rates.numbers()).all() and History.of({}, 2).arrays()["rates"].shape == (0, 2)


def test_losses_are_fetched_in_blocks() -> None:
    made, session = loop(4000, images=4 * 4000)
    made.run()
    assert made.history.losses.numbers().tolist() == list(range(4000))
    assert sum(session.waits) == 4000 and 0 not in session.waits
    assert len(session.waits) <= 4000 / 25 + 4  # the first two updates are waited for, to time them


def test_tables_are_collected_whole_also_where_they_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layered_lr.training.measurements._BLOCK_STEPS", 7)
    made, session = loop(40, extras=Extras(grad_norms=True))
    made.run()
    np.testing.assert_array_equal(made.history.rates.numbers(), session.table)
    np.testing.assert_array_equal(made.history.planned.numbers(), session.table)
    np.testing.assert_array_equal(made.history.grad_norms.numbers(), session.table + 1)
    assert made.history.rate_factors.numbers().tolist() == [1.0] * 40
    assert len(made.history.accuracies) == 3  # epochs of 16, and the end


@pytest.mark.slow
def test_a_step_of_history_takes_few_bytes() -> None:
    """Two groups: a loss, two rates and two planned rates are 40 bytes."""

    def peak(steps: int) -> int:
        made, _ = loop(steps)
        tracemalloc.start()
        try:
            made.run()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(100)  # what is imported and cached once
    assert (peak(30_000) - peak(10_000)) / 20_000 < 60


def test_compile_seconds_of_all_sessions_are_added() -> None:
    made, session = loop(3)
    assert made.compile_seconds is None
    session.compile_seconds = 1.5
    assert made.compile_seconds == 1.5


@pytest.mark.parametrize(("seconds", "fewest", "most"), [(0.0, 20, 26), (0.1, 5, 6), (0.4, 1, 2), (30.0, 1, 2)])
def test_an_interrupt_waits_for_as_many_updates_as_take_a_second(
    monkeypatch: pytest.MonkeyPatch, seconds: float, fewest: int, most: int
) -> None:
    """Losses are fetched in halves of what may be ahead: at least two updates, at most the session's fifty."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1e-6
        return now

    def update(images: Any, labels: Any, parts: int) -> StepOutcome:
        nonlocal now
        now += seconds
        return StepOutcome(session.step)

    monkeypatch.setattr("layered_lr.training.timing.time.perf_counter", clock)
    training, session = loop(400, images=1600)
    monkeypatch.setattr(session, "_update", update)
    training.run()
    usual = session.waits[4:-1]  # behind the first ones, before what is left at the end
    assert len(usual) >= 10 and min(usual) >= fewest and max(usual) <= most


def test_the_mean_of_an_epoch_leaves_skipped_updates_out() -> None:
    from layered_lr.training.history import mean_loss

    assert mean_loss(np.array([1.0, float("nan"), 3.0])) == 2.0
    assert mean_loss(np.array([1.0, float("inf")])) == float("inf")
    assert np.isnan(mean_loss(np.array([float("nan")]))) and np.isnan(mean_loss(np.empty(0)))
