"""Every optimizer, with hyperparameters to hold it against torch's by, on given gradients; and its oracles."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import layered_lr as ll
from layered_lr.optimizers import OPTIMIZERS

Weights = dict[str, NDArray[np.float64]]

CASES: dict[str, ll.Optimizer] = {
    "SGD": ll.SGD(0.05, weight_decay=0.1),
    "SGD momentum": ll.SGD(0.05, momentum=0.8, weight_decay=0.1),
    "SGD nesterov": ll.SGD(0.05, momentum=0.8, weight_decay=0.1, nesterov=True),
    "SGD dampening": ll.SGD(0.05, momentum=0.8, weight_decay=0.1, dampening=0.4),
    "SGD maximize": ll.SGD(0.05, weight_decay=0.1, maximize=True),
    "SGD maximize momentum": ll.SGD(0.05, momentum=0.7, weight_decay=0.1, dampening=0.2, maximize=True),
    "LARS": ll.LARS(0.5, weight_decay=0.1, trust_coefficient=0.1, dampening=0.3),
    "LARS nesterov": ll.LARS(0.5, weight_decay=0.1, trust_coefficient=0.1, momentum=0.7, nesterov=True, maximize=True),
    "LARS plain": ll.LARS(0.5, momentum=0.0, weight_decay=0.1, trust_coefficient=0.1),
    "Adam": ll.Adam(0.01, weight_decay=0.1),
    "Adam odd": ll.Adam(0.01, betas=(0.37, 0.83), weight_decay=0.1, amsgrad=True, maximize=True, eps=1e-3),
    "Adam decoupled": ll.Adam(0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "Adam without memory": ll.Adam(0.01, betas=(0.0, 0.0), weight_decay=0.1),
    "AdamW": ll.AdamW(0.01, betas=(0.95, 0.9995)),
    "AdamW amsgrad": ll.AdamW(0.01, weight_decay=0.1, amsgrad=True, maximize=True),
    "NAdam": ll.NAdam(0.01, weight_decay=0.1),
    "NAdam odd": ll.NAdam(
        0.01, betas=(0.8, 0.9), weight_decay=0.1, momentum_decay=0.1, decoupled_weight_decay=True, maximize=True
    ),
    "RAdam": ll.RAdam(0.01, weight_decay=0.1),
    "RAdam odd": ll.RAdam(0.01, betas=(0.5, 0.97), weight_decay=0.1, decoupled_weight_decay=True, maximize=True),
    "RAdam never rectified": ll.RAdam(0.01, betas=(0.5, 0.6), weight_decay=0.1),
    "Adamax": ll.Adamax(0.01, weight_decay=0.1),
    "Adamax odd": ll.Adamax(0.01, betas=(0.6, 0.7), weight_decay=0.1, eps=1e-2, maximize=True),
    "LAMB": ll.LAMB(0.01, weight_decay=0.1),
    "LAMB odd": ll.LAMB(0.01, betas=(0.6, 0.97), eps=1e-2, weight_decay=0.3, maximize=True),
    "Lion": ll.Lion(0.01, weight_decay=0.1),
    "Lion odd": ll.Lion(0.01, betas=(0.4, 0.6), maximize=True),
    "RMSprop": ll.RMSprop(0.01, weight_decay=0.1),
    "RMSprop odd": ll.RMSprop(0.01, weight_decay=0.1, alpha=0.9, eps=1e-2, momentum=0.7, centered=True, maximize=True),
    "Adagrad": ll.Adagrad(0.1, weight_decay=0.1, initial_accumulator_value=0.1),
    "Adagrad odd": ll.Adagrad(0.1, weight_decay=0.1, lr_decay=0.03, initial_accumulator_value=0.2, eps=1e-3),
    "Adagrad maximize": ll.Adagrad(0.1, weight_decay=0.1, maximize=True),
    "Adadelta": ll.Adadelta(0.7, weight_decay=0.1),
    "Adadelta odd": ll.Adadelta(0.7, weight_decay=0.1, rho=0.99, eps=1e-4, maximize=True),
    "Adafactor": ll.Adafactor(0.1, weight_decay=0.1),
    "Adafactor odd": ll.Adafactor(0.3, beta2_decay=-0.5, eps=(1e-3, 0.2), d=1.5, weight_decay=0.1, maximize=True),
    "Muon": ll.Muon(0.02),
    "Muon odd": ll.Muon(
        0.02, momentum=0.4, nesterov=False, ns_coefficients=(2.0, -1.5, 0.5), ns_steps=3, adjust_lr_fn="match_rms_adamw"
    ),
    "Muon unclamped": ll.Muon(0.02, momentum=0.8, weight_decay=0.0, eps=1e-2, adjust_lr_fn="spectral_unclamped"),
    "ASGD": ll.ASGD(0.05, weight_decay=0.1),
    "ASGD odd": ll.ASGD(0.05, lambd=0.1, alpha=0.5, t0=20.0, weight_decay=0.1, maximize=True),
    "Rprop": ll.Rprop(0.01),
    "Rprop odd": ll.Rprop(0.01, etas=(0.3, 1.4), step_sizes=(1e-3, 0.05), maximize=True),
}
FAMILIES = {
    "descent": ("SGD", "LARS"),
    "Adam": ("Adam", "AdamW"),
    "moments": ("NAdam", "RAdam", "Adamax", "LAMB", "Lion"),
    "squares": ("RMSprop", "Adagrad", "Adadelta", "Adafactor"),
    "others": ("Muon", "ASGD", "Rprop"),
}
TORCH_ONLY = ("SparseAdam", "LBFGS")  # they need sparse gradients, or a closure
SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 4), "b": (4,), "c": (2, 3), "d": (), "e": (5,)}
MATRICES: dict[str, tuple[int, ...]] = {"a": (3, 4), "b": (4, 2), "c": (2, 3), "d": (1, 3), "e": (5, 2)}  # for Muon
COLUMNS, SCALES = {"a": 0, "b": 1, "c": 1, "d": 2, "e": 2}, (1.0, 0.3, 1.0)
UNDECAYED = ("b", "e")


def members(family: str) -> dict[str, ll.Optimizer]:
    """A family's cases."""
    return {name: case for name, case in CASES.items() if type(case).__name__ in FAMILIES[family]}


