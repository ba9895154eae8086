"""The dynamic lowering of OneFlow's Graph: against native Graph training, against torch, and without syncs."""

import subprocess
import sys
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest

from tests.support.graph_process import run_each
from tests.support.widths import keep_some

InProcess = Callable[..., dict[str, Any]]


def test_equals_native_training_bitwise(oneflow: Any) -> None:
    # lr_scale is a power of two: native multiplies it in float32, which is then exact.
    momentum = "SGD(0.1, momentum=0.9, weight_decay=1e-2, nesterov=True)"
    calls = [("SGD(0.1)",), (momentum,)]
    answers = run_each(
        """
        spec = Spec(eval(sys.argv[1]), GROUPS, StepLR(7, 0.5))
        plan = resolve(spec, mlp())
        native = start(mlp())
        before = arrays(native)
        graph = Train(native, lambda graph: attach(plan, graph, native))
        losses = [float(graph(*batch(step)).numpy()) for step in range(30)]
        got = {"moved": apart(before, arrays(native))}
        for kind in ("compiled", "varying"):
            dynamic = start(mlp())
            varying = [g.name for g in plan.groups if g.optimizer.momentum] if kind == "varying" else []
            updates = DynamicUpdate(plan, dynamic, varying_momentum=varying)
            other, same = Train(dynamic, updates.bind), []
            for step in range(30):
                updates.set(plan.rates(step))
                same.append(float(other(*batch(step)).numpy()) == losses[step])
            got[kind] = {"apart": apart(arrays(native), arrays(dynamic)), "losses": all(same)}
        answer(**got)
        """,
        calls,
    )
    for call, got in zip(calls, answers, strict=True):
        assert got["moved"] > 0.05, call
        assert got["compiled"] == got["varying"] == {"apart": 0, "losses": True}, call


def test_equals_torch_when_rate_and_momentum_change_each_step(oneflow: Any, torch: Any) -> None:
    # float32: rounding of both frameworks' matrix products over 60 steps; float64: of the same.
    tolerances = {"float32": 1e-6, "float64": 1e-14}
    calls = list(product(tolerances, ["plain", "nesterov"]))
    answers = run_each(
        """
        import torch
        dtype, nesterov = sys.argv[1], sys.argv[2] == "nesterov"
        spec = Spec(SGD(0.1, momentum=0.9, weight_decay=1e-2, nesterov=nesterov), GROUPS)
        theirs = mlp(torch.nn)
        ours = start(mlp()).to(getattr(flow, dtype))
        theirs = theirs.to(getattr(torch, dtype))
        with torch.no_grad():
            for p, array in zip(theirs.parameters(), arrays(ours), strict=True):
                p.copy_(torch.from_numpy(array))
        plan = resolve(spec, ours)
        # Group '2' keeps its compiled momentum, '0' and 'rest' change theirs.
        updates = DynamicUpdate(plan, ours, varying_momentum=["0", "rest"])
        graph = Train(ours, updates.bind)
        named = dict(theirs.named_parameters())
        optimizer = torch.optim.SGD([
            {"params": [named[n] for n in g.parameters], "weight_decay": g.optimizer.weight_decay,
             "nesterov": g.optimizer.nesterov, "momentum": g.optimizer.momentum} for g in plan.groups], lr=0.1)
        before = arrays(ours)
        rates = rng.uniform(0.001, 0.1, (60, 3))
        momenta = rng.uniform(0.05, 0.95, (60, 3))
        momenta[:, 1] = 0.5
        for step in range(60):
            updates.set(rates[step], [*momenta[step]])
            graph(*batch(step, getattr(flow, dtype)))
            for group, rate, momentum in zip(optimizer.param_groups, rates[step], momenta[step], strict=True):
                group.update(lr=rate, momentum=momentum)
            optimizer.zero_grad()
            x, y = (torch.from_numpy(a[step % 60]).to(getattr(torch, dtype)) for a in (X, Y))
            ((theirs(x) - y) ** 2).mean().backward()
            optimizer.step()
        slots = updates.slots()
        states = {n: optimizer.state[p]["momentum_buffer"].numpy() for n, p in named.items()}
        answer(apart=apart(arrays(ours), arrays(theirs)), moved=apart(before, arrays(ours)),
               slots=max(float(np.abs(slots[n]["momentum_buffer"] - states[n]).max()) for n in states))
        """,
        calls,
    )
    for call, got in zip(calls, answers, strict=True):
        assert got["apart"] < tolerances[call[0]], call
        assert got["slots"] < tolerances[call[0]] * 10, call  # a sum of up to 1 / (1 - 0.95) gradients
        assert got["moved"] > 0.1, call


