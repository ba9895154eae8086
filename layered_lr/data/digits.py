"""The digits of scikit-learn: 1,797 real handwritten digits that are installed with it, for runs without a download."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Array
from layered_lr.data.dataset import Dataset, DatasetFacts
from layered_lr.data.random_draws import draw_split

DIGITS_FACTS = DatasetFacts(train_size=1437, test_size=360, num_classes=10, image_shape=(3, 32, 32))

_SCALE = 4  # 8x8 -> 32x32, the size of CIFAR-10's images


def load_digits() -> Dataset:
    """Load the digits as 32x32 images of three equal channels.

    Each pixel is repeated 4x4, and its value 0..16 is scaled to 0..255. The source is ordered by writer, so a split by
    position would train on some writers and test on others. Therefore the images are shuffled first, always in the same
    order. Every fifth image of each class goes to the test part.

    Returns:
        uint8 NHWC, 1,437 training and 360 test images; not augmented by default, because flipped digits are no digits.
    """
    values, classes = _read_source()
    pixels = np.rint(values * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    labels = classes.astype(np.int64)

    order = draw_split(0, len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    in_test = np.zeros(len(labels), dtype=np.bool_)
    in_test[by_class[::5]] = True
    train, test = order[~in_test[order]], order[in_test[order]]
    return Dataset("digits", _enlarge(pixels[train]), labels[train], _enlarge(pixels[test]), labels[test])


def _enlarge(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Enlarge (N, 8, 8) to (N, 32, 32, 3)."""
    count, height, width = pixels.shape
    each = pixels[:, :, None, :, None, None]
    shape = count, height, _SCALE, width, _SCALE, 3
    return np.broadcast_to(each, shape).reshape(count, height * _SCALE, width * _SCALE, 3)


def _read_source() -> tuple[Array, Array]:
    """Read the images, (1797, 8, 8) with values 0..16, and their labels.

    Importing scikit-learn and SciPy takes long, so scikit-learn's own file is read directly if it is in its place.
    """
    found = importlib.util.find_spec("sklearn")  # imports nothing
    if found is not None and found.origin is not None:
        file = Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            table = np.loadtxt(gzip.decompress(file.read_bytes()).decode().splitlines(), delimiter=",")
            if table.shape == (1797, 8 * 8 + 1):
                return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    from sklearn import datasets

    bunch = datasets.load_digits()
    return bunch.images, bunch.target
