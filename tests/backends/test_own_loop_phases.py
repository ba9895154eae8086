"""Phases in eager loops of one's own, on OneFlow as on torch: the same weights, held still and saved anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from tests.support.models import ones, taken, unit_gradients
from tests.support.phase_loops import GROUPS, NEAR, SPECS, TOTAL, Loop
from tests.support.timelines import net, opened, train


@pytest.mark.parametrize("name", SPECS)
def test_both_frameworks_train_alike_and_take_each_others_states(
    torch: Any, oneflow: Any, tmp_path: Path, name: str
) -> None:
    there, here = Loop(torch, SPECS[name]), Loop(oneflow, SPECS[name])
    losses: dict[str, list[float]] = {"torch": [], "oneflow": []}
    for step in range(TOTAL):
        for loop in (there, here):
            kind = loop.framework.__name__
            ll.save_state(tmp_path / f"{kind}{step}", *loop.parts)
            losses[kind] += loop.train(range(step, step + 1))
        for key, array in there.weights().items():
            np.testing.assert_allclose(here.weights()[key], array, rtol=0, atol=NEAR, err_msg=f"{key} at {step}")
    for framework in (torch, oneflow):  # new loops, and loops that were elsewhere; at boundaries and between them
        own, other = ("torch", "oneflow") if framework is torch else ("oneflow", "torch")
        for step, used in ((1, 7), (3, 0), (4, 0), (5, 1), (7, 0), (7, 4)):
            loop = Loop(framework, SPECS[name], seed=5)
            loop.train(range(used))
            ll.load_state(tmp_path / f"{own}{step}", *loop.parts)
            assert loop.train(range(step, TOTAL)) == losses[own][step:], (own, step, used)
            ll.load_state(tmp_path / f"{other}{step}", *loop.parts)
            np.testing.assert_allclose(loop.train(range(step, TOTAL)), losses[own][step:], rtol=1e-5)


@pytest.mark.parametrize("name", ["reactive", "reactive anew"])
def test_a_metric_after_the_last_update_of_a_phase_is_that_phases_as_in_a_run(framework: Any, name: str) -> None:
    backend = load_backend(f"{framework.__name__}-eager", "cpu")
    session = opened(backend, framework, SPECS[name], TOTAL)
    loop = Loop(framework, SPECS[name])
    rates = []
    for step in range(TOTAL):
        rates.append(loop.scheduler.get_last_lr())
        assert loop.train(range(step, step + 1)) == pytest.approx(train(session, 1), rel=1e-12)
    np.testing.assert_allclose(rates, session.rates(0, TOTAL), rtol=1e-6)


def test_a_frozen_norm_is_held_also_after_train(framework: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1), GROUPS, phases=[ll.Phase(2, frozen="norm"), ll.Phase()])
    loop = Loop(framework, spec)
    first = loop.weights()["norm.running_mean"]
    assert all(parameter.requires_grad for parameter in loop.model.parameters())  # until the first forward pass
    loop.train(range(1))
    assert [name for name, p in loop.model.named_parameters() if not p.requires_grad] == ["norm.weight", "norm.bias"]
    loop.train(range(1, 2))
    np.testing.assert_array_equal(loop.weights()["norm.running_mean"], first)
    loop.train(range(2, 3))
    assert (loop.weights()["norm.running_mean"] != first).any()


def test_the_schedulers_own_state_goes_on_in_its_phase(framework: Any) -> None:
    loop = Loop(framework, SPECS["reactive"])
    loop.train(range(4))
    saved = loop.scheduler.state_dict()
    loop.train(range(4, 7))
    loop.scheduler.load_state_dict(saved)
    assert loop.scheduler.state_dict() == saved
    assert loop.scheduler.live.plan.frozen == frozenset()


def test_a_switch_of_the_optimizer_is_refused(framework: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1), phases=[ll.Phase(2), ll.Phase(optimizer=ll.AdamW(0.1))])
    with pytest.raises(ll.Unsupported, match="phase 2 switches from SGD to AdamW"):
        ll.compile(spec, net(framework), TOTAL)


def test_what_is_frozen_by_hand_stays_frozen(framework: Any) -> None:
    model = unit_gradients(framework, ["p0", "p1", "p2"])
    model.p2.requires_grad_(False)
    spec = ll.Spec(ll.SGD(0.5), [ll.Group("p0")], phases=[ll.Phase(1, frozen="p0"), ll.Phase()])
    optimizer, scheduler = ll.compile(spec, model, total_steps=3)
    for expected in ([0.0, 0.5, 0.0], [0.5, 0.5, 0.0]):
        optimizer.zero_grad(set_to_none=True)
        model(ones(framework)).backward()
        optimizer.step()
        scheduler.step()
        assert list(taken(model, framework)) == expected


def graph_phases(folder: str, name: str) -> list[str]:
    """What is wrong where graphs of one's own, one for each phase, train as an eager loop does."""
    import numpy as np
    import oneflow as flow

    import layered_lr as ll
    from tests.support.phase_loops import NEAR, SPECS, TOTAL, Loop
    from tests.support.timelines import batch

    spec, wrong = SPECS[name], []

    class Train(flow.nn.Graph):  # type: ignore[misc]
        def __init__(self, model: object, step: int) -> None:
            super().__init__()
            self.net = model
            self.scheduler = ll.attach(spec, self, model, TOTAL, 4, step=step)

        def build(self, images: object, labels: object) -> object:
            loss = flow.nn.functional.cross_entropy(self.net(images), labels)
            loss.backward()
            return loss

    def made(seed: int, step: int) -> tuple[object, object]:
        model = Loop(flow, ll.Spec(ll.SGD(0.1)), seed).model
        return model, Train(model, step)

    def train(model: object, graph: object, steps: range) -> list[float]:
        losses = []
        for step in steps:
            try:
                images, labels = map(flow.tensor, batch(step))
                losses.append(float(graph(images.to(flow.float64), labels).numpy()))
            except ll.SpecError as error:
                if f"phase {graph.scheduler.plan.phase_index(step)} has ended before update {step}. A graph" not in str(
                    error
                ):
                    raise
                ll.save_state(f"{folder}/hand", model, graph, graph.scheduler)
                graph = Train(model, step)
                ll.load_state(f"{folder}/hand", model, graph, graph.scheduler)
                losses.append(float(graph(images.to(flow.float64), labels).numpy()))
            graph.scheduler.step()
            if graph.scheduler.plan.reacting_units:
                graph.scheduler.step(metrics=losses[-1])
            ll.save_state(f"{folder}/graph{step + 1}", model, graph, graph.scheduler)
        return losses

    eager = Loop(flow, spec)
    expected = eager.train(range(TOTAL))
    model, graph = made(0, 0)
    losses = train(model, graph, range(TOTAL))
    if not np.allclose(losses, expected, rtol=0, atol=NEAR):
        wrong.append(f"losses {losses} {expected}")
    wrong += [
        f"{key}" for key, array in eager.weights().items()
        if not np.allclose(model.state_dict()[key].numpy(), array, rtol=0, atol=NEAR)
    ]  # fmt: skip
    if not all(parameter.requires_grad for parameter in model.parameters()):
        wrong.append("frozen between calls")
    model, graph = made(5, 4)  # where a phase begins, or in the middle of one
    ll.load_state(f"{folder}/graph4", model, graph, graph.scheduler)
    if train(model, graph, range(4, TOTAL)) != losses[4:]:
        wrong.append("resumed at 4")
    loop = Loop(flow, spec, 5)
    ll.load_state(f"{folder}/graph4", *loop.parts)
    again = loop.train(range(4, TOTAL))
    if not np.allclose(again, losses[4:], rtol=0, atol=NEAR):
        wrong.append(f"eager from the graph's state: {again} {losses[4:]}")
    model, graph = made(5, 0)
    try:
        ll.load_state(f"{folder}/graph4", model, graph, graph.scheduler)
        wrong.append("a state of another phase is taken")
    except ll.CheckpointError as error:
        wrong += [] if "Make one with ll.attach(..., step=4)" in str(error) else [str(error)]
    return wrong


