"""Checks of a run whose targets are no class numbers: what needs classes is refused before anything trains."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator

import numpy as np

from layered_lr.arrays import Array, Floats
from layered_lr.backend.base import Backend
from layered_lr.console import say
from layered_lr.data import Dataset
from layered_lr.data.targets import list_ignored, take
from layered_lr.errors import SpecError
from layered_lr.losses import FunctionLoss
from layered_lr.printed import name_of
from layered_lr.training.cross_entropy import CrossEntropy
from layered_lr.training.metric_names import OWN_NAMES, TEST_LOSS
from layered_lr.training.options import RunOptions

_TRIED = 12  # images, for which a loss is tried


def check_targets(options: RunOptions, dataset: Dataset) -> None:
    """Refuse options that do not go with targets that are no class numbers.

    Raises:
        SpecError: The loss is the cross-entropy of classes, images are mixed, or pixels would move under what lies
            over them.
    """
    facts = dataset.facts
    if facts.targets.kind == "classes":
        return
    what = f"data {dataset.name!r}: the targets are {facts.targets.describe()}"
    if isinstance(options.loss, CrossEntropy):
        means = "torch.nn.CrossEntropyLoss()" if facts.targets.kind == "masks" else "torch.nn.MSELoss()"
        raise SpecError(
            f"{what}, and the loss is the cross-entropy of one class number for each image. Give a loss for them, such "
            f"as loss={means}; or class numbers: .astype('int64') of whole numbers, y[:, 0] of a column, y.argmax(1) "
            "of one-hot rows."
        )
    if TEST_LOSS in options.metrics:
        raise SpecError(f"metrics: {TEST_LOSS!r} is measured already; give yours another name.")
    if options.mix is not None:
        raise SpecError(f"{what}; mix is for class numbers. Leave it out.")
    if facts.targets.is_spatial:
        moved = "augment" if options.augment else "image_size" if options.image_size else "sizes"
        if options.augment or options.image_size is not None or options.sizes is not None:
            raise SpecError(
                f"{what}; {moved} would move or resize the images, and not what lies over them. Leave it out, and "
                "prepare images and targets together."
            )
    if (
        options.checkpoints is not None
        and options.checkpoints.keep_best
        and options.checkpoints.best_metric == OWN_NAMES[1]
    ):
        say("checkpoints: there is no accuracy of such targets, so the best is the one with the lowest loss.")


def example_targets(dataset: Dataset, count: int) -> Array:
    """Targets of some images, or zeros for class numbers; of masks also each number that is no class.

    Args:
        dataset: Of the run.
        count: How many.
    """
    facts = dataset.facts
    if facts.targets.kind == "classes":
        return np.zeros(count, np.int64)
    found = take(dataset.y_train, np.arange(count) % len(dataset.y_train))
    if facts.targets.kind == "masks":
        others = list_ignored(facts.num_classes, dataset.y_train, dataset.y_test)
        found.reshape(-1)[: len(others)] = others[: found.size]
        found.reshape(-1)[-1] = facts.num_classes - 1
    return found


@contextlib.contextmanager
def broadcasting_refused() -> Iterator[None]:
    """Let torch's warning that outputs and targets have different shapes be an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Using a target size")
        yield


def try_loss(backend: Backend, loss: FunctionLoss, answered: Floats, dataset: Dataset) -> None:
    """Compute the loss once before anything trains, of random outputs.

    Args:
        backend: That trains.
        loss: From ``Backend.prepare_loss``.
        answered: What the model answers to some images: only its shape and dtype count.
        dataset: Of the run.

    Raises:
        SpecError: It raises; or it compares the output of each image with the targets of all.
    """
    rng = np.random.default_rng(0)
    outputs: Floats = rng.random((_TRIED, *answered.shape[1:])).astype(answered.dtype)
    with broadcasting_refused():
        backend.measure_loss(loss, outputs, example_targets(dataset, _TRIED))
        shape = dataset.y_train.shape[1:]
        if dataset.facts.targets.kind != "values" or answered.shape[1:] == shape:
            return
        values = rng.random((_TRIED, *shape)).astype(answered.dtype)
        here, rolled = (backend.measure_loss(loss, outputs, each) for each in (values, np.roll(values, 1, axis=0)))
    if np.isclose(here, rolled, rtol=1e-6, atol=0):
        raise SpecError(
            f"loss: {name_of(loss.function)} of outputs {outputs.shape} and targets {values.shape} is the same "
            "whichever target goes with which output: each output is compared with all targets. Give both one shape: "
            "y[:, None] makes a column, and outputs.squeeze(1) takes it away."
        )
