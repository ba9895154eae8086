"""Copies and pickles of what ``ll.compile`` gives go on as the original, clipping included."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest

import layered_lr as ll

SPECS = {
    "clipped": ll.Spec(ll.AdamW(0.1), [ll.Group("0", lr_scale=0.5)], ll.StepLR(2, 0.5), clip_grad_norm=0.5),
    "by value": ll.Spec(ll.SGD(0.1, momentum=0.9), clip_grad_value=0.01),
    "unclipped": ll.Spec(ll.AdamW(0.1), [ll.Group("0", lr_scale=0.5)], ll.StepLR(2, 0.5)),
    "in the second phase": ll.Spec(
        ll.SGD(0.1), phases=[ll.Phase("5 steps", frozen="1"), ll.Phase(clip_grad_norm=0.01)], groups=[ll.Group("0")]
    ),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize("way", ["deepcopy", "torch.save"])
def test_a_copy_trains_as_the_original(torch: Any, spec: ll.Spec, way: str) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))

    def train(model: Any, optimizer: Any, scheduler: Any) -> Any:
        for _ in range(3):
            optimizer.zero_grad()
            (10 * model(torch.ones(2, 4)).pow(2).sum()).backward()
            optimizer.step()
            scheduler.step()
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    loop = (model, *ll.compile(spec, model, total_steps=12))
    train(*loop)
    if way == "deepcopy":
        other = copy.deepcopy(loop)
    else:
        file = io.BytesIO()
        torch.save(loop, file)
        file.seek(0)
        other = torch.load(file, weights_only=False)
    for _ in range(2):
        # fused kernels of the original against torch's own steps of the copy, in float32
        torch.testing.assert_close(train(*other), train(*loop), rtol=1e-5, atol=1e-7)
