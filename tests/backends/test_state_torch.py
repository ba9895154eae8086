"""A training's state taken out of a session and put into another one, which then goes on bitwise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.backend.phased_session import open_session
from layered_lr.backend.session import Extras, Session
from layered_lr.state import TrainingState, read_state, write_state
from tests.support.optimizer_cases import CASES, fitting
from tests.support.timelines import CLASSES, opened, same, same_arrays, train

EXTRAS = Extras(accumulate_steps=2, ema_decay=0.9, grad_norms=True)
eager = pytest.mark.parametrize("backend_name", ["torch-eager"])
general = pytest.mark.parametrize("backend_name", ["torch-eager", "torch-compile"])


def spec_of(optimizer: ll.Optimizer) -> ll.Spec:
    groups = [ll.Group("head", schedule=ll.ReduceLROnPlateau(patience=0, unit="step")), ll.Group("norm", lr_scale=0.3)]
    return ll.Spec(
        *fitting(optimizer, groups, {"head": "head.weight"}),
        ll.CosineAnnealingLR(8),
        no_weight_decay="1d",
        clip_grad_norm=0.5,
    )


def goes_on_bitwise(backend: Backend, framework: Any, spec: ll.Spec, stop: int, total: int, folder: Path) -> None:
    """A run that is stopped, written, read and taken up by another model ends as the one that is not."""
    whole = opened(backend, framework, spec, total, dropout=0.3, extras=EXTRAS)
    losses = train(whole, total, parts=2)
    first = opened(backend, framework, spec, total, dropout=0.3, extras=EXTRAS)
    assert train(first, stop, parts=2) == losses[:stop]
    write_state(folder / "state", first.export_state())
    train(first, total - stop, parts=2)  # what was exported is a copy
    second = opened(backend, framework, spec, total, dropout=0.3, extras=EXTRAS, seed=5)
    second.import_state(read_state(folder / "state"))
    assert second.step == stop
    assert train(second, total - stop, parts=2) == losses[stop:]
    same(second.export_state(), whole.export_state())
    for read in ("rates", "grad_norms"):
        np.testing.assert_array_equal(getattr(second, read)(stop, total), getattr(whole, read)(stop, total))


@eager
@pytest.mark.parametrize("case", list(CASES))
@pytest.mark.parametrize("stop", [0, 3])
def test_every_optimizer_goes_on_bitwise(
    backend: Backend, framework_of_backend: Any, case: str, stop: int, tmp_path: Path
) -> None:
    goes_on_bitwise(backend, framework_of_backend, spec_of(CASES[case]), stop, 7, tmp_path)


@general
def test_any_step_is_good_to_stop_at(backend: Backend, framework_of_backend: Any, tmp_path: Path) -> None:
    for stop in (1, 5) if backend.name == "torch-compile" else range(1, 6):
        (tmp_path / str(stop)).mkdir()
        goes_on_bitwise(backend, framework_of_backend, spec_of(ll.AdamW(0.01)), stop, 6, tmp_path / str(stop))


@general
def test_a_session_also_goes_back(backend: Backend, framework_of_backend: Any) -> None:
    session = opened(backend, framework_of_backend, spec_of(ll.NAdam(0.01)), 6, dropout=0.3, extras=EXTRAS)
    train(session, 2)
    state = session.export_state()
    losses = train(session, 3)
    session.import_state(state)
    assert train(session, 3) == losses


@eager
def test_slots_have_torchs_names_and_counts_of_their_own(backend: Backend, framework_of_backend: Any) -> None:
    session = opened(backend, framework_of_backend, ll.Spec(ll.NAdam(0.01)), 6, dtype="float32")
    train(session, 3)
    slots = session.export_state().slots["head.weight"]
    assert {name: (array.dtype.name, array.shape) for name, array in slots.items()} == {
        "step": ("float64", ()),
        "mu_product": ("float64", ()),
        "exp_avg": ("float32", (CLASSES, 8)),
        "exp_avg_sq": ("float32", (CLASSES, 8)),
    }
    assert slots["step"] == 3


def put(key: str, name: str, value: Any) -> Any:
    """What changes one array of a state, or takes it away."""

    def changed(state: TrainingState) -> TrainingState:
        arrays = dict(getattr(state, key))
        arrays.pop(name, None)
        return replace(state, **{key: arrays if value is None else arrays | {name: value}})

    return changed


def slot(name: str, key: str, value: Any) -> Any:
    def changed(state: TrainingState) -> TrainingState:
        slots = dict(state.slots[name])
        slots.pop(key, None)
        return put("slots", name, slots if value is None else slots | {key: value})(state)

    return changed


@general
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: replace(state, optimizer="SGD"), "the state is of SGD, but the plan trains with AdamW"),
        (put("weights", "head.bias", None), "'head.bias' is not in it"),
        (put("weights", "neck", np.zeros(3)), "'neck' is not in the model"),
        (put("weights", "head.bias", np.zeros(4)), "'head.bias' is float64 of shape (4,), but the model's is"),
        (put("weights", "body.bias", np.full(8, np.nan)), "weight 'body.bias' holds NaN"),
        (put("ema", "head.bias", np.zeros(CLASSES, np.float32)), "float32 of shape (3,), but the model's is float64"),
        (slot("head.bias", "exp_avg", None), "'exp_avg' is not in it (slots of 'head.bias')"),
        (slot("head.bias", "momentum_buffer", np.zeros(3)), "'momentum_buffer' is not in the optimizer"),
        (slot("head.bias", "exp_avg", np.zeros(2)), "'exp_avg' is float64 of shape (2,), but the optimizer's is"),
        (slot("head.bias", "exp_avg", np.full(3, np.inf)), "exp_avg of 'head.bias' holds NaN or infinity"),
        (put("slots", "neck", {"step": np.zeros(())}), "'neck' is not a parameter"),
        (lambda state: replace(state, reactions={}), "reactive schedules are none in the state, but head in the plan"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(
    backend: Backend, framework_of_backend: Any, change: Any, message: str
) -> None:
    session = opened(backend, framework_of_backend, spec_of(ll.AdamW(0.01)), 6, extras=EXTRAS)
    if backend.name == "torch-eager":
        train(session, 1)
    good = trained_elsewhere()
    before = session.export_state()
    with pytest.raises(ll.CheckpointError) as caught:
        session.import_state(change(good))
    assert message in str(caught.value)
    same(session.export_state(), before)
    session.import_state(good)
    same_arrays(session.weights(), good.weights)


def trained_elsewhere() -> TrainingState:
    torch = pytest.importorskip("torch")
    from layered_lr.backend.loading import load_backend

    session = opened(load_backend("torch-eager", "cpu"), torch, spec_of(ll.AdamW(0.01)), 6, seed=3, extras=EXTRAS)
    train(session, 2)
    return session.export_state()


def mobilenet(backend: Backend, seed: int = 0) -> Session:
    model = backend.build("mobilenet_v2", CLASSES, 0.5, seed)
    plan = ll.resolve(ll.Spec(ll.SGD(0.05, momentum=0.9)), model, 3)
    return open_session(backend, plan, model, CLASSES, Extras(accumulate_steps=2, seed=11))


def images(step: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(step)
    return rng.standard_normal((4, 3, 32, 32)).astype(np.float32), rng.integers(0, CLASSES, 4)


@eager
def test_dropout_of_a_known_model_follows_seed_and_step(backend: Backend, framework_of_backend: Any) -> None:
    """Not torch's generator, which is elsewhere in each of these runs."""
    first, second = mobilenet(backend), mobilenet(backend)
    state = first.export_state()
    second.import_state(replace(state, random={}))
    for step in range(2):
        first.train_step(*images(step), parts=2)
    second.train_step(*images(0), parts=2)
    third = mobilenet(backend, seed=9)
    third.import_state(replace(second.export_state(), random={}))
    third.train_step(*images(1), parts=2)
    same_arrays(third.weights(), first.weights())


