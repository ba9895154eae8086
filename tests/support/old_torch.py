"""A plugin for pytest: what an older torch lacks and the library therefore refuses, a test of it skips.

The library refuses an argument that torch's optimizer does not have. A test that asks for it ends with that refusal,
which is right where torch is so old, and a failure everywhere else.
"""

from collections.abc import Generator

import pytest

from layered_lr.errors import Unsupported

SINCE = {
    "Adam(decoupled_weight_decay=...) is not in torch": (2, 7),
    "optimizer Adafactor is not in torch": (2, 5),
}
"""How a refusal begins, and the first release of torch in which there is nothing to refuse."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    try:
        return (yield)
    except Unsupported as error:
        if is_right(str(error)):
            pytest.skip(f"refused, as it has to be: {error}")
        raise


def is_right(refusal: str) -> bool:
    """Whether this torch is older than what is refused."""
    return any(refusal.startswith(start) and torch_release() < since for start, since in SINCE.items())


def torch_release() -> tuple[int, int]:
    """The first two numbers of torch's version, such as ``(2, 4)``."""
    import torch

    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)
