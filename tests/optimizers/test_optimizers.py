"""Optimizers as data: torch's own signatures are the oracle of names, defaults and bounds."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import layered_lr as ll
from layered_lr.optimizers import OPTIMIZERS
from layered_lr.spec.groups import HYPERPARAMETERS
from tests.support.old_torch import torch_release

FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=30)
KINDS = [pytest.param(kind, id=name) for name, kind in OPTIMIZERS.items()]
OWN = ("LAMB", "LARS", "Lion")
TORCHS = [pytest.param(name, id=name) for name in OPTIMIZERS if name not in OWN]
SINCE = {"Muon": (2, 9), "Adafactor": (2, 5)}  # the first release of torch that has it
ELSEWHERE = {"params", "capturable", "differentiable"}  # what torch's constructors have and specs leave out


@pytest.mark.parametrize("name", TORCHS)
def test_names_and_defaults_are_torchs(torch: Any, name: str) -> None:
    if torch_release() < SINCE.get(name, (0, 0)):
        pytest.skip(f"torch has {name} since {SINCE[name]}")
    signature = inspect.signature(getattr(torch.optim, name)).parameters
    theirs = {parameter: value.default for parameter, value in signature.items() if parameter not in ELSEWHERE}
    ours = {field.name: field.default for field in fields(OPTIMIZERS[name])}
    for lacking in OPTIMIZERS[name].__lacks__:
        assert not ours.pop(lacking)
        assert name == "LBFGS" or lacking not in theirs  # whose maximize is not in every release
        theirs.pop(lacking, None)
    if name == "Muon":
        assert ours.pop("flatten") is False
    if name == "Adam" and torch_release() < (2, 7):
        assert ours.pop("decoupled_weight_decay") is False or "decoupled_weight_decay" in theirs
        theirs.pop("decoupled_weight_decay", None)
    assert ours == theirs


GROUPED = [pytest.param(kind, id=name) for name, kind in OPTIMIZERS.items() if kind is not ll.LBFGS]  # it has no groups


@pytest.mark.parametrize("kind", GROUPED)
def test_a_group_may_override_every_hyperparameter(kind: type[Any]) -> None:
    assert {field.name for field in fields(kind)} - {"foreach", "fused"} <= {*HYPERPARAMETERS}


@pytest.mark.parametrize("name", TORCHS)
def test_values_are_refused_where_torch_refuses_them(torch: Any, name: str) -> None:
    """Each number in turn is negative, NaN, at its limit or beyond; torch takes more of NaN and infinity."""
    if torch_release() < SINCE.get(name, (0, 0)):
        pytest.skip(f"torch has {name} since {SINCE[name]}")
    kind = OPTIMIZERS[name]
    for field in [field for field in fields(kind) if field.name not in kind.__lacks__]:
        for value in _probes(field.default):
            chosen = {field.name: value}
            if _refuses(lambda g=chosen: getattr(torch.optim, name)([torch.zeros(1, 1)], **g)):
                assert _refuses(lambda g=chosen: kind(**g)), f"torch refuses {chosen}"


def _probes(default: Any) -> list[Any]:
    if isinstance(default, tuple):
        pairs = [(0.9, beta) for beta in (-0.1, 1.0, 1.5)] + [(beta, 0.9) for beta in (-0.1, 1.0, 1.5)]
        return [*pairs, (0.0, 0.0)]
    return [] if default is None or isinstance(default, bool) else [-1.0, -1e-9, 0.0, 1.0, 2.0]


def _refuses(make: Any) -> bool:
    try:
        make()
    except ValueError:
        return True
    return False


WRONG = [
    (lambda: ll.SGD(-0.1), r"SGD\(lr=-0.1\).*>= 0"),
    (lambda: ll.SGD(math.nan), r"SGD\(lr=nan\).*finite"),
    (lambda: ll.SGD(math.inf), r"SGD\(lr=inf\).*finite"),
    (lambda: ll.SGD("0.1"), r"lr='0.1'.*number"),
    (lambda: ll.SGD(True), r"lr=True.*number"),
    (lambda: ll.SGD(momentum=-1), "momentum"),
    (lambda: ll.SGD(dampening=math.nan), "dampening.*finite"),
    (lambda: ll.SGD(weight_decay=-1e-4), "weight_decay.*>= 0"),
    (lambda: ll.SGD(nesterov=True), "nesterov needs momentum > 0"),
    (lambda: ll.SGD(momentum=0.9, dampening=0.1, nesterov=True), "nesterov needs dampening=0"),
    (lambda: ll.SGD(nesterov=1), "nesterov must be true or false"),
    (lambda: ll.LARS(momentum=0.0, nesterov=True), "nesterov needs momentum > 0"),
    (lambda: ll.LARS(trust_coefficient=-1), "trust_coefficient"),
    (lambda: ll.SGD(momentun=0.9), "SGD has no 'momentun'. Did you mean 'momentum'"),
    (lambda: ll.SGD(betas=(0.9, 0.99)), "SGD has no 'betas'"),
    (lambda: ll.Adam(beta=(0.9, 0.99)), "Adam has no 'beta'. Did you mean 'betas'"),
    (lambda: ll.Adam(momentum=0.9), "Adam has no 'momentum'"),
    (lambda: ll.NAdam(fused=True), "NAdam has no 'fused'"),
    (lambda: ll.Adam(betas=0.9), "betas=0.9: must be two numbers"),
    (lambda: ll.Adam(betas=(0.9,)), "betas.*two numbers"),
    (lambda: ll.Adam(betas=(0.9, 0.99, 0.999)), "betas.*two numbers"),
    (lambda: ll.Adam(betas=(0.9, 1.0)), "betas.*< 1"),
    (lambda: ll.Adam(betas=(-0.1, 0.9)), "betas.*>= 0"),
    (lambda: ll.Adam(betas=(math.nan, 0.9)), "betas"),
    (lambda: ll.Adam(betas=("0.9", 0.9)), "betas"),
    (lambda: ll.Adam(betas=(True, 0.9)), "betas"),
    (lambda: ll.Adam(eps=-1e-8), "eps"),
    (lambda: ll.Adam(foreach=True, fused=True), "only one of them"),
    (lambda: ll.RMSprop(alpha=1.5), "alpha"),
    (lambda: ll.Adadelta(rho=-0.1), "rho"),
    (lambda: ll.Adagrad(lr_decay=-0.1), "lr_decay"),
    (lambda: ll.Adagrad(initial_accumulator_value=-1), "initial_accumulator_value"),
    (lambda: ll.NAdam(momentum_decay=-1), "momentum_decay"),
    (lambda: ll.Spec(ll.SGD(), [ll.Group("a", betas=(0.9, 0.99))]), "'a' sets betas, which SGD does not have"),
    (lambda: ll.Spec(ll.Adam(), [ll.Group("a", momentum=0.9)]), "'a' sets momentum, which Adam does not have"),
    (lambda: ll.Spec(ll.SGD(), [ll.Group("a", nesterov=True)]), "group 'a': .*momentum > 0"),
    (lambda: ll.Muon(maximize=True), "Muon has no maximize"),
    (lambda: ll.Muon(foreach=True), "Muon has no foreach"),
    (lambda: ll.Muon(ns_steps=100), r"ns_steps=100.*< 100"),
    (lambda: ll.Muon(ns_coefficients=(1, 2)), "ns_coefficients=.*three finite numbers"),
    (lambda: ll.Muon(adjust_lr_fn="best"), "adjust_lr_fn='best'.*'original'"),
    (lambda: ll.Adafactor(eps=1e-3), "eps=0.001: must be two numbers"),
    (lambda: ll.Adafactor(d=0.5), "d=0.5.*>= 1"),
    (lambda: ll.Adafactor(beta2_decay=0.1), "beta2_decay=0.1.*<= 0"),
    (lambda: ll.Rprop(etas=(1.2, 0.5)), "etas=.*0 < first < 1 < second"),
    (lambda: ll.Rprop(step_sizes=(2, 1)), "step_sizes=.*first <= second"),
    (lambda: ll.Rprop(weight_decay=0.1), "Rprop has no weight_decay"),
    (lambda: ll.SparseAdam(0.0), r"SparseAdam\(lr=0.0\).*> 0"),
    (lambda: ll.LBFGS(max_iter=0), "max_iter=0.*>= 1"),
    (lambda: ll.Spec(ll.LBFGS(), [ll.Group("a")]), "Leave groups out"),
    (lambda: ll.Spec(ll.LBFGS(), phases=[ll.Phase()]), "Leave phases out"),
    (lambda: ll.Spec(ll.AdamW(), [ll.Group("a", optimizer=ll.LBFGS())]), "group 'a': .*all parameters as one vector"),
    (lambda: ll.Group("a", optimizer="Muon"), "optimizer='Muon': must be an optimizer of layered_lr"),
    (lambda: ll.Group("a", optimizer=ll.Muon), "optimizer=.*must be an optimizer of layered_lr"),
    (lambda: ll.Spec(ll.AdamW(), [ll.Group("a", optimizer=ll.Muon(), betas=(0.9, 0.9))]), "betas, which Muon does not"),
    (lambda: ll.Spec(ll.Muon(), [ll.Group("a", optimizer=ll.AdamW(), momentum=0.9)]), "momentum, which AdamW does not"),
    (lambda: ll.Spec(ll.SGD(), [ll.Group("a", optimizer=ll.Rprop(), weight_decay=0.1)]), "'a': .*has no weight_decay"),
    (
        lambda: ll.Spec.from_dict({"optimizer": {"type": "SGD"}, "groups": [{"match": "a", "optimizer": "Muon"}]}),
        "table",
    ),
    (
        lambda: ll.resolve(ll.Spec(ll.Muon()), [("w", (2, 2)), ("b", (2,)), ("c", (3,))]),
        "'b' and 1 more",
    ),
    (lambda: ll.resolve(ll.Spec(ll.Muon()), [("conv", (4, 3, 2, 2))]), r"'rest': .*'conv'.*flatten=True"),
    (lambda: ll.Group("a", betas=(0.9, 1.0)), "betas"),
    (lambda: ll.Group("a", beta=(0.9, 1.0)), "Group has no 'beta'. Did you mean 'betas'"),
    (lambda: ll.Group("a", eps=-1.0), "eps"),
    (lambda: ll.Spec(ll.SGD(), clip_grad_norm=0), "clip_grad_norm=0.*> 0"),
    (lambda: ll.Spec(ll.SGD(), clip_grad_norm=-1.0), "clip_grad_norm=-1.*> 0"),
    (lambda: ll.Spec(ll.SGD(), clip_grad_norm=math.nan), "clip_grad_norm=nan"),
    (lambda: ll.Spec(ll.SGD(), clip_grad_norm=True), "clip_grad_norm=True"),
    (lambda: ll.Spec(ll.SGD(), clip_grad_value=0.0), "clip_grad_value"),
    (lambda: ll.Spec(ll.SGD(), clip_grad_value=math.inf), "clip_grad_value"),
    (lambda: ll.Spec(ll.SGD(), clip_grad_norm=1.0, clip_grad_value=1.0), "give only one of them"),
    (lambda: ll.Spec(ll.SGD(), clip_per_group=True), "give clip_grad_norm"),
    (lambda: ll.Spec(ll.SGD(), no_weight_decay=3), "no_weight_decay=3"),
    (lambda: ll.Spec(ll.SGD(), no_weight_decay=["re:("]), "no_weight_decay"),
    (lambda: ll.run(ll.Spec(ll.SGD()), accumulate_steps=0), "accumulate_steps"),
    (lambda: ll.run(ll.Spec(ll.SGD()), accumulate_steps=1.5), "accumulate_steps"),
    (lambda: ll.run(ll.Spec(ll.SGD()), ema_decay=1.0), "ema_decay"),
    (lambda: ll.run(ll.Spec(ll.SGD()), ema_decay=-0.1), "ema_decay"),
    (lambda: ll.run(ll.Spec(ll.SGD()), precision=ll.Precision("float16")), "dtype"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[f"{at:02}" for at in range(len(WRONG))])
def test_wrong_input_is_a_spec_error(make: Any, message: str) -> None:
    with pytest.raises(ll.SpecError, match=message):
        make()


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(),
    st.text(max_size=3),
    st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
    st.lists(st.floats(), max_size=3),
)


@FIXED
@given(data=st.data())
@pytest.mark.parametrize("kind", KINDS)
def test_any_values_make_an_optimizer_or_a_spec_error(kind: type[Any], data: st.DataObject) -> None:
    names = [field.name for field in fields(kind)]
    arguments = data.draw(st.dictionaries(st.sampled_from([*names, "unheard_of"]), anything))
    try:
        made = kind(**arguments)
    except ll.SpecError:
        return
    assert hash(made) == hash(replace(made))
    spec = ll.Spec(made)
    assert ll.Spec.from_toml(spec.to_toml()) == spec


values = {
    "betas": st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)),
    "alpha": st.floats(0, 1),
    "rho": st.floats(0, 1),
    "nesterov": st.just(False),
    "beta2_decay": st.floats(-3, 0),
    "d": st.floats(1, 1e3),
    "etas": st.tuples(st.floats(0.01, 0.99), st.floats(1.01, 9)),
    "step_sizes": st.tuples(st.floats(0, 1), st.floats(1, 99)),
    "ns_coefficients": st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.floats(-9, 9)),
    "ns_steps": st.integers(0, 99),
    "adjust_lr_fn": st.sampled_from(["original", "match_rms_adamw", "spectral_unclamped"]),
}
_PAIR = st.tuples(st.none() | st.floats(0, 1), st.floats(0, 1))


def good(kind: type[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Hyperparameters that an optimizer takes."""

    def of(field: Any) -> st.SearchStrategy[Any]:
        if field.name in kind.__lacks__:
            return st.just(field.default)
        if kind is ll.Adafactor and field.name == "eps":
            return _PAIR
        if kind is ll.SparseAdam and field.name in ("lr", "eps"):
            return st.floats(1e-9, 1e3)
        known = st.booleans() if isinstance(field.default, bool) else st.floats(0, 1e3)
        return values.get(field.name, known)

    return st.fixed_dictionaries({}, optional={f.name: of(f) for f in fields(kind) if f.name in HYPERPARAMETERS})


