"""The forward passes of a translated model, by the shapes of its inputs, and where it has to be by their number."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from layered_lr.errors import LayeredLRError, SpecError, Unsupported
from layered_lr.models.graph import (
    Argument,
    BatchSized,
    Constant,
    InputFacts,
    ModelGraph,
    Program,
    Resize,
    Structure,
)
from layered_lr.models.nn_modules import dtype_of
from layered_lr_oneflow.oneflow_types import Module, Tensor
from layered_lr_oneflow.overwritten_buffers import list_written
from layered_lr_oneflow.random_places import RandomPlace
from layered_lr_oneflow.runtime import flow
from layered_lr_oneflow.translated_parts import list_parts
from layered_lr_oneflow.translated_program import CONSTANTS, RunnableProgram

Retrace: TypeAlias = Callable[[tuple[InputFacts, ...], int], ModelGraph]
"""Traces the model that this one was translated from, for inputs of another shape, and a number of images."""

_TRACING = threading.RLock()
"""Whoever looks for a program that is not there yet waits here until another thread has traced its own."""


class ForwardPasses:
    """What a translated model computes, by the shapes of its inputs, and where it has to be by their number.

    Args:
        try_graph: Tries a graph before it is used.
        retrace: Traces the model for inputs of another shape; None refuses them.

    Attributes:
        places: The model's random operators in training mode, in their order.
    """

    def __init__(self, try_graph: Callable[[ModelGraph], object], retrace: Retrace | None) -> None:
        self.places: list[RandomPlace] = []
        self._try, self._retrace = try_graph, retrace
        self._programs: dict[tuple[InputFacts, ...], _OfShape] = {}
        self._mode_bound: dict[str, list[Module]] = {}
        self._constant_keys: dict[bytes, str] = {}
        self._parts: dict[str, Module] = {}  # as they are outside of a graph too

    def find_norms_of_one_number(self) -> frozenset[str]:
        """Find the paths of the batch normalisations that cannot train on one image."""
        both = (program for of_shape in self._programs.values() for program in of_shape.programs.values())
        return frozenset().union(*(program.norms_of_one_number for program in both))

    def add(self, root: Module, graph: ModelGraph) -> None:
        """Take the forward passes of a graph, whose tensors and modules the model has already."""
        self._parts = list_parts(root)
        programs = {mode: self._make_program(graph, mode) for mode in (True, False)}
        self._programs[graph.inputs] = _OfShape(programs, graph.resize)
        self._mode_bound = self._find_parts(graph.mode_bound)

    def _find_parts(self, paths: Sequence[str]) -> dict[str, list[Module]]:
        return {path: [self._parts[path]] for path in paths if path in self._parts}

    def _make_program(self, graph: ModelGraph, mode: bool) -> RunnableProgram:
        keys = {key: self._add_constant(array) for key, array in graph.constants.items()}
        program = graph.training if mode else graph.evaluation
        places = _make_places(program, mode, self._parts)
        written = list_written(graph.training, graph.evaluation)
        made = RunnableProgram(_rename_constants(program, keys), self._parts, places, written)
        if mode and not self._programs:
            self.places = list(places.values())
        elif mode and graph.inputs not in self._programs:
            self._join_places(list(places.values()), graph.inputs)
        elif mode and program.only_images is not None:
            made.draws_apart = self._join_twins(list(places.values()), graph.inputs, program.only_images)
        return made

    def _join_places(self, places: list[RandomPlace], inputs: tuple[InputFacts, ...]) -> None:
        """Let the random operators of a program for another shape take the numbers of the first program's.

        Raises:
            Unsupported: They are not the same ones.
        """
        if [each.operator for each in places] != [each.operator for each in self.places]:
            raise Unsupported(
                f"model: for {_describe(inputs)} it draws other random numbers than for "
                f"{_describe_all(self._programs)}: the operators that draw are not the same. Train it on a torch "
                "backend, or on images of one size."
            )
        for first, place in zip(self.places, places, strict=True):
            first.at_shapes[inputs[0].shape] = place

    def _join_twins(self, places: list[RandomPlace], inputs: tuple[InputFacts, ...], images: int) -> bool:
        """Let the random operators of a program for one number of images take the others' numbers, if they are alike.

        Returns:
            Whether they are not: such a program draws its own numbers.
        """
        others = [place.at_shape(inputs[0].shape) for place in self.places]
        if len(places) != len(others) or not all(
            place.draws_like(other, images) for place, other in zip(places, others, strict=True)
        ):
            return True
        for place, other in zip(places, others, strict=True):
            other.add_twin(place)
        return False

    def find(self, root: Module, inputs: tuple[Tensor, ...], trains: bool) -> RunnableProgram:
        """Find the forward pass for inputs of some shapes; trace it, if it may.

        Args:
            root: The model.
            inputs: Of one number of images.
            trains: Whether the model is in training mode.

        Raises:
            SpecError: It was traced for inputs of another shape or dtype, or torch's model fails on such a batch.
            Unsupported: The model does what cannot be translated with such a batch.
        """
        facts = tuple(InputFacts(tuple(each.shape[1:]), dtype_of(each)) for each in inputs)
        images = int(inputs[0].shape[0])
        if facts not in self._programs:
            with _TRACING:
                self._trace_shape(root, facts, images)
        program = self._find_for(self._programs[facts], images, trains, inputs[0].is_global)
        if program.draws_apart and any(place.mask is not None for place in self.places):
            raise _refuse_other_draws(images)
        return program

    def knows(self, inputs: tuple[InputFacts, ...]) -> bool:
        """Whether there are programs for inputs of these shapes."""
        return inputs in self._programs

    def prepare(self, inputs: tuple[InputFacts, ...], images: int) -> None:
        """Make sure that a run can train with a number of images, of shapes for which there are programs.

        Raises:
            SpecError: torch's model fails on such a batch.
            Unsupported: The model does what cannot be translated with such a batch, or draws other random numbers.
        """
        if self._find_for(self._programs[inputs], images, trains=True).draws_apart:
            raise _refuse_other_draws(images)

    def _trace_shape(self, root: Module, facts: tuple[InputFacts, ...], images: int) -> None:
        """Trace the model for inputs of another shape."""
        if facts in self._programs:  # another thread was first
            return
        if self._retrace is None:
            raise SpecError(
                f"model: got a batch of {_describe(facts)}; it was translated for {_describe_all(self._programs)}. "
                f"{_say_how_to_convert(self._parts[''], facts)}Give such inputs, or translate it with an example "
                "of these."
            )
        _refuse_in_graph(_describe(facts))
        try:
            graph = self._retrace(facts, images)
        except SpecError as error:
            if mend := _say_how_to_convert(root, facts):
                raise SpecError(f"{error} {mend.rstrip()}") from error
            raise
        self._try(graph)
        self.add(root, graph)

    def _find_for(self, of_shape: _OfShape, images: int, trains: bool, is_joint: bool = False) -> RunnableProgram:
        """Find the forward pass for a number of images; trace the model for them, if that has to be known.

        Args:
            of_shape: Of images of this shape.
            images: Their number.
            trains: Whether the model is in training mode.
            is_joint: Whether several processes have them together.
        """
        if known := of_shape.find(images, trains):
            return known
        with _TRACING:
            return of_shape.find(images, trains) or self._trace_images(of_shape, images, trains, is_joint)

    def _trace_images(self, of_shape: _OfShape, images: int, trains: bool, is_joint: bool) -> RunnableProgram:
        """Find out whether the program holds for a number of images, and make another one if it does not."""
        assert of_shape.resize is not None
        program = of_shape.programs[trains]
        assert program.images is not None
        try:
            own = of_shape.resize(images, trains)
        except LayeredLRError as error:
            if images < program.least_images:
                raise program.refuse_few(images) from error
            raise
        if own is None:
            program.images.add(images)
            return program
        if is_joint:
            raise Unsupported(
                f"model: does other things with {images} images, which several processes have together, than with "
                f"those that it was translated for. Train it with backend 'oneflow-eager', or in one process."
            )
        with flow._oneflow_internal.lazy_mode.guard(False):  # also inside of a graph
            self._try(own)
            made = of_shape.own[images, trains] = self._make_program(own, trains)
            flow._oneflow_internal.eager.Sync()
        if own.training.only_images == own.evaluation.only_images:
            self._mode_bound |= self._find_parts(own.mode_bound)
        return made

    def check_modes(self, training: bool) -> None:
        """Refuse modules that are in another mode than the model, and do other things in that mode.

        Args:
            training: Whether the model is in training mode.

        Raises:
            Unsupported: There is one.
        """
        for path, (module,) in self._mode_bound.items():
            if bool(module.training) != training:
                raise Unsupported(
                    f"model: module {path!r} is in {_mode(module.training)} mode while the model is in "
                    f"{_mode(training)} mode, and does other things then than were traced. Bring both into one mode, "
                    "or train on a torch backend."
                )

    def _add_constant(self, array: Any) -> str:
        content = str(array.dtype).encode() + str(array.shape).encode() + array.tobytes()
        key = self._constant_keys.get(content)
        if key is None:
            key = self._constant_keys[content] = f"constant_{len(self._constant_keys)}"
            root = self._parts[""]
            device = next((str(tensor.device) for tensor in root.parameters()), "cpu")
            root._modules[CONSTANTS].register_buffer(key, flow.tensor(array, device=device), persistent=False)
        return key


@dataclass
class _OfShape:
    """The forward passes for inputs of some shapes.

    Args:
        programs: By whether the model trains.
        resize: See ``ModelGraph``.
        own: Of numbers of images for which ``programs`` do not hold.
    """

    programs: dict[bool, RunnableProgram]
    resize: Resize | None
    own: dict[tuple[int, bool], RunnableProgram] = field(default_factory=dict)

    def find(self, images: int, trains: bool) -> RunnableProgram | None:
        """Return the forward pass for a number of images; None where it is not known."""
        if own := self.own.get((images, trains)):
            return own
        program = self.programs[trains]
        holds = program.images is None or images in program.images or self.resize is None
        return program if holds else None


def _refuse_other_draws(images: int) -> Unsupported:
    return Unsupported(
        f"model: for a batch of {images} images it draws other random numbers than for other batches: the operators "
        "that draw are not the same. Train it on a torch backend, or in batches of one size (drop_last=True)."
    )


def _refuse_in_graph(what: str) -> None:
    """Refuse to trace the model inside of a graph, where no trial can run.

    Args:
        what: It would be traced for.

    Raises:
        SpecError: A graph is being built.
    """
    if flow._oneflow_internal.lazy_mode.is_enabled():
        raise SpecError(
            f"model: it would be traced for {what} only now, inside of a graph. Call it once before the graph is made, "
            "or translate it with an example."
        )


def _say_how_to_convert(root: Module, inputs: tuple[InputFacts, ...]) -> str:
    """Say what to do with an input of another floating-point dtype than the model's; nothing if there is none."""
    own = next((name for name in map(dtype_of, root.parameters()) if name.startswith("float")), None)
    odd = next((facts.dtype for facts in inputs if facts.dtype.startswith("float") and facts.dtype != own), None)
    return (
        "" if own is None or odd is None else f"The model is {own}: convert inputs of {odd} with .to(oneflow.{own}). "
    )


