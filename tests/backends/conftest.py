"""Fixtures for tests of backends beside those of ``tests/conftest.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.backends import graph_process


@pytest.fixture(params=["torch", "oneflow"])
def framework(request: pytest.FixtureRequest) -> Any:
    """Each framework's module."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def framework_of_backend(request: pytest.FixtureRequest, backend_name: str, backend: Any) -> Any:
    """The module of the framework that ``backend`` stands on."""
    return request.getfixturevalue(backend_name.split("-")[0])


@pytest.fixture
def in_process(oneflow: Any) -> Callable[..., dict[str, Any]]:
    """``graph_process.run``, where OneFlow works."""
    return graph_process.run
