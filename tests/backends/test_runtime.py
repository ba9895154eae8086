"""OneFlow is loaded in the one way that is safe, whoever imported it first."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.support.isolation import isolated, value_of

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="only Linux has SCHED_BATCH")


def policies(first: str, then: str) -> dict[str, list[int]]:
    """The policy of every thread after each of two statements."""
    import os
    from pathlib import Path

    def now() -> list[int]:
        return [os.sched_getscheduler(int(thread.name)) for thread in Path("/proc/self/task").iterdir()]

    exec(first, {})
    before = now()
    exec(then, {})
    return {"before": before, "after": now()}


LOAD = "from layered_lr.backend.loading import load_backend; load_backend({!r})"


@pytest.mark.parametrize("name", ["oneflow-eager", "oneflow-graph"])
def test_every_thread_is_under_sched_batch(oneflow: Any, name: str) -> None:
    after = value_of(policies, "", LOAD.format(name), is_fresh=True)["after"]
    assert len(after) > 1, "OneFlow has threads of its own"
    assert set(after) == {os.SCHED_BATCH}


def test_also_where_oneflow_was_imported_first(oneflow: Any) -> None:
    told = value_of(policies, "import oneflow; oneflow.ones(2).numpy()", LOAD.format("oneflow-graph"), is_fresh=True)
    assert len(told["before"]) > 1
    assert os.SCHED_OTHER in told["before"], "nothing to mend: the test shows nothing"
    assert set(told["after"]) == {os.SCHED_BATCH}


ATTACH = """
import oneflow as flow, layered_lr as ll
model = flow.nn.Linear(2, 2)
class Graph(flow.nn.Graph):
    def __init__(self):
        super().__init__()
        self.model = model
        ll.attach(ll.Spec(optimizer=ll.SGD(lr=0.1)), self, model)
    def build(self, x):
        loss = self.model(x).sum()
        loss.backward()
        return loss
Graph()(flow.ones(1, 2)).numpy()
"""


def test_also_in_a_graph_of_the_users_own(oneflow: Any) -> None:
    told = value_of(policies, "import oneflow; oneflow.ones(2).numpy()", ATTACH, is_fresh=True)
    assert len(told["after"]) > 1
    assert set(told["after"]) == {os.SCHED_BATCH}


def test_torch_is_left_as_it_is(torch: Any) -> None:
    assert set(value_of(policies, "", LOAD.format("torch-eager"))["after"]) == {os.SCHED_OTHER}


def crunch(steps: int) -> float:
    """Tiny graph calls, each waited for, while another process keeps a core busy."""
    import subprocess
    import sys

    import layered_lr as ll
    from layered_lr.backend.loading import load_backend
    from tests.support.models import arrays, mlp

    backend = load_backend("oneflow-graph", "cpu")
    import oneflow as flow

    model = mlp(flow)()
    session = backend.open(ll.resolve(ll.Spec(optimizer=ll.SGD(lr=0.01)), model), model, 3)
    x, y, _, _ = arrays()
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        for _ in range(steps):
            loss = session.losses([session.train_step(x[:8], y[:8])])
    finally:
        busy.kill()
        busy.wait()
    return float(loss[0])


@pytest.mark.slow
def test_a_graph_that_is_synced_at_every_step_survives(oneflow: Any) -> None:
    """Without SCHED_BATCH about half of such runs of 5,000 steps died of SIGSEGV (ONEFLOW.md, finding B)."""
    outcome = isolated(crunch, 250)
    assert outcome.returncode == 0, outcome.stderr[-2000:]


def stderr_of_loading() -> str:
    from layered_lr.backend.loading import load_backend

    load_backend("oneflow-graph")
    return ""


def test_loading_is_quiet(oneflow: Any) -> None:
    assert isolated(stderr_of_loading, is_fresh=True).stderr == ""


def gradients_before_transposed_convolutions(is_frozen: bool) -> list[list[float]]:
    """Of the layer before one, in one, two and three dimensions, eager; and of a graph, what an update did."""
    import oneflow as flow

    import layered_lr_oneflow.runtime  # noqa: F401 # which mends it

    found = []
    for count in (1, 2, 3):
        flow.manual_seed(0)
        first = getattr(flow.nn, f"Conv{count}d")(2, 3, 1)
        second = getattr(flow.nn, f"ConvTranspose{count}d")(3, 2, 2, 2)
        second.weight.requires_grad_(not is_frozen)
        x = flow.ones(1, 2, *(2,) * count)
        (second(first(x)) ** 2).sum().backward()
        found.append(first.weight.grad.flatten().numpy().tolist())
        assert (second.weight.grad is None) == is_frozen

    model = flow.nn.Sequential(flow.nn.Conv2d(2, 3, 1), flow.nn.ConvTranspose2d(3, 2, 2, 2))
    model[1].weight.requires_grad_(not is_frozen)

    class Graph(flow.nn.Graph):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.add_optimizer(flow.optim.SGD(model[0].parameters(), lr=0.1))

        def build(self, x: object) -> object:
            loss = (self.model(x) ** 2).sum()
            loss.backward()
            return loss

    for parameter in model.parameters():
        flow.nn.init.constant_(parameter, 0.3)
    Graph()(flow.ones(1, 2, 2, 2)).numpy()
    return [*found, model[0].weight.flatten().numpy().tolist()]


def test_gradients_pass_a_transposed_convolution_that_is_frozen(oneflow: Any) -> None:
    """There OneFlow alone aborts the process."""
    frozen, moving = (value_of(gradients_before_transposed_convolutions, each) for each in (True, False))
    assert frozen == moving and all(any(numbers) for numbers in frozen)
