"""Loops of one's own on torch: phases in them, and their state saved and loaded by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from tests.support.optimizer_cases import CASES
from tests.support.timelines import HEAD, batch, net, opened, same_arrays, start, train

GROUPS = [ll.Group("head", lr_scale=2.0), ll.Group("norm", schedule=ll.StepLR(2))]
TOTAL = 9
COSINE = ll.CosineAnnealingLR(T_max=3)


def spec_of(optimizer: ll.Optimizer) -> ll.Spec:
    return ll.Spec(
        optimizer, GROUPS, no_weight_decay="1d",
        phases=[
            ll.Phase(3, frozen="head", clip_grad_norm=0.4),
            ll.Phase(6, trained="head", weight_decay=0.2),
            ll.Phase(weight_decay=0.0, schedule=COSINE, counts_from="phase", clip_grad_value=0.05),
        ],
    )  # fmt: skip


class Loop:
    """A loop such as the README shows; it calls ``model.train()`` before every update."""

    def __init__(self, torch: Any, spec: ll.Spec, seed: int = 0) -> None:
        self.torch, self.model = torch, net(torch).double()
        with torch.no_grad():
            for name, array in start(self.model, seed).items():
                self.model.get_parameter(name).copy_(torch.from_numpy(array))
        self.parts = self.optimizer, self.scheduler = ll.compile(spec, self.model, TOTAL, 4)

    def train(self, steps: range) -> list[float]:
        losses = []
        for step in steps:
            images, labels = (self.torch.from_numpy(array) for array in batch(step))
            self.model.train()
            self.optimizer.zero_grad(set_to_none=step % 2 == 0)
            loss = self.torch.nn.functional.cross_entropy(self.model(images.double()), labels)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.item())
        return losses

    def weights(self) -> dict[str, Any]:
        return {name: tensor.detach().clone().numpy() for name, tensor in self.model.state_dict().items()}


# Muon takes no biases, and Rprop has no weight decay for a phase to change: see test_mixed_optimizer.py for Muon.
GENERAL = [name for name, case in CASES.items() if not isinstance(case, ll.Muon | ll.Rprop)]


@pytest.mark.parametrize("case", GENERAL)
def test_phases_in_a_loop_are_those_of_run(torch: Any, case: str) -> None:
    spec = spec_of(CASES[case])
    session = opened(load_backend("torch-eager", "cpu"), torch, spec, TOTAL)
    loop = Loop(torch, spec)
    assert loop.train(range(TOTAL)) == train(session, TOTAL)
    same_arrays(loop.weights(), session.weights())


def test_options_change_in_a_loop_as_in_run(torch: Any) -> None:
    spec = ll.Spec(
        ll.Adam(0.01), GROUPS,
        phases=[
            ll.Phase(3, frozen="norm"),
            ll.Phase(6, optimizer=ll.Adam(0.02, betas=(0.7, 0.9), amsgrad=True), frozen="head"),
            ll.Phase(),
        ],
    )  # fmt: skip
    session = opened(load_backend("torch-eager", "cpu"), torch, spec, TOTAL)
    loop = Loop(torch, spec)
    assert loop.train(range(TOTAL)) == train(session, TOTAL)
    same_arrays(loop.weights(), session.weights())


def test_reactions_in_a_loop_go_on_as_in_run(torch: Any) -> None:
    plateau = ll.ReduceLROnPlateau(patience=0, factor=0.5, threshold=0.5, unit="step")
    spec = ll.Spec(
        ll.SGD(0.1),
        GROUPS,
        plateau,
        phases=[ll.Phase(3, frozen="head"), ll.Phase(6, schedule=ll.Constant()), ll.Phase()],
    )
    session = opened(load_backend("torch-eager", "cpu"), torch, spec, TOTAL)
    loop, rates = Loop(torch, spec), []
    for step in range(TOTAL):
        rates.append(loop.scheduler.get_last_lr())
        loop.train(range(step, step + 1))
        loop.scheduler.step(metrics=1.0)
        session.train_step(*batch(step), 1)
        session.observe({"loss": 1.0}, "step")
    np.testing.assert_array_equal(rates, session.rates(0, TOTAL))
    assert rates[6][0] == 0.05  # the plateau's third metric came after the last update of its phase


def test_a_switch_of_the_optimizer_is_refused(torch: Any) -> None:
    spec = ll.Spec(ll.AdamW(), GROUPS, phases=[ll.Phase(3), ll.Phase(optimizer=ll.SGD())])
    with pytest.raises(ll.Unsupported, match=r"phase 2 switches from AdamW to SGD.*Compile the phases"):
        Loop(torch, spec)


@pytest.mark.parametrize("case", ["SGD momentum", "AdamW amsgrad", "NAdam", "Adagrad odd", "LAMB", "RMSprop odd"])
def test_a_saved_loop_goes_on_bitwise(torch: Any, case: str, tmp_path: Path) -> None:
    spec = spec_of(CASES[case])
    whole = Loop(torch, spec)
    losses = []
    for step in range(TOTAL):
        ll.save_state(tmp_path / str(step), whole.model, *whole.parts)
        losses += whole.train(range(step, step + 1))
    other = Loop(torch, spec, seed=8)
    for step in (*range(TOTAL), 2, 7, 1):
        ll.load_state(tmp_path / str(step), other.model, *other.parts)
        assert other.train(range(step, TOTAL)) == losses[step:]
        same_arrays(other.weights(), whole.weights())


def test_a_state_loads_into_other_groups(torch: Any, tmp_path: Path) -> None:
    one = Loop(torch, ll.Spec(ll.AdamW(0.01)))
    one.train(range(4))
    ll.save_state(tmp_path / "state", one.model, *one.parts)
    losses = one.train(range(4, TOTAL))
    groups = [ll.Group("*.bias"), ll.Group("head"), ll.Group("body")]
    other = Loop(torch, ll.Spec(ll.AdamW(0.01), groups), seed=3)
    ll.load_state(tmp_path / "state", other.model, *other.parts)
    assert other.train(range(4, TOTAL)) == losses
    same_arrays(other.weights(), one.weights())


def by_hand(torch: Any, steps: int, named: bool = False) -> tuple[Any, Any, list[float]]:
    """A loop without this library, the head's group first; the losses are those after ``steps`` updates."""
    loop = Loop(torch, ll.Spec(ll.AdamW(0.01)))
    body = [parameter for name, parameter in loop.model.named_parameters() if name not in HEAD]
    optimizer = torch.optim.AdamW([{"params": loop.model.head.parameters()}, {"params": body}], lr=0.01, fused=True)
    if named:
        optimizer = torch.optim.AdamW(loop.model.named_parameters(), lr=0.01, fused=True)

    loop.optimizer, loop.scheduler = optimizer, SimpleNamespace(step=lambda: None)
    loop.train(range(steps))
    kept = ({name: t.clone() for name, t in loop.model.state_dict().items()}, optimizer.state_dict())
    kept = torch.utils._pytree.tree_map(lambda t: t.clone() if hasattr(t, "clone") else t, kept)
    return *kept, loop.train(range(steps, TOTAL))


