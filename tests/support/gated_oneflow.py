"""A OneFlow module whose head is declared before a 1x1 convolution, and may stand beside a misspelt one."""

from __future__ import annotations

from typing import Any


def oneflow_model(kind: str) -> Any:
    """Make it.

    Args:
        kind: ``"right"``; ``"misspelt"``, with a head for 4 classes that is never used; or ``"in training"``, where it
            is used in training alone.
    """
    import oneflow as flow

    class Model(flow.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.classifier = flow.nn.Linear(4, 4 if kind == "right" else 1000)
            self.body = flow.nn.Sequential(flow.nn.Conv2d(3, 4, 8), flow.nn.BatchNorm2d(4), flow.nn.Dropout(0.5))
            self.seen: list[int] = []
            self.gate = flow.nn.Conv2d(4, 4, 1)
            if kind != "right":
                self.classifer = flow.nn.Linear(4, 4)

        def forward(self, x: Any) -> Any:
            self.seen.append(len(x))
            maps = self.body(x)
            maps = (maps * self.gate(maps).sigmoid()).mean((2, 3))
            if kind == "in training" and self.training:
                return self.classifier(maps) + self.classifer(maps).sum()
            return self.classifier(maps)

    return Model()
