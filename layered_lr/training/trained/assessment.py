"""How good a trained model is on images with targets: loss, metrics; of classes accuracy and confusion matrix too."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from layered_lr.arrays import Array, Float64, Floats, Int64
from layered_lr.backend.class_targets import weigh_targets
from layered_lr.console import say
from layered_lr.counts import whole_number
from layered_lr.data import Batches, Dataset, DataSource, load_dataset
from layered_lr.data.image_folder import ImageFolder, count_shared, is_same_folder
from layered_lr.data.sources import find_folder, find_samples
from layered_lr.data.targets import TargetKind
from layered_lr.errors import DataError, LayeredLRError, SpecError
from layered_lr.files import as_path, begins_with
from layered_lr.losses import ClassLoss, FunctionLoss, LossSettings
from layered_lr.outputs import check_output, write_whole
from layered_lr.printed import csv_cell, csv_text, harmless, shown
from layered_lr.reports.tables import ReportTable
from layered_lr.strict_json import json_text
from layered_lr.training.in_file import InFile
from layered_lr.training.loss_function import is_lost, read_loss
from layered_lr.training.metrics import Metric, MetricSums, check_metrics
from layered_lr.training.option import Refused
from layered_lr.training.trained.loss_and_metrics import check_same_targets, measure_numbers
from layered_lr.training.trained.model_input import ModelInput
from layered_lr.training.trained.predictions import list_class_names, want_images
from layered_lr.training.trained.trained_model import Answerer, Trained, Which, load_own_data, open_model

_PARTS = ("test", "train", "all")
_CORNER = "true class"
_MOST_SHOWN = 20  # classes of a confusion matrix that is printed


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good a trained model is on images with targets. ``Result.evaluate`` makes it.

    Args:
        confusion: How many images of each class (rows) were taken for each class (columns), shape (classes, classes).
            There are more columns than classes in the data where the model has more outputs. Empty, shape (0, 0), where
            the targets are no class numbers.
        loss: The run's loss on all images; NaN where it is not known. Of values and masks the means of the batches,
            which count by their images, as a run measures its test loss.
        class_names: What each class is called; one without a name has its number.
        data: The name of the data.
        backend: What computed it.
        weights: ``"average"`` or ``"last"``.
        metrics: What was measured beside, by name.
        images: How many images there are; None is what ``confusion`` says.
        targets: What the targets are: ``"classes"``, ``"values"`` or ``"masks"``.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> result = ll.run(ll.Spec(ll.SGD(0.1)), model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> evaluation = result.evaluate(data)
        >>> evaluation.accuracy, evaluation.confusion.sum(axis=1).tolist()
        (0.5, [4, 4])
    """

    confusion: Int64 = field(repr=False)
    loss: float
    class_names: tuple[str, ...]
    data: str
    backend: str
    weights: Which
    metrics: Mapping[str, float] = field(default_factory=dict)
    images: int | None = None
    targets: TargetKind = "classes"

    @property
    def count(self) -> int:
        """How many images there are."""
        return int(self.confusion.sum()) if self.images is None else self.images

    @property
    def accuracy(self) -> float:
        """The fraction of the images that the model gets right; NaN where the targets are no class numbers."""
        return float(np.trace(self.confusion)) / self.count if self.targets == "classes" else float("nan")

    @property
    def class_accuracies(self) -> Float64:
        """The fraction of each class's images that the model gets right (recall); NaN for a class without images."""
        return _divide(np.diagonal(self.confusion), self.confusion.sum(axis=1))

    @property
    def class_precisions(self) -> Float64:
        """The fraction of right ones among the images taken for each class; NaN for a class that none is taken for."""
        return _divide(np.diagonal(self.confusion), self.confusion.sum(axis=0))

    def to_csv(self, path: str | Path) -> None:
        """Write the confusion matrix with its classes' names, whole or not at all.

        Args:
            path: The file, which must end in ``.csv``. One with other content is never replaced.

        Raises:
            SpecError: Nothing can be written there, there is a file that holds no confusion matrix, or the targets are
                no class numbers.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> found = ll.Evaluation(np.eye(2, dtype=int), 0.1, ("cat", "dog"), "pets", "torch-eager", "last")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     found.to_csv(f"{folder}/confusion.csv")
            ...     print(Path(folder, "confusion.csv").read_text().strip())
            true class,cat,dog
            cat,1,0
            dog,0,1
        """
        write_whole(check_matrix_csv("path", path), [self._csv_text().encode()])

    def _csv_text(self) -> str:
        check_has_matrix("to_csv", self.targets)
        names = [csv_cell(name) for name in self.class_names]
        rows = ([name, *row] for name, row in zip(names, self.confusion.tolist(), strict=True))
        return csv_text([[_CORNER, *names], *rows])

    def to_json(self) -> str:
        """Everything as JSON; what is not known is null, and an accuracy is of classes alone."""
        table: dict[str, Any] = {
            "data": self.data,
            "backend": self.backend,
            "weights": self.weights,
            "images": self.count,
            "loss": None if np.isnan(self.loss) else self.loss,
        }
        if self.metrics:
            table["metrics"] = dict(self.metrics)
        if self.targets == "classes":
            table["accuracy"] = self.accuracy
            table["classes"] = [
                {"class": index, "name": name, "images": images, "accuracy": accuracy, "precision": precision}
                for index, (name, images, accuracy, precision) in enumerate(self._by_class())
            ]
            table["confusion"] = self.confusion.tolist()
        return json_text(table)

    def _by_class(self) -> list[tuple[str, int, float | None, float | None]]:
        accuracies, precisions = (
            [None if np.isnan(each) else float(each) for each in numbers]
            for numbers in (self.class_accuracies, self.class_precisions)
        )
        return list(zip(self.class_names, self.confusion.sum(axis=1).tolist(), accuracies, precisions, strict=True))

    def __str__(self) -> str:
        loss = "not known" if np.isnan(self.loss) else f"{self.loss:.4f}"
        further = [f"{name} {value:.6g}" for name, value in self.metrics.items()]
        if self.targets != "classes":
            return harmless("\n".join([f"loss {loss} on {self.count} images of {self.data}", *further]))
        rows = [
            [name, str(images), *("" if share is None else f"{share:.4f}" for share in shares)]
            for name, images, *shares in self._by_class()
        ]
        numbers = ("images", "accuracy", "precision")
        lines = [ReportTable(["class", *numbers], rows, frozenset(numbers)).text(), ""]
        if len(self.class_names) <= _MOST_SHOWN:
            counts = [
                [name, *map(str, row)] for name, row in zip(self.class_names, self.confusion.tolist(), strict=True)
            ]
            lines += [ReportTable([_CORNER, *self.class_names], counts, frozenset(self.class_names)).text(), ""]
        lines.append(f"accuracy {self.accuracy:.4f}, loss {loss} on {self.count} images of {self.data}")
        lines += further
        return harmless("\n".join(lines))


