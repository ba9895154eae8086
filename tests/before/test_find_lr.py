"""The search for a rate: the curve of a loop written by hand, every group's ratio kept, and nothing left changed."""

from __future__ import annotations

import importlib
import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.before.curve import LossWatch, find_suggestions, smooth
from layered_lr.before.scaled_specs import scale_group, scale_searched, scale_spec
from layered_lr.data import Batches, load_dataset
from tests.support.isolation import values_of
from tests.support.models import CLASSES, FEATURES, arrays, mlp
from tests.support.searches import SPEC, searched

PARAMETERS = [("1.weight", (8, 12)), ("1.bias", (8,)), ("3.weight", (3, 8)), ("3.bias", (3,))]


@pytest.fixture(scope="module")
def torch_search() -> dict[str, Any]:
    pytest.importorskip("torch")
    return searched("torch-eager")


def test_the_curve_is_that_of_a_loop_by_hand(torch_search: dict[str, Any]) -> None:
    """Rates, losses and the end of a sweep are those of the range test as its authors write it, in plain torch."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = mlp(torch)().double()
    lr = 1e-3 * (30.0 / 1e-3) ** (np.arange(30) / 29)
    batches = Batches(load_dataset(arrays(), None), 8, 0).updates(1)
    body, head = list(net[1].parameters()), list(net[3].parameters())
    optimizer = torch.optim.SGD([{"params": body}, {"params": head}], lr=0.1, momentum=0.9)
    losses, mean, best = [], 0.0, np.inf
    for step, rate in enumerate(lr):
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.25 * rate, 0.5 * rate
        images, labels, _ = next(batches)
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(torch.tensor(images).double()), torch.tensor(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        mean = 0.98 * mean + 0.02 * loss.item()
        smoothed = mean / (1 - 0.98 ** (step + 1))
        best = min(best, smoothed)
        if step and smoothed > 4 * best:
            break
    assert len(torch_search["losses"][0]) == len(losses)
    np.testing.assert_allclose(torch_search["lr"], lr[: len(losses)], rtol=1e-12)
    # The same operations in float64, in another order only inside torch's fused update.
    np.testing.assert_allclose(torch_search["losses"][0], losses, rtol=1e-9)
    np.testing.assert_allclose(torch_search["rates"]["body"], 0.25 * lr[: len(losses)], rtol=1e-12)
    np.testing.assert_allclose(torch_search["rates"]["head"], 0.5 * lr[: len(losses)], rtol=1e-12)


def test_every_backend_finds_the_same_curve() -> None:
    pytest.importorskip("oneflow")
    first, *others = values_of(searched, [(name, 1.0) for name in ("torch-eager", "oneflow-eager", "oneflow-graph")])
    assert len(first["lr"]) == 30 and not any(first["stopped"])
    for other in others:
        np.testing.assert_allclose(other["losses"], first["losses"], rtol=1e-9)  # float64, in another order
        for group, rates in first["rates"].items():
            np.testing.assert_allclose(other["rates"][group], rates, rtol=1e-12)


def test_a_suggested_spec_is_the_plan_times_a_factor() -> None:
    """Of every schedule with rates of its own; the ratio of any two groups stays."""
    for schedule in (
        ll.CosineAnnealingLR(10, eta_min=0.01),
        ll.OneCycleLR(0.4, cycle_momentum=False),
        ll.CyclicLR(0.01, 0.1, 3, cycle_momentum=False),
        ll.CosineDecay(warmup_steps=2, min_lr=0.01, warmup_lr=0.001),
        ll.Warmup(2, ll.CosineAnnealingWarmRestarts(3, eta_min=0.01)),
        ll.SequentialLR([ll.ConstantLR(0.5, 2), ll.Table([0.3] * 20)], [2]),
        ll.ChainedScheduler([ll.StepLR(3), ll.CosineAnnealingLR(10, eta_min=0.01)]),
        None,
    ):
        groups = [
            ll.Group("1", lr_scale=0.25),
            ll.Group("3", lr=0.5, schedule=ll.OneCycleLR(0.2, cycle_momentum=False)),
        ]
        phases = [ll.Phase("3 steps", trained="3", optimizer=ll.Adam(0.01)), ll.Phase()]
        spec = ll.Spec(ll.SGD(0.1), groups, schedule, phases=phases)
        before, after = (ll.resolve(one, PARAMETERS, total_steps=12).table() for one in (spec, scale_spec(spec, 0.3)))
        np.testing.assert_allclose(after, 0.3 * before, rtol=1e-12, atol=0)


def test_a_suggested_spec_of_one_group_changes_that_group_alone() -> None:
    phases = [ll.Phase("3 steps", optimizer=ll.Adam(0.01)), ll.Phase(groups=[ll.Group("1", lr=0.2)])]
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("1", lr_scale=0.25)], ll.CosineDecay(min_lr=0.01), phases=phases)
    before = ll.resolve(spec, PARAMETERS, total_steps=8).table()
    for column, name in enumerate(("1", "rest")):
        after = ll.resolve(scale_group(spec, name, 3.0), PARAMETERS, total_steps=8).table()
        factors = np.where(np.arange(2) == column, 3.0, 1.0)
        np.testing.assert_allclose(after, factors * before, rtol=1e-12)


@pytest.mark.parametrize("schedule", [None, ll.CosineDecay(min_lr=0.01)])
@pytest.mark.parametrize(("number", "group"), list(itertools.product((1, 2, 3, 4), (None, "1", "rest"))))
def test_phases_with_another_optimizer_keep_their_rates(schedule: Any, number: int, group: str | None) -> None:
    """A rate that was found for AdamW in the second phase was given to SGD in the first one too, times 40."""
    phases = [
        ll.Phase("3 steps"),
        ll.Phase("6 steps", optimizer=ll.AdamW(0.01), groups=[ll.Group("1", lr=0.2)], weight_decay=0.1),
        ll.Phase("9 steps", optimizer=ll.AdamW(0.01), schedule=ll.CosineAnnealingLR(5, eta_min=0.001)),
        ll.Phase("12 steps"),
    ]
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("1", lr=0.3)], schedule, phases=phases)
    scaled = scale_searched(spec, number, group, 3.0)
    before, after = (ll.resolve(one, PARAMETERS, total_steps=14) for one in (spec, scaled))
    factors = np.ones((14, 2))
    changed = [range(3), range(9, 14)] if number in (1, 4) else [range(3, 9)]
    for steps in changed:
        factors[steps, slice(None) if group is None else [one.name for one in before.groups].index(group)] = 3.0
    np.testing.assert_allclose(after.table(), factors * before.table(), rtol=1e-12)
    decays = [
        [[each.optimizer.weight_decay for each in one.groups] for one in plan.phase_plans] for plan in (before, after)
    ]
    assert decays[0] == decays[1]


def test_the_ratios_hold_where_schedules_set_rates_themselves() -> None:
    spec = ll.Spec(ll.SGD(0.9), [ll.Group("1", lr_scale=0.1)], ll.OneCycleLR(0.4, cycle_momentum=False))
    search = _search(spec)
    assert search.base == pytest.approx(0.4) and search.scales == pytest.approx({"1": 0.1, "rest": 1.0})
    assert search.spec_at(0.2).schedule == ll.OneCycleLR(0.2, cycle_momentum=False)


def test_one_group_alone() -> None:
    search = _search(ll.Spec(ll.SGD(0.1), [ll.Group("1", lr_scale=0.5, name="body")]), group="body", end=1.0)
    np.testing.assert_allclose(search.rates["body"], search.lr, rtol=1e-12)
    assert (search.rates["rest"] == 0.1).all() and search.fixed == {"rest": 0.1} and search.base == 0.05
    spec = search.spec_at(0.2)
    assert ll.resolve(spec, PARAMETERS).lr(0) == pytest.approx({"body": 0.2, "rest": 0.1})
    rest = _search(ll.Spec(ll.SGD(0.1), [ll.Group("1", lr_scale=0.5, name="body")]), group="rest", end=1.0)
    assert ll.resolve(rest.spec_at(0.4), PARAMETERS).lr(0) == pytest.approx({"body": 0.05, "rest": 0.4})


def test_phases_freeze_what_they_freeze() -> None:
    phases = [ll.Phase("1 epoch", trained="head", optimizer=ll.Adam(0.01)), ll.Phase()]
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("1", name="body"), ll.Group("3", name="head")], phases=phases)
    first, second = _search(spec, phase=1, end=0.1), _search(spec, phase=2, end=0.1)
    assert (first.rates["body"] == 0).all() and (second.rates["body"] > 0).all()
    assert first.base == 0.01 and second.base == 0.1
    with pytest.raises(ll.SpecError, match="frozen"):
        _search(spec, group="body", phase=1)


def test_the_data_and_the_first_weights_are_read_once_for_all_seeds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    start = {name: tensor.numpy() for name, tensor in mlp(torch)().state_dict().items()}
    np.savez(tmp_path / "start.npz", **start)
    np.savez(tmp_path / "data.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays(), strict=True)))
    opened: list[str] = []

    def counting(module: str, name: str) -> None:
        read = getattr(importlib.import_module(module), name)

        def counted(source: Any, *more: Any) -> Any:
            opened.append(Path(source).name)
            return read(source, *more)

        monkeypatch.setattr(f"{module}.{name}", counted)

    counting("layered_lr.models.weight_files", "read_archive")
    counting("layered_lr.training.prepare", "load_dataset")
    spec, weights = ll.Spec(ll.SGD(0.1)), ll.InitialWeights(tmp_path / "start.npz")
    given = {"data": str(tmp_path / "data.npz"), "initial_weights": weights}
    search = _search(spec, seeds=3, end=0.5, **given)
    assert sorted(opened) == ["data.npz", "start.npz"]
    monkeypatch.undo()
    alone = _search(spec, seeds=[2], end=0.5, **given)
    np.testing.assert_array_equal(search.losses[2], alone.losses[0])


def test_seeds_make_a_band() -> None:
    search = _search(ll.Spec(ll.SGD(0.1)), seeds=3, end=0.5)
    assert search.seeds == (0, 1, 2) and search.losses.shape == (3, len(search.lr))
    low, high = search.band
    assert (low <= search.mean).all() and (search.mean <= high).all() and (low < high).any()
    alone = _search(ll.Spec(ll.SGD(0.1)), seeds=[2], end=0.5)
    assert (alone.losses[0] == search.losses[2]).all()


def test_a_model_of_the_users_stays_as_it_was() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Flatten(1), torch.nn.BatchNorm1d(FEATURES), torch.nn.Linear(FEATURES, CLASSES))
    net.eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    _search(ll.Spec(ll.SGD(0.1)), model=lambda: net)
    assert all((net.state_dict()[name] == tensor).all() for name, tensor in before.items())
    assert not net.training


def test_a_buffer_that_a_module_replaces_is_put_back() -> None:
    torch = pytest.importorskip("torch")

    class Counting(torch.nn.Linear):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("calls", torch.zeros(()), persistent=False)

        def forward(self, inputs: Any) -> Any:
            self.calls = self.calls + 1
            return super().forward(inputs)

    net = Counting()
    calls = net.calls
    ll.find_lr(ll.Spec(ll.SGD(0.1)), net, batches=[(torch.ones(2, 2), torch.tensor([0, 1]))], end=0.1, steps=10)
    assert net.calls is calls and float(calls) == 0


class _Steps:
    """A loop of the user's own: everything in it that a search could change."""

    def __init__(self, torch: Any) -> None:
        self.torch = torch
        torch.manual_seed(3)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(FEATURES, 8), torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.3), torch.nn.Linear(8, CLASSES)
        )
        self.net[0].bias.requires_grad_(False)
        inputs, targets = torch.randn(24, FEATURES), torch.arange(24) % CLASSES
        data = torch.utils.data.TensorDataset(inputs, targets)
        generator = torch.Generator().manual_seed(5)
        self.loader = torch.utils.data.DataLoader(data, batch_size=8, shuffle=True, generator=generator)
        self.optimizer, self.scheduler = ll.compile(ll.Spec(ll.SGD(0.1, momentum=0.9)), self.net)

    def epoch(self) -> list[float]:
        losses = []
        for inputs, targets in self.loader:
            self.optimizer.zero_grad()
            loss = self.torch.nn.functional.cross_entropy(self.net(inputs), targets)
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            losses.append(loss.item())
        return [*losses, random.random(), float(np.random.rand()), float(self.torch.rand(()))]


