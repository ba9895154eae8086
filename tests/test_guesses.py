"""Names and values that people give who come from another library: a hint each, and no list of everything there is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.guesses import explain_guess, explain_type
from layered_lr.names_elsewhere import ARGUMENTS, TYPES
from layered_lr.optimizers import OPTIMIZERS
from layered_lr.schedules import SCHEDULES

SGD = ll.SGD(0.1)
PARAMETERS = [("features.weight", (2, 2)), ("head.weight", (2, 2))]

# What is written, and the words of the hint.
ARGUMENT_CASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: ll.Group("a", lr_mult=0.1), "Did you mean 'lr_scale'"),
    (lambda: ll.Group("a", frozen=True), r"does not freeze.*freeze_for_good"),
    (lambda: ll.Group("a", requires_grad=False), r"does not freeze"),
    (lambda: ll.Group(params=[], lr=0.1), "by pattern"),
    (lambda: ll.Group("a", learning_rate=0.1), "Did you mean 'lr'"),
    (lambda: ll.Group("a", decay_mult=0.0), "Did you mean 'weight_decay'"),
    (lambda: ll.Group("a", layer_decay=0.8), r"belongs to the spec: ll\.Spec\(.*layer_decay=0\.8"),
    (lambda: ll.Spec(SGD, llrd=0.8), "Did you mean 'layer_decay'"),
    (lambda: ll.Group("a", LR=0.1), "Did you mean 'lr'"),
    (lambda: ll.Group("a", scheduler=None), "Did you mean 'schedule'"),
    (lambda: ll.SGD(0.1, Momentum=0.9), "Did you mean 'momentum'"),
    (lambda: ll.SGD(params=[], lr=0.1), "without parameters.*compile"),
    (lambda: ll.SGD(learning_rate=0.1), "Did you mean 'lr'"),
    (lambda: ll.AdamW(0.1, beta1=0.9), "Did you mean 'betas'"),
    (lambda: ll.AdamW(0.1, epsilon=1e-8), "Did you mean 'eps'"),
    (lambda: ll.AdamW(0.1, clipnorm=1.0), "clip_grad_norm"),
    (lambda: ll.StepLR(optimizer=None, step_size=3), "without an optimizer"),
    (lambda: ll.CosineAnnealingLR(10, last_epoch=-1), "resume"),
    (lambda: ll.CosineDecay(num_warmup_steps=3), "Did you mean 'warmup_steps'"),
    (lambda: ll.CosineAnnealingLR(10, lr_min=0.1), "Did you mean 'eta_min'"),
    (lambda: ll.Spec(SGD, lr=0.1), "belongs to the optimizer"),
    (lambda: ll.Spec(SGD, param_groups=[]), "Did you mean 'groups'"),
    (lambda: ll.Spec(SGD, max_grad_norm=1.0), "Did you mean 'clip_grad_norm'"),
    (lambda: ll.Spec(SGD, epochs=3), "belongs to the run"),
    (lambda: ll.Phase(epochs=3), "Did you mean 'until'"),
    (lambda: ll.Phase("1 epoch", freeze="a"), "Did you mean 'frozen'"),
    (lambda: ll.Phase("1 epoch", lr=0.1), "Give the rate to"),
    (lambda: ll.Spec.from_toml("[optimizer]\ntype='Momentum'\nlr=0.1"), "Use SGD with momentum=0.9"),
    (lambda: ll.Spec.from_toml("[optimizer]\ntype='sgd'\nlr=0.1"), "Did you mean 'SGD'"),
    (
        lambda: ll.Spec.from_dict({"optimizer": {"type": "SGD", "lr": 1.0}, "schedule": {"type": "cosine"}}),
        "Use Cosine",
    ),
    (lambda: ll.Checkpoints("a", keeps=3), "Did you mean 'keep'"),
]

RUN_CASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: ll.run(num_epochs=3), "Did you mean 'epochs'"),
    (lambda: ll.run(train_loader=[]), "Did you mean 'data'"),
    (lambda: ll.run(lr=0.1), "belongs to the spec"),
    (lambda: ll.run(frozen=["a"]), "belongs to the spec"),
    (lambda: ll.run(amp=True), "Did you mean 'precision'"),
    (lambda: ll.run(criterion=None), "Did you mean 'loss'"),
    (lambda: ll.run(label_smoothing=0.1), r"belongs to the loss: loss=ll\.CrossEntropy"),
    (lambda: ll.run(patience=3), r"early_stop=ll\.EarlyStop"),
    (lambda: ll.run(mixup_alpha=0.2), r"mix=ll\.Mix"),
    (lambda: ll.run(num_classes=10), "as many outputs as the data has classes"),
    (lambda: ll.run(img_size=64), "Did you mean 'image_size'"),
    (lambda: ll.run(sync_bn=True), "Did you mean 'sync_batch_norm'"),
    (lambda: ll.run(layer_decay=0.8), "belongs to the spec"),
    (lambda: ll.plan(shuffle=True), "drawn from the seed"),
    (lambda: ll.plan(bs=3), "Did you mean 'batch_size'"),
    (lambda: ll.compare(backend="torch-eager"), "Did you mean 'backends'"),
    (lambda: ll.compile(ll.Spec(SGD), None, epochs=3), "Did you mean 'total_steps'"),
    (lambda: ll.resolve(ll.Spec(SGD), PARAMETERS, T_max=3), "Did you mean 'total_steps'"),
]

VALUE_CASES: list[tuple[Callable[[], Any], str]] = [
    (lambda: ll.Spec(ll.SGD), r"SGD is a class: give an object of it, ll.SGD\(...\)"),
    (lambda: ll.Spec("adam"), "Did you mean 'Adam'"),
    (lambda: ll.Spec({"type": "SGD", "lr": 0.1}), "from_dict"),
    (lambda: ll.Spec(SGD, [{"params": [np.ones(99)], "lr": 0.1}]), r"from_dict.*ll.Group\('features', lr=0.1\)"),
    (lambda: ll.Spec(SGD, schedule=ll.StepLR), r"ll.StepLR\(...\)"),
    (lambda: ll.Spec(SGD, schedule=lambda step: 1.0), r"LambdaLR.*Function"),
    (lambda: ll.Spec(SGD, schedule="cosine"), "Use CosineAnnealingLR or CosineDecay"),
    (lambda: ll.Spec(SGD, schedule={"type": "StepLR"}), "from_dict"),
    (lambda: ll.Spec(SGD, phases=[{"until": 3}]), "from_dict"),
    (lambda: ll.resolve(SGD, PARAMETERS), r"ll.Spec\(SGD\(...\)\)"),
    (lambda: ll.resolve("head-first", PARAMETERS), "load_recipe"),
    (lambda: ll.resolve(ll.load_recipe("head-first"), PARAMETERS), "its spec"),
    (lambda: ll.resolve({}, PARAMETERS), "from_dict"),
    (lambda: ll.resolve(ll.Spec(SGD), iter([])), "Give the model itself"),
    (lambda: ll.resolve(ll.Spec(SGD), {"w": np.ones(2)}), "state_dict"),
    (lambda: ll.load_dataset((np.ones(2), np.ones(2))), "test images"),
    (lambda: ll.load_dataset([np.ones(2)] * 4), "as a tuple"),
    (lambda: ll.load_dataset(iter([])), r"ll.compile\(spec, model\)"),
]


@pytest.mark.parametrize(("write", "hint"), ARGUMENT_CASES + VALUE_CASES)
def test_a_guess_gets_a_hint_and_no_list_of_all_fields(write: Callable[[], Any], hint: str) -> None:
    with pytest.raises(ll.LayeredLRError, match=hint) as caught:
        write()
    message = str(caught.value)
    assert "It takes:" not in message and "\n" not in message and len(message) < 400


@pytest.mark.parametrize(("write", "hint"), RUN_CASES)
def test_an_argument_of_a_function_gets_a_hint(write: Callable[[], Any], hint: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument.*({hint})"):
        write()


def test_classes_and_objects_of_torch_are_named() -> None:
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    batches = torch.utils.data.DataLoader([1, 2])
    cases: list[tuple[Callable[[], Any], str]] = [
        (lambda: ll.Spec(torch.optim.SGD), "SGD is a class of torch. Did you mean 'SGD'"),
        (lambda: ll.Spec(optimizer), "SGD is a class of torch. Did you mean 'SGD'"),
        (lambda: ll.Spec(SGD, schedule=torch.optim.lr_scheduler.StepLR), "StepLR is a class of torch"),
        (lambda: ll.Spec(SGD, schedule=torch.optim.lr_scheduler.StepLR(optimizer, 3)), "StepLR is a class of torch"),
        (lambda: ll.Spec(SGD, layer.parameters()), "is not a Group"),
        (lambda: ll.compile(optimizer, layer), "class of torch"),
        (lambda: ll.compile(layer, ll.Spec(SGD)), "must be an nn.Module"),
        (lambda: ll.compile(ll.Spec(SGD), torch.nn.Linear), "the class Linear.*Give an object of it"),
        (lambda: ll.resolve(ll.Spec(SGD), layer.named_parameters()), "Give the model itself"),
        (lambda: ll.resolve(layer, ll.Spec(SGD)), "the spec comes first"),
        (lambda: ll.load_dataset(batches), r"train data has shuffle=False.*train_loader\.dataset"),
        (lambda: ll.load_dataset((batches, batches)), r"train data has shuffle=False.*train_loader\.dataset"),
        (lambda: ll.run(data=batches, progress=False), r"train data has shuffle=False.*train_loader\.dataset"),
        (
            lambda: ll.plan(data=torch.utils.data.TensorDataset(torch.ones(2))),
            r"train\[0\] is a tuple of 1: a sample must be \(image, label\)",
        ),
    ]
    for write, hint in cases:
        with pytest.raises(ll.LayeredLRError, match=hint) as caught:
            write()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "hint"),
    [("Momentum", "SGD with momentum"), ("train", "Use run"), ("sgd", "'SGD'"), ("ParamGroup", "Group")],
)
def test_a_public_name_that_is_none_gets_a_hint(name: str, hint: str) -> None:
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'.*{hint}"):
        getattr(ll, name)
    assert not hasattr(ll, "__wrapped__")


def test_a_hint_names_what_there_is() -> None:
    """Each of our names in the tables belongs to something that takes it, so that no advice leads to a second error."""
    import dataclasses
    import inspect

    taken = {
        "Group": {f.name for f in dataclasses.fields(ll.Group)},
        "Spec": {f.name for f in dataclasses.fields(ll.Spec)},
        "Phase": {f.name for f in dataclasses.fields(ll.Phase)},
        "optimizer": {f.name for kind in OPTIMIZERS.values() for f in dataclasses.fields(kind)},
        "schedule": {f.name for kind in SCHEDULES.values() for f in dataclasses.fields(kind)},
        "run": set(inspect.signature(ll.run).parameters),
        "compare": set(inspect.signature(ll.compare).parameters),
        "loop": {
            name
            for function in (ll.compile, ll.attach, ll.resolve, ll.save_state, ll.load_state)
            for name in inspect.signature(function).parameters
        },
    }
    assert set(taken) == set(ARGUMENTS)
    for owner, guesses in ARGUMENTS.items():
        unknown = [advice for advice in guesses if " " not in advice and advice not in taken[owner]]
        assert not unknown, (owner, unknown)
        for advice, names in guesses.items():
            if owner in ("Spec", "Phase", "run", "compare"):  # each one function or class, which would take the name
                assert not set(names.split()) & taken[owner], (owner, advice)
            for name in names.split():
                assert explain_guess(owner, name, sorted(taken[owner])), (owner, advice, name)
    public = set(ll.__all__)
    for advice, names in TYPES.items():
        assert advice.replace("(", " ").split()[0] in public
        assert all(explain_type(name, sorted(public)) for name in names.split())