def _divide(parts: Array, wholes: Array) -> Float64:
    known = wholes > 0
    return np.where(known, parts / np.where(known, wholes, 1), np.nan)


def check_matrix_csv(what: str, path: str | Path) -> Path:
    """Check that a confusion matrix can be written to a path.

    Args:
        what: The name of the option, for messages.
        path: The file.

    Raises:
        SpecError: It cannot.
    """
    first = f"{_CORNER},".encode()
    return check_output(what, path, (".csv",), is_ours=lambda file: begins_with(file, first))


def check_has_matrix(what: str, targets: TargetKind) -> None:
    """Refuse to write a confusion matrix of what are no classes.

    Raises:
        SpecError: They are values or masks.
    """
    if targets != "classes":
        raise SpecError(
            f"{what}: the targets are {targets}, which have no confusion matrix to write. to_json() (--json) has the "
            "loss and the metrics."
        )


def evaluate(
    trained: Trained,
    data: DataSource | None = None,
    *,
    data_root: str | Path | None = None,
    part: Literal["test", "train", "all"] = "test",
    batch_size: int | None = None,
    backend: str | None = None,
    weights: Which | None = None,
    model: str | Callable[[], Any] | None = None,
    device: str = "auto",
    loss: Any = None,
    metrics: Any = None,
) -> Evaluation:
    """Measure a run's model on images with targets; see ``Result.evaluate``."""
    if batch_size is not None:
        batch_size = whole_number("batch_size", batch_size, 1)
    if part not in _PARTS:
        raise SpecError(f"evaluate: part={shown(part)}: must be 'test', 'train' or 'all'.")
    measured = dict(trained.metrics) if metrics is None else check_metrics(metrics)
    given = None if loss is None else _read_given(loss)
    opened = open_model(trained, backend, weights, model, device, batch_size)
    takes = opened.takes
    dataset, is_own = (load_own_data(trained), True) if data is None else _load(data, data_root, trained, takes, part)
    _check_images(dataset, takes)
    check_same_targets(dataset, takes)
    if is_own and takes.digest and dataset.digest() != takes.digest:
        say(f"data: {dataset.name!r} is not what the run was trained on: it has changed since.")
    chosen = whole_number("batch_size", batch_size or trained.options.get("batch_size", 64), 1)
    train = replace(dataset, x_test=dataset.x_train, y_test=dataset.y_train)
    batches = [
        Batches(
            each,
            min(chosen, len(each.y_train)),
            image_size=takes.image_size,
            augment=False,
            normalisation=want_images(takes).normalisation,
        )
        for name, each in (("train", train), ("test", dataset))
        if part in (name, "all")
    ]
    settings = _find_loss(trained) if given is None else given
    takes_shares = trained.options.get("mix") is not None
    if takes.targets != "classes":
        found, numbers, count = measure_numbers(opened, batches, settings, measured)
        names, name = list_class_names(takes, takes.num_classes), str(dataset.name)
        nothing = np.zeros((0, 0), np.int64)
        return Evaluation(nothing, found, names, name, opened.backend.name, opened.which, numbers, count, takes.targets)
    return _measure(opened, batches, _number_classes(dataset, takes), settings, measured, takes_shares)


