"""Recurrent layers, written out step by step, for the tracing of models: what ``trace_composites`` holds.

The formulas are those of the pages of ``torch.nn.LSTM``, ``GRU`` and ``RNN``. The number of steps is that of the traced
sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch.nn import functional as F

from layered_lr_torch.torch_types import Tensor
from layered_lr_torch.trace_names import Refusal

_MOST_STEPS: Final = 256
"""A longer sequence is not written out: each step is ten operators or more, for each layer."""

Step = Callable[[Tensor, "tuple[Tensor, ...]", Tensor, "Tensor | None"], "tuple[Tensor, ...]"]
"""Takes what the input gives to the gates, the states, and the weight and bias of the state; returns the new states."""


def _step_lstm(given: Tensor, states: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    hidden, cell = states
    let_in, keep, new, out = (given + F.linear(hidden, weight, bias)).chunk(4, -1)
    cell = keep.sigmoid() * cell + let_in.sigmoid() * new.tanh()
    return out.sigmoid() * cell.tanh(), cell


def _step_gru(given: Tensor, states: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
    (hidden,) = states
    reset, update, new = given.chunk(3, -1)
    own_reset, own_update, own_new = F.linear(hidden, weight, bias).chunk(3, -1)
    new = (new + (reset + own_reset).sigmoid() * own_new).tanh()
    return (new + (update + own_update).sigmoid() * (hidden - new),)


def _make_plain_step(activate: Callable[[Tensor], Tensor]) -> Step:
    def step(given: Tensor, states: tuple[Tensor, ...], weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:
        return (activate(given + F.linear(states[0], weight, bias)),)

    return step


def _run_layer(x: Tensor, states: tuple[Tensor, ...], weights: Sequence[Tensor], step: Step, backwards: bool) -> Any:
    """Run one direction of a layer over a sequence, shape (steps, N, features); returns outputs and last states."""
    weight_x, weight_h = weights[:2]
    bias_x, bias_h = weights[2:] or (None, None)
    given = F.linear(x, weight_x, bias_x)
    outputs = []
    for place in reversed(range(x.shape[0])) if backwards else range(x.shape[0]):
        states = step(given.select(0, place), states, weight_h, bias_h)
        outputs.append(states[0])
    return torch.stack(outputs[::-1] if backwards else outputs), states


def _make_layers(step: Step, is_lstm: bool = False) -> Callable[..., Any]:
    """Make the function that torch's recurrent modules call."""

    def composite(
        x: Tensor, first: Any, weights: Any, has_biases: Any, layers: Any, dropout: float, training: bool,
        bidirectional: bool, batch_first: Any = None,
    ) -> Any:  # fmt: skip
        if batch_first is None or not isinstance(has_biases, bool):  # torch's other form of these functions
            return Refusal(
                "runs a recurrent layer over packed sequences", "Pad them to one length, or train on a torch backend."
            )
        directions, each = 1 + bidirectional, 4 if has_biases else 2
        if len(weights) != layers * directions * each:
            return Refusal(
                "runs an LSTM with proj_size, which projects its outputs",
                "Put a torch.nn.Linear behind an LSTM without it, or train on a torch backend.",
            )
        x = x.transpose(0, 1) if batch_first else x
        if x.shape[0] > _MOST_STEPS:
            return Refusal(
                f"runs a recurrent layer over {x.shape[0]} steps ({_MOST_STEPS} are the most)",
                "Give it a shorter sequence, or train on a torch backend.",
            )
        if dropout and layers > 1:  # torch draws inside, where no comparison can give it the same numbers
            return Refusal(
                f"drops between recurrent layers (dropout={dropout:g})",
                "Make a layer of each, with torch.nn.Dropout between them, or train on a torch backend.",
            )
        starts = tuple(first) if is_lstm else (first,)
        ends: list[tuple[Tensor, ...]] = []
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                place = layer * directions + direction
                own = weights[place * each : (place + 1) * each]
                made, end = _run_layer(x, tuple(start.select(0, place) for start in starts), own, step, direction == 1)
                outputs.append(made)
                ends.append(end)
            x = torch.cat(outputs, -1) if bidirectional else outputs[0]
        return (x.transpose(0, 1) if batch_first else x, *(torch.stack(kind) for kind in zip(*ends, strict=True)))

    return composite


def _make_cell(step: Step, is_lstm: bool = False) -> Callable[..., Any]:
    """Make the function that torch's recurrent cells call."""

    def composite(
        x: Tensor, first: Any, weight_x: Tensor, weight_h: Tensor, bias_x: Any = None, bias_h: Any = None
    ) -> Any:
        states = step(F.linear(x, weight_x, bias_x), tuple(first) if is_lstm else (first,), weight_h, bias_h)
        return states if is_lstm else states[0]

    return composite


_STEPS: Final[dict[str, Step]] = {
    "lstm": _step_lstm,
    "gru": _step_gru,
    "rnn_tanh": _make_plain_step(torch.tanh),
    "rnn_relu": _make_plain_step(torch.relu),
}

RECURRENT: Final[dict[str, Callable[..., Any]]] = {
    **{name: _make_layers(step, is_lstm=name == "lstm") for name, step in _STEPS.items()},
    **{f"{name}_cell": _make_cell(step, is_lstm=name == "lstm") for name, step in _STEPS.items()},
}
