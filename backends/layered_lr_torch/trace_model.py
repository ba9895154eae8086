"""Traces a torch model into ``layered_lr.models.graph``: several forward passes on tensors without numbers, merged.

The model runs once for each of three batch sizes in each mode. What differs between the three is a size that depends on
the batch, and becomes a ``BatchSized``; ``trace_batches`` says what happens where more differs, and for other sizes.
"""

from __future__ import annotations

import copy
import functools
import logging
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensorMode

from layered_lr.errors import LayeredLRError, SpecError, Unsupported
from layered_lr.files import describe_error
from layered_lr.models.graph import (
    Argument,
    HeldModule,
    HeldTensor,
    Input,
    InputFacts,
    ModelGraph,
    Program,
    Structure,
    Write,
)
from layered_lr.models.nn_modules import list_modules, parameters_of, type_names
from layered_lr.models.one_number import refuse_one_number
from layered_lr.models.own_depths import describe_parameters
from layered_lr.models.trial import LEAST_BATCH, count_images
from layered_lr.models.user_models import find_single_dtype
from layered_lr_torch import models
from layered_lr_torch.callers import line_of
from layered_lr_torch.losses import LossModule
from layered_lr_torch.torch_types import Module, Tensor
from layered_lr_torch.trace_attributes import Counts, Watch, move_numbers
from layered_lr_torch.trace_batches import BatchTracer
from layered_lr_torch.trace_checks import check_derivatives, check_held, check_program
from layered_lr_torch.trace_contents import Contents
from layered_lr_torch.trace_example import answer, copy_buffers, draw_inputs, try_training
from layered_lr_torch.trace_generators import Generators, refuse_seeds
from layered_lr_torch.trace_memory import (
    KEEP_IN_BUFFER,
    Photograph,
    compare_passes,
    put_back,
    refuse_change,
    refuse_counter,
    refuse_memory,
)
from layered_lr_torch.trace_merging import Recording, find_mode_bound, let_modes_follow
from layered_lr_torch.trace_modes import check_switches, set_mode
from layered_lr_torch.trace_parts import Parts
from layered_lr_torch.trace_recorder import Recorder, dtype_name, find_source
from layered_lr_torch.trace_refusals import refuse_gradient_hooks, watch_what_is_hidden
from layered_lr_torch.trace_storage import Region, list_regions, refuse_shared_parameters, refuse_shared_writes

P = ParamSpec("P")
R = TypeVar("R")

_TRACING: Final = threading.RLock()
_ONE_NUMBER: Final = re.compile(r"Expected more than 1 value per channel when training, got input size .*\[(.*)\]")
"""What torch says where a batch normalisation trains on one number of each channel."""

_NO_MEMORY_IN_A_LOSS: Final = (
    "Let the loss depend on its arguments alone: keep what changes in a buffer of the model, which can answer with it "
    "too, or train on a torch backend."
)


def copy_to_cpu(model: Module) -> Module:
    """Return the model, or a copy of it on the CPU if any of it is elsewhere.

    Raises:
        SpecError: Its tensors cannot train, or have no numbers.
    """
    models.check_tensors(model)
    if all(tensor.device.type == "cpu" for tensor in (*model.parameters(), *model.buffers())):
        return model
    refuse_shared_parameters(model)
    return copy.deepcopy(model).cpu()


def prepare_traced(made: Module, dtype: str) -> Module:
    """Bring a model that the user's callable has made to where and what it is traced in, as a torch backend would.

    Args:
        made: The model.
        dtype: Of parameters and floating-point buffers.

    Raises:
        SpecError: It was made where it cannot train, or has shapes that are not known yet.
        Unsupported: A parameter has a dtype in which OneFlow cannot train.
    """
    models.check_made(made)
    parameters_of(made)
    refuse_shared_parameters(made)
    return models.cast(made, torch.device("cpu"), getattr(torch, find_single_dtype(made, dtype)))


def _alone(function: Callable[P, R]) -> Callable[P, R]:
    """Let one thread at a time trace: meanwhile the model holds tensors without numbers."""

    @functools.wraps(function)
    def traced_alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with _TRACING:
            return function(*args, **kwargs)

    return traced_alone


def make_retrace(model: Module) -> Callable[[tuple[InputFacts, ...], int], ModelGraph]:
    """Make a function that traces a model for inputs of any shape, and a number of images.

    Args:
        model: Is kept, and traced as it is when the function is called.
    """

    def retrace(inputs: tuple[InputFacts, ...], images: int) -> ModelGraph:
        example = tuple(np.zeros((images, *facts.shape), facts.dtype) for facts in inputs)
        return trace_model(model, example)

    return retrace


