"""What ``torch-compile`` has in place of convolutions of small maps: the same numbers as torch's own convolution."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import open_backend

BATCH = 5
RTOL, ATOL = 1e-5, 1e-5  # float32: sums of up to BATCH * 16 products of normal numbers, in another order

# channels in, channels out, groups, size of the images, kernel, stride, padding
DEPTHWISE = {
    "one pixel": (6, 6, 6, (1, 1), (3, 3), (1, 1), (1, 1)),
    "two by two": (6, 6, 6, (2, 2), (3, 3), (1, 1), (1, 1)),
    "two by two, every other": (6, 6, 6, (2, 2), (3, 3), (2, 2), (1, 1)),
    "one line": (6, 6, 6, (1, 7), (3, 3), (1, 2), (1, 1)),
    "three by three under five": (6, 6, 6, (3, 3), (5, 5), (1, 1), (2, 2)),
    "more padding than it takes": (6, 6, 6, (2, 2), (3, 3), (2, 1), (3, 2)),
    "stride beyond the maps": (6, 6, 6, (2, 2), (3, 3), (5, 5), (1, 1)),
}
POINTWISE = {
    "one pixel": (6, 4, 1, (1, 1), (1, 1), (1, 1), (0, 0)),
    "four by four": (3, 8, 1, (4, 4), (1, 1), (1, 1), (0, 0)),
    "a line of sixteen": (3, 8, 1, (1, 16), (1, 1), (1, 1), (0, 0)),
    "one channel": (1, 1, 1, (2, 2), (1, 1), (1, 1), (0, 0)),
}
LEFT = {
    "large maps": (6, 4, 1, (5, 4), (1, 1), (1, 1), (0, 0)),
    "depthwise, maps of the kernel's size": (6, 6, 6, (3, 3), (3, 3), (1, 1), (1, 1)),
    "depthwise, a large kernel": (6, 6, 6, (2, 2), (8, 8), (1, 1), (4, 4)),
    "groups of two channels": (6, 6, 3, (2, 2), (3, 3), (1, 1), (1, 1)),
    "two outputs a channel": (6, 12, 6, (2, 2), (3, 3), (1, 1), (1, 1)),
    "pointwise with padding": (6, 4, 1, (2, 2), (1, 1), (1, 1), (1, 1)),
    "pointwise with a stride": (6, 4, 1, (4, 4), (1, 1), (2, 2), (0, 0)),
}


def rewritten(torch: Any, case: tuple[Any, ...], dtype: str = "float32", inputs: str = "both") -> tuple[Any, Any, Any]:
    """torch's answer and gradients, the same of the rewritten graph, and this graph."""
    small_maps = pytest.importorskip("layered_lr_torch.small_maps")
    channels, outputs, groups, size, kernel, stride, padding = case
    made = torch.Generator().manual_seed(0)
    options = {"generator": made, "dtype": getattr(torch, dtype)}
    images = torch.randn(BATCH, channels, *size, **options).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, channels // groups, *kernel, **options)
    images.requires_grad_(inputs == "both")

    def answer(images: Any, weight: Any) -> Any:
        maps = torch.nn.functional.conv2d(images, weight, None, stride, padding, 1, groups)
        loss = (maps * maps).sum()
        return maps, torch.autograd.grad(loss, [images, weight] if inputs == "both" else [weight])

    def flat(answered: Any) -> list[Any]:
        return [answered[0].detach(), *answered[1]]

    weight.requires_grad_()
    traced = torch.fx.experimental.proxy_tensor.make_fx(answer, tracing_mode="fake")(images, weight)
    small_maps.SmallMaps()(traced.graph)
    traced.graph.lint()
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return flat(answer(images, weight)), flat(traced(images, weight)), traced.graph


def convolutions(torch: Any, graph: Any) -> list[str]:
    """The convolutions in a graph, each backward pass with what it computes."""
    aten = torch.ops.aten
    forward = ["forward" for _ in graph.find_nodes(op="call_function", target=aten.convolution.default)]
    backward = graph.find_nodes(op="call_function", target=aten.convolution_backward.default)
    return forward + [str(node.args[-1]) for node in backward]


@pytest.mark.parametrize("inputs", ["both", "weight"])
@pytest.mark.parametrize("case", DEPTHWISE)
def test_depthwise_gradients_of_weights_are_torchs(torch: Any, case: str, inputs: str) -> None:
    wanted, got, graph = rewritten(torch, DEPTHWISE[case], inputs=inputs)
    torch.testing.assert_close(got, wanted, rtol=RTOL, atol=ATOL)
    assert convolutions(torch, graph) == ["forward", "[True, False, False]"][: 2 if inputs == "both" else 1]


@pytest.mark.parametrize("inputs", ["both", "weight"])
@pytest.mark.parametrize("case", POINTWISE)
def test_pointwise_convolutions_are_torchs(torch: Any, case: str, inputs: str) -> None:
    wanted, got, graph = rewritten(torch, POINTWISE[case], inputs=inputs)
    torch.testing.assert_close(got, wanted, rtol=RTOL, atol=ATOL)
    assert convolutions(torch, graph) == []
    assert got[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("case", LEFT)
def test_other_convolutions_stay(torch: Any, case: str) -> None:
    wanted, got, graph = rewritten(torch, LEFT[case])
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    assert convolutions(torch, graph) == ["forward", "[True, True, False]"]


@pytest.mark.parametrize("case", ["one pixel", "two by two"])
def test_other_dtypes_stay(torch: Any, case: str) -> None:
    _, _, graph = rewritten(torch, DEPTHWISE[case], dtype="float64")
    assert convolutions(torch, graph) == ["forward", "[True, True, False]"]


@pytest.mark.slow
def test_the_backend_compiles_with_them(torch: Any) -> None:
    pytest.importorskip("layered_lr_torch.small_maps")
    backend = open_backend("torch-compile")
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1, bias=False), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.Flatten()
    ).to(memory_format=torch.channels_last)

    def gradients(forward: Any, batch: int) -> list[Any]:
        images = torch.randn(batch, 3, 2, 2, generator=torch.Generator().manual_seed(batch))
        loss = forward(images.contiguous(memory_format=torch.channels_last)).square().sum()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    forward = backend.build_forward(model)
    for batch in (BATCH, BATCH + 2, BATCH + 3):  # from the second on compiled for any
        gradients(forward, batch)
        with torch.profiler.profile() as profile:
            got = gradients(forward, batch)
        torch.testing.assert_close(got, gradients(model, batch), rtol=RTOL, atol=ATOL)
        calls = {event.key: event.count for event in profile.key_averages()}
        assert calls["aten::mm"] == 2, "a pointwise convolution's answer and the gradient of its weights"
        assert calls["aten::convolution_backward"] == 1, "the gradient of the depthwise convolution's input"
