"""Real images, and the weights to fine-tune from, for the parity of MobileNetV2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def images() -> tuple[NDArray[Any], ...]:
    """x_train, y_train, x_test, y_test of CIFAR-10: 128 images to train on, 8 to test."""
    path = SHARED / "data" / "cifar10-subset.npz"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with np.load(path) as data:
        return data["x_train"][:128], data["y_train"][:128], data["x_test"][:8], data["y_test"][:8]


@pytest.fixture(scope="session")
def checkpoint() -> Path:
    """MobileNetV2 trained on ImageNet, as torchvision gives it."""
    path = SHARED / "weights" / "mobilenet_v2-b0353104.pth"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture
def frameworks(torch: Any, oneflow: Any) -> dict[str, Any]:
    """Both; parity is between them."""
    return {"torch": torch, "oneflow": oneflow}
