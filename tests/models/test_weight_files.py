"""Weights from outside: read from each kind of file, and held against a model by name and shape."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layered_lr as ll
from layered_lr.models.weight_files import merge_weights, read_weights

ARRAYS = {
    "features.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "features.0.running_mean": np.ones(2, np.float32),
    "features.0.count": np.array(3),
    "head.weight": np.full((4, 2), 0.5, np.float32),
}
PARAMETERS = ["features.0.weight", "head.weight"]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return list(one) == list(other) and all(
        np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one
    )


def write(path: Path, torch: Any = None) -> Path:
    if path.suffix == ".npz":
        np.savez_compressed(path, **ARRAYS)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import save_file

        save_file(ARRAYS, path)
    else:
        torch.save({name: torch.from_numpy(array) for name, array in ARRAYS.items()}, path)
    return path


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("kind", [str, Path])
def test_every_kind_of_file_is_read(torch: Any, tmp_path: Path, suffix: str, kind: Any) -> None:
    found = read_weights(kind(write(tmp_path / f"my é{suffix}", torch)))
    assert same(dict(sorted(found.items())), dict(sorted(ARRAYS.items())))


def test_a_checkpoint_with_its_weights_under_state_dict(torch: Any, tmp_path: Path) -> None:
    weight = torch.nn.Linear(2, 3).weight
    torch.save({"state_dict": {"w": weight}, "epoch": 3}, tmp_path / "c.pth")
    assert np.array_equal(read_weights(tmp_path / "c.pth")["w"], weight.detach().numpy())


def test_a_mapping_of_arrays_lists_and_tensors(torch: Any) -> None:
    found = read_weights({"a": [[1.0, 2.0]], "b": torch.ones(2), "c": torch.nn.Parameter(torch.zeros(1)), "d": 3.0})
    assert {name: array.tolist() for name, array in found.items()} == {"a": [[1, 2]], "b": [1, 1], "c": [0], "d": 3}


def test_what_a_mapping_cannot_hold_is_refused_by_name() -> None:
    for value in (object(), [[1], [1, 2]], "abc", None):
        with pytest.raises((ll.SpecError, ll.DataError), match=r"head\.weight"):
            merge_weights(ARRAYS, PARAMETERS, read_weights(ARRAYS | {"head.weight": value}), [])


@pytest.mark.parametrize("source", [3, None, [1], b"w.npz", object()])
def test_a_source_is_a_path_or_a_mapping(source: Any) -> None:
    with pytest.raises(ll.SpecError, match="initial_weights"):
        read_weights(source)


@pytest.mark.parametrize("name", ["w.txt", "w", "", ".npz", "w.h5", "folder.npz", "missing.npz", "missing.pth"])
def test_a_file_that_is_not_there_or_of_no_known_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises((ll.SpecError, ll.DataError), match="initial_weights"):
        read_weights(tmp_path / name)


def npy() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
def test_a_saved_model_and_a_text_say_what_to_save(torch: Any, tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(ll.DataError, match=r"holds other objects than tensors.*model\.state_dict") as caught:
        read_weights(tmp_path / "whole.pth")
    assert "\\x1b" not in str(caught.value)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ll.DataError, match=r"not a readable state_dict: it is no file of torch\..*torch\.save"):
        read_weights(tmp_path / "text.pth")
    torch.save([torch.zeros(2)], tmp_path / "list.pth")
    with pytest.raises(ll.DataError, match=r"list\.pth: .*: it holds a list, and no table of tensors by name\. Give"):
        read_weights(tmp_path / "list.pth")
    torch.save({"head.weight": torch.eye(2).to_sparse()}, tmp_path / "sparse.pth")
    with pytest.raises(ll.DataError, match=r"sparse\.pth: 'head\.weight' is not an array of numbers") as caught:
        read_weights(tmp_path / "sparse.pth", "pretrained")
    assert "initial_weights" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("content", [b"", b"P", b"garbage" * 99, npy()], ids=["empty", "a byte", "garbage", "npy"])
def test_a_foreign_file_is_refused_in_one_line(torch: Any, tmp_path: Path, suffix: str, content: bytes) -> None:
    (tmp_path / f"w{suffix}").write_bytes(content)
    with pytest.raises(ll.DataError, match=rf"w\{suffix}: not a readable") as caught:
        read_weights(tmp_path / f"w{suffix}")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pth"])
def test_a_file_cut_off_anywhere_is_refused(torch: Any, tmp_path: Path, suffix: str) -> None:
    good = write(tmp_path / f"good{suffix}", torch).read_bytes()
    for length in range(0, len(good), max(len(good) // 40, 1)):
        (tmp_path / f"w{suffix}").write_bytes(good[:length])
        with pytest.raises(ll.DataError, match=rf"w\{suffix}"):
            read_weights(tmp_path / f"w{suffix}")


def test_a_compressed_npz_with_a_wrong_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    good = write(tmp_path / "good.npz").read_bytes()
    refused = 0
    for position in range(0, len(good), 5):
        bad = bytearray(good)
        bad[position] ^= 0xFF
        (tmp_path / "w.npz").write_bytes(bad)
        try:
            found = read_weights(tmp_path / "w.npz")
        except ll.DataError:
            refused += 1
        else:  # the archive's list of names has no checksum: a name may be lost or spelt otherwise, never its numbers
            for name in found.keys() & ARRAYS.keys():
                assert found[name].tobytes() == ARRAYS[name].tobytes(), (position, name)
    assert refused > len(good) / 5 / 2


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_bfloat16_is_read(torch: Any, tmp_path: Path, suffix: str) -> None:
    tensors = {"w": torch.tensor([1.5, -2.0], dtype=torch.bfloat16)}
    if suffix == ".pth":
        torch.save(tensors, tmp_path / "w.pth")
    else:
        pytest.importorskip("safetensors.torch").save_file(tensors, tmp_path / "w.safetensors")
    (array,) = read_weights(tmp_path / f"w{suffix}").values()
    assert array.dtype.name == "bfloat16" and array.astype(np.float32).tolist() == [1.5, -2.0]


def test_given_weights_win_buffers_may_be_left_out_and_reset_starts_anew() -> None:
    own = {name: array * 0 for name, array in ARRAYS.items()}
    assert same(merge_weights(own, PARAMETERS, ARRAYS, []), ARRAYS)
    parameters_only = {name: ARRAYS[name] for name in PARAMETERS}
    assert same(merge_weights(own, PARAMETERS, parameters_only, []), own | parameters_only)
    for reset in (["head"], ["head.weight"], ["re:head.*"], ["h*"]):
        assert same(merge_weights(own, PARAMETERS, ARRAYS, reset), ARRAYS | {"head.weight": own["head.weight"]})


def test_a_reset_array_may_be_left_out_or_have_another_shape() -> None:
    for given in ({}, {"head.weight": np.zeros((9, 9, 9), int)}):
        backbone = {name: array for name, array in ARRAYS.items() if name != "head.weight"} | given
        assert same(merge_weights(ARRAYS, PARAMETERS, backbone, ["head"]), ARRAYS)


def test_other_precisions_are_converted_and_nothing_is_shared() -> None:
    given = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in ARRAYS.items()}
    found = merge_weights(ARRAYS, PARAMETERS, given, [])
    assert same(found, ARRAYS)
    found["head.weight"][:] = 9
    assert given["head.weight"].max() == 0.5


WRONG: list[tuple[Callable[[], dict[str, Any]], list[str], str]] = [
    (lambda: ARRAYS | {"hed.weight": np.zeros(1)}, [], "no 'hed.weight'.*Did you mean 'head.weight'"),
    (
        lambda: ARRAYS | {"head.weight": np.zeros((2, 4), np.float32)},
        [],
        r"'head.weight'.*\(2, 4\).*\(4, 2\).*reset",
    ),
    (lambda: ARRAYS | {"head.weight": np.zeros((4, 2), int)}, [], "'head.weight' holds int64"),
    (lambda: ARRAYS | {"head.weight": np.full((4, 2), np.nan, np.float32)}, [], "'head.weight'.*NaN"),
    (lambda: ARRAYS | {"head.weight": np.full((4, 2), -np.inf, np.float32)}, [], "'head.weight'.*infinity"),
    (lambda: ARRAYS | {"head.weight": np.full((4, 2), 1e300)}, [], "'head.weight'.*(infinity|float32)"),
    (lambda: {"head.weight": ARRAYS["head.weight"]}, [], "lacks 1 of.*'features.0.weight'.*reset"),
    (dict, [], "lacks 2 of"),
    (lambda: ARRAYS, ["haed"], "reset.*'haed'"),
    (lambda: ARRAYS, ["head", "re:f"], "reset.*'re:f'"),
]


@pytest.mark.parametrize(("given", "reset", "message"), WRONG, ids=[message for *_, message in WRONG])
def test_weights_that_do_not_fit_are_refused(given: Callable[[], Any], reset: list[str], message: str) -> None:
    with pytest.raises(ll.SpecError, match=message) as caught:
        merge_weights(ARRAYS, PARAMETERS, given(), reset)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod", "_fsdp_wrapped_module", "_orig_mod.module"])
@pytest.mark.parametrize("is_given_wrapped", [False, True])
def test_names_of_wrappers_do_not_count(wrapper: str, is_given_wrapped: bool) -> None:
    wrapped = {f"{wrapper}.{name}": array + 1 for name, array in ARRAYS.items()}
    bare = {name: array + 1 for name, array in ARRAYS.items()}
    start, given = (bare, wrapped) if is_given_wrapped else (wrapped, bare)
    first = {name: np.zeros_like(array) for name, array in start.items()}
    parameters = [name for name in start if name.endswith("weight")]
    merged = merge_weights(first, parameters, given, ())
    assert list(merged) == list(start)
    assert all(np.array_equal(merged[name], array) for name, array in start.items())
    merged = merge_weights(first, parameters, given, ("head",))
    assert [name for name, array in merged.items() if not array.any()] == [name for name in start if "head" in name]


@pytest.mark.parametrize("inside", [["model"], ["state_dict"], ["model", "state_dict"], ["model_state_dict"]])
def test_weights_inside_what_a_script_saved(torch: Any, tmp_path: Path, inside: list[str]) -> None:
    tensors: Any = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    for name in reversed(inside):
        tensors = {"epoch": 3, name: tensors}
    torch.save(tensors, tmp_path / "w.pth")
    assert same(read_weights(tmp_path / "w.pth"), ARRAYS)
    assert same(read_weights(tensors), ARRAYS)


@pytest.mark.parametrize(
    ("saved", "both"),
    [
        (lambda own, other: {"model": own, "model_ema": other, "epoch": 3}, "'model' and 'model_ema'"),
        (lambda own, other: {"state_dict": own, "state_dict_ema": other}, "'state_dict' and 'state_dict_ema'"),
        (lambda own, other: {"model": {"state_dict": own}, "ema": {"weights": other}}, "'model.state_dict' and 'ema.w"),
        (lambda own, other: {"params": own, "params_ema": other}, "'params' and 'params_ema'"),
        (lambda own, other: {"generator": own, "critic": {"w": other["head.weight"]}}, "'generator' and 'critic'"),
        (lambda own, other: {"model": own, "average": {f"module.{n}": t for n, t in other.items()}}, "'average'"),
    ],
)
def test_of_two_sets_of_weights_neither_is_taken_in_silence(torch: Any, tmp_path: Path, saved: Any, both: str) -> None:
    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    table = saved(tensors, {name: tensor + 1 for name, tensor in tensors.items()})
    torch.save(table, tmp_path / "w.pth")
    for source in (table, tmp_path / "w.pth"):
        with pytest.raises(ll.DataError, match=rf"holds 2 sets of weights.*{both}.*torch\.load"):
            read_weights(source)


@pytest.mark.parametrize("name", ["net", "params", "model_ema", "student.weights"])
def test_weights_under_any_name_are_found_where_they_are_the_only_ones(torch: Any, tmp_path: Path, name: str) -> None:
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    table: Any = model.state_dict()
    for key in reversed(name.split(".")):
        table = {key: table, "epoch": 3, "accuracy": torch.tensor(0.9), "optimizer": optimizer.state_dict()}
    torch.save(table, tmp_path / "w.pth.tar")
    assert list(read_weights(tmp_path / "w.pth.tar")) == ["weight", "bias"]


def test_objects_of_any_kind_in_a_table_are_refused() -> None:
    class Odd:
        shape = 3

    class Raises:
        @property
        def shape(self) -> Any:
            raise OSError("no shape")

    for odd in (Odd(), Raises()):
        for table in ({"a": odd}, {"net": {"a": odd}}, {"model": {"a": odd}, "epoch": 3}):
            with pytest.raises(ll.DataError, match=r"'(a|net)' (holds object|is not an array)"):
                read_weights(table)


def test_a_table_that_holds_itself_is_no_endless_one() -> None:
    table: dict[str, Any] = {"epoch": 3}
    table["model"] = table
    with pytest.raises(ll.DataError, match="must be numbers"):
        read_weights(table)


def test_torchs_own_average_and_a_prefix_of_all_names_are_taken_off(torch: Any) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    start = {name: tensor.numpy() * 0 for name, tensor in net.state_dict().items()}
    parameters = [name for name, _ in net.named_parameters()]
    averaged = torch.optim.swa_utils.AveragedModel(net)
    lightning = {f"model.{name}": tensor for name, tensor in net.state_dict().items()}
    for given in (averaged.state_dict(), {"epoch": 2, "state_dict": lightning}):
        merged = merge_weights(start, parameters, read_weights(given), ())
        assert all(np.array_equal(merged[name], tensor.numpy()) for name, tensor in net.state_dict().items())
    with pytest.raises(ll.SpecError, match=r"no 'model\.0\.weight'"):
        merge_weights(start, parameters, read_weights({**lightning, "loss.scale": torch.ones(1)}), ())
