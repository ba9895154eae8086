"""Arrays by name in a ``.safetensors`` file, with the dtypes that the format or NumPy alone does not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import numpy as np

from layered_lr.arrays import BFLOAT16, Array, Arrays, DividedArray, find_bfloat16
from layered_lr.files import UnreadableError, one_line

_COMPLEX = ":complex"  # ends the name of an array of pairs (real, imaginary)
_DTYPES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": BFLOAT16,
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
"""The format's names of dtypes, and NumPy's."""
_ALIGNMENT = 8  # bytes, at which the format's own writer lets the arrays begin


def write_safetensors(file: Path, arrays: Arrays) -> None:
    """Write arrays to a file; those that are divided among processes are gathered one after the other.

    Raises:
        OSError: It cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    if any(isinstance(array, DividedArray) for array in arrays.values()):
        _write_one_by_one(file, arrays)
        return
    try:
        save_file(dict(_as_real(name, np.asarray(array, order="C")) for name, array in arrays.items()), file)
    except SafetensorError as error:  # it contains the error of the system, such as a full disk
        raise OSError(one_line(error)) from None


def in_file_order(arrays: Arrays) -> list[tuple[str, Array]]:
    """The arrays in the order in which they are written one by one: those of wide numbers first, so that all align."""
    return sorted(arrays.items(), key=lambda item: -item[1].dtype.itemsize)


def _write_one_by_one(file: Path, arrays: Arrays) -> None:
    """Write a file of which one array at a time is in the memory.

    Raises:
        OSError: It cannot be written.
    """
    names = {name: code for code, name in _DTYPES.items()}
    ordered = [
        (name, array) if isinstance(array, DividedArray) else _as_real(name, np.asarray(array, order="C"))
        for name, array in in_file_order(arrays)
    ]
    header: dict[str, object] = {}
    end = 0
    for name, array in ordered:
        begin, end = end, end + int(np.prod(array.shape, dtype=np.int64)) * array.dtype.itemsize
        header[name] = {
            "dtype": names[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % _ALIGNMENT)
    with file.open("wb") as opened:
        opened.write(len(head).to_bytes(8, "little") + head)
        for _, array in ordered:
            whole = array
            if isinstance(array, DividedArray):
                array.is_written = True  # before it is: a write that fails must not gather it twice
                whole = array.gather()
            opened.write(np.ascontiguousarray(whole).view(np.uint8).data if whole.ndim else whole.tobytes())


def safetensors_bytes(arrays: Arrays) -> bytes:
    """The content of such a file."""
    from safetensors.numpy import save

    return bytes(save(dict(_as_real(name, np.asarray(array, order="C")) for name, array in arrays.items())))


def read_safetensors(file: Path) -> dict[str, Array]:
    """Read what ``write_safetensors`` wrote, or any other tool.

    Raises:
        UnreadableError: The file is missing or damaged, or holds a dtype that NumPy cannot.
    """
    from safetensors.numpy import load_file

    find_bfloat16()  # which NumPy then knows by its name
    try:
        return dict(_as_complex(name, array) for name, array in load_file(file).items())
    except Exception as error:  # errors of safetensors, of the system, and of NumPy for a dtype that it does not know
        raise UnreadableError(one_line(error)) from None


def map_safetensors(file: Path) -> dict[str, Array]:
    """As ``read_safetensors``, but the arrays stay in the file, and the system reads of them what is used.

    Whoever writes to an array changes a copy, and the file stays as it is.

    Raises:
        UnreadableError: The file is missing or damaged, or holds a dtype that NumPy cannot.
    """
    find_bfloat16()
    try:
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(length))
        header.pop("__metadata__", None)
        mapped = np.memmap(file, np.uint8, "c")
        found: dict[str, Array] = {}
        for name, about in header.items():
            dtype, shape = np.dtype(_DTYPES[about["dtype"]]), tuple(about["shape"])
            start, end = about["data_offsets"]
            if end - start != int(np.prod(shape, dtype=np.int64)) * dtype.itemsize:
                raise ValueError(f"{name!r} has not the length of its shape")
            found[name] = np.ndarray(shape, dtype, mapped, 8 + length + start)
        return dict(_as_complex(name, array) for name, array in found.items())
    except Exception as error:  # of the system, of JSON, of NumPy, or of a header that is none
        raise UnreadableError(one_line(error)) from None


def read_safetensors_part(file: Path, prefix: str) -> dict[str, Array]:
    """Read those arrays whose names begin with ``prefix``, by the rest of their names; the others are not read.

    Raises:
        UnreadableError: The file is missing or damaged, or holds a dtype that NumPy cannot.
    """
    from safetensors import safe_open

    try:
        with safe_open(file, framework="np") as opened:
            return {
                name.removeprefix(prefix): opened.get_tensor(name)
                for name in opened.keys()  # noqa: SIM118  # it is no mapping
                if name.startswith(prefix)
            }
    except Exception as error:  # as above
        raise UnreadableError(one_line(error)) from None


def _as_real(name: str, array: Array) -> tuple[str, Array]:
    """Turn complex numbers into pairs of floats: the format has no complex128."""
    if array.dtype.kind != "c":
        return name, array
    return name + _COMPLEX, array.reshape(*array.shape, 1).view(array.real.dtype)


def _as_complex(name: str, array: Array) -> tuple[str, Array]:
    if not name.endswith(_COMPLEX):
        return name, array
    whole = np.complex64 if array.dtype == np.float32 else np.complex128
    return name.removesuffix(_COMPLEX), array.view(whole)[..., 0]