NAMES = [*HEAD, "body.weight", "body.bias", "norm.weight", "norm.bias"]


@pytest.mark.parametrize("how", ["dict", "pth", "pth under optimizer", "named"])
def test_a_loop_without_this_library_goes_on_in_one_with_it(torch: Any, how: str, tmp_path: Path) -> None:
    weights, optimizer, losses = by_hand(torch, 4, how == "named")
    source: Any = optimizer
    if how.startswith("pth"):
        source = tmp_path / "old.pth"
        torch.save({"model": weights, "optimizer": optimizer} if how.endswith("optimizer") else optimizer, source)
    loop = Loop(torch, ll.Spec(ll.AdamW(0.01), [ll.Group("*.bias"), ll.Group("head")]), seed=3)
    loop.model.load_state_dict(weights)
    ll.load_state(source, loop.model, *loop.parts, names=None if how == "named" else NAMES)
    assert loop.scheduler.last_epoch == 4
    assert loop.train(range(4, TOTAL)) == losses


def test_wrong_sources_change_nothing(torch: Any, tmp_path: Path) -> None:
    _, table, _ = by_hand(torch, 4)
    loop = Loop(torch, ll.Spec(ll.AdamW(0.01), GROUPS), seed=3)
    loop.train(range(2))
    ll.save_state(tmp_path / "own", loop.model, *loop.parts)
    sgd = Loop(torch, ll.Spec(ll.SGD(0.1, momentum=0.9)))
    sgd.train(range(2))
    ll.save_state(tmp_path / "sgd", sgd.model, *sgd.parts)
    (tmp_path / "no.pth").write_bytes(b"no")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "weights.pth")
    plain_sgd = sgd.optimizer.state_dict()
    mixed = [*HEAD, "body.bias", "body.weight", "norm.weight", "norm.bias"]
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (table, {}, ll.SpecError, "2 groups, but not the names"),
        (table, {"names": NAMES[:-1]}, ll.CheckpointError, "6 parameters, but there are 5 names"),
        (table, {"names": [*NAMES[:-1], "nose"]}, ll.CheckpointError, "no parameter 'nose'"),
        (table, {"names": mixed}, ll.CheckpointError, "exp_avg of 'body.bias' has shape"),
        (table, {"names": NAMES, "step": -1}, ll.SpecError, "step"),
        (plain_sgd, {}, ll.SpecError, "give step="),
        (plain_sgd, {"step": 2}, ll.CheckpointError, "'exp_avg' is not in it (slots of"),
        ({"state": 3, "param_groups": 4}, {}, ll.CheckpointError, "not an optimizer.state_dict()"),
        ({}, {}, ll.CheckpointError, "this is not an optimizer.state_dict()"),
        (7, {}, ll.SpecError, "must be a path or a state_dict"),
        (tmp_path / "sgd", {}, ll.CheckpointError, "the state is of SGD, the optimizer is AdamW"),
        (tmp_path / "own", {"step": 3}, ll.SpecError, "are for a plain state_dict"),
        (tmp_path / "none", {}, ll.CheckpointError, "there is no saved state in it"),
        (tmp_path / "none.pth", {}, ll.CheckpointError, "no such file"),
        (tmp_path / "no.pth", {}, ll.CheckpointError, "not a readable file of tensors"),
        (tmp_path / "weights.pth", {}, ll.CheckpointError, "this is not an optimizer.state_dict()"),
    ]
    before = loop.weights()
    for source, options, error, message in cases:
        with pytest.raises(error) as caught:
            ll.load_state(source, loop.model, *loop.parts, **options)
        assert message in str(caught.value), source
    same_arrays(loop.weights(), before)
    other = Loop(torch, ll.Spec(ll.AdamW(0.01), GROUPS), seed=9)
    ll.load_state(tmp_path / "own", other.model, *other.parts)
    assert loop.train(range(2, 5)) == other.train(range(2, 5))


