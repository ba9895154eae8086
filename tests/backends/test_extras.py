"""Clipping, accumulation, moving averages, float64 in a run: the oracle is torch in a loop by hand."""

from __future__ import annotations

import copy
import importlib
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from layered_lr.backend.session import Extras, Session
from layered_lr.data import Batches
from layered_lr.optimizers import OPTIMIZERS
from tests.support.models import CLASSES, FEATURES, HIDDEN, arrays, largest_difference, mlp, mlp_weights

STEPS, BATCH = 8, 8  # 40 images are 5 batches an epoch: the run ends in the middle of the second
GROUPS = [ll.Group("1", lr_scale=0.5)]
SPEC = ll.Spec(ll.SGD(0.1, momentum=0.9, weight_decay=0.01), GROUPS, no_weight_decay="1d")


@pytest.fixture(params=["torch-eager", pytest.param("torch-compile", marks=pytest.mark.slow)])
def backend_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def _one_thread(torch: Any) -> Iterator[None]:
    """The models are tiny, and other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def rounding(backend_name: str) -> float:
    """Of weights against the loop by hand: eager runs the same operations, compiled ones round otherwise."""
    return 0 if backend_name == "torch-eager" else 1e-6


def run(backend_name: str, framework: Any, spec: ll.Spec = SPEC, **options: Any) -> ll.Result:
    defaults = {"model": mlp(framework), "data": arrays(), "max_steps": STEPS, "batch_size": BATCH, "device": "cpu"}
    start = {} if "model" in options else {"initial_weights": mlp_weights()}
    return ll.run(spec, backend_name, **{**defaults, **start, "progress": False, **options})


def with_norm(framework: Any) -> Callable[[], Any]:
    """A model with buffers, one of them of whole numbers."""
    nn = framework.nn

    def build() -> Any:
        return nn.Sequential(
            nn.Flatten(1), nn.Linear(FEATURES, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)
        )

    return build


class ByHand(NamedTuple):
    """What a loop in torch's own words made of a run.

    Args:
        weights: At the end, by name.
        norms: Of the gradients before clipping, shape (steps, groups).
        losses: Shape (steps,).
        averages: torch's ``AveragedModel``, where there is one.
    """

    weights: dict[str, NDArray[Any]]
    norms: NDArray[np.float64]
    losses: NDArray[np.float64]
    averages: Any


def by_hand(
    torch: Any,
    model: Any,
    clip: Callable[[Any], Any] | None = None,
    decay: float | None = None,
    accumulate: int = 1,
    dtype: str = "float32",
    images_per_update: int = BATCH,
    steps: int = STEPS,
) -> ByHand:
    """``SPEC`` in torch alone; ``model[1]`` is the group, all else is the rest."""
    model = model.to(getattr(torch, dtype)).train()
    first = list(model[1].parameters())
    others = [p for p in model.parameters() if not any(p is q for q in first)]
    groups = [
        {"params": [p for p in members if (p.ndim > 1) == decays], "lr": rate, "weight_decay": 0.01 if decays else 0.0}
        for members, rate in ((first, 0.05), (others, 0.1))
        for decays in (True, False)
    ]
    optimizer = torch.optim.SGD(groups, momentum=0.9, fused=True if dtype == "float32" else None)
    average = None
    if decay is not None:
        swa = torch.optim.swa_utils
        average = swa.AveragedModel(model, multi_avg_fn=swa.get_ema_multi_avg_fn(decay), use_buffers=True)
    batches = Batches(ll.load_dataset(arrays()), images_per_update, seed=0)
    losses, norms, epoch = [], [], 0
    while len(losses) < steps:
        for images, labels in batches.epoch(epoch):
            optimizer.zero_grad()
            loss = 0.0
            parts = [torch.tensor(array).chunk(accumulate) for array in (images, labels)]
            for x, y in zip(*parts, strict=True):
                part = torch.nn.functional.cross_entropy(model(x.to(getattr(torch, dtype))), y) / accumulate
                part.backward()
                loss += part.item()
            losses.append(loss)
            norms.append(
                [float(torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in g]))) for g in (first, others)]
            )
            if clip:
                clip(model)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            if len(losses) == steps:
                break
        epoch += 1
    weights = {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}
    return ByHand(weights, np.array(norms), np.array(losses), average)


def hand_model(torch: Any) -> Any:
    model = mlp(torch)()
    model.load_state_dict({name: torch.tensor(array) for name, array in mlp_weights().items()})
    return model


# Clipping.


def clip_all(torch: Any, limit: float) -> Callable[[Any], Any]:
    return lambda model: torch.nn.utils.clip_grad_norm_(model.parameters(), limit)


@pytest.mark.parametrize("kind", ["norm", "norm per group", "value", "measure"])
def test_clipping_is_torchs(torch: Any, backend_name: str, kind: str) -> None:
    wanted: dict[str, Any]
    wanted, clip = {
        "norm": ({"clip_grad_norm": 0.3}, clip_all(torch, 0.3)),
        "norm per group": (
            {"clip_grad_norm": 0.3, "clip_per_group": True},
            lambda model: [torch.nn.utils.clip_grad_norm_(model[at].parameters(), 0.3) for at in (1, 3)],
        ),
        "value": ({"clip_grad_value": 0.02}, lambda m: torch.nn.utils.clip_grad_value_(m.parameters(), 0.02)),
        "measure": ({"clip_grad_norm": float("inf")}, None),
    }[kind]
    spec = ll.Spec(SPEC.optimizer, GROUPS, no_weight_decay="1d", **wanted)
    result = run(backend_name, torch, spec)
    hand = by_hand(torch, hand_model(torch), clip)
    assert largest_difference(result.weights, hand.weights) <= rounding(backend_name)
    unclipped = by_hand(torch, hand_model(torch))
    if kind != "measure":
        assert largest_difference(hand.weights, unclipped.weights) > 1e-3
    if kind == "value":
        assert result.grad_norms.shape == (0,)
        return
    # Our norms are those of the parameters' float32 norms, the oracle's of all elements at once.
    np.testing.assert_allclose(np.stack(list(result.group_grad_norms.values()), 1), hand.norms, rtol=1e-5)
    np.testing.assert_allclose(result.grad_norms, np.linalg.norm(hand.norms, axis=1), rtol=1e-5)


def test_without_clipping_no_norm_is_measured(torch: Any, backend_name: str) -> None:
    result = run(backend_name, torch)
    assert result.grad_norms.shape == (0,)
    assert all(norms.shape == (0,) for norms in result.group_grad_norms.values())


def test_a_group_without_gradients_has_norm_0(torch: Any) -> None:
    def build() -> Any:
        model = hand_model(torch)
        model[1].requires_grad_(False)
        return model

    result = run("torch-eager", torch, ll.Spec(ll.SGD(0.1), GROUPS, clip_grad_norm=0.1), model=build)
    assert not result.group_grad_norms["1"].any()
    assert np.array_equal(result.group_grad_norms["rest"], result.grad_norms)
    assert (result.grad_norms > 0).all()


def opened(torch: Any, extras: Extras, spec: ll.Spec = SPEC) -> Session:
    backend = load_backend("torch-eager", "cpu")
    model = backend.build(mlp(torch), CLASSES, 0.0, 0)
    backend.load(model, mlp_weights())
    return backend.open(ll.resolve(spec, model), model, CLASSES, extras)


def test_norms_are_measured_on_demand_and_read_in_any_order(torch: Any) -> None:
    session = opened(torch, Extras(grad_norms=True))
    x, y, _, _ = arrays(64)
    handles = [session.train_step(x[:8], y[:8]) for _ in range(5)]
    assert session.losses(handles[:2]).shape == (2,)
    assert session.grad_norms(1, 3).shape == (2, 2)
    session.train_step(x[:8], y[:8])
    whole = session.grad_norms(0, 100)
    assert whole.shape == (6, 2) and (whole > 0).all()
    assert np.array_equal(session.grad_norms(1, 3), whole[1:3])
    assert opened(torch, Extras(grad_norms=True)).grad_norms(0, 9).shape == (0, 2)


def test_norms_take_8_bytes_each(torch: Any) -> None:
    model = torch.nn.Linear(2, 2)
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("weight")]), model)
    norms = importlib.import_module("layered_lr_torch.norms").NormHistory(plan, model)
    clipper = importlib.import_module("layered_lr_torch.clipping").GradientClipper(plan, model, norms)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    steps = 3000
    tracemalloc.start()
    for _ in range(steps):
        clipper.clip()
        norms.fetch()
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 2 * 2 * 8 * steps  # half of it may be room for more
    assert np.array_equal(norms.table(0, steps), np.tile([2.0, 2**0.5], (steps, 1)).astype(np.float32))


# Accumulation.


def test_parts_are_the_large_batch(torch: Any, backend_name: str) -> None:
    """To float32 rounding: the sums of a gradient are taken in another order."""
    parts = run(backend_name, torch, batch_size=2, accumulate_steps=4)
    whole = run(backend_name, torch, batch_size=8)
    assert largest_difference(parts.weights, whole.weights) < 1e-6
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-5)
    assert parts.rates.keys() == whole.rates.keys()


def test_parts_are_torchs_own_accumulation(torch: Any, backend_name: str) -> None:
    result = run(backend_name, torch, batch_size=2, accumulate_steps=4)
    hand = by_hand(torch, hand_model(torch), accumulate=4)
    assert largest_difference(result.weights, hand.weights) <= rounding(backend_name)


@pytest.mark.parametrize(("batch_size", "accumulate"), [(8, 2), (8, 3), (16, 2), (40, 2), (1, 7)])
def test_the_last_update_of_an_epoch_may_have_fewer_parts(torch: Any, batch_size: int, accumulate: int) -> None:
    schedule = ll.StepLR(step_size=1, gamma=0.5, unit="epoch")
    spec = ll.Spec(ll.SGD(0.1), GROUPS, schedule)
    result = run(
        "torch-eager", torch, spec, batch_size=batch_size, accumulate_steps=accumulate, epochs=2, max_steps=None
    )
    in_epoch = -(-(40 // batch_size) // accumulate)
    assert result.losses.shape == (2 * in_epoch,)
    assert result.rates["rest"].tolist() == [0.1] * in_epoch + [0.05] * in_epoch

    model = hand_model(torch)
    optimizer = torch.optim.SGD(
        [{"params": model[1].parameters(), "lr": 0.05}, {"params": model[3].parameters(), "lr": 0.1}], fused=True
    )
    batches = Batches(ll.load_dataset(arrays()), batch_size, seed=0)
    for epoch in range(2):
        every = list(batches.epoch(epoch))
        for first in range(0, len(every), accumulate):
            together = every[first : first + accumulate]
            optimizer.zero_grad()
            for images, labels in together:
                loss = torch.nn.functional.cross_entropy(model(torch.tensor(images)), torch.tensor(labels))
                (loss / len(together)).backward()
            optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] /= 2
    hand = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert largest_difference(result.weights, hand) == 0


# Moving averages.


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_averages_are_torchs(torch: Any, backend_name: str, decay: float) -> None:
    torch.manual_seed(0)
    start = with_norm(torch)()
    result = run(backend_name, torch, model=lambda: copy.deepcopy(start), ema_decay=decay, epochs=2, max_steps=None)
    hand = by_hand(torch, copy.deepcopy(start), decay=decay, steps=10)
    assert largest_difference(result.weights, hand.weights) <= rounding(backend_name)
    averages = {name: tensor.numpy() for name, tensor in hand.averages.module.state_dict().items()}
    whole = [name for name, array in averages.items() if array.dtype.kind == "i"]
    assert whole == ["2.num_batches_tracked"]
    for name in whole:  # where torch rounds the mean of two counts down, we keep the model's own
        averages[name] = hand.weights[name]
    assert largest_difference(result.ema_weights, averages) <= rounding(backend_name)
    assert decay == 0 or largest_difference(result.ema_weights, result.weights) > 1e-3

    _, _, x_test, y_test = arrays()
    hand.averages.eval()
    right = hand.averages(torch.tensor(x_test)).argmax(1).numpy() == y_test
    assert result.ema_accuracies.shape == (2,)
    assert result.ema_accuracies[-1] == pytest.approx(right.mean())


def test_an_averages_evaluation_disturbs_nothing(torch: Any, backend_name: str) -> None:
    ends = []
    torch.manual_seed(0)
    start = with_norm(torch)()
    for evaluate in (False, True):
        backend = load_backend(backend_name, "cpu")
        model = backend.build(lambda: copy.deepcopy(start), CLASSES, 0.0, 0)
        session = backend.open(ll.resolve(SPEC, model), model, CLASSES, Extras(ema_decay=0.9))
        x, y, x_test, _ = arrays(64)
        for at in range(6):
            session.train_step(x[8 * at : 8 * at + 8], y[8 * at : 8 * at + 8])
            if evaluate:
                one, other = session.logits(x_test, ema=True), session.logits(x_test)
                assert at == 0 or not np.array_equal(one, other)
                assert np.array_equal(session.logits(x_test, ema=True), one)
        ends.append((session.weights(), session.ema_weights()))
    assert largest_difference(ends[0][0], ends[1][0]) == 0
    assert largest_difference(ends[0][1], ends[1][1]) == 0


def test_averages_of_tied_weights_and_of_buffers_that_are_replaced(torch: Any) -> None:
    class Model(torch.nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Linear(FEATURES, FEATURES, bias=False)
            self.other = torch.nn.Linear(FEATURES, FEATURES, bias=False)
            self.other.weight = self.one.weight
            self.head = torch.nn.Linear(FEATURES, CLASSES)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Any) -> Any:
            if self.training:
                self.seen = self.seen + 1
            return self.head(torch.tanh(self.other(self.one(x.flatten(1)))) + 0 * self.seen)

    result = run("torch-eager", torch, ll.Spec(ll.SGD(0.1)), model=Model, ema_decay=0.5, max_steps=3)
    assert result.weights["seen"] == 3
    assert result.ema_weights["seen"] == 0.5 * (0.5 * 1 + 0.5 * 2) + 0.5 * 3
    assert np.array_equal(result.ema_weights["one.weight"], result.ema_weights["other.weight"])
    assert not np.array_equal(result.ema_weights["one.weight"], result.weights["one.weight"])


def test_there_is_no_average_where_none_was_asked_for(torch: Any) -> None:
    session = opened(torch, Extras())
    with pytest.raises(ll.SpecError, match="ema_decay"):
        session.ema_weights()
    with pytest.raises(ll.SpecError, match="ema_decay"):
        session.logits(arrays()[2], ema=True)


def test_before_the_first_update_the_average_is_the_weights(torch: Any) -> None:
    session = opened(torch, Extras(ema_decay=0.9))
    assert largest_difference(session.ema_weights(), mlp_weights()) == 0


# float64.


def test_float64_is_torchs(torch: Any, backend_name: str) -> None:
    result = run(backend_name, torch, precision="float64", ema_decay=0.9)
    hand = by_hand(torch, hand_model(torch), dtype="float64", decay=0.9)
    assert {array.dtype for array in result.weights.values()} == {np.dtype("float64")}
    assert {array.dtype for array in result.ema_weights.values()} == {np.dtype("float64")}
    tolerance = 0 if backend_name == "torch-eager" else 1e-14  # compiled operations round otherwise
    assert largest_difference(result.weights, hand.weights) <= tolerance
    np.testing.assert_allclose(result.losses, hand.losses, rtol=max(tolerance, 1e-15))


def test_float64_logits(torch: Any) -> None:
    backend = load_backend("torch-eager", "cpu")
    model = backend.build(mlp(torch), CLASSES, 0.0, 0, "float64")
    session = backend.open(ll.resolve(SPEC, model), model, CLASSES)
    assert session.logits(arrays()[2]).dtype == np.float64


# All of it.


def test_everything_at_once(torch: Any, backend_name: str) -> None:
    spec = ll.Spec(SPEC.optimizer, GROUPS, no_weight_decay="1d", clip_grad_norm=0.3)
    result = run(backend_name, torch, spec, batch_size=4, accumulate_steps=2, ema_decay=0.9, precision="float64")
    hand = by_hand(torch, hand_model(torch), clip_all(torch, 0.3), 0.9, 2, "float64")
    tolerance = 0 if backend_name == "torch-eager" else 1e-14  # compiled operations round otherwise
    assert largest_difference(result.weights, hand.weights) <= tolerance
    averages = {name: tensor.numpy() for name, tensor in hand.averages.module.state_dict().items()}
    assert largest_difference(result.ema_weights, averages) <= tolerance


def test_a_table_as_long_as_the_run(torch: Any) -> None:
    """The scheduler's step behind the last update asks for no rate that is not there."""
    rates = [0.1, 0.2, 0.3]
    result = run("torch-eager", torch, ll.Spec(ll.SGD(1.0), schedule=ll.Table(rates)), max_steps=3)
    assert result.rates["rest"].tolist() == rates


