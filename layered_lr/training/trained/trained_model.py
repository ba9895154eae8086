"""A trained model, built again with a run's weights, ready to answer on any backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np

from layered_lr.arrays import Arrays, Float32, Float64, Floats, Int64, Weights
from layered_lr.backend.base import Backend
from layered_lr.backend.loading import load_backend
from layered_lr.data import DatasetFacts, load_dataset
from layered_lr.data.dataset import Dataset
from layered_lr.data.sources import needs_download
from layered_lr.errors import CheckpointError, LayeredLRError, SpecError
from layered_lr.files import describe_error
from layered_lr.losses import FunctionLoss
from layered_lr.models.nn_modules import Module
from layered_lr.plans.plan import Plan
from layered_lr.printed import shown
from layered_lr.registry import check_name
from layered_lr.state.training_state import find_differences, summarise
from layered_lr.training.chosen_model import choose_model
from layered_lr.training.loss_function import LossFunction
from layered_lr.training.options import RunOptions
from layered_lr.training.trained.model_input import ModelInput, describe_input

Which: TypeAlias = Literal["average", "last"]
"""Which weights: the moving average of a run with ``ema_decay``, or those after the last update."""

_OF_MODELS = ("model", "head", "dropout", "pretrained", "precision", "seed")
"""The options that decide what a model is."""


class Trained(Protocol):
    """What a run has come to, as far as its model is concerned: a ``Result``."""

    @property
    def backend(self) -> str:
        """The name of the backend that trained."""

    @property
    def plan(self) -> Plan:
        """Of the run."""

    @property
    def options(self) -> dict[str, Any]:
        """Of the run, those that can be written down."""

    @property
    def versions(self) -> dict[str, str]:
        """Of what trained."""

    @property
    def weights(self) -> dict[str, Any]:
        """After the last update."""

    @property
    def ema_weights(self) -> dict[str, Any]:
        """Their moving average; empty where there is none."""

    @property
    def unsaved(self) -> dict[str, Any]:
        """What ``state_dict()`` leaves out."""

    @property
    def model_input(self) -> ModelInput | None:
        """What the model takes; None where an older version did not write it down."""

    @property
    def make_model(self) -> Callable[[], Any] | None:
        """What built the model, in the process that trained it."""

    @property
    def loss_function(self) -> LossFunction | None:
        """The user's own loss, in the process that trained with it."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the run measured beside the accuracy, in the process that trained."""


class Answerer(NamedTuple):
    """A model with a run's weights.

    Args:
        backend: That it is built for.
        model: The backend's module.
        takes: What it takes.
        which: Of the run's weights.
    """

    backend: Backend
    model: Module
    takes: ModelInput
    which: Which

    def answer(self, images: Float32) -> Floats:
        """Compute the answers to images, float32 (N, C, H, W): logits of classes, shape (N, classes), or values.

        Raises:
            SpecError: The forward pass raises, or its answer has the wrong shape.
            CheckpointError: The answer holds NaN or infinity.
        """
        try:
            logits = self.backend.answer(self.model, images, self.takes.label_classes)
        except LayeredLRError:
            raise
        except Exception as error:  # whatever the user's forward pass raises
            raise SpecError(
                f"model: its forward pass does not take images of shape {images.shape}: {describe_error(error)}"
            ) from error
        if not np.isfinite(logits).all():
            raise CheckpointError("the model answers with NaN or infinity: its weights are broken, or the images are.")
        return logits

    def measure_loss(self, loss: FunctionLoss, outputs: Floats, targets: Int64 | Float64) -> float:
        """Compute a user's own loss of all images.

        Args:
            loss: The user's.
            outputs: Of the model, shape (N, outputs).
            targets: Class numbers, shape (N,); or the share of each class, shape (N, classes).

        Raises:
            SpecError: It raises, or returns something else than a number.
            Unsupported: The backend cannot compute it.
        """
        shape, classes = (2, *self.takes.image_shape), self.takes.label_classes
        prepared = self.backend.prepare_loss(loss, self.model, shape, classes, has_shares=targets.ndim == 2)
        return self.backend.measure_loss(prepared, outputs, targets)


