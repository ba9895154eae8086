"""Phases in two processes with ``torch.distributed``: gloo, on the CPU, in processes of their own."""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path
from typing import Any

import pytest

from tests.support.isolation import run_side_by_side
from tests.support.made_once import make_once
from tests.support.old_torch import is_older

PROCESSES = 2
UPDATES = 8


def spread(*cases: str) -> dict[str, Any]:
    """Call functions of this file in each of two processes.

    Args:
        cases: Their names; they are called without arguments.

    Returns:
        What each returned in the first process, or the text of an error.
    """
    import json

    with tempfile.TemporaryDirectory() as folder:
        run_side_by_side(PROCESSES, _begin, cases, folder)
        answers: dict[str, Any] = json.loads((Path(folder) / "0.json").read_text())
        return answers


def spread_once(factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all functions of this file return that tests look at, made once in a test run."""
    cases = ("replicas_with_phases", "sharded_models", "sharded_states", "sharded_too_late", "audits_of_ranks")
    return make_once(factory, "replicas", lambda folder: spread(*cases))  # type: ignore[no-any-return]


def _begin(rank: int, cases: tuple[str, ...], folder: str) -> None:
    import json

    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    answers = {}
    for case in cases:
        try:
            answers[case] = globals()[case]()
        except Exception:
            answers[case] = traceback.format_exc()
    (Path(folder) / f"{rank}.json").write_text(json.dumps(answers))
    torch.distributed.destroy_process_group()


def _error_of(call: Any) -> str:
    try:
        return f"no error: {call()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _make_model() -> Any:
    import torch

    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.LayerNorm(8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def _make_spec(optimizer: Any = None) -> Any:
    import layered_lr as ll

    return ll.Spec(
        optimizer or ll.SGD(0.1, momentum=0.9),
        [ll.Group("0", lr_scale=0.5), ll.Group("1"), ll.Group("3")],
        ll.CosineDecay(),
        phases=[ll.Phase("3 steps", trained="3"), ll.Phase("5 steps", frozen="0"), ll.Phase()],
    )


def _train(model: Any, optimizer: Any, scheduler: Any, steps: range, part: slice) -> None:
    import torch

    for step in steps:
        torch.manual_seed(100 + step)
        images, labels = torch.randn(8, 4), torch.randint(2, (8,))
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images[part]), labels[part]).backward()
        optimizer.step()
        scheduler.step()


def _my_part() -> slice:
    import torch

    rank, size = torch.distributed.get_rank(), 8 // PROCESSES
    return slice(rank * size, (rank + 1) * size)


def _difference(one: Any, other: Any) -> float:
    def whole(tensor: Any) -> Any:
        return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor

    return max(
        float((whole(a) - whole(b)).detach().abs().max())
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def _distance_of_ranks(model: Any) -> float:
    import torch

    worst = 0.0
    for parameter in model.parameters():
        found = [torch.empty_like(parameter) for _ in range(PROCESSES)]
        torch.distributed.all_gather(found, parameter.detach())
        worst = max(worst, float((found[0] - found[1]).abs().max()))
    return worst


def replicas_with_phases() -> dict[str, Any]:
    """For each order of wrapping and compiling: how far the ranks are from each other, and from one process."""
    import torch

    import layered_lr as ll

    DDP = torch.nn.parallel.DistributedDataParallel  # noqa: N806 # torch's own abbreviation
    single = _make_model()
    _train(single, *ll.compile(_make_spec(), single, UPDATES), range(UPDATES), slice(None))
    found = {}
    for options in ({}, {"find_unused_parameters": True}, {"static_graph": True}, {"gradient_as_bucket_view": True}):
        for first in ("compile", "DDP"):
            model = _make_model()
            if first == "compile":
                loop = ll.compile(_make_spec(), model, UPDATES)
                wrapped = DDP(model, **options)
            else:
                wrapped = DDP(model, **options)
                loop = ll.compile(_make_spec(), wrapped, UPDATES)
            _train(wrapped, *loop, range(UPDATES), _my_part())
            found[f"{first} first, {options}"] = (_distance_of_ranks(model), _difference(single, model))
    return found


def audits_of_ranks() -> dict[str, Any]:
    """What an audit says in the last rank, where that one has something else than the first; and of equal loops."""
    import torch

    import layered_lr as ll
    from layered_lr_torch.audit import ranks

    found: dict[str, Any] = {}
    is_odd = torch.distributed.get_rank() == PROCESSES - 1
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR

    def make(model: Any, is_turned: bool = False, **changes: Any) -> Any:
        groups = [
            {"params": [*model[0].parameters()], "lr": 0.1, "name": "body"},
            {"params": [*model[1].parameters(), *model[3].parameters()], "lr": 0.2, "name": "head"},
        ]
        if is_odd:
            groups[0].update(changes)
        return torch.optim.SGD(groups[:: -1 if is_odd and is_turned else 1], lr=0.1, momentum=0.9)

    def look(name: str, *given: Any, steps: int | None = None) -> None:
        audit = ll.audit(*given, steps=steps)
        found[name] = {
            "ranks": [[each.what, *each.groups] for each in audit.findings if each.kind == "ranks-differ"],
            "others": [each.kind for each in audit.findings if each.kind != "ranks-differ"],
            "unchecked": audit.unchecked,
        }

    model = _make_model()
    for name, changes in {
        "alike": {},
        "rate": {"lr": 0.3},
        "decay": {"weight_decay": 0.1},
        "turned": {"is_turned": True},
        "moved": {"params": [model[0].weight]},
    }.items():
        look(name, make(model, **changes), model)
    look("other optimizer", (torch.optim.AdamW if is_odd else torch.optim.SGD)(model.parameters(), lr=0.1), model)
    optimizer = make(model)
    look("other schedule", optimizer, model, cosine(optimizer, T_max=9 + is_odd))
    optimizer = make(model)
    decay = 0.5 if is_odd else 0.8
    look("other function", optimizer, model, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: decay**n), steps=8)
    other = torch.nn.Linear(2, 2) if is_odd else model
    look("other model", torch.optim.SGD(other.parameters(), lr=0.1), other)
    ranks.PATIENCE = 0.2
    if is_odd:
        look("without the first", optimizer, model)
    ranks.PATIENCE = 60.0
    wrapped = torch.nn.parallel.DistributedDataParallel(_make_model())
    optimizer, scheduler = ll.compile(_make_spec(), wrapped, UPDATES)
    rates = []
    for step in range(UPDATES):
        if step in (0, UPDATES - 1):
            look(f"compiled, update {step}", optimizer, wrapped, scheduler)
        rates.append(scheduler.get_last_lr())
        _train(wrapped, optimizer, scheduler, range(step, step + 1), _my_part())
    spec, model = ll.Spec(ll.SGD(0.1), schedule=ll.CosineDecay()), _make_model()
    given = torch.optim.SGD(ll.param_groups(spec, model), lr=0.1)
    own = ll.scheduler(spec, given, model=model, total_steps=UPDATES)
    for _ in range(UPDATES - 1):
        given.step()
        own.step()
        rates.append(own.get_last_lr())
    of_all: list[Any] = [None] * PROCESSES
    torch.distributed.all_gather_object(of_all, rates)
    found["equal rates"] = all(each == rates for each in of_all) and len({str(each) for each in rates}) > UPDATES
    if not is_older((2, 6)):
        sharded = _shard(_make_model())
        look("sharded", *ll.compile(_make_spec(), sharded, UPDATES)[:1], sharded)
    of_all = [None] * PROCESSES
    torch.distributed.all_gather_object(of_all, found)
    return {**of_all[-1], "first": of_all[0]}


def _shard(model: Any) -> Any:
    from torch.distributed.fsdp import fully_shard

    fully_shard(model[0])
    return fully_shard(model)


def sharded_models() -> dict[str, float]:
    """For each spec: how far a model under ``fully_shard`` is from one process."""
    import layered_lr as ll

    plain = [ll.Group("0", lr_scale=0.5), ll.Group("1"), ll.Group("3")]
    cases = {
        "phases": (_make_spec(), "after"),
        "phases, Adam": (_make_spec(ll.AdamW(0.01)), "after"),
        "LAMB": (ll.Spec(ll.LAMB(0.01), plain), "after"),
        "LARS": (ll.Spec(ll.LARS(0.1), plain), "after"),
        "clipped": (ll.Spec(ll.SGD(0.1), plain, clip_grad_norm=0.1), "after"),
        "compiled before": (ll.Spec(ll.SGD(0.1, momentum=0.9), plain, clip_grad_norm=0.1), "before"),
        "Adagrad, compiled before": (ll.Spec(ll.Adagrad(0.1), plain), "before"),
    }
    found = {}
    for name, (spec, when) in cases.items():
        single, model = _make_model(), _make_model()
        _train(single, *ll.compile(spec, single, UPDATES), range(UPDATES), slice(None))
        if when == "before":
            loop = ll.compile(spec, model, UPDATES)
            _shard(model)
        else:
            loop = ll.compile(spec, _shard(model), UPDATES)
        _train(model, *loop, range(UPDATES), _my_part())
        found[name] = _difference(single, model)
    return found


def sharded_states() -> dict[str, float]:
    """For each update after which a loop stops and is loaded: how far it is from one that does not stop."""
    import layered_lr as ll

    found = {}
    for optimizer in (ll.SGD(0.1, momentum=0.9), ll.AdamW(0.01)):
        whole = _shard(_make_model())
        _train(whole, *ll.compile(_make_spec(optimizer), whole, UPDATES), range(UPDATES), _my_part())
        for stop in (2, 3, 6):
            old, new = _shard(_make_model()), _shard(_make_model())
            loop = ll.compile(_make_spec(optimizer), old, UPDATES)
            _train(old, *loop, range(stop), _my_part())
            with tempfile.TemporaryDirectory() as folder:
                ll.save_state(f"{folder}/state", old, *loop)
                loop = ll.compile(_make_spec(optimizer), new, UPDATES)
                ll.load_state(f"{folder}/state", new, *loop)
            _train(new, *loop, range(stop, UPDATES), _my_part())
            found[f"{type(optimizer).__name__}, {stop}"] = _difference(whole, new)
        found[f"{type(optimizer).__name__}, DCP"] = _difference(whole, _go_on_by_dcp(optimizer))
    return found


def _go_on_by_dcp(optimizer: Any) -> Any:
    """A loop that stops within a phase, and goes on from what ``torch.distributed.checkpoint`` has written."""
    import torch
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    import layered_lr as ll

    old, new = _shard(_make_model()), _shard(_make_model())
    loop = ll.compile(_make_spec(optimizer), old, UPDATES)
    _train(old, *loop, range(6), _my_part())
    place = [tempfile.mkdtemp()]
    torch.distributed.broadcast_object_list(place, src=0)
    dcp.save({"model": old.state_dict(), "optimizer": get_optimizer_state_dict(old, loop[0])}, checkpoint_id=place[0])
    plain = loop[1].state_dict()
    loop = ll.compile(_make_spec(optimizer), new, UPDATES)
    loop[1].load_state_dict(plain)  # the phase, whose parameters train
    empty = {"model": new.state_dict(), "optimizer": get_optimizer_state_dict(new, loop[0])}
    dcp.load(empty, checkpoint_id=place[0])
    new.load_state_dict(empty["model"])
    set_optimizer_state_dict(new, loop[0], empty["optimizer"])
    _train(new, *loop, range(6, UPDATES), _my_part())
    return new


def sharded_too_late() -> str:
    """What is said where a model with phases is sharded after ``compile``."""
    import layered_lr as ll

    model = _make_model()
    loop = ll.compile(_make_spec(), model, UPDATES)
    try:
        _train(_shard(model), *loop, range(1), _my_part())
    except ll.Unsupported as error:
        return str(error)
    return "nothing"
