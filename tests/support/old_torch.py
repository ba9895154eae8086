"""A plugin for pytest: what an older torch lacks, or does otherwise, a test of it skips.

The library refuses an argument that torch's optimizer does not have. A test that asks for it ends with that refusal,
which is right where torch is so old, and a failure everywhere else. A test may also ask torch itself for what it lacks.
"""

import importlib.metadata
import importlib.util
from collections.abc import Generator
from functools import cache

import pytest

from layered_lr.errors import Unsupported

OLDEST = (2, 4)
"""The oldest release that is declared."""

SINCE: dict[type[Exception], dict[str, tuple[int, int]]] = {
    Unsupported: {
        "Adam(decoupled_weight_decay=...) is not in torch": (2, 7),
        "optimizer Adafactor is not in torch": (2, 5),
    },
    AttributeError: {
        "module 'torch.optim' has no attribute 'Adafactor'": (2, 5),
        "module 'torch.optim' has no attribute 'Muon'": (2, 9),
        "module 'torch.compiler' has no attribute 'set_stance'": (2, 6),
    },
    TypeError: {"optimizer can only optimize Tensors, but one of the params is tuple": (2, 6)},  # named parameters
}
"""How an error begins, by its class, and the first release of torch in which there is no reason for it."""

WARNINGS_OF_OLDEST = (
    "ignore:The epoch parameter in .scheduler.step:UserWarning:torch.optim.lr_scheduler",  # SequentialLR, of itself
)
"""Filters of warnings that torch 2.4 gives about its own code."""


def pytest_configure(config: pytest.Config) -> None:
    if is_oldest():
        for line in WARNINGS_OF_OLDEST:
            config.addinivalue_line("filterwarnings", line)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except tuple(SINCE) as error:
        if is_right(error):
            pytest.skip(f"this torch cannot, as it has to be: {error}")
        raise


def is_right(error: Exception) -> bool:
    """Whether this torch is older than what the error is about."""
    return any(
        isinstance(error, kind) and str(error).startswith(start) and is_older(since)
        for kind, starts in SINCE.items()
        for start, since in starts.items()
    )


def skip_without_fully_shard() -> None:
    """Skip a test of models that are divided among processes."""
    if is_older((2, 6)):
        pytest.skip("fully_shard came with torch 2.6")


def is_oldest() -> bool:
    """Whether torch is the oldest release that is declared."""
    return is_older((OLDEST[0], OLDEST[1] + 1))


def is_older(than: tuple[int, int]) -> bool:
    """Whether torch is installed, and comes before a release."""
    return bool(importlib.util.find_spec("torch")) and torch_release() < than


@cache
def torch_release() -> tuple[int, int]:
    """The first two numbers of torch's version, such as ``(2, 4)``."""
    major, minor = importlib.metadata.version("torch").split(".")[:2]
    return int(major), int(minor)
