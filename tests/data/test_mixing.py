"""Mixup and CutMix, against torchvision's own, and in the batches of a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches
from layered_lr.data.mixing import Mixer, cut_box, one_before
from layered_lr.data.share import WHOLE, Share
from tests.support.models import CLASSES, arrays

SHAPE = (6, 3, 10, 14)


def some() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.standard_normal(SHAPE).astype(np.float32), rng.integers(0, CLASSES, len(rng.random(SHAPE[0])))


def mixer(mixup: float = 0.4, cutmix: float = 0.0, probability: float = 1.0) -> Mixer:
    return Mixer(mixup, cutmix, probability, CLASSES, 3)


@pytest.mark.parametrize("kind", ["MixUp", "CutMix"])
def test_the_numbers_are_those_of_torchvision(torch: Any, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    images, labels = some()
    before = one_before(len(images))
    ours = mixer() if kind == "MixUp" else mixer(0.0, 1.0)
    for update in range(12):
        share = float(np.random.default_rng(update).beta(1, 1))
        row, column = update % SHAPE[2], 5 * update % SHAPE[3]
        theirs = getattr(v2, kind)(num_classes=CLASSES)
        monkeypatch.setattr(
            theirs._dist, "sample", lambda _=(), share=share: torch.tensor([share], dtype=torch.float64)
        )
        places = iter([column, row])  # torchvision draws the column first
        monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.tensor([next(places)]))  # noqa: B023
        due_images, due_labels = theirs(torch.from_numpy(images), torch.from_numpy(labels))
        monkeypatch.undo()
        draw = ours.draw(0, *SHAPE[2:])._replace(share=share)
        draw = draw if kind == "MixUp" else cut_box(share, *SHAPE[2:], row, column)
        np.testing.assert_array_equal(ours.mix(images, images[before], draw), due_images.numpy())
        found = ours.mix_labels(labels, labels[before], draw)
        np.testing.assert_allclose(found, due_labels.numpy(), atol=1e-6)  # theirs are float32


def test_draws_have_the_distribution_that_is_asked_for() -> None:
    both = [mixer(0.4, 1.0, 0.75).draw(update, 32, 32) for update in range(4000)]
    assert np.mean([draw.share == 1.0 and draw.box is None for draw in both]) == pytest.approx(0.25, abs=0.03)
    mixed = [draw for draw in both if not (draw.share == 1.0 and draw.box is None)]
    assert np.mean([draw.box is not None for draw in mixed]) == pytest.approx(0.5, abs=0.04)
    shares = np.array([mixer(0.4).draw(update, 8, 8).share for update in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.4 + 1)), rel=0.06)  # of Beta(a, a)


def made(share: Share = WHOLE, start: int = 0, **other: Any) -> list[Any]:
    from layered_lr.data import load_dataset

    batches = Batches(load_dataset(arrays(), None, None), 8, 5, augment=True, mixer=mixer(0.4, 1.0), **other)
    batches.share = share
    updates = batches.updates(2, start)
    return [next(updates) for _ in range(6 - start)]


def test_updates_depend_on_their_number_alone() -> None:
    whole, rest = made(), made(start=4)
    for (images, labels, _), (again, labels_again, _) in zip(whole[4:], rest, strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)
    assert labels.shape == (len(images), CLASSES) and labels.dtype == np.float64
    np.testing.assert_allclose(labels.sum(axis=1), 1.0)
    assert ((labels > 0).sum(axis=1) > 1).any()


@pytest.mark.parametrize("count", [2, 4])
def test_processes_share_the_mixed_batch(count: int) -> None:
    parts = [made(Share(rank, count)) for rank in range(count)]
    for update, (images, labels, together) in enumerate(made()):
        for rank in range(count):
            rows = Share(rank, count).rows(len(images), together)
            own_images, own_labels, _ = parts[rank][update]
            np.testing.assert_array_equal(own_images, images[rows])
            np.testing.assert_array_equal(own_labels, labels[rows])


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({}, "mixes nothing"),
        ({"mixup": -1}, "mixup must be a number from 0 to 10000"),
        ({"cutmix": "much"}, "cutmix must be a number"),
        ({"mixup": 0.2, "probability": 1.5}, "probability must be a number from 0 to 1"),
        ({"alpha": 0.2}, "has no 'alpha'"),
    ],
)
def test_what_is_no_mix_is_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ll.SpecError, match=match):
        ll.Mix(**given)
