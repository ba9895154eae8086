"""The progress bar: in a terminal, in a notebook with and without widgets, and with many groups."""

from __future__ import annotations

import importlib.util
import io
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.training.history import History
from layered_lr.training.progress import ProgressBar


def bar_text(monkeypatch: pytest.MonkeyPatch, groups: int = 2, wanted: bool = True) -> str:
    """What a bar writes to a stderr that is no terminal."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    names = [f"g{number}" for number in range(groups)]
    plan = ll.resolve(ll.Spec(ll.SGD(0.5), [ll.Group(name) for name in names]), [(name, (2,)) for name in names], 10, 5)
    history = History(groups)
    history.losses.add([1.25])
    session: Any = SimpleNamespace(rates=lambda start, stop: np.full((1, groups), 0.5))
    with ProgressBar(plan, 0, wanted) as bar:
        bar.count_update()
        bar.show(session, history)
    return written.getvalue()


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a kernel of a notebook, without widgets."""
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ipywidgets" else found(name))


def test_no_bar_where_stderr_is_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bar_text(monkeypatch) == ""


def test_a_notebook_shows_a_bar(notebook: None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = bar_text(monkeypatch)
    assert "1/10" in text and "loss=1.2500" in text and "g0=5.00e-01, g1=5.00e-01" in text


def test_metrics_stand_where_there_is_no_accuracy(notebook: None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    values = np.random.default_rng(0).random((8, 1), np.float32)
    images = np.zeros((8, 3, 2, 2), np.float32)

    def longest(outputs: Any, targets: Any) -> float:
        return 12.5

    result = ll.run(
        ll.Spec(ll.SGD(0.1)),
        model=lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 1)),
        data=(images, values, images, values),
        loss=torch.nn.MSELoss(),
        metrics=[longest],
        epochs=1,
        batch_size=4,
    )
    last = result.logged["test loss"][-1, 1]
    assert f"test loss={last:.4g}, longest=12.5, rest=1.00e-01" in written.getvalue()
    assert str(result).splitlines()[-3] == f"test loss {last:.6g}, longest 12.5 after 2 steps"


def test_a_notebook_shows_none_where_none_is_wanted(notebook: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bar_text(monkeypatch, wanted=False) == ""


def test_a_notebook_with_widgets_shows_theirs(notebook: None, monkeypatch: pytest.MonkeyPatch) -> None:
    import tqdm.notebook

    made: list[Any] = []

    class Widgets(tqdm.tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **more: Any) -> None:
            made.append(more)
            super().__init__(*args, **more)

    monkeypatch.setattr(tqdm.notebook, "tqdm", Widgets)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=name))
    bar_text(monkeypatch)
    assert made and not made[0]["disable"]


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert bar_text(monkeypatch) == ""


def test_many_groups_are_two_numbers(notebook: None, monkeypatch: pytest.MonkeyPatch) -> None:
    text = bar_text(monkeypatch, groups=60)
    assert "rates=5.00e-01 to 5.00e-01" in text and "g59" not in text
