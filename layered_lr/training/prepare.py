"""Prepares a run: reads the data, builds the model, sets its first weights, makes the plan."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from layered_lr.arrays import Array, Weights, kind_of
from layered_lr.backend.base import Backend
from layered_lr.backend.loading import load_backend
from layered_lr.backend.processes import ALONE
from layered_lr.backend.session import Extras
from layered_lr.console import say
from layered_lr.data import Batches, Dataset, load_dataset
from layered_lr.data.mixing import Mixer
from layered_lr.errors import SpecError
from layered_lr.losses import FunctionLoss, LossSettings
from layered_lr.models.answering_layer import mark_answering
from layered_lr.models.catalogue import check_images
from layered_lr.models.heads import check_words, expand_words
from layered_lr.models.initialise import initialise
from layered_lr.models.nn_modules import Module, list_modules, type_names
from layered_lr.models.weight_files import find_reset, merge_weights, read_weights
from layered_lr.models.zoo import is_catalogued
from layered_lr.plans.plan import Plan
from layered_lr.plans.resolve import resolve
from layered_lr.plans.rules import list_names
from layered_lr.spec.phases import Which
from layered_lr.spec.spec import Spec
from layered_lr.training.batch_shapes import TRIED, check_last_batch, check_single_image, check_unequal_parts
from layered_lr.training.checks import (
    check_autocast,
    check_autocast_dtypes,
    check_loss,
    check_mean_of_parts,
    check_reacting,
    check_trainable,
    check_watched,
)
from layered_lr.training.chosen_model import ChosenModel, choose_model
from layered_lr.training.code_digest import digest_arrays
from layered_lr.training.loss_function import LossFunction
from layered_lr.training.many_processes import check_single_process
from layered_lr.training.options import RunOptions
from layered_lr.training.target_checks import broadcasting_refused, check_targets, example_targets, try_loss
from layered_lr.training.trained.model_input import ModelInput, describe_input


class Prepared(NamedTuple):
    """A run that is ready to begin.

    Args:
        backend: Loaded.
        model: Built, at its start.
        plan: Made for it.
        dataset: Read.
        batches: Of it.
        extras: What sessions do in addition to the plan.
        lowering: How the backend applies each group's rate.
        model_input: What the model takes, without the digest of the data.
        weights_digest: Of the weights that a file or the user gave; empty where none were given, or nobody asks.
    """

    backend: Backend
    model: Any
    plan: Plan
    dataset: Dataset
    batches: Batches
    extras: Extras
    lowering: dict[str, str]
    model_input: ModelInput
    weights_digest: str = ""


def prepare(
    spec: Spec,
    options: RunOptions,
    *,
    backend: Backend | None = None,
    start: Weights | None = None,
    goes_on: bool = False,
    dataset: Dataset | None = None,
) -> Prepared:
    """Read the data, build the model, make the plan.

    Everything that can be wrong is found before the framework is loaded, if it can be.

    Args:
        spec: What to train with.
        options: How.
        backend: Instead of the one that ``options`` names.
        start: The weights to start from, of a model with the same names and shapes; None takes those that the options
            name, or draws them from the seed, or takes what the user's callable made.
        goes_on: Whether the run has weights of its own already, so that no pretrained ones are read.
        dataset: What ``options`` names, where it has been read already.

    Raises:
        SpecError: The spec, an option or the start does not fit the model or the data.
        DataError: The data or a weights file is missing, damaged or of the wrong shape.
        BackendUnavailable: The backend does not work on this machine.
        Unsupported: The backend cannot apply the plan exactly, or this is one of several processes.
    """
    processes = ALONE if backend is None else backend.processes
    if not processes.are_many:
        check_single_process()
    check_autocast(options)
    chosen = options.initial_weights
    if chosen is not None and chosen.source is None:
        raise SpecError(
            f"initial_weights: reset={list(chosen.reset)} needs a source: ll.InitialWeights(source, reset=...)."
        )
    if chosen is not None and options.pretrained and not chosen.reset and not goes_on:
        raise SpecError(
            f"pretrained={options.pretrained!r} beside initial_weights: both give every weight. Leave one of them out, "
            "or name what is to stay pretrained: ll.InitialWeights(..., reset=[...])."
        )
    given = None if chosen is None or start is not None else read_weights(chosen.source)
    if dataset is None:
        dataset = load_dataset(options.data, options.data_root, options.image_size)
    check_targets(options, dataset)
    check_watched(options, dataset.facts.has_classes)
    chosen_model = choose_model(options, dataset.facts, loads=start is None and not goes_on)
    normalisation = chosen_model.normalisation
    sizes = options.sizes
    check_last_batch(options, len(dataset.y_train), processes.share.count)
    batches = Batches(
        dataset,
        options.batch_size,
        options.seed,
        options.augment,
        chosen_model.image_size,
        normalisation,
        options.drop_last,
        () if sizes is None else sizes.sides,
        1 if sizes is None else sizes.every,
        _make_mixer(options, dataset.num_classes),
    )
    check_loss(options, dataset.num_classes, processes.share.count)
    in_epoch = options.steps_per_epoch(len(dataset.y_train))
    lengths = options.total_steps(in_epoch), in_epoch
    if is_catalogued(options.model):
        for shape in [batches.image_shape, *_shapes(batches)]:
            check_images(options.model, options.batch_size, shape)
    if (parameters := chosen_model.list_parameters()) is not None:
        resolve(spec, parameters, *lengths)

    backend = backend or load_backend(options.backend, options.device)
    model = backend.build(
        chosen_model.source,
        chosen_model.num_classes,
        chosen_model.dropout,
        options.seed,
        options.precision.dtype,
        (options.batch_size, *batches.image_shape),
        _list_other_shapes(options, batches, len(dataset.y_train), processes.are_many),
    )
    chosen_model.say_what_is_taken_over(dataset.mean is not None)
    mark_answering(model, chosen_model.source)
    plan = resolve(spec, model, *lengths)
    check_words(_list_patterns(spec, options), plan.parameters, options.head)
    check_reacting(options, plan, dataset.facts.has_classes)
    check_trainable(plan, model)
    check_unequal_parts(options, plan, model, len(dataset.y_train), processes)
    check_autocast_dtypes(options, plan)
    lowering = plan.lowering(backend.name)
    if start is None:
        types = {path.removesuffix("."): type_names(module) for path, module in list_modules(model)}
        own = start_weights(options, plan, chosen_model, lambda: backend.state(model), given, types)
    else:
        own = _start_as(start, backend.state(model))
    backend.load(model, own)
    check_single_image(
        options, plan, model, len(dataset.y_train), lambda: _try_answer(backend, model, batches), processes
    )
    measured = options.divergence.action != "stop" or any(each.wants_grad_norms for each in options.listeners)
    loss = _prepare_loss(options, backend, model, batches)
    extras = Extras(
        options.accumulate_steps,
        options.ema_decay,
        measured,
        options.seed,
        options.precision.autocast,
        tuple(batches.sizes),
        options.precision.scaling,
        options.sync_batch_norm,
        loss,
    )
    has_logits = isinstance(options.loss, LossFunction) and options.loss.takes_sigmoid
    takes = describe_input(dataset, batches.image_shape, chosen_model.image_size, normalisation, has_logits=has_logits)
    read = own if given is None and chosen_model.pretrained is not None else given
    digest = digest_arrays(read) if processes.are_many and read is not None else ""
    return Prepared(backend, model, plan, dataset, batches, extras, lowering, takes, digest)


def _prepare_loss(options: RunOptions, backend: Backend, model: Module, batches: Batches) -> LossSettings:
    """Make what the backend computes the loss with, and see that the parts of a batch have the mean of the batch."""
    if not batches.dataset.facts.has_classes:
        return _prepare_loss_of_numbers(options, backend, model, batches)
    classes, has_shares = batches.dataset.facts.label_classes, options.mix is not None
    shape = (options.batch_size, *batches.image_shape)
    loss = backend.prepare_loss(options.loss.settings, model, shape, classes, has_shares=has_shares)
    if isinstance(loss, FunctionLoss) and _come_in_parts(options, backend):
        answered = _try_answer(backend, model, batches)
        if answered is not None:
            check_mean_of_parts(backend, loss, answered, classes, has_shares)
    return loss


def _prepare_loss_of_numbers(options: RunOptions, backend: Backend, model: Module, batches: Batches) -> LossSettings:
    """Make what the backend computes the loss of values or masks with, and try it."""
    dataset, count = batches.dataset, max(2, options.batch_size)
    with broadcasting_refused():
        loss = backend.prepare_loss(
            options.loss.settings, model, (count, *batches.image_shape), 0, example_targets(dataset, count)
        )
    answered = _try_answer(backend, model, batches)
    if isinstance(loss, FunctionLoss) and answered is not None:
        try_loss(backend, loss, answered, dataset)
        if _come_in_parts(options, backend):
            check_mean_of_parts(backend, loss, answered, 0, False, example_targets(dataset, 12))
    return loss


def _come_in_parts(options: RunOptions, backend: Backend) -> bool:
    """Whether a batch's loss is the mean of the losses of its parts."""
    return options.accumulate_steps > 1 or backend.processes.are_many


