"""Recipes with one planted fault each: what ``ll.audit`` is given, and which kind it must find, and where."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from tests.support.audited_nets import (
    TimmLike,
    convolutional,
    decay_groups,
    freeze,
    layered_groups,
    make_updates,
    one_dimensional,
    perceptron,
    scaled_groups,
    transformer,
)
from tests.support.clean_recipes import warmup_then_linear

Given = dict[str, Any]


class Fault(NamedTuple):
    """A recipe and its fault: the kind, and a param group or a parameter that the finding must name."""

    make: Callable[[], Given]
    kind: str
    place: str


FAULTS: dict[str, Fault] = {}


def fault(kind: str, place: str) -> Callable[[Callable[[], Given]], Callable[[], Given]]:
    """Put a recipe into the table."""

    def add(make: Callable[[], Given]) -> Callable[[], Given]:
        FAULTS[make.__name__] = Fault(make, kind, place)
        return make

    return add


def _torch() -> Any:
    import torch

    return torch


def _schedulers() -> Any:
    import torch

    return torch.optim.lr_scheduler


def _sgd(groups: Any, **settings: Any) -> Any:
    return _torch().optim.SGD(groups, **{"lr": 0.1, "momentum": 0.9} | settings)


def _two_rates(net: Any, low: float = 1e-5, high: float = 1e-2) -> Any:
    """AdamW with a group for the body at a low rate and one for the head."""
    return _torch().optim.AdamW(
        [{"params": net.body.parameters(), "lr": low}, {"params": net.head.parameters(), "lr": high}]
    )


@fault("in-no-group", "norm.weight")
def a_part_was_forgotten() -> Given:
    net = transformer()
    parts = [net.embed, net.blocks, net.head]
    return {"optimizer": _sgd(layered_groups(parts, 0.1, 0.5)), "model": net}


@fault("in-no-group", "head.weight")
def a_head_was_replaced_after_the_optimizer() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    net.head = _torch().nn.Linear(8, 5)
    return {"optimizer": optimizer, "model": net}


@fault("foreign-parameter", "group 0")
def an_old_head_is_still_in_the_optimizer() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    net.head = _torch().nn.Linear(8, 5)
    return {"optimizer": optimizer, "model": net}


@fault("foreign-parameter", "group 0")
def an_optimizer_of_a_copy() -> Given:
    import copy

    net = perceptron()
    return {"optimizer": _sgd(copy.deepcopy(net).parameters()), "model": net}


@fault("in-two-groups", "head.weight")
def in_two_optimizers() -> Given:
    net = perceptron()
    return {"optimizer": [_sgd(net.parameters()), _sgd(net.head.parameters())], "model": net}


@fault("in-two-groups", "body.bias")
def appended_a_second_time() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    optimizer.param_groups[0]["params"].append(net.body.bias)
    return {"optimizer": optimizer, "model": net}


@fault("frozen-but-listed", "body.weight")
def frozen_and_listed() -> Given:
    net = perceptron()
    freeze(net.body)
    return {"optimizer": _sgd(net.parameters()), "model": net}


@fault("frozen-but-moving", "body.weight")
def frozen_with_an_old_gradient() -> Given:
    net = perceptron()
    optimizer = _torch().optim.AdamW(net.parameters())
    make_updates(net, optimizer)
    freeze(net.body)
    return {"optimizer": optimizer, "model": net}


@fault("frozen-but-moving", "body.weight")
def frozen_with_zeros_and_decay() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters(), momentum=0.0, weight_decay=0.1)
    make_updates(net, optimizer)
    freeze(net.body)
    optimizer.zero_grad(set_to_none=False)
    return {"optimizer": optimizer, "model": net}


@fault("frozen-but-moving", "body.weight")
def frozen_by_a_hook_under_decay() -> Given:
    net = perceptron()
    net.body.weight.register_hook(lambda gradient: gradient * 0)
    optimizer = _sgd(net.parameters(), weight_decay=0.1)
    make_updates(net, optimizer)
    return {"optimizer": optimizer, "model": net}


@fault("batch-norm-moves", "stem.1")
def statistics_of_a_frozen_body() -> Given:
    net = convolutional()
    freeze(net.stem, net.body)
    return {"optimizer": _sgd(net.head.parameters()), "model": net}


@fault("batch-norm-moves", "body.1")
def statistics_without_parameters() -> Given:
    net = convolutional()
    net.body[1] = _torch().nn.BatchNorm2d(4, affine=False)
    freeze(net.body)
    return {"optimizer": _sgd([p for p in net.parameters() if p.requires_grad]), "model": net}


@fault("lr-scale-unread", "group 0")
def scales_without_a_scheduler() -> Given:
    net = perceptron()
    optimizer = _sgd(scaled_groups([net.body, net.head], 0.1))
    return {"optimizer": optimizer, "model": net}


@fault("lr-scale-unread", "group 0")
def scales_under_a_scheduler_of_torch() -> Given:
    net = perceptron()
    optimizer = _sgd(scaled_groups([net.body, net.head], 0.1))
    scheduler = _schedulers().CosineAnnealingLR(optimizer, T_max=10)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 10}


@fault("ratio-flattened", "group 0")
def one_max_lr_for_all() -> Given:
    net = perceptron()
    optimizer = _two_rates(net)
    scheduler = _schedulers().OneCycleLR(optimizer, max_lr=1e-2, total_steps=50)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 50}


@fault("ratio-flattened", "group 0")
def one_base_rate_of_a_cycle() -> Given:
    net = perceptron()
    optimizer = _sgd(layered_groups([net.body, net.head], 0.1, 0.1))
    scheduler = _schedulers().CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=5)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 50}


@fault("ratio-flattened", "group 0")
def a_floor_above_a_rate() -> Given:
    net = perceptron()
    optimizer = _two_rates(net)
    scheduler = _schedulers().CosineAnnealingLR(optimizer, T_max=50, eta_min=1e-4)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 50}


@fault("ratio-flattened", "group 0")
def a_floor_of_a_plateau() -> Given:
    net = perceptron()
    optimizer = _two_rates(net)
    scheduler = _schedulers().ReduceLROnPlateau(optimizer, patience=2, min_lr=1e-4)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 100}


@fault("ratio-flattened", "group 0")
def a_floor_of_warm_restarts() -> Given:
    net = perceptron()
    optimizer = _two_rates(net)
    scheduler = _schedulers().CosineAnnealingWarmRestarts(optimizer, T_0=10, eta_min=1e-5)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 40}


@fault("ratio-flattened", "group 0")
def a_function_with_one_rate() -> Given:
    net = perceptron()

    def set_rates(optimizer: Any, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * 0.99**step

    return {"optimizer": _two_rates(net), "model": net, "scheduler": set_rates, "steps": 20}


@fault("ratio-flattened", "group 0")
def a_floor_of_timm() -> Given:
    net = perceptron()
    optimizer = _two_rates(net)
    return {"optimizer": optimizer, "model": net, "scheduler": TimmLike(optimizer, 30, lr_min=1e-4), "steps": 30}


@fault("behind-scheduler", "group 1")
def a_group_added_later() -> Given:
    net = perceptron()
    optimizer = _sgd(net.head.parameters())
    scheduler = _schedulers().StepLR(optimizer, 5)
    optimizer.add_param_group({"params": net.body.parameters(), "lr": 0.01})
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 20}


@fault("behind-scheduler", "group 1")
def a_group_added_behind_a_sequence() -> Given:
    net = perceptron()
    optimizer = _sgd(net.head.parameters())
    parts = [_schedulers().LinearLR(optimizer, total_iters=5), _schedulers().CosineAnnealingLR(optimizer, 15)]
    scheduler = _schedulers().SequentialLR(optimizer, parts, milestones=[5])
    optimizer.add_param_group({"params": net.body.parameters(), "lr": 0.01})
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 20}


def _resumed(net: Any, optimizer: Any) -> Any:
    """An optimizer of a new process, with the state of another one that has made updates."""
    make_updates(net, optimizer, count=8)
    made = type(optimizer)(net.parameters(), lr=1e-3)
    made.load_state_dict(optimizer.state_dict())
    return made


@fault("last-epoch-off", "group 0")
def a_new_scheduler_after_a_resume() -> Given:
    net = perceptron()
    optimizer = _resumed(net, _torch().optim.Adam(net.parameters(), lr=1e-3))
    scheduler = _schedulers().CosineAnnealingLR(optimizer, T_max=20)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 20}


@fault("last-epoch-off", "group 0")
def a_scheduler_without_the_optimizers_state() -> Given:
    net = perceptron()
    optimizer = _torch().optim.Adam(net.parameters(), lr=1e-3)
    scheduler = _schedulers().LambdaLR(optimizer, lambda step: 0.9**step)
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": 8})
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 20}


@fault("last-epoch-off", "group 0")
def a_cosine_that_begins_in_the_middle() -> Given:
    net = perceptron()
    optimizer = _torch().optim.SGD([{"params": net.parameters(), "initial_lr": 0.1}], lr=0.1)
    scheduler = _schedulers().CosineAnnealingLR(optimizer, T_max=20, last_epoch=14)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 20}


@fault("last-epoch-off", "group 0")
def a_scheduler_ahead_of_the_updates() -> Given:
    net = perceptron()
    optimizer = _torch().optim.Adam(net.parameters(), lr=1e-3)
    scheduler = _schedulers().ExponentialLR(optimizer, 0.9)
    for _ in range(4):  # of each batch, though four make one update
        make_updates(net, optimizer, scheduler, 1)
        for _ in range(3):
            scheduler.step()
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 40}


@fault("decay-differs", "norm.weight")
def a_rule_for_other_names() -> Given:
    net = transformer()

    def is_free(name: str, tensor: Any) -> bool:  # BERT's, of another model
        return any(part in name for part in ("bias", "LayerNorm.weight"))

    return {"optimizer": _torch().optim.AdamW(decay_groups(net, 0.01, is_free), lr=1e-3), "model": net}


@fault("decay-differs", "head.bias")
def a_head_outside_of_the_rule() -> Given:
    net = transformer()
    groups = [
        *decay_groups(_torch().nn.ModuleList([net.embed, net.blocks, net.norm]), 0.01, one_dimensional),
        {"params": net.head.parameters(), "weight_decay": 0.01, "lr": 1e-2},
    ]
    return {"optimizer": _torch().optim.AdamW(groups, lr=1e-3), "model": net}


@fault("decay-differs", "memory.bias_hh_l0")
def a_rule_that_misses_the_biases_of_an_lstm() -> Given:
    nn = _torch().nn
    net = nn.ModuleDict({"memory": nn.LSTM(4, 4), "head": nn.Linear(4, 2)})
    groups = decay_groups(net, 0.01, lambda name, tensor: name.endswith(".bias"))
    return {"optimizer": _torch().optim.AdamW(groups, lr=1e-3), "model": net}


@fault("two-schedulers", "group 0")
def two_schedulers() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    schedulers = [_schedulers().StepLR(optimizer, 5), _schedulers().CosineAnnealingLR(optimizer, 20)]
    return {"optimizer": optimizer, "model": net, "scheduler": schedulers, "steps": 20}


_KEPT: list[Any] = []


@fault("two-schedulers", "group 0")
def a_scheduler_that_was_not_named() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    _KEPT[:] = [_schedulers().LinearLR(optimizer)]
    return {"optimizer": optimizer, "model": net, "scheduler": _schedulers().StepLR(optimizer, 5), "steps": 20}


@fault("length-mismatch", "group 0")
def epochs_stepped_each_update() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    scheduler = _schedulers().CosineAnnealingLR(optimizer, T_max=10)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 1000}


@fault("length-mismatch", "group 0")
def updates_stepped_each_epoch() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    scheduler = _schedulers().OneCycleLR(optimizer, max_lr=0.1, total_steps=5000)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 10}


@fault("length-mismatch", "group 0")
def milestones_behind_the_run() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    scheduler = _schedulers().MultiStepLR(optimizer, milestones=[3000, 6000])
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 90}


@fault("length-mismatch", "group 0")
def a_decay_of_epochs_each_update() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    scheduler = _schedulers().ExponentialLR(optimizer, gamma=0.9)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 2000}


@fault("length-mismatch", "group 0")
def a_warm_up_longer_than_the_run() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    curve = functools.partial(warmup_then_linear, num_warmup_steps=500, num_training_steps=5000)
    scheduler = _schedulers().LambdaLR(optimizer, curve)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 10}


@fault("length-mismatch", "group 0")
def a_sequence_in_updates_each_epoch() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    parts = [_schedulers().LinearLR(optimizer, total_iters=500), _schedulers().CosineAnnealingLR(optimizer, 9500)]
    scheduler = _schedulers().SequentialLR(optimizer, parts, milestones=[500])
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 100}


@fault("length-mismatch", "group 0")
def milestones_of_epochs_each_update() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    scheduler = _schedulers().MultiStepLR(optimizer, milestones=[30, 60])
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 5000}


@fault("length-mismatch", "group 0")
def a_fall_of_epochs_each_update() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    scheduler = _schedulers().LinearLR(optimizer, 1.0, 0.01, total_iters=20)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 800}


@fault("length-mismatch", "group 0")
def cycles_of_epochs_each_update() -> Given:
    net = perceptron()
    optimizer = _sgd(net.parameters())
    scheduler = _schedulers().CyclicLR(optimizer, 0.01, 0.1, step_size_up=4)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 800}


@fault("scheduler-of-another", "group 0")
def an_optimizer_made_again() -> Given:
    net = perceptron()
    scheduler = _schedulers().StepLR(_sgd(net.parameters()), 5)
    return {"optimizer": _sgd(net.parameters()), "model": net, "scheduler": scheduler, "steps": 20}


@fault("last-epoch-off", "group 0")
def a_new_scheduler_beside_old_momentum() -> Given:
    net = perceptron()
    old = _sgd(net.parameters())
    make_updates(net, old)
    optimizer = _sgd(net.parameters())
    optimizer.load_state_dict(old.state_dict())
    return {"optimizer": optimizer, "model": net, "scheduler": _schedulers().StepLR(optimizer, 5), "steps": 20}


@fault("ema-misses", "head.bias")
def a_shadow_without_biases() -> Given:
    class Average:
        def __init__(self, net: Any) -> None:
            self.shadow = {name: p.detach().clone() for name, p in net.named_parameters() if p.ndim > 1}

    net = perceptron()
    return {"optimizer": _sgd(net.parameters()), "model": net, "ema": Average(net)}


@fault("ema-misses", "head.weight")
def an_average_of_the_body() -> Given:
    net = perceptron()
    ema = {"body." + name: each.detach().clone() for name, each in net.body.state_dict().items()}
    return {"optimizer": _sgd(net.parameters()), "model": net, "ema": ema}


@fault("ema-misses", "body.weight")
def an_average_that_is_no_copy() -> Given:
    net = perceptron()
    return {"optimizer": _sgd(net.parameters()), "model": net, "ema": dict(net.named_parameters())}


@fault("clipping-misses", "head.bias")
def clipping_of_the_body() -> Given:
    net = perceptron()
    return {"optimizer": _sgd(net.parameters()), "model": net, "clipped": net.body.parameters()}


@fault("state-of-another", "body.weight")
def a_state_in_another_order() -> Given:
    net = perceptron()
    turned = _torch().optim.Adam([*net.head.parameters(), *net.body.parameters()], lr=1e-3)
    make_updates(net, turned)
    optimizer = _torch().optim.Adam(net.parameters(), lr=1e-3)
    optimizer.load_state_dict(turned.state_dict())
    return {"optimizer": optimizer, "model": net}


@fault("state-of-another", "head.bias")
def counters_that_differ() -> Given:
    net = perceptron()
    optimizer = _torch().optim.Adam(net.parameters(), lr=1e-3)
    make_updates(net, optimizer)
    optimizer.state[net.head.bias]["step"].fill_(1.0)
    return {"optimizer": optimizer, "model": net}


@fault("state-of-another", "blocks.0.norm1.weight")
def names_in_another_order() -> Given:
    net = transformer()
    named = dict(net.named_parameters())
    turned = _torch().optim.Adam(sorted(named.items(), key=lambda item: item[0][::-1]), lr=1e-3)
    make_updates(net, turned)
    optimizer = _torch().optim.Adam(net.named_parameters(), lr=1e-3)
    optimizer.load_state_dict(turned.state_dict())
    return {"optimizer": optimizer, "model": net}
