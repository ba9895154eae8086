"""However many processes a run begins with and goes on with: each image of an epoch once, in the same order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from layered_lr.data import Batches, Dataset
from layered_lr.data.mixing import Mixer
from layered_lr.data.share import Share

IMAGES = 29


def make_batches(count: int, rank: int, batch_size: int, drop_last: bool, mixed: bool) -> Batches:
    """Batches of images of which each pixel is the image's number."""
    numbers = np.arange(IMAGES, dtype=np.float32)
    images = np.broadcast_to(numbers[:, None, None, None], (IMAGES, 3, 4, 4)).copy()
    labels = np.arange(IMAGES) % 3
    mixer = Mixer(0.4, 0.0, 1.0, 3, seed=1) if mixed else None
    found = Batches(
        Dataset("numbered", images, labels, images[:3], labels[:3]),
        batch_size,
        seed=7,
        drop_last=drop_last,
        mixer=mixer,
    )
    found.share = Share(rank, count)
    return found


def read(count: int, start: int, updates: int, together: int, **chosen: Any) -> list[Any]:
    """The images of each update, of all processes one batch after the other: their numbers, mixed where they are."""
    ranks = [make_batches(count, rank, **chosen) for rank in range(count)]
    made = [each.updates(together, start) for each in ranks]
    found = []
    for update in range(start, start + updates):
        whole = ranks[0].images_of_update(update, together)
        given = [next(of) for of in made]
        parts = given[0][2]
        batches = []
        for part in range(parts):
            for rank, (images, labels, _) in enumerate(given):
                own = Share(rank, count).part(whole // parts)
                if not own.is_stand_in:
                    size = own.stop - own.start
                    rows = slice(part * size, (part + 1) * size)
                    batches += zip(images[rows, 0, 0, 0].tolist(), labels[rows].tolist(), strict=True)
        found.append(batches)
    return found


@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed"])
@pytest.mark.parametrize(
    ("batch_size", "drop_last", "together"),
    [(12, True, 1), (12, False, 1), (4, True, 3), (7, False, 1), (6, True, 2), (28, False, 1)],
)
def test_a_run_that_goes_on_with_another_number_has_the_order_of_one(
    batch_size: int, drop_last: bool, together: int, mixed: bool
) -> None:
    chosen: dict[str, Any] = {"batch_size": batch_size, "drop_last": drop_last, "mixed": mixed}
    alone = read(1, 0, 9, together, **chosen)
    if not mixed:
        in_epoch = -(-make_batches(1, 0, **chosen).steps_per_epoch // together)
        numbers = [number for update in alone[:in_epoch] for number, _ in update]
        assert len(set(numbers)) == len(numbers) == (IMAGES if not drop_last else IMAGES // batch_size * batch_size)
    for before, after, at in ((1, 2, 1), (2, 1, 3), (2, 4, 5), (3, 2, 4), (5, 3, 2)):
        went_on = read(before, 0, at, together, **chosen) + read(after, at, 9 - at, together, **chosen)
        assert went_on == alone, (before, after, at)
