"""What a model answers: anything but logits is refused with a clear word, on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.backend.base import Backend
from tests.support.models import CLASSES, FEATURES, arrays


def answering(framework: Any, what: str) -> Any:
    class Answering(framework.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = framework.nn.Linear(FEATURES, CLASSES)

        def forward(self, images: Any) -> Any:
            logits = self.body(images.flatten(1))
            kinds = {"dict": {"logits": logits}, "tuple": (logits, logits), "list": [logits], "none": None}
            if what in kinds:
                return kinds[what]
            if what == "tuple in training":
                return (logits, logits) if self.training else logits
            if what == "raises":
                raise KeyError("no such thing")
            return logits.to(getattr(framework, what))

    return Answering()


REFUSED = {
    "dict": "returned a dict",
    "tuple": "returned a tuple",
    "list": "returned a list",
    "none": "returned a NoneType",
    "tuple in training": "returned a tuple",
    "int64": "returned int64",
    "raises": "its forward pass does not take images .* KeyError",
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_answer_that_is_refused(backend: Backend, framework_of_backend: Any, what: str) -> None:
    with pytest.raises(ll.SpecError, match=REFUSED[what]):
        ll.run(
            ll.Spec(ll.SGD(0.1)),
            backend.name,
            lambda: answering(framework_of_backend, what),
            arrays(),
            epochs=1,
            batch_size=8,
            progress=False,
            device="cpu",
        )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrower_float(backend: Backend, framework_of_backend: Any, dtype: str) -> None:
    """torch trains with it, as a loop by hand does; OneFlow would abort the process, so it is refused."""

    def run() -> ll.Result:
        return ll.run(
            ll.Spec(ll.SGD(0.1)),
            backend.name,
            lambda: answering(framework_of_backend, dtype),
            arrays(),
            epochs=1,
            batch_size=8,
            progress=False,
            device="cpu",
        )

    if backend.name.startswith("oneflow"):
        with pytest.raises(ll.SpecError, match=f"returned {dtype}.* must be one of float32, float64"):
            run()
        return
    result = run()
    assert np.isfinite(result.losses).all() and len(result.accuracies) == 1
