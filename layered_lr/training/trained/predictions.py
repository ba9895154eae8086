"""Predictions: what a trained model answers to images: classes with their probabilities and names, values, or masks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from layered_lr.arrays import Float32, Float64, Floats, Int64
from layered_lr.console import say
from layered_lr.counts import whole_number
from layered_lr.data.pictures import Pictures, Wanted
from layered_lr.data.targets import TargetKind
from layered_lr.errors import SpecError
from layered_lr.files import begins_with
from layered_lr.outputs import check_output, write_whole
from layered_lr.printed import csv_cell, csv_text, harmless
from layered_lr.reports.tables import ReportTable
from layered_lr.training.trained.answers import (
    FIRST_COLUMN,
    check_folder,
    csv_rows,
    list_mask_rows,
    list_value_rows,
    read_masks,
    sigmoid,
    table_of_answers,
    write_files,
)
from layered_lr.training.trained.model_input import ModelInput
from layered_lr.training.trained.trained_model import Trained, Which, open_model

_HEADER = ("image", "rank", "class", "name", "probability", "logit")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a trained model answers to images. ``Result.predict`` makes it.

    Args:
        logits: The model's output: of classes, shape (N, outputs); of values and masks as the model answers, shape
            (N, ...). ``values`` is the same.
        images: What each image is called: the path of its file, or its number; N texts.
        class_names: What each output means; a class or a value without a name has its number.
        top_k: How many classes of each image ``classes`` has, the likeliest first.
        backend: What computed them.
        weights: ``"average"`` or ``"last"``.
        targets: What the run's targets are: ``"classes"``, ``"values"`` or ``"masks"``.
        has_logits: Whether values are logits of labels, whose sigmoid is a probability.

    Example:
        >>> import torch
        >>> import layered_lr as ll
        >>> build = lambda: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> data = (torch.ones(8, 3, 2, 2).numpy(), torch.arange(8).numpy() % 2) * 2
        >>> result = ll.run(ll.Spec(ll.SGD(0.1)), model=build, data=data, epochs=1, batch_size=4, progress=False)
        >>> predictions = result.predict(data[0][:3], top_k=2)
        >>> predictions.classes.shape, predictions.probabilities.shape
        ((3, 2), (3, 2))
    """

    logits: Floats = field(repr=False)
    images: tuple[str, ...] = field(repr=False)
    class_names: tuple[str, ...]
    top_k: int
    backend: str
    weights: Which
    targets: TargetKind = "classes"
    has_logits: bool = False

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def values(self) -> Floats:
        """The model's answers as they are, shape (N, ...)."""
        return self.logits

    @cached_property
    def probabilities(self) -> Float64:
        """Of classes the softmax of the logits, shape (N, outputs): each row sums to 1. Of labels the sigmoid of each.

        They are computed in float64.

        Raises:
            SpecError: The answers are masks, or values that are no logits as far as the run knows: its loss is no
                ``torch.nn.BCEWithLogitsLoss``.
        """
        if self.targets == "values" and not self.has_logits:
            raise SpecError(
                "predictions.probabilities: the run's loss is none of torch's that take the sigmoid of the outputs "
                "(BCEWithLogitsLoss, MultiLabelSoftMarginLoss), so the values are no logits as far as it knows. Take "
                "predictions.values."
            )
        if self.targets == "values":
            return sigmoid(self.logits)
        self._need_classes("probabilities")
        return softmax(self.logits)

    @cached_property
    def classes(self) -> Int64:
        """The likeliest classes of each image, shape (N, top_k); of equal ones the lower number comes first.

        Raises:
            SpecError: The answers are values or masks.
        """
        self._need_classes("classes")
        return np.argsort(-self.logits.astype(np.float64), axis=1, kind="stable")[:, : self.top_k]

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """What ``classes`` are called."""
        self._need_classes("names")
        return tuple(tuple(self.class_names[index] for index in row) for row in self.classes)

    @cached_property
    def masks(self) -> Int64:
        """The likeliest class of each pixel, shape (N, H, W); of equal ones the lower number.

        Raises:
            SpecError: The answers are no masks, or the model does not answer with a number for each class of each
                pixel, shape (N, classes, H, W).
        """
        found = read_masks(self.logits, self.class_names) if self.targets == "masks" else None
        if found is None:
            what = f"the run's targets are {self.targets}" if self.targets != "masks" else "the targets are masks"
            raise SpecError(
                f"predictions.masks: {what}, and the model's answer has shape {self.logits.shape}; must be a number "
                "for each class of each pixel, (N, classes, H, W). Take predictions.values."
            )
        return found

    def _need_classes(self, name: str) -> None:
        if self.targets != "classes":
            instead = "masks" if self.targets == "masks" else "values"
            raise SpecError(
                f"predictions.{name}: the run's targets are {self.targets}, no class numbers. Take "
                f"predictions.{instead}."
            )

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield what is known of each image, as plain tables.

        Of classes one for each of the ``top_k``, with the keys that the CSV's columns have. Of values one for each
        image: ``image``, ``values`` and, for logits of labels, ``probabilities``, by name. Of masks ``image``,
        ``shape`` and ``pixels``, how many each class has. Of values that lie over pixels ``image``, ``shape``,
        ``lowest``, ``mean`` and ``highest``.
        """
        if self.targets == "masks" and read_masks(self.logits[:0], self.class_names) is not None:
            yield from list_mask_rows(self.images, self.masks, self.class_names)
            return
        if self.targets != "classes":
            shares = self.probabilities if self.has_logits and self.logits.ndim <= 2 else None
            yield from list_value_rows(self.images, self.logits, self.class_names, shares)
            return
        for place, image in enumerate(self.images):
            for rank, index in enumerate(self.classes[place].tolist(), 1):
                yield {
                    "image": image,
                    "rank": rank,
                    "class": index,
                    "name": self.class_names[index],
                    "probability": float(self.probabilities[place, index]),
                    "logit": float(self.logits[place, index]),
                }

    def to_csv(self, path: str | Path) -> None:
        """Write a row for each image and each of its ``top_k`` classes, whole or not at all.

        Of values there is a row for each image with a column for each value (``value NAME``) and, for logits of labels,
        one for each probability (``probability NAME``).

        Args:
            path: The file, which must end in ``.csv``. One with other content is never replaced.

        Raises:
            SpecError: Nothing can be written there, there is a file that holds no predictions, or the answers are masks
                or other values that lie over pixels, which ``save`` writes.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> predictions = ll.Predictions(np.array([[2.0, 1.0]]), ("0",), ("cat", "dog"), 1, "torch-eager", "last")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     predictions.to_csv(f"{folder}/predictions.csv")
            ...     print(Path(folder, "predictions.csv").read_text().splitlines()[0])
            image,rank,class,name,probability,logit
        """
        place = check_csv("path", path)
        write_whole(place, [self._csv_text().encode()])

    def save(self, folder: str | Path) -> tuple[Path, ...]:
        """Write the answer to each image as a file: a mask as ``.png``, values as ``.npy``; all of them or none.

        A ``.png`` holds class numbers of 8 bits, or of 16 where there are more than 256 classes. The files have the
        images' names, with a number in front where two would have the same.

        Args:
            folder: A new folder, or an empty one.

        Returns:
            The files, in the order of the images.

        Raises:
            SpecError: The answers are classes, which ``to_csv`` writes, or there is something already.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> import layered_lr as ll
            >>> ages = np.array([[31.0], [54.0]])
            >>> found = ll.Predictions(ages, ("a.jpg", "b.jpg"), ("age",), 1, "torch-eager", "last", "values")
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     [float(np.load(file)[0]) for file in found.save(f"{folder}/ages")]
            [31.0, 54.0]
        """
        if self.targets == "classes":
            raise SpecError("predictions.save: the answers are classes. to_csv (--csv) writes them, in one file.")
        place = check_folder("folder", folder)
        is_mask = self.targets == "masks"
        return write_files(
            place, self.images, self.masks if is_mask else self.logits, len(self.class_names) if is_mask else None
        )

    def _csv_text(self) -> str:
        if self.targets != "classes":
            if self.targets == "masks" or self.logits.ndim > 2:
                raise SpecError(
                    f"to_csv: the answers have shape {self.logits.shape}, which is no table. predictions.save(folder) "
                    "(--folder) writes a file for each image."
                )
            return csv_text(csv_rows(list(self.rows())))
        rows = (row.values() for row in self.rows())
        return csv_text([_HEADER, *([csv_cell(v) if isinstance(v, str) else v for v in row] for row in rows)])

    def to_json(self) -> str:
        """The predictions as JSON: the backend, the weights, and a list of ``rows()``."""
        return json.dumps({"backend": self.backend, "weights": self.weights, "predictions": list(self.rows())})

    def __str__(self) -> str:
        if self.targets != "classes":
            return harmless(ReportTable(*table_of_answers(list(self.rows()))).text())
        headers = ["image", *(f"{rank}." for rank in range(1, self.classes.shape[1] + 1))]
        rows = [
            [
                image,
                *(f"{self.class_names[each]} {self.probabilities[place, each]:.3f}" for each in self.classes[place]),
            ]
            for place, image in enumerate(self.images)
        ]
        return harmless(ReportTable(headers, rows).text())


def softmax(logits: Floats) -> Float64:
    """Compute the softmax of each row in float64."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    shares: Float64 = raised / raised.sum(axis=1, keepdims=True)
    return shares