def _try_answer(backend: Backend, model: Module, batches: Batches) -> Array | None:
    """What the model answers to a few images; None where it cannot: its session says why, when it is opened."""
    with contextlib.suppress(Exception):
        images = np.zeros((TRIED, *batches.image_shape), np.float32)
        return backend.answer(model, images, batches.dataset.facts.label_classes)
    return None


def _list_patterns(spec: Spec, options: RunOptions) -> Iterator[str]:
    """Yield all that a run names parameters by: in its spec, and in what they begin with."""
    yield from list_names(spec.groups)
    yield from spec.no_weight_decay
    labels = [group.label for group in spec.groups]
    for phase in spec.phases:
        chosen = (*cast(Which, phase.frozen or ()), *cast(Which, phase.trained or ()))
        yield from (each for each in chosen if isinstance(each, str) and each not in labels)
    yield from () if options.initial_weights is None else options.initial_weights.reset
    yield from options.initialise if isinstance(options.initialise, Mapping) else ()


def _make_mixer(options: RunOptions, classes: int) -> Mixer | None:
    mix = options.mix
    return None if mix is None else Mixer(mix.mixup, mix.cutmix, mix.probability, classes, options.seed)


def _shapes(batches: Batches) -> list[tuple[int, int, int]]:
    """``(C, H, W)`` of training images that differ from those of the test images."""
    channels, *_ = own = batches.image_shape
    return [(channels, size, size) for size in batches.sizes if (channels, size, size) != own]