def trace_loss(
    function: Callable[[Tensor, Tensor], Tensor], outputs: NDArray[Any], targets: NDArray[Any]
) -> ModelGraph:
    """Trace a loss as a model of two inputs; see ``trace_model``.

    Args:
        function: Takes the outputs and the targets.
        outputs: An example, in the dtype to compute in.
        targets: An example.

    Raises:
        SpecError: It fails on such an example.
        Unsupported: It cannot be translated; or it gives another number for the same example the second time, or where
            no gradients are computed: a trace would keep the number of the first time.
    """
    module = LossModule(function, getattr(torch, str(outputs.dtype)))
    given = torch.from_numpy(outputs), torch.from_numpy(targets)
    shares = torch.linspace(0.25, 1, len(outputs), dtype=given[0].dtype)
    others = given[0] * shares.reshape(-1, *(1 for _ in outputs.shape[1:]))  # within 0 and 1 where the outputs are
    try:
        with put_back(module), torch.no_grad():
            first, _, second = module(*given), module(others, given[1]), module(*given)
    except Exception:  # the trace says what it raises, and where
        first = second = None
    if isinstance(first, torch.Tensor) and not _have_same_numbers(first, second):
        raise Unsupported(
            "model: gives another number for the same outputs and targets the second time. OneFlow computes what was "
            f"seen once. {_NO_MEMORY_IN_A_LOSS}"
        )
    try:
        graph = trace_model(module, (outputs, targets))
    except Unsupported as error:  # a loss may change no buffer either
        raise Unsupported(str(error).replace(KEEP_IN_BUFFER, _NO_MEMORY_IN_A_LOSS)) from error
    _check_both_modes(graph)

    def resize(images: int, mode: bool) -> ModelGraph | None:
        made = None if graph.resize is None else graph.resize(images, mode)
        if made is not None:
            _check_both_modes(made)
        return made

    return replace(graph, resize=resize)


def _check_both_modes(graph: ModelGraph) -> None:
    """Refuse a loss that is another one in evaluation, where no gradient is computed."""
    training, evaluation = (
        repr(([node._replace(follows_mode=False) for node in program.nodes], program.output))
        for program in (graph.training, graph.evaluation)
    )
    if training != evaluation:
        raise Unsupported(
            "model: computes something else where its outputs have no gradient. OneFlow computes one thing for both. "
            "Let it not ask for requires_grad, or train on a torch backend."
        )


