"""Results that no training made: saved, loaded, printed, and files that are none."""

import dataclasses
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll


def example(**changes: Any) -> ll.Result:
    spec = ll.Spec(
        ll.SGD(0.1, momentum=0.9),
        [ll.Group("a", name="größe/1"), ll.Group("b", optional=True)],
        ll.StepLR(2, gamma=0.5),
    )
    plan = ll.resolve(spec, [("a.weight", (2, 3), ("tied",)), ("head.weight", (3,))], total_steps=5, steps_per_epoch=3)
    table = plan.table()
    made = ll.Result(
        backend="torch-eager",
        plan=plan,
        losses=np.array([2.5, 2.0, 1.5, 1.25, 1.0]),
        rates={group.name: table[:, column] * (1 + 1e-9) for column, group in enumerate(plan.groups)},
        accuracies=np.array([0.5, 0.75]),
        weights={
            "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "head.weight": np.array([np.pi, -0.0, 1e-45]),
            "bn.num_batches_tracked": np.array(5), "file": np.ones(1), "größe": np.zeros((0, 2), np.float16),
        },
        lowering=plan.lowering("torch-eager"),
        seconds_per_step=0.0123,
        first_step_seconds=4.5,
        versions={"torch": "2.14.1", "python": "3.10"},
        options={"epochs": None, "batch_size": 64, "reset_weights": ["a"], "augment": False, "data": "digits"},
        grad_norms=np.array([5.0, 4.0, 3.0, 2.0, np.inf]),
        group_grad_norms={group.name: np.arange(5.0) for group in plan.groups},
        ema_accuracies=np.array([0.25, 0.5]),
        ema_weights={"a.weight": np.ones((2, 3), np.float32), "größe": np.zeros((0, 2), np.float16)},
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def same(one: ll.Result, other: ll.Result) -> bool:
    def arrays(result: ll.Result) -> dict[str, Any]:
        named = {name: getattr(result, name) for name in ("losses", "accuracies", "grad_norms", "ema_accuracies")}
        for what in ("rates", "weights", "group_grad_norms", "ema_weights"):
            named |= {f"{what} of {name}": array for name, array in getattr(result, what).items()}
        return named

    def others(result: ll.Result) -> list[Any]:
        plain = ("backend", "plan", "lowering", "seconds_per_step", "first_step_seconds", "versions", "options")
        return [getattr(result, name) for name in plain]

    first, second = arrays(one), arrays(other)
    return (
        others(one) == others(other)
        and list(first) == list(second)
        and all(a.tobytes() == b.tobytes() and a.dtype == b.dtype and a.shape == b.shape
                for a, b in zip(first.values(), second.values(), strict=True))
    )  # fmt: skip


@pytest.mark.parametrize("name", ["result.npz", "result", "größe é.npz", "a.b.c.result.npz"])
@pytest.mark.parametrize("kind", [str, Path])
def test_nothing_is_lost(tmp_path: Path, name: str, kind: Any) -> None:
    example().save(kind(tmp_path / name))
    assert [path.name for path in tmp_path.iterdir()] == [name], "the file has the name that was asked for"
    again = ll.Result.load(kind(tmp_path / name))
    assert same(again, example()) and str(again) == str(example())
    assert not same(again, example(losses=np.zeros(5))) and not same(again, example(backend="oneflow-eager"))


def test_saving_over_a_result_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    example().save(path)
    ll.Result.load(path).save(path)
    example(accuracies=np.array([0.25])).save(path)
    assert ll.Result.load(path).accuracies.tolist() == [0.25]
    assert [file.name for file in tmp_path.iterdir()] == ["r.npz"]


def test_numpy_opens_it_too(tmp_path: Path) -> None:
    example().save(tmp_path / "r.npz")
    with np.load(tmp_path / "r.npz", allow_pickle=False) as archive:
        assert archive["losses"].tolist() == example().losses.tolist()
        assert np.array_equal(archive["weights/a.weight"], example().weights["a.weight"])


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.npz"
    example().save(path)

    def half(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(ll.CheckpointError, match=r"r\.npz.*No space left"):
        example(losses=np.zeros(5)).save(path)
    assert [file.name for file in tmp_path.iterdir()] == ["r.npz"] and same(ll.Result.load(path), example())


def test_a_save_that_is_interrupted_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(file: Any, **arrays: Any) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", half)
    with pytest.raises(KeyboardInterrupt):
        example().save(tmp_path / "r.npz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["no/such/folder/r.npz", ".", "r.toml/r.npz"])
def test_where_nothing_can_be_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "r.toml").write_text("x")
    with pytest.raises(ll.CheckpointError, match="cannot be written"):
        example().save(tmp_path / name)
    assert [file.name for file in tmp_path.iterdir()] == ["r.toml"]


def test_a_file_that_is_missing_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ll.CheckpointError, match=r"x\.npz.*no such file"):
        ll.Result.load(tmp_path / "x.npz")
    with pytest.raises(ll.CheckpointError, match=tmp_path.name):
        ll.Result.load(tmp_path)


def saved(tmp_path: Path) -> bytes:
    example().save(tmp_path / "good.npz")
    return (tmp_path / "good.npz").read_bytes()


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


def npz(**arrays: Any) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


FOREIGN = {
    "empty": b"", "one byte": b"P", "a text": b"losses: none\n" * 9, "an .npy": npy(), "an .npz": npz(a=np.zeros(3)),
    "no JSON": npz(about=np.array("x")), "JSON of a list": npz(about=np.array("[]")),
    "null": npz(about=np.array("null")),
    "pickled": npz(about=np.array({"format": 1}, object)), "numbers": npz(about=np.arange(3)),
    "an array of texts": npz(about=np.array(["{}", "{}"])),
}  # fmt: skip


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_file_that_is_no_result(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(ll.CheckpointError, match=r"bad\.npz"):
        ll.Result.load(tmp_path / "bad.npz")


def test_a_zip_of_something_else(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "bad.npz", "w", method) as archive:
            archive.writestr("about.npy", "hello" * 20)
            archive.writestr("readme.txt", "hello")
        with pytest.raises(ll.CheckpointError, match=r"bad\.npz"):
            ll.Result.load(tmp_path / "bad.npz")


def test_a_file_cut_off_anywhere(tmp_path: Path) -> None:
    good = saved(tmp_path)
    for length in range(0, len(good), 37):
        (tmp_path / "bad.npz").write_bytes(good[:length])
        with pytest.raises(ll.CheckpointError, match=r"bad\.npz"):
            ll.Result.load(tmp_path / "bad.npz")


def test_a_file_with_a_wrong_byte_anywhere_is_refused_or_harmless(tmp_path: Path) -> None:
    good = saved(tmp_path)
    refused = 0
    for position in range(0, len(good), 11):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        (tmp_path / "bad.npz").write_bytes(bad)
        try:
            again = ll.Result.load(tmp_path / "bad.npz")
        except ll.CheckpointError:
            refused += 1
        else:  # a byte of the archive's own that nobody reads, such as a date
            assert same(again, example()), position
    assert refused > len(good) / 11 / 2


def test_parts_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    saved(tmp_path)
    with np.load(tmp_path / "good.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    about = json.loads(str(arrays["about"]))
    changes: list[dict[str, Any]] = [{name: None} for name in ("losses", "rates", "accuracies", "about")]
    changes += [{"rates": arrays["rates"][:, :2]}, {"rates": arrays["rates"][:3]}, {"losses": arrays["losses"][:3]}]
    changes += [
        {"about": np.array(json.dumps({k: v for k, v in about.items() if k != name}))}
        for name in about
        if name not in ("compile_seconds", "input")
    ]  # which older files lack
    for wrong in ({"plan": 5}, {"plan": {}}, {"groups": 3}, {"format": "layered_lr.Result 99"}):
        changes.append({"about": np.array(json.dumps(about | wrong))})
    plan = about["plan"]
    for wrong in ({"spec": 3}, {"parameters": [["x"]]}, {"parameters": []}, {"total_steps": -1}):
        changes.append({"about": np.array(json.dumps(about | {"plan": plan | wrong}))})
    for change in changes:
        kept = {name: array for name, array in (arrays | change).items() if array is not None}
        np.savez(tmp_path / "bad.npz", **kept)
        with pytest.raises(ll.CheckpointError, match=r"bad\.npz"):
            ll.Result.load(tmp_path / "bad.npz")


def test_differences_are_relative_and_of_each_group() -> None:
    made = example()
    assert list(made.largest_rate_differences()) == ["größe/1", "b", "rest"]
    assert made.largest_rate_differences() == pytest.approx(dict.fromkeys(made.rates, 1e-9), rel=1e-5)
    off = {name: array.copy() for name, array in made.rates.items()}
    off["rest"][3] *= 1.5
    differences = example(rates=off).largest_rate_differences()
    assert differences["rest"] == pytest.approx(0.5, rel=1e-6) and differences["b"] < 1e-8


def test_differences_follow_the_names_not_the_order() -> None:
    made = example()
    spec = ll.Spec(ll.SGD(0.1), [ll.Group("a", lr_scale=0.5)])
    plan = ll.resolve(spec, [("a", (1,)), ("b", (1,))], total_steps=5)
    rates = {"rest": np.full(5, 0.1), "a": np.full(5, 0.05)}
    assert dataclasses.replace(made, plan=plan, rates=rates).largest_rate_differences() == {"rest": 0, "a": 0}


def test_a_rate_that_is_zero_is_no_division_by_zero() -> None:
    plan = ll.resolve(ll.Spec(ll.SGD(0.0)), [("a", (1,))], total_steps=5)
    assert example(plan=plan, rates={"rest": np.zeros(5)}).largest_rate_differences() == {"rest": 0}
    assert example(plan=plan, rates={"rest": np.full(5, 0.1)}).largest_rate_differences()["rest"] > 0


def test_a_rate_that_is_nan_is_a_difference() -> None:
    rates = {name: np.full(5, np.nan) for name in example().rates}
    assert not any(difference < 1 for difference in example(rates=rates).largest_rate_differences().values())


def test_the_text_shows_rates_planned_and_applied_accuracy_and_time() -> None:
    text = str(example())
    for word in (
        "größe/1",
        "rest",
        "planned",
        "applied",
        "difference",
        "1.0e-09",
        "0.7500",
        "12.3 ms",
        "4.50 s",
        "1.0000",
    ):
        assert word in text, word
    assert "0.1 -> 0.025" in text and "torch-eager" in text and "5 steps" in text


def test_the_text_of_one_step_without_accuracy() -> None:
    one = {name: rates[:1] for name, rates in example().rates.items()}
    text = str(example(losses=np.array([0.5]), rates=one, accuracies=np.zeros(0)))
    assert "0.5000" in text and "accuracy" not in text


def test_a_result_cannot_be_changed_and_does_not_print_its_arrays() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        example().backend = "x"  # type: ignore[misc]
    assert "a.weight" not in repr(example()).split("plan=")[0] and "array([[" not in repr(example())
