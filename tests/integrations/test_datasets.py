"""Data sets of Hugging Face are read as arrays are, and trained on so: the same images, labels, names and weights."""

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, load_dataset

datasets = pytest.importorskip("datasets")
torch = pytest.importorskip("torch")

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


def make_parts(label: Any, labels: Any) -> Any:
    """A data set in memory, 12 images to train with and 8 to test with."""
    from PIL import Image

    rows = {"image": [Image.fromarray(image) for image in PIXELS], "label": labels.tolist()}
    whole = datasets.Dataset.from_dict(rows, features=datasets.Features({"image": datasets.Image(), "label": label}))
    return datasets.DatasetDict(train=whole.select(range(12)), test=whole.select(range(12, 20)))


def train(data: Any, outputs: int, **other: Any) -> ll.Result:
    def build() -> Any:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, outputs))

    spec = ll.Spec(ll.SGD(0.05, momentum=0.9), schedule=ll.CosineDecay())
    return ll.run(spec, model=build, data=data, epochs=2, batch_size=4, progress=False, **other)


def test_images_labels_and_names_are_those_of_the_data_set() -> None:
    parts = make_parts(datasets.ClassLabel(names=list("abcd")), LABELS)
    whole = datasets.concatenate_datasets([parts["train"], parts["test"]])
    data = load_dataset(parts)
    arrays = ll.Dataset("arrays", PIXELS[:12], LABELS[:12], PIXELS[12:], LABELS[12:])
    assert data.class_names == tuple("abcd") and data.facts == arrays.facts
    for ours, theirs in zip(Batches(data, 5, seed=2).epoch(1), Batches(arrays, 5, seed=2).epoch(1), strict=True):
        assert ours[0].tobytes() == theirs[0].tobytes() and ours[1].tobytes() == theirs[1].tobytes()
    assert load_dataset(whole).facts.train_size == 16


def test_a_run_on_it_has_the_weights_of_a_run_on_arrays() -> None:
    parts = make_parts(datasets.ClassLabel(names=list("abcd")), LABELS)
    arrays = (PIXELS[:12], LABELS[:12], PIXELS[12:], LABELS[12:])
    theirs, ours = train(parts, 4), train(arrays, 4)
    assert theirs.losses.tolist() == ours.losses.tolist() and theirs.accuracies.tolist() == ours.accuracies.tolist()
    assert all(theirs.weights[name].tobytes() == array.tobytes() for name, array in ours.weights.items())
    evaluation = theirs.evaluate(parts)
    assert evaluation.accuracy == ours.accuracies[-1] and evaluation.class_names == tuple("abcd")
    assert {name for row in theirs.predict(PIXELS[:3], top_k=4).names for name in row} == set("abcd")


def test_a_run_on_several_labels_of_each_image_is_that_on_arrays() -> None:
    labels = np.random.default_rng(1).integers(0, 2, (20, 3)).astype(np.float32)
    parts = make_parts(datasets.Sequence(datasets.Value("float32"), length=3), labels)
    loss = torch.nn.BCEWithLogitsLoss()
    theirs, ours = (train(data, 3, loss=loss) for data in (parts, (PIXELS[:12], labels[:12], PIXELS[12:], labels[12:])))
    assert theirs.losses.tolist() == ours.losses.tolist()
    assert theirs.logged["test loss"].tolist() == ours.logged["test loss"].tolist()
    assert theirs.predict(PIXELS[:3]).probabilities.shape == (3, 3)


def test_a_stream_is_refused() -> None:
    stream = datasets.Dataset.from_dict({"image": [0], "label": [0]}).to_iterable_dataset()
    with pytest.raises(ll.SpecError, match="IterableDataset"):
        load_dataset(stream)
