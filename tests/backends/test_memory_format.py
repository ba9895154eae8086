"""How tensors lie in memory on torch: ``channels_last`` where the library built the model, else as the user made it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from layered_lr.backend.phased_session import open_session
from layered_lr.backend.session import Extras, Session
from layered_lr.data import Batches
from layered_lr.models.catalogue import draw_initial_weights
from layered_lr.state import read_state, write_state
from tests.support.convolutions import BATCH, CLASSES, SIDE, STEPS, images, small

eager = pytest.mark.parametrize("backend_name", ["torch-eager"])
OPTIMIZERS = {
    "SGD": ll.SGD(0.1, momentum=0.9, weight_decay=0.01),
    "Adam": ll.Adam(0.01),
    "AdamW": ll.AdamW(0.01, amsgrad=True),
    "Adagrad": ll.Adagrad(0.05),
    "RMSprop": ll.RMSprop(0.01, momentum=0.5),
    "LAMB": ll.LAMB(0.01),
}


def opened(
    backend: Backend, model: Any, spec: ll.Spec | None = None, seed: int = 0, extras: Extras | None = None
) -> Session:
    built = backend.build(model, CLASSES, 0.0, seed)
    plan = ll.resolve(spec or ll.Spec(OPTIMIZERS["SGD"]), built, total_steps=STEPS)
    return open_session(backend, plan, built, CLASSES, extras or Extras())


def train(session: Session, steps: int) -> list[float]:
    x, y, _, _ = images()
    places = [slice(at * BATCH, (at + 1) * BATCH) for at in range(session.step, session.step + steps)]
    return session.losses([session.train_step(x[place], y[place]) for place in places]).tolist()  # type: ignore[no-any-return]


def layouts(session: Any) -> dict[str, set[tuple[int, ...]]]:
    """The strides of each parameter with its gradient and slots, along the axes that have more than one element."""
    found = {}
    for name, parameter in session.model.named_parameters():
        alike = [parameter, parameter.grad, *session.optimizer.state[parameter].values()]
        found[name] = {
            tuple(step for step, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1)
            for tensor in alike
            if tensor.shape == parameter.shape
        }
    return found


@eager
def test_a_run_of_a_known_model_is_torchs_own_in_channels_last(backend: Backend, torch: Any) -> None:
    """The oracle is a plain loop of torch's in the same format: in the other one sums have other orders."""
    data, classes, rate = images(16, side=32), CLASSES, 0.01
    spec = ll.Spec(ll.SGD(rate, momentum=0.9), schedule=ll.StepLR(2, 0.5))
    result = ll.run(spec, "torch-eager", data=data, max_steps=3, batch_size=BATCH, dropout=0.0, progress=False)

    model = pytest.importorskip("torchvision").models.mobilenet_v2(num_classes=classes, dropout=0.0)
    start = draw_initial_weights("mobilenet_v2", classes, 0)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in start.items()})
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, fused=True)
    losses = []
    epoch = Batches(ll.load_dataset(data), BATCH, seed=0).epoch(0)
    for at, (x, y) in zip(range(3), epoch, strict=False):
        optimizer.param_groups[0]["lr"] = rate * 0.5 ** (at // 2)
        optimizer.zero_grad()
        given = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
        loss = torch.nn.functional.cross_entropy(model(given), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert result.losses.tolist() == losses
    for name, tensor in model.state_dict().items():
        assert np.array_equal(result.weights[name], tensor.numpy()), name


@eager
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_a_state_goes_on_bitwise_and_in_the_same_layout(
    backend: Backend, torch: Any, name: str, tmp_path: Path
) -> None:
    """Fused kernels take weights, gradients and slots for flat memory, so that all three have to lie alike."""
    spec = ll.Spec(OPTIMIZERS[name], [ll.Group("0", lr_scale=0.5)], ll.CosineAnnealingLR(STEPS), clip_grad_norm=1.0)
    extras = Extras(ema_decay=0.9)
    whole = opened(backend, small(torch, last=True), spec, extras=extras)
    losses = train(whole, STEPS)
    first = opened(backend, small(torch, last=True), spec, extras=extras)
    train(first, 3)
    write_state(tmp_path / "state", first.export_state())
    second = opened(backend, small(torch, last=True), spec, seed=1, extras=extras)
    train(second, 1)
    second.import_state(read_state(tmp_path / "state"))
    assert train(second, STEPS - 3) == losses[3:]
    for session in (whole, second):
        assert all(len(strides) == 1 for strides in layouts(session).values()), layouts(session)
        assert not session.model[0].weight.is_contiguous()
    one, other = whole.export_state(), second.export_state()
    for mine, theirs in ((one.weights, other.weights), (one.ema, other.ema)):
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
    for key, slots in one.slots.items():
        assert all(np.array_equal(array, other.slots[key][slot]) for slot, array in slots.items())


@eager
def test_a_state_of_one_format_goes_on_in_the_other(backend: Backend, torch: Any) -> None:
    """By value: after the import both hold the same numbers, in layouts of their own."""
    one = opened(backend, small(torch, last=True))
    train(one, 3)
    other = opened(backend, small(torch, last=False))
    state = one.export_state()
    other.import_state(state)
    again = other.export_state()
    assert all(np.array_equal(state.weights[name], again.weights[name]) for name in state.weights)
    assert all(np.array_equal(state.slots[name]["momentum_buffer"], again.slots[name]["momentum_buffer"])
               for name in state.slots)  # fmt: skip
    # Convolutions sum in other orders: float32's rounding over a few dozen products, twice.
    np.testing.assert_allclose(train(other, 2), train(one, 2), rtol=1e-5)


@eager
def test_what_leaves_a_session_is_in_cs_order(backend: Backend, torch: Any) -> None:
    session = opened(backend, small(torch, last=True), extras=Extras(ema_decay=0.5))
    train(session, 2)
    state = session.export_state()
    arrays = [*state.weights.values(), *state.ema.values(), *session.weights().values()]
    arrays += [array for slots in state.slots.values() for array in slots.values()]
    assert all(array.flags.c_contiguous for array in arrays)
    assert np.array_equal(state.weights["0.weight"], session.model[0].weight.detach().contiguous().numpy())  # type: ignore[attr-defined]


def watched(torch: Any, seen: list[Any], last: bool, shape: tuple[int, ...] = (2, 3, 3, 3)) -> Callable[[], Any]:
    """What builds a model that notes how its images lie in memory."""

    class Watched(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(shape[1], shape[0], shape[2:])
            self.head = torch.nn.Linear(shape[0] * (SIDE - shape[2] + 1) ** 2, CLASSES)
            if last:
                self.to(memory_format=torch.channels_last)

        def forward(self, x: Any) -> Any:
            seen.append((x.is_contiguous(), x.is_contiguous(memory_format=torch.channels_last)))
            y = self.conv(x)
            return self.head(y.flatten(1) if last else y.view(len(y), -1))

    return Watched


@eager
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("given", ["NCHW", "NHWC"])
def test_images_come_as_the_users_weights_lie(backend: Backend, torch: Any, last: bool, given: str) -> None:
    """However the array lies that they come in; a model in torch's own format may use ``view`` on its activations."""
    seen: list[Any] = []
    session = opened(backend, watched(torch, seen, last), extras=Extras(accumulate_steps=2))
    x, y, _, _ = images()
    if given == "NHWC":
        x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    session.train_step(x[:4], y[:4])
    session.train_step(x[:4], y[:4], parts=2)
    session.logits(x[4:8])
    assert seen == [(not last, last)] * 4


@eager
@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels_last"])
def test_a_session_asks_for_what_it_need_not_copy(backend: Backend, torch: Any, last: bool) -> None:
    """The loop's arrays are the model's images, with the same losses as arrays in C's order give."""
    places: list[int] = []

    def noting() -> Any:
        model = small(torch, last)()
        model.register_forward_pre_hook(lambda _, given: places.append(given[0].data_ptr()))
        return model

    data = ll.load_dataset(images())
    losses = []
    for asked in (False, True):
        session = opened(backend, noting)
        assert session.wants_channels_last == last
        batches = Batches(data, BATCH, seed=0).updates(1, 0, session.wants_channels_last and asked)
        handles = []
        for (x, y, parts), _ in zip(batches, range(STEPS), strict=False):
            if asked and last:
                x = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
            places.clear()
            handles.append(session.train_step(x, y, parts))
            assert (places == [x.ctypes.data]) == (asked or not last)
        losses.append(session.losses(handles).tolist())
    assert losses[0] == losses[1]


@eager
def test_weights_that_lie_both_ways_say_nothing(backend: Backend, torch: Any) -> None:
    """A 1x1 convolution's are contiguous and channels_last at once."""
    seen: list[Any] = []
    session = opened(backend, watched(torch, seen, last=False, shape=(2, 3, 1, 1)))
    x, y, _, _ = images()
    session.train_step(x[:4], y[:4])
    assert seen == [(True, False)]


FAULTS = """
import resource
import torch
from layered_lr_torch.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(12 << 20)  # 48 MiB: more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(keep_freed_memory(), faults() and faults())
"""


TOLD = """
from layered_lr_torch.memory import keep_freed_memory
print(keep_freed_memory())
"""  # without torch, whose import takes seconds


def words_of(script: str, **variables: str) -> list[str]:
    """What a process of its own prints, whose malloc these variables set up and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_PRE"))}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=kept | variables, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_kept(torch: Any) -> None:
    told, count = words_of(FAULTS)  # of twenty tensors after twenty others
    if told == "False":
        pytest.skip("not glibc's malloc")
    assert int(count) < 100, "twenty tensors of 12,288 pages"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
@pytest.mark.parametrize(
    "variables",
    [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}],
    ids=str,
)
def test_what_the_user_has_set_up_stays(torch: Any, variables: dict[str, str]) -> None:
    assert words_of(TOLD, **variables) == ["False"]


def test_a_system_without_glibc_is_no_error(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from layered_lr_torch import memory

    def unknown(name: str) -> str:
        raise ValueError(name)

    monkeypatch.setattr(os, "confstr", unknown)
    assert memory.keep_freed_memory.__wrapped__() is False
