"""Trainings with one planted fault each, which ``ll.overfit`` has to tell apart: torch models on the digits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import layered_lr as ll

GROUPS = [ll.Group("1", name="body"), ll.Group("3", name="head")]


def build() -> Any:
    """A small network without a fault: parameters ``1.*`` and ``3.*``."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))


def dead() -> Any:
    """Its ReLU is below 0 for every image."""
    net = build()
    with torch.no_grad():
        net[1].bias.fill_(-100)
    return net


def deep(activation: Any, scale: float) -> Any:
    """Ten hidden layers, the initial weights times a factor."""
    hidden = [layer for _ in range(10) for layer in (activation(), torch.nn.Linear(32, 32))]
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3072, 32), *hidden, activation(), torch.nn.Linear(32, 10)
    )
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= scale
    return net


def spec(schedule: Any = None, lr: float = 0.05, **head: Any) -> ll.Spec:
    """Of two groups; the arguments are those of the head's."""
    return ll.Spec(ll.SGD(lr, momentum=0.9), [GROUPS[0], ll.Group("3", name="head", **head)], schedule)


def digits(kind: str) -> Any:
    """The digits as they are, shuffled against their labels, not normalised, or one image with ten labels."""
    data = ll.load_dataset("digits")
    x, y, x_test, y_test = data.x_train, data.y_train, data.x_test, data.y_test
    if kind == "shuffled":
        y = np.random.default_rng(0).permutation(y)
    if kind == "not normalised":
        x, x_test = (images.transpose(0, 3, 1, 2).astype(np.float32) for images in (x, x_test))
    if kind == "contradicting":
        x = np.where(np.arange(len(x))[:, None, None, None] % 4 == 0, x[:1], x)
    return x, y, x_test, y_test


def head_by_hand() -> Any:
    """The head is frozen by ``requires_grad=False``."""
    net = build()
    for parameter in net[3].parameters():
        parameter.requires_grad_(False)
    return net


def unused() -> Any:
    """A layer that the forward pass leaves out."""

    class Net(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body, self.spare, self.head = torch.nn.Linear(3072, 16), torch.nn.Linear(9, 9), torch.nn.Linear(16, 10)

        def forward(self, images: Any) -> Any:
            return self.head(torch.relu(self.body(images.flatten(1))))

    return Net()


FROZEN_HEAD = ll.Spec(ll.SGD(0.05, momentum=0.9), GROUPS, phases=[ll.Phase(frozen="head")])
ALONE = ll.Spec(ll.SGD(0.05, momentum=0.9))
SPARE = ll.Spec(ll.SGD(0.05, momentum=0.9), [ll.Group("spare")])
CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], bool]] = {
    "no fault": ({}, (), True),
    "no fault in a warm-up": ({"spec": spec(ll.CosineDecay(warmup_steps=100))}, (), True),
    "a group at rate 0": ({"spec": spec(lr_scale=0)}, ("rate-zero",), True),
    "a schedule of zeros": ({"spec": spec(ll.Table([0.0] * 200))}, ("rate-zero",), False),
    "a frozen head": ({"spec": FROZEN_HEAD}, ("frozen-head",), True),
    "a head frozen by hand": ({"model": head_by_hand}, ("frozen-head",), True),
    "a layer that nothing calls": ({"model": unused, "spec": SPARE}, ("no-gradient",), True),
    "shuffled labels": ({"data": digits("shuffled")}, ("labels",), True),
    "two labels of one image": ({"data": digits("contradicting")}, ("contradicting-labels",), False),
    "not normalised": ({"data": digits("not normalised")}, ("normalisation",), False),
    "dead": ({"model": dead}, ("dead-activations",), False),
    "dead in one group": ({"model": dead, "spec": ALONE}, ("dead-activations",), False),
    "vanishing": ({"model": lambda: deep(torch.nn.Sigmoid, 1.0), "spec": ALONE}, ("vanishing-gradient",), False),
    "exploding": ({"model": lambda: deep(torch.nn.ReLU, 4.0), "spec": ALONE}, ("exploding-gradient",), False),
    "too high": ({"spec": spec(lr=50.0)}, ("rate-too-high",), False),
    "too low": ({"spec": spec(lr=1e-6)}, ("rate-too-low",), False),
    "too few": ({"steps": 5}, ("needs-more-steps",), False),
}
"""What is given instead of ``build`` and ``spec()``, the kinds of the findings, and whether the batch is learned."""


def judged(name: str, backend: str = "torch-eager") -> ll.OverfitVerdict:
    """The verdict of one of the cases."""
    given: dict[str, Any] = {"spec": spec(), "model": build, "backend": backend, "progress": False, **CASES[name][0]}
    return ll.overfit(**given)
