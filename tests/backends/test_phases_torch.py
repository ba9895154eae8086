"""Phases on torch, held against loops written by hand in torch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.backend.session import Extras
from tests.support.optimizer_cases import CASES
from tests.support.timelines import (
    BODY,
    CLASSES,
    HEAD,
    batch,
    by_loop,
    net,
    opened,
    same,
    same_arrays,
    start,
    train,
)  # fmt: skip

eager = pytest.mark.parametrize("backend_name", ["torch-eager"])
general = pytest.mark.parametrize("backend_name", ["torch-eager", "torch-compile"])
GROUPS = [ll.Group("head", lr_scale=2.0), ll.Group("norm", schedule=ll.StepLR(2))]
HEAD_LATE = [ll.Phase(3, frozen="head"), ll.Phase(6, trained="head"), ll.Phase()]
TOTAL = 9
EVERYTHING = Extras(accumulate_steps=2, ema_decay=0.8, grad_norms=True)


class ByHand:
    """Three parameters' groups in torch, trained by a loop such as anybody would write."""

    def __init__(self, torch: Any, optimizer: ll.Optimizer, dtype: str = "float64") -> None:
        self.torch = torch
        self.model = net(torch).to(getattr(torch, dtype))
        with torch.no_grad():
            for name, array in start(self.model).items():
                self.model.get_parameter(name).copy_(torch.from_numpy(array))
        self.optimizer = self.made(optimizer)
        self.losses: list[float] = []

    def made(self, settings: ll.Optimizer) -> Any:
        from layered_lr_torch import paper_optimizers

        kind = type(settings).__name__
        cls = getattr(paper_optimizers, kind, None) or getattr(self.torch.optim, kind)
        known = inspect.signature(cls).parameters
        arguments = {name: value for name, value in asdict(settings).items() if name in known}
        modules = (self.model.head, self.model.norm, self.model.body)
        return cls([{"params": list(module.parameters())} for module in modules], **arguments)

    def freeze(self, *modules: str) -> None:
        self.model.train()
        for name, child in self.model.named_children():
            child.requires_grad_(name not in modules)
            if name == "norm" and name in modules:
                child.eval()

    def train(self, settings: ll.Optimizer, steps: range) -> None:
        for step in steps:
            rates = (2.0 * settings.lr, settings.lr * 0.1 ** (step // 2), settings.lr)
            for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            images, labels = (self.torch.from_numpy(array) for array in batch(step))
            self.optimizer.zero_grad()
            loss = self.torch.nn.functional.cross_entropy(self.model(images.to(self.model.head.weight.dtype)), labels)
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())

    def weights(self) -> dict[str, Any]:
        return {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}

    def slots(self) -> dict[str, Any]:
        return {
            name: {slot: value.numpy() for slot, value in self.optimizer.state[parameter].items()}
            for name, parameter in self.model.named_parameters()
        }


def is_as(session: Any, loop: ByHand, exact: bool = True) -> None:
    tolerance = {"rtol": 0, "atol": 0 if exact else 1e-12}
    for name, array in loop.weights().items():
        np.testing.assert_allclose(session.weights()[name], array, **tolerance, err_msg=name)
    slots = session.export_state().slots
    for name, wanted in loop.slots().items():
        if name not in slots and wanted.get("step", 1) == 0:
            continue  # Adagrad makes them before there is any update
        assert slots.get(name, {}).keys() == wanted.keys()
        for slot, array in wanted.items():
            np.testing.assert_allclose(slots[name][slot], array, **tolerance, err_msg=f"{slot} of {name}")


@eager
@pytest.mark.parametrize("case", [name for name, case in CASES.items() if not isinstance(case, ll.Muon)])
def test_every_optimizer_is_as_a_loop_by_hand(backend: Backend, framework_of_backend: Any, case: str) -> None:
    """Bitwise: weights, statistics, slots and each parameter's own counter, also of who trains late or waits."""
    optimizer = by_loop(CASES[case])
    loop = ByHand(framework_of_backend, optimizer)
    session = opened(backend, framework_of_backend, ll.Spec(optimizer, GROUPS, phases=HEAD_LATE), TOTAL)
    losses = []
    for stage, frozen in enumerate([("head",), ("body", "norm"), ()]):
        before = session.export_state()
        loop.freeze(*frozen)
        loop.train(optimizer, range(3 * stage, 3 * stage + 3))
        losses += train(session, 3)
        is_as(session, loop)
        held = {name for name in (*BODY, *HEAD) if name.split(".")[0] in frozen}
        for name in held:
            np.testing.assert_array_equal(session.weights()[name], before.weights[name])
            same_arrays(session.export_state().slots.get(name, {}), before.slots.get(name, {}))
        if "norm" in frozen:
            same_arrays(*({n: w[n] for n in w if "running" in n} for w in (session.weights(), before.weights)))
    assert losses == loop.losses


@general
def test_the_whole_run_is_told(backend: Backend, framework_of_backend: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9), GROUPS, phases=HEAD_LATE, clip_grad_norm=1.0)
    session = opened(backend, framework_of_backend, spec, TOTAL)
    handles = [session.train_step(*batch(step)) for step in range(TOTAL)]  # nobody waits at a boundary
    assert np.isfinite(session.losses(handles)).all() and len(session.losses(handles[2:5])) == 3
    np.testing.assert_array_equal(session.rates(0, TOTAL), session.plan.table())
    np.testing.assert_array_equal(session.rates(2, 7), session.plan.table(2, 7))
    norms = session.grad_norms(0, TOTAL)
    frozen = np.zeros((TOTAL, 3), bool)
    frozen[:3, 0] = frozen[3:6, 1:] = True
    np.testing.assert_array_equal(norms == 0, frozen)
    np.testing.assert_array_equal(session.grad_norms(4, 8), norms[4:8])


