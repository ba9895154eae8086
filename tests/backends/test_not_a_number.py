"""NaN and infinite numbers in OneFlow: models, losses and optimizers lose none of them, as torch loses none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.losses import PLAIN_LOSS, ClassLoss
from tests.support.optimizer_cases import CASES

NAN, INF = np.nan, np.inf
ROWS = np.array(
    [[NAN, 1, 2, 3, 0, 0], [1, 2, 0, 3, NAN, 1], [1, 2, NAN, 3, INF, 1], [INF, 1, 2, 0, 0, 1], [1, -INF, 2, 0, 3, 3],
     [-INF] * 6, [2, 2, 1, 0, -1, -1]]
)  # fmt: skip

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "amax": lambda torch, x: x.amax(1),
    "amin": lambda torch, x: x.amin((1,), keepdim=True),
    "max of all": lambda torch, x: x.reshape(x.shape[0], -1).max(1)[0],
    "place of max": lambda torch, x: x.max(1).indices,
    "argmin": lambda torch, x: x.argmin(1),
    "largest norm": lambda torch, x: torch.linalg.vector_norm(x, float("inf"), dim=1),
    "softmax": lambda torch, x: x.softmax(1),
    "log_softmax": lambda torch, x: x.log_softmax(1),
    "adaptive max pooling": lambda torch, x: torch.nn.functional.adaptive_max_pool2d(x.reshape(-1, 1, 2, 3), (2, 2)),
    "max pooling": lambda torch, x: torch.nn.functional.max_pool2d(x.reshape(-1, 1, 2, 3), 2, 1),
    "hardswish": lambda torch, x: torch.nn.functional.hardswish(x),
    "threshold": lambda torch, x: torch.nn.functional.threshold(x, 0.5, 0.1),
    "root as a power": lambda torch, x: x**0.5,
    "power that is a tensor": lambda torch, x: 2**x,
    "zero to a power": lambda torch, x: 0 ** (x - 1),
    "a sum is positive": lambda torch, x: torch.where(x.sum() > 0, x, x - 1),
}


def make_model(torch: Any, function: Callable[[Any, Any], Any], dtype: str) -> Any:
    """A model that answers what a function does."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1, dtype=getattr(torch, dtype)))

        def forward(self, x: Any) -> Any:
            return function(torch, x)

    return Model()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_models_answer_with_nan_where_torch_does(torch: Any, oneflow: Any, dtype: str) -> None:
    x = ROWS.astype(dtype)
    for name, function in FUNCTIONS.items():
        model = make_model(torch, function, dtype)
        translated = ll.translate(model, example=torch.zeros(x.shape, dtype=getattr(torch, dtype)))
        for part in (x, x[-1:]) if name == "a sum is positive" else (x,):
            found, expected = translated(oneflow.tensor(part)).numpy(), model(torch.tensor(part)).numpy()
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)  # oneDNN rounds so


GRADIENTS: dict[str, Callable[[Any, Any], Any]] = {
    "celu": lambda torch, x: torch.nn.functional.celu(x, 0.7),
    "power of itself": lambda torch, x: x**x,
    "negative number to a power": lambda torch, x: (-2.0) ** x,
    "powers of zero": lambda torch, x: x.unsqueeze(1) ** torch.tensor([0, 0.5, 1, 1.5, 2, 3], dtype=x.dtype),
    "a power of zero that learns": lambda torch, x: (
        x.abs().unsqueeze(1) ** (x.sum() + torch.tensor([-1.5, -0.5])).abs()
    ),
    "more corrected than there are": lambda torch, x: torch.stack((x, x * x, x + 1), 1).var(1, correction=5),
    "as many corrected as there are": lambda torch, x: torch.stack((x, x * x, x + 0.5), 1).var(1, correction=3),
    "remainders": lambda torch, x: x.unsqueeze(1) % torch.tensor([0.1, -0.7, math.inf, -math.inf], dtype=x.dtype),
    "logit": lambda torch, x: x.logit(),
    "erfc": lambda torch, x: torch.erfc(x * 2),
    "prelu of one axis": lambda torch, x: torch.nn.functional.prelu(x, torch.full((1,), 0.2, dtype=x.dtype)),
}


@pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0")
def test_gradients_at_zero_and_of_negative_powers(torch: Any, oneflow: Any) -> None:
    x = np.array([-2.0, -1, -0.0, 0, 0.5, 1, 3])
    for name, function in GRADIENTS.items():
        model = make_model(torch, function, "float64")
        start, our_start = torch.tensor(x, requires_grad=True), oneflow.tensor(x, requires_grad=True)
        expected = model(start)
        found = ll.translate(model, example=torch.tensor(x))(our_start)
        np.testing.assert_allclose(found.detach().numpy(), expected.detach().numpy(), 1e-12, err_msg=name)
        expected.sum().backward()
        found.sum().backward()
        np.testing.assert_allclose(our_start.grad.numpy(), start.grad.numpy(), 1e-12, err_msg=name)


def test_remainders_and_quotients_of_large_numbers(torch: Any, oneflow: Any) -> None:
    """OneFlow has the remainder exact, as torch has; of whole numbers too, which float64 holds up to 2^53."""
    whole = 2**60 + 7
    rows: list[tuple[Callable[[Any], Any], list[float], str]] = [
        (lambda x: x % 0.1, [1e5, 2e5, 3e5, 123456.7, -1e5], "float32"),
        (lambda x: 3 % x, [INF, -INF, 2, -2, 0.1], "float32"),
        (torch.erfc, [-1, 0, 3, 4, 9], "float32"),
        *((lambda x, by=by: x // by + x % by, [whole, -whole, 2**53 + 1, 7, 0], "int64") for by in (10, -10, 3, 2**40)),
        (lambda x: x.unsqueeze(1) // torch.tensor([3, -7, 2**59 + 1]), [whole, -whole, 2**53 + 1, 7, 0], "int64"),
        (lambda x: x.unsqueeze(1) % torch.tensor([3, -7, 2**59 + 1]), [whole, -whole, 2**53 + 1, 7, 0], "int64"),
        (lambda x: x % 3 + x // 2, [1, 5, 100], "uint8"),
    ]
    for function, numbers, dtype in rows:
        given = np.array(numbers, dtype)
        model = make_model(torch, lambda _, x, function=function: function(x), "float32")
        found = ll.translate(model, example=torch.tensor(given))(oneflow.tensor(given)).numpy()
        np.testing.assert_allclose(found, model(torch.tensor(given)).numpy(), 2e-7 if dtype == "float32" else 0)


@pytest.mark.parametrize("settings", [PLAIN_LOSS, ClassLoss(label_smoothing=0.1)])
def test_a_nan_beside_the_right_class_reaches_the_loss(torch: Any, oneflow: Any, settings: ClassLoss) -> None:
    from layered_lr.backend.class_targets import divide_targets
    from layered_lr_oneflow.losses import make_loss

    compute = make_loss(settings)
    for row in ROWS.astype("float32"):
        logits, label = row[None], np.array([1])
        targets = label if settings.is_plain else divide_targets(settings, label, 6).astype("float32")
        found = compute(oneflow.tensor(logits), oneflow.tensor(targets)).item()
        expected = torch.nn.functional.cross_entropy(
            torch.tensor(logits), torch.tensor(label), label_smoothing=settings.label_smoothing
        ).item()
        assert found == pytest.approx(expected, rel=1e-6, nan_ok=True), row


@pytest.mark.parametrize("special", [NAN, INF])
@pytest.mark.parametrize("name", CASES)
def test_a_gradient_that_is_no_number(torch: Any, oneflow: Any, name: str, special: float) -> None:
    """It spoils the weights that it spoils in torch, and no other."""

    def make(framework: Any) -> Any:
        model = framework.nn.Linear(4, 3, bias=False)
        with framework.no_grad():
            model.weight.copy_(framework.tensor(start))
        return model

    start = np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4)
    gradients = [start[::-1].copy(), start * 0.3]
    gradients[0][1, 2] = special
    models = [make(torch), make(oneflow)]
    optimizers = [ll.compile(ll.Spec(CASES[name]), model)[0] for model in models]
    # After an infinite one SGD's weight is -inf, and OneFlow's own op makes NaN of it with the next gradient.
    for gradient in gradients[: 1 if special == INF else 2]:
        for framework, model, optimizer in zip((torch, oneflow), models, optimizers, strict=True):
            model.weight.grad = framework.tensor(gradient)
            optimizer.step()
    expected, found = (model.weight.detach().numpy() for model in models)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
