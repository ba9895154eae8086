"""``overfit`` tells planted faults apart, on every backend, and leaves everything as it was."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.before.overfit_verdict import OVERFIT_KINDS
from tests.support.isolation import values_of
from tests.support.models import CLASSES, FEATURES, arrays, mlp

pytest.importorskip("torch")
from tests.support.faulty_trainings import CASES, judged


@pytest.mark.parametrize("name", CASES)
def test_planted_faults_are_told_apart(name: str) -> None:
    _, kinds, ok = CASES[name]
    verdict = judged(name)
    assert (verdict.kinds, verdict.ok) == (kinds, ok), str(verdict)
    assert set(kinds) <= set(OVERFIT_KINDS)
    if kinds == ("rate-zero",):
        assert "head" in verdict.findings[0].groups


def test_every_kind_is_planted() -> None:
    assert {kind for _, kinds, _ in CASES.values() for kind in kinds} == set(OVERFIT_KINDS)


def kinds_on(backend: str, name: str) -> list:  # type: ignore[type-arg]  # it is run from its source alone
    from tests.support.faulty_trainings import judged

    verdict = judged(name, backend)
    return [list(verdict.kinds), verdict.ok, verdict.losses[:3].tolist()]


def test_the_other_framework_tells_them_apart_too() -> None:
    pytest.importorskip("oneflow")
    calls = [("oneflow-eager", "a frozen head"), ("oneflow-eager", "dead"), ("oneflow-graph", "dead")]
    for (_, name), (kinds, ok, losses) in zip(calls, values_of(kinds_on, calls), strict=True):
        assert (tuple(kinds), ok) == CASES[name][1:]
        np.testing.assert_allclose(losses, judged(name).losses[:3], rtol=1e-3)  # float32, three updates


def test_the_losses_are_those_of_a_loop_by_hand() -> None:
    """On two batches in turn, at the groups' own rates without the warm-up, and without decay."""
    import torch

    from layered_lr.data import Batches, load_dataset

    spec = ll.Spec(
        ll.SGD(0.1, weight_decay=0.5), [ll.Group("1", lr_scale=0.5), ll.Group("3")], ll.CosineDecay(warmup_steps=9)
    )
    said: dict[str, Any] = {"data": arrays(), "batch_size": 8, "precision": "float64", "progress": False}
    verdict = ll.overfit(spec, mlp(torch), batches=2, steps=6, **said)
    torch.manual_seed(0)
    net = mlp(torch)().double()
    groups = [{"params": net[1].parameters(), "lr": 0.05}, {"params": net[3].parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups, lr=0.1)
    made = Batches(load_dataset(arrays(), None), 8, 0).updates(1)
    two = [next(made) for _ in range(2)]
    losses = []
    for step in range(6):
        images, labels, _ = two[step % 2]
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.tensor(images).double()), torch.tensor(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(verdict.losses, losses, rtol=1e-10)  # torch's own float64, in a fused update
    assert verdict.images == 16


def test_a_model_of_the_users_stays_as_it_was() -> None:
    import torch

    net = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.BatchNorm1d(FEATURES), torch.nn.Linear(FEATURES, CLASSES))
    net.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    ll.overfit(ll.Spec(ll.SGD(0.1)), lambda: net, data=arrays(), batch_size=8, progress=False)
    assert all((net.state_dict()[name] == tensor).all() for name, tensor in before.items())
    assert not net.training and all(parameter.requires_grad for parameter in net.parameters())


def test_the_verdict_is_told_in_words_and_as_a_table() -> None:
    verdict = judged("a group at rate 0")
    text, table = str(verdict), json.loads(verdict.to_json())
    assert "learned by heart" in text and "rate-zero" in text and "head" in text
    assert table["ok"] is True and table["findings"][0]["kind"] == "rate-zero" and bool(verdict)
    assert {group["name"]: group["moved"] > 0 for group in table["groups"]} == {"body": True, "head": False}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"steps": 0}, "steps must be"),
        ({"batches": 0}, "batches must be"),
        ({"batches": 99}, "only 5 batches"),
        ({"target": "low"}, "target"),
        ({"target": float("inf")}, "target"),
        ({"save": "result.npz"}, "no meaning here"),
        ({"epoch": 3}, "epochs"),
    ],
)
def test_what_cannot_be_is_one_clear_error(given: dict[str, Any], why: str) -> None:
    import torch

    with pytest.raises(ll.SpecError, match=why):
        ll.overfit(ll.Spec(ll.SGD(0.1)), mlp(torch), data=arrays(), batch_size=8, progress=False, **given)
    with pytest.raises(ll.SpecError, match="what builds it"):
        ll.overfit(ll.Spec(ll.SGD(0.1)), mlp(torch)())


