"""The dynamic lowering of OneFlow's Graph beside what else a user does with the model."""

from collections.abc import Callable
from typing import Any

import pytest

InProcess = Callable[..., dict[str, Any]]


def test_frozen_unused_tied_and_empty(in_process: InProcess) -> None:
    """Against torch: one step moves each parameter once, and neither a frozen nor an unused one."""
    pytest.importorskip("torch")
    got = in_process(
        """
        import torch
        def made(n):
            class Net(n.Module):
                def __init__(self):
                    super().__init__()
                    self.first = n.Linear(4, 4, bias=False)
                    self.again = n.Linear(4, 4, bias=False)
                    self.again.weight = self.first.weight
                    self.frozen = n.Linear(4, 4)
                    self.unused = n.Linear(4, 4)
                    self.head = n.Linear(4, 3)
                def forward(self, x):
                    return self.head(self.frozen(self.again(self.first(self.first(x)))))
            net = Net()
            for p in net.frozen.parameters():
                p.requires_grad = False
            return net
        ours, theirs = start(made(nn)), made(torch.nn)
        with torch.no_grad():
            for p, array in zip(theirs.parameters(), arrays(ours), strict=True):
                p.copy_(torch.from_numpy(array))
        spec = Spec(SGD(0.01, momentum=0.9, weight_decay=0.1),
                    [Group("again"), Group("nothing*", optional=True), Group("frozen", lr=1.0)])
        plan = resolve(spec, ours)
        updates = DynamicUpdate(plan, ours, varying_momentum=["rest", "frozen"])
        graph = Train(ours, updates.bind)
        optimizer = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
        before = dict(zip((n for n, _ in ours.named_parameters()), arrays(ours)))
        for step in range(10):
            graph(*batch(step))
            optimizer.zero_grad()
            ((theirs(torch.from_numpy(X[step])) - torch.from_numpy(Y[step])) ** 2).mean().backward()
            optimizer.step()
        still = [n for n, p in ours.named_parameters() if np.array_equal(before[n], p.numpy())]
        answer(apart=apart(arrays(ours), arrays(theirs)), still=still, updated=updates.updated,
               slots=sorted(n for n, slots in updates.slots().items() if any(s.any() for s in slots.values())))
        """
    )
    assert got["apart"] < 1e-6  # rounding of ten steps
    assert got["still"] == ["frozen.weight", "frozen.bias", "unused.weight", "unused.bias"]
    assert got["updated"] == ["first.weight", "head.weight", "head.bias"]
    assert got["slots"] == sorted(got["updated"])


def test_no_trace_is_left_in_the_users_model(in_process: InProcess) -> None:
    """Stale eager gradients count for nothing, none are left behind; eager code and other graphs see the updates."""
    got = in_process(
        """
        class Evaluate(nn.Graph):
            def __init__(self, model):
                super().__init__()
                self.model = model
            def build(self, x, y):
                return ((self.model(x) - y) ** 2).mean()
        def trained(stale):
            model = start(mlp())
            names = list(model.state_dict())
            plan = resolve(Spec(SGD(0.1, momentum=0.9), GROUPS), model)
            updates = DynamicUpdate(plan, model)
            graph, evaluate = Train(model, updates.bind), Evaluate(model)
            seen = []
            for step in range(5):
                if stale:
                    (model(flow.tensor(X[9])) ** 2).sum().backward()
                graph(*batch(step))
                if not stale:
                    eager = float(((model(flow.tensor(X[9])) - flow.tensor(Y[9])) ** 2).mean().numpy())
                    seen.append((eager, float(evaluate(*batch(9)).numpy())))
            kept = list(model.state_dict()) == names and (stale or all(p.grad is None for p in model.parameters()))
            inside = list(graph.state_dict()["layered_lr_updates"])
            return arrays(model), seen, kept, inside
        clean, seen, kept, inside = trained(False)
        stale, _, _, _ = trained(True)
        answer(apart=apart(clean, stale), seen=seen, kept=kept, inside=inside)
        """
    )
    assert got["apart"] == 0
    assert got["kept"]
    assert len({eager for eager, _ in got["seen"]}) == 5
    for eager, graph in got["seen"]:
        assert eager == pytest.approx(graph, rel=1e-6)  # one rounding of the mean
    assert "momentum_buffer.0.weight" in got["inside"] and "numbers" in got["inside"]


def test_slots_carry_a_run_on_bitwise(in_process: InProcess) -> None:
    got = in_process(
        """
        from layered_lr.errors import CheckpointError
        plan = resolve(Spec(SGD(0.1, momentum=0.9, nesterov=True), GROUPS), mlp())
        def opened(weights=None):
            model = start(mlp())
            if weights is not None:
                put(model, weights)
            updates = DynamicUpdate(plan, model, varying_momentum=["rest"])
            return model, updates, Train(model, updates.bind)
        model, updates, graph = opened()
        for step in range(20):
            if step == 10:
                weights, slots = arrays(model), updates.slots()
            graph(*batch(step))
        again, more, other = opened(weights)
        more.load_slots(slots)
        for step in range(10, 20):
            other(*batch(step))
        done = apart(arrays(model), arrays(again))
        # And once more in the graph that has run.
        put(again, weights)
        more.load_slots(slots)
        for step in range(10, 20):
            other(*batch(step))
        messages = []
        array = slots["0.weight"]["momentum_buffer"]
        for wrong in ({}, {**slots, "0.weight": {}}, {**slots, "new": {"momentum_buffer": array}},
                      {**slots, "0.weight": {"momentum_buffer": array.T}},
                      {**slots, "0.weight": {"momentum_buffer": array.astype("float64")}}):
            held = more.slots()
            try:
                more.load_slots(wrong)
            except CheckpointError as error:
                messages.append(str(error))
            assert all(np.array_equal(held[n][s], more.slots()[n][s]) for n in held for s in held[n])
        answer(done=done, again=apart(arrays(model), arrays(again)), messages=messages)
        """
    )
    assert got["done"] == 0
    assert got["again"] == 0
    assert len(got["messages"]) == 5
    assert "lacks 'momentum_buffer' of '0.weight'" in got["messages"][1]
    assert "no place for 'momentum_buffer' of 'new'" in got["messages"][2]
    assert "shape (4, 8); must be float32 of shape (8, 4)" in got["messages"][3]
    assert "is float64" in got["messages"][4]


def test_gradients_that_build_rewrites_are_those_applied(in_process: InProcess) -> None:
    got = in_process(
        """
        class Clipped(Train):
            def build(self, x, y):
                loss = super().build(x, y)
                for p in self.plain:
                    p.grad = p.grad * 0.0
                return loss
        model = start(mlp())
        updates = DynamicUpdate(resolve(Spec(SGD(0.1)), model), model)
        graph = Clipped(model, updates.bind)
        graph.plain = list(model[0].parameters())
        before = arrays(model)
        graph(*batch(0))
        answer(still=[bool(np.array_equal(a, b)) for a, b in zip(before, arrays(model))])
        """
    )
    assert got["still"] == [True, True, False, False, False, False]


def test_a_graph_goes_when_its_user_lets_go(in_process: InProcess) -> None:
    """OneFlow syncs in the graph's ``__del__``: it must not wait for the garbage collector to run it somewhere."""
    got = in_process(
        """
        import gc, weakref
        gc.disable()
        model = start(mlp())
        updates = DynamicUpdate(resolve(Spec(SGD(0.1)), model), model)
        graph = Train(model, updates.bind)
        graph(*batch(0)).numpy()
        gone = weakref.ref(graph)
        del graph
        answer(gone=gone() is None)
        """
    )
    assert got["gone"]
