"""Whole runs in several processes of which each holds a part of the model (``shard=True``), and alone."""

from __future__ import annotations

import pickle
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import layered_lr as ll
from layered_lr.arrays import DividedArray
from tests.support import many_runs
from tests.support.isolation import run_side_by_side
from tests.support.many_runs import call_run, numbers_of

SPEC = {"groups": [ll.Group("0.*", lr_scale=0.5), ll.Group("7.*", schedule=ll.ReduceLROnPlateau(patience=0))]}
OPTIMIZERS = {
    "lamb": ll.LAMB(0.01),
    "lars": ll.LARS(0.1, momentum=0.9),
    "sgd, fused": ll.SGD(0.01, momentum=0.9, fused=True),
    "adamw, foreach": ll.AdamW(0.01, foreach=True),
}
MORE_OPTIMIZERS = {
    "lion": ll.Lion(0.001),
    "adagrad": ll.Adagrad(0.01),
    "asgd": ll.ASGD(0.01),
    "rmsprop": ll.RMSprop(0.01),
    "nadam": ll.NAdam(0.01),
    "radam": ll.RAdam(0.01),
    "adamax": ll.Adamax(0.01),
    "adadelta": ll.Adadelta(0.1),
}


def net() -> Any:
    """Rows that do not divide by the number of processes, and a layer with fewer rows than processes."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Sequential(nn.Conv2d(5, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU()),
        nn.Dropout(0.2),
        nn.Flatten(),
        nn.Linear(4 * 7 * 7, 1),
        nn.Linear(1, 4),
    )


class Views(nn.Linear):
    """Answers with a view."""

    def forward(self, images: Any) -> Any:
        """Answer with hidden numbers."""
        return super().forward(images.flatten(1))[:, None].squeeze(1)


class Odd(nn.Module):
    """Tied weights, a scalar, a parameter in a plain list, a frozen one, a buffer, and no layer of noise."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Views(3072, 5)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.kept = [self.second.bias]
        self.head = nn.Linear(5, 4)
        self.head.bias.requires_grad_(False)
        self.register_buffer("shift", torch.ones(5))

    def forward(self, images: Any) -> Any:
        """Answer with logits."""
        body = self.body(images)
        body += 1  # in place, of a view
        hidden = self.first(body).tanh() * self.shift
        return self.head(self.second(hidden) * self.scale + self.kept[0])


class Uncalled(nn.Module):
    """Uses the weight of a module that it does not call."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4))

    def forward(self, images: Any) -> Any:
        """Answer with logits."""
        return nn.functional.linear(images.flatten(1), self.body[1].weight)


def run_in(count: int, *cases: str, folder: str = "") -> list[dict[str, Any]]:
    """As ``many_runs.run_in``, with the functions of this file."""
    with tempfile.TemporaryDirectory() as place:
        run_side_by_side(count, _begin, count, cases, place, folder)
        return [pickle.loads((Path(place) / str(rank)).read_bytes()) for rank in range(count)]


def _begin(rank: int, count: int, cases: tuple[str, ...], place: str, folder: str) -> None:
    many_runs._begin(rank, count, cases, place, folder)


def _run(**changes: Any) -> Any:
    return many_runs.train(**{"model": net, "shard": True, **changes})


def _go(folder: str, **changes: Any) -> Any:
    phases = [ll.Phase(until=3, frozen=["0.*", "3.*"]), ll.Phase()]
    spec = ll.Spec(ll.SGD(0.05, momentum=0.9), clip_grad_norm=0.5, phases=phases, **SPEC)
    return _run(spec=spec, accumulate_steps=2, ema_decay=0.9, checkpoints=folder, **changes)


def sharded(folder: str) -> Any:
    """Accumulation, clipping, a moving average, two phases, a schedule that reacts."""
    return _go(f"{folder}/whole", epochs=3)


def sharded_half(folder: str) -> Any:
    """The first half of it."""
    return _go(f"{folder}/half", max_steps=3)


def sharded_resumed(folder: str) -> Any:
    """It, stopped after its first half."""
    _go(f"{folder}/resumed", max_steps=3)
    return numbers_of(ll.resume(f"{folder}/resumed", epochs=3, model=net, data=many_runs.make_data()))


def sharded_on(folder: str) -> Any:
    """The rest of it."""
    return numbers_of(ll.resume(f"{folder}/half", epochs=3, model=net, data=many_runs.make_data()))


def undivided_on(folder: str) -> Any:
    """The rest of it, where each process has a whole copy."""
    return numbers_of(ll.resume(f"{folder}/half", epochs=3, model=net, data=many_runs.make_data(), shard=False))


def sharded_switched(folder: str) -> Any:
    """Phases with other optimizers, one of which takes over the momentum, and other options."""
    phases = [
        ll.Phase(until=3, optimizer=ll.Adam(0.01)),
        ll.Phase(until=5, optimizer=ll.SGD(0.01, momentum=0.9), carry="momentum", frozen=["0.*"]),
        ll.Phase(optimizer=ll.SGD(0.01)),
    ]
    return _run(spec=ll.Spec(ll.SGD(0.1), phases=phases), checkpoints=f"{folder}/switched", ema_decay=0.9)


def sharded_odd(folder: str) -> Any:
    """A model with all that is not divided, and a last batch of which the processes have no equal shares."""
    spec, data = ll.Spec(ll.AdamW(0.01, foreach=True), clip_grad_value=0.01), many_runs.make_data(47)
    return _run(model=Odd, spec=spec, batch_size=20, drop_last=False, data=data, epochs=1)


def sharded_guarded(folder: str) -> Any:
    """A rollback, and the guard's verdict."""
    return _run(spec=ll.Spec(ll.SGD(lr=1e30)), divergence=ll.Divergence("rollback", rollback_factor=1e-32), max_steps=4)


