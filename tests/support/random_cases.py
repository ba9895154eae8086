"""Random trainings as plain data, which the library and a loop written by hand both can make.

A case is a table such as TOML has: a spec as ``Spec.from_dict`` reads it, and beside it how to run it. Each value is
chosen by a function that is given a list, so that a seed can choose (``case_of_seed``) or a fuzzer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Case = dict[str, Any]
Pick = Callable[[Sequence[Any]], Any]

MODULES = ("body", "norm", "head")
FEATURES, HIDDEN, CLASSES = 12, 5, 3
BATCH, BATCHES_OF_EPOCH, TEST = 4, 5, 7

# What each optimizer may be given, at rates at which the small net of `hand_training` trains.
_OPTIMIZERS: dict[str, dict[str, list[Any]]] = {
    "SGD": {"lr": [0.1, 0.3], "momentum": [0.0, 0.5, 0.9], "dampening": [0.0, 0.3]},
    "LARS": {"lr": [0.5, 2.0], "momentum": [0.0, 0.9], "trust_coefficient": [0.01, 0.1], "dampening": [0.0, 0.2]},
    "Adam": {
        "lr": [0.01, 0.05],
        "betas": [[0.9, 0.999], [0.5, 0.8]],
        "eps": [1e-8, 1e-3],
        "amsgrad": [False, True],
        "decoupled_weight_decay": [False, True],
    },
    "AdamW": {"lr": [0.01, 0.05], "betas": [[0.9, 0.999], [0.7, 0.9]], "amsgrad": [False, True]},
    "NAdam": {
        "lr": [0.01, 0.05],
        "betas": [[0.9, 0.999], [0.6, 0.9]],
        "momentum_decay": [4e-3, 0.1],
        "decoupled_weight_decay": [False, True],
    },
    "RAdam": {"lr": [0.01, 0.05], "betas": [[0.9, 0.999], [0.5, 0.9]], "decoupled_weight_decay": [False, True]},
    "Adamax": {"lr": [0.01, 0.05], "betas": [[0.9, 0.999], [0.6, 0.7]], "eps": [1e-8, 1e-2]},
    "LAMB": {"lr": [0.01, 0.05], "betas": [[0.9, 0.999], [0.6, 0.97]], "eps": [1e-6, 1e-2]},
    "Lion": {"lr": [1e-3, 0.01], "betas": [[0.9, 0.99], [0.4, 0.6]]},
    "RMSprop": {
        "lr": [1e-3, 0.01],
        "alpha": [0.99, 0.8],
        "eps": [1e-8, 1e-2],
        "momentum": [0.0, 0.7],
        "centered": [False, True],
    },
    "Adagrad": {"lr": [0.05, 0.2], "lr_decay": [0.0, 0.05], "initial_accumulator_value": [0.0, 0.2]},
    "Adadelta": {"lr": [0.5, 1.0], "rho": [0.9, 0.99], "eps": [1e-6, 1e-3]},
    "Adafactor": {
        "lr": [0.05, 0.2],
        "beta2_decay": [-0.8, -0.5],
        "eps": [[1e-16, 1e-3], [1e-3, 0.2]],
        "d": [1.0, 1.5],
    },
    "ASGD": {"lr": [0.05, 0.2], "lambd": [1e-4, 0.1], "alpha": [0.75, 0.5], "t0": [3.0, 1e6]},
    "Rprop": {"lr": [0.01, 0.03], "etas": [[0.5, 1.2], [0.3, 1.4]], "step_sizes": [[1e-6, 50.0], [1e-3, 0.05]]},
}
_MUON: dict[str, list[Any]] = {
    "lr": [0.02, 0.1],
    "momentum": [0.95, 0.5],
    "nesterov": [True, False],
    "ns_steps": [5, 1],
    "adjust_lr_fn": ["original", "match_rms_adamw"],
    "weight_decay": [0.1, 0.0],
}
_MULTIPLYING: list[Case] = [
    {"type": "StepLR", "step_size": 2, "gamma": 0.5},
    {"type": "StepLR", "step_size": 3, "gamma": 1.2},
    {"type": "MultiStepLR", "milestones": [2, 3, 7], "gamma": 0.3},
    {"type": "ConstantLR", "factor": 0.25, "total_iters": 3},
    {"type": "LinearLR", "start_factor": 0.2, "end_factor": 0.8, "total_iters": 4},
    {"type": "ExponentialLR", "gamma": 0.85},
    {"type": "PolynomialLR", "total_iters": 20, "power": 2.0},
]
_FROM_TORCH: list[Case] = [
    *_MULTIPLYING,
    {"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.0, "total_iters": 5},
    {"type": "PolynomialLR", "total_iters": 5, "power": 0.5},
    {"type": "CosineAnnealingLR", "T_max": 4, "eta_min": 0.001},
    {"type": "CosineAnnealingLR", "T_max": 30},
    {"type": "CosineAnnealingWarmRestarts", "T_0": 3, "T_mult": 2, "eta_min": 1e-4},
    {"type": "CosineAnnealingWarmRestarts", "T_0": 2},
]
_ALONE: list[Case] = [
    {"type": "Constant"},
    {"type": "CosineDecay"},
    {"type": "CosineDecay", "warmup_steps": 3, "min_lr": 1e-3, "warmup_lr": 1e-4},
    {"type": "CosineDecay", "total_steps": 6, "warmup_steps": 1, "min_lr_rate": 0.1, "num_cycles": 1.5},
    {"type": "CosineDecay", "warmup_steps": 2, "warmup_prefix": False},
    {"type": "InverseSqrt", "warmup_steps": 3},
    {"type": "InverseSqrt", "warmup_steps": 0, "timescale": 4},
    {"type": "WSD", "warmup_steps": 2, "decay_steps": 2, "decay_type": "1-sqrt"},
    {"type": "WSD", "warmup_steps": 1, "decay_steps": 2, "stable_steps": 3, "min_lr_ratio": 0.1},
    {"type": "Table", "values": [0.01, 0.02, 0.005, 0.02, 0.0, 0.01] * 3},
    {"type": "Table", "values": [1.0, 0.5, 0.25] * 5, "factor": True},
]
_SETS_RATES: list[Case] = [
    {"type": "CyclicLR", "base_lr": 0.005, "max_lr": 0.03, "step_size_up": 2, "cycle_momentum": False},
    {
        "type": "CyclicLR",
        "base_lr": 0.005,
        "max_lr": 0.03,
        "step_size_up": 2,
        "step_size_down": 3,
        "mode": "triangular2",
        "base_momentum": 0.5,
    },
    {"type": "OneCycleLR", "max_lr": 0.03, "cycle_momentum": False},
    {"type": "OneCycleLR", "max_lr": 0.03, "three_phase": True, "anneal_strategy": "linear", "base_momentum": 0.6},
    {"type": "OneCycleLR", "max_lr": 0.02, "total_steps": 40, "pct_start": 0.1, "div_factor": 5.0},
]
_CLIPS: list[Case] = [
    {"clip_grad_norm": 0.3},
    {"clip_grad_norm": 0.2, "clip_per_group": True},
    {"clip_grad_value": 0.05},
]
_SCHEDULES = ("none", "torch", "torch", "alone", "alone", "sets", "plateau", "sequence", "chain", "warmup", "epochs")
_PLATEAUS: list[Case] = [
    {"type": "ReduceLROnPlateau", "unit": "step", "patience": 0, "factor": 0.5, "threshold": 0.05},
    {"type": "ReduceLROnPlateau", "unit": "step", "patience": 1, "factor": 0.3, "cooldown": 1, "min_lr": 1e-3},
    {"type": "ReduceLROnPlateau", "patience": 0, "factor": 0.5, "threshold": 0.2},
    {"type": "ReduceLROnPlateau", "metric": "accuracy", "mode": "max", "patience": 0, "factor": 0.6},
]


def case_of_seed(seed: int) -> Case:
    """A case; the same one for the same seed."""
    rng = np.random.default_rng([40, seed])
    return draw_case(lambda options: options[int(rng.integers(len(options)))])


def draw_case(pick: Pick) -> Case:
    """A case of which each part is picked from a list; the first of each list is the simplest."""
    optimizer = draw_optimizer(pick)
    has_norm = pick([False, False, True])
    dtype = pick(["float64", "float64", "float32"])
    case: Case = {
        "spec": {"optimizer": optimizer},
        "norm": has_norm,
        "dtype": "float64" if has_norm else dtype,  # in float32 each framework's batch normalisation rounds as it likes
        "max_steps": pick([8, 10, 12]),
        "accumulate_steps": pick([1, 1, 2, 3]),
        "ema_decay": pick([None, None, 0.9, 0.5]),
        "seed": pick(list(range(8))),
    }
    spec = case["spec"]
    phases = _draw_phases(pick, optimizer, has_norm)
    one_kind = all(phase.get("optimizer", optimizer)["type"] == optimizer["type"] for phase in phases)
    schedule = _draw_schedule(pick, optimizer, moves_momentum=one_kind)
    if schedule is not None:
        spec["schedule"] = schedule
    spec["groups"] = _draw_groups(pick, optimizer, one_kind, has_norm)
    if pick([False, False, True]):
        spec["no_weight_decay"] = pick(["1d", ["body"], "*.bias"])
    clip = pick(
        [{}, {}, {"clip_grad_norm": 0.3}, {"clip_grad_norm": 0.2, "clip_per_group": True}, {"clip_grad_value": 0.05}]
    )
    spec.update(clip)
    if phases:
        spec["phases"] = phases
    if not any({"carry", "momentum_warmup"} & set(phase) for phase in phases):  # these are for all groups at once
        _draw_mix(pick, case)
    return case


def _draw_mix(pick: Pick, case: Case) -> None:
    """Give a group an optimizer of its own, at times."""
    spec = case["spec"]
    how = pick(["one kind", "one kind", "a mix", "Muon"])
    if how == "Muon" and not case["norm"] and case["dtype"] == "float64":  # all weights are matrices
        muon = {"type": "Muon", **{name: pick(values) for name, values in _MUON.items()}}
        _take_own(pick, {"match": "*.weight"}, muon, spec["groups"], 0)
    elif how == "a mix":
        places = [place for place, group in enumerate(spec["groups"]) if not group.get("optional")]
        if places:
            place = pick(places)
            group = {key: value for key, value in spec["groups"].pop(place).items() if key in ("match", "lr_scale")}
            _take_own(pick, group, draw_optimizer(pick), spec["groups"], place)


def _take_own(pick: Pick, group: Case, optimizer: Case, groups: list[Case], place: int) -> None:
    """Put a group with its own optimizer, and a schedule that leaves its momentum alone, among the groups."""
    schedule = _draw_schedule(pick, optimizer, moves_momentum=False) or {"type": "Constant"}
    groups.insert(place, {**group, "optimizer": optimizer, "schedule": schedule})


def kinds_of(case: Case) -> set[str]:
    """The optimizers that a case has, in groups and phases too."""
    spec = case["spec"]
    holders = [spec, *spec["groups"], *spec.get("phases", ())]
    return {holder["optimizer"]["type"] for holder in holders if "optimizer" in holder}


def parts_in(case: Case) -> set[str]:
    """All that a case has in it: its optimizers and schedules, and the names of what it sets."""
    spec = case["spec"]
    phases = spec.get("phases", ())
    tables = [each["schedule"]["type"] for each in (spec, *spec["groups"], *phases) if each.get("schedule")]
    said = [name for name in (*spec, *case) if spec.get(name) or case.get(name)]
    return {*kinds_of(case), *tables, *said, *(f"phase: {name}" for phase in phases for name in phase)}


def seeds_of_all_parts(seeds: Iterable[int]) -> list[int]:
    """Those of some seeds whose case has something in it that none before it has."""
    known: set[str] = set()
    kept = []
    for seed in seeds:
        parts = parts_in(case_of_seed(seed))
        if parts - known:
            kept.append(seed)
            known |= parts
    return kept


def draw_optimizer(pick: Pick, kinds: Sequence[str] = tuple(_OPTIMIZERS)) -> Case:
    """The table of an optimizer of one of these kinds."""
    kind = pick(kinds)
    table = {"type": kind, **{name: pick(values) for name, values in _OPTIMIZERS[kind].items()}}
    if kind != "Rprop":  # which has none
        table["weight_decay"] = pick([0.0, 0.1])
    table["maximize"] = pick([False, False, False, True])
    if kind in ("SGD", "LARS"):  # where torch allows it
        table["nesterov"] = pick([False, True]) if table["momentum"] and not table["dampening"] else False
    return table


def has_momentum(optimizer: Case) -> bool:
    """Whether a schedule can move the momentum of an optimizer."""
    return "betas" in optimizer or optimizer.get("momentum", 0.0) > 0


def _draw_schedule(pick: Pick, optimizer: Case, moves_momentum: bool) -> Case | None:
    kind = pick(
        ["none", "torch", "torch", "alone", "alone", "sets", "plateau", "sequence", "chain", "warmup", "epochs"]
    )
    if kind == "none":
        return None
    if kind == "torch":
        return dict(pick(_FROM_TORCH))
    if kind == "alone":
        return dict(pick(_ALONE))
    if kind == "sets":
        table = dict(pick(_SETS_RATES))
        if not (moves_momentum and has_momentum(optimizer)):
            table["cycle_momentum"] = False
        return table
    if kind == "plateau":
        return dict(pick(_PLATEAUS))
    if kind == "sequence":
        return {
            "type": "SequentialLR",
            "schedulers": [pick(_FROM_TORCH) for _ in range(3)],
            "milestones": pick([[2, 5], [1, 3]]),
        }
    if kind == "chain":
        return {"type": "ChainedScheduler", "schedulers": [pick(_MULTIPLYING), pick(_FROM_TORCH[:-2])]}
    if kind == "warmup":
        shape = pick([{}, {"mode": "exponential", "start_factor": 0.1}, {"mode": "constant", "start_factor": 0.2}])
        return {
            "type": "Warmup",
            "warmup_steps": pick([2, 3]),
            "then": pick([*_FROM_TORCH, _ALONE[1], _PLATEAUS[0]]),
            **shape,
        }
    table = {**pick([*_FROM_TORCH, _ALONE[9]]), "unit": "epoch"}
    if table["type"] == "CosineAnnealingWarmRestarts" and pick([False, True]):
        table["every_step"] = True
    return table


def _draw_groups(pick: Pick, optimizer: Case, one_kind: bool, has_norm: bool) -> list[Case]:
    names = pick([["body"], ["head", "body"], [], ["head"], ["body", "head"]])
    groups = []
    for name in names:
        group: Case = {"match": name}
        if pick([False, True]):
            group["lr_scale"] = pick([0.5, 0.1, 0.0, 2.0])
        if pick([False, False, True]):
            group["lr"] = optimizer["lr"] * pick([0.5, 1.5])
        if pick([False, False, True]) and one_kind and optimizer["type"] != "Rprop":
            group["weight_decay"] = pick([0.0, 0.05])
        if pick([False, False, True]):
            own = _draw_schedule(pick, optimizer, moves_momentum=False)
            if own is not None:
                group["schedule"] = own
        if one_kind and pick([False, False, True]):
            if "betas" in optimizer:
                group["betas"] = pick([[0.8, 0.95], [0.0, 0.5]])
            elif optimizer.get("momentum", 0.0) > 0:
                group["momentum"] = pick([0.3, 0.6])
        groups.append(group)
    if has_norm and pick([False, True]):
        groups.append({"match": "norm", "lr_scale": 0.7})
    if pick([False, False, True]):
        groups.insert(0, {"match": "nothing*", "optional": True, "lr_scale": 0.3})
    return groups


def _draw_phases(pick: Pick, optimizer: Case, has_norm: bool) -> list[Case]:
    if pick([True, False]):
        return []
    phases: list[Case] = []
    before = optimizer
    for until in pick([["3 steps", None], ["1 epoch", None], ["2 steps", "5 steps"], ["1 steps", "4 steps", None]]):
        phase: Case = {} if until is None else {"until": until}
        named = pick([None, ["head"], ["body"], ["body", "norm"] if has_norm else ["*.bias"]])
        if named is not None:
            phase[pick(["frozen", "trained"])] = named
        own = pick(["same", "same", "same", "tuned", "other"])
        if own == "tuned":  # of the same kind: its state goes on
            before = {**before, "lr": before["lr"] * 0.5}
            if before["type"] != "Rprop":
                before["weight_decay"] = pick([0.0, 0.02])
            phase["optimizer"] = before
        elif own == "other":
            new = draw_optimizer(pick)
            phase["optimizer"] = new
            if new["type"] != before["type"] and phases and new["type"] in ("SGD", "LARS", "RMSprop"):
                if new.get("momentum") and pick([False, True]):
                    phase["momentum_warmup"] = 3
                elif can_carry(before, new) and pick([False, True]):
                    phase["carry"] = "momentum"
            elif new["type"] != before["type"] and phases and can_carry(before, new) and pick([False, True]):
                phase["carry"] = "momentum"
            before = new
        else:
            before = optimizer
        if pick([False, False, True]):
            phase["schedule"] = dict(pick([*_FROM_TORCH, *_ALONE[:9]]))
            phase["counts_from"] = pick(["run", "phase"])
        if pick([False, False, False, True]) and phase.get("optimizer", optimizer)["type"] != "Rprop":
            phase["weight_decay"] = 0.03
        if pick([False, False, False, True]):
            phase.update(pick([{"clip_grad_norm": 0.1}, {"clip_grad_value": 0.02}]))
        phases.append(phase)
    return phases


def can_carry(old: Case, new: Case) -> bool:
    """Whether an optimizer takes over the running gradient of another one."""
    has_one = "betas" in old or (old["type"] in ("SGD", "LARS") and old.get("momentum", 0.0) > 0)
    return has_one and (new["type"] == "Lion" or (new["type"] in ("SGD", "LARS") and new.get("momentum", 0.0) > 0))


def start_weights(case: Case) -> dict[str, NDArray[np.float64]]:
    """The state that a case's training begins with."""
    rng = np.random.default_rng([1, case["seed"]])
    start = {
        "body.weight": 0.5 * rng.standard_normal((HIDDEN, FEATURES)),
        "head.weight": 0.5 * rng.standard_normal((CLASSES, HIDDEN)),
        "head.bias": 0.5 * rng.standard_normal(CLASSES),
    }
    if case["norm"]:
        start |= {"norm.weight": np.ones(HIDDEN) + 0.1 * rng.standard_normal(HIDDEN), "norm.bias": np.zeros(HIDDEN)}
        start |= {"norm.running_mean": np.zeros(HIDDEN), "norm.running_var": np.ones(HIDDEN)}
    else:  # in front of a batch normalisation a bias has no gradient but rounding
        start["body.bias"] = 0.5 * rng.standard_normal(HIDDEN)
    return start


def batch(case: Case, step: int, parts: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The images and labels of an update, all of its parts one behind the other."""
    rng = np.random.default_rng([2, case["seed"], step])
    size = BATCH * parts
    return rng.standard_normal((size, 3, 2, 2)).astype(np.float32), rng.integers(0, CLASSES, size)


def held_out_images(case: Case) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """What the accuracy is measured on."""
    rng = np.random.default_rng([3, case["seed"]])
    return rng.standard_normal((TEST, 3, 2, 2)).astype(np.float32), rng.integers(0, CLASSES, TEST)


def parts_of(case: Case, step: int) -> int:
    """How many batches make an update; the last one of an epoch may have fewer."""
    together = case["accumulate_steps"]
    done = step % updates_of_epoch(case) * together
    return min(together, BATCHES_OF_EPOCH - done)


def updates_of_epoch(case: Case) -> int:
    """How many updates an epoch has."""
    return -(-BATCHES_OF_EPOCH // case["accumulate_steps"])
