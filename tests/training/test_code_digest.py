"""Functions that do the same have one digest, wherever they stand; others have another one."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from layered_lr.training.code_digest import digest_arrays, digest_code, without_addresses


def made(source: str, file: str = "one.py", module: str = "theirs") -> Any:
    """What ``source`` calls ``f``, as if it stood in a file of its own."""
    scope: dict[str, Any] = {"__name__": module, "np": np, "functools": functools}
    exec(compile(source, file, "exec"), scope)
    return scope["f"]


@pytest.mark.parametrize(
    "source",
    [
        "def f(a, b):\n    return a - b",
        "f = lambda a: {'x', 'y', 'z', a}",
        "def g(a):\n    return a in {'p', 'q', 'r'}\ndef f(a, k=(1, 2)):\n    return g(a), [i for i in k]",
        "class C:\n    def __call__(self, a):\n        return a\nf = C()\nf.weight = np.ones(3)\nf.itself = f",
        "def f(a, n=3):\n    return f(a, n - 1)",
        "f = functools.partial(max, 3)",
    ],
)
def test_a_digest_says_nothing_of_where_code_stands(source: str) -> None:
    assert digest_code(made(source)) == digest_code(made("\n\n" + source, file="elsewhere/two.py"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("def f(a, b):\n    return a - b", "def f(a, b):\n    return b - a"),
        ("def f(a):\n    return a * 2", "def f(a):\n    return a * 3"),
        ("def f(a, k=0.1):\n    return a * k", "def f(a, k=0.2):\n    return a * k"),
        ("def f(a):\n    return np.sin(a)", "def f(a):\n    return np.cos(a)"),
        ("K = 0.1\ndef f(a):\n    return a * K", "K = 0.2\ndef f(a):\n    return a * K"),
        ("def g(a):\n    return a\ndef f(a):\n    return g(a)", "def g(a):\n    return -a\ndef f(a):\n    return g(a)"),
        ("def m(k):\n    return lambda a: a * k\nf = m(1)", "def m(k):\n    return lambda a: a * k\nf = m(2)"),
        ("f = functools.partial(pow, 2)", "f = functools.partial(pow, 3)"),
        ("f = functools.partial(max, 2)", "f = functools.partial(min, 2)"),
        ("class C:\n    pass\nf = C()\nf.k = np.ones(2)", "class C:\n    pass\nf = C()\nf.k = np.zeros(2)"),
        (
            "class C:\n    def go(self):\n        return 1\nf = C",
            "class C:\n    def go(self):\n        return 2\nf = C",
        ),
        ("f = np.sin", "f = np.cos"),
        ("f = len", "f = max"),
    ],
)
def test_another_function_of_the_same_name_has_another_digest(one: str, other: str) -> None:
    assert digest_code(made(one)) != digest_code(made(other))


def test_values_count_only_where_they_are_to() -> None:
    source = "def m(k):\n    return lambda a: (a, k)\nf = m({})"
    one, other = made(source.format("'cuda:0'")), made(source.format("'cuda:1'"))
    assert digest_code(one) != digest_code(other)
    assert digest_code(one, with_values=False) == digest_code(other, with_values=False)


def test_arrays_are_told_apart_by_name_dtype_and_shape() -> None:
    zeros = np.zeros((2, 3), np.float32)
    tables = [{"a": zeros}, {"b": zeros}, {"a": zeros.T}, {"a": zeros + 1}, {"a": zeros.view(np.int32)}]
    assert len({digest_arrays(table) for table in tables}) == len(tables)
    assert digest_arrays({"a": zeros, "b": zeros + 1}) == digest_arrays({"b": zeros + 1, "a": zeros})


def test_addresses_are_left_out() -> None:
    assert without_addresses("f=<function f at 0x7f00aa>, p=1") == "f=<function f>, p=1"
