"""Recipes in the public styles, each without a fault: what ``ll.audit`` is given, by keyword."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import layered_lr as ll
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

Given = dict[str, Any]
CLEAN: dict[str, Callable[[], Given]] = {}


def recipe(make: Callable[[], Given]) -> Callable[[], Given]:
    """Put a recipe into the table."""
    CLEAN[make.__name__] = make
    return make


def _torch() -> Any:
    import torch

    return torch


def _schedulers() -> Any:
    import torch

    return torch.optim.lr_scheduler


def warmup_then_linear(step: int, *, num_warmup_steps: int, num_training_steps: int) -> float:
    """As transformers' get_linear_schedule_with_warmup."""
    if step < num_warmup_steps:
        return step / max(1, num_warmup_steps)
    return max(0.0, (num_training_steps - step) / max(1, num_training_steps - num_warmup_steps))


@recipe
def torchvision_resnet() -> Given:
    net = convolutional()
    optimizer = _torch().optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = _schedulers().StepLR(optimizer, step_size=30, gamma=0.1)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 90}


@recipe
def torchvision_new_recipe() -> Given:
    net = convolutional()
    norms = [p for m in net.modules() if type(m).__name__ == "BatchNorm2d" for p in m.parameters()]
    others = [p for p in net.parameters() if all(p is not norm for norm in norms)]
    groups = [{"params": others, "weight_decay": 2e-5}, {"params": norms, "weight_decay": 0.0}]
    optimizer = _torch().optim.SGD(groups, lr=0.5, momentum=0.9)
    warmup = _schedulers().LinearLR(optimizer, start_factor=0.01, total_iters=5)
    main = _schedulers().CosineAnnealingLR(optimizer, T_max=595, eta_min=0.0)
    scheduler = _schedulers().SequentialLR(optimizer, [warmup, main], milestones=[5])
    ema = _torch().optim.swa_utils.AveragedModel(net, use_buffers=True)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 600, "ema": ema}


@recipe
def torchvision_detection() -> Given:
    net = convolutional()
    freeze(net.stem)
    net.stem.eval()
    optimizer = _torch().optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    scheduler = _schedulers().MultiStepLR(optimizer, milestones=[16, 22], gamma=0.1)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 26}


@recipe
def torchvision_segmentation() -> Given:
    net = convolutional()
    groups = [
        {"params": [*net.stem.parameters(), *net.body.parameters()]},
        {"params": net.head.parameters(), "lr": 0.1},
    ]
    optimizer = _torch().optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=1e-4)
    scheduler = _schedulers().PolynomialLR(optimizer, total_iters=300, power=0.9)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 300}


@recipe
def torchvision_vit() -> Given:
    net = transformer()
    optimizer = _torch().optim.AdamW(net.parameters(), lr=0.003, weight_decay=0.3)
    warmup = _schedulers().LinearLR(optimizer, start_factor=0.033, total_iters=30)
    main = _schedulers().CosineAnnealingLR(optimizer, T_max=270)
    scheduler = _schedulers().SequentialLR(optimizer, [warmup, main], milestones=[30])
    return {
        "optimizer": optimizer,
        "model": net,
        "scheduler": scheduler,
        "steps": 300,
        "clipped": net.parameters(),
    }


@recipe
def timm_weight_decay() -> Given:
    net = transformer()
    optimizer = _torch().optim.AdamW(decay_groups(net, 0.05, one_dimensional), lr=1e-3)
    return {"optimizer": optimizer, "model": net, "scheduler": TimmLike(optimizer, 300, 1e-5, 20), "steps": 300}


@recipe
def timm_layer_decay() -> Given:
    net = transformer()
    parts = [net.embed, net.blocks[0], net.blocks[1], _torch().nn.ModuleList([net.norm, net.head])]
    optimizer = _torch().optim.AdamW(scaled_groups(parts, 0.65), lr=5e-4, weight_decay=0.05)
    return {"optimizer": optimizer, "model": net, "scheduler": TimmLike(optimizer, 100, 1e-6, 5), "steps": 100}


@recipe
def mae_fine_tuning() -> Given:
    net = transformer()
    parts = [net.embed, net.blocks, _torch().nn.ModuleList([net.norm, net.head])]
    optimizer = _torch().optim.AdamW(scaled_groups(parts, 0.65), lr=1e-3, weight_decay=0.05)

    def adjust_learning_rate(optimizer: Any, step: int) -> None:
        rate = 1e-3 * (step / 5 if step < 5 else 0.5 * (1 + math.cos(math.pi * (step - 5) / 95)))
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)

    return {"optimizer": optimizer, "model": net, "scheduler": adjust_learning_rate, "steps": 100}