def test_a_loop_of_ones_own_goes_on_as_if_nothing_had_been() -> None:
    torch = pytest.importorskip("torch")
    outcomes = []
    for searches in (False, True):
        random.seed(1)
        np.random.seed(1)
        steps = _Steps(torch)
        steps.epoch()
        gradient = steps.net[3].weight.grad
        if searches:
            spec = ll.Spec(ll.SGD(0.1), [ll.Group("0", lr_scale=0.1), ll.Group("3")])
            search = ll.find_lr(spec, steps.net, batches=steps.loader, start=1e-3, end=100.0, steps=20, stop_factor=1.5)
            assert search.backend == "own loop" and search.stopped[0]
            np.testing.assert_allclose(search.rates["0"], 0.1 * search.lr, rtol=1e-12)
            assert steps.net[3].weight.grad is gradient
        outcomes.append(steps.epoch())
    assert outcomes[0] == outcomes[1]


def test_losses_of_other_kinds_in_a_loop_of_ones_own() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    net = torch.nn.Linear(4, 1)
    batches = [{"x": torch.randn(8, 4), "y": torch.randn(8, 1)}]
    spec, said = ll.Spec(ll.SGD(0.1)), {"start": 1e-4, "end": 0.1, "steps": 12}

    def batch_loss(model: Any, batch: Any) -> Any:
        return torch.nn.functional.mse_loss(model(batch["x"]), batch["y"])

    one = ll.find_lr(spec, net, batches=batches, batch_loss=batch_loss, **said)
    pairs = [(batch["x"], batch["y"]) for batch in batches]
    other = ll.find_lr(spec, net, batches=pairs, loss_fn=torch.nn.functional.mse_loss, **said)
    assert (one.losses == other.losses).all() and len(one.lr) == 12


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"start": 0}, "start must be"),
        ({"start": 1.0, "end": 0.1}, "start must be below end"),
        ({"end": float("nan")}, "end must be"),
        ({"end": "high"}, "end must be"),
        ({"start": 1e-300, "end": 1e300}, "too far apart"),
        ({"steps": 3}, "steps must be"),
        ({"steps": 10**6}, "at most"),
        ({"group": "hed"}, "Did you mean 'head'"),
        ({"group": 3}, "a group's name"),
        ({"phase": 2}, "phase=2"),
        ({"seeds": 0}, "seeds"),
        ({"seeds": [1, 1]}, "seeds"),
        ({"seeds": "three"}, "seeds"),
        ({"smoothing": 1.0}, "below 1"),
        ({"stop_factor": 1.0}, "more than 1|> 1"),
        ({"checkpoints": "run"}, "no meaning here"),
        ({"bach_size": 8}, "batch_size"),
        ({"total_steps": 8}, "batches"),
        ({"loss_fn": abs}, "batches"),
        ({"backend": "torch"}, "torch-eager"),
    ],
)
def test_what_cannot_be_is_one_clear_error(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ll.SpecError, match=why):
        _search(ll.Spec(ll.SGD(0.1), [ll.Group("3", name="head")]), **given)


