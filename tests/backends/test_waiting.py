"""How often the training loop waits for torch: once for a block of losses, never for an update."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

import layered_lr as ll

READING = ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__", "__index__", "__array__")


def reads(torch: Any, monkeypatch: pytest.MonkeyPatch, steps: int) -> int:
    """How often tensors became numbers of this process in a run of so many updates in one epoch."""
    counted: Counter[str] = Counter()

    def counting(name: str, method: Any) -> Any:
        def read(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            counted[name] += 1
            return method(tensor, *args, **kwargs)

        return read

    x = np.arange(4 * 400 * 3, dtype=np.uint8).reshape(-1, 1, 1, 3)
    y = np.arange(len(x)) % 2
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9), [ll.Group("1.weight", lr_scale=0.5)], ll.CosineAnnealingLR(T_max=400))
    with monkeypatch.context() as patch:
        for name in READING:
            patch.setattr(torch.Tensor, name, counting(name, getattr(torch.Tensor, name)))
        result = ll.run(
            spec,
            model=lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 2)),
            data=(x, y, x[:4], y[:4]),
            max_steps=steps,
            batch_size=4,
            device="cpu",
        )
    assert len(result.losses) == steps and np.isfinite(result.losses).all()
    return counted.total()


def test_torch_is_waited_for_once_a_block(torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    more = reads(torch, monkeypatch, 390) - reads(torch, monkeypatch, 90)
    assert more <= 2 * 300 / 25  # losses come in blocks of 25 or more
