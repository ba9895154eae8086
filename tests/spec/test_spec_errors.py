"""Specs that cannot be right: each is a SpecError of one line that says what, which value and what is allowed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll

WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: ll.Group(""), "empty"),
    (lambda: ll.Group("  "), "empty"),
    (lambda: ll.Group("re:"), "empty"),
    (lambda: ll.Group([]), "empty"),
    (lambda: ll.Group(["a", ""]), "empty"),
    (lambda: ll.Group(["a", 3]), "match=3"),
    (lambda: ll.Group(None), "match=None"),
    (lambda: ll.Group({"a"}), "match={'a'}"),
    (lambda: ll.Group(Path("a")), "match=.*Path"),
    (lambda: ll.Group("re:*"), "re:\\*.*regular expression"),
    (lambda: ll.Group("re:(a"), "regular expression"),
    (lambda: ll.Group("re:a{99999999999999}"), "regular expression"),
    (lambda: ll.Group("re:" + "(" * 3000 + ")" * 3000), "regular expression"),
    (lambda: ll.Group(), "needs 'match'"),
    (lambda: ll.Group("a", name=""), "name=''"),
    (lambda: ll.Group("a", name=3), "name=3"),
    (lambda: ll.Group("a", optional="no"), "optional='no'.*true or false"),
    (lambda: ll.Group("a", optional=1), "optional=1.*true or false"),
    (lambda: ll.Group("a", schedule="StepLR"), "schedule='StepLR'"),
    (lambda: ll.Group("a", schedule=ll.StepLR), "schedule=.*StepLR\\(step_size"),
    (lambda: ll.Group("a", lrscale=0.1), "'lrscale'.*Did you mean 'lr_scale'"),
    (lambda: ll.Group("a", lr_mult=0.1), "Group has no 'lr_mult'. Did you mean 'lr_scale'\\?$"),
    (lambda: ll.Group("a", 0.1, lr=0.1), "'lr' twice"),
    (lambda: ll.SGD(0.1, 0.9), "positional.*momentum"),
    (lambda: ll.SGD(0.1, nesterov=True), "nesterov.*momentum > 0"),
    (lambda: ll.SGD(0.1, momentum=0.9, nesterov=1), "nesterov=1.*true or false"),
    (lambda: ll.StepLR(), "needs 'step_size'"),
    (lambda: ll.StepLR(2, unit="batch"), "unit='batch'.*'step' or 'epoch'"),
    (lambda: ll.StepLR(2, unit=None), "unit=None.*'step' or 'epoch'"),
    (lambda: ll.Constant(0.1), "positional"),
    (lambda: ll.Spec(), "needs 'optimizer'"),
    (lambda: ll.Spec(0.1), "optimizer=0.1.*SGD"),
    (lambda: ll.Spec(ll.SGD), "optimizer=.*SGD\\(lr"),
    (lambda: ll.Spec(ll.SGD(0.1), groups="features"), "'features' is not a Group"),
    (lambda: ll.Spec(ll.SGD(0.1), groups=["features"]), "'features' is not a Group"),
    (lambda: ll.Spec(ll.SGD(0.1), groups=None), "None is not a Group"),
    (lambda: ll.Spec(ll.SGD(0.1), [ll.Group("a"), ll.Group("a")]), "two groups.*'a'"),
    (lambda: ll.Spec(ll.SGD(0.1), [ll.Group("a", name="x"), ll.Group("b", name="x")]), "two groups.*'x'"),
    (lambda: ll.Spec(ll.SGD(0.1), [ll.Group("a", nesterov=True)]), "group 'a'.*nesterov"),
    (lambda: ll.Spec(ll.SGD(0.1, momentum=0.9, nesterov=True), [ll.Group("a", momentum=0)]), "group 'a'.*nesterov"),
    (lambda: ll.Spec(ll.SGD(0.1), schedule=3), "schedule=3"),
    (lambda: ll.Spec(ll.SGD(0.1), group=[]), "'group'.*Did you mean 'groups'"),
]


@pytest.mark.parametrize(("make", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_spec_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ll.SpecError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value) and isinstance(caught.value, ll.LayeredLRError | ValueError)


OPTIMIZER = '[optimizer]\ntype = "SGD"\nlr = 0.1\n'
WRONG_TOML = [
    ("", "optimizer"),
    ("[optimiser]\ntype = 'SGD'", r"needs an \[optimizer\] table.*'optimiser': rename it"),
    ("[optimizer]\nlr = = 3", "TOML.*line 2"),
    ("[optimizer]\nlr = 0.1", "type"),
    ('[optimizer]\ntype = "Adm"', "'Adm'.*SGD"),
    ('optimizer = "SGD"', "optimizer = 'SGD'.*table"),
    ("[[optimizer]]\n", "optimizer.*table"),
    (OPTIMIZER + "lrr = 3", "'lrr'.*Did you mean 'lr'"),
    (OPTIMIZER + "lr = 0.2", "TOML"),
    (OPTIMIZER.replace("0.1", "nan"), "lr=nan"),
    (OPTIMIZER.replace("0.1", "-inf"), "lr=-inf"),
    (OPTIMIZER.replace("0.1", "true"), "lr=True.*number"),
    (OPTIMIZER.replace("0.1", '"0.1"'), "lr='0.1'.*number"),
    (OPTIMIZER.replace("0.1", "2020-01-01"), "lr=.*number"),
    (OPTIMIZER + "[groups]\nmatch = 'a'", r"\[\[groups\]\]"),
    (OPTIMIZER + "[[groups]]\nlr = 0.1", "Group needs 'match'"),
    (OPTIMIZER + "[[groups]]\nmatch = 'a'\nlr_mult = 1", "'lr_mult'"),
    (OPTIMIZER + "[[groups]]\nmatch = []", "empty"),
    (OPTIMIZER + "[[group]]\nmatch = 'a'", "'group'.*Did you mean 'groups'"),
    ("groups = ['a']\n" + OPTIMIZER, "'a' is not a table"),
    ("schedule = 'StepLR'\n" + OPTIMIZER, "schedule = 'StepLR'.*table"),
    (OPTIMIZER + "[schedule]\nstep_size = 3", "type"),
    (OPTIMIZER + "[schedule]\ntype = 'StepLr'\nstep_size = 3", "'StepLr'.*Did you mean 'StepLR'"),
    (OPTIMIZER + "[schedule]\ntype = 'StepLR'\nstep_size = 1.5", "step_size=1.5.*whole number"),
    (OPTIMIZER + "[schedule]\ntype = 'StepLR'\nstepsize = 1", "'stepsize'.*Did you mean 'step_size'"),
    (OPTIMIZER + "[schedule]\ntype = 3", "3"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_TOML, ids=[message for _, message in WRONG_TOML])
def test_wrong_toml_is_refused(text: str, message: str) -> None:
    with pytest.raises(ll.SpecError, match=message) as caught:
        ll.Spec.from_toml(text)
    assert "\n" not in str(caught.value)


def test_a_toml_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    (tmp_path / "folder.toml").mkdir()
    for name in ("missing.toml", "latin.toml", "folder.toml"):
        for path in (tmp_path / name, str(tmp_path / name)):
            with pytest.raises(ll.SpecError, match=name):
                ll.Spec.from_toml(path)


@pytest.mark.parametrize("value", [3, None, b"[optimizer]", ["x"]])
def test_toml_is_a_text_or_a_path(value: Any) -> None:
    with pytest.raises(ll.SpecError, match="must be"):
        ll.Spec.from_toml(value)


@pytest.mark.parametrize(
    ("phase", "advice"),
    [
        (ll.Phase("1 step", frozen="backbon"), "frozen='backbon'.* Did you mean the group 'backbone'"),
        (ll.Phase("1 step", trained="q"), r"trained='q'.* The groups are backbone, rest\."),
    ],
)
def test_a_phase_that_names_no_group_is_told_which_there_are(phase: ll.Phase, advice: str) -> None:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("features", name="backbone")], phases=[phase])
    with pytest.raises(ll.SpecError, match=advice):
        ll.plan(spec, max_steps=2)


def test_no_weight_decay_that_matches_nothing_says_what_it_takes() -> None:
    with pytest.raises(ll.SpecError, match=r"no_weight_decay='2d'.* Give '1d' for biases"):
        ll.plan(ll.Spec(ll.SGD(0.1), no_weight_decay="2d"), max_steps=2)


@pytest.mark.parametrize("value", [3, None, "SGD", [1]])
def test_a_dict_is_a_mapping(value: Any) -> None:
    with pytest.raises(ll.SpecError, match="must be"):
        ll.Spec.from_dict(value)


def test_an_optimizer_that_is_none_in_particular_is_refused() -> None:
    """``Optimizer`` is the common base: it has no update rule, and TOML has no name for it."""
    with pytest.raises((ll.SpecError, TypeError)):
        ll.Spec(ll.Optimizer(lr=0.1))


def test_a_schedule_of_ones_own_is_not_written_as_what_cannot_be_read() -> None:
    class Own(ll.Schedule):
        def _rate(self, step: Any, lr: float) -> float:
            return lr

    with pytest.raises(ll.SpecError, match="Own"):
        ll.Spec(ll.SGD(0.1), schedule=Own()).to_toml()