def test_what_cannot_be_in_a_loop_of_ones_own() -> None:
    torch = pytest.importorskip("torch")
    net, pair = torch.nn.Linear(2, 2), (torch.ones(2, 2), torch.tensor([0, 1]))
    spec = ll.Spec(ll.SGD(0.1))

    def pairs() -> Iterator[Any]:
        yield pair

    wrong: list[tuple[Any, dict[str, Any], str]] = [
        (pairs(), {}, "used up"),
        ([], {}, "no batch"),
        (3, {}, "list of batches"),
        ([pair[0]], {}, r"must be \(inputs, targets\)"),
        ([pair], {"loss_fn": lambda answer, targets: answer}, "one number"),
        ([pair], {"loss_fn": lambda answer, targets: 3.0}, "one number"),
        ([pair], {"loss_fn": lambda answer, targets: answer.wrong}, "cannot be computed"),
        ([pair], {"loss_fn": 3}, "must be a function"),
        ([pair], {"batch_size": 3}, "no meaning here"),
        ([pair], {"loss_fn": abs, "batch_loss": abs}, "not both"),
    ]
    for batches, given, why in wrong:
        with pytest.raises(ll.SpecError, match=why):
            ll.find_lr(spec, net, batches=batches, **given)
    with pytest.raises(ll.SpecError, match=r"batches=\.\.\."):
        ll.find_lr(spec, net)
    with pytest.raises(ll.SpecError, match="first guess"):
        ll.find_lr(ll.Spec(ll.SGD(0.0)), net, batches=[pair])
    with pytest.raises(ll.Unsupported, match="LBFGS"):
        ll.find_lr(ll.Spec(ll.LBFGS(0.1)), net, batches=[pair])
    with pytest.raises(ll.TrainingDiverged, match="first loss"):
        ll.find_lr(spec, net, batches=[(pair[0] * np.nan, pair[1])])


