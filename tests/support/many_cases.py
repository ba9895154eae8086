"""Random trainings in one process and in several, which have to be the same; for the fuzzer."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.isolation import run_side_by_side
from tests.support.random_cases import CLASSES, case_of_seed

_IMAGES = (np.random.default_rng(0).standard_normal((29, 3, 2, 2)).astype(np.float32), np.arange(29) % CLASSES)


def results_in(count: int, seeds: Sequence[int]) -> list[list[Any]]:
    """Make cases in each of several processes.

    Args:
        count: How many processes; one is this one.
        seeds: Of the cases.

    Returns:
        For each process, what each case gave: arrays by name, or the words of an error.
    """
    if count == 1:
        return [[_result(seed) for seed in seeds]]
    with tempfile.TemporaryDirectory() as folder:
        run_side_by_side(count, _begin, count, [*seeds], folder)
        return [pickle.loads((Path(folder) / str(rank)).read_bytes()) for rank in range(count)]


def _begin(rank: int, count: int, seeds: tuple[int, ...], folder: str) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=count)
    found = [_result(seed) for seed in seeds]
    (Path(folder) / str(rank)).write_bytes(pickle.dumps(found))
    torch.distributed.destroy_process_group()


def options_of(seed: int) -> dict[str, Any]:
    """The options of a case beside those that it has itself."""
    import layered_lr as ll

    rng = np.random.default_rng([41, seed])

    def pick(options: list[Any]) -> Any:
        return options[int(rng.integers(len(options)))]

    chosen: dict[str, Any] = {"batch_size": pick([8, 4, 6]), "accumulate_steps": pick([1, 1, 2, 3])}
    if chosen["accumulate_steps"] == 1:
        chosen["drop_last"] = pick([True, False])
    if pick([False, False, True]):
        chosen["mix"] = ll.Mix(mixup=0.4, cutmix=1.0)
    chosen["divergence"] = pick(["stop", "stop", "skip", "rollback"])
    return chosen


def _result(seed: int) -> Any:
    import torch

    import layered_lr as ll
    from tests.support.hand_training import Net

    case = case_of_seed(seed)

    def net() -> Any:
        torch.manual_seed(case["seed"])
        return Net(case["norm"]).double()

    try:
        result = ll.run(
            ll.Spec.from_dict(case["spec"]), "torch-eager", net, (*_IMAGES, *_IMAGES), max_steps=case["max_steps"],
            ema_decay=case["ema_decay"], seed=case["seed"], precision="float64", sync_batch_norm=True,
            progress=False, **options_of(seed),
        )  # fmt: skip
    except ll.LayeredLRError as error:
        return type(error).__name__
    return {
        "losses": result.losses,
        "accuracies": result.accuracies,
        "norms": result.grad_norms,
        "rates": np.stack(list(result.rates.values())),
        **{f"weights {name}": array for name, array in result.weights.items()},
        **{f"average {name}": array for name, array in result.ema_weights.items()},
    }
