"""What goes between processes: each collective as torch's profiler sees it, and the bytes that their sockets send."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

_OPEN_FILES = Path("/proc/self/fd")
_BYTES_ACKED = 120  # where struct tcp_info of Linux >= 4.1 has tcpi_bytes_acked
_BYTES_EACH = {
    "float": 4, "double": 8, "c10::BFloat16": 2, "c10::Half": 2, "long int": 8, "int": 4, "unsigned char": 1, "bool": 1,
    "signed char": 1,
}  # fmt: skip


class Collective(NamedTuple):
    """One message among all processes.

    Args:
        kind: ``all_reduce``, ``broadcast`` or ``all_gather``.
        dtype: As torch's profiler calls it.
        payload_bytes: Of the tensor that a process gives.
    """

    kind: str
    dtype: str
    payload_bytes: int


def read_collectives(profiler: Any, prefix: str) -> dict[str, list[Collective]]:
    """The collectives between marks, in their order.

    Args:
        profiler: A ``torch.profiler.profile`` with ``record_shapes=True``, which has ended. It sees those that
            ``DistributedDataParallel`` asks for too.
        prefix: Of the names of the marks, each of which ends a stretch.
    """
    found: dict[str, list[Collective]] = {}
    stretch: list[Collective] = []
    for event in sorted(profiler.profiler.kineto_results.events(), key=lambda each: each.start_ns()):
        name = event.name()
        if name.startswith(prefix):
            found[name.removeprefix(prefix)], stretch = stretch, []
        elif name.startswith("gloo:"):
            dtype, numbers = event.dtypes()[0], 1
            for length in event.shapes()[0]:
                numbers *= length
            stretch.append(Collective(name.removeprefix("gloo:"), dtype, numbers * _BYTES_EACH[dtype]))
    return found


def without_gradients(collectives: Sequence[Collective], gradient_bytes: int) -> list[Collective]:
    """The collectives of an update that are not of gradients.

    Args:
        collectives: Of one update. Those that are asked for at the same moment are in no certain order.
        gradient_bytes: Of all parameters that train: the largest all-reduces of floats bring them, in buckets that may
            hold a few numbers more.

    Raises:
        ValueError: They bring fewer.
    """
    found, left = list(collectives), gradient_bytes
    for each in sorted(collectives, key=lambda one: -one.payload_bytes):
        if left > 0 and each.kind == "all_reduce" and each.dtype in ("float", "double"):
            found.remove(each)
            left -= each.payload_bytes
    if left > 0:
        raise ValueError(f"gradients of {gradient_bytes} bytes, and all-reduces that bring {gradient_bytes - left}")
    return found


def bytes_sent() -> int:
    """What the sockets of this process have sent so far, as the others have confirmed it; 0 where nobody counts."""
    total = 0
    for link in _OPEN_FILES.iterdir() if _OPEN_FILES.is_dir() else ():
        try:
            if not str(link.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(link.name))) as copy:
                if copy.family in (socket.AF_INET, socket.AF_INET6) and copy.type == socket.SOCK_STREAM:
                    facts = copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                    total += struct.unpack_from("Q", facts, _BYTES_ACKED)[0]
        except OSError:
            continue  # closed in the meantime, or not connected
    return total
