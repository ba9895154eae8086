"""Pictures and sparklines of plans: what is drawn is what is planned, at any length."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.plans.picture import inline_svg
from layered_lr.plans.picture_marks import warmup_of
from layered_lr.reports.curves import outlines, sparklines

pytest.importorskip("matplotlib")
ROOT = Path(__file__).parents[2]
NAMES = [("stem.weight", (4, 3)), ("body.weight", (4, 4)), ("head.weight", (2, 4))]


def three(total: int = 400, **settings: Any) -> ll.Plan:
    groups = [
        ll.Group("stem", lr_scale=0.1, schedule=ll.StepLR(2, gamma=0.5, unit="epoch")),
        ll.Group("body", schedule=ll.CosineAnnealingLR(total, eta_min=1e-3)),
        ll.Group("head", schedule=ll.OneCycleLR(max_lr=0.2, cycle_momentum=False)),
    ]
    return ll.resolve(ll.Spec(ll.SGD(0.1), groups), NAMES, total, settings.get("per_epoch", 40))


def sixty() -> ll.Plan:
    names = [(f"block{number:02}.weight", (2,)) for number in range(60)]
    groups = [ll.Group(f"block{number:02}", lr_scale=0.9 ** (59 - number)) for number in reversed(range(60))]
    return ll.resolve(ll.Spec(ll.SGD(0.1), groups, ll.CosineAnnealingLR(100, eta_min=0.01)), names, 100, 10)


def spiked(total: int, places: dict[int, float]) -> ll.Plan:
    values = np.full(total, 0.05)
    for place, value in places.items():
        values[place] = value
    return ll.resolve(ll.Spec(ll.SGD(0.1), schedule=ll.Table(values)), NAMES, total)


def drawn(axes: Any) -> dict[str, Any]:
    """The lines of the groups by label."""
    return {line.get_label(): line for line in axes.get_lines() if not line.get_label().startswith("_")}


def test_each_line_is_the_planned_rate_at_every_step() -> None:
    plan = three()
    lines = drawn(plan.plot())
    assert list(lines) == ["stem", "body", "head"]
    for column, line in enumerate(lines.values()):
        assert np.array_equal(line.get_xdata(), np.arange(400))
        assert np.array_equal(line.get_ydata(), plan.table()[:, column])


@pytest.mark.parametrize("total", [6001, 65_536, 200_003])
def test_a_long_run_is_drawn_with_few_points_each_of_them_planned(total: int) -> None:
    plan = three(total)
    for column, line in enumerate(drawn(plan.plot()).values()):
        steps = np.asarray(line.get_xdata())
        assert len(steps) <= 6000 and steps[0] == 0 and steps[-1] == total - 1 and (np.diff(steps) > 0).all()
        assert np.array_equal(line.get_ydata(), plan.table()[steps, column])


@pytest.mark.parametrize("total", [9973, 131_072, 1_000_000])
@pytest.mark.parametrize("parts", [7, 1500])
def test_no_spike_is_lost(total: int, parts: int) -> None:
    spikes = {0: 0.07, total // 3: 0.0, total // 2: 0.3, total - 2: 0.01, total - 1: 0.09}
    ((steps, rates),) = outlines(spiked(total, spikes), parts)
    found = dict(zip(steps.tolist(), rates.tolist(), strict=True))
    assert spikes.items() <= found.items() and len(steps) <= 4 * parts


def test_every_part_keeps_its_lowest_and_highest() -> None:
    rates = np.random.default_rng(0).random(100_000)
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), schedule=ll.Table(rates)), NAMES, len(rates))
    ((steps, kept),) = outlines(plan, 97)
    width = -(-len(rates) // 97)
    for start in range(0, len(rates), width):
        mine = kept[(steps >= start) & (steps < start + width)]
        part = rates[start : start + width]
        assert mine.min() == part.min() and mine.max() == part.max() and mine[0] == part[0] and mine[-1] == part[-1]


def test_the_axis_is_log_beyond_two_decades() -> None:
    def scale(*scales: float, **settings: Any) -> str:
        groups = [ll.Group(name.split(".")[0], lr_scale=s) for (name, _), s in zip(NAMES, scales, strict=True)]
        return str(ll.resolve(ll.Spec(ll.SGD(1.0), groups), NAMES, 5).plot(**settings).get_yscale())

    assert scale(1, 0.5, 0.011) == "linear" and scale(1, 0.5, 0.009) == "log"
    assert scale(1, 0.001, 0) == "symlog", "a frozen group is on the bottom edge, and the others are told apart"
    assert scale(1, 1, 1, scale="log") == "log" and scale(1, 0, 0.001, scale="log") == "symlog"
    assert scale(1, 1, 0.001, scale="linear") == "linear"
    with pytest.raises(ll.SpecError, match=r"scale='cubic'.*'auto', 'log', 'linear'"):
        scale(1, 1, 1, scale="cubic")
    with pytest.raises(ll.SpecError, match="every rate is 0"):
        scale(0, 0, 0, scale="log")


def test_the_axis_is_log_where_most_groups_would_lie_on_the_bottom() -> None:
    def scale(spec: ll.Spec) -> str:
        return str(ll.resolve(spec, NAMES, 100).plot().get_yscale())

    cosine, deep = ll.CosineAnnealingLR(100), ll.Group("stem", lr_scale=0.05)
    assert scale(ll.Spec(ll.SGD(0.1), schedule=cosine)) == "linear", "its end at almost 0 is not what it shows"
    assert scale(ll.Spec(ll.SGD(0.1), [deep])) == "linear", "one of two groups"
    assert scale(ll.Spec(ll.SGD(0.1), [deep, ll.Group("body", lr_scale=0.02)])) == "log", "two of three"
    assert scale(ll.Spec(ll.SGD(0.1), schedule=ll.ExponentialLR(0.9))) == "log", "most of the run is near 0"


def test_what_is_frozen_is_drawn_at_zero_with_a_note() -> None:
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("stem", lr_scale=1e-4)], phases=[ll.Phase(5, frozen="stem"), ll.Phase()])
    axes = ll.resolve(spec, NAMES, 10).plot()
    low, high = axes.get_ylim()
    assert low < 0 < high and axes.get_yticks()[0] == 0 and "rate 0 (frozen)" in axes.get_xlabel()
    assert drawn(axes)["stem"].get_ydata()[:5].tolist() == [0.0] * 5


@pytest.mark.parametrize(("epochs", "marks"), [(1, [0, 1]), (6, list(range(7))), (300, list(range(0, 301, 50)))])
def test_epochs_are_marked_and_can_be_counted(epochs: int, marks: list[int]) -> None:
    axes = ll.resolve(ll.Spec(ll.SGD(0.1)), NAMES, epochs * 40, 40).plot()
    (above,) = axes.child_axes
    assert above.get_xlabel() == "epoch" and above.get_xticks().tolist() == marks
    lines = [
        line.get_xdata()[0] for line in axes.get_lines() if line.get_ydata()[-1] == 1 and line.get_color() == "0.88"
    ]
    assert lines == [mark * 40 for mark in marks]


def test_groups_are_named_beside_their_lines_without_overlap() -> None:
    names = [(f"layer{number}.weight", (1,)) for number in range(7)]
    spec = ll.Spec(ll.SGD(0.1), [ll.Group(f"layer{number}") for number in range(7)])
    axes = ll.resolve(spec, names, 10).plot()
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts}
    assert list(heights) == [f"layer{number}" for number in range(7)]
    placed = np.sort(list(heights.values()))
    assert np.diff(placed).min() > 0.05 and placed.max() <= 1
    looks = {(line.get_color(), str(line.get_linestyle())) for line in drawn(axes).values()}
    assert len({colour for colour, _ in looks}) == 7


def test_many_groups_have_a_colorbar_in_the_order_of_the_model() -> None:
    axes = sixty().plot()
    assert len(drawn(axes)) == 60 and list(drawn(axes))[:2] == ["block00", "block01"]
    bar = next(other for other in axes.figure.axes if other is not axes)
    names = [label.get_text() for label in bar.get_yticklabels()]
    assert names[0] == "block00" and names[-1] == "block59" and 5 < len(names) <= 17 and names == sorted(names)


def test_rest_has_a_colour_of_its_own_among_many_groups() -> None:
    names = [(f"block{number:02}.weight", (2,)) for number in range(60)]
    groups = [ll.Group(f"block{number:02}") for number in range(60) if number != 58]
    axes = ll.resolve(ll.Spec(ll.SGD(0.1), groups), names, 10).plot()
    from matplotlib.colors import to_rgb

    lines = drawn(axes)
    rest = np.array(to_rgb(lines.pop("rest").get_color()))
    assert min(np.abs(rest - to_rgb(line.get_color())).max() for line in lines.values()) > 0.3
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["rest"]


def test_one_group_is_named_without_a_line_to_its_name() -> None:
    axes = ll.resolve(ll.Spec(ll.SGD(0.1)), NAMES, 10).plot()
    assert [text.get_text() for text in axes.texts] == ["rest"] and len(axes.get_lines()) == 1


def test_an_axes_of_the_users_own() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    assert three().plot(ax=axes) is axes
    legend = axes.get_legend()
    assert legend is not None and [text.get_text() for text in legend.get_texts()] == ["stem", "body", "head"]


@pytest.mark.parametrize(
    ("schedule", "length"),
    [
        (ll.Constant(), 0),
        (ll.Warmup(30, ll.StepLR(5)), 30),
        (ll.CosineDecay(100, 20), 20),
        (ll.InverseSqrt(10), 10),
        (ll.WSD(5, 10), 5),
        (ll.OneCycleLR(0.1, 100), 29),
        (ll.LinearLR(0.1, 1.0, 7), 7),
        (ll.LinearLR(1.0, 0.1, 7), 0),
        (ll.SequentialLR([ll.LinearLR(0.1, 1.0, 9), ll.StepLR(5)], [6]), 6),
        (ll.ChainedScheduler([ll.LinearLR(0.1, 1.0, 9), ll.StepLR(5)]), 9),
    ],
    ids=repr,
)
def test_the_warmup_is_known(schedule: ll.Schedule, length: float) -> None:
    assert warmup_of(schedule) == length


def test_warmup_is_marked() -> None:
    shared = ll.resolve(ll.Spec(ll.SGD(0.1), schedule=ll.Warmup(3, unit="epoch")), NAMES, 100, 10).plot()
    (patch,) = shared.patches
    assert patch.get_extents().transformed(shared.transData.inverted()).x1 == pytest.approx(30)
    groups = [ll.Group("stem", schedule=ll.Warmup(20)), ll.Group("body", schedule=ll.Warmup(50))]
    own = ll.resolve(ll.Spec(ll.SGD(0.1), groups), NAMES, 100).plot()
    rings = [line for line in own.get_lines() if line.get_label() == "_warm-up"]
    assert [(ring.get_xdata()[0], ring.get_ydata()[0]) for ring in rings] == [(20, 0.1), (50, 0.1)]


@pytest.mark.parametrize("total", [0, 1, 2])
@pytest.mark.parametrize("lr", [0.0, 0.1])
def test_the_shortest_runs_can_be_drawn_and_printed(total: int, lr: float) -> None:
    plan = ll.resolve(ll.Spec(ll.SGD(lr), schedule=ll.Warmup(5)), NAMES, total, 3)
    plan.plot().figure.savefig(io.BytesIO())
    assert len(sparklines(plan)[0]) == total and "rest" in str(plan)


def test_names_are_drawn_as_they_are_written() -> None:
    groups = [ll.Group("stem", name="$x_1$ & <b>"), ll.Group("body", name="β" * 80), ll.Group("head", name="_h")]
    axes = ll.resolve(ll.Spec(ll.SGD(0.1), groups), NAMES, 9).plot()
    axes.figure.savefig(io.BytesIO())
    assert axes.texts[0].get_text() == r"\$x_1\$ & <b>" and len(axes.texts[1].get_text()) <= 32


def test_the_same_plan_gives_the_same_svg() -> None:
    svg = inline_svg(three())
    assert svg == inline_svg(three()) and svg.startswith("<svg") and "http" not in svg


def test_no_global_state_and_no_display_is_needed(tmp_path: Path) -> None:
    code = (
        "import sys, layered_lr as ll\n"
        "plan = ll.resolve(ll.Spec(ll.SGD(0.1)), [('w', (1,))], 10)\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plan.plot().figure.savefig('p.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment(), timeout=600)


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ll.LayeredLRError, match=re.escape("pip install 'layered-lr[plot]'")):
        three().plot()
    assert "stem" in str(three()) and three().to_csv()


def environment(**more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "LANG", "LC_ALL")}
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "backends")]), **more}


def test_a_run_of_unknown_length_cannot_be_drawn() -> None:
    plan = ll.resolve(ll.Spec(ll.SGD(0.1)), NAMES)
    with pytest.raises(ll.SpecError, match="total_steps"):
        plan.plot()
    assert "rate over the run" not in str(plan)


def test_sparklines_show_each_groups_shape() -> None:
    stem, body, head = sparklines(three(400))
    assert len(stem) == len(body) == len(head) == 16
    assert stem[0] == "█" and stem[-1] == "▁" and list(stem) == sorted(stem, reverse=True)
    assert body[0] == "█" and body[-1] == "▁" and list(body) == sorted(body, reverse=True)
    assert head[0] < "█" and head.index("█") < 6 and head[-1] < head[-2] < "█", "six decades, so on a log scale"
    assert all(line in str(three(400)) for line in (stem, body, head))


def test_sparklines_show_spikes_either_way() -> None:
    line = sparklines(spiked(100_000, {20_000: 1.0, 60_000: 0.0}))[0]
    assert line.count("█") == 1 and line[3] == "█"
    line = sparklines(spiked(100_000, {60_000: 0.0}))[0]
    assert line == "█" * 9 + "▁" + "█" * 6


def test_sparklines_of_rates_that_are_all_the_same() -> None:
    assert sparklines(ll.resolve(ll.Spec(ll.SGD(0.1)), NAMES, 100)) == ["█" * 16]
    assert sparklines(ll.resolve(ll.Spec(ll.SGD(0.0)), NAMES, 100)) == ["▁" * 16]
    assert sparklines(ll.resolve(ll.Spec(ll.SGD(0.1)), NAMES, 3)) == ["█" * 3]


def test_a_very_long_run_is_printed_at_once() -> None:
    plan = ll.resolve(ll.Spec(ll.SGD(0.1), schedule=ll.CosineAnnealingLR(10**12)), NAMES, 10**12)
    line = sparklines(plan)[0]
    assert len(line) == 16 and line[0] == "█" and line[-1] == "▁" and list(line) == sorted(line, reverse=True)


def test_a_rate_that_is_impossible_somewhere_does_not_keep_the_plan_from_being_printed() -> None:
    spec = ll.Spec(ll.SGD(0.1), schedule=ll.Function(lambda step: -1.0 if step == 50 else 0.1))
    plan = ll.resolve(spec, NAMES, 100)
    assert sparklines(plan) == ["?"] and "0.1" in str(plan)


def test_the_default_plan_fits_a_wide_terminal() -> None:
    assert max(map(len, str(ll.plan()).splitlines())) <= 155


@pytest.mark.parametrize(
    ("encoding", "settings"),
    [
        ("utf-8", {"PYTHONIOENCODING": "ascii"}),  # click itself writes UTF-8 where only ASCII is promised
        ("utf-8", {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
        ("latin-1", {"PYTHONIOENCODING": "latin-1"}),
    ],
    ids=str,
)
def test_a_terminal_that_cannot_show_blocks(tmp_path: Path, encoding: str, settings: dict[str, str]) -> None:
    (tmp_path / "r.toml").write_text(
        '[optimizer]\ntype = "SGD"\n[[groups]]\nname = "début λ"\nmatch = "features"\n', encoding="utf-8"
    )
    words = [sys.executable, "-m", "layered_lr", "plan", "--recipe", "r.toml"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(**settings), capture_output=True, timeout=600)
    out = done.stdout.decode(encoding)
    assert done.returncode == 0 and done.stderr == b"" and "rest" in out
    assert "#" * 16 in out and "█" not in out and ("début λ" if encoding == "utf-8" else "début \\u03bb") in out


def test_the_default_c_locale_shows_blocks(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "layered_lr", "plan"]
    done = subprocess.run(words, cwd=tmp_path, env=environment(LC_ALL="C"), capture_output=True, timeout=600)
    assert done.returncode == 0 and "█" in done.stdout.decode(), "Python 3.7 and later take it for UTF-8"