def below_zero(outputs: Any, targets: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(outputs, targets) - 10


def test_a_loss_below_zero_needs_a_target() -> None:
    """A part of such a loss is above it, so that nothing had to be learned."""
    import torch

    given: Any = {"data": arrays(), "batch_size": 8, "progress": False, "loss": below_zero}
    with pytest.raises(ll.SpecError, match=r"the first loss is -[89].*, .* Give target="):
        ll.overfit(ll.Spec(ll.SGD(0.1)), mlp(torch), **given)
    assert not ll.overfit(ll.Spec(ll.SGD(1e-12)), mlp(torch), target=-9.99, steps=3, **given).ok


def test_an_early_stop_of_the_run_does_not_end_it() -> None:
    import torch

    given: Any = {"data": arrays(), "batch_size": 8, "progress": False, "steps": 5}
    found = ll.overfit(ll.Spec(ll.SGD(1e-4)), mlp(torch), early_stop=ll.EarlyStop(time_limit=1e-6), **given)
    assert len(found.losses) == 5


def test_a_model_that_does_not_take_the_images_is_one_clear_error() -> None:
    import torch

    def build(channels: int, outputs: int) -> Any:
        pooled = torch.nn.AdaptiveAvgPool2d(1)
        return torch.nn.Sequential(
            torch.nn.Conv2d(channels, 4, 1), pooled, torch.nn.Flatten(1), torch.nn.Linear(4, outputs)
        )

    def normalised() -> Any:
        layers = torch.nn.Linear(FEATURES, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, CLASSES)
        return torch.nn.Sequential(torch.nn.Flatten(1), *layers)

    cases = [
        (lambda: build(1, CLASSES), 8, "model: its forward pass does not take images of shape"),
        (lambda: build(3, 1), 8, "model: returned shape"),
        (normalised, 1, "A batch normalisation needs more than one value"),
    ]
    for model, size, why in cases:
        with pytest.raises(ll.SpecError, match=why):
            ll.overfit(ll.Spec(ll.SGD(0.1)), model, data=arrays(), batch_size=size, progress=False)


def test_the_command(call: Any, tiny: tuple[str, ...]) -> None:
    answer = call("overfit", *tiny, "--steps", "2")
    assert answer.code == 1 and "not learned" in answer.out
    answer = call("overfit", *tiny, "--target", "100", "--json")
    assert answer.code == 0 and json.loads(answer.out)["ok"] is True
    answer = call("overfit", *tiny, "--batches", "9")
    assert answer.code == 2 and "only 2 batches" in answer.err


def test_several_sizes_and_a_last_batch_that_is_not_full() -> None:
    """Of several sizes a search makes what the run does."""
    import torch

    def build() -> Any:
        pooled = torch.nn.AdaptiveAvgPool2d(1)
        return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), pooled, torch.nn.Flatten(1), torch.nn.Linear(4, CLASSES))

    said: dict[str, Any] = {"data": arrays(), "batch_size": 16, "drop_last": False, "progress": False}
    verdict = ll.overfit(ll.Spec(ll.SGD(0.1)), build, batches=3, steps=3, **said)
    assert verdict.images == 40 and len(verdict.losses) == 3
    search = ll.find_lr(ll.Spec(ll.SGD(0.1)), build, start=1e-3, end=0.1, steps=10, sizes=[2, 4], **said)
    assert np.isfinite(search.losses).all() and len(search.lr) == 10


def test_what_ends_it_is_no_event_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    given: Any = {"data": arrays(), "batch_size": 8, "progress": False}
    assert ll.overfit(ll.Spec(ll.Adam(0.05)), mlp(torch), **given).ok
    assert len(ll.find_lr(ll.Spec(ll.SGD(0.1)), mlp(torch), start=1e-3, end=1e5, **given).lr) < 100
    assert "stopped" not in capsys.readouterr().err