@recipe
def beit_with_rates_in_groups() -> Given:
    net = transformer()
    groups = scaled_groups([net.embed, net.blocks, _torch().nn.ModuleList([net.norm, net.head])], 0.75)
    for group in groups:  # the key stays as a note; the rate has it already
        group["lr"] = 1e-3 * group["lr_scale"]
    optimizer = _torch().optim.AdamW(groups, weight_decay=0.05)
    scheduler = _schedulers().CosineAnnealingLR(optimizer, T_max=100)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 100}


@recipe
def transformers_trainer() -> Given:
    net = transformer()
    optimizer = _torch().optim.AdamW(decay_groups(net, 0.01, one_dimensional), lr=5e-5, eps=1e-8)
    curve = functools.partial(warmup_then_linear, num_warmup_steps=10, num_training_steps=100)
    scheduler = _schedulers().LambdaLR(optimizer, curve)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 100, "clipped": net.parameters()}


@recipe
def transformers_cosine() -> Given:
    net = transformer()
    optimizer = _torch().optim.AdamW(net.parameters(), lr=5e-5)
    num_training_steps = 200

    def curve(step: int) -> float:
        return 0.5 * (1 + math.cos(math.pi * min(step / num_training_steps, 1.0)))

    return {"optimizer": optimizer, "model": net, "scheduler": _schedulers().LambdaLR(optimizer, curve), "steps": 200}


@recipe
def transformers_constant() -> Given:
    net = transformer()
    net.eval()  # as from_pretrained leaves it
    optimizer = _torch().optim.Adagrad(net.parameters(), lr=1e-2)
    scheduler = _schedulers().LambdaLR(optimizer, lambda step: 1)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 1000}


@recipe
def transformers_lora() -> Given:
    net = transformer()
    freeze(net.embed, net.blocks, net.norm)
    optimizer = _torch().optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=2e-4)
    return {"optimizer": optimizer, "model": net}


@recipe
def bert_layer_wise_rates() -> Given:
    net = transformer()
    parts = [net.embed, net.blocks[0], net.blocks[1], _torch().nn.ModuleList([net.norm, net.head])]
    groups = [
        half | {"lr": 2e-5 * 0.9 ** (3 - depth)}
        for depth, part in enumerate(parts)
        for half in decay_groups(part, 0.01, one_dimensional)
    ]
    optimizer = _torch().optim.AdamW(groups, lr=2e-5)
    curve = functools.partial(warmup_then_linear, num_warmup_steps=5, num_training_steps=50)
    return {"optimizer": optimizer, "model": net, "scheduler": _schedulers().LambdaLR(optimizer, curve), "steps": 50}


@recipe
def fastai_discriminative_one_cycle() -> Given:
    net = convolutional()
    parts = [net.stem, net.body, net.head]
    optimizer = _torch().optim.Adam(layered_groups(parts, 1e-3, 0.1), betas=(0.9, 0.99))
    rates = [group["lr"] for group in optimizer.param_groups]
    scheduler = _schedulers().OneCycleLR(optimizer, max_lr=rates, total_steps=120)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 120}


@recipe
def fastai_frozen_body() -> Given:
    net = convolutional()
    freeze(net.stem[0], net.body[0])  # batch normalisations train
    optimizer = _torch().optim.Adam([p for p in net.parameters() if p.requires_grad], lr=2e-3)
    scheduler = _schedulers().OneCycleLR(optimizer, max_lr=2e-3, total_steps=40)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 40}


@recipe
def transfer_learning_tutorial() -> Given:
    net = convolutional()
    freeze(net.stem, net.body)
    net.stem.eval()
    net.body.eval()
    optimizer = _torch().optim.SGD(net.head.parameters(), lr=0.001, momentum=0.9)
    scheduler = _schedulers().StepLR(optimizer, step_size=7, gamma=0.1)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 25}


@recipe
def mmdetection_frozen_stages() -> Given:
    torch = _torch()

    class Backbone(torch.nn.Sequential):
        def train(self, mode: bool = True) -> Any:
            super().train(mode)
            self.stem.eval()
            freeze(self.stem)
            return self

    net = Backbone()
    for name, part in convolutional().named_children():
        net.add_module(name, part)
    optimizer = torch.optim.SGD([*net.body.parameters(), *net.head.parameters()], lr=0.02, momentum=0.9)
    return {"optimizer": optimizer, "model": net}


