"""Predictions: what a trained model answers to images, with probabilities, classes and their names."""

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
from layered_lr.files import begins_with
from layered_lr.outputs import check_output, write_whole
from layered_lr.printed import csv_cell, csv_text, harmless
from layered_lr.reports.tables import ReportTable
from layered_lr.training.trained.model_input import ModelInput
from layered_lr.training.trained.trained_model import Trained, Which, open_model

_HEADER = ("image", "rank", "class", "name", "probability", "logit")


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a trained model answers to images. ``Result.predict`` makes it.

    Args:
        logits: The model's output, shape (N, outputs).
        images: What each image is called: the path of its file, or its number; N texts.
        class_names: What each output means; a class without a name has its number.
        top_k: How many classes of each image ``classes`` has, the likeliest first.
        backend: What computed them.
        weights: ``"average"`` or ``"last"``.

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

    def __len__(self) -> int:
        return len(self.logits)

    @cached_property
    def probabilities(self) -> Float64:
        """The softmax of the logits, shape (N, outputs), computed in float64; each row sums to 1."""
        return softmax(self.logits)

    @cached_property
    def classes(self) -> Int64:
        """The likeliest classes of each image, shape (N, top_k); of equal ones the lower number comes first."""
        return np.argsort(-self.logits.astype(np.float64), axis=1, kind="stable")[:, : self.top_k]

    @property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """What ``classes`` are called."""
        return tuple(tuple(self.class_names[index] for index in row) for row in self.classes)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield a table for each image and each of its ``top_k`` classes, with the keys that the CSV's columns have."""
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

        Args:
            path: The file, which must end in ``.csv``. One with other content is never replaced.

        Raises:
            SpecError: Nothing can be written there, or there is a file that holds no predictions.

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
        write_whole(check_csv("path", path), [self._csv_text().encode()])

    def _csv_text(self) -> str:
        rows = (row.values() for row in self.rows())
        return csv_text([_HEADER, *([csv_cell(v) if isinstance(v, str) else v for v in row] for row in rows)])

    def to_json(self) -> str:
        """The predictions as JSON: the backend, the weights, and a list of ``rows()``."""
        return json.dumps({"backend": self.backend, "weights": self.weights, "predictions": list(self.rows())})

    def __str__(self) -> str:
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
    first = ",".join(_HEADER).encode() + b"\n"
    return check_output(what, path, (".csv",), is_ours=lambda file: begins_with(file, first))


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
    pictures = Pictures(images, want_images(opened.takes), resize)
    logits = np.concatenate([opened.answer(batch) for batch in pictures.batches(batch_size)])
    if pictures.resized:
        _, height, width = opened.takes.image_shape
        say(f"images: {pictures.resized} of {len(pictures)} had another size, and were resized to {height}x{width}.")
    names = list_class_names(opened.takes, logits.shape[1])
    if top_k > len(names):
        say(f"top_k={top_k}: the model has {len(names)} classes, and all of them are given.")
    return Predictions(logits, pictures.names, names, min(top_k, len(names)), opened.backend.name, opened.which)