@eager
@pytest.mark.parametrize("old", [ll.Adam(0.01), ll.AdamW(0.01, amsgrad=True), ll.RAdam(0.01)], ids=repr)
def test_momentum_is_carried_over_a_switch(backend: Backend, framework_of_backend: Any, old: ll.Optimizer) -> None:
    """Also of the head, which is frozen when the optimizer is switched and trains later."""
    torch = framework_of_backend
    old, new = by_loop(old), ll.SGD(0.05, momentum=0.8, foreach=False)
    timeline = [
        ll.Phase(3, optimizer=old),
        ll.Phase(6, frozen="head", optimizer=new, carry="momentum"),
        ll.Phase(optimizer=new),
    ]
    session = opened(backend, torch, ll.Spec(ll.SGD(), GROUPS, phases=timeline), TOTAL)
    loop = ByHand(torch, old)
    loop.train(old, range(3))
    adam = loop.optimizer
    loop.optimizer = loop.made(new)
    for parameter in loop.model.parameters():
        state = adam.state[parameter]
        mean = state["exp_avg"] / (1 - 0.9 ** state["step"].item())
        loop.optimizer.state[parameter]["momentum_buffer"] = mean / (1 - 0.8)
    loop.freeze("head")
    loop.train(new, range(3, 6))
    loop.freeze()
    loop.train(new, range(6, 9))
    np.testing.assert_allclose(train(session, TOTAL), loop.losses, rtol=1e-12)
    is_as(session, loop, exact=False)


@eager
def test_nothing_is_carried_unless_asked(backend: Backend, framework_of_backend: Any) -> None:
    new = ll.SGD(0.05, momentum=0.8, foreach=False)
    old = ll.Adam(0.01, foreach=False)
    loop = ByHand(framework_of_backend, old)
    loop.train(old, range(3))
    loop.optimizer = loop.made(new)
    loop.train(new, range(3, 6))
    spec = ll.Spec(old, GROUPS, phases=[ll.Phase(3), ll.Phase(optimizer=new)])
    session = opened(backend, framework_of_backend, spec, 6)
    assert train(session, 6) == loop.losses
    is_as(session, loop)


@eager
def test_options_may_change_while_slots_stay(backend: Backend, framework_of_backend: Any) -> None:
    """Other hyperparameters and decay go on with the old slots; slots that new options need begin at 0."""
    first, second = ll.Adam(0.01, foreach=False), ll.Adam(0.01, betas=(0.8, 0.99), amsgrad=True, foreach=False)
    loop = ByHand(framework_of_backend, first)
    loop.train(first, range(3))
    adam, loop.optimizer = loop.optimizer, loop.made(second)
    for parameter in loop.model.parameters():
        state = adam.state[parameter]
        loop.optimizer.state[parameter] = state | {"max_exp_avg_sq": framework_of_backend.zeros_like(parameter)}
    loop.train(second, range(3, 6))
    adam.state = loop.optimizer.state
    loop.optimizer = adam
    for parameter in loop.model.parameters():
        del adam.state[parameter]["max_exp_avg_sq"]
    for group in adam.param_groups[1:]:
        group["weight_decay"] = 0.1
    loop.train(first, range(6, 9))
    spec = ll.Spec(
        first, GROUPS,
        phases=[ll.Phase(3), ll.Phase(6, optimizer=second), ll.Phase(weight_decay=0.1, groups=[
            ll.Group("head", lr_scale=2.0, weight_decay=0.0)])],
    )  # fmt: skip
    session = opened(backend, framework_of_backend, spec, TOTAL)
    assert train(session, TOTAL) == loop.losses
    is_as(session, loop)


