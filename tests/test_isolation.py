"""Processes of their own begin with torch imported, whatever the frameworks have done to the environment."""

from __future__ import annotations

import pytest

from tests.support.warm_python import find_warm_python


def test_they_are_forked_after_the_frameworks_have_set_variables(request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("torch")
    before = find_warm_python()
    request.getfixturevalue("oneflow")
    import torch._inductor.runtime.cache_dir_utils as inductor

    inductor.cache_dir()
    assert before is not None and find_warm_python() is before


def test_none_is_forked_where_a_variable_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    assert find_warm_python() is not None
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert find_warm_python() is None