@pytest.mark.slow
def test_a_graph_for_each_phase_trains_as_an_eager_loop(oneflow: Any, tmp_path: Path) -> None:
    from tests.support.isolation import values_of

    names = ["options", "reactive", "reactive anew"]
    for name in names:
        (tmp_path / name).mkdir()
    assert values_of(graph_phases, [(str(tmp_path / name), name) for name in names]) == [[] for _ in names]


@pytest.mark.parametrize("clip", [{"clip_grad_value": 0.1}, {"clip_grad_norm": 0.1}])
def test_a_phase_in_which_nothing_trains_has_nothing_to_clip(framework: Any, clip: dict[str, float]) -> None:
    spec = ll.Spec(ll.SGD(0.1), GROUPS, phases=[ll.Phase(2, trained=()), ll.Phase()], **clip)
    model = net(framework)
    optimizer, scheduler = ll.compile(spec, model, TOTAL, 4)
    before = model.state_dict()["body.weight"].numpy().copy()
    optimizer.step()
    scheduler.step()
    np.testing.assert_array_equal(model.state_dict()["body.weight"].numpy(), before)


def test_a_momentum_of_zeros_is_told_from_none(torch: Any) -> None:
    """With dampening they give another first update: (1 - dampening) g, or g."""

    def make(gradients: list[float]) -> Any:
        model = torch.nn.Linear(1, 1, dtype=torch.float64)
        with torch.no_grad():
            model.weight.fill_(1.0), model.bias.fill_(1.0)
        spec = ll.Spec(
            ll.SGD(0.1, momentum=0.9, dampening=0.5), phases=[ll.Phase(until=1, frozen=["bias"]), ll.Phase()]
        )
        optimizer, scheduler = ll.compile(spec, model, total_steps=3)
        for gradient in gradients:
            step(model, optimizer, scheduler, gradient)
        return model, optimizer, scheduler

    def step(model: Any, optimizer: Any, scheduler: Any, gradient: float) -> None:
        for tensor in model.parameters():
            tensor.grad = torch.full_like(tensor, gradient)
        optimizer.step()
        scheduler.step()

    _, optimizer, scheduler = make([0.0])
    model, new_optimizer, new_scheduler = make([])
    new_scheduler.load_state_dict(scheduler.state_dict())
    new_optimizer.load_state_dict(optimizer.state_dict())
    step(model, new_optimizer, new_scheduler, 1.0)
    assert model.weight.item() == pytest.approx(1 - 0.1 * 0.5)  # its momentum is there, and zero
    assert model.bias.item() == pytest.approx(1 - 0.1)  # its first update
