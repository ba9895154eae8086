"""What a ``DataLoader`` of torch says of its data set, where the run's own batches would be of the same kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layered_lr.errors import SpecError

_PARTS = ("dataset", "batch_size", "drop_last", "sampler", "batch_sampler", "collate_fn")


class Subset:
    """Some samples of a data set, as torch's class of this name has them.

    Args:
        dataset: Has samples by their numbers.
        indices: Which of them, in order.
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, number: int) -> Any:
        """Return one sample."""
        return self.dataset[self.indices[number]]


def is_called_loader(value: object) -> bool:
    """Whether the class of something, or one that it is made from, is called ``DataLoader``."""
    return any(base.__name__ == "DataLoader" for base in type(value).__mro__)


def is_loader(value: object) -> bool:
    """Whether something is a ``DataLoader`` of torch, or of a class made from it."""
    return is_called_loader(value) and all(hasattr(value, part) for part in _PARTS)


def open_loader(name: str, loader: Any) -> Any:
    """Return the data set of a loader whose batches are as those of a run.

    A run makes its batches itself: shuffled anew each epoch, each image once, put together as torch does it.

    Args:
        name: ``"train"`` or ``"test"``.
        loader: A ``DataLoader`` of torch.

    Raises:
        SpecError: The loader says something else, such as other chances of the samples.
    """
    if loader.batch_size is None or type(loader.batch_sampler).__name__ != "BatchSampler":
        raise _refused(name, "has a batch_sampler of its own", "it makes batches of another kind than the run's")
    if getattr(loader.collate_fn, "__name__", "") != "default_collate":
        raise _refused(name, "has a collate_fn of its own", "the run puts the samples of a batch together itself")
    sampler = loader.sampler
    kind, dataset = type(sampler).__name__, loader.dataset
    if kind == "SubsetRandomSampler":
        return Subset(dataset, [int(index) for index in sampler.indices])
    if kind == "RandomSampler":
        if sampler.replacement or sampler.num_samples != len(dataset):
            raise _refused(name, "draws some samples twice or never", "the run takes each sample once an epoch")
        return dataset
    if kind == "SequentialSampler":
        if name == "train":
            raise _refused(
                name, "has shuffle=False", "the run shuffles before each epoch; give the loader shuffle=True"
            )
        return dataset
    raise _refused(name, f"has a {kind}", "the run draws the order of the samples itself")


def check_loaders(data: object, batch_size: int, drop_last: bool, train_size: int) -> None:
    """Refuse loaders whose batches have another size than the run's, or leave out or keep other images.

    Args:
        data: What ``data=`` was given, of any kind.
        batch_size: Of the run.
        drop_last: Of the run.
        train_size: How many images an epoch has.

    Raises:
        SpecError: A loader and the run differ.
    """
    parts: Any = data if isinstance(data, tuple) and len(data) == 2 else (data, None)
    train, test = parts
    if is_loader(train):
        if train.batch_size != batch_size:
            raise SpecError(
                f"batch_size={batch_size}: the DataLoader of the training data has batch_size={train.batch_size}. Give "
                f"batch_size={train.batch_size}, or the data set instead of the loader."
            )
        rest = train_size % batch_size
        if rest and bool(train.drop_last) != drop_last:
            does = "leaves out" if train.drop_last else "keeps"
            raise SpecError(
                f"drop_last={drop_last}: the DataLoader of the training data {does} the last {rest} of {train_size} "
                f"images. Give drop_last={bool(train.drop_last)}, or the data set instead of the loader."
            )
    if is_loader(test) and test.drop_last and len(test.sampler) % test.batch_size:
        raise _refused("test", "has drop_last=True", "the run evaluates all test images")


def _refused(name: str, what: str, why: str) -> SpecError:
    return SpecError(
        f"data: the DataLoader of the {name} data {what}, and {why}. Or give the data set instead of the loader "
        f"({name}_loader.dataset)."
    )
