"""Arrays by name in a ``.safetensors`` file, with the dtypes that the format or NumPy alone does not have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from layered_lr.arrays import Array, Arrays, find_bfloat16
from layered_lr.files import UnreadableError, one_line

_COMPLEX = ":complex"  # ends the name of an array of pairs (real, imaginary)


def write_safetensors(file: Path, arrays: Arrays) -> None:
    """Write arrays to a file.

    Raises:
        OSError: It cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    try:
        save_file(dict(_as_real(name, np.asarray(array, order="C")) for name, array in arrays.items()), file)
    except SafetensorError as error:  # it contains the error of the system, such as a full disk
        raise OSError(one_line(error)) from None


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
