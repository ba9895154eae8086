"""Resizing images, against torch's own antialiased bilinear interpolation."""

from __future__ import annotations

import numpy as np
import pytest

from layered_lr.data import Batches, Dataset
from layered_lr.data.resizing import Resizer, resizing_matrix

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 64), (32, 32, 20), (7, 33, 16), (5, 5, 1), (1, 1, 3)])
def test_images_are_those_of_torch(height: int, width: int, size: int) -> None:
    torch = pytest.importorskip("torch")
    images = RNG.normal(size=(2, 3, height, width)).astype(np.float32)
    kept = images.copy()
    ours = Resizer(height, width, size).resize(images)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(images), (size, size), mode="bilinear", antialias=True, align_corners=False
    )
    np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-6)  # rounding of float32, another order of adding up
    assert ours.dtype == np.float32 and ours.flags.c_contiguous and (images == kept).all()


def test_each_new_pixel_is_a_mean() -> None:
    for old, new in [(32, 64), (64, 32), (3, 100), (100, 3)]:
        np.testing.assert_allclose(resizing_matrix(old, new).sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_are_resized_and_normalised_as_told(channels_last: bool) -> None:
    images = RNG.integers(0, 256, (8, 6, 6, 3), dtype=np.uint8)
    labels = np.arange(8) % 2
    dataset = Dataset("some", images, labels, images, labels)
    mean, std = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    batches = Batches(dataset, 4, image_size=9, normalisation=(mean, std))
    made, _, _ = next(batches.test(channels_last))
    expected = Resizer(6, 6, 9).resize(((images[:4] / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32))
    assert batches.image_shape == (3, 9, 9) and made.shape == (4, 3, 9, 9)
    np.testing.assert_allclose(made, expected, atol=1e-5)
    same = Batches(dataset, 4, image_size=6)
    assert (next(same.test())[0] == next(Batches(dataset, 4).test())[0]).all()
