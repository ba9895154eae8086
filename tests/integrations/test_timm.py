"""timm's own optimizers and the calls of timm's training script drive a spec; timm needs no module of ours."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import layered_lr as ll
from tests.support import trainers
from tests.support.trainers import (
    BATCHES,
    EPOCHS,
    Net,
    Record,
    make_loader,
    make_phases,
    make_plan,
    make_plateau,
    make_spec,
)

pytest.importorskip("timm")


def make(spec: ll.Spec, each: int = 1, opt: str = "momentum") -> tuple[Any, Any, Any, Record]:
    from timm.optim import create_optimizer_v2

    model, updates = Net(), -(-BATCHES // each)
    optimizer = create_optimizer_v2(ll.param_groups(spec, model), opt=opt, lr=0.1)
    scheduler = ll.scheduler(spec, optimizer, model, updates * EPOCHS, updates)
    return model, optimizer, scheduler, Record(optimizer)


def train(made: Any, epochs: int = EPOCHS, start: int = 0, each: int = 1, autocast: bool = False) -> None:
    """As timm's train.py (1.0): ``step_update`` after each update, ``step(epoch, metric)`` after each epoch."""
    model, optimizer, scheduler, _ = made
    updates = start * -(-BATCHES // each)
    if start:
        scheduler.step_update(updates)
    for epoch in range(start, epochs):
        batches = list(make_loader())
        for number, (x, y) in enumerate(batches, start=1):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = torch.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            if number % each and number < len(batches):
                continue
            optimizer.step()
            optimizer.zero_grad()
            updates += 1
            scheduler.step_update(num_updates=updates, metric=float(loss))
        scheduler.step(epoch + 1, 1.0)


@pytest.mark.parametrize(
    "spec", [make_spec(), make_phases(), make_spec(clip_grad_norm=0.3)], ids=["plain", "phases", "clip"]
)
@pytest.mark.parametrize(
    ("each", "autocast"), [(1, False), (4, False), (1, True)], ids=["plain", "accumulation", "bfloat16"]
)
def test_each_update_has_the_rates_of_the_plan(spec: ll.Spec, each: int, autocast: bool) -> None:
    made = make(spec, each)
    train(made, each=each, autocast=autocast)
    made[3].check(make_plan(spec, each))


@pytest.mark.parametrize("opt", ["lamb", "lion", "adamp", "sgdp", "nadamw"])
def test_optimizers_of_timm_train_with_the_groups(opt: str) -> None:
    made = make(make_spec(), opt=opt)
    before = trainers.copy_weights(made[0])
    train(made)
    assert [row["stem"] for row in made[3].rates] == [make_plan(make_spec()).lr(step)["stem"] for step in range(18)]
    assert not torch.equal(before["stem.0.weight"], made[0].stem[0].weight)


def test_the_metric_of_an_epoch_reaches_the_schedule() -> None:
    made = make(make_plateau())
    train(made)
    made[3].check_plateau()


@pytest.mark.parametrize("spec", [make_spec(), make_phases()], ids=["plain", "phases"])
def test_resuming_as_its_script_does_goes_on_bitwise(spec: ll.Spec) -> None:
    """timm saves model and optimizer, and begins again at an epoch."""
    whole, first, second = make(spec), make(spec), make(spec)
    train(whole)
    train(first, epochs=1)
    second[0].load_state_dict(trainers.copy_weights(first[0]))
    second[1].load_state_dict(first[1].state_dict())
    train(second, start=1)
    assert whole[3].rates == first[3].rates + second[3].rates
    trainers.check_same(trainers.copy_weights(whole[0]), trainers.copy_weights(second[0]))


def make_vit(layer_decay: float | None = 0.75) -> tuple[Any, Any]:
    import timm
    from timm.optim import create_optimizer_v2

    model = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=3)
    return model, create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=layer_decay)


