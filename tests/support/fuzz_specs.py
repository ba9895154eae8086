"""Random specs, options and recipes for the fuzzer: sensible ones, with junk in between."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

import layered_lr as ll
from layered_lr.optimizers import OPTIMIZERS
from layered_lr.schedules import SCHEDULES
from tests.support.fuzz import Target, or_junk
from tests.support.optimizer_cases import TORCH_ONLY

PARAMETERS = [("body.weight", (4, 12)), ("body.bias", (4,)), ("head.weight", (3, 4)), ("head.bias", (3,))]

rates = st.sampled_from([0.0, 1e-3, 0.01, 0.1, 1.0, 1e-30, 1e30, 1e39])
shares = st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.999, 1.0])
counts = st.integers(0, 12)
patterns = st.sampled_from(
    ["body", "head", "*.bias", "*", "re:.*weight", "body.weight", "nothing", ["body", "head"], "0"]
)

_leaf_schedules = st.sampled_from(
    [
        ll.Constant(), ll.StepLR(2), ll.MultiStepLR([1, 3]), ll.ExponentialLR(0.5), ll.LinearLR(), ll.CosineDecay(),
        ll.PolynomialLR(4), ll.CosineAnnealingLR(3), ll.CosineAnnealingWarmRestarts(2, 2), ll.Warmup(2), ll.WSD(1, 2),
        ll.InverseSqrt(2), ll.Table([0.1, 0.2, 0.3]), ll.OneCycleLR(0.1), ll.OneCycleLR(0.1, cycle_momentum=False),
        ll.CyclicLR(0.01, 0.1, step_size_up=2, cycle_momentum=False), ll.ReduceLROnPlateau(),
        ll.StepLR(1, unit="epoch"),
        ll.LambdaLR(lambda step: 0.5), ll.Function(lambda step: 0.1 / (step - 2)), ll.MultiplicativeLR(lambda step: -1),
    ]
)  # fmt: skip
schedules = st.one_of(st.none(), _leaf_schedules)

# Strategies by the name of an argument, whatever takes it. A name that is not here gets numbers and junk.
BY_NAME: dict[str, SearchStrategy[Any]] = {
    "match": patterns,
    "name": st.sampled_from([None, "one", "rest"]),
    "schedule": schedules,
    "schedulers": st.lists(_leaf_schedules, max_size=3),
    "then": schedules,
    "milestones": st.lists(counts, max_size=3),
    "values": st.lists(rates, max_size=4),
    "unit": st.sampled_from(["step", "epoch"]),
    "mode": st.sampled_from(["min", "max", "triangular", "triangular2", "exp_range"]),
    "metric": st.sampled_from(["loss", "accuracy"]),
    "threshold_mode": st.sampled_from(["rel", "abs"]),
    "anneal_strategy": st.sampled_from(["cos", "linear"]),
    "betas": st.tuples(shares, shares),
    "lr_lambda": st.sampled_from([lambda step: 0.5, lambda step: 1 / step, lambda step: "x", "math:sqrt", "no:no"]),
    "function": st.sampled_from([lambda step: 0.5, lambda step: 1 / step, lambda step: None, "math:sqrt"]),
    "until": st.sampled_from([None, 1, 3, "2 steps", "1 epoch", "0.5 epochs"]),
    "frozen": st.sampled_from([None, "body", 0, -1, ["head"], []]),
    "trained": st.sampled_from([None, "body", 0, -1, ["head"]]),
    "counts_from": st.sampled_from(["run", "phase"]),
    "carry": st.sampled_from(["nothing", "momentum"]),
    "batch_norm": st.sampled_from(["still", "moving"]),
    "dropout": st.sampled_from(["on", "off"]),
    "no_weight_decay": st.sampled_from(["1d", (), "*.bias", ["body"]]),
    "every": st.sampled_from(["1 epoch", "3 steps", "1 second", 4]),
    "best_mode": st.sampled_from(["auto", "max", "min"]),
    "best_metric": st.sampled_from(["accuracy", "loss", "f1"]),
    "action": st.sampled_from(["stop", "skip", "rollback"]),
    "dtype": st.sampled_from(["float32", "float64"]),
    "autocast": st.sampled_from([None, "bfloat16", "float16"]),
    **dict.fromkeys(
        ("nesterov", "amsgrad", "maximize", "centered", "cycle_momentum", "optional", "keep_best"), st.booleans()
    ),
    **dict.fromkeys(("momentum", "dampening", "alpha", "rho", "gamma", "factor", "eta_min", "weight_decay"), shares),
    **dict.fromkeys(("lr", "lr_scale", "max_lr", "base_lr", "eps", "clip_grad_norm", "clip_grad_value"), rates),
}
numbers = st.one_of(counts, rates, st.none())


def fields_of(kind: Any) -> Target:
    """A target that makes objects of a value class, with any of its fields."""
    fields = [each for each in dataclasses.fields(kind) if each.init]
    strategies = {each.name: or_junk(BY_NAME.get(each.name, numbers)) for each in fields}
    needed = {
        each.name: strategies[each.name]
        for each in fields
        if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
    }
    return Target(kind.__name__, kind, needed, {name: strategies[name] for name in strategies if name not in needed})


def made(kind: Any, sensible: bool = False) -> SearchStrategy[Any]:
    """Objects of a value class; those whose fields do not go together are left out."""
    target = fields_of(kind)
    own = {name: BY_NAME.get(name, numbers) for name in (*target.arguments, *target.maybe)} if sensible else {}
    arguments = st.fixed_dictionaries(
        {name: own.get(name, each) for name, each in target.arguments.items()},
        optional={name: own.get(name, each) for name, each in target.maybe.items()},
    )

    def make(given: dict[str, Any]) -> Any:
        try:
            return kind(**given)
        except ll.LayeredLRError:
            return None

    return arguments.map(make).filter(lambda value: value is not None)


optimizers = st.one_of(
    st.sampled_from([ll.SGD(0.1), ll.SGD(0.1, momentum=0.9), ll.AdamW(0.01), ll.LAMB(0.01), ll.Lion(0.01)]),
    *(made(kind, sensible=True) for name, kind in OPTIMIZERS.items() if name not in TORCH_ONLY),
)
groups = st.lists(made(ll.Group, sensible=True), max_size=3)
phases = st.one_of(st.just(()), st.lists(made(ll.Phase, sensible=True), max_size=3))
spec_arguments = {"optimizer": optimizers}
spec_options = {
    "groups": groups,
    "schedule": schedules,
    "phases": phases,
    "no_weight_decay": BY_NAME["no_weight_decay"],
    "clip_grad_norm": rates,
}


def make_spec(given: dict[str, Any]) -> ll.Spec:
    """The spec of these arguments, or a plain one."""
    try:
        return ll.Spec(**given)
    except ll.LayeredLRError:
        return ll.Spec(given["optimizer"])


specs = st.fixed_dictionaries(spec_arguments, optional=spec_options).map(make_spec)
lengths = st.one_of(st.none(), st.integers(0, 9), st.sampled_from([10**6]))


def table_of(kind: Any, what: SearchStrategy[str]) -> SearchStrategy[dict[str, Any]]:
    """A table of a recipe, with keys of a class and wild ones."""
    plain = st.one_of(numbers.filter(lambda value: value is not None), st.text(max_size=4), st.booleans(), patterns)
    names = sorted({each.name for one in kind for each in dataclasses.fields(one)})
    return st.builds(
        lambda said, kind_name: {**said, **({} if kind_name is None else {"type": kind_name})},
        st.dictionaries(st.sampled_from([*names, "wild"]), plain, max_size=3),
        what,
    )


recipes = st.fixed_dictionaries(
    {"optimizer": table_of(OPTIMIZERS.values(), st.sampled_from([*OPTIMIZERS, "Momentum"]))},
    optional={
        "schedule": table_of(SCHEDULES.values(), st.sampled_from([*SCHEDULES, "cosine"])),
        "groups": st.lists(table_of([ll.Group], st.none()), max_size=2),
        "phases": st.lists(table_of([ll.Phase], st.none()), max_size=2),
        "clip_grad_norm": rates,
        "wild": st.integers(),
    },
)