def _list_other_shapes(
    options: RunOptions, batches: Batches, train_size: int, are_many: bool
) -> list[tuple[int, int, int, int]]:
    """``(N, C, H, W)`` of batches of other sizes of images, and of the last one, if a single process trains."""
    others = [(options.batch_size, *shape) for shape in _shapes(batches)]
    rest = 0 if options.drop_last or are_many else train_size % options.batch_size
    if rest:
        others += [(rest, *shape) for shape in (batches.image_shape, *_shapes(batches))]
    return others


def start_weights(
    options: RunOptions,
    plan: Plan,
    model: ChosenModel,
    read_made: Callable[[], Weights],
    given: Weights | None,
    types: Mapping[str, Sequence[str]],
) -> Weights:
    """The state to start from: given, or drawn from the seed, or as the user's callable made it.

    Args:
        options: Of the run.
        plan: Of the run.
        model: That the run trains.
        read_made: Reads the state of the model as it was made.
        given: Instead of it.
        types: The names of the classes of the model's modules, by path.
    """
    own, new = model.first_weights(options.seed, read_made)
    if new:
        say(f"pretrained: new for {model.num_classes} classes: {', '.join(new)}.")
    reset = () if options.initial_weights is None else options.initial_weights.reset
    paths = expand_words(reset, plan.parameters)
    if options.initialise is not None:
        free = new if given is None else [name for name in find_reset(own, paths) if new is None or name in new]
        own = initialise(own, plan.parameters, options.initialise, options.seed, free, types)
    if given is None:
        return own
    return merge_weights(own, [parameter.name for parameter in plan.parameters], given, paths)


def _start_as(start: Weights, own: Weights) -> dict[str, NDArray[Any]]:
    """The start in the dtypes of a model's own state.

    Counters of batch normalisations aside, which a framework may lack, all names and shapes must be there.

    Raises:
        SpecError: They are not.
    """
    mine, theirs = _float_shapes(own), _float_shapes(start)
    if odd := [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]:
        shapes = f"{mine.get(odd[0], 'missing')} here and {theirs.get(odd[0], 'missing')} in the reference's model"
        raise SpecError(
            f"model: {len(odd)} arrays differ from those of the reference's model: {odd[0]!r} is {shapes}. "
            "The models must have the same names and shapes, so that all begin with the same weights."
        )
    return {name: start[name].astype(array.dtype) if name in start else array for name, array in own.items()}


def _float_shapes(weights: Weights) -> Mapping[str, Any]:
    return {name: array.shape for name, array in weights.items() if kind_of(array) == "f"}