@general
def test_momentum_that_goes_and_comes_back(backend: Backend, framework_of_backend: Any) -> None:
    spec = ll.Spec(
        ll.SGD(0.05, momentum=0.8), GROUPS, no_weight_decay="1d",
        phases=[ll.Phase(2), ll.Phase(4, optimizer=ll.SGD(0.05), weight_decay=0.1), ll.Phase()],
    )  # fmt: skip
    session = opened(backend, framework_of_backend, spec, 6)
    train(session, 4)
    assert not any(session.export_state().slots.values())
    train(session, 2)
    assert all("momentum_buffer" in slots for slots in session.export_state().slots.values())


TIMELINES = {
    "frozen": ll.Spec(ll.NAdam(0.01), GROUPS, phases=HEAD_LATE, clip_grad_norm=0.5),
    "switches": ll.Spec(
        ll.AdamW(0.01), GROUPS,
        phases=[
            ll.Phase(2, frozen="norm", batch_norm="moving"),
            ll.Phase(4, optimizer=ll.SGD(0.1, momentum=0.9), carry="momentum", frozen="head.weight"),
            ll.Phase(7, optimizer=ll.RMSprop(0.01, momentum=0.5), momentum_warmup=2, clip_grad_value=0.1),
            ll.Phase(trained="head", optimizer=ll.SGD(0.1, momentum=0.9), schedule=ll.OneCycleLR(0.1)),
        ],
    ),
    "reactive": ll.Spec(
        ll.SGD(0.1, momentum=0.9), GROUPS, ll.ReduceLROnPlateau(patience=0, factor=0.9, unit="step", threshold=0.2),
        phases=[
            ll.Phase(3, frozen="body"),
            ll.Phase(5, schedule=ll.Constant()),
            ll.Phase(counts_from="run", dropout="off", frozen="norm"),
        ],
    ),
}  # fmt: skip


def _timelines() -> Iterator[Any]:
    """All of them in eager mode; compiled, which takes long, the one with freezing, switches and statistics."""
    for backend_name, name in product(["torch-eager", "torch-compile"], TIMELINES):
        is_wide = backend_name == "torch-compile" and name != "switches"
        yield pytest.param(backend_name, name, marks=[pytest.mark.exhaustive] * is_wide)


@pytest.mark.parametrize(("backend_name", "name"), list(_timelines()))
def test_a_timeline_can_stop_anywhere(backend: Backend, framework_of_backend: Any, name: str) -> None:
    """Also right at a boundary, with slots and reactions that wait; also by a timeline that was elsewhere."""
    spec = TIMELINES[name]

    def new(seed: int = 0) -> Any:
        return opened(backend, framework_of_backend, spec, TOTAL, dropout=0.3, extras=EVERYTHING, seed=seed)

    stops = (2, 5) if backend.name == "torch-compile" else range(TOTAL + 1)
    whole = new()
    states, losses = [whole.export_state()], []
    for _ in range(TOTAL):
        losses += train(whole, 1, parts=2)
        states.append(whole.export_state())
    undisturbed = new()
    assert train(undisturbed, TOTAL, parts=2) == losses
    same(undisturbed.export_state(), states[-1])
    elsewhere = new(seed=4)
    for stop in stops:
        for session in (new(seed=5), elsewhere):
            session.import_state(states[stop])
            same(session.export_state(), states[stop])
            assert train(session, TOTAL - stop, parts=2) == losses[stop:]
            same(session.export_state(), states[-1])
            np.testing.assert_array_equal(session.rates(stop, TOTAL), whole.rates(stop, TOTAL))
            np.testing.assert_array_equal(session.grad_norms(stop, TOTAL), whole.grad_norms(stop, TOTAL))


