"""Whether a library is installed: a folder of its name, such as the one that W&B writes its runs into, is none."""

from __future__ import annotations

import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

import layered_lr as ll
from layered_lr.backend.loading import load_backend
from layered_lr.tools import is_installed


def test_a_folder_without_a_module_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "a_tool").mkdir()
    assert importlib.util.find_spec("a_tool") is not None and not is_installed("a_tool")
    (tmp_path / "a_tool" / "__init__.py").touch()
    importlib.invalidate_caches()
    assert is_installed("a_tool")
    assert not is_installed("a_tool_that_is_nowhere")


@pytest.mark.parametrize("name", ["torch-eager", "oneflow-graph"])
def test_a_folder_of_a_frameworks_name_is_no_framework(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: ModuleSpec(module, None, is_package=True))
    with pytest.raises(ll.BackendUnavailable, match=r"is not installed|needs .* Python"):
        load_backend(name)