def test_weights_that_end_infinite_are_an_error(torch: Any) -> None:
    """The loss before the last update is finite."""
    with pytest.raises(ll.TrainingDiverged, match="after the last update"):
        run(
            "torch-eager",
            torch,
            ll.Spec(ll.SGD(1e38), clip_grad_norm=float("inf")),
            max_steps=1,
            batch_size=40,
            initial_weights={name: 1e3 * array for name, array in mlp_weights().items()},
        )


# Any spec at all.

sizes = st.floats(0, 10) | st.sampled_from([0.0, 1.0, 1e-300, 1e-45, 1e30, 1e38, 1e300])
fractions = st.floats(0, 1, exclude_max=True)
DRAWN: dict[str, st.SearchStrategy[Any]] = {
    "betas": st.tuples(fractions, fractions), "alpha": st.floats(0, 1), "rho": st.floats(0, 1)
}  # fmt: skip


def of_kind(kind: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Values that an optimizer takes, however odd."""
    drawn = {f.name: st.booleans() if isinstance(f.default, bool) else DRAWN.get(f.name, sizes) for f in fields(kind)}
    return st.fixed_dictionaries({}, optional=drawn | {name: st.none() for name in drawn.keys() & {"foreach", "fused"}})


@st.composite
def specs(draw: st.DrawFn) -> ll.Spec:
    kind = draw(st.sampled_from(list(OPTIMIZERS.values())))
    own = {name: value for name, value in draw(of_kind(kind)).items() if name not in ("foreach", "fused")}
    clip = draw(
        st.sampled_from([{}, {"clip_grad_norm": 1e-3}, {"clip_grad_norm": 0.5, "clip_per_group": True}])
        | sizes.filter(bool).map(lambda size: {"clip_grad_value": size})
    )
    group = ll.Group("1", lr_scale=draw(sizes), **own)
    rule = draw(st.sampled_from([(), "1d"]))
    return ll.Spec(kind(**draw(of_kind(kind))), [group], no_weight_decay=rule, **clip)


@settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_spec_is_a_run_or_an_error_of_ours(torch: Any, data: st.DataObject) -> None:
    """Never another exception, and nothing infinite out of finite input."""
    try:
        options = {"ema_decay": data.draw(st.none() | fractions), "accumulate_steps": data.draw(st.integers(1, 3))}
        dtype = data.draw(st.sampled_from(["float32", "float64"]))
        result = run("torch-eager", torch, data.draw(specs()), max_steps=3, precision=dtype, **options)
    except ll.LayeredLRError:
        return
    every = [result.losses, result.accuracies, *result.rates.values(), *result.weights.values()]
    every += [result.grad_norms, *result.group_grad_norms.values(), *result.ema_weights.values()]
    assert all(np.isfinite(array).all() for array in every)
