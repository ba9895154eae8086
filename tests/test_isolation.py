"""Processes of their own begin with torch imported, whatever the frameworks have done to the environment."""

from __future__ import annotations

import pytest

from tests.support.warm_python import WarmPython, find_warm_python


def test_they_are_forked_after_the_frameworks_have_set_variables(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("torch")
    warm = WarmPython()
    request.getfixturevalue("oneflow")
    import torch._inductor.runtime.cache_dir_utils as inductor

    inductor.cache_dir()
    assert warm.fits()
    warm.close()
    assert not warm.lives()


def test_none_is_forked_where_a_variable_has_just_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    usual = find_warm_python() or find_warm_python()
    assert usual is not None and find_warm_python() is usual
    monkeypatch.setenv("LAYERED_LR_ISOLATION_TEST", "1")
    assert find_warm_python() is None
    monkeypatch.setenv("LAYERED_LR_ISOLATION_TEST", "2")
    assert find_warm_python() is None
    other = find_warm_python()
    assert other is not None and other is not usual and other.fits()
    monkeypatch.delenv("LAYERED_LR_ISOLATION_TEST")
    assert find_warm_python() is usual


def test_another_takes_the_place_of_one_that_has_died() -> None:
    pytest.importorskip("torch")
    usual = find_warm_python() or find_warm_python()
    assert usual is not None
    usual.close()
    other = find_warm_python() or find_warm_python()
    assert other is not None and other is not usual and other.lives()