def pick_weights(trained: Trained, which: Which | None) -> tuple[Which, Weights]:
    """Pick weights of a run: its moving average where it has one, else those after the last update.

    Args:
        trained: The run.
        which: Instead of that.

    Raises:
        SpecError: It is no such word, or the run has no moving average.
        CheckpointError: The run has no weights.
    """
    if which not in (None, "average", "last"):
        raise SpecError(f"weights={shown(which)}: must be 'average', 'last', or None for the average if there is one.")
    if which == "average" and not trained.ema_weights:
        raise SpecError("weights='average': the run kept no moving average (ema_decay). Give weights='last'.")
    found: Which = which or ("average" if trained.ema_weights else "last")
    weights = trained.ema_weights if found == "average" else trained.weights
    if not weights:
        raise CheckpointError("the run has no weights: it was stopped before it wrote any. Train it first.")
    return found, weights


def find_input(trained: Trained) -> ModelInput:
    """Find what a run's model takes: it is written down, or, in files of older versions, follows from the data.

    Raises:
        CheckpointError: An older version did not write it down, and the data cannot be told either.
    """
    if trained.model_input is not None:
        return trained.model_input
    dataset = load_own_data(trained)
    chosen = choose_model(_options_of_model(trained, trained.backend, None), dataset.facts, loads=False)
    return describe_input(dataset, chosen.image_shape, chosen.image_size, chosen.normalisation)


def load_own_data(trained: Trained) -> Dataset:
    """Load the data that a run was trained on; nothing is downloaded to a place that a file names.

    Raises:
        SpecError: The run's data cannot be written down, or are not there.
        DataError: They are damaged.
    """
    data, root = trained.options.get("data"), trained.options.get("data_root")
    if data is None:
        raise SpecError(
            "data: the run was trained on arrays, which are not written down with it; give the data again: data=... "
            "(--data FILE)."
        )
    is_there = isinstance(root, str) and not needs_download(data, root)
    return load_dataset(data, root if is_there else None, trained.options.get("image_size"))


def open_model(
    trained: Trained,
    backend: str | None = None,
    which: Which | None = None,
    model: str | Callable[[], Any] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
) -> Answerer:
    """Build a run's model again, with its weights.

    Args:
        trained: The run.
        backend: The name of the backend that is to answer; None is the run's own.
        which: Of the run's weights.
        model: What builds the model, where that is not written down.
        device: Where to compute.
        batch_size: Of the images to come, where it is known.

    Raises:
        SpecError: An argument is wrong, the model is not known, or a file names code that nobody trusts.
        CheckpointError: The weights are not those of the model.
        BackendUnavailable: The backend does not work here.
        Unsupported: The backend cannot compute what the model does.
    """
    found, weights = pick_weights(trained, which)
    name = trained.backend if backend is None else backend
    check_name(name)
    options, takes = _options_of_model(trained, name, model, device), find_input(trained)
    classes = 0 if takes.targets == "values" else takes.num_classes
    facts = DatasetFacts(takes.train_size, takes.test_size, classes, takes.data_shape, takes.target_facts)
    chosen = choose_model(options, facts, loads=False)
    opened = load_backend(name, options.device)
    shape = (batch_size or 1, *takes.image_shape)
    built = opened.build(
        chosen.source, chosen.num_classes, chosen.dropout, options.seed, options.precision.dtype, shape
    )
    _load(opened, built, weights, trained.unsaved)
    return Answerer(opened, built, takes, found)


def _options_of_model(
    trained: Trained, backend: str, model: str | Callable[[], Any] | None, device: str = "auto"
) -> RunOptions:
    known: Mapping[str, Any] = trained.options
    given: dict[str, Any] = {name: known[name] for name in _OF_MODELS if name in known}
    if model is not None:
        given["model"] = model
    elif trained.make_model is not None:
        given["model"] = trained.make_model
    elif "model" not in given:
        raise SpecError(
            "model: the run was trained with a callable that cannot be written down; give it again: model=make_model "
            "(on the command line --model package.module:callable)."
        )
    size = trained.model_input.image_size if trained.model_input is not None else known.get("image_size")
    return RunOptions(backend=backend, device=device, image_size=size, progress=False, **given)


def _load(backend: Backend, model: Module, weights: Weights, unsaved: Arrays) -> None:
    if differences := find_differences(weights, backend.state(model)):
        raise CheckpointError(
            f"the run's weights do not fit the model that is built now: {summarise(differences)}. Give the model that "
            "the run was trained with: model=..."
        )
    backend.load(model, weights)
    try:
        if unsaved:
            backend.load_unsaved(model, unsaved)
    except Exception as error:  # a file may hold anything under such a name
        raise CheckpointError(
            f"what the run's state_dict() leaves out does not fit the model: {describe_error(error)}. Give the model "
            "that the run was trained with: model=..."
        ) from None
