"""Files that are no good, given on the command line: exit code 2 and a line that says what is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest


def wrong_data() -> dict[str, dict[str, Any]]:
    good: dict[str, Any] = {
        "x_train": np.zeros((8, 32, 32, 3), np.uint8), "y_train": np.arange(8) % 2,
        "x_test": np.zeros((4, 32, 32, 3), np.uint8), "y_test": np.arange(4) % 2,
    }  # fmt: skip
    return {
        "y_train": {key: value for key, value in good.items() if key != "y_train"},
        "-1": good | {"y_train": np.arange(8) - 1},
        "whole": good | {"y_test": np.linspace(0, 1, 4)},
        "x_test": good | {"x_test": np.zeros((4, 32, 32), np.uint8)},
        "7": good | {"y_train": np.zeros(7, int)},
        "empty": good | {"x_train": np.zeros((0, 32, 32, 3), np.uint8), "y_train": np.zeros(0, int)},
        "NaN": good | {"x_train": np.full((8, 3, 32, 32), np.nan, np.float32)},
        "object": good | {"y_train": np.array(["a"] * 8, object)},
    }


@pytest.mark.parametrize("message", wrong_data())
@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_wrong_npz_is_refused(call: Any, refused: Any, tmp_path: Path, command: str, message: str) -> None:
    np.savez(tmp_path / "mine.npz", **wrong_data()[message])
    answer = call(command, "--data", str(tmp_path / "mine.npz"), "--batch-size", "4")
    refused(answer, "mine")
    assert message.lower() in answer.err.lower()


@pytest.mark.parametrize("keep", [0, 1, 100, -1, -100])
def test_a_truncated_npz_is_refused(call: Any, refused: Any, tmp_path: Path, keep: int) -> None:
    np.savez(tmp_path / "d.npz", x_train=np.zeros((8, 4, 4, 3), np.uint8))
    (tmp_path / "d.npz").write_bytes((tmp_path / "d.npz").read_bytes()[:keep])
    refused(call("plan", "--data", str(tmp_path / "d.npz")), "d.npz")


def test_an_npy_that_is_called_npz_is_refused(call: Any, refused: Any, tmp_path: Path) -> None:
    with (tmp_path / "d.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    refused(call("run", "--data", str(tmp_path / "d.npz")), "d.npz")
    refused(call("run", "--initial-weights", str(tmp_path / "d.npz")), "d.npz")
