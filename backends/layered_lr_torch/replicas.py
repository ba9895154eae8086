"""Phases under ``DistributedDataParallel``: what is reduced between the replicas follows what trains.

``DistributedDataParallel`` looks only once, when it is made, which parameters require a gradient. A parameter that was
frozen then is never reduced, and the replicas drift apart without a word. One that freezes later is waited for in vain.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch.nn.parallel import DistributedDataParallel

from layered_lr.errors import Unsupported
from layered_lr_torch.torch_types import Module


def has_replicas() -> bool:
    """Whether this process is one of several."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def reduce_what_trains(model: Module) -> None:
    """Let the ``DistributedDataParallel`` whose forward pass is running reduce the parameters that train now.

    It makes a new reducer, as ``DistributedDataParallel`` does when it is unpickled.

    Args:
        model: The model, which may be wrapped. Where no such wrapper runs, nothing is done.

    Raises:
        Unsupported: The wrapper has an option with which a new reducer would not be the same.
    """
    active: Any = DistributedDataParallel._active_ddp_module
    if active is None or not any(module is model for module in active.modules()):
        return
    if getattr(active, "mixed_precision", None) is not None or getattr(active, "_use_python_reducer", False):
        raise Unsupported(
            "phases under DistributedDataParallel with mixed_precision, or compiled with the reducer in Python: "
            "the reducer cannot follow what trains. Leave the option out (torch.autocast is possible), or wrap the "
            "model anew for each phase."
        )
    parameters, expects_sparse = active._build_params_for_reducer()
    if not parameters:  # nothing trains in this phase, so nothing is reduced
        return
    names = active._build_debug_param_to_name_mapping(parameters)
    active._ddp_init_helper(parameters, expects_sparse, names, active.static_graph)
    if active.static_graph:
        active.reducer._set_static_graph()
        active.logger._set_static_graph()
        active._static_graph_delay_allreduce_enqueued = False
    for hook, state in active._comm_hooks:
        torch.distributed._register_comm_hook(active.reducer, state, hook)  # type: ignore[attr-defined]