def fitting(
    case: ll.Optimizer, groups: list[ll.Group], matrices: dict[str, str]
) -> tuple[ll.Optimizer, list[ll.Group]]:
    """The optimizer and the groups of a spec for a model with biases, which AdamW has where the case is Muon.

    Args:
        case: Which one.
        groups: Of a spec for any other case.
        matrices: Of the groups with a matrix: the matrix, by what the group matches.
    """
    if not isinstance(case, ll.Muon):
        return case, groups
    names = {group.label: matrices.get(group.label) for group in groups}
    return ll.AdamW(0.01), [
        group if (name := names[group.label]) is None else replace(group, match=name, name=group.label, optimizer=case)
        for group in groups
    ]


def names_left_out() -> set[str]:
    """Optimizers of the library that no case is of."""
    return set(OPTIMIZERS) - {type(case).__name__ for case in CASES.values()} - {*TORCH_ONLY}


def shapes_of(case: ll.Optimizer | None) -> dict[str, tuple[int, ...]]:
    """The parameters' shapes: all kinds of them, but only matrices for Muon."""
    return MATRICES if isinstance(case, ll.Muon) else SHAPES


def start(seed: int = 1, case: ll.Optimizer | None = None) -> Weights:
    """The weights before the first update."""
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape) for name, shape in shapes_of(case).items()}


def gradients(steps: int, case: ll.Optimizer | None = None) -> list[Weights]:
    """A gradient for every parameter at every step."""
    rng = np.random.default_rng(2)
    return [{name: rng.normal(size=shape) for name, shape in shapes_of(case).items()} for _ in range(steps)]


def rates(case: ll.Optimizer, steps: int) -> NDArray[np.float64]:
    """Random rates of each step and group, before ``lr_scale``; one more than steps, for a scheduler looks ahead."""
    return case.lr * np.random.default_rng(3).uniform(0.2, 2.0, (steps + 1, 3))


def spec_of(case: ll.Optimizer, steps: int) -> ll.Spec:
    """Three groups of other rates at every step, one scaled; in two of them a parameter does not decay."""
    first, second, rest = (ll.Table(column) for column in rates(case, steps).T)
    groups = [ll.Group("a", schedule=first), ll.Group(["b", "c"], lr_scale=SCALES[1], schedule=second)]
    return ll.Spec(case, groups, rest, no_weight_decay=list(UNDECAYED))