CHANGES = """
steps, kind = int(sys.argv[1]), sys.argv[2]
model = Unit()
plan = resolve(Spec(SGD(0.1, momentum=0.9), [Group("a"), Group("b")]), model)
rates = rng.uniform(1e-4, 1, (steps, 2))
momenta = rng.uniform(0.5, 0.95, (steps, 2))
if kind == "table":
    tables = [{"a": numbers[:, 0], "b": numbers[:, 1]} for numbers in (rates, momenta)]
    updates = DynamicUpdate(plan, model, rate_tables=tables[0], momentum_tables=tables[1])
else:
    updates = DynamicUpdate(plan, model, varying_momentum=["a", "b"])
graph = UnitGraph(model, updates)
losses = []
for step in range(steps):
    if kind == "set":
        updates.set(rates[step], momenta[step])
    losses.append(graph())
    if "sync" in sys.argv[3:]:
        losses[-1].numpy()
got = np.stack([p.numpy()[0] for p in model.parameters()])
weight, total = np.zeros((2, 2), "float32")
for rate, momentum in zip(rates.astype("float32"), momenta.astype("float32")):
    total = total * momentum + np.float32(1)
    weight = weight - rate * total
slot = [s["momentum_buffer"][0] for s in updates.slots().values()]
answer(weights=apart([got], [weight]), slots=apart([np.array(slot)], [total]), step=updates.step(),
       rates=apart([updates.rates()], [rates[-1]]), momenta=apart([updates.momenta()], [momenta[-1]]))
"""


@pytest.mark.parametrize("steps", keep_some([300, 1000], lambda steps: steps == 300))
@pytest.mark.parametrize("kind", keep_some(["set", "table"], lambda kind: kind == "set"))
def test_new_rate_and_momentum_each_step_are_exact_without_syncs(kind: str, steps: int, in_process: InProcess) -> None:
    """Hundreds of calls in flight, and a process that keeps another core busy.

    The first update that took a number of another step would show, and so would each after it: their sum is compared.
    """
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            got = in_process(CHANGES, str(steps), kind)
        finally:
            busy.kill()
    assert (got["weights"], got["slots"], got["step"]) == (0, 0, steps)
    assert max(got["rates"], got["momenta"]) < 1e-7  # float32 of float64


def test_tables_hold_their_last_number_and_seek(in_process: InProcess) -> None:
    got = in_process(
        """
        model = Unit()
        plan = resolve(Spec(SGD(0.1), [Group("a"), Group("b")]), model)
        updates = DynamicUpdate(plan, model, rate_tables={"a": [1.0, 2.0, 4.0]})
        graph = UnitGraph(model, updates)
        rates, weights = [], []
        for step in range(7):
            if step == 5:
                updates.seek(1)
            updates.set([None, step])
            rates.append(updates.rates().tolist())
            before = np.stack(arrays(model))[:, 0]
            graph()
            weights.append((before - np.stack(arrays(model))[:, 0]).tolist())
        answer(rates=rates, weights=weights, step=updates.step())
        """
    )
    assert got["weights"] == [[1, 0], [2, 1], [4, 2], [4, 3], [4, 4], [2, 5], [4, 6]]
    assert got["rates"] == got["weights"]
    assert got["step"] == 3


@pytest.mark.slow
@pytest.mark.exhaustive
def test_mobilenet_equals_native_training_bitwise(in_process: InProcess) -> None:
    got = in_process(
        """
        from layered_lr_oneflow import models
        spec = Spec(SGD(1e-2, momentum=0.9, weight_decay=1e-4), [Group("features", lr_scale=0.125)], StepLR(2, 0.5))
        images = rng.normal(size=(4, 8, 3, 32, 32)).astype("float32")
        class Net(nn.Graph):
            def __init__(self, model, bind):
                super().__init__()
                self.model = model
                bind(self)
            def build(self, x, y):
                loss = flow.nn.functional.cross_entropy(self.model(x), y)
                loss.backward()
                return loss
        states = {}
        for kind in ("native", "compiled", "varying"):
            model = models.build_model("mobilenet_v2", 10, 0.0, seed=0).train()
            plan = resolve(spec, model)
            varying = [g.name for g in plan.groups] if kind == "varying" else []
            updates = DynamicUpdate(plan, model, varying_momentum=varying)
            graph = Net(model, (lambda g: attach(plan, g, model)) if kind == "native" else updates.bind)
            for step in range(4):
                updates.set(plan.rates(step))
                graph(flow.tensor(images[step]), flow.tensor(np.arange(8) % 10))
            states[kind] = models.copy_state(model)
        # attach counts a BatchNorm's batches inside the graph; a session, which binds updates itself, adds them up
        names = [n for n in states["native"] if not n.endswith("num_batches_tracked")]
        answer(**{kind: max(float(np.abs(states["native"][n] - states[kind][n]).max()) for n in names)
                  for kind in ("compiled", "varying")}, arrays=len(states["native"]))
        """
    )
    assert got == {"compiled": 0, "varying": 0, "arrays": 314}