def _make_places(program: Program, mode: bool, modules: Mapping[str, Module]) -> dict[str, RandomPlace]:
    """Make a place for each operator of a program that may draw random numbers."""
    places = {}
    for node in program.nodes:
        if not node.may_draw:
            continue
        arguments = node.arguments
        shape = arguments["mask_shape"] if node.operator == "dropout" else arguments["shape"]
        p = float(arguments.get("p") or 0.0)
        module = modules[node.module] if node.follows_mode else None
        if shape and shape[0] == program.only_images:  # the first axis of what is drawn is the batch's
            shape = (BatchSized(1, 1, 0), *shape[1:])
        places[node.name] = RandomPlace(node.operator, shape, p, module)
    return places


def _rename_constants(program: Program, keys: Mapping[str, str]) -> Program:
    def rename(argument: Argument) -> Argument:
        if isinstance(argument, Constant):
            return Constant(keys[argument.key])
        if isinstance(argument, Structure):
            return argument._replace(parts=tuple(map(rename, argument.parts)))
        if isinstance(argument, Mapping):
            return {name: rename(value) for name, value in argument.items()}
        if type(argument) is tuple:
            return tuple(map(rename, argument))
        return argument

    nodes = tuple(node._replace(arguments=rename(node.arguments)) for node in program.nodes)
    writes = tuple(write._replace(value=rename(write.value)) for write in program.writes)
    return replace(program, nodes=nodes, output=rename(program.output), writes=writes)


def _describe(facts: Sequence[InputFacts]) -> str:
    return " and ".join(f"{each.dtype} of shape (n, {', '.join(map(str, each.shape))})" for each in facts)


def _describe_all(programs: Mapping[tuple[InputFacts, ...], object]) -> str:
    return ", or for ".join(_describe(facts) for facts in programs) or "no inputs yet"


def _mode(training: bool) -> str:
    return "training" if training else "evaluation"
