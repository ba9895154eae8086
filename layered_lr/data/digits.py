"""scikit-learn's digits: 1,797 real handwritten digits that come with it, so that a first run downloads nothing."""

from __future__ import annotations

import numpy as np

from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.data.draws import split_order

DIGITS_FACTS = DatasetFacts(train_size=1437, test_size=360, num_classes=10, image_shape=(3, 32, 32))

_SCALE = 4  # 8x8 -> 32x32, the size of CIFAR-10's images


def load_digits() -> Dataset:
    """Load the digits as 32x32 images of three equal channels.

    Each pixel is repeated 4x4 and its value 0..16 scaled to 0..255. The source is ordered by writer, so cutting it
    by position would train on some hands and test on others: it is permuted first, always in the same way. Each
    class gives every fifth of its images to the test part.

    Returns:
        uint8 NHWC, 1,437 training and 360 test images, not augmented by default: a flipped digit is none.
    """
    from sklearn import datasets

    source = datasets.load_digits()
    pixels = np.rint(source.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    images = pixels.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2)[..., None].repeat(3, axis=3)  # (1797, 32, 32, 3)
    labels = source.target.astype(np.int64)

    order = split_order(0, len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    in_test = np.zeros(len(labels), dtype=np.bool_)
    in_test[by_class[::5]] = True
    train, test = order[~in_test[order]], order[in_test[order]]
    return Dataset("digits", images[train], labels[train], images[test], labels[test])