def test_objects_that_do_not_belong_together_are_refused(torch: Any, tmp_path: Path) -> None:
    one, other = (Loop(torch, ll.Spec(ll.AdamW(0.01), GROUPS)) for _ in range(2))
    with pytest.raises(ll.SpecError, match="6 of its 6 parameters are not the model's"):
        ll.save_state(tmp_path / "state", one.model, *other.parts)
    with pytest.raises(ll.SpecError, match=r"must be a torch\.optim\.Optimizer"):
        ll.save_state(tmp_path / "state", one.model, one.scheduler, one.scheduler)
    own = torch.optim.lr_scheduler.StepLR(one.optimizer, 3)
    with pytest.raises(ll.SpecError, match=r"scheduler is a StepLR; must be the one that ll\.compile gave"):
        ll.save_state(tmp_path / "state", one.model, one.optimizer, own)
    ll.save_state(tmp_path / "state", one.model, one.optimizer)


def test_saving_removes_nothing_but_a_state(torch: Any, tmp_path: Path) -> None:
    one = Loop(torch, ll.Spec(ll.AdamW(0.01)))
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "folder", tmp_path / "new", tmp_path / "new"):  # an empty one, none, a state
        ll.save_state(place, one.model, *one.parts)
    (tmp_path / "new" / "notes").write_text("x")
    folder = "a folder with something other than a state"
    for place, what in ((tmp_path / "file", "a file"), (tmp_path / "new", folder), (tmp_path, folder)):
        with pytest.raises(ll.CheckpointError, match=f"there is {what}, which is never written over"):
            ll.save_state(place, one.model, *one.parts)
    assert (tmp_path / "file").is_file() and (tmp_path / "new" / "notes").is_file()


def test_a_parameter_named_twice_is_an_error(torch: Any) -> None:
    one, other = (Loop(torch, ll.Spec(ll.AdamW(0.01))) for _ in range(2))
    one.train(range(2))
    names = [name for name, _ in one.model.named_parameters()]
    twice = [names[0], *names[:-1]] if len(names) > 1 else names * 2
    with pytest.raises(ll.CheckpointError, match="has a name twice"):
        ll.load_state(one.optimizer.state_dict(), other.model, other.optimizer, other.scheduler, names=twice)