@recipe
def nanogpt() -> Given:
    net = transformer()
    optimizer = _torch().optim.AdamW(decay_groups(net, 0.1, one_dimensional), lr=6e-4, betas=(0.9, 0.95))

    def set_rates(optimizer: Any, step: int) -> None:
        rate = 6e-5 + 0.5 * (6e-4 - 6e-5) * (1 + math.cos(math.pi * step / 100))
        for group in optimizer.param_groups:
            group["lr"] = rate

    return {"optimizer": optimizer, "model": net, "scheduler": set_rates, "steps": 100, "clipped": net.parameters()}


@recipe
def dcgan() -> Given:
    one, other = perceptron(), perceptron()
    adam = functools.partial(_torch().optim.Adam, lr=2e-4, betas=(0.5, 0.999))
    return {"optimizer": [adam(one.parameters()), adam(other.parameters())], "model": [one, other]}


@recipe
def cyclegan_with_schedulers() -> Given:
    one, other = perceptron(), perceptron()
    optimizers = [_torch().optim.Adam(net.parameters(), lr=2e-4) for net in (one, other)]
    schedulers = [
        _schedulers().LambdaLR(optimizer, lambda epoch: 1.0 - max(0, epoch - 100) / 101) for optimizer in optimizers
    ]
    return {"optimizer": optimizers, "model": [one, other], "scheduler": schedulers, "steps": 200}


@recipe
def airbench_bias_rates() -> Given:
    net = convolutional()
    biases = [p for name, p in net.named_parameters() if p.ndim == 1]
    others = [p for p in net.parameters() if p.ndim > 1]
    groups = [
        {"params": biases, "lr": 0.64, "weight_decay": 1e-4},
        {"params": others, "lr": 0.01, "weight_decay": 1e-2},
    ]
    optimizer = _torch().optim.SGD(groups, momentum=0.85, nesterov=True)
    scheduler = _schedulers().LambdaLR(optimizer, lambda step: (1 + step) / 20 if step < 20 else (100 - step) / 80)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 100}


@recipe
def yolov5() -> Given:
    net = convolutional()
    norms = [p for m in net.modules() if type(m).__name__ == "BatchNorm2d" for p in [m.weight]]
    biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
    weights = [p for p in net.parameters() if p.ndim > 1]
    optimizer = _torch().optim.SGD(biases, lr=0.01, momentum=0.937, nesterov=True)
    optimizer.add_param_group({"params": weights, "weight_decay": 5e-4})
    optimizer.add_param_group({"params": norms, "weight_decay": 0.0})
    scheduler = _schedulers().LambdaLR(optimizer, lambda epoch: (1 - epoch / 300) * 0.99 + 0.01)
    ema = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 300, "ema": ema}


@recipe
def detr() -> Given:
    net = convolutional()
    freeze(net.stem[1], net.body[1])
    net.stem[1].eval()
    net.body[1].eval()
    groups = [
        {"params": [p for name, p in net.named_parameters() if "head" in name]},
        {"params": [p for name, p in net.named_parameters() if "head" not in name and p.requires_grad], "lr": 1e-5},
    ]
    optimizer = _torch().optim.AdamW(groups, lr=1e-4, weight_decay=1e-4)
    scheduler = _schedulers().StepLR(optimizer, 200)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 300, "clipped": net.parameters()}


@recipe
def swa() -> Given:
    net = convolutional()
    optimizer = _torch().optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    scheduler = _schedulers().CosineAnnealingLR(optimizer, T_max=300)
    averaged = _torch().optim.swa_utils.AveragedModel(net)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 300, "ema": averaged}


@recipe
def swa_with_its_own_scheduler() -> Given:
    net = perceptron()
    optimizer = _torch().optim.SGD(net.parameters(), lr=0.05)
    scheduler = _schedulers().CosineAnnealingLR(optimizer, T_max=100)
    later = _torch().optim.swa_utils.SWALR(
        optimizer, swa_lr=0.05
    )  # the loop steps it at the end, in place of the other
    return {"optimizer": optimizer, "model": net, "scheduler": [scheduler, later], "steps": 100}


@recipe
def transformers_adafactor() -> Given:
    class Adafactor(_torch().optim.Optimizer):  # type: ignore[misc] # its rate is None where it finds its own
        def __init__(self, parameters: Any) -> None:
            super().__init__(parameters, {"lr": None, "weight_decay": 0.0, "relative_step": True})

        def step(self, closure: Any = None) -> None: ...

    net = transformer()
    return {"optimizer": Adafactor(net.parameters()), "model": net}


@recipe
def lbfgs() -> Given:
    net = perceptron()
    return {"optimizer": _torch().optim.LBFGS(net.parameters()), "model": net}


@recipe
def diffusers_average() -> Given:
    class EMAModel:
        def __init__(self, parameters: Any) -> None:
            self.shadow_params = [each.detach().clone() for each in parameters]

    net = perceptron()
    return {"optimizer": _torch().optim.AdamW(net.parameters()), "model": net, "ema": EMAModel(net.parameters())}