def test_a_loss_that_is_not_finite_ends_the_sweep() -> None:
    spec = ll.Spec(ll.SGD(0.1, weight_decay=1.0))
    search = _search(spec, start=1e-2, end=1e30, stop_factor=float("inf"))
    assert "not finite" in search.stopped[0] and np.isfinite(search.losses).all() and len(search.lr) < 30


def test_suggestions_lie_where_they_say() -> None:
    lr = np.geomspace(1e-4, 10, 101)
    curve = 2 - np.exp(-(np.log10(lr) ** 2) * 2)  # lowest at 1, steepest at 10 ** -0.5
    found = {name: rate for name, _, rate in find_suggestions(lr, curve)}
    assert found["tenth"] == pytest.approx(0.1) and found["steepest"] == pytest.approx(10**-0.5, rel=0.1)
    assert 0.01 < found["valley"] < 1
    assert not list(find_suggestions(lr, np.linspace(1, 2, 101)))


@pytest.mark.parametrize("smoothing", [0.0, 0.9, 0.98])
def test_noise_suggests_nothing_and_a_fall_in_it_does(smoothing: float) -> None:
    lr, rng = np.geomspace(1e-6, 1, 100), np.random.default_rng(0)
    fall = np.interp(np.arange(100), [0, 30, 80, 100], [0.0, 0.0, 1.0, 1.0])
    judged = []
    for _ in range(20):
        noise = 2 + 0.1 * rng.standard_normal(100)
        flat, falling, rising = (_curve(lr, (noise + part)[None], smoothing) for part in (0, -fall, fall))
        judged.append(not flat.suggestions and any("does not react to these rates" in note for note in flat.notes))
        assert list(falling.suggestions) == ["valley", "steepest", "tenth"] and not _are_guesses(falling)
        assert not rising.suggestions or _are_guesses(rising)
    assert sum(judged) >= 18  # one in a hundred has a fall by chance, or a rise
    seeds = _curve(lr, 2 + 0.1 * rng.standard_normal((4, 100)), smoothing)
    assert not seeds.suggestions and "does not react" in seeds.notes[0]