def check_csv(what: str, path: str | Path) -> Path:
    """Check that predictions can be written to a path.

    Args:
        what: The name of the option, for messages.
        path: The file.

    Raises:
        SpecError: They cannot.
    """
    firsts = (",".join(_HEADER).encode() + b"\n", FIRST_COLUMN.encode())
    return check_output(what, path, (".csv",), is_ours=lambda file: any(begins_with(file, each) for each in firsts))


def check_written(targets: TargetKind, csv: object, folder: object) -> None:
    """Refuse a file that answers of such a kind do not go into, before anything is computed.

    Args:
        targets: Of the run.
        csv: The value of ``--csv``; None where it is not given.
        folder: The value of ``--folder``, likewise.

    Raises:
        SpecError: There is one.
    """
    if folder is not None and targets == "classes":
        raise SpecError("--folder: the run's targets are class numbers, which --csv writes, in one file.")
    if csv is not None and targets == "masks":
        raise SpecError("--csv: the run's targets are masks, which are no table: --folder writes a .png for each.")


def list_class_names(takes: ModelInput, outputs: int) -> tuple[str, ...]:
    """What each output of a model means."""
    return tuple(takes.name_of(index) for index in range(outputs))


def want_images(takes: ModelInput) -> Wanted:
    """What images a model takes, as ``Pictures`` has it."""
    mean, std = (None if each is None else np.array(each, np.float32) for each in (takes.mean, takes.std))
    normalisation: tuple[Float32, Float32] | None = None if mean is None or std is None else (mean, std)
    sizes = tuple(dict.fromkeys((takes.data_shape[1:], takes.image_shape[1:])))
    wanted = Wanted(takes.image_shape, sizes, normalisation, takes.image_size is not None)
    return wanted if takes.fit is None else wanted._replace(folder_size=takes.data_shape[1], fit=takes.fit)


