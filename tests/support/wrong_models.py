"""Models whose answer is wrong, and a run of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import layered_lr as ll
from layered_lr.backend.base import Backend
from tests.support.models import CLASSES, FEATURES, arrays

CONSTANT = ll.Spec(optimizer=ll.SGD(lr=0.1))

WRONG_IN_TRAINING: dict[str, Callable[[Any, bool], Any]] = {
    "a tuple": lambda logits, training: (logits, logits) if training else logits,
    "too few classes": lambda logits, training: logits[:, :2] if training else logits,
}


def run(backend: Backend, model: Callable[[], Any], spec: ll.Spec = CONSTANT, **options: Any) -> ll.Result:
    options = {"max_steps": 4, "batch_size": 8, "progress": False, "device": "cpu", **options}
    return ll.run(spec, backend.name, model, options.pop("data", arrays()), **options)


def answering(framework: Any, answer: Callable[[Any, bool], Any]) -> Callable[[], Any]:
    """A model whose logits go through ``answer(logits, training)``."""

    class Answering(framework.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = framework.nn.Linear(FEATURES, CLASSES)

        def forward(self, x: Any) -> Any:
            return answer(self.layer(x.flatten(1)), self.training)

    return Answering
