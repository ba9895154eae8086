"""Functions and tables of the user's: what they may give, and what is said when they give something else."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import layered_lr.schedules as ls
from layered_lr.errors import SpecError


def halving(step):
    return 0.5**step


def test_a_function_and_its_path_are_the_same_schedule():
    by_path, by_function = ls.LambdaLR("math:sqrt"), ls.LambdaLR(math.sqrt)
    assert by_path == by_function
    assert hash(by_path) == hash(by_function)
    assert repr(by_path) == "LambdaLR(lr_lambda='math:sqrt')"
    assert by_path(4, 0.1) == 0.2
    assert ls.LambdaLR(halving)(np.arange(3), 1.0).tolist() == [1, 0.5, 0.25]
    assert ls.LambdaLR(halving) != ls.LambdaLR(lambda step: 0.5**step)


def test_whole_steps_come_as_ints_once_each():
    asked = []
    schedule = ls.Function(lambda step: asked.append(step) or 0.1)
    schedule(np.array([0, 0, 0, 1, 1, 2.5]), 1.0)
    assert asked == [0, 1, 2.5]
    assert [type(step) for step in asked] == [int, int, float]


@pytest.mark.parametrize("value", [0.5, 1, True, np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_any_number_will_do(value):
    assert ls.LambdaLR(lambda step: value)(3, 2.0) == 2.0 * float(value)
    assert ls.Function(lambda step: value)(np.arange(2), 9.0).tolist() == [float(value)] * 2


@pytest.mark.parametrize("value", ["0.5", b"1", None, math.nan, math.inf, -0.1, 1j, [1, 2], np.ones(2), object()])
@pytest.mark.parametrize("kind", [ls.LambdaLR, ls.MultiplicativeLR, ls.Function])
def test_anything_else_is_refused_with_its_step(kind, value):
    schedule = kind(lambda step: value if step == 3 else 0.5)
    assert schedule(2, 1.0) > 0
    for step in (3, np.arange(5)):
        with pytest.raises(SpecError, match="at step 3: it must return a finite number >= 0"):
            schedule(step, 1.0)


@pytest.mark.parametrize("kind", [ls.LambdaLR, ls.MultiplicativeLR, ls.Function])
def test_a_function_that_raises_is_refused_with_its_step(kind):
    with pytest.raises(SpecError, match=r"raised ZeroDivisionError\('.*'\) at step 3") as caught:
        kind(lambda step: 1 / abs(step - 3))(np.arange(3, 5), 1.0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no.such.module:name", "module 'no.such.module' cannot be imported"),
        ("math:squirt", "module 'math' has no 'squirt'"),
        ("math:pi", "'math:pi' is a float: it must be a function"),
    ],
)
def test_a_path_is_followed_when_it_is_used(path, message):
    schedule = ls.Function(path)
    assert ls.schedule_from_dict(ls.schedule_to_dict(schedule)) == schedule
    with pytest.raises(SpecError, match=message):
        schedule(0, 0.1)


@pytest.mark.parametrize("value", ["math.sqrt", "", ":f", "a:", 3, None, "a b:c", "__import__('os')"])
def test_what_is_neither_function_nor_path_is_refused(value):
    with pytest.raises(SpecError, match=r"must be a function, or its import path 'package.module:name'"):
        ls.LambdaLR(value)


def test_only_functions_with_a_path_can_be_saved():
    assert ls.schedule_to_dict(ls.Function(math.sqrt)) == {"type": "Function", "function": "math:sqrt"}
    for function in (lambda step: 1.0, halving.__get__(3), torch.nn.Identity()):
        schedule = ls.Function(function)
        with pytest.raises(SpecError, match=r"Function\(function=.*cannot be saved.*import path"):
            ls.schedule_to_dict(schedule)


def test_multiplicative_cumulates_once():
    asked = []
    schedule = ls.MultiplicativeLR(lambda step: asked.append(step) or 0.9)
    schedule(np.arange(100), 1.0)
    schedule(50, 1.0), schedule(np.arange(99), 1.0), schedule(np.array([]), 1.0)
    assert asked == list(range(1, 100))


def test_tables(tmp_path):
    rates = [0.1, 0.2, 0.3]
    assert (
        ls.Table(rates)
        == ls.Table(np.array(rates))
        == ls.Table(tuple(rates))
        == ls.Table(torch.tensor(rates, dtype=torch.float64))
    )
    assert ls.Table(rates)(np.arange(3), 9.0).tolist() == rates
    assert ls.Table(rates, factor=True)(2, 2.0) == 0.6
    assert repr(ls.Table(range(1, 100))) == "Table([1, 2, 3, 4, ... 99 values], factor=False)"
    plain = tmp_path / "plain.csv"
    plain.write_text("0.1\n0.2\n\n0.3\n")
    assert ls.Table(plain) == ls.Table(str(plain)) == ls.Table(rates)
    wide = tmp_path / "wide.csv"
    wide.write_text("step,head,body\n0,1,0.1\n1,2,0.2\n2,3,0.3\n")
    assert ls.Table.from_csv(wide, "body") == ls.Table(rates)
    assert ls.Table.from_csv(wide, "head", unit="epoch", factor=True).unit == "epoch"
    with pytest.raises(SpecError, match=r"has no column 'bodi'. Did you mean 'body'\? It has: "):
        ls.Table.from_csv(wide, "bodi")
    with pytest.raises(SpecError, match="has 3 columns: name one"):
        ls.Table(wide)
    with pytest.raises(SpecError, match="Table has 3 values, for steps 0 to 2, and was asked for step 3"):
        ls.Table(rates)(np.arange(4), 0.1)
    for text, message in (
        ("a\n0.1\nx\n", "line 3: 'x' is not a finite number"),
        ("0.1\n-1\n", "line 2: '-1' is not"),
        ("", "holds no numbers"),
        ("nan\n", "line 1: 'nan'"),
        ("rate\n", "holds no numbers"),
    ):
        plain.write_text(text)
        with pytest.raises(SpecError, match=message):
            ls.Table(plain)
    with pytest.raises(SpecError, match="cannot be read"):
        ls.Table(tmp_path / "none.csv")


@pytest.mark.parametrize(
    "values", [[], "", 3, None, [1, "2"], [[1], [2]], [1, True], [0.1, math.nan], [-1], np.ones((2, 2))]
)
def test_wrong_tables(values):
    with pytest.raises(SpecError):
        ls.Table(values)