def _read_given(loss: Any) -> LossSettings:
    """What a loss that was given stands for.

    Raises:
        SpecError: It is none.
    """
    try:
        if isinstance(loss, Mapping):
            raise Refused("'cross_entropy', ll.CrossEntropy(...), or a function (outputs, targets) -> loss")
        return read_loss(loss).settings
    except Refused as refused:
        raise SpecError(f"evaluate: loss={shown(loss)}: must be {refused}.") from None


def _find_loss(trained: Trained) -> LossSettings | None:
    """The loss of a run; None where no file holds its function, or where a file names one that nobody trusts."""
    if trained.loss_function is not None:
        return trained.loss_function.settings
    said = trained.options.get("loss", "cross_entropy")
    if is_lost(said):
        say(
            "evaluate: the loss is not measured: no file holds the run's own. Give it again: loss=... (--loss "
            "package.module:name)."
        )
        return None
    path = said.get("function") if isinstance(said, Mapping) else said
    if isinstance(path, InFile):
        say(
            f"evaluate: the loss is not measured: the run's own, {shown(str(path))}, is code that a file names. To "
            "import it, say --trust (trust=True)."
        )
        return None
    return read_loss(said).settings


def _load(
    data: DataSource, data_root: str | Path | None, trained: Trained, takes: ModelInput, part: str
) -> tuple[Dataset, bool]:
    """Load data for a model, and tell whether they are read as the run read its own.

    The images of a folder that is a mere path become what those of the run became, and are divided as its folder was.
    """
    _, height, width = takes.data_shape
    side = height if height == width else None
    folder = find_folder(data)
    if folder is None:
        dataset = load_dataset(data, data_root, side)
        samples = find_samples(data)
        if samples is not None and samples.test is None and part == "test":
            count = len(dataset.y_test)
            say(
                f"evaluate: {count} of the {count + len(dataset.y_train)} samples are measured, a share of each class. "
                "The run may have been trained on some of them. part='all' (--part all) measures all."
            )
        return dataset, False
    own = _find_own_folder(trained)
    is_own = own is not None and is_same_folder(own, folder)
    if not isinstance(data, str | os.PathLike):
        dataset = folder.load(side)
        if own is not None and is_own and part == "test" and (shared := count_shared(own, folder)):
            say(
                f"evaluate: {shared} of the {len(dataset.y_test)} images to test with are images that the run was "
                "trained on, as the run divided the folder in another way. Give the path of the folder alone, which "
                "takes the run's share and seed."
            )
        return dataset, False
    if own is not None and is_own:
        return replace(own, folder=folder.folder).load(side), True
    folder = replace(folder, fit=takes.fit or folder.fit, grey=takes.data_shape[0] == 1)
    if own is not None:  # it may be a copy of the run's folder
        has_part = own.test_folder is not None and (as_path("data", folder.folder) / own.test_folder).is_dir()
        test_folder = own.test_folder if has_part else folder.test_folder
        folder = replace(folder, share=own.share, seed=own.seed, test_folder=test_folder, broken=own.broken)
    return folder.load(side), False