def linear(framework: Any, dtype: str, weights: Weights) -> Any:
    """A model whose loss has the very gradients that it is called with, whatever the framework."""

    class Linear(framework.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, values in weights.items():
                tensor = framework.tensor(values, dtype=getattr(framework, dtype))
                self.register_parameter(name, framework.nn.Parameter(tensor))

        def forward(self, *given: Any) -> Any:
            total = 0
            for name, gradient in zip(weights, given, strict=True):
                total = total + (getattr(self, name) * gradient).sum()
            return total

    return Linear()


def tensors(framework: Any, dtype: str, gradient: Weights) -> list[Any]:
    """What ``linear`` is called with."""
    return [framework.tensor(values, dtype=getattr(framework, dtype)) for values in gradient.values()]


def weights_of(model: Any) -> Weights:
    """A copy, in float64."""
    return {name: p.detach().numpy().astype(np.float64) for name, p in model.named_parameters()}


def train_graph(flow: Any, model: Any, bind: Any) -> Any:
    """A graph that makes an update with the gradients that it is called with; ``bind`` gives it its optimizer."""

    class Train(flow.nn.Graph):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.scheduler = bind(self)

        def build(self, *given: Any) -> Any:
            loss = self.model(*given)
            loss.backward()
            return loss

    return Train()


def eager(flow: Any, case: ll.Optimizer, dtype: str, steps: int) -> Weights:
    """The weights after all steps with ``ll.compile``."""
    model = linear(flow, dtype, start(case=case))
    optimizer, scheduler = ll.compile(spec_of(case, steps), model, total_steps=steps)
    for gradient in gradients(steps, case):
        optimizer.zero_grad(set_to_none=True)
        model(*tensors(flow, dtype, gradient)).backward()
        optimizer.step()
        scheduler.step()
    return weights_of(model)


def graph(flow: Any, case: ll.Optimizer, dtype: str, steps: int) -> Weights:
    """The weights after all steps with ``ll.attach``."""
    model = linear(flow, dtype, start(case=case))
    spec = spec_of(case, steps)
    trained = train_graph(flow, model, lambda graph: ll.attach(spec, graph, model, total_steps=steps))
    for gradient in gradients(steps, case):
        trained(*tensors(flow, dtype, gradient))
    flow._oneflow_internal.eager.Sync()
    return weights_of(model)


def by_torch(torch: Any, case: ll.Optimizer, dtype: str, steps: int) -> Weights:
    """The weights after all steps with torch's own optimizer, one param group per parameter."""
    model = linear(torch, dtype, start(case=case))
    options = {**asdict(case), "foreach": False}
    groups = [
        {"params": [p], **options, **({"weight_decay": 0.0} if name in UNDECAYED else {})}
        for name, p in model.named_parameters()
    ]
    # torch reads this one from the optimizer's arguments alone
    start_value = {k: v for k, v in options.items() if k == "initial_accumulator_value"}
    optimizer = getattr(torch.optim, type(case).__name__)(groups, **start_value)
    table = rates(case, steps)
    for step, gradient in enumerate(gradients(steps, case)):
        for group, column in zip(optimizer.param_groups, COLUMNS.values(), strict=True):
            group["lr"] = SCALES[column] * float(table[step, column])
        optimizer.zero_grad()
        model(*tensors(torch, dtype, gradient)).backward()
        optimizer.step()
    return weights_of(model)


def by_paper(case: ll.Optimizer, steps: int) -> Weights:
    """LAMB, LARS and Lion in float64, written from the papers that ``layered_lr.optimizers`` cites."""
    weights = start()
    memory = {name: {"m": 0.0 * w, "v": 0.0 * w} for name, w in weights.items()}
    table = rates(case, steps)
    for step, gradient in enumerate(gradients(steps)):
        for name in weights:
            rate = SCALES[COLUMNS[name]] * table[step, COLUMNS[name]]
            decay = 0.0 if name in UNDECAYED else case.weight_decay
            g = -gradient[name] if case.maximize else gradient[name]
            formula = {ll.LAMB: lamb, ll.LARS: lars, ll.Lion: lion}[type(case)]
            weights[name] = formula(case, weights[name], g, memory[name], rate, decay, step)
    return weights


def lamb(case: Any, w: Any, g: Any, memory: Any, rate: float, decay: float, step: int) -> Any:
    """https://arxiv.org/abs/1904.00962, algorithm 2, with the identity for its scaling function."""
    one, two = case.betas
    memory["m"] = one * memory["m"] + (1 - one) * g
    memory["v"] = two * memory["v"] + (1 - two) * g**2
    m, v = memory["m"] / (1 - one ** (step + 1)), memory["v"] / (1 - two ** (step + 1))
    update = m / (np.sqrt(v) + case.eps) + decay * w
    size, length = np.linalg.norm(w), np.linalg.norm(update)
    return w - rate * (size / length if size > 0 and length > 0 else 1.0) * update


def lars(case: Any, w: Any, g: Any, memory: Any, rate: float, decay: float, step: int) -> Any:
    """https://arxiv.org/abs/1708.03888, algorithm 1, in the form of torch's SGD (see ``layered_lr.LARS``)."""
    size, slope = np.linalg.norm(w), np.linalg.norm(g)
    trust = case.trust_coefficient * size / (slope + decay * size + case.eps) if size > 0 and slope > 0 else 1.0
    g = trust * (g + decay * w)
    if not case.momentum:
        return w - rate * g
    memory["m"] = g if step == 0 else case.momentum * memory["m"] + (1 - case.dampening) * g
    return w - rate * (g + case.momentum * memory["m"] if case.nesterov else memory["m"])


def lion(case: Any, w: Any, g: Any, memory: Any, rate: float, decay: float, step: int) -> Any:
    """https://arxiv.org/abs/2302.06675, algorithm 2."""
    one, two = case.betas
    update = np.sign(one * memory["m"] + (1 - one) * g)
    memory["m"] = two * memory["m"] + (1 - two) * g
    return w - rate * (update + decay * w)


def apart(one: Weights, other: Weights) -> float:
    """The largest difference of a parameter, by how far that parameter moved."""
    from_start = start(case=ll.Muon() if one["b"].ndim == 2 else None)
    return max(
        float(np.max(np.abs(one[name] - other[name])) / np.max(np.abs(other[name] - from_start[name])))
        for name in SHAPES
    )