def sharded_optimizers(folder: str) -> Any:
    """Optimizers that need norms of whole parameters, and implementations that torch does not have of parts."""
    return {name: _run(model=Odd, spec=ll.Spec(each), max_steps=3) for name, each in OPTIMIZERS.items()}


def sharded_optimizers_more(folder: str) -> Any:
    """The others."""
    return {name: _run(model=Odd, spec=ll.Spec(each), max_steps=3) for name, each in MORE_OPTIMIZERS.items()}


def sharded_muon(folder: str) -> Any:
    """Whole matrices, also of a convolution, and a last batch of one image."""
    groups = [
        ll.Group("6.weight", optimizer=ll.Muon(0.01)),
        ll.Group("3.0.weight", optimizer=ll.Muon(0.01, flatten=True)),
    ]
    return _run(spec=ll.Spec(ll.SGD(0.01), groups=groups), batch_size=12, drop_last=False, data=many_runs.make_data(25))


def sharded_refused(folder: str) -> Any:
    """What cannot be divided."""
    return {
        "uncalled": call_run(model=Uncalled, spec=ll.Spec(ll.SGD(0.1)), shard=True),
        "adafactor": call_run(spec=ll.Spec(ll.SGD(0.1), [ll.Group("8.*", optimizer=ll.Adafactor(0.01))]), shard=True),
        "float16": call_run(precision="float16", shard=True),
        "log": call_run(log=[f"tensorboard:{folder}/log"], shard=True),
    }


def sharded_bytes(folder: str) -> Any:
    """Bytes of parameters, optimizer's slots and averages that this process holds, and of the whole."""
    from layered_lr_torch.session import TorchSession
    from layered_lr_torch.sharding import get_part

    found: dict[str, tuple[int, int]] = {}

    def count(tensors: Any) -> tuple[int, int]:
        known = [tensor for tensor in tensors if tensor.ndim]
        return sum(get_part(each).numel() for each in known), sum(each.numel() for each in known)

    class Counts(ll.Callback):
        def on_update(self, event: Any) -> None:
            session = event.run._running().session
            assert isinstance(session, TorchSession)
            found["parameters"] = count(session.model.parameters())
            found["slots"] = count(
                slot for state in session.optimizer.state.values() for slot in state.values() if hasattr(slot, "ndim")
            )
            found["averages"] = count(session._average._averages) if session._average else (0, 0)
            state = session.export_state()
            slots = [array for each in state.slots.values() for array in each.values()]
            arrays = [array for array in (*state.weights.values(), *slots, *state.ema.values()) if array.ndim]
            parts = [array.part if isinstance(array, DividedArray) else array for array in arrays]
            found["state"] = sum(part.size for part in parts), sum(int(np.prod(array.shape)) for array in arrays)

    model = lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(), nn.Linear(64, 4))  # noqa: E731
    _run(model=model, spec=ll.Spec(ll.AdamW(0.01)), ema_decay=0.9, max_steps=2, callbacks=[Counts()])
    return found


vars(many_runs).update({name: call for name, call in vars().items() if name.startswith(("sharded", "undivided"))})