def _find_own_folder(trained: Trained) -> ImageFolder | None:
    """The folder of images that a run was trained on; None where it was something else, or a file says nonsense."""
    try:
        return find_folder(trained.options.get("data"))
    except LayeredLRError:
        return None


def _measure(
    opened: Answerer,
    batches: Sequence[Batches],
    numbers: Int64,
    loss: LossSettings | None,
    metrics: Mapping[str, Metric],
    takes_shares: bool,
) -> Evaluation:
    """Answer to all images, and count.

    Args:
        opened: The model.
        batches: Of each part of the data.
        numbers: The model's class for each of the data's.
        loss: That of the run; None where it is not known.
        metrics: What else to measure, by name.
        takes_shares: Whether a loss of the user's is given the share of each class, as a run with ``mix`` gives it.
    """
    sums = MetricSums(metrics)
    answers: list[tuple[Floats, Int64]] = []
    confusion, total, divisor = np.zeros((0, 0), np.int64), 0.0, 0.0
    for images, labels, counted in itertools.chain.from_iterable(each.test() for each in batches):
        logits = opened.answer(images)[:counted]
        true = numbers[labels[:counted]]
        if not len(confusion):
            confusion = np.zeros((logits.shape[1],) * 2, np.int64)
        np.add.at(confusion, (true, logits.argmax(axis=1)), 1)
        if metrics:
            sums.add(logits, true)
        if isinstance(loss, ClassLoss):
            targets, weight = weigh_targets(loss, true, logits.shape[1])
            total -= float((targets * _log_softmax(logits)).sum())
            divisor += weight
        elif loss is not None:
            answers.append((logits, true))
    names = list_class_names(opened.takes, len(confusion))
    if isinstance(loss, FunctionLoss):
        outputs, classes = map(np.concatenate, zip(*answers, strict=True))
        targets = np.eye(opened.takes.num_classes)[classes] if takes_shares else classes
        total, divisor = opened.measure_loss(loss, outputs, targets), 1.0
    is_sum = loss is not None and loss.reduction == "sum"
    mean = total if is_sum else total / divisor if divisor else float("nan")
    name = str(batches[0].dataset.name)
    return Evaluation(confusion, mean, names, name, opened.backend.name, opened.which, sums.numbers())


def _log_softmax(logits: Floats) -> Float64:
    """The logarithm of each class's probability, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    shares: Float64 = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return shares


def _check_images(dataset: Dataset, takes: ModelInput) -> None:
    """Refuse images of another kind than the model takes.

    Raises:
        DataError: There are some.
    """
    shape = dataset.facts.image_shape
    if (dataset.mean is not None) != takes.takes_pixels:
        has, wants = ("uint8", "floats") if dataset.mean is not None else ("floats", "uint8")
        raise DataError(
            f"data {dataset.name!r}: the images are {has}, but the model was trained on {wants}: give such images."
        )
    fits = shape == takes.data_shape or (takes.image_size is not None and shape[0] == takes.data_shape[0])
    if not fits and shape != takes.image_shape:
        raise DataError(
            f"data {dataset.name!r}: the images are (C, H, W) = {shape}, but the model was trained on "
            f"{takes.data_shape}: give such images."
        )


def _number_classes(dataset: Dataset, takes: ModelInput) -> Int64:
    """Find the model's class for each class of the data: by name where both have names, else by number.

    Raises:
        DataError: The data have a class that the model does not know.
    """
    names: Sequence[str] | None = dataset.class_names
    if names is not None and takes.class_names is not None:
        known = {name: index for index, name in enumerate(takes.class_names)}
        if unknown := [name for name in names if name not in known]:
            raise DataError(
                f"data {dataset.name!r}: the model does not know the class {unknown[0]!r}. It was trained on "
                f"{', '.join(takes.class_names[:10])}{', …' if len(takes.class_names) > 10 else ''}."
            )
        return np.array([known[name] for name in names], np.int64)
    largest = max(int(dataset.y_train.max()), int(dataset.y_test.max()))
    if largest >= takes.num_classes:
        raise DataError(
            f"data {dataset.name!r}: the labels go up to {largest}, but the model was trained on "
            f"{takes.num_classes} classes, 0 to {takes.num_classes - 1}."
        )
    return np.arange(max(takes.num_classes, largest + 1))