@eager
def test_a_known_models_state_has_torchvisions_names(backend: Backend, framework_of_backend: Any) -> None:
    torchvision = pytest.importorskip("torchvision")
    own = backend.build("mobilenet_v2", CLASSES, 0.5, 0).state_dict()
    assert list(own) == list(torchvision.models.mobilenet_v2(num_classes=CLASSES).state_dict())


@eager
def test_parts_of_a_batch_have_their_parts_of_the_mask(backend: Backend, framework_of_backend: Any) -> None:
    from layered_lr.models.dropout_masks import draw_dropout_mask
    from layered_lr_torch.dropout import DropoutMasks, MaskedDropout

    torch = framework_of_backend
    dropout = MaskedDropout(0.5, 2, (5,))
    masks = DropoutMasks(torch.nn.Sequential(dropout), 11)
    masks.draw(7, 6, 3, torch.zeros(1))
    seen = []
    for part in range(3):
        masks.insert(part)
        seen.append(dropout(torch.ones(2, 5)).numpy())
    masks.remove()
    np.testing.assert_array_equal(np.concatenate(seen), draw_dropout_mask(11, 7, 2, (6, 5), 0.5))
    assert dropout.mask is None and set(dropout(torch.ones(2, 5)).unique().tolist()) <= {0.0, 2.0}
    assert (dropout.eval()(torch.ones(2, 5)) == 1).all()
