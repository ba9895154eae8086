"""What of a model with frozen parts is in training mode, in either framework; no parameter is touched for it."""

from __future__ import annotations

from typing import Any

import pytest

from layered_lr.models.nn_modules import set_trainable, set_training, trainable_parameters


def model(framework: Any) -> Any:
    nn = framework.nn
    return nn.Sequential(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.Dropout(0.5)),
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.BatchNorm1d(4, affine=False), nn.Dropout(0.5)),
        nn.Dropout(0.5),
        nn.Linear(4, 2),
    )


BLOCK = {"0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"}


def still(model: Any) -> set[str]:
    return {name for name, module in model.named_modules() if not module.training}


@pytest.mark.parametrize(
    ("frozen", "options", "expected"),
    [
        (BLOCK, {}, {"0.1", "0.2"}),
        (BLOCK, {"dropout": "off"}, {"0.1", "0.2", "0.3"}),
        (BLOCK, {"batch_norm": "moving"}, set()),
        (BLOCK, {"batch_norm": "moving", "dropout": "off"}, {"0.3"}),
        (BLOCK - {"0.0.bias"}, {"dropout": "off"}, {"0.1"}),
        (BLOCK - {"0.1.bias"}, {"dropout": "off"}, set()),
        ({"1.1.weight", "1.1.bias"}, {}, {"1.1"}),
        (set(), {"dropout": "off"}, set()),
    ],
)
def test_what_holds_still(framework: Any, frozen: set[str], options: dict[str, Any], expected: set[str]) -> None:
    made = model(framework)
    made.eval()
    set_training(made, frozen, **options)
    assert still(made) == expected
    assert all(parameter.requires_grad for parameter in made.parameters())
    set_training(made)
    assert not still(made)


def test_a_module_in_two_places_has_to_be_frozen_in_both(framework: Any) -> None:
    nn = framework.nn
    dropout = nn.Dropout(0.5)
    made = nn.Sequential(nn.Sequential(nn.Linear(4, 4), dropout), nn.Sequential(nn.Linear(4, 4), dropout))
    set_training(made, {"0.0.weight", "0.0.bias"}, dropout="off")
    assert dropout.training


def test_a_wholly_frozen_model_holds_still(framework: Any) -> None:
    made = model(framework)
    set_training(made, {name for name, _ in made.named_parameters()}, dropout="off")
    assert still(made) == {"0.1", "0.2", "0.3", "1.1", "1.2", "1.3", "2"}


def test_parameters_train_again_but_for_those_that_never_did(framework: Any) -> None:
    made = model(framework)
    never = made[3].bias
    never.requires_grad_(False)
    own = trainable_parameters(made)
    made(framework.ones(3, 4)).sum().backward()
    set_trainable(made, BLOCK | {"3.weight"}, own)
    off = {name for name, parameter in made.named_parameters() if not parameter.requires_grad}
    assert off == BLOCK | {"3.weight", "3.bias"}
    assert made[0][0].weight.grad is None and made[1][0].weight.grad is not None
    set_trainable(made, {"3.bias"}, own)
    assert {name for name, parameter in made.named_parameters() if not parameter.requires_grad} == {"3.bias"}
    set_trainable(made, (), None)
    assert not never.requires_grad
