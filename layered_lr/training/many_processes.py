"""Finds out whether this process is one of several, and lets them train one run together."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from layered_lr.backend.base import Backend
from layered_lr.backend.loading import load_backend
from layered_lr.backend.processes import ALONE, Launch, Processes
from layered_lr.console import silenced
from layered_lr.errors import LayeredLRError, ProcessLost, SpecError, TrainingDiverged, Unsupported
from layered_lr.printed import shown
from layered_lr.registry import TABLE
from layered_lr.spec.spec import Spec
from layered_lr.training.in_file import command_to_go_on
from layered_lr.training.options import RunOptions
from layered_lr.training.run_folder import RECIPE

_OTHERS: Final = {"OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec"}
"""Variables with the number of processes of launchers that say nothing to torch, and who sets them."""
SPEAKING_SECONDS: Final = 2.0
"""How long a process stays that has nothing to say: a launcher ends all others where one has ended with an error."""
ALONE_SECONDS: Final = 10.0
"""How long a process waits, before they are connected, until it says an error that the first one seems not to have.
Processes begin some seconds apart on a busy machine."""
_START: Final = "torchrun --nproc-per-node 2 -m layered_lr run ..."
_ONEFLOW_START: Final = "python -m oneflow.distributed.launch --nproc_per_node 2 -m layered_lr run ..."


def find_launch(environment: Mapping[str, str] = os.environ, modules: Mapping[str, Any] = sys.modules) -> Launch | None:
    """Which of several processes this one is; None where it is alone. Nothing is imported.

    Args:
        environment: The environment's variables, as torchrun and OneFlow's launcher set them.
        modules: The modules that are imported: a process group of a user's own script is found there.

    Raises:
        Unsupported: A launcher that says too little, or something that cannot be.
    """
    distributed = modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        count, rank = distributed.get_world_size(), distributed.get_rank()
        local = environment.get("LOCAL_RANK", "")
        return Launch(rank, count, int(local) if local.isdecimal() else rank, True) if count > 1 else None
    said = {name: environment[name] for name in ("WORLD_SIZE", "RANK") if environment.get(name, "") != ""}
    if said.get("WORLD_SIZE") == "1":  # OneFlow leaves RANK=-1 there
        return None
    if not said:
        for name, launcher in _OTHERS.items():
            if _number(environment.get(name, "")) > 1:
                raise Unsupported(
                    f"{name}={environment[name]}, as {launcher} sets it, and no WORLD_SIZE and RANK: the processes "
                    f"cannot find each other. Start them with torchrun: {_START}"
                )
        return None
    if "WORLD_SIZE" not in said or "RANK" not in said:
        there = next(iter(said))
        missing = "RANK" if there == "WORLD_SIZE" else "WORLD_SIZE"
        raise Unsupported(
            f"{there}={shown(said[there])} is set in the environment, and {missing} is not: a launcher sets both. "
            f"Start the processes with torchrun ({_START}), or unset {there} to train alone."
        )
    count, rank = _number(said["WORLD_SIZE"]), _number(said["RANK"])
    if count < 1 or not 0 <= rank < count:
        raise Unsupported(
            f"WORLD_SIZE={shown(said['WORLD_SIZE'])}, RANK={shown(said['RANK'])}: must be a whole number >= 1, and one "
            f"from 0 to WORLD_SIZE - 1. Start the processes with torchrun ({_START}), or unset both to train alone."
        )
    if absent := [name for name in ("MASTER_ADDR", "MASTER_PORT") if not environment.get(name)]:
        raise Unsupported(
            f"WORLD_SIZE={count} and RANK={rank} are set in the environment, and {' and '.join(absent)} not: the "
            f"processes cannot find each other. Start them with torchrun ({_START}), or unset both to train alone."
        )
    if not 0 < _number(environment["MASTER_PORT"]) < 1 << 16:
        raise Unsupported(f"MASTER_PORT={shown(environment['MASTER_PORT'])}: must be a port, 1 to 65535.")
    own = _number(environment.get("LOCAL_RANK", ""))
    return Launch(rank, count, rank if own < 0 else own, False)


def _number(text: str) -> int:
    """A whole number; -1 where the text is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else -1


def check_single_process() -> None:
    """Refuse what one process does alone where this process is one of several.

    Raises:
        Unsupported: It is.
    """
    launch = find_launch()
    if launch is not None:
        raise Unsupported(
            f"this process is one of {launch.count}, and each of them would do the whole work. Start a single "
            "one, with python or layered-lr."
        )


@contextlib.contextmanager
def joined(options: RunOptions, spec: Spec | Mapping[str, Any] | None) -> Iterator[tuple[Processes, Backend | None]]:
    """Connect the processes of a run, where there are several. Only the first one speaks.

    Args:
        options: Of the run.
        spec: Of the run, or its table; None is not known.

    Yields:
        The processes, and the backend that has connected them; for a process that is alone no backend is loaded.

    Raises:
        Unsupported: A launcher that says too little, or a backend that cannot train in several processes.
        SpecError: The batch cannot be divided among the processes.
    """
    launch = find_launch()
    if launch is None:
        yield ALONE, None
        return
    check_launcher(options.backend, launch)
    backend = load_backend(options.backend, options.device)
    with silenced() if launch.rank else contextlib.nullcontext():
        processes = backend.join(launch)
        try:
            with processes.watching(_way_on(options, spec)):
                processes.agree(lambda: check_divisible(options, launch.count))
                processes.agree(lambda: check_shards(options, backend))
                if options.shard:
                    backend.prepare_to_shard()
                yield processes, backend
        except ProcessLost as error:
            error.said_elsewhere = False  # nobody knows which of the others are left to say it
            raise  # and leave the connections: to close them would wait for the others
        except LayeredLRError as error:
            processes.close()
            if error.said_elsewhere is None:
                error.said_elsewhere = isinstance(error, TrainingDiverged) and not processes.is_first
            raise
        except BaseException:
            processes.close()
            raise
        else:
            processes.close()


