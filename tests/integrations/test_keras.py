"""Keras 3 on torch: fit() trains with a spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr_torch.integrations.keras import make_optimizer
from tests.support.trainers import BATCHES, EPOCHS, Record, make_data, make_phases, make_plan, make_plateau, make_spec

keras = pytest.importorskip("keras")


def make_model(spec: ll.Spec, each: int = 1, norm: bool = False, policy: str = "float32") -> Any:
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(policy)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(12, name="stem", activation="relu"),
            *([layers.BatchNormalization(name="norm")] if norm else []),
            layers.Dense(12, name="body", activation="relu"),
            layers.Dense(3, name="head", dtype="float32"),
        ]
    )
    keras.config.set_dtype_policy("float32")
    updates = BATCHES // each
    optimizer = make_optimizer(spec, model, updates * EPOCHS, updates, gradient_accumulation_steps=each)
    model.compile(optimizer=optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.record = Record(optimizer.torch_optimizer)
    return model


def glob(spec: ll.Spec) -> ll.Spec:
    """The spec for Keras' names: ``_functional._torch_params.sequential/stem/kernel``."""
    from dataclasses import replace

    groups = [replace(group, match=f"*{group.match}/*") for group in spec.groups]
    phases = [replace(phase, frozen="*stem/*") if phase.frozen else phase for phase in spec.phases]
    return replace(spec, groups=groups, phases=phases)


def fit(model: Any, start: int = 0, epochs: int = EPOCHS, callbacks: Any = ()) -> None:
    xs, ys = (np.stack([np.asarray(row[place]) for row in make_data()]) for place in (0, 1))
    model.fit(
        xs, ys, batch_size=8, epochs=epochs, initial_epoch=start, shuffle=False, verbose=0, callbacks=list(callbacks)
    )


@pytest.mark.parametrize(
    "spec", [make_spec(), make_phases(), make_spec(clip_grad_norm=0.3)], ids=["plain", "phases", "clip"]
)
@pytest.mark.parametrize(
    ("each", "policy"),
    [(1, "float32"), (3, "float32"), (1, "mixed_bfloat16")],
    ids=["plain", "accumulation", "bfloat16"],
)
def test_each_update_has_the_rates_of_the_plan(spec: ll.Spec, each: int, policy: str) -> None:
    model = make_model(glob(spec), each, policy=policy)
    fit(model)
    model.record.check(make_plan(glob(spec), each, model))


def test_accumulation_averages_gradients() -> None:
    """Three batches at once, and one after the other."""
    spec = ll.Spec(ll.SGD(0.5))
    apart, together = make_model(spec, each=3), make_model(spec)
    xs, ys = (np.stack([np.asarray(row[place]) for row in make_data()]) for place in (0, 1))
    apart.fit(xs, ys, batch_size=8, shuffle=False, verbose=0)
    together.fit(xs, ys, batch_size=24, shuffle=False, verbose=0)
    for one, other in zip(apart.get_weights(), together.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)  # sums in another order


def test_a_phase_freezes() -> None:
    model = make_model(glob(make_phases()))
    before = model.get_layer("stem").get_weights()
    fit(model, epochs=1)
    assert all(np.array_equal(a, b) for a, b in zip(before, model.get_layer("stem").get_weights(), strict=True))
    fit(model, 1)
    assert not np.array_equal(before[0], model.get_layer("stem").get_weights()[0])


def test_a_phase_that_cannot_hold_a_batch_normalisation_still_is_refused() -> None:
    with pytest.raises(ll.Unsupported, match=r"layer\.trainable"):
        make_model(ll.Spec(ll.SGD(0.1), phases=[ll.Phase("1 epoch", frozen=["*stem/*", "*norm/*"])]), norm=True)
    fit(make_model(glob(make_phases()), norm=True))  # the batch normalisation is not frozen


def test_a_metric_reaches_the_schedule() -> None:
    model = make_model(glob(make_plateau()))
    tell = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: model.optimizer.scheduler.step(metrics=logs["loss"])
    )
    fit(model, callbacks=[tell])
    model.record.check_plateau()


@pytest.mark.parametrize("spec", [make_spec(), make_phases()], ids=["plain", "phases"])
@pytest.mark.parametrize("stop", [1, 2])
@pytest.mark.parametrize("each", [1, 3])
def test_its_weights_file_goes_on_bitwise(spec: ll.Spec, stop: int, each: int, tmp_path: Path) -> None:
    whole, first, second = (make_model(glob(spec), each) for _ in range(3))
    fit(whole)
    fit(first, epochs=stop)
    first.save_weights(tmp_path / "saved.weights.h5")
    second.load_weights(tmp_path / "saved.weights.h5")
    fit(second, stop)
    assert whole.record.rates == first.record.rates + second.record.rates
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), second.get_weights(), strict=True))


def test_back_up_and_restore_goes_on_bitwise(tmp_path: Path) -> None:
    class Crash(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 2:
                raise InterruptedError

    whole, first, second = (make_model(glob(make_spec())) for _ in range(3))
    fit(whole)
    with pytest.raises(InterruptedError):
        fit(first, callbacks=[keras.callbacks.BackupAndRestore(tmp_path), Crash()])
    fit(second, callbacks=[keras.callbacks.BackupAndRestore(tmp_path)])
    assert whole.record.rates == first.record.rates + second.record.rates
    assert all(np.array_equal(a, b) for a, b in zip(whole.get_weights(), second.get_weights(), strict=True))
