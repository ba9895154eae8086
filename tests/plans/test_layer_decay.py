"""Groups by depth: layers are counted from the images to the head, on the names that models really have."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import layered_lr as ll
from layered_lr.models.depth import find_depths

VIT = (
    "cls_token pos_embed patch_embed.proj.weight blocks.0.norm1.weight blocks.0.mlp.fc1.weight blocks.1.attn.qkv.weight"
)
BERT = "bert.embeddings.word_embeddings.weight bert.encoder.layer.0.attention.self.query.weight"


def depths(text: str) -> list[int]:
    """Of parameters that are matrices, but for normalisations and single biases."""
    names = text.split()
    shapes = {
        name: (4,) if "norm" in name or ".ln" in name or "bn" in name or name.endswith("bias") else (4, 4)
        for name in names
    }
    return list(find_depths([ll.Parameter(name, shapes[name]) for name in names]).values())


@pytest.mark.parametrize(
    ("names", "due"),
    [
        (f"{VIT} norm.weight head.weight head.bias", [0, 0, 0, 1, 1, 2, 2, 3, 3]),
        (f"{BERT} bert.encoder.layer.1.output.dense.weight bert.pooler.dense.weight fc.weight", [0, 1, 2, 3, 3]),
        ("vit.embeddings.cls_token vit.encoder.layer.0.a.b.weight vit.encoder.layer.1.a.b.weight vit.layernorm.weight "
         "classifier.weight", [0, 1, 2, 2, 3]),
        ("conv1.weight bn1.weight layer1.0.conv1.weight layer1.0.bn1.bias layer1.1.conv1.weight layer2.0.conv1.weight "
         "layer2.0.downsample.0.weight fc.weight", [0, 0, 1, 1, 2, 3, 3, 4]),
        ("model.embed_tokens.weight model.layers.0.mlp.up.weight model.layers.1.mlp.up.weight model.norm.weight "
         "lm_head.weight", [0, 1, 2, 2, 3]),
        ("stem.0.weight stages.0.blocks.0.dw.weight stages.0.blocks.1.dw.weight stages.1.downsample.1.weight "
         "stages.1.blocks.0.dw.weight head.fc.weight", [0, 1, 2, 3, 4, 5]),
        ("0.weight 1.weight 3.weight", [0, 1, 2]),
        ("conv1.weight bn1.weight conv2.weight bn2.bias fc.weight", [0, 0, 1, 1, 2]),
        ("a.0.x.w.weight aux.conv1.weight a.1.x.w.weight fc.weight", [0, 2, 1, 2]),
        ("dinov2.embed.weight dinov2.layers.0.a.weight dinov2.layers.1.a.weight dinov2.layernorm.weight fc.weight",
         [0, 1, 2, 2, 3]),  # the network's own number is no layer's
        ("e.weight beit.layers.0.lambda_1 beit.layers.0.mlp.fc1.weight beit.layers.1.lambda_1 "
         "beit.layers.1.mlp.fc1.weight head.weight", [0, 1, 1, 2, 2, 3]),  # a parameter right in a block
        ("conv1.conv.weight conv2.conv.weight inception3a.branch1.conv.weight inception3a.branch2.0.conv.weight "
         "inception3b.branch1.conv.weight fc.weight", [0, 1, 2, 2, 3, 4]),  # branches are one layer
        ("shared.weight encoder.block.0.layer.0.SelfAttention.q.weight encoder.block.0.layer.1.Dense.wi.weight "
         "encoder.block.1.layer.0.SelfAttention.q.weight lm_head.weight", [0, 1, 1, 2, 3]),  # T5
        ("r.embedder.conv.weight r.stages.0.layers.0.layer.0.conv.weight r.stages.0.layers.0.layer.1.conv.weight "
         "r.stages.0.layers.1.layer.0.conv.weight r.stages.1.layers.0.shortcut.conv.weight classifier.1.weight",
         [0, 1, 1, 2, 3, 4]),  # transformers' ResNet
        ("m.layer.0.expand_1x1.conv.weight m.layer.0.conv_3x3.conv.weight m.layer.1.expand_1x1.conv.weight fc.weight",
         [0, 0, 1, 2]),
        ("stem.0.weight trunk.block1.block1-0.f.a.0.weight trunk.block2.block2-0.f.a.0.weight "
         "trunk.block2.block2-1.f.a.0.weight fc.weight", [0, 1, 2, 3, 4]),  # RegNet
        ("f.conv0.weight f.denseblock1.denselayer1.conv1.weight f.denseblock1.denselayer2.conv1.weight "
         "f.transition1.conv.weight f.denseblock2.denselayer1.conv1.weight fc.weight", [0, 1, 2, 3, 4, 5]),
    ],
)  # fmt: skip
def test_layers_are_counted_as_their_authors_mean_them(names: str, due: list[int]) -> None:
    assert depths(names) == due


@pytest.mark.parametrize(
    ("names", "convolutions", "due"),
    [
        ("layers.0.weight layers.8.0.conv.weight layers.13.0.conv.weight layers.14.weight layers.15.weight "
         "classifier.1.weight classifier.1.bias", "layers.14.weight", [0, 1, 2, 3, 3, 4, 4]),  # MNASNet
        ("conv_stem.weight blocks.0.0.a.weight blocks.1.0.a.weight conv_head.weight conv_head.bias bn2.weight "
         "classifier.weight", "conv_head.weight", [0, 1, 2, 3, 3, 3, 4]),  # timm's EfficientNet
        ("net.blocks.0.a.weight net.blocks.1.a.weight net.last.weight net.last_bn.bias net.fc.weight",
         "net.last.weight", [0, 1, 2, 2, 3]),
        ("0.a.weight 1.a.weight 2.weight 3.bias 6.weight", "2.weight", [0, 1, 2, 2, 3]),
        ("features.3.a.weight features.5.a.weight classifier.0.weight classifier.3.weight",
         "classifier.0.weight classifier.3.weight", [0, 1, 2, 2]),  # both are in the module of the head
    ],
)  # fmt: skip
def test_convolutions_behind_the_blocks_are_a_layer_of_their_own(names: str, convolutions: str, due: list[int]) -> None:
    shapes = {name: (4, 4, 1, 1) if name in convolutions.split() else (4, 4) for name in names.split()}
    shapes |= dict.fromkeys(("layers.15.weight", *(name for name in shapes if name.endswith("bias"))), (4,))
    shapes["bn2.weight"] = (4,)
    listed = [ll.Parameter(name, shapes[name]) for name in names.split()]
    assert list(find_depths(listed).values()) == due


def test_tied_weights_are_as_deep_as_their_first_use() -> None:
    tied = [
        ll.Parameter("model.embed.weight", (9, 4), ("lm_head.weight",)),
        ll.Parameter("model.layers.0.mlp.up.weight", (4, 4)),
        ll.Parameter("model.layers.1.mlp.up.weight", (4, 4)),
    ]
    assert list(find_depths(tied).values()) == [0, 1, 2]


def test_wrappers_do_not_count() -> None:
    names = ["module.blocks.0.fc.weight", "module.blocks.1.fc.weight", "module.head.weight"]
    assert list(find_depths([ll.Parameter(name, (4, 4)) for name in names]).values()) == [0, 1, 2]


NET = [(name, (4, 4)) for name in ("stem.weight", "blocks.0.a.weight", "blocks.1.a.weight", "head.weight")]


def test_the_spec_and_the_function_give_the_same_groups() -> None:
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), layer_decay=0.5), NET, total_steps=4)
    listed = ll.resolve(ll.Spec(ll.SGD(0.1), ll.layer_decay(NET, 0.5)), NET, total_steps=4)
    assert plan.groups == listed.groups
    assert plan.lr(0) == {"layer 0": 0.0125, "layer 1": 0.025, "layer 2": 0.05, "layer 3": 0.1}
    assert ll.plan_from_dict(plan.to_dict()) == plan
    assert plan.depths == {name: depth for depth, (name, _) in enumerate(NET)}
    _, header, _, *rows = str(plan).splitlines()[:7]
    assert "depth" in header and "layer 3" in rows[-1]


def test_other_groups_come_first() -> None:
    spec = ll.Spec(
        ll.SGD(0.1), [ll.Group("head", lr=1.0)], layer_decay=0.5, phases=[ll.Phase(2, frozen="layer 0"), ll.Phase()]
    )
    plan = ll.resolve(spec, NET, total_steps=4)
    assert plan.lr(0) == {"head": 1.0, "layer 0": 0.0, "layer 1": 0.025, "layer 2": 0.05}
    assert plan.lr(3)["layer 0"] == 0.0125
    assert ll.Spec.from_toml(spec.to_toml()) == spec


def test_no_decay_stays_within_the_groups() -> None:
    net = [*NET[:2], ("blocks.0.a.bias", (4,)), *NET[2:]]
    plan = ll.resolve(ll.Spec(ll.AdamW(0.1), layer_decay=0.5, no_weight_decay="1d"), net)
    assert [group.name for group in plan.groups] == ["layer 0", "layer 1", "layer 2", "layer 3"]
    assert plan.groups[1].undecayed == ("blocks.0.a.bias",)


def test_layers_can_be_said() -> None:
    net = [("body.weight", (2, 2)), ("tail.weight", (2, 2)), ("head.weight", (2, 2))]
    groups = ll.layer_decay(net, 0.5, layers=["body", "tail", "head"])
    assert [(group.match, group.lr_scale) for group in groups] == [
        (("body.weight",), 0.25), (("tail.weight",), 0.5), (("head.weight",), 1.0),
    ]  # fmt: skip
    for layers, message in (
        ((), "no layer has a number in its name"),
        (["body", "tail"], "'head.weight' is in none"),
        (["*", "head"], "'head' matches no parameter that the ones before it"),
    ):
        with pytest.raises(ll.SpecError, match=message):
            ll.layer_decay(net, layers=layers)


@pytest.mark.parametrize("decay", [0, -1, 1.5, "0.5", None, True, float("nan")])
def test_a_decay_that_is_none_is_refused(decay: Any) -> None:
    with pytest.raises(ll.SpecError, match=r"decay=.*must be > 0 and at most 1"):
        ll.layer_decay(NET, decay)
    if decay is not None:
        with pytest.raises(ll.SpecError, match="layer_decay must be"):
            ll.Spec(ll.SGD(0.1), layer_decay=decay)


@pytest.mark.parametrize(
    ("lr", "due"),
    [
        (1e-3, [1e-3, 1e-3, 1e-3]),
        (slice(1e-5, 1e-3), [1e-5, 1e-4, 1e-3]),
        (slice(1e-3), [1e-4, 1e-4, 1e-3]),
        ([1e-3, 2e-3, 5e-3], [1e-3, 2e-3, 5e-3]),
    ],
)
def test_rates_are_spread_as_fastai_spreads_them(lr: Any, due: list[float]) -> None:
    groups = ll.discriminative(["a", ["b", "c"], "d"], lr)
    assert [group.lr for group in groups] == pytest.approx(due, rel=1e-12)
    assert groups[1].match == ("b", "c")


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        (slice(1e-3, 1e-5), "the first part would be faster"),
        (slice(1e-5, 1e-3, 2), "no step"),
        ([1e-3], "has 1 rates for 2 parts"),
        (0, "must be a finite number > 0"),
        (slice(None, None), "must be a finite number > 0"),
        ("1e-3", "must be a finite number > 0"),
    ],
)
def test_wrong_rates_are_refused(lr: Any, message: str) -> None:
    with pytest.raises(ll.SpecError, match=message):
        ll.discriminative(["a", "b"], lr)
    with pytest.raises(ll.SpecError, match="parts="):
        ll.discriminative("ab", 1e-3)


def test_a_recipe_spreads_rates() -> None:
    text = (
        'optimizer = {type = "SGD", lr = 0.1}\ndiscriminative = {parts = ["a", "b"], lr = {first = 1e-5, last = 1e-3}}'
    )
    spec = ll.Spec.from_toml(text)
    assert list(spec.groups) == ll.discriminative(["a", "b"], slice(1e-5, 1e-3))
    for wrong in ("{parts = ['a']}", "{parts = ['a'], lr = {last = 1, step = 2}}", "3"):
        with pytest.raises(ll.SpecError, match="discriminative"):
            ll.Spec.from_toml(f'optimizer = {{type = "SGD", lr = 0.1}}\ndiscriminative = {wrong}')


@pytest.mark.parametrize("backend_name", ["torch-eager", "oneflow-eager"])
def test_a_run_has_the_layers_rates_and_goes_on(backend: Any, tmp_path: Any) -> None:
    from tests.support.models import arrays, mlp

    said: Any = {"data": arrays(), "batch_size": 8, "progress": False, "device": "cpu"}
    framework = __import__(backend.name.split("-")[0])
    spec = ll.Spec(ll.SGD(0.1), layer_decay=0.5)
    whole = ll.run(spec, backend.name, mlp(framework), max_steps=4, **said)
    first = {name: rates[0] for name, rates in whole.rates.items()}
    assert first == pytest.approx({"layer 0": 0.05, "layer 1": 0.1}, rel=1e-7)
    ll.run(spec, backend.name, mlp(framework), max_steps=2, checkpoints=tmp_path / "run", **said)
    again = ll.resume(tmp_path / "run", model=mlp(framework), data=said["data"], max_steps=4, trust=True)
    assert all((array == whole.weights[name]).all() for name, array in again.weights.items())


@pytest.mark.parametrize(
    ("parameters", "note"),
    [
        (
            [("body.w", (2, 2)), ("bn1.weight", (2,)), ("bn1.bias", (2,)), ("tail.w", (2, 2))],
            "group 'rest' trains 2 parameters of normalisations at the full rate: bn1.weight, bn1.bias. "
            "ll.where(norm=True) chooses them",
        ),
        (
            [("body.w", (2, 2)), ("out.weight", (2,), (), "float32", True, ("MyRMSNorm",)), ("tail.w", (2, 2))],
            "group 'rest' trains 1 parameter of normalisations at the full rate: out.weight. "
            "ll.where(norm=True) chooses them",
        ),
        (
            [("body.w", (2, 2)), ("head.fc.weight", (2, 2)), ("head.fc.bias", (2,))],
            "group 'rest' is head.fc alone, at the full rate. If it is the head, a group of its own says so",
        ),
        ([("body.w", (2, 2)), ("a.weight", (2, 2)), ("b.weight", (2, 2))], None),
    ],
)
def test_a_note_says_what_falls_into_rest_at_the_full_rate(parameters: Any, note: str | None) -> None:
    slow = ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("body", lr_scale=0.1)]), parameters)
    assert slow.notes == (() if note is None else (note,))
    assert ll.resolve(ll.Spec(ll.SGD(0.1), [ll.Group("body")]), parameters).notes == ()


@pytest.mark.parametrize("wrapper", ["", "_orig_mod", "module"])
def test_a_model_that_counts_itself_is_believed(torch: Any, monkeypatch: pytest.MonkeyPatch, wrapper: str) -> None:
    """As timm's models do; the names alone would tell another order. Equality with timm is tested beside timm."""
    order = {"stem": 2, "blocks": 0, "head": 1}

    class Net(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
            self.blocks = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2)))

        def group_matcher(self, coarse: bool) -> dict[str, int]:
            assert not coarse
            return order

    def group_parameters(module: Any, matcher: dict[str, int], reverse: bool) -> dict[str, int]:
        assert reverse
        return {name: matcher[name.split(".")[0]] for name, _ in module.named_parameters()}

    monkeypatch.setitem(sys.modules, "timm.models", SimpleNamespace(group_parameters=group_parameters))
    model = Net()
    if wrapper:
        outer = torch.nn.Module()
        outer.add_module(wrapper, model)
        model = outer
    spec = ll.Spec(ll.SGD(1.0), layer_decay=0.5)
    plan = ll.plan(spec, model=model, total_steps=1)
    found = {name.removeprefix(f"{wrapper}."): depth for name, depth in plan.depths.items()}
    assert {name.split(".")[0]: depth for name, depth in found.items()} == order
    assert [group.lr_scale for group in plan.groups] == [0.25, 0.5, 1.0]
    assert plan.groups == ll.plan(ll.Spec(ll.SGD(1.0), ll.layer_decay(model, 0.5)), model=model, total_steps=1).groups
    assert ll.plan_from_dict(plan.to_dict()).groups == plan.groups


@pytest.mark.parametrize("depth", [-1, 1.5, True, "0"])
def test_a_depth_that_is_none(depth: Any) -> None:
    with pytest.raises(ll.SpecError, match="parameters: "):
        ll.resolve(ll.Spec(ll.SGD(1.0)), [("a", (2,), (), "float32", True, (), depth)])
