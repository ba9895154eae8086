"""The parts of an update's images that several processes take."""

from __future__ import annotations

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, Dataset
from layered_lr.data.share import Share

LABELS = np.arange(23) % 3
IMAGES = np.zeros((23, 1, 2, 2), np.float32)
IMAGES[:, 0, 0, 0] = np.arange(23)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("images", [1, 2, 5, 7, 16])
def test_each_image_counts_once(images: int, count: int) -> None:
    parts = [Share(rank, count).part(images) for rank in range(count)]
    own = [range(part.start, part.stop) for part in parts if not part.is_stand_in]
    assert [place for each in own for place in each] == list(range(images))
    assert max(map(len, own)) - min(map(len, own)) <= 1
    values = np.random.default_rng(images).normal(size=images)
    mean = np.mean([part.weight * values[part.start : part.stop].mean() for part in parts])
    np.testing.assert_allclose(mean, values.mean(), rtol=1e-12)
    assert all(part.stop > part.start for part in parts)  # also where there are fewer images than processes


@pytest.mark.parametrize(("count", "size"), [(2, 10), (4, 8), (5, 10), (4, 20)])
def test_the_processes_batches_are_those_of_one(count: int, size: int) -> None:
    def make(share: Share) -> tuple[Batches, list[tuple[float, ...]]]:
        batches = Batches(Dataset("made", IMAGES, LABELS, IMAGES, LABELS), size, 5, drop_last=False)
        batches.share = share
        updates = batches.updates(1)
        return batches, [tuple(next(updates)[0][:, 0, 0, 0]) for _ in range(2 * batches.steps_per_epoch)]

    batches, whole = make(Share())
    shares = [Share(rank, count) for rank in range(count)]
    of_ranks = [make(share)[1] for share in shares]
    for update, images in enumerate(whole):
        assert batches.images_of_update(update, 1) == len(images)
        for share, own in zip(shares, of_ranks, strict=True):
            part = share.part(len(images))
            assert own[update] == images[part.start : part.stop]


def test_another_number_of_images_than_the_part_has_is_refused() -> None:
    part = Share(1, 2).part(5)
    part.check(2)
    with pytest.raises(ll.DataError, match="has 3 images, and 2 were made for it: a callback must leave"):
        part.check(3)