def _are_guesses(search: ll.RateSearch) -> bool:
    return any("the suggestions are guesses" in note for note in search.notes)


def _curve(lr: Any, losses: Any, smoothing: float) -> ll.RateSearch:
    """A search that found these losses."""
    about: dict[str, Any] = {"group": None, "base": 0.1, "scales": {"rest": 1.0}, "fixed": {}, "rates": {}}
    seeds = {"seeds": tuple(range(len(losses))), "stopped": ("",) * len(losses)}
    found = {"lr": lr, "losses": losses, "smoothing": smoothing, "stop_factor": 4.0}
    return ll.RateSearch("torch-eager", ll.Spec(ll.SGD(0.1)), **about, **found, **seeds)


def test_a_loss_that_depends_on_nothing_that_trains_suggests_no_rate() -> None:
    torch = pytest.importorskip("torch")

    class Dead(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.trained, self.used = torch.nn.Linear(FEATURES, CLASSES), torch.nn.Linear(FEATURES, CLASSES)
            self.used.requires_grad_(False)

        def forward(self, images: Any) -> Any:
            flat = images.flatten(1)
            return self.used(flat) + 0 * self.trained(flat)

    for given in ({"model": Dead}, {"start": 1e-12, "end": 1e-10, "steps": 12}):
        search = _search(ll.Spec(ll.SGD(0.1)), **given)
        with pytest.raises(ll.SpecError, match=r"does not react to these rates: .* End higher, with end="):
            _ = search.suggestion


def test_the_smoothed_loss_is_that_of_the_range_test() -> None:
    losses = np.array([2.0, 1.5, 1.0, 3.0])
    weights = [0.9 ** (3 - place) for place in range(4)]
    assert smooth(losses, 0.9)[-1] == pytest.approx(np.average(losses, weights=weights))
    watch = LossWatch(0.0, 4.0)
    assert [watch.add(loss) and watch.is_over for loss in (1.0, 3.9, 4.1)] == [False, False, True]


def test_a_search_is_saved_and_read_again(tmp_path: Path) -> None:
    search = _search(SPEC, seeds=2, end=100.0, batch_size=40)  # all images, so that the loss falls clearly
    search.save(tmp_path / "search.json")
    again = ll.RateSearch.load(tmp_path / "search.json")
    assert again.to_dict() == search.to_dict() and again.suggestion.spec == search.suggestion.spec
    assert str(again) == str(search) and "valley" in str(search)
    search.save(tmp_path / "search.json")
    (tmp_path / "mine.json").write_text('{"lr": 3}')
    with pytest.raises(ll.SpecError, match="that this library has not written"):
        search.save(tmp_path / "mine.json")
    (tmp_path / "other.json").write_text('{"format": "layered_lr.RateSearch 1", "lr": 3}')
    with pytest.raises(ll.CheckpointError, match="not a readable search"):
        ll.RateSearch.load(tmp_path / "other.json")
    with pytest.raises(ll.CheckpointError, match="no such file"):
        ll.RateSearch.load(tmp_path / "none.json")


@pytest.mark.parametrize("value", [None, "0.1", 0, -1.0, float("nan"), float("inf"), True])
def test_a_rate_of_the_curve_is_a_number_above_zero(value: Any) -> None:
    search = _search(SPEC)
    for method in (search.spec_at, search.rates_at):
        with pytest.raises(ll.SpecError, match="must be a finite number > 0"):
            method(value)


@pytest.mark.parametrize(
    "changes", [{"smoothing": 1.0}, {"smoothing": "nan"}, {"stop_factor": -1}, {"phase": 0}, {"phase": 2}]
)
def test_a_table_with_settings_of_no_search_is_refused(changes: dict[str, Any]) -> None:
    table = _search(SPEC).to_dict()
    assert ll.RateSearch.from_dict(table).phase == 1
    with pytest.raises(ll.SpecError, match="not a readable search"):
        ll.RateSearch.from_dict({**table, **changes})


def test_an_early_stop_of_the_run_does_not_end_a_sweep() -> None:
    search = _search(SPEC, early_stop=ll.EarlyStop(time_limit=1e-6))
    np.testing.assert_array_equal(search.losses, _search(SPEC).losses)
    assert search.options["early_stop"] is not None  # of the recipe that is written


def test_the_page_holds_everything(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    search = _search(SPEC, end=100.0, batch_size=40)
    text = search.to_html(tmp_path / "lr.html")
    assert (tmp_path / "lr.html").read_text() == text == search.to_html(tmp_path / "lr.html")
    (tmp_path / "mine.html").write_text(text.replace("layered_lr", "mine"))
    with pytest.raises(ll.SpecError, match="that this library has not written"):
        search.to_html(tmp_path / "mine.html")
    assert "<svg" in text and "src=" not in text and "http" not in text.replace("http://www.w3.org", "")
    assert "head" in text and f"{search.suggestion.lr:.3g}" in text


def _search(spec: ll.Spec, **settings: Any) -> ll.RateSearch:
    torch = pytest.importorskip("torch")
    said = {"model": mlp(torch), "start": 1e-3, "end": 10.0, "steps": 30, "batch_size": 8, "progress": False}
    return ll.find_lr(spec, **{"data": arrays(), **said, **settings})


def test_a_phase_of_a_loop_of_ones_own_leaves_no_freezing_behind() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("2", name="head")], phases=[ll.Phase("5 steps", trained="head"), ll.Phase()])
    torch.manual_seed(0)
    batches = [(torch.randn(8, 4), torch.arange(8) % 2)]
    hooks = [len(module._forward_pre_hooks) for module in net.modules()]
    before = [tensor.clone() for tensor in net.state_dict().values()]
    search = ll.find_lr(spec, net, batches=batches, start=1e-3, end=0.5, steps=12)
    assert (search.rates["rest"] == 0).all() and (search.rates["head"] > 0).all()
    assert all(parameter.requires_grad for parameter in net.parameters()) and all(m.training for m in net.modules())
    assert [len(module._forward_pre_hooks) for module in net.modules()] == hooks
    assert all((one == other).all() for one, other in zip(before, net.state_dict().values(), strict=True))