@FIXED
@given(data=st.data())
@pytest.mark.parametrize("kind", GROUPED)
def test_toml_keeps_everything(kind: type[Any], data: st.DataObject) -> None:
    spec = ll.Spec(
        kind(**data.draw(good(kind))),
        [ll.Group("a", **data.draw(good(kind)))],
        no_weight_decay=data.draw(st.sampled_from([(), "1d", ["re:.*bias", "a"]])),
        **data.draw(st.sampled_from([{}, {"clip_grad_norm": 0.5, "clip_per_group": True}, {"clip_grad_value": 2.0}])),
    )
    assert ll.Spec.from_toml(spec.to_toml()) == spec
    assert ll.Spec.from_dict(spec.to_dict()) == spec


@FIXED
@given(data=st.data())
@pytest.mark.parametrize("kind", GROUPED)
def test_a_groups_values_take_the_place_of_the_optimizers(kind: type[Any], data: st.DataObject) -> None:
    usual, own = kind(**data.draw(good(kind))), data.draw(good(kind))
    spec = ll.Spec(usual, [ll.Group("a", **own)])
    groups = ll.resolve(spec, [("a", (2, 2)), ("b", (2, 3))]).groups
    assert groups[0].optimizer == replace(usual, **own)
    assert groups[1].optimizer == usual


