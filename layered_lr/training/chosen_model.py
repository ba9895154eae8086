"""Which model a run trains, from its options and its data: what builds it, and what its images are to be like."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from layered_lr.arrays import Array, Float32, Weights
from layered_lr.console import say
from layered_lr.data.dataset import DatasetFacts
from layered_lr.errors import SpecError
from layered_lr.models import catalogue
from layered_lr.models.answering_layer import find_head
from layered_lr.models.initialise import check_methods
from layered_lr.models.matching import nothing_left
from layered_lr.models.parameter import Parameter
from layered_lr.models.patterns import compile_pattern
from layered_lr.models.pretrained import Pretrained, Transform, fit_pretrained
from layered_lr.models.users_callable import UsersCallable
from layered_lr.models.weight_files import names_weight_file, read_weights
from layered_lr.models.zoo import TIMM, is_catalogued, open_zoo
from layered_lr.spelling import did_you_mean
from layered_lr.tools import is_installed
from layered_lr.training.options import RunOptions


class ChosenModel(NamedTuple):
    """A model that is to be trained.

    Args:
        source: What ``Backend.build`` takes.
        num_classes: Of the data.
        dropout: In the head of a model of the catalogue.
        image_shape: (channels, height, width) of the images as the model gets them.
        image_size: What the images are resized to; None leaves them.
        pretrained: Weights to begin with; None where none are asked for.
    """

    source: str | Callable[[], Any]
    num_classes: int
    dropout: float
    image_shape: tuple[int, int, int]
    image_size: int | None
    pretrained: Pretrained | None

    @property
    def normalisation(self) -> tuple[Float32, Float32] | None:
        """Mean and standard deviation of each channel that go with pretrained weights."""
        if self.pretrained is None or self.pretrained.transform is None:
            return None
        transform = self.pretrained.transform
        return np.array(transform.mean, np.float32), np.array(transform.std, np.float32)

    def list_parameters(self) -> list[Parameter] | None:
        """List names and shapes before the model is built; None where only building it tells.

        Raises:
            SpecError: Pretrained weights that have been read are those of another model.
        """
        if isinstance(self.source, str):
            if self.pretrained is not None:
                self.first_weights(0, dict)
            return catalogue.list_parameters(self.source, self.num_classes)
        listed: Callable[[], list[Parameter]] | None = getattr(self.source, "list_parameters", None)
        return None if listed is None else listed()

    def say_what_is_taken_over(self, is_uint8: bool) -> None:
        """Say what pretrained weights change about the images.

        Args:
            is_uint8: Whether the data's images are normalised here.
        """
        if self.pretrained is None or self.pretrained.arrays is None:
            return
        _, height, width = self.image_shape
        name, transform = self.pretrained.name, self.pretrained.transform
        if transform is None:
            how = "normalised by their own mean" if is_uint8 else "taken as they are"
            say(f"pretrained: {name} does not say how its images were; yours are {how}.")
        else:
            mean, std = (", ".join(f"{number:g}" for number in each) for each in (transform.mean, transform.std))
            how = f"mean {mean}, deviation {std}" if is_uint8 else "as they are: floats are taken as normalised already"
            usual = "" if transform.size == height == width else f" (these weights' own size is {transform.size})"
            say(f"pretrained: {name}: images of {height}x{width}{usual}, {how}.")

    def first_weights(self, seed: int, read_made: Callable[[], Weights]) -> FirstWeights:
        """The state that the model begins with, before other weights are given: drawn, pretrained, or as it was made.

        Args:
            seed: Of the run.
            read_made: Reads the state of the model as it was made.
        """
        if not isinstance(self.source, str):
            return FirstWeights(dict(read_made()), getattr(self.source, "new", None))
        drawn = catalogue.draw_initial_weights(self.source, self.num_classes, seed)
        if self.pretrained is None or self.pretrained.arrays is None:
            return FirstWeights(drawn, None)
        parameters = catalogue.list_parameters(self.source, self.num_classes)
        names = {parameter.name for parameter in parameters}
        head = find_head(parameters)
        fitted = fit_pretrained(
            self.pretrained.name, self.pretrained.arrays, drawn, names, [] if head is None else [head]
        )
        given = {name: array.astype(drawn[name].dtype) for name, array in fitted.arrays.items()}
        return FirstWeights({**drawn, **given}, fitted.new)


class FirstWeights(NamedTuple):
    """The state that a model begins with.

    Args:
        arrays: Every parameter and buffer.
        new: Names of the parameters that pretrained weights do not give; None where there are none.
    """

    arrays: dict[str, Array]
    new: tuple[str, ...] | None


def choose_model(
    options: RunOptions, facts: DatasetFacts, *, loads: bool = True, loads_files: bool = False
) -> ChosenModel:
    """Find what a run trains.

    Args:
        options: Of the run.
        facts: Of its data.
        loads: Whether pretrained weights are read; a run that goes on has its own.
        loads_files: Whether those of a file are read all the same; nothing is downloaded for it.

    Raises:
        SpecError: No such model, or an option that does not fit it.
        DataError: A file of weights is missing, damaged, or cannot be downloaded.
        BackendUnavailable: The model needs a library that is not installed.
    """
    model, name = options.model, options.model if isinstance(options.model, str) else None
    zoo = None
    if name is not None and not is_catalogued(name):
        zoo = open_zoo(name, options.backend)
        zoo.check_name(name)
    pretrained = None
    if options.pretrained:
        if name is None:
            raise SpecError(
                f"pretrained={options.pretrained!r}: is for models known by name. Give a callable's model its weights "
                "by initial_weights."
            )
        reads = loads or (loads_files and is_file(name, options.pretrained))
        pretrained = _read_pretrained(name, options, reads)
    size = options.image_size
    if size is None and pretrained is not None and pretrained.transform is not None:
        size = pretrained.transform.size
    channels = facts.image_shape[0]
    shape = facts.image_shape if size is None else (channels, size, size)
    if pretrained is not None and pretrained.transform is not None and channels != len(pretrained.transform.mean):
        raise SpecError(
            f"pretrained={options.pretrained!r}: wants images of {len(pretrained.transform.mean)} channels, but the "
            f"data has {channels}."
        )
    dropout = 0.0
    if zoo is not None:
        model = zoo.ZooModel(name, facts.outputs, shape, options.head or "auto", options.dropout, pretrained)
    elif name is not None:
        _check_catalogued_head(name, options.head, facts.outputs)
        dropout = _catalogued_dropout(name, options.dropout)
    else:
        model = UsersCallable(model, facts.outputs, shape, options.head, facts.has_classes)
    return ChosenModel(model, facts.outputs, dropout, shape, size, pretrained)


def check_beside_plan(options: RunOptions, facts: DatasetFacts, parameters: Sequence[Parameter]) -> None:
    """Refuse what a run's options say of a model and a plan does not show: dropout and methods of initialisation.

    Args:
        options: Of the run.
        facts: Of its data.
        parameters: Of the plan.

    Raises:
        SpecError: There is no such dropout, or no such weight.
    """
    if options.dropout is not None:
        choose_model(options, facts, loads=False).list_parameters()
    if options.initialise is not None:
        check_methods(options.initialise, parameters)


def _read_pretrained(name: str, options: RunOptions, loads: bool) -> Pretrained:
    """Find weights by their name or path, and read them.

    Args:
        name: Of the model.
        options: Of the run.
        loads: Whether the arrays are read.
    """
    chosen = options.pretrained
    if is_file(name, chosen):
        path = str(chosen)
        has_zoo = name.startswith(TIMM) or is_installed("torch")
        transform = open_zoo(name).find_file_transform(name, path) if has_zoo else None
        called = Path(path).name + (f" ({transform.name})" if transform else "")
        return Pretrained(called, read_weights(path, "pretrained") if loads else None, transform)
    word = "DEFAULT" if chosen is True else str(chosen)
    zoo = open_zoo(name, options.backend, f"pretrained={chosen!r}")
    named: Transform = zoo.find_transform(name, word)
    return Pretrained(named.name, zoo.read_named(name, word, options.progress) if loads else None, named)


def is_file(name: str, chosen: str | bool) -> bool:
    """Whether ``pretrained`` is the path of a file: it looks like one, or there is one and no weights are called so.

    Args:
        name: Of the model.
        chosen: The option.
    """
    if isinstance(chosen, bool):
        return False
    if names_weight_file(chosen) or Path(chosen).name != chosen:
        return True
    if not Path(chosen).exists():
        return False
    if not (name.startswith(TIMM) or is_installed("torch")):
        return chosen != "DEFAULT"
    return not open_zoo(name).has_weights(name, chosen)


def _check_catalogued_head(name: str, head: str | None, num_classes: int) -> None:
    parameters = catalogue.list_parameters(name, num_classes)
    own = find_head(parameters)
    if head not in (None, "auto", own):
        raise SpecError(
            f"head={head!r}: the head of model {name!r} is {own!r}."
            f"{did_you_mean(str(head), [own or ''])} Give 'auto', or leave it out."
        )


def _catalogued_dropout(name: str, chosen: float | Mapping[str, float] | None) -> float:
    """The probability of the one dropout of a model of the catalogue."""
    path, own = catalogue.MODELS[name].dropout
    if chosen is None:
        return own
    if not isinstance(chosen, Mapping):
        return chosen
    for pattern, value in chosen.items():
        if not compile_pattern(pattern, {path, path.partition(".")[0]})(path):
            raise SpecError(
                f"dropout={{{pattern!r}: {value:g}}}: matches none of the model's dropouts. Its dropouts are {path}."
            )
        if pattern != next(iter(chosen)):
            raise nothing_left("dropout", pattern, value)
    return next(iter(chosen.values()))
