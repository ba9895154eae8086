"""Real images, and the weights to fine-tune from, for the parity of MobileNetV2.

CIFAR-10 and ImageNet weights where they lie beside the repository; the embedded digits and weights that the library
draws elsewhere, so that nothing is skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from layered_lr.data import load_dataset
from layered_lr.models.catalogue import draw_initial_weights

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def images() -> tuple[NDArray[Any], ...]:
    """x_train, y_train, x_test, y_test: 128 images to train on, 8 to test."""
    path = SHARED / "data" / "cifar10-subset.npz"
    if path.is_file():
        with np.load(path) as data:
            return data["x_train"][:128], data["y_train"][:128], data["x_test"][:8], data["y_test"][:8]
    digits = load_dataset("digits")
    return digits.x_train[:128], digits.y_train[:128], digits.x_test[:8], digits.y_test[:8]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 trained on ImageNet, as torchvision gives it; or a file of other weights for its 1,000 classes."""
    path = SHARED / "weights" / "mobilenet_v2-b0353104.pth"
    if path.is_file():
        return path
    drawn = tmp_path_factory.mktemp("weights") / "mobilenet_v2.npz"
    np.savez(drawn, **draw_initial_weights("mobilenet_v2", 1000, seed=7))
    return drawn


@pytest.fixture
def frameworks(torch: Any, oneflow: Any) -> dict[str, Any]:
    """Both; parity is between them."""
    return {"torch": torch, "oneflow": oneflow}