def make_scheduler(kind: str, optimizer: Any) -> Any:
    import timm.scheduler as ts

    if kind == "cosine":
        return ts.CosineLRScheduler(optimizer, 30, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6)
    if kind == "cosine of updates":
        return ts.CosineLRScheduler(optimizer, 25, warmup_t=5, warmup_prefix=True, t_in_epochs=False)
    if kind == "step":
        return ts.StepLRScheduler(optimizer, 10, 0.1)
    if kind == "plateau":
        return ts.PlateauLRScheduler(optimizer)
    return {"tanh": ts.TanhLRScheduler, "poly": ts.PolyLRScheduler}[kind](optimizer, 30)


@pytest.mark.filterwarnings("ignore:PlateauLRScheduler is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["cosine", "cosine of updates", "step", "tanh", "poly", "plateau"])
@pytest.mark.parametrize("layer_decay", [None, 0.75])
def test_timms_own_recipes_have_no_findings(kind: str, layer_decay: float | None) -> None:
    model, optimizer = make_vit(layer_decay)
    audit = ll.audit(optimizer, model, make_scheduler(kind, optimizer), steps=30 if kind != "plateau" else 100)
    assert audit.ok and not audit.unchecked, str(audit)


def test_scales_without_timms_scheduler_are_found() -> None:
    model, optimizer = make_vit()
    assert ll.audit(optimizer, model).kinds == ("lr-scale-unread",)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
    assert ll.audit(optimizer, model, scheduler, steps=30).kinds == ("lr-scale-unread",)


@pytest.mark.parametrize("kind", ["cosine", "cosine of updates", "step"])
def test_timms_schedulers_are_adopted(kind: str) -> None:
    model, optimizer = make_vit()
    scheduler = make_scheduler(kind, optimizer)
    spec = ll.adopt(optimizer, model, scheduler)
    assert ll.Spec.from_toml(spec.to_toml()) == spec
    plan = ll.plan(spec, model=model, total_steps=30, steps_per_epoch=1)
    for step in range(30):
        if step:
            scheduler.step_update(step) if kind == "cosine of updates" else scheduler.step(step)
        assert plan.rates(step) == pytest.approx([group["lr"] for group in optimizer.param_groups], rel=1e-12)


COUNTED = [
    "vit_tiny_patch16_224",
    "convnext_atto",
    "swin_tiny_patch4_window7_224",
    "efficientnet_b0",
    "vgg11",
    "mobilevit_xxs",
]


@pytest.mark.parametrize("name", [*COUNTED, "resnet18", "densenet121", "beit_base_patch16_224", "hrnet_w18_small"])
@pytest.mark.parametrize(
    "wrap", [lambda model: model, torch.compile, torch.nn.DataParallel], ids=["", "compile", "data"]
)
def test_layer_decay_has_timms_groups(name: str, wrap: Any) -> None:
    import timm
    from timm.optim import param_groups_layer_decay

    with torch.device("meta"):
        inner = timm.create_model(name)
    due = {
        id(parameter): group["lr_scale"]
        for group in param_groups_layer_decay(inner, weight_decay=0.0, layer_decay=0.8)
        for parameter in group["params"]
    }
    model = wrap(inner)
    for spec in (
        ll.Spec(ll.SGD(1.0), layer_decay=0.8),
        ll.Spec(ll.SGD(1.0), ll.layer_decay(model, 0.8)),
    ):
        plan = ll.plan(spec, model=model, total_steps=1)
        scales = {parameter: group.lr_scale for group in plan.groups for parameter in group.parameters}
        for parameter, tensor in model.named_parameters():
            assert scales[parameter] == pytest.approx(due[id(tensor)], rel=1e-12), parameter


@pytest.mark.parametrize("name", COUNTED[-3:])
def test_a_translated_model_has_the_same_layers(name: str) -> None:
    import timm

    pytest.importorskip("oneflow")
    model = timm.create_model(name, num_classes=2)
    spec = ll.Spec(ll.SGD(1.0), layer_decay=0.8)
    plans = [ll.plan(spec, model=each, total_steps=1) for each in (model, ll.translate(model))]
    assert plans[0].depths == plans[1].depths
    assert [group.parameters for group in plans[0].groups] == [group.parameters for group in plans[1].groups]