def test_numpys_numbers_are_numbers() -> None:
    assert ll.Adam(np.float32(0.5), betas=(np.float64(0.5), 0)) == ll.Adam(0.5, betas=(0.5, 0.0))


def test_lists_of_toml_become_betas() -> None:
    spec = ll.Spec.from_toml(
        "[optimizer]\ntype = 'Adam'\nbetas = [0.5, 0.75]\n[[groups]]\nmatch = 'a'\nbetas = [0, 0]\n"
    )
    assert spec.optimizer == ll.Adam(betas=(0.5, 0.75))
    assert spec.groups[0].betas == (0.0, 0.0)


def test_parts_of_a_group() -> None:
    spec = ll.Spec(
        ll.AdamW(), [ll.Group("a"), ll.Group("b", weight_decay=0), ll.Group("d", optional=True)], no_weight_decay="1d"
    )
    parameters = [("a.w", (2, 2)), ("a.b", (2,)), ("b.w", (2, 2)), ("b.b", (2,)), ("c.b", (3,))]
    a, b, d, rest = ll.resolve(spec, parameters).groups
    assert [(part.parameters, part.optimizer.weight_decay) for part in a.parts] == [(("a.w",), 0.01), (("a.b",), 0.0)]
    assert [part.parameters for part in b.parts] == [("b.w", "b.b")]
    assert [part.parameters for part in d.parts] == [()]
    assert [(part.parameters, part.optimizer.weight_decay) for part in rest.parts] == [(("c.b",), 0.0)]
