"""What a training does beside its updates, as cases: trained by a session of OneFlow, and in torch by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.backend.base import Dtype
from layered_lr.backend.loading import load_backend
from layered_lr.backend.session import Extras
from layered_lr.schedules import CosineAnnealingLR, ReduceLROnPlateau, StepLR

CLASSES, PART = 3, 6  # images of a part
SCHEDULES = {"step": StepLR(step_size=3, gamma=0.5), "cosine": CosineAnnealingLR(T_max=12, eta_min=0.01)}
FACTORS = {
    "step": lambda step: 0.5 ** (step // 3),
    "cosine": lambda step: (0.01 + (0.2 - 0.01) * (1 + np.cos(np.pi * step / 12)) / 2) / 0.2,
}


@dataclass(frozen=True)
class Case:
    """A training.

    Args:
        clip: Of the spec.
        parts: How many parts each update's batch comes in.
        ema: Its decay.
        norms: They are asked for.
        dynamic: A group's schedule that a compiled optimizer cannot do.
        batch_norm: The model has one.
        frozen: Names of parameters.
        dtype: Of the model.
        peek: Ask for logits and averages after every update.
    """

    clip: tuple[tuple[str, Any], ...] = ()
    parts: tuple[int, ...] = (1,) * 8
    ema: float | None = None
    norms: bool = False
    dynamic: bool = False
    batch_norm: bool = True
    frozen: tuple[str, ...] = ()
    dtype: Dtype = "float32"
    peek: bool = False


GLOBAL, PER_GROUP = (("clip_grad_norm", 0.2),), (("clip_grad_norm", 0.15), ("clip_per_group", True))
UNEVEN = (3, 3, 1, 3, 2, 3, 3, 1)
PLAIN = Case()
TOGETHER = Case(GLOBAL, UNEVEN, ema=0.8, frozen=("body.bias",))
CASES = {
    "plain": PLAIN,
    "infinite": Case((("clip_grad_norm", float("inf")),)),
    "global": Case(GLOBAL),
    "loose": Case((("clip_grad_norm", 100.0),)),
    "per group": Case(PER_GROUP),
    "value": Case((("clip_grad_value", 0.03),), norms=True),
    "frozen": Case(GLOBAL, frozen=("body.weight", "body.bias")),
    "dynamic": Case(GLOBAL, dynamic=True),
    "parts": Case(parts=UNEVEN),
    "parts, dynamic": Case(PER_GROUP, parts=UNEVEN, dynamic=True),
    "average": Case(ema=0.9),
    "average, decay 0.4": Case(ema=0.4),
    "average, decay 0": Case(ema=0.0),
    "average, asked for": Case(ema=0.9, peek=True),
    "together": TOGETHER,
    "together, float64": replace(TOGETHER, dtype="float64"),
}


def net(framework: Any, batch_norm: bool) -> Any:
    """Groups ``body`` and ``head``, and a layer that the answer does not depend on."""
    nn = framework.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(12, 8)
            self.norm = nn.BatchNorm1d(8) if batch_norm else nn.Identity()
            self.head = nn.Linear(8, CLASSES)
            self.unused = nn.Linear(2, 2)

        def forward(self, x: Any) -> Any:
            return self.head(framework.tanh(self.norm(self.body(x.flatten(1)))))

    return Net()


def start(batch_norm: bool) -> dict[str, NDArray[Any]]:
    rng = np.random.default_rng(0)
    shapes = {"body": (8, 12), "head": (CLASSES, 8), "unused": (2, 2)}
    drawn = {f"{name}.weight": 0.5 * rng.standard_normal(shape) for name, shape in shapes.items()}
    drawn |= {f"{name}.bias": 0.5 * rng.standard_normal(shape[0]) for name, shape in shapes.items()}
    if batch_norm:
        drawn |= {"norm.weight": np.ones(8), "norm.bias": np.zeros(8)}
        drawn |= {"norm.running_mean": np.zeros(8), "norm.running_var": np.ones(8)}
    state = {name: array.astype(np.float32) for name, array in drawn.items()}
    return state | ({"norm.num_batches_tracked": np.array(0)} if batch_norm else {})


def batches(case: Case) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    rng = np.random.default_rng(1)
    sizes = [PART * parts for parts in case.parts]
    return [(rng.standard_normal((n, 3, 2, 2)).astype(np.float32), rng.integers(0, CLASSES, n)) for n in sizes]


def test_images() -> NDArray[np.float32]:
    return np.random.default_rng(2).standard_normal((7, 3, 2, 2)).astype(np.float32)


def spec(case: Case) -> ll.Spec:
    return ll.Spec(
        optimizer=ll.SGD(lr=0.4, momentum=0.9, weight_decay=1e-3),
        groups=[
            ll.Group("nothing*", optional=True),
            ll.Group("body", lr_scale=0.5, schedule=SCHEDULES["step"]),
            ll.Group("head", lr=0.2, schedule=SCHEDULES["cosine"]),
        ],
        schedule=ReduceLROnPlateau() if case.dynamic else None,
        **dict(case.clip),
    )


def by_session(backend_name: str, case: Case) -> dict[str, Any]:
    """What a session of OneFlow answers, as lists and numbers."""
    from layered_lr_oneflow.runtime import flow

    backend = load_backend(backend_name, "cpu")
    model = backend.build(lambda: net(flow, case.batch_norm), CLASSES, 0.0, 0, case.dtype)
    backend.load(model, start(case.batch_norm))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in case.frozen)
    plan = ll.resolve(spec(case), model, total_steps=len(case.parts))
    session = backend.open(plan, model, CLASSES, Extras(max(case.parts), case.ema, case.norms))
    handles = []
    for (images, labels), parts in zip(batches(case), case.parts, strict=True):
        handles.append(session.train_step(images, labels, parts))
        if case.peek:
            session.logits(test_images(), ema=True)
            session.ema_weights()
    answer: dict[str, Any] = {
        "losses": session.losses(handles),
        "weights": session.weights(),
        "rates": session.rates(0, 99),
        "logits": session.logits(test_images()),
    }
    if session.extras.grad_norms:
        answer["norms"] = session.grad_norms(0, 99)
    if case.ema is not None:
        answer |= {"ema": session.ema_weights(), "ema logits": session.logits(test_images(), ema=True)}
        assert all(np.array_equal(array, answer["weights"][name]) for name, array in session.weights().items())
    dtypes = {str(array.dtype) for name, array in answer["weights"].items() if "num_batches" not in name}
    assert dtypes == {str(answer["logits"].dtype)} == {case.dtype}
    return {name: _listed(value) for name, value in answer.items()}


def all_by_session(backend_name: str) -> dict[str, dict[str, Any]]:
    return {name: by_session(backend_name, case) for name, case in CASES.items()}


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: array.tolist() for name, array in value.items()}
    return value.tolist()


def by_hand(torch: Any, case: Case) -> dict[str, Any]:
    """The same in torch, with its own functions and one batch after the other."""
    model = net(torch, case.batch_norm)
    model.load_state_dict({name: torch.tensor(array) for name, array in start(case.batch_norm).items()})
    model.to(getattr(torch, case.dtype))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in case.frozen)
    named = dict(model.named_parameters())
    members = [[p for name, p in named.items() if name.startswith(prefix)] for prefix in ("body", "head")]
    members.append([p for name, p in named.items() if not name.startswith(("body", "head"))])
    groups = [{"params": ps, "lr": lr} for ps, lr in zip(members, (0.2, 0.2, 0.4), strict=True)]
    optimizer = torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, [FACTORS["step"], FACTORS["cosine"], lambda step: 1.0])
    multi = torch.optim.swa_utils.get_ema_multi_avg_fn(case.ema or 0.0)
    average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=multi, use_buffers=True)
    losses, norms, clip = [], [], dict(case.clip)
    largest = clip.get("clip_grad_norm", float("inf"))
    for (images, labels), parts in zip(batches(case), case.parts, strict=True):
        optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for x, y in zip(np.split(images, parts), np.split(labels, parts), strict=True):
            answer = model(torch.tensor(x, dtype=getattr(torch, case.dtype)))
            loss = torch.nn.functional.cross_entropy(answer, torch.tensor(y))
            (loss / parts).backward()
            total += loss.item() / parts
        losses.append(total)
        norms.append([0.0, *(torch.nn.utils.get_total_norm(_gradients(ps)).item() for ps in members)])
        for ps in members if clip.get("clip_per_group") else [named.values()]:
            if np.isfinite(largest):
                torch.nn.utils.clip_grad_norm_(ps, largest)
        if "clip_grad_value" in clip:
            torch.nn.utils.clip_grad_value_(named.values(), clip["clip_grad_value"])
        optimizer.step()
        scheduler.step()
        average.update_parameters(model)
    answer = {"losses": losses, "weights": _state(model), "norms": norms, "logits": _logits(torch, model, case)}
    if case.ema is not None:
        averaged = average.module
        if case.batch_norm:  # torch averages this count too, rounded down at each update
            averaged.norm.num_batches_tracked.copy_(model.norm.num_batches_tracked)
        answer |= {"ema": _state(averaged), "ema logits": _logits(torch, averaged, case)}
    return answer


def _gradients(parameters: list[Any]) -> list[Any]:
    return [p.grad for p in parameters if p.grad is not None]


def _state(model: Any) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def _logits(torch: Any, model: Any, case: Case) -> NDArray[Any]:
    model.eval()
    with torch.no_grad():
        answer = model(torch.tensor(test_images(), dtype=getattr(torch, case.dtype))).numpy()
    model.train()
    return answer  # type: ignore[no-any-return]
