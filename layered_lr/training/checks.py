"""Checks before and after a training, where a framework would fail with an unclear error or train nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from layered_lr.arrays import Array, Floats, Weights
from layered_lr.backend.base import Backend
from layered_lr.backend.session import Session, StepOutcome
from layered_lr.data import Batches
from layered_lr.errors import LayeredLRError, SpecError, TrainingDiverged, Unsupported
from layered_lr.files import describe_error
from layered_lr.losses import FunctionLoss
from layered_lr.models.nn_modules import parameters_of
from layered_lr.plans.float32_range import LARGEST, check_range, is_in_float64
from layered_lr.plans.plan import Plan
from layered_lr.printed import name_of, shown
from layered_lr.registry import TABLE
from layered_lr.scaling import LossScaling
from layered_lr.spelling import did_you_mean
from layered_lr.training.cross_entropy import CrossEntropy
from layered_lr.training.metric_names import EMA_ACCURACY, OWN_NAMES, TEST_LOSS
from layered_lr.training.metrics import list_names
from layered_lr.training.options import RunOptions

_BLOCK_STEPS = 65_536  # whose rates are held at once


def check_autocast(options: RunOptions) -> None:
    """Refuse autocast where the backend would ignore it or do something else than torch.

    Raises:
        Unsupported: A OneFlow backend.
        SpecError: Weights that are not float32, or settings of a scale that nothing uses.
    """
    dtype, autocast = options.precision.dtype, options.precision.autocast
    if autocast != "float16" and options.precision.scaling != LossScaling():
        raise SpecError(
            f"init_scale={options.precision.init_scale:g}, growth_interval={options.precision.growth_interval} with "
            f"autocast={autocast!r}: a loss is scaled under autocast to 'float16' alone. Leave them out, or set "
            "autocast='float16'."
        )
    if autocast is None:
        return
    if TABLE[options.backend].framework != "torch":
        raise Unsupported(
            f"autocast={autocast!r}: {options.backend} cannot. OneFlow 0.9 has autocast on a GPU alone, and "
            "casts other operators. Use a torch backend, or leave autocast out."
        )
    if dtype != "float32":
        raise SpecError(
            f"autocast={autocast!r} with dtype={dtype!r}: torch casts float32 alone, and would compute "
            "all in float64. Use one of the two."
        )


def check_loss(options: RunOptions, classes: int, processes: int = 1) -> None:
    """Refuse class weights of a wrong number, and a loss of several batches that is not that of all their images.

    Raises:
        SpecError: There are too few or too many, or batches are accumulated under such a loss.
    """
    loss, together = options.loss, options.accumulate_steps
    weights = loss.class_weights if isinstance(loss, CrossEntropy) else ()
    if weights and len(weights) != classes:
        raise SpecError(
            f"loss: class_weights has {len(weights)} numbers and the data have {classes} classes. Give one for each."
        )
    if max(together, processes) > 1 and (what := loss.why_not_in_parts):
        raise SpecError(
            f"loss: {what} with accumulate_steps={together} in {processes} process(es): the mean of the parts' losses "
            "is not the loss of all images. Use accumulate_steps=1 with a larger batch_size, in one process."
        )


_MEAN_SHAPE = (12, 4)  # images, and into how many parts they go
_MEAN_TOLERANCE = 1e-4  # relative: float32 adds up 12 numbers to 1e-6


def check_mean_of_parts(
    backend: Backend,
    loss: FunctionLoss,
    answered: Floats,
    classes: int,
    has_shares: bool,
    given: Array | None = None,
) -> None:
    """Refuse a loss of the user's whose mean over the parts of a batch is not that of the batch.

    It is tried with random outputs, because nothing else tells: a sum, weights of classes, targets that do not count,
    and losses of pairs of images all return one number.

    Args:
        backend: That trains.
        loss: From ``Backend.prepare_loss``.
        answered: What the model answers to some images, shape (N, outputs): only its width and dtype count.
        classes: Of the data.
        has_shares: Whether the targets are the share of each class.
        given: 12 targets that are no class numbers; None for class numbers and shares.

    Raises:
        SpecError: It is not.
    """
    images, parts = _MEAN_SHAPE
    rng = np.random.default_rng(0)
    if given is None:
        answers: Floats = rng.standard_normal((images, answered.shape[1])).astype(answered.dtype)
        numbers = rng.permutation(np.arange(images) % classes)
        shares = rng.dirichlet(np.ones(classes), images).astype(answered.dtype)
        targets: Array = shares if has_shares else numbers
    else:
        answers, targets = rng.random((images, *answered.shape[1:])).astype(answered.dtype), given
    try:
        whole = backend.measure_loss(loss, answers, targets)
        each = [
            backend.measure_loss(loss, some, theirs)
            for some, theirs in zip(np.split(answers, parts), np.split(targets, parts), strict=True)
        ]
    except SpecError:  # it does not take such outputs; the first update says why
        return
    if not math.isclose(whole, float(np.mean(each)), rel_tol=_MEAN_TOLERANCE, abs_tol=1e-6):
        raise SpecError(
            f"loss: {name_of(loss.function)} of {images} random outputs is {whole:.6g}, and its mean over {parts} "
            f"parts of them {np.mean(each):.6g}. A batch that comes in parts, or is shared by processes, would be "
            "trained with another loss. Use accumulate_steps=1 in one process, or a loss that is a mean over images."
        )


def check_watched(options: RunOptions, has_accuracy: bool = True) -> None:
    """Refuse an early stop, or a choice of the best checkpoint, by a metric that the run does not measure.

    Raises:
        SpecError: It does not.
    """
    known = _list_measured(options, has_accuracy)
    if options.early_stop is not None:
        _check_measured("early_stop: metric", options.early_stop.metric, known)
    if options.checkpoints is not None and options.checkpoints.keep_best:
        if not has_accuracy and options.checkpoints.best_metric == "accuracy":
            return  # the default: the lowest loss stands for it
        _check_measured("checkpoints: best_metric", options.checkpoints.best_metric, known)


def check_reacting(options: RunOptions, plan: Plan, has_accuracy: bool = True) -> None:
    """Refuse a schedule that reads a metric which the run does not measure, or not so often.

    Raises:
        SpecError: There is one.
    """
    for group in (group for there in plan.phase_plans for group in there.groups):
        reaction = group.schedule.start_reaction(group.lr)
        name = None if reaction is None else reaction.settings.metric
        if reaction is None or not isinstance(name, str):
            continue
        each_step = reaction.settings.unit == "step"
        known = ["loss"] if each_step else _list_measured(options, has_accuracy)
        what = f"group {group.name!r}, ReduceLROnPlateau: metric"
        _check_measured(what, name, known, " at each step" if each_step else "")


def _list_measured(options: RunOptions, has_accuracy: bool) -> list[str]:
    """List what a run measures at the end of each epoch."""
    has_average = options.ema_decay is not None
    further = list_names([*([] if has_accuracy else [TEST_LOSS]), *options.metrics], has_average)
    return [OWN_NAMES[0], *OWN_NAMES[1:] * has_accuracy, *[EMA_ACCURACY] * (has_accuracy and has_average), *further]


def _check_measured(what: str, name: str, known: Sequence[str], when: str = "") -> None:
    if name not in known:
        raise SpecError(
            f"{what}={shown(name)} is not measured{when}; what is: {', '.join(known)}.{did_you_mean(name, known)} Give "
            "a function for it in Python: metrics={'name': function}; the command measures no others. A run that goes "
            "on must be given its metrics again."
        )


def check_autocast_dtypes(options: RunOptions, plan: Plan) -> None:
    """Refuse autocast with a model that is float64 throughout, which torch leaves as it is, and float16 on float16.

    Raises:
        SpecError: It is float64, or has float16 parameters under autocast to float16.
    """
    floats = [parameter.dtype for parameter in plan.parameters if parameter.dtype.startswith(("float", "bfloat"))]
    if options.precision.autocast == "float16" and "float16" in floats:
        raise SpecError(
            "autocast='float16' with a model that has float16 parameters: their gradients cannot be unscaled. Make the "
            "model in float32, or leave autocast out."
        )
    if options.precision.autocast is not None and floats and set(floats) == {"float64"}:
        raise SpecError(
            f"autocast={options.precision.autocast!r} with a model in float64: torch would compute all in float64. "
            "Make the model in float32, or leave autocast out."
        )


def check_trainable(plan: Plan, model: Any) -> None:
    """Refuse a model of which nothing trains, and numbers that the weights' float32 cannot hold.

    Raises:
        SpecError: Every parameter has ``requires_grad=False``, or a rate or hyperparameter is too large.
    """
    if not any(tensor.requires_grad for _, tensor in parameters_of(model)):
        raise SpecError("model: every parameter has requires_grad=False; there is nothing to train.")
    steps = range(0, plan.total_steps or 0, _BLOCK_STEPS)
    blocks = (plan.table(start, min(start + _BLOCK_STEPS, plan.total_steps or 0)) for start in steps)
    largest = max((float(rates.max(initial=0.0)) for rates in blocks), default=0.0)
    if largest > LARGEST and not is_in_float64(plan):
        raise SpecError(f"the largest rate of the plan, {largest:g}, is more than the weights' float32 can hold.")
    check_range(plan)


def check_answer(session: Session, batches: Batches) -> None:
    """Send one batch of test images through the model: an answer of the wrong shape would abort OneFlow's process.

    Raises:
        SpecError: The forward pass raises, or its answer has the wrong shape.
    """
    images, _, _ = next(batches.test(session.wants_channels_last))
    try:
        session.logits(images)
    except LayeredLRError:
        raise
    except Exception as error:  # whatever the user's forward pass raises
        raise SpecError(
            f"model: its forward pass does not take images of shape {images.shape}: {describe_error(error)}"
        ) from error


def train_first_step(session: Session, images: Any, labels: Any, parts: int, *whole: int) -> StepOutcome:
    """Make the first update, or one of a new shape; what the forward pass raises then, it raises in training alone.

    Raises:
        SpecError: The update raised something else than this library does.
    """
    try:
        return session.train_step(images, labels, parts, *whole)
    except LayeredLRError:
        raise
    except (ValueError, TypeError, AttributeError, LookupError, NotImplementedError) as error:
        hint = ""
        if "more than 1 value per channel" in str(error):  # torch's words
            hint = (
                " A batch normalisation needs more than one value of each channel: give batch_size=2 or more, or leave "
                "out a last batch of one image (drop_last)."
            )
        raise SpecError(
            f"model: an update on images of shape {images.shape} failed: {describe_error(error)}.{hint}"
        ) from error
    except RuntimeError as error:
        if "does not support dense gradients" not in str(error):  # torch's words
            raise
        raise SpecError(
            "SparseAdam takes sparse gradients alone, such as those of Embedding(sparse=True), and a parameter of this "
            "model has a dense one. Give such parameters another optimizer: Group(match, optimizer=SparseAdam(...)) "
            "for the sparse ones, and Adam for the rest."
        ) from error


def check_finite(plan: Plan, weights: Weights) -> None:
    """Check the weights after the last update, which no loss has shown yet.

    Raises:
        TrainingDiverged: A weight is NaN or infinite.
    """
    for parameter in plan.parameters:
        if not np.isfinite(weights[parameter.name]).all():
            raise TrainingDiverged(f"{parameter.name} is NaN or infinite after the last update. Try lower rates.")
