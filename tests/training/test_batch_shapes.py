"""Images of several sizes, and a last batch that is smaller: on each backend the same, or refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.data import Batches, Dataset
from tests.support.isolation import values_of

PIXELS = np.random.default_rng(0).integers(0, 256, (26, 12, 12, 3), dtype=np.uint8)
LABELS = np.arange(26) % 3
DATA = Dataset("few", PIXELS[:22], LABELS[:22], PIXELS[22:], LABELS[22:])


def net() -> Any:
    import torch

    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    )  # fmt: skip


def run(backend: str = "torch-eager", **options: Any) -> ll.Result:
    given = {"model": net, "data": DATA, "batch_size": 4, "epochs": 2, "progress": False, "device": "cpu"}
    return ll.run(ll.Spec(ll.SGD(0.1, momentum=0.9)), backend, **{**given, "initialise": "torch", **options})


def on_backend(backend, case):  # type: ignore[no-untyped-def]  # its text runs in a process of its own
    import numpy as np
    import torch

    import layered_lr as ll

    def net():  # type: ignore[no-untyped-def]
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 4, 3),
            torch.nn.BatchNorm2d(4),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Flatten(),
            torch.nn.Linear(4, 3),
        )

    pixels = np.random.default_rng(0).integers(0, 256, (26, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(26) % 3
    data = pixels[:22], labels[:22], pixels[22:], labels[22:]
    phases = [ll.Phase(until=5, frozen=["stem"], batch_norm="still"), ll.Phase()]
    options = {
        "sizes": {"sizes": ll.Sizes([8, 17], every=2), "ema_decay": 0.5},
        "last": {"drop_last": False},
        "phases": {"sizes": [8, 16]},
    }[case]
    groups = [ll.Group("0", name="stem"), ll.Group("*", name="rest")]
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9), groups, phases=phases if case == "phases" else ())
    result = ll.run(
        spec, backend, net, data, batch_size=4, epochs=2, initialise="torch", progress=False, device="cpu", **options
    )
    arrays = {**result.weights, **result.ema_weights, "losses": result.losses, "accuracies": result.accuracies}
    return {name: array.tolist() for name, array in arrays.items()}


@pytest.mark.parametrize(
    ("backend", "cases"),
    [
        ("oneflow-eager", ("sizes", "last")),
        ("oneflow-graph", ("sizes", "phases")),
    ],
)
def test_every_backend_trains_as_torch_does(backend: str, cases: tuple[str, ...]) -> None:
    pytest.importorskip("torch")
    if backend.startswith("oneflow"):
        pytest.importorskip("oneflow")
    found = values_of(on_backend, [(each, case) for case in cases for each in ("torch-eager", backend)])
    for case, one, other in zip(cases, found[::2], found[1::2], strict=True):
        assert len(one["losses"]) == (12 if case == "last" else 10)
        for name, array in one.items():
            np.testing.assert_allclose(array, other[name], rtol=0, atol=2e-4, err_msg=f"{case} {name}")  # float32


def with_dropout(folder):  # type: ignore[no-untyped-def]  # its text runs in a process of its own
    import numpy as np
    import torch

    import layered_lr as ll

    def net(share=0.4):  # type: ignore[no-untyped-def]
        nn = torch.nn
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.Dropout(share),
            nn.ReLU(),
            nn.Dropout2d(share),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(share),
            nn.Linear(4, 3),
        )

    pixels = np.random.default_rng(0).integers(0, 256, (26, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(26) % 3
    data = pixels[:22], labels[:22], pixels[22:], labels[22:]
    options = {"data": data, "batch_size": 4, "epochs": 2, "initialise": "torch", "progress": False, "device": "cpu"}
    options |= {"sizes": ll.Sizes([8, 17])}
    spec = ll.Spec(ll.SGD(0.1, momentum=0.9))
    found = {}
    for backend in ("oneflow-eager", "oneflow-graph"):
        found[backend] = ll.run(spec, backend, net, **options).losses.tolist()
    found["without"] = ll.run(spec, "oneflow-eager", lambda: net(0.0), **options).losses.tolist()
    first = {**options, "epochs": None, "max_steps": 4}
    ll.run(spec, "oneflow-graph", net, checkpoints=f"{folder}/run", **first)
    found["resumed"] = ll.resume(f"{folder}/run", epochs=2, max_steps=None, data=data, model=net).losses.tolist()
    return found


def test_dropouts_of_a_translated_model_draw_for_each_size(tmp_path: Path) -> None:
    """Eager and Graph draw the same, after a resume too."""
    pytest.importorskip("torch")
    pytest.importorskip("oneflow")
    (found,) = values_of(with_dropout, [(str(tmp_path),)])
    assert len(found["oneflow-eager"]) == 10
    assert found["oneflow-eager"] == found["oneflow-graph"] == found["resumed"]
    assert found["oneflow-eager"][0] != found["without"][0]


def test_the_graph_refuses_a_smaller_batch_before_it_trains() -> None:
    words = r"has 2 of 4 images, and a graph has one batch shape.*batch_size that divides 22 \(such as 2\)"
    from layered_lr.training.batch_shapes import check_last_batch
    from layered_lr.training.options import RunOptions

    with pytest.raises(ll.Unsupported, match=words):
        check_last_batch(RunOptions(backend="oneflow-graph", batch_size=4, drop_last=False), 22)
    check_last_batch(RunOptions(backend="oneflow-graph", batch_size=11, drop_last=False), 22)
    words = r"accumulate_steps=2 makes an update of batches of equal size\. Leave drop_last or accumulate_steps out, or"
    with pytest.raises(ll.SpecError, match=words):
        run(drop_last=False, accumulate_steps=2)
    options = RunOptions(batch_size=12, drop_last=False, accumulate_steps=2)
    with pytest.raises(ll.SpecError, match=r"out, or give a batch_size that divides 22 \(such as 2\)"):
        check_last_batch(options, 22, processes=2)  # 11 does not divide between two processes
    with pytest.raises(ll.SpecError, match=r"Leave drop_last or accumulate_steps out\.$"):
        check_last_batch(options, 22, processes=4)
    assert len(run(drop_last=False, accumulate_steps=2, batch_size=11, epochs=1).losses) == 1


def test_every_image_comes_once_where_the_last_batch_is_kept() -> None:
    found = [labels for _, labels in Batches(DATA, 4, drop_last=False).epoch(0)]
    assert [len(each) for each in found] == [4, 4, 4, 4, 4, 2]
    assert sorted(np.concatenate(found).tolist()) == sorted(LABELS[:22].tolist())
    assert ll.plan(model=net, data=DATA, batch_size=4, epochs=3, drop_last=False).total_steps == 18


def test_sizes_are_drawn_for_every_few_updates_and_resumed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    batches = Batches(DATA, 4, sizes=(8, 12, 17), sizes_every=3)
    sizes = [images.shape[-1] for _, (images, _, _) in zip(range(60), batches.updates(1), strict=False)]
    assert set(sizes) == {8, 12, 17} and all(len(set(sizes[at : at + 3])) == 1 for at in range(0, 60, 3))
    later = [images.shape[-1] for _, (images, _, _) in zip(range(20), batches.updates(1, 7), strict=False)]
    assert later == sizes[7:27]
    assert sizes == [batches.size_of_update(update) for update in range(60)]
    whole = run(sizes=ll.Sizes([8, 17], every=2))
    run(sizes=ll.Sizes([8, 17], every=2), max_steps=4, checkpoints=tmp_path / "run")
    on = ll.resume(tmp_path / "run", epochs=2, max_steps=None, data=DATA, trust=True)
    assert on.losses.tobytes() == whole.losses.tobytes() != run().losses.tobytes()


def flat() -> Any:
    import torch

    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(432, 3))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sizes": [12, 8], "model": flat}, r"sizes=\[12, 8\]: the model does not take 8x8"),
        ({"sizes": [8]}, r"sizes=\[8\]|sides must be 2 to 16 different"),
        ({"sizes": [8, 8]}, "2 to 16 different whole numbers"),
        ({"sizes": [8, 0]}, "each from 1 to 16384"),
        ({"sizes": [8, 2.5]}, "2 to 16 different"),
        ({"sizes": 8}, r"sizes must be ll\.Sizes"),
        ({"sizes": {"sides": [8, 9], "each": 2}}, r"Sizes has no 'each'"),
        ({"sizes": {"sides": [8, 9], "every": 0}}, "every must be a whole number >= 1"),
        ({"drop_last": 1}, "drop_last must be true or false"),
    ],
)
def test_what_cannot_be_is_refused_in_words(options: Any, words: str) -> None:
    pytest.importorskip("torch")
    with pytest.raises(ll.SpecError, match=words):
        run(**options)


def test_a_batch_of_one_image_is_explained() -> None:
    torch = pytest.importorskip("torch")
    data = Dataset("odd", PIXELS[:21], LABELS[:21], PIXELS[22:], LABELS[22:])

    def pooled() -> Any:
        layers = torch.nn.AdaptiveAvgPool2d(1), torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(3, 3)
        return torch.nn.Sequential(*layers)

    with pytest.raises(ll.SpecError, match=r"on images of shape \(1, 3, 12, 12\) failed.*drop_last"):
        run(data=data, model=pooled, batch_size=1)


def test_a_batch_that_is_learned_by_heart_has_one_size() -> None:
    with pytest.raises(ll.SpecError, match="overfit: sizes has no meaning"):
        ll.overfit(ll.Spec(ll.SGD(0.1)), net, data=DATA, batch_size=4, sizes=[8, 12])


def flat_net() -> Any:
    import torch

    layers = torch.nn.Flatten(), torch.nn.Linear(432, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3)
    return torch.nn.Sequential(*layers)


def pooled_net() -> Any:
    import torch

    pooled = torch.nn.AdaptiveAvgPool2d(1)
    layers = torch.nn.Conv2d(3, 4, 3), pooled, torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(4, 3)
    return torch.nn.Sequential(*layers)


@pytest.mark.parametrize("model", [flat_net, pooled_net])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_last_batch_of_one_image_is_refused_where_it_has_no_variance(
    tmp_path: Path, model: Any, dry_run: bool
) -> None:
    pytest.importorskip("torch")
    given = {"batch_size": 7, "drop_last": False, "model": model}  # 22 images
    with pytest.raises(ll.SpecError, match=r"has one image, of which the batch normalisation '2' gets one number"):
        run(**given, checkpoints=tmp_path / "run", dry_run=dry_run)
    assert not (tmp_path / "run").exists()
    for other in ({"model": net}, {"drop_last": True}, {"batch_size": 6}, {"max_steps": 3}):
        assert run(**{**given, **other}).losses.size


def test_a_last_batch_of_one_image_is_taken_where_the_normalisation_stands_still() -> None:
    pytest.importorskip("torch")
    groups = [ll.Group("2", name="norm"), ll.Group("*", name="rest")]
    phases = [ll.Phase("1 epoch", frozen="norm"), ll.Phase()]
    given: dict[str, Any] = {"model": flat_net, "data": DATA, "batch_size": 7, "drop_last": False, "progress": False}
    spec = ll.Spec(ll.SGD(0.1), groups, phases=phases)
    assert len(ll.run(spec, **given, max_steps=7).losses) == 7
    with pytest.raises(ll.SpecError, match="one number has no variance"):
        ll.run(spec, **given, max_steps=8)