@recipe
def arcface_with_a_loss() -> Given:
    net, loss = convolutional(), _torch().nn.Linear(3, 7, bias=False)
    groups = [{"params": net.parameters()}, {"params": loss.parameters(), "lr": 0.1}]
    optimizer = _torch().optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=5e-4)
    return {"optimizer": optimizer, "model": [net, loss]}


@recipe
def efficientnet() -> Given:
    net = convolutional()
    groups = decay_groups(net, 1e-5, one_dimensional)
    optimizer = _torch().optim.RMSprop(groups, lr=0.048, alpha=0.9, momentum=0.9, eps=1e-3)
    scheduler = _schedulers().StepLR(optimizer, step_size=2, gamma=0.97)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 450}


@recipe
def plateau() -> Given:
    net = convolutional()
    optimizer = _torch().optim.Adam(layered_groups([net.stem, net.body, net.head], 1e-3, 0.5))
    scheduler = _schedulers().ReduceLROnPlateau(optimizer, patience=5, min_lr=1e-6)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 50}


@recipe
def cyclic() -> Given:
    net = perceptron()
    optimizer = _torch().optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    scheduler = _schedulers().CyclicLR(optimizer, base_lr=0.01, max_lr=0.1, step_size_up=50)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 400}


@recipe
def warm_restarts() -> Given:
    net = convolutional()
    optimizer = _torch().optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    scheduler = _schedulers().CosineAnnealingWarmRestarts(optimizer, T_0=10, T_mult=2)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 150}


@recipe
def chained() -> Given:
    net = perceptron()
    optimizer = _torch().optim.SGD(net.parameters(), lr=0.1)
    parts = [
        _schedulers().ConstantLR(optimizer, factor=0.1, total_iters=20),
        _schedulers().ExponentialLR(optimizer, 0.9),
    ]
    scheduler = _schedulers().ChainedScheduler(parts, optimizer=optimizer)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 100}


@recipe
def lightning_plain() -> Given:
    net = perceptron()
    return {"optimizer": _torch().optim.Adam(net.named_parameters(), lr=1e-3), "model": net}


@recipe
def tied_language_model() -> Given:
    torch = _torch()
    net = torch.nn.Sequential(torch.nn.Embedding(6, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 6, bias=False))
    net[2].weight = net[0].weight
    optimizer = torch.optim.AdamW(decay_groups(net, 0.1, one_dimensional), lr=3e-4)
    return {"optimizer": optimizer, "model": net, "clipped": list(net.parameters())}


@recipe
def resumed_with_both_states() -> Given:
    def make() -> tuple[Any, Any, Any]:
        net = transformer()
        optimizer = _torch().optim.AdamW(net.parameters(), lr=1e-3)
        return net, optimizer, _schedulers().CosineAnnealingLR(optimizer, T_max=50)

    net, optimizer, scheduler = make()
    make_updates(net, optimizer, scheduler, 10)
    new_net, new_optimizer, new_scheduler = make()
    new_net.load_state_dict(net.state_dict())
    new_optimizer.load_state_dict(optimizer.state_dict())
    new_scheduler.load_state_dict(scheduler.state_dict())
    return {"optimizer": new_optimizer, "model": new_net, "scheduler": new_scheduler, "steps": 50}


@recipe
def in_the_first_epoch() -> Given:
    net = convolutional()
    optimizer = _torch().optim.Adam(net.parameters(), lr=1e-3)
    scheduler = _schedulers().StepLR(optimizer, step_size=30)
    make_updates(net, optimizer, count=4)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 90}


@recipe
def gradual_unfreezing() -> Given:
    net = transformer()
    freeze(net.embed)
    optimizer = _torch().optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    make_updates(net, optimizer)
    net.embed.requires_grad_(True)
    optimizer.add_param_group({"params": net.embed.parameters(), "lr": 1e-4})
    make_updates(net, optimizer)
    return {"optimizer": optimizer, "model": net}


@recipe
def of_this_library_with_phases() -> Given:
    net = convolutional()
    spec = ll.Spec(
        ll.SGD(0.1, momentum=0.9, weight_decay=1e-4),
        [ll.Group("stem", lr_scale=0.1), ll.Group("body", lr_scale=0.3)],
        ll.CosineDecay(warmup_steps=2),
        no_weight_decay="1d",
        phases=[ll.Phase("5 steps", frozen=["stem", "body"]), ll.Phase()],
    )
    optimizer, scheduler = ll.compile(spec, net, total_steps=20)
    return {"optimizer": optimizer, "model": net, "scheduler": scheduler, "steps": 20}
