"""Phases in eager loops of one's own, on OneFlow as on torch: the same weights, held still and saved anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from tests.support.models import ones, taken, unit_gradients
from tests.support.timelines import batch, net, start

GROUPS = [ll.Group("head", lr_scale=2.0), ll.Group("norm", schedule=ll.StepLR(2))]
HEAD_LATE = [ll.Phase(3, frozen="head"), ll.Phase(6, trained="head"), ll.Phase()]
TOTAL = 9
PLATEAU = ll.ReduceLROnPlateau(patience=0, factor=0.5, threshold=0.5, unit="step")
SPECS = {
    "SGD": ll.Spec(ll.SGD(0.1, momentum=0.9), GROUPS, phases=HEAD_LATE, clip_grad_norm=0.5),
    "NAdam": ll.Spec(ll.NAdam(0.01), GROUPS, phases=HEAD_LATE),
    "Adagrad": ll.Spec(ll.Adagrad(0.1, lr_decay=0.1, initial_accumulator_value=0.1), GROUPS, phases=HEAD_LATE),
    "options": ll.Spec(
        ll.SGD(0.05, momentum=0.8), GROUPS, no_weight_decay="1d",
        phases=[
            ll.Phase(2),
            ll.Phase(4, optimizer=ll.SGD(0.05), weight_decay=0.1, frozen="norm", batch_norm="moving"),
            ll.Phase(7, optimizer=ll.SGD(0.05, momentum=0.5, dampening=0.2), frozen="body.bias"),
            ll.Phase(clip_grad_value=0.01),
        ],
    ),
    "slots": ll.Spec(
        ll.Adam(0.01), GROUPS,
        phases=[
            ll.Phase(3, frozen="head"),
            ll.Phase(5, optimizer=ll.Adam(0.01, betas=(0.8, 0.99), amsgrad=True)),
            ll.Phase(weight_decay=0.1),
        ],
    ),
    "reactive": ll.Spec(
        ll.SGD(0.1, momentum=0.9), GROUPS, PLATEAU,
        phases=[ll.Phase(3, frozen="body"), ll.Phase(5, schedule=ll.Constant()), ll.Phase(counts_from="run")],
    ),
}  # fmt: skip
NEAR = 1e-6  # float64; OneFlow's normalisation has its momentum in float32


class Loop:
    """A loop as the README shows it, in float64; reactive schedules see the loss."""

    def __init__(self, framework: Any, spec: ll.Spec, seed: int = 0) -> None:
        self.framework = framework
        self.model = net(framework).to(framework.float64)
        named = dict(self.model.named_parameters())
        with framework.no_grad():
            for name, array in start(self.model, seed).items():
                named[name].copy_(framework.tensor(array, dtype=framework.float64))
        self.optimizer, self.scheduler = ll.compile(spec, self.model, TOTAL, 4)

    @property
    def parts(self) -> tuple[Any, Any, Any]:
        """What ``save_state`` and ``load_state`` take."""
        return self.model, self.optimizer, self.scheduler

    def train(self, steps: range) -> list[float]:
        """The losses of these updates."""
        losses = []
        for step in steps:
            self.model.train()  # as many loops do: what a phase holds still stays so
            images, labels = map(self.framework.tensor, batch(step))
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.framework.nn.functional.cross_entropy(self.model(images.to(self.framework.float64)), labels)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses.append(float(loss.detach().numpy()))
            if self.scheduler.plan.reacting_units:
                self.scheduler.step(metrics=losses[-1])
        return losses

    def weights(self) -> dict[str, Any]:
        return {name: tensor.detach().numpy().copy() for name, tensor in self.model.state_dict().items()}


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
