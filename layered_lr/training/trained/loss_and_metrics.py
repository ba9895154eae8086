"""Measures a trained model whose targets are no class numbers: the loss and the metrics of values and masks."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence

from layered_lr.data import Batches, Dataset
from layered_lr.errors import DataError, SpecError
from layered_lr.losses import FunctionLoss, LossSettings
from layered_lr.training.evaluation import LossSum, MeasuredLoss
from layered_lr.training.metrics import Metric, MetricSums
from layered_lr.training.target_checks import broadcasting_refused, example_targets, try_loss
from layered_lr.training.trained.model_input import ModelInput
from layered_lr.training.trained.trained_model import Answerer

_EXAMPLES = 2  # images, for which a loss is prepared


def check_same_targets(dataset: Dataset, takes: ModelInput) -> None:
    """Refuse data whose targets are of another kind than those that a model was trained on.

    Raises:
        DataError: They are.
    """
    facts = dataset.facts.targets
    what = f"data {dataset.name!r}: the targets are {facts.describe()}"
    if facts.kind != takes.targets:
        was = {"classes": "a class number for each image", "values": "values", "masks": "masks"}[takes.targets]
        raise DataError(f"{what}, but the model was trained on {was}: give such data.")
    if facts.kind == "values" and facts.width != takes.num_classes:
        raise DataError(f"{what}, but the model was trained on {takes.num_classes}: give such data.")
    if facts.kind != "masks":
        return
    if None not in (names := (dataset.class_names, takes.class_names)) and names[0] != names[1]:
        raise DataError(
            f"data {dataset.name!r}: the classes of the masks have other names, or another order, than those that the "
            f"model was trained on: {', '.join((takes.class_names or ())[:10])}. Give such masks."
        )
    if dataset.num_classes > takes.num_classes:
        raise DataError(
            f"data {dataset.name!r}: the masks have classes up to {dataset.num_classes - 1}, but the model was trained "
            f"on {takes.num_classes} classes, 0 to {takes.num_classes - 1}."
        )


def measure_numbers(
    opened: Answerer, batches: Sequence[Batches], loss: LossSettings | None, metrics: Mapping[str, Metric]
) -> tuple[float, dict[str, float], int]:
    """Answer to all images, and measure.

    Args:
        opened: The model.
        batches: Of each part of the data.
        loss: That of the run; None where it is not known.
        metrics: What else to measure, by name.

    Returns:
        The loss, NaN where it is not known; the metrics; and how many images there are.

    Raises:
        SpecError: The loss or a metric does not take such answers and targets.
        Unsupported: The backend cannot compute the loss.
    """
    dataset, backend = batches[0].dataset, opened.backend
    if loss is not None and not isinstance(loss, FunctionLoss):
        raise SpecError(
            f"evaluate: loss: is the cross-entropy of one class number for each image, and the targets are "
            f"{dataset.facts.targets.describe()}. Give a loss for them, such as loss=torch.nn.MSELoss()."
        )
    prepared = None
    if loss is not None:
        shape = (_EXAMPLES, *opened.takes.image_shape)
        with broadcasting_refused():
            prepared = backend.prepare_loss(loss, opened.model, shape, 0, example_targets(dataset, _EXAMPLES))
    losses: LossSum | None = None
    sums, count = MetricSums(metrics), 0
    for images, targets, counted in itertools.chain.from_iterable(each.test() for each in batches):
        answers, true = opened.answer(images)[:counted], targets[:counted]
        if isinstance(prepared, FunctionLoss) and losses is None:
            try_loss(backend, prepared, answers, dataset)
            measured = functools.partial(backend.measure_loss, prepared)
            losses = LossSum(MeasuredLoss(measured, prepared.reduction == "sum"))
        if losses is not None:
            losses.add(answers, true)
        if metrics:
            sums.add(answers, true)
        count += counted
    return float("nan") if losses is None else losses.value, sums.numbers(), count
