"""Writes down what a torch model computes: every operator of one forward pass, on tensors that have no numbers.

The model runs as it always does, so branches and loops over shapes need no help. Tensors that come from the inputs or
from parameters are torch's ``FakeTensor``, which have a shape and a dtype only. All others are real, and what is
computed from them alone is a constant. What depends on the numbers of a fake tensor cannot be followed, and is refused.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

from layered_lr.errors import Unsupported
from layered_lr.models.graph import Argument, Constant, Held, Node, Result, Write
from layered_lr.models.graph_operators import OPERATORS, UNARY
from layered_lr_torch import trace_composites, trace_names, trace_rules
from layered_lr_torch.callers import OWN_PACKAGES, is_called_by
from layered_lr_torch.function_copies import FunctionCopies
from layered_lr_torch.torch_types import Tensor
from layered_lr_torch.trace_attributes import Watch, Watched
from layered_lr_torch.trace_indices import find_start, plain_index
from layered_lr_torch.trace_layers import batch_norm
from layered_lr_torch.trace_refusals import HiddenNode, is_of_own_gradient, refuse_function
from layered_lr_torch.trace_shortcuts import find_result
from layered_lr_torch.trace_storage import Region, find_sharing

_EMPTY = ("empty", "new_empty", "empty_like")
_NUMBERS_OF_TENSORS = ("bool", "int", "float", "index", "contains", "equal", "allclose", "is_nonzero")
_FACTS_OF_TENSORS = ("get:shape", "get:dtype", "get:device", "get:ndim", "get:requires_grad", "size", "dim", "numel")
_BETWEEN = ("contextlib", "copy", "functools", "oneflow")  # call functions for others, whose line is of more use
_OF_FAKES = "torch._subclasses.fake_tensor"
_DROPOUTS = ("dropout", "feature_dropout")  # give their argument back in one of the modes
_DRAWS = ("rand", "rand_like")
_WHOLE = (torch._assert, *trace_composites.RECORDED)  # functions in Python that are not looked into


class Known(NamedTuple):
    """What a tensor of the pass is in the graph; ``tensor`` is kept, so that no other one gets its ``id``."""

    tensor: Tensor
    argument: Argument
    version: int


class Part(NamedTuple):
    """Says that a tensor is ``whole[index]``, in the same memory."""

    whole: Tensor
    index: Any


class Earlier(NamedTuple):
    """An argument that is a tensor of an earlier pass."""

    argument: Argument


class Recorder(TorchFunctionMode):
    """Records the calls of torch's functions inside of a ``with`` block.

    Args:
        fakes: The mode in which fake tensors are computed.
        held: The fake tensor that stands for each parameter or buffer, by the ``id`` of the real one.
        earlier: Of the pass before, whose tensors this one may meet.
        shared: Running statistics that the pass uses more than once: there a batch normalisation is written out.
        regions: Where the model's parameters and buffers are in memory.

    Attributes:
        nodes: What was recorded.
        constants: Real tensors that became arguments, by key.
        written: Buffers that were changed in place: the path of the module that did, by name.
        paths: Of the modules whose ``forward`` runs, the innermost one last; the model itself is empty.
        failed_in: Path of the module whose ``forward`` raised; None if none did.
        promoted: The fake tensors that stand for real ones in which numbers were written, by the ``id`` of these.
        output: What the model returned; whoever runs the pass sets it.
        shared_regions: Regions of buffers that the pass read through other tensors.
        without_derivative: Names of nodes that functions gave which have no derivative in torch.
        writes: The buffers that the pass changed; whoever runs the pass sets them.
    """

    def __init__(
        self,
        fakes: FakeTensorMode,
        held: Mapping[int, Tensor],
        earlier: Recorder | None = None,
        shared: frozenset[str] = frozenset(),
        regions: Sequence[Region] = (),
    ) -> None:
        super().__init__()
        self.fakes = fakes
        self.nodes: list[Node] = []
        self.constants: dict[str, NDArray[Any]] = {}
        self.written: dict[str, str] = {}
        self.paths: list[str] = [""]
        self.failed_in: str | None = None
        self.output: Argument = None
        self.writes: tuple[Write, ...] = ()
        self.promoted: dict[int, Tensor] = {} if earlier is None else dict(earlier.promoted)
        self._instead = {**self.promoted, **held}
        self.shared_regions: set[Region] = set()
        self._shared = shared
        self._regions = regions
        self._casts = torch.is_autocast_enabled("cpu")
        self._infers = torch.is_inference_mode_enabled()
        self._raised: tuple[Exception, str] | None = None
        self.without_derivative: set[str] = set()
        self._known: dict[int, Known] = {}
        self._held_names: dict[int, str] = {}
        self._held_storages: dict[int, str] = {}
        self._held_tensors: dict[str | None, Tensor] = {}
        self._viewed: set[int] = set()
        self._shared_data: set[int] = set()
        self._kept: list[object] = []
        self._watch: Watch | None = None
        self._changing: dict[int, str] = {}
        self._unfollowed: dict[int, str] = {}
        self._items: dict[int, Part] = {}
        self._copies = FunctionCopies()
        if earlier is not None:
            self._kept.append(earlier)
            for key, known in earlier._known.items():
                self._known[key] = Known(known.tensor, Earlier(known.argument), known.tensor._version)

    def know(self, tensor: Tensor, argument: Argument) -> None:
        """Say what a tensor is in the graph."""
        self._known[id(tensor)] = Known(tensor, argument, tensor._version)

    def hold(self, tensor: Tensor, name: str) -> None:
        """Say which parameter or buffer a tensor stands for."""
        self.know(tensor, Held(name))
        self._held_names[id(tensor)] = name
        self._held_storages[_storage_of(tensor)] = name
        self._held_tensors[name] = tensor

    def find_holder(self, tensor: Tensor) -> str | None:
        """Find the parameter or buffer whose memory a tensor has."""
        return self._held_storages.get(_storage_of(self._replace(tensor)))

    def refuse(self, what: str, mend: str, source: str = "", node: Node | None = None) -> Unsupported:
        """Make the error for something that cannot be followed, with the place where the model does it."""
        place = self.describe_place(source) if node is None else node.describe_place()
        error = Unsupported(f"model: {what}, in {place}, which cannot be translated. {mend}")
        self._note(error)
        return error

    def _note(self, error: Exception) -> None:
        if self._raised is None:
            self._raised = error, self.paths[-1]

    def raise_again(self) -> None:
        """Raise the first error that the trace has raised, if the model itself has caught it."""
        if self._raised is not None:
            error, self.failed_in = self._raised
            raise error

    def describe_place(self, source: str = "") -> str:
        """Say where in the model this is: the module's path and the line."""
        path = self.paths[-1] if self.failed_in is None else self.failed_in
        return f"module {path!r}" * bool(path) + "the model itself" * (not path) + f", {source or find_source()}"

    def __torch_function__(
        self, func: Any, types_: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        try:
            return self._follow(func, args, kwargs)
        except Exception as error:
            if type(error).__module__ == _OF_FAKES:  # as the model does not fail with numbers
                self._note(error)
            raise

    def _follow(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any] | None) -> Any:
        args, kwargs = tree_map(self._replace, (tuple(args), dict(kwargs or {})))
        name, in_place = trace_names.name_of(func)
        if not self._casts and torch.is_autocast_enabled("cpu"):
            raise self.refuse(
                "computes under torch.autocast, with fewer digits",
                "Leave it out, and let the run choose the precision, or train on a torch backend.",
            )
        if not self._infers and torch.is_inference_mode_enabled():
            raise self.refuse("computes in torch.inference_mode", "Use torch.no_grad.")
        if torch._C._functorch.peek_interpreter_stack() is not None:
            raise self.refuse(
                "computes in a transform of torch.func (vmap, grad, jvp and the like)",
                "Use operators on the whole batch, or train on a torch backend.",
            )
        if name in trace_names.REFUSED:
            raise self.refuse(f"calls {name}", trace_names.REFUSED[name])
        leaves = tree_leaves((args, kwargs))
        fakes = [leaf for leaf in leaves if isinstance(leaf, FakeTensor)]
        if fakes and name in trace_names.REFUSED_OF_INPUTS:
            raise self.refuse(f"calls {name}{'_' * in_place}", trace_names.REFUSED_OF_INPUTS[name])
        if fakes and name == "get:grad_fn":
            return None if args[0].grad_fn is None else HiddenNode(self)
        if func not in _WHOLE:
            made = self._copies.run(self, func, args, kwargs)
            if made is not NotImplemented:
                return made
        if name not in _FACTS_OF_TENSORS:
            self._check_memory(leaf for leaf in leaves if isinstance(leaf, torch.Tensor))
        draws = name in trace_names.RANDOM
        if not fakes and not draws and name not in _EMPTY:
            out = func(*args, **kwargs)
            self._note_views(out, args)
            self._note_changing(name, out, (args, kwargs))
            return out
        if kwargs.get("out") is not None:
            return self._write_out(func, name, args, kwargs)
        kwargs = {key: value for key, value in kwargs.items() if key not in trace_names.IGNORED}
        if name == "getitem" or (name == "setitem" and isinstance(args[1], tuple)):
            args = (args[0], plain_index(args[1]), *args[2:])
        if name == "setitem" or (in_place and args and isinstance(args[0], torch.Tensor)):
            return self._change(func, name, args, kwargs)
        return self._record(func, name, args, kwargs)

    def _check_memory(self, tensors: Iterable[Tensor]) -> None:
        """Refuse what shares memory with a parameter and is another tensor: it would not train."""
        for tensor in tensors:
            region = None if isinstance(tensor, FakeTensor) else find_sharing(self._regions, tensor)
            if region is not None and region.is_parameter:
                raise self.refuse(
                    f"uses a tensor that shares memory with {region.name!r}", "Use the parameter itself, or a copy."
                )
            if region is not None:
                self.shared_regions.add(region)

    def _write_out(self, func: Any, name: str, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Record a function that writes its result into a tensor, which it is given as ``out``."""
        target = kwargs["out"]
        with self:
            made = func(*args, **{key: value for key, value in kwargs.items() if key != "out"})
            if not isinstance(target, torch.Tensor) or (target.shape, target.dtype) != (made.shape, made.dtype):
                raise self.refuse(f"calls {name} with out=", "Use what the function returns.")
            return target.copy_(made)

    def _replace(self, leaf: Any) -> Any:
        """Take the fake tensor that stands for a real one, and lists out of torch's own kinds of lists."""
        if isinstance(leaf, Watched) and isinstance(leaf, list):
            return [self._replace(part) for part in leaf]
        if isinstance(leaf, Watched):
            leaf.note_read()
        return self._instead.get(id(leaf), leaf) if isinstance(leaf, torch.Tensor) else leaf

    def _compute(self, func: Any, args: Any, kwargs: Any) -> Any:
        with self.fakes:
            made = find_result(func, args, kwargs)
            return func(*args, **kwargs) if made is None else made

    def _record(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name.startswith(("set:", "delete:")):
            raise self.refuse(f"sets {name.partition(':')[2]!r} of a tensor", "Make a new tensor.")
        out = self._compute(func, args, kwargs)
        tensors = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        if not tensors:
            return out  # a shape, a dtype, a length
        if any(out is leaf for leaf in tree_leaves(args)) and not (name in _DROPOUTS and torch.is_grad_enabled()):
            return out  # the argument itself, with its gradient, also where none is computed
        composite = trace_composites.COMPOSITES.get(name)
        lacks_derivative = isinstance(out, torch.Tensor) and _lacks_derivative(out)
        if name == "batch_norm" and args[5] and args[3] is not None:
            if is_called_by("torch/utils/checkpoint.py"):
                raise self.refuse(
                    "normalises a batch under torch.utils.checkpoint, which updates the running statistics twice",
                    "Leave the checkpoint out: it saves no memory in OneFlow.",
                )
            if not (self._is_updated_alone(args[3]) and self._is_updated_alone(args[4])):
                composite = batch_norm
        if name == "get:data":
            self._shared_data.add(_storage_of(args[0]))
            self._kept.append(args[0])
        if composite is not None:
            plain, named = trace_rules.plain_arguments(args, kwargs)
            with self:
                made = composite(*plain, **named)
            if isinstance(made, trace_names.Refusal):
                raise self.refuse(made.what, made.mend)
            if made is not NotImplemented:
                self._check_alike(name, made, tensors)
                if isinstance(made, torch.Tensor) and _is_copied(out, made, args):  # such as repeat(1, 1)
                    with self:
                        made = made.clone()
                if isinstance(made, tuple) and any(part is None for part in made):
                    made = self._add_unfollowed(name, made, out)
                if _stops_gradient(out) and any(made is leaf and out is not leaf for leaf in tree_leaves(args)):
                    with self:
                        made = made.detach()
                if name in ("getitem", "select", "narrow") and made._base is not None:
                    self._items[id(made)] = Part(plain[0], _index_of(name, *plain, **named))
                    self._kept.append(made)
                if lacks_derivative:
                    self._note_without_derivative(made)
                return made
        if not isinstance(out, torch.Tensor):
            raise self.refuse(f"calls {name}", "Write it with other functions, or train on a torch backend.")
        self._add_node(name, args, kwargs, out)
        if lacks_derivative:
            self._note_without_derivative(out)
        return out

    def _note_without_derivative(self, made: Tensor) -> None:
        argument = self.argument_of(made)
        if isinstance(argument, Result):
            self.without_derivative.add(argument.node)

    def _add_unfollowed(self, name: str, made: tuple[Any, ...], out: Any) -> tuple[Any, ...]:
        """Put torch's own tensors where a function of this library gives None: whoever uses them is refused."""
        self._kept.append(out)
        self._unfollowed.update({id(theirs): name for ours, theirs in zip(made, out, strict=True) if ours is None})
        return tuple(theirs if ours is None else ours for ours, theirs in zip(made, out, strict=True))

    def _is_updated_alone(self, statistic: Tensor) -> bool:
        """Whether OneFlow may update a running statistic: a buffer as it was at first, in one place of the pass."""
        name = self._held_names.get(id(statistic))
        return name is not None and name not in self._shared and self.argument_of(statistic) == Held(name)

    def _check_alike(self, name: str, made: Any, tensors: Sequence[Tensor]) -> None:
        """Refuse what this library wrote with other functions, if torch's own has another shape or dtype."""
        ours = [leaf for leaf in tree_leaves(made) if isinstance(leaf, torch.Tensor)]
        facts = [(leaf.shape, leaf.dtype) for leaf in ours]
        if facts != [(leaf.shape, leaf.dtype) for leaf in tensors[: len(facts)]]:
            raise self.refuse(f"calls {name} in an unusual way", "Write it with other functions.")

    def _add_node(self, name: str, args: Any, kwargs: Any, out: Tensor) -> None:
        rule = trace_rules.RULES.get(name)
        if rule is None:
            raise self.refuse(f"calls {name}", "Write it with other functions, or train on a torch backend.")
        if name in trace_names.PROMOTED:
            with self:
                args = trace_rules.promote(name, args)
        args, kwargs = trace_rules.plain_arguments(args, kwargs)
        if name in UNARY and out.is_floating_point() and args[0].dtype != out.dtype:  # such as exp of whole numbers
            with self:
                args = (args[0].to(out.dtype), *args[1:])
        try:
            made = rule(out, *args, **kwargs)
        except TypeError as error:
            raise self.refuse(f"calls {name} in an unusual way ({error})", "Use other arguments.") from None
        if isinstance(made, torch.Tensor):  # the same numbers as an argument
            if out is args[0] or not _stops_gradient(out):
                self.know(out, self.argument_of(made))
                return
            made = "detach", {"x": made}
        operator, values = made
        if operator is None:
            raise self.refuse(values, "Write it otherwise, or train on a torch backend.")
        self._add(operator, values, out, detached=not torch.is_grad_enabled())
        if name == "batch_norm":  # its statistics have changed, which the operator itself does
            for statistic in args[1:5]:
                if isinstance(statistic, FakeTensor) and id(statistic) in self._held_names:
                    self.know(statistic, self._known[id(statistic)].argument)

    def _add(self, operator: str, values: Mapping[str, Any], out: Tensor, detached: bool) -> None:
        node = Node(
            name=f"{operator}_{len(self.nodes)}",
            operator=operator,
            arguments={key: self.argument_of(values.get(key)) for key in OPERATORS[operator]},
            shape=tuple(out.shape),
            dtype=dtype_name(out.dtype),
            module=self.paths[-1],
            source=find_source(),
            detached=detached,
        )
        self.nodes.append(node)
        self.know(out, Result(node.name))

    def _require_gradient(self, target: Tensor, requires_grad: bool = True) -> Tensor:
        """Do what ``requires_grad_`` does, where it changes no parameter."""
        if is_called_by("torch/nn/parameter.py"):
            raise self.refuse("makes a parameter in its forward pass", "Make it in __init__.")
        if target.requires_grad != requires_grad:
            if id(target) in self._held_names:
                raise self.refuse(
                    f"sets requires_grad of {self._held_names[id(target)]!r}", "Set it before the run, or use phases."
                )
            self._compute(torch.Tensor.requires_grad_, (target, requires_grad), {})
        return target

    def _change(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        """Record a function that changes its first argument: that one stands for the result from now on."""
        target = args[0]
        if name == "requires_grad":
            return self._require_gradient(*args, **kwargs)
        if not isinstance(target, FakeTensor):
            target = self._promote(target)
            args = (target, *args[1:])
        holder = self._held_storages.get(_storage_of(target))
        held = self._held_names.get(id(target))
        wholes = list(self._list_wholes(target))
        if holder is None and _storage_of(target) in self._shared_data:
            raise self.refuse(f"changes a tensor through its .data ({name}_)", "Make a new tensor.")
        changes = f"changes {holder!r} in place ({name}_)"
        if isinstance(self._held_tensors.get(holder), torch.nn.Parameter):
            raise self.refuse(changes, "Only a buffer may be changed in a forward pass, and no parameter.")
        if holder is not None and id(wholes[-1] if wholes else target) not in self._held_names:
            raise self.refuse(
                f"{changes} through a view of it", "Change the buffer itself, or a part of it such as buffer[0]."
            )
        for tensor in (target, *wholes):
            self.argument_of(tensor)  # it must not be stale
        with self:
            changed = trace_composites.compute_changed(name, args, kwargs)
        if changed is NotImplemented:
            raise self.refuse(
                f"calls {name}_",
                trace_names.IN_PLACE.get(name, "Use the form that returns a new tensor."),
            )
        if changed is not target:
            if changed.dtype != target.dtype:
                with self:
                    changed = changed.to(target.dtype)
            if changed.shape != target.shape:
                with self:
                    changed = changed.expand(target.shape)
        if target.requires_grad and changed is not target and _stops_gradient(changed):
            changed = self._add_replacement(target, changed)
        argument = self.argument_of(changed)
        if wholes:
            with self:
                wholes[0][self._items[id(target)].index] = changed
        if name == "setitem":
            out = self._compute(_bump, (target, changed.requires_grad), {})
        else:
            out = self._compute(func, args, kwargs)
        for whole in wholes:  # they share the memory that has changed just now
            self.know(whole, self.argument_of_any_age(whole))
        self.know(target, argument)
        if held is not None:
            self.written[held] = self.paths[-1]
        return out

    def _list_wholes(self, part: Tensor) -> Iterator[Tensor]:
        """List what a tensor is a part of, as ``x[...]`` is of ``x``; the largest last."""
        while id(part) in self._items:
            part = self._items[id(part)].whole
            yield part

    def _add_replacement(self, target: Tensor, changed: Tensor) -> Tensor:
        """Record that a tensor gets other numbers where no gradient is computed: in torch its gradient stays."""
        with self.fakes, torch.enable_grad():
            made = target.clone()
        self._add("keep_gradient", {"x": target, "values": changed}, made, detached=False)
        return made

    def _promote(self, real: Tensor) -> Tensor:
        """Let a real tensor be followed from now on, because numbers that are not known are written into it."""
        if real._base is not None or _storage_of(real) in self._viewed:
            raise self.refuse(
                "writes into a part of a tensor that it has made", "Put the parts together with torch.cat or stack."
            )
        argument = self.argument_of(real)
        fake = self.fakes.from_tensor(real.detach())
        self.promoted[id(real)] = self._instead[id(real)] = fake
        self._kept.append(real)
        self.know(fake, argument)
        return fake

    def _note_views(self, out: Any, args: Any) -> None:
        storages = {_storage_of(leaf) for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf._base is not None and _storage_of(leaf) in storages:
                self._viewed.add(_storage_of(leaf))

    def watch_tensors(self, watch: Watch) -> None:
        """Note when a number depends on plain tensors that keep changing."""
        self._watch = watch
        for tensor, path in watch.tensors:
            self._changing[id(tensor)] = path

    def _note_changing(self, name: str, out: Any, given: Any) -> None:
        """Note what is made of a tensor that keeps changing: a tensor keeps changing too, and a number is read."""
        path = next((self._changing[id(leaf)] for leaf in tree_leaves(given) if id(leaf) in self._changing), None)
        if path is None or self._watch is None:
            return
        if name in ("zero", "fill") and isinstance(out, torch.Tensor):  # from now on, it is of this pass
            self._changing.pop(id(out), None)
            return
        if name in _NUMBERS_OF_TENSORS and not isinstance(out, torch.Tensor):
            self._watch.note_read(path)
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._kept.append(leaf)
                self._changing[id(leaf)] = path

    def argument_of(self, value: Any) -> Argument:
        """Return what a value is in the graph.

        A real tensor is what stands for it, wherever the model hands it on without a function of torch: as an answer,
        as a new buffer.

        Raises:
            Unsupported: It is a tensor that no recorded function has made, or whose memory has changed since.
        """
        value = self._replace(value)
        if isinstance(value, FakeTensor):
            known = self._known.get(id(value))
            if is_of_own_gradient(value):
                by = known.argument if known is not None else None
                raise refuse_function(self, value, next((node for node in self.nodes if by == Result(node.name)), None))
            if known is None and id(value) in self._unfollowed:
                raise self.refuse(
                    f"uses the indices that {self._unfollowed[id(value)]} gives", "Leave out return_indices=True."
                )
            if known is None:
                raise self.refuse("uses a tensor that nothing that can be followed has made", "Use torch's functions.")
            if value._version != known.version:
                raise self.refuse(
                    "uses a tensor whose memory was changed through another one", "Change no tensor in place."
                )
            return known.argument
        if isinstance(value, torch.Tensor):
            self._check_memory([value])
            self._kept.append(value)
            if id(value) in self._changing and self._watch is not None:
                self._watch.note_read(self._changing[id(value)])
            return self._add_constant(value.detach().cpu().numpy().copy())
        if isinstance(value, tuple | list):
            return tuple(self.argument_of(part) for part in value)
        if isinstance(value, torch.dtype):
            return dtype_name(value)
        if isinstance(value, np.generic):
            return value.item()
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise self.refuse(f"hands a {type(value).__name__} to an operator", "Use tensors and numbers.")

    def argument_of_any_age(self, tensor: Tensor) -> Argument:
        """Return what a tensor is in the graph, though its memory may have changed since."""
        return self._known[id(tensor)].argument

    def find_shared_statistics(self) -> frozenset[str]:
        """Find running statistics that are updated and used in another place of the pass too.

        An operator that updates them may then run before or after the other one that reads them.
        """
        uses = Counter(each.name for node in self.nodes for each in _list_held(node.arguments))
        uses.update(each.name for each in _list_held((self.output, tuple(write.value for write in self.writes))))
        uses.update(write.name for write in self.writes)
        updated = [
            node.arguments[key]
            for node in self.nodes
            if node.operator == "batch_norm" and node.arguments["training"]
            for key in ("mean", "variance")
        ]
        both = zip(updated[::2], updated[1::2], strict=True)
        return frozenset(
            each.name
            for pair in both
            if any(isinstance(each, Held) and uses[each.name] > 1 for each in pair)
            for each in pair
            if isinstance(each, Held)
        )

    def _add_constant(self, array: NDArray[Any]) -> Constant:
        for key, known in reversed(self.constants.items()):
            if known.dtype == array.dtype and np.array_equal(known, array):
                return Constant(key)
        key = f"constant_{len(self.constants)}"
        self.constants[key] = array
        return Constant(key)


def _list_held(value: Any) -> Iterator[Held]:
    if isinstance(value, Held):
        yield value
    elif isinstance(value, Mapping | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _list_held(part)


def _bump(target: Tensor, has_gradient: bool) -> None:
    """Let every tensor that shares memory with this one count as changed, and have a gradient if what it gets has."""
    if has_gradient and torch.is_grad_enabled() and not target.requires_grad:
        target.mul_(torch.ones((), dtype=target.dtype, requires_grad=True))
        return
    with torch.no_grad():
        target.detach().zero_()


def _index_of(name: str, x: Tensor, *args: Any, **kwargs: Any) -> Any:
    """Return the index with which ``x[index]`` is what a function of this name returned."""
    if name == "getitem":
        return args[0]
    given = dict(zip(("dim", "start" if name == "narrow" else "index", "length"), args, strict=False)) | kwargs
    axis = given["dim"] % x.dim()
    if name == "select":
        part: Any = int(given["index"])
    else:
        start = find_start(x, axis, given["start"])
        part = slice(start, start + given["length"])
    return (*(slice(None) for _ in range(axis)), part)


def _lacks_derivative(out: Tensor) -> bool:
    return out.grad_fn is not None and out.grad_fn.name().endswith("NotImplemented")


def _storage_of(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of a dtype without ``torch.`` before it."""
    return str(dtype).removeprefix("torch.")


def _is_copied(out: Any, made: Tensor, args: Any) -> bool:
    """Whether a function gives new memory, where this library's form of it gives that of an argument."""
    given = {_storage_of(leaf) for leaf in tree_leaves(args) if isinstance(leaf, torch.Tensor)}
    return isinstance(out, torch.Tensor) and _storage_of(made) in given and _storage_of(out) not in given


def _stops_gradient(out: Any) -> bool:
    """Whether what a function gives has no gradient, because it was called where none is computed."""
    return isinstance(out, torch.Tensor) and out.is_floating_point() and not torch.is_grad_enabled()


def find_source() -> str:
    """Find the line outside of torch and of this library that is running, as ``file.py:12``."""
    frame = sys._getframe(1)
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).split(".")[0]
        if package not in (*OWN_PACKAGES, *_BETWEEN):
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "an unknown line"