def check_launcher(backend: str, launch: Launch, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse processes of another launcher than OneFlow's for OneFlow, which would wait or abort at its import.

    Args:
        backend: The name of the run's.
        launch: Which process this is.
        environment: The environment's variables.

    Raises:
        Unsupported: OneFlow cannot connect these processes.
    """
    if TABLE[backend].framework != "oneflow":
        return
    if launch.is_joined or "TORCHELASTIC_RUN_ID" in environment:
        by = "a process group of torch" if launch.is_joined else "torchrun"
        raise Unsupported(
            f"backend {backend!r}: this is process {launch.rank} of {launch.count}, which {by} connects, and OneFlow "
            f"cannot. Start the processes with OneFlow's own launcher ({_ONEFLOW_START}), or use 'torch-eager'."
        )
    if _number(environment.get("LOCAL_RANK", "")) < 0:
        raise Unsupported(
            f"backend {backend!r}: WORLD_SIZE={launch.count} is set in the environment, and LOCAL_RANK is no whole "
            f"number: OneFlow cannot connect the processes. Start them with its own launcher ({_ONEFLOW_START})."
        )


def _way_on(options: RunOptions, spec: Spec | Mapping[str, Any] | None) -> str:
    """What to do after a process was lost, as a sentence."""
    if options.checkpoints is None or options.checkpoints.folder is None:
        return "Start all of them again; checkpoints=... keeps what was trained."
    words: Mapping[str, Any] = {}
    with contextlib.suppress(SpecError):  # a lambda in it, of which the run says more
        words = spec.to_dict() if isinstance(spec, Spec) else spec or {}
    command = command_to_go_on(options.checkpoints.folder, options.to_dict(), words)
    return f"To go on from the newest checkpoint: {command}"


def speaks(error: LayeredLRError | None = None) -> bool:
    """Whether this process is the one that prints a result or an error.

    Args:
        error: What it ends with; None for a result.
    """
    try:
        launch = find_launch()
    except Unsupported:  # of which the first process speaks, where it can be known
        return os.environ.get("RANK", "0") in ("", "0") or "WORLD_SIZE" not in os.environ
    if error is not None and error.said_elsewhere is not None:
        return not error.said_elsewhere
    return launch is None or launch.rank == 0


def seconds_of_silence(error: LayeredLRError) -> float:
    """How long a process that does not speak waits for the one that does; a launcher ends it in the meantime.

    Args:
        error: What it ends with.
    """
    return SPEAKING_SECONDS if _place_alone(error) is None else ALONE_SECONDS


def who_is_left(error: LayeredLRError) -> str | None:
    """After that time: the beginning of what this process says, since the first one does not; None where it did.

    Args:
        error: What it ends with.
    """
    launch = _place_alone(error)
    return None if launch is None else f"process {launch.rank} of {launch.count}: "


def _place_alone(error: LayeredLRError) -> Launch | None:
    """Which process this is, where the first one may be without this error: they have not compared theirs yet."""
    if error.said_elsewhere is not None:
        return None
    try:
        return find_launch()
    except Unsupported:  # what all processes of the launcher have
        return None


def was_restarted(options: RunOptions, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a launcher has started the processes again after one had died, and the run has begun before.

    Args:
        options: Of the run.
        environment: The environment's variables; torchrun counts its restarts there.
    """
    if _number(environment.get("TORCHELASTIC_RESTART_COUNT", "")) < 1:
        return False
    folder = None if options.checkpoints is None else options.checkpoints.folder
    return folder is not None and (Path(folder) / RECIPE).is_file()


def check_divisible(options: RunOptions, count: int) -> None:
    """Refuse a batch of which the processes cannot have equal shares.

    Raises:
        SpecError: They cannot.
    """
    size = options.batch_size
    if size % count:
        near = [each for each in (size // count * count, -(-size // count) * count) if each]
        raise SpecError(
            f"run(batch_size={size}): the batch is that of all {count} processes together, and must divide among them. "
            f"Use {' or '.join(map(str, dict.fromkeys(near)))}, or another number of processes."
        )


def check_shards(options: RunOptions, backend: Backend) -> None:
    """Refuse to divide a model where the backend cannot, or where the first process alone would ask for all of it.

    Raises:
        Unsupported: It cannot, or would.
    """
    if not options.shard:
        return
    if not backend.can_shard:
        raise Unsupported(
            f"run(shard=True): backend {backend.name!r} cannot divide a model among processes. Use 'torch-eager', or "
            "leave shard out."
        )
    for each in options.listeners:
        if each.writes and getattr(each, "asks_model", False):
            raise Unsupported(
                f"run(shard=True): the log {type(each).__name__} reads the weights in the first process alone, which "
                "holds a part of them. Use ll.CSV or ll.JSONLines, or "
                "ll.TensorBoard(weight_norms=False, wrong_answers=0)."
            )
    if options.precision.autocast == "float16":
        raise Unsupported(
            "run(shard=True, precision='float16'): torch's GradScaler does not know the gradients of the other "
            "processes. Use precision='bfloat16', or leave shard out."
        )
