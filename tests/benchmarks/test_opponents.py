"""Opponents do the same thing: the same draws give the same losses and weights as ``ll.run``'s."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.frame.worker import Worker, WorkerError
from benchmarks.opponents import oneflow_loop
from benchmarks.opponents.draws import Draws
from benchmarks.opponents.job import Job, Trained
from benchmarks.opponents.models import tiny_weights
from benchmarks.opponents.product import Opponent as Product
from benchmarks.peers.race import peers_python
from layered_lr.data.random_draws import draw_crops, draw_order


def product_draws(seed: int, epoch: int, size: int) -> Any:
    """As ``ll.run`` draws, in the order of the loops' own."""
    crops = draw_crops(seed, epoch, size, 4)
    return draw_order(seed, epoch, size), crops.top, crops.left, crops.flip


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    np.savez(tmp_path / "weights.npz", **tiny_weights(3))
    weights = str(tmp_path / "weights.npz")
    return Job("digits", 70, 16, model="tiny", batch_size=16, lr=0.1, weights=weights, seed=5).to_dict()


def check_same(one: Trained, other: Trained) -> None:
    """Within what float32's rounding does in 12 updates of a tiny model."""
    assert len(one.losses) == 12
    np.testing.assert_allclose(one.losses, other.losses, rtol=1e-4)
    assert one.accuracy == other.accuracy and set(one.weights) == set(other.weights)
    for name, array in one.weights.items():
        if name.endswith("num_batches_tracked"):  # OneFlow's Graph does not count; nothing reads it
            continue
        np.testing.assert_allclose(array, other.weights[name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("augment", [True, False], ids=["augmented", "plain"])
def test_the_loop_in_torch_trains_as_run_does(
    job: dict[str, Any], augment: bool, torch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.opponents import torch_loop

    monkeypatch.setattr(torch_loop, "draws", lambda *of: Draws(*product_draws(*of)))
    job["augment"] = augment
    by_hand = torch_loop.Opponent(job, keep_memory=False).trained(3)
    check_same(by_hand, Product(job, "torch-eager").trained(3))
    assert by_hand.losses[-1] != by_hand.losses[0]


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_the_loops_in_oneflow_train_as_run_does(
    job: dict[str, Any], mode: str, oneflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oneflow_loop, "draws", product_draws)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")  # is read when OneFlow is imported, which it is by now
    by_hand = oneflow_loop.Opponent(job, mode == "graph").trained(3)
    check_same(by_hand, Product(job, f"oneflow-{mode}").trained(3))


def test_the_loop_for_a_gpu_makes_the_batches_of_the_one_for_a_cpu(job: dict[str, Any], torch: Any) -> None:
    """Without a GPU its batches are made on the CPU all the same."""
    from benchmarks.opponents import cuda_loop, torch_loop

    given = Job(**job)
    pairs = zip(
        cuda_loop.Batches(given, given.dataset).epoch(1), torch_loop.Batches(given, given.dataset).epoch(1), strict=True
    )
    for one, other in pairs:
        assert torch.equal(one[1], other[1])
        torch.testing.assert_close(one[0], other[0], rtol=1e-5, atol=1e-5)


def test_an_epoch_of_one_batch_is_one_step(job: dict[str, Any], torch: Any) -> None:
    from benchmarks.opponents import torch_loop

    assert len(torch_loop.Opponent(job, keep_memory=False).train(1, one_batch=True)["losses"]) == 1
    assert len(Product(job, "torch-eager").train(1, one_batch=True)["losses"]) == 1


PEERS: dict[str, dict[str, Any]] = {
    "tutorial": {},
    "lightning_trainer": {},
    "keras_fit": {"jit": False},
    "timm_loop": {},
    "fastai_learner": {},
}


@pytest.mark.parametrize("file", PEERS)
def test_a_peer_compiles_and_where_it_is_installed_trains_as_the_tutorial_does(
    job: dict[str, Any], file: str, torch: Any
) -> None:
    """In `.venv-peers` where `make bench-peers` has made it. The same draws, so the same losses."""
    path = Path(__file__).parents[2] / "benchmarks" / "peers" / f"{file}.py"
    compile(path.read_text(encoding="utf-8"), str(path), "exec")
    found = _losses(job, file)
    assert len(found) == 8 and np.isfinite(found).all()
    if file != "keras_fit":  # draws once more from the generator, and keeps a running mean
        np.testing.assert_allclose(found, _losses(job, "tutorial"), rtol=1e-5)


def _losses(job: dict[str, Any], file: str) -> Any:
    try:
        with Worker(f"benchmarks.peers.{file}:Opponent", {"job": job, **PEERS[file]}, peers_python()) as worker:
            return worker.call("train", epochs=2).value["losses"]
    except WorkerError as error:
        if "ModuleNotFoundError" not in str(error):
            raise
        pytest.skip(f"not installed here: {error}")


def test_the_tutorial_loop_trains_as_run_does(job: dict[str, Any], torch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same images in the same order; its crops are torch's own, so without them."""
    from benchmarks.peers import tutorial

    job["augment"] = False
    given, size = Job(**job), 70
    data = given.dataset
    assert data.mean is not None and data.std is not None

    class InOrder:
        epoch = 0

        def __iter__(self) -> Any:
            order = draw_order(given.seed, self.epoch, size)
            self.epoch += 1
            for start in range(0, size - 15, 16):
                chosen = order[start : start + 16]
                yield _normalised(torch, data, data.x_train[chosen]), torch.from_numpy(data.y_train[chosen])

    test = [(_normalised(torch, data, data.x_test), torch.from_numpy(data.y_test.copy()))]
    monkeypatch.setattr(tutorial, "loaders", lambda *_: (InOrder(), test, data.num_classes))
    found, ours = tutorial.Opponent(job).train(3), Product(job, "torch-eager").train(3)
    np.testing.assert_allclose(found["losses"], ours["losses"], rtol=1e-4)
    assert found["accuracy"] == ours["accuracy"]


def _normalised(torch: Any, data: Any, pixels: Any) -> Any:
    return torch.from_numpy(((pixels / 255 - data.mean) / data.std).astype(np.float32).transpose(0, 3, 1, 2).copy())
