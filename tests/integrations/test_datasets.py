"""Data sets of Hugging Face are read as arrays are: the same images, labels and names of classes."""

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, load_dataset

datasets = pytest.importorskip("datasets")

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


def test_images_labels_and_names_are_those_of_the_data_set() -> None:
    from PIL import Image

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list("abcd"))})
    rows = {"image": [Image.fromarray(image) for image in PIXELS], "label": LABELS.tolist()}
    whole = datasets.Dataset.from_dict(rows, features=features)
    data = load_dataset(datasets.DatasetDict(train=whole.select(range(12)), test=whole.select(range(12, 20))))
    arrays = ll.Dataset("arrays", PIXELS[:12], LABELS[:12], PIXELS[12:], LABELS[12:])
    assert data.class_names == tuple("abcd") and data.facts == arrays.facts
    for ours, theirs in zip(Batches(data, 5, seed=2).epoch(1), Batches(arrays, 5, seed=2).epoch(1), strict=True):
        assert ours[0].tobytes() == theirs[0].tobytes() and ours[1].tobytes() == theirs[1].tobytes()
    assert load_dataset(whole).facts.train_size == 16


def test_a_stream_is_refused() -> None:
    stream = datasets.Dataset.from_dict({"image": [0], "label": [0]}).to_iterable_dataset()
    with pytest.raises(ll.SpecError, match="IterableDataset"):
        load_dataset(stream)