@eager
def test_a_state_that_does_not_fit_leaves_the_timeline_where_it_was(
    backend: Backend, framework_of_backend: Any
) -> None:
    from dataclasses import replace

    session = opened(backend, framework_of_backend, TIMELINES["frozen"], TOTAL)
    train(session, 4)
    good = session.export_state()
    train(session, 3)
    here = session.export_state()
    bad_slots = {**good.slots, "body.bias": {"exp_avg": np.zeros(5)}}
    for wrong, message in [
        (replace(good, optimizer="SGD"), "the state is of SGD"),
        (replace(good, slots=bad_slots), r"exp_avg of 'body.bias' has shape \(5,\)"),
        (replace(good, weights={**good.weights, "head.bias": np.zeros(2)}), "'head.bias' is float64 of shape"),
        (replace(good, reactions={"head": {}}), "reactive schedules are head in the state, but none in the plan"),
    ]:
        with pytest.raises(ll.CheckpointError, match=message):
            session.import_state(wrong)
        same(session.export_state(), here)
        model = session.model
        assert model.norm.training and all(p.requires_grad for p in model.parameters())
    train(session, 2)


@general
@pytest.mark.parametrize("batch_norm", ["still", "moving"])
def test_statistics_of_a_frozen_norm(backend: Backend, framework_of_backend: Any, batch_norm: str) -> None:
    spec = ll.Spec(ll.SGD(0.1), GROUPS, phases=[ll.Phase(2, frozen="norm", batch_norm=batch_norm), ll.Phase()])
    session = opened(backend, framework_of_backend, spec, 4)
    first = session.weights()["norm.running_mean"]
    train(session, 1)
    session.logits(batch(0)[0])  # puts the model into evaluation mode and back
    train(session, 1)
    assert (session.weights()["norm.running_mean"] == first).all() == (batch_norm == "still")
    train(session, 1)
    assert (session.weights()["norm.running_mean"] != first).any()


@eager
def test_what_the_user_froze_stays_frozen(backend: Backend, framework_of_backend: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1), GROUPS, phases=HEAD_LATE)

    def made() -> Any:
        model = net(framework_of_backend)
        model.head.bias.requires_grad_(False)
        return model

    from layered_lr.backend.phased_session import open_session

    model = backend.build(made, CLASSES, 0.0, 0)
    before = backend.state(model)["head.bias"]
    session = open_session(backend, ll.resolve(spec, model, TOTAL, 4), model, CLASSES)
    train(session, TOTAL)
    np.testing.assert_array_equal(session.weights()["head.bias"], before)
    assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]


@general
def test_a_phase_in_which_nothing_trains(backend: Backend, framework_of_backend: Any) -> None:
    spec = ll.Spec(ll.AdamW(0.1), GROUPS, phases=[ll.Phase(2, frozen="*"), ll.Phase()], clip_grad_norm=0.1)
    session = opened(backend, framework_of_backend, spec, 4)
    before = session.weights()
    assert np.isfinite(train(session, 2)).all()
    same_arrays(session.weights(), before)
    train(session, 1)
    assert (session.weights()["head.bias"] != before["head.bias"]).any()


@eager
def test_no_gradient_is_computed_below_the_head(backend: Backend, framework_of_backend: Any) -> None:
    spec = ll.Spec(ll.SGD(0.1), GROUPS, phases=[ll.Phase(2, trained="head"), ll.Phase()])
    session = opened(backend, framework_of_backend, spec, 4)
    model: Any = session.model  # type: ignore[attr-defined]
    train(session, 2)
    assert model.body.weight.grad is None and model.norm.weight.grad is None and model.head.weight.grad is not None
    train(session, 1)
    assert model.body.weight.grad is not None


@general
def test_run_honours_phases(backend: Backend, framework_of_backend: Any) -> None:
    from tests.support.models import arrays

    spec = ll.Spec(
        ll.SGD(0.1, momentum=0.9), GROUPS,
        phases=[ll.Phase("1 epoch", trained="head"), ll.Phase(optimizer=ll.AdamW(0.01))],
    )  # fmt: skip
    torch = framework_of_backend
    options: dict[str, Any] = {"data": arrays(40), "batch_size": 8, "device": "cpu", "progress": False}
    result = ll.run(spec, backend.name, lambda: net(torch), epochs=3, **options)
    plan = result.plan
    assert len(plan.phases) == 2
    for column, group in enumerate(plan.groups):
        np.testing.assert_array_equal(result.rates[group.name], plan.table()[:, column])
    assert (result.rates["norm"][:5] == 0).all() and (result.rates["norm"][5:6] > 0).all()


@eager
def test_a_backend_alone_refuses_phases(backend: Backend, framework_of_backend: Any) -> None:
    model = backend.build(lambda: net(framework_of_backend), CLASSES, 0.0, 0)
    with pytest.raises(ll.SpecError, match="open_session"):
        backend.open(ll.resolve(TIMELINES["frozen"], model, TOTAL, 4), model, CLASSES)
