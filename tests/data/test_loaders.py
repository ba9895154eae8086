"""Loaders of torch as data: the run has their data sets and sizes, or says what it would do otherwise."""

from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import load_dataset

torch = pytest.importorskip("torch")

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 6, 3), dtype=np.uint8)
LABELS = np.arange(20) % 4


class Pairs(torch.utils.data.Dataset):  # type: ignore[misc,type-arg]
    def __init__(self, part: slice) -> None:
        self.images, self.labels = IMAGES[part], LABELS[part]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> Any:
        return self.images[number], int(self.labels[number])


TRAIN, TEST = Pairs(slice(12)), Pairs(slice(12, 20))


def loader(dataset: Any = TRAIN, **settings: Any) -> Any:
    return torch.utils.data.DataLoader(dataset, **{"batch_size": 4, "shuffle": "sampler" not in settings} | settings)


def train(data: Any, **options: Any) -> ll.Result:
    def build() -> Any:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(108, 4))

    settings = {"batch_size": 4, "epochs": 2, "augment": False, "progress": False} | options
    return ll.run(ll.Spec(ll.SGD(0.05)), model=build, data=data, **settings)


@pytest.mark.parametrize("test", [TEST, loader(TEST, shuffle=False), loader(TEST)])
def test_it_trains_as_on_its_data_set(test: Any) -> None:
    by_loader, by_data_set = train((loader(), test)), train((TRAIN, TEST))
    assert by_loader.losses.tolist() == by_data_set.losses.tolist()
    assert np.array_equal(by_loader.accuracies, by_data_set.accuracies)


def test_a_loader_alone_is_divided_as_its_data_set() -> None:
    found, expected = load_dataset(loader()), load_dataset(TRAIN)
    assert found.y_test.tolist() == expected.y_test.tolist()
    assert np.asarray(found.x_train).tobytes() == np.asarray(expected.x_train).tobytes()


def test_chosen_indices_are_those_that_train() -> None:
    chosen = [7, 2, 11, 4]
    data = load_dataset((loader(sampler=torch.utils.data.SubsetRandomSampler(chosen)), TEST))
    assert np.asarray(data.x_train).tobytes() == IMAGES[chosen].tobytes()
    assert data.y_train.tolist() == LABELS[chosen].tolist()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (loader(shuffle=False), "train data has shuffle=False, .* give the loader shuffle=True"),
        (loader(collate_fn=list), "train data has a collate_fn of its own"),
        (loader(batch_size=None), "train data has a batch_sampler of its own"),
        (loader(sampler=torch.utils.data.WeightedRandomSampler([1.0] * 12, 12)), "has a WeightedRandomSampler"),
        (loader(sampler=torch.utils.data.RandomSampler(TRAIN, replacement=True)), "some samples twice or never"),
        (loader(batch_size=5), r"batch_size=4: the DataLoader .* has batch_size=5\. Give batch_size=5"),
        ((loader(), loader(TEST, batch_size=3, drop_last=True)), "test data has drop_last=True"),
        ((loader(), loader(TEST, collate_fn=list)), r"test data has a collate_fn .*test_loader\.dataset"),
        ((TRAIN, loader(TEST, batch_size=3, drop_last=True)), "test data has drop_last=True"),
    ],
)
def test_a_loader_with_other_batches_is_refused(data: Any, words: str) -> None:
    for call in (train, lambda data: ll.plan(ll.Spec(ll.SGD(0.1)), data=data, batch_size=4, epochs=1)):
        with pytest.raises(ll.SpecError, match=words):
            call(data)


def test_what_becomes_of_the_last_images_is_the_same() -> None:
    rest = Pairs(slice(10))
    with pytest.raises(ll.SpecError, match=r"drop_last=True: the DataLoader .* keeps the last 2 of 10 images"):
        train((loader(rest), TEST))
    with pytest.raises(ll.SpecError, match=r"drop_last=False: the DataLoader .* leaves out the last 2 of 10"):
        train((loader(rest, drop_last=True), TEST), drop_last=False)
    assert len(train((loader(rest), TEST), drop_last=False).losses) == 6
    assert len(train((loader(rest, drop_last=True), TEST)).losses) == 4