def _have_same_numbers(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are equal; NaN equals NaN, as the mean over no images at all is."""
    return one.shape == other.shape and bool(((one == other) | ((one != one) & (other != other))).all())


@_alone
@torch.inference_mode(False)  # in which no tensor would say that it was changed
def trace_model(model: Module, example: Sequence[NDArray[Any]]) -> ModelGraph:
    """Trace a model; it and its weights stay as they are.

    Args:
        model: On the CPU.
        example: Its inputs. Only their shapes and dtypes count, and the first axis of each is the batch's. None of them
            leaves the forward passes out.

    Raises:
        SpecError: The model fails on such inputs.
        Unsupported: The model does what cannot be translated.
    """
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) or "_orig_mod" in module._modules:
            raise Unsupported(
                f"model: module {path or type(module).__name__!r} is compiled by torch, so what it does cannot be "
                "seen, and it cannot be translated. Give the module that it was made of."
            )
    refuse_gradient_hooks(model)
    refuse_shared_parameters(model)
    check_switches(model)
    images = max((len(array) for array in example), default=0)  # the first axis of each is the same batch's
    inputs = tuple(InputFacts(array.shape[1:], str(array.dtype)) for array in example)
    check_held(_list_tensors(model), inputs)
    if not example:
        programs = {mode: Program((), None) for mode in (True, False)}
        return ModelGraph(inputs=(), training=programs[True], evaluation=programs[False], **_list_facts(model))
    choices = (images,) if images >= LEAST_BATCH else (LEAST_BATCH, images)
    arrays = [array if len(array) == images else np.resize(array, (images, *array.shape[1:])) for array in example]
    passes = _Passes(model, arrays)
    few = dict.fromkeys((True, False), LEAST_BATCH)
    if not isinstance(model, LossModule):
        few[True] = max(count_images(array.shape[1:]) for array in example)
    tracer = BatchTracer(passes.record, choices, few)
    for mode in (True, False):
        tracer.trace(mode)
    sizes = {mode: tracer.list_trial_sizes(mode) for mode in (True, False)}

    @_alone
    @torch.inference_mode(False)
    def resize(images: int, mode: bool) -> ModelGraph | None:
        tracer.forget()
        try:
            if tracer.holds(mode, images):
                return None
        except LayeredLRError:
            tracer.check_unchanged(mode, images)
            raise
        tracer.check_unchanged(mode, images)
        constants = dict(tracer.constants)
        programs = {mode: tracer.make_for(mode, images, constants), not mode: tracer.programs[not mode]}
        try:
            if not tracer.holds(not mode, images):
                programs[not mode] = tracer.make_for(not mode, images, constants)
        except LayeredLRError:  # in that mode there can be no such batch
            pass
        return _make_graph(passes, programs, constants, {mode: [images]})

    graph = _make_graph(passes, tracer.programs, tracer.constants, sizes)
    passes.is_example = False
    return replace(graph, resize=resize)


def _make_graph(
    passes: _Passes,
    programs: Mapping[bool, Program],
    constants: dict[str, NDArray[Any]],
    sizes: Mapping[bool, list[int]],
) -> ModelGraph:
    """Make a graph of both programs of a model, with what torch gives in those modes that are to be tried.

    Args:
        passes: Of the model.
        programs: By mode.
        constants: Of both.
        sizes: How many images to try a mode with that is to be used; a later number if the model does not take it.
    """
    model, example, facts = passes.model, passes.example, _list_facts(passes.model)
    refuse_shared_writes(model, list(programs.values()), passes.read)
    training, evaluation = let_modes_follow(programs[True], programs[False])
    for program in (training, evaluation):
        check_program(program, {tensor.name: tensor for tensor in facts["tensors"]}, constants)
    drawn, answers, buffers = (
        answer(model, example, evaluation, sizes[False])
        if False in sizes
        else (draw_inputs(example, sizes[True][0]), (), {})
    )
    return ModelGraph(
        inputs=tuple(InputFacts(array.shape[1:], str(array.dtype)) for array in example),
        training=training,
        evaluation=evaluation,
        constants=constants,
        mode_bound=find_mode_bound(training, evaluation),
        example=(drawn, answers),
        example_buffers={write.name: buffers[write.name] for write in evaluation.writes if buffers},
        trial=try_training(model, example, sizes[True]) if True in sizes else None,
        modes=tuple(mode for mode in (False, True) if mode in sizes),
        **facts,
    )


def _list_facts(model: Module) -> dict[str, Any]:
    return {
        "tensors": tuple(_list_tensors(model)),
        "modules": tuple(_list_modules(model)),
        "state": {**models.copy_state(model), **models.copy_buffers(model)},
    }


class _Passes:
    """The forward passes of a model that are recorded.

    Args:
        model: Is kept.
        example: Its inputs.

    Attributes:
        is_example: Whether the batch is the example's, and not one that came later.
        read: Regions of buffers that a pass read through other tensors.
    """

    def __init__(self, model: Module, example: Sequence[NDArray[Any]]) -> None:
        self.model, self.example, self.is_example = model, example, True
        self.read: set[Region] = set()
        self._moving: set[tuple[str, Any]] = set()

    def record(self, mode: bool, images: int, compares: bool) -> Recording:
        """Record a pass; see ``BatchTracer``.

        Raises:
            SpecError: The model fails on such a batch.
            DataError: Only because one number has no variance.
            Unsupported: The model does what cannot be translated.
        """
        inputs = [np.zeros((images, *array.shape[1:]), array.dtype) for array in self.example]
        try:
            made = _trace_once(self.model, mode, inputs, compares, self._moving)
        except _Fails as fails:
            shape = None if self.is_example else _ONE_NUMBER.search(str(fails.__cause__))
            if shape is not None:
                raise refuse_one_number([int(size) for size in shape[1].split(",")]) from fails.__cause__
            raise _explain_failure(str(fails), self.model, mode, inputs, self.is_example) from fails.__cause__
        self.read |= made.shared_regions
        return Recording(made.nodes, made.output, made.writes, made.constants)


def _trace_once(
    model: Module,
    mode: bool,
    example: Sequence[NDArray[Any]],
    compares: bool,
    moving: set[tuple[str, Any]],
    shared: frozenset[str] = frozenset(),
) -> Recorder:
    """Record one pass; more of them where it leaves something behind that is no parameter and no buffer.

    Args:
        model: In whatever mode.
        mode: Whether it is to train.
        example: Its inputs.
        compares: Whether to look for what it leaves behind.
        moving: Plain attributes and variables that each pass changes, in either mode; gets those that are found here.
        shared: Running statistics that the pass uses more than once.

    Raises:
        Unsupported: A later pass does something else than the first, so that one of them cannot stand for all.
    """
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with put_back(model):
        set_mode(model, mode)
        before, regions = Photograph(model), list_regions(model)
        contents = [Contents(model)] if compares else []
        held, names = swap_tensors(model, fakes)
        swapped = [(module, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
        recorder = _record_pass(
            model, Recorder(fakes, held, None, shared, regions), names, _make_inputs(fakes, model, example)
        )

        def compare_with_next(with_same_weights: bool, watch: Watch | None = None) -> None:
            for module, parameters, buffers in swapped:
                module._parameters, module._buffers = parameters, buffers
            again = Recorder(fakes, held, recorder, shared, regions)
            if watch is not None:
                again.watch_tensors(watch)
            try:
                _record_pass(model, again, names, _make_inputs(fakes, model, example))
            except (LayeredLRError, _Fails) as error:
                raise refuse_memory(None) from error
            compare_passes(model, recorder, again, with_same_weights)

        contents += [Contents(model)] if compares else []
        if compares and (
            moving or recorder.promoted or Photograph(model) != before or contents[0].find_changed(contents[1])
        ):
            counts = Counts(model)
            compare_with_next(with_same_weights=not mode)
            moving |= counts.find_changed(Counts(model))
            if (path := contents[1].find_changed(Contents(model))) is not None:
                raise refuse_change(path)
            if moving:
                watch = Watch(model, moving)
                compare_with_next(not mode, watch)
                if watch.read is not None:
                    raise refuse_counter(watch.read)
                if move_numbers(model, moving):
                    compare_with_next(not mode)
            if not mode:  # what evaluation keeps of the weights, train() has to drop: they are others afterwards
                model.train()
                model.eval()
                compare_with_next(with_same_weights=False)
    found = frozenset() if shared else recorder.find_shared_statistics()
    return _trace_once(model, mode, example, compares, moving, found) if found else recorder


def _make_inputs(fakes: FakeTensorMode, model: Module, example: Sequence[NDArray[Any]]) -> list[Tensor]:
    with fakes:
        made = [torch.empty(array.shape, dtype=getattr(torch, str(array.dtype))) for array in example]
        if isinstance(model, LossModule) and model.training:
            made[0] = made[0].requires_grad_().clone()  # as what a model answers, it may be changed in place
        return made


def _record_pass(model: Module, recorder: Recorder, names: dict[str, Tensor], inputs: Sequence[Tensor]) -> Recorder:
    """Run a model whose tensors are fake, in the mode that it is in, and record what it does."""
    for name, fake in names.items():
        recorder.hold(fake, name)
    for place, fake in enumerate(inputs):
        recorder.know(fake, Input(place))
    draws, parts = Generators(model), Parts(model)
    handles = list(_follow_modules(model, recorder, draws))
    try:
        with quiet(), refuse_seeds(), watch_what_is_hidden(recorder), recorder, torch.enable_grad():
            output = model(*inputs)
        draws.check("")
        recorder.raise_again()
        parts.check(model)
    except LayeredLRError:
        raise
    except Exception as error:  # whatever the user's code, or torch on tensors without numbers, raises
        raise _explain(recorder, error) from error
    finally:
        for handle in handles:
            handle.remove()
    recorder.output = _structure(recorder, output)
    if model.training:
        check_derivatives(recorder.nodes, recorder.output, recorder.without_derivative)
    recorder.writes = tuple(_list_writes(model, recorder, names))
    return recorder


class _Fails(Exception):
    """A forward pass on tensors without numbers has raised what nobody expects."""


def _explain(recorder: Recorder, error: Exception) -> Exception:
    """Say why a forward pass on tensors without numbers failed."""
    kind = type(error).__name__
    if "DataDependent" in kind or "DynamicOutputShape" in kind or "GuardOnDataDependent" in kind:
        if _was_in(error, "torch/nn/modules/batchnorm.py"):
            return recorder.refuse(
                "has a batch normalisation with momentum=None, which weighs by the count of batches",
                "Give it a momentum, such as 0.1, or train on a torch backend.",
                (line_of(error) or find_source()),
            )
        return recorder.refuse(
            "lets a branch, a shape or a number depend on what is in a tensor",
            "Use torch.where, or train on a torch backend.",
            (line_of(error) or find_source()),
        )
    if _was_in(error, "torch/_dynamo/convert_frame.py"):
        return recorder.refuse(
            "calls a function that torch.compile has made, whose inside this version of torch does not show",
            "Call the function itself, or train on a torch backend.",
            line_of(error) or find_source(),
        )
    if "TorchScript" in str(error):
        return recorder.refuse(
            "calls a function that torch.jit has compiled, whose inside torch does not show",
            "Call the function as it was written, or train on a torch backend.",
            line_of(error) or find_source(),
        )
    return _Fails(f"in {recorder.describe_place(line_of(error) or find_source())}: {describe_error(error).rstrip('.')}")


def _explain_failure(
    said: str, model: Module, mode: bool, example: Sequence[NDArray[Any]], is_example: bool
) -> LayeredLRError:
    """Say whether the model itself fails, or only cannot be followed: it is run on zeros."""
    inputs = [torch.zeros(array.shape, dtype=getattr(torch, str(array.dtype))) for array in example]
    with put_back(model):
        set_mode(model, mode)
        copy_buffers(model)
        try:
            model(*inputs)
        except Exception:
            shapes = ", ".join(str(tuple(each.shape)) for each in inputs)
            mend = (
                "Give a model that takes such inputs."
                if is_example
                else "Give batches that the model takes; in a run, drop_last=True leaves out what is left over at the "
                "end of an epoch."
            )
            return SpecError(f"model: its forward pass fails on inputs of shape {shapes}, {said}. {mend}")
    return Unsupported(
        f"model: its forward pass cannot be followed, {said}. So it cannot be translated. Write it with other "
        "functions, or train on a torch backend."
    )


def _was_in(error: BaseException, file: str) -> bool:
    """Whether a function of a file was running when an error was raised."""
    frame = error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename.endswith(file):
            return True
        frame = frame.tb_next
    return False


def swap_tensors(model: Module, fakes: FakeTensorMode) -> tuple[dict[int, Tensor], dict[str, Tensor]]:
    """Put fake tensors in the place of parameters and buffers; returns them by the real one's id, and by name."""
    held: dict[int, Tensor] = {}
    names: dict[str, Tensor] = {}
    made: set[int] = set()
    for prefix, module in list_modules(model):
        for tensors in (module._parameters, module._buffers):
            for name, tensor in list(tensors.items()):
                if tensor is None or id(tensor) in made:  # a module with two names is met twice
                    continue
                if id(tensor) not in held:
                    held[id(tensor)] = names[prefix + name] = fakes.from_tensor(tensor)
                    made.add(id(held[id(tensor)]))
                tensors[name] = held[id(tensor)]
    return held, names


@contextmanager
def quiet() -> Iterator[None]:
    """Keep torch from logging an error that is raised and explained anyway."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def _follow_modules(model: Module, recorder: Recorder, draws: Generators) -> Iterator[Any]:
    """Let the recorder know whose forward pass runs."""
    for path, module in model.named_modules():
        if path:
            yield module.register_forward_pre_hook(_Enter(recorder, path), prepend=True)
            yield module.register_forward_hook(_Leave(recorder, path, draws), always_call=True)
        if isinstance(module, torch.nn.TransformerEncoder) and getattr(module, "use_nested_tensor", False):
            yield module.register_forward_pre_hook(_RefuseNested(recorder), with_kwargs=True)


class _RefuseNested:
    """Refuses padding masks of a ``TransformerEncoder`` that takes the padding out of its input, if it can.

    In evaluation torch then answers zeros there, but only where the mask hides the last places of each sequence alone.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def __call__(self, module: Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        given = dict(zip(("src", "mask", "src_key_padding_mask"), inputs, strict=False)) | named
        if given.get("src_key_padding_mask") is not None:
            raise self._recorder.refuse(
                "has a TransformerEncoder with a padding mask, whose answers in evaluation depend on the mask",
                "Make it with enable_nested_tensor=False, which trains the same, or train on a torch backend.",
            )


class _Enter:
    def __init__(self, recorder: Recorder, path: str) -> None:
        self._recorder, self._path = recorder, path

    def __call__(self, module: Module, inputs: object) -> None:
        self._recorder.paths.append(self._path)


class _Leave:
    def __init__(self, recorder: Recorder, path: str, draws: Generators) -> None:
        self._recorder, self._path, self._draws = recorder, path, draws

    def __call__(self, module: Module, inputs: object, output: object) -> None:
        fails = sys.exc_info()[1] is not None
        if fails and self._recorder.failed_in is None:
            self._recorder.failed_in = self._path
        self._recorder.paths.pop()
        if not fails:
            self._draws.check(self._path)


def _structure(recorder: Recorder, output: Any) -> Argument:
    """Bring what the model returned into the graph's form."""
    if isinstance(output, dict):
        if odd := [key for key in output if not isinstance(key, str)]:
            raise recorder.refuse(f"returns a dict with the key {odd[0]!r}", "Use names: a Graph takes no other keys.")
        keys = tuple(output)
        return Structure("dict", "", keys, tuple(_structure(recorder, part) for part in output.values()))
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        parts = tuple(_structure(recorder, part) for part in output)
        return Structure("namedtuple", type(output).__name__, tuple(output._fields), parts)
    if isinstance(output, tuple | list):
        parts = tuple(_structure(recorder, part) for part in output)
        return Structure("list" if isinstance(output, list) else "tuple", "", (), parts)
    if output is not None and not isinstance(output, torch.Tensor | bool | int | float | str):
        raise recorder.refuse(
            f"returns a {type(output).__name__}",
            "Return tensors: one, or several in a tuple, a list, a named tuple or a dict.",
        )
    return recorder.argument_of(output)


def _list_writes(model: Module, recorder: Recorder, names: dict[str, Tensor]) -> Iterator[Write]:
    """Find the buffers that the forward pass changed in place, or put others in the place of."""
    now = {prefix + name: tensor for prefix, module in list_modules(model) for name, tensor in module._buffers.items()}
    for name, fake in names.items():
        if name in now and now[name] is not fake and isinstance(now[name], torch.Tensor):
            _check_replacement(recorder, name, fake, now[name])
            yield Write(name, recorder.argument_of(now[name]), name.rpartition(".")[0], False)
        elif name in recorder.written:
            yield Write(name, recorder.argument_of(fake), recorder.written[name], False)


def _check_replacement(recorder: Recorder, name: str, buffer: Tensor, made: Tensor) -> None:
    """Refuse what a forward pass puts in the place of a buffer, if the buffer itself could not become that."""
    if made.shape != buffer.shape:
        raise recorder.refuse(
            f"gives buffer {name!r} another shape, {tuple(made.shape)} for {tuple(buffer.shape)}",
            "Make it with that shape, or run the model once where it is made.",
        )
    if made.dtype != buffer.dtype:
        raise recorder.refuse(
            f"gives buffer {name!r} another dtype, {dtype_name(made.dtype)} for {dtype_name(buffer.dtype)}",
            "Make it with that dtype, or convert what it gets.",
        )
    other = recorder.find_holder(made)
    if other not in (None, name):
        raise recorder.refuse(
            f"puts into buffer {name!r} the memory of {other!r}, so that later changes of one change both",
            "Give it a copy (clone).",
        )


def _list_tensors(model: Module) -> Iterator[HeldTensor]:
    first: dict[int, str] = {}
    depths = {parameter.name: parameter.depth for parameter in describe_parameters(model)}
    for prefix, module in list_modules(model):
        for name, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                continue
            alias = first.get(id(tensor))
            first.setdefault(id(tensor), prefix + name)
            is_parameter = module._parameters.get(name) is tensor
            yield HeldTensor(
                prefix + name,
                "parameter" if is_parameter else "buffer",
                tuple(tensor.shape),
                dtype_name(tensor.dtype),
                name not in module._non_persistent_buffers_set,
                is_parameter and bool(tensor.requires_grad),
                alias,
                depths.get(prefix + name),
            )


def _list_modules(model: Module) -> Iterator[HeldModule]:
    first: dict[int, str] = {}
    for prefix, module in list_modules(model):
        path = prefix.removesuffix(".")
        absent = tuple(
            name for name, tensor in (*module._parameters.items(), *module._buffers.items()) if tensor is None
        )
        first_path, types = first.get(id(module)), type_names(module)
        yield HeldModule(path, type(module).__name__, absent, first_path, module.training, types)
        first.setdefault(id(module), path)
