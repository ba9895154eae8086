"""A run that is ready to begin: data read, model built, plan made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from layered_lr.arrays import Weights
from layered_lr.backend.base import Backend, Extras
from layered_lr.backend.loading import load_backend
from layered_lr.data import Batches, Dataset, load_dataset
from layered_lr.models import catalogue
from layered_lr.models.catalogue import check_images
from layered_lr.models.weight_files import merge_weights, read_weights
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.spec.spec import Spec
from layered_lr.training.checks import check_autocast, check_trainable
from layered_lr.training.options import RunOptions


class Prepared(NamedTuple):
    """A run that is ready to begin.

    Args:
        backend: Loaded.
        model: Built, at its start.
        plan: Made for it.
        dataset: Read.
        batches: Of it.
        extras: What sessions do beside the plan.
        lowering: How the backend applies each group's rate.
    """

    backend: Backend
    model: Any
    plan: Plan
    dataset: Dataset
    batches: Batches
    extras: Extras
    lowering: dict[str, str]


def prepared(spec: Spec, options: RunOptions) -> Prepared:
    """Read the data, build the model, make the plan; see ``train``."""
    check_autocast(options)
    given = None if options.initial_weights is None else read_weights(options.initial_weights)
    dataset = load_dataset(options.data, options.data_root)
    batches = Batches(dataset, options.batch_size, options.seed, options.augment)
    in_epoch = options.steps_per_epoch(len(dataset.y_train))
    lengths = options.total_steps(in_epoch), in_epoch
    if isinstance(options.model, str):
        check_images(options.model, options.batch_size, dataset.facts.image_shape)
        resolve(spec, catalogue.list_parameters(options.model, dataset.num_classes), *lengths)

    backend = load_backend(options.backend, options.device)
    model = backend.build(options.model, dataset.num_classes, options.dropout, options.seed, options.dtype)
    plan = resolve(spec, model, *lengths)
    check_trainable(plan, model)
    lowering = plan.lowering(options.backend)
    backend.load(model, start_weights(options, plan, dataset.num_classes, lambda: backend.state(model), given))
    measured = options.on_divergence != "stop"
    extras = Extras(options.accumulate_steps, options.ema_decay, measured, options.seed, options.autocast)
    return Prepared(backend, model, plan, dataset, batches, extras, lowering)


def start_weights(
    options: RunOptions, plan: Plan, num_classes: int, made: Callable[[], Weights], given: Weights | None
) -> Weights:
    """The state to start from: given, or drawn from the seed, or as the user's callable made it.

    Args:
        options: Of the run.
        plan: Of the run.
        num_classes: Of the data.
        made: Reads the state of the user's model as it was made.
        given: Instead of it.
    """
    known = isinstance(options.model, str)
    own = catalogue.draw_initial_weights(options.model, num_classes, options.seed) if known else made()
    if given is None:
        return own
    return merge_weights(own, [parameter.name for parameter in plan.parameters], given, options.reset_weights)