def predict(
    trained: Trained,
    images: Any,
    *,
    top_k: int = 1,
    batch_size: int = 64,
    backend: str | None = None,
    weights: Which | None = None,
    resize: bool | None = None,
    model: str | Callable[[], Any] | None = None,
    device: str = "auto",
) -> Predictions:
    """Answer to images with a run's model; see ``Result.predict``."""
    top_k, batch_size = whole_number("top_k", top_k, 1), whole_number("batch_size", batch_size, 1)
    opened = open_model(trained, backend, weights, model, device, batch_size)
    kind = opened.takes.targets
    if kind != "classes" and top_k != 1:
        raise SpecError(f"top_k={top_k}: is for class numbers, and the run's targets are {kind}. Leave it out.")
    pictures = Pictures(images, want_images(opened.takes), resize)
    logits = np.concatenate([opened.answer(batch) for batch in pictures.batches(batch_size)])
    if pictures.resized:
        _, height, width = opened.takes.image_shape
        say(f"images: {pictures.resized} of {len(pictures)} had another size, and were resized to {height}x{width}.")
    names = list_class_names(opened.takes, _count_outputs(opened.takes, logits.shape))
    if len(set(names)) < len(names):  # values beyond those that have names, one of which is such a number
        names = tuple(map(str, range(len(names))))
    if kind == "classes" and top_k > len(names):
        say(f"top_k={top_k}: the model has {len(names)} classes, and all of them are given.")
    shown = min(top_k, len(names))
    return Predictions(
        logits, pictures.names, names, shown, opened.backend.name, opened.which, kind, opened.takes.has_logits
    )


def _count_outputs(takes: ModelInput, shape: tuple[int, ...]) -> int:
    """How many outputs need a name: of a table its columns; of what lies over pixels its layers, where it has some."""
    if takes.targets == "classes" or len(shape) == 2:
        return shape[1]
    if takes.targets == "masks":
        return max(takes.num_classes, shape[1]) if len(shape) == 4 else takes.num_classes
    return 1 if len(shape) == 1 else takes.num_classes
