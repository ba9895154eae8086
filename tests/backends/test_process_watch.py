"""The connections of OneFlow's processes: open to the processes of the run, and to nobody else."""

from __future__ import annotations

import queue
import socket
import threading
from typing import Any

import pytest

from layered_lr.data.share import Share
from layered_lr_oneflow.process_watch import ProcessWatch, listen


@pytest.mark.parametrize(
    ("address", "resolved", "found"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1", "127.0.0.1"),
        ("node-7", "127.0.1.1", "0.0.0.0"),  # as Debian's /etc/hosts has a machine's own name
        ("192.0.2.1", "192.0.2.1", "0.0.0.0"),  # of no interface here
    ],
)
def test_it_listens_at_the_first_processes_address_alone(
    monkeypatch: pytest.MonkeyPatch, address: str, resolved: str, found: str
) -> None:
    def resolve(*given: object, **named: object) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (resolved, 0))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with listen(address, 2) as server:
        assert server.getsockname()[0] == found


def test_a_stranger_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    said: queue.Queue[tuple[int, bytes]] = queue.Queue()
    first: list[ProcessWatch] = []

    def tell(value: tuple[int, bytes]) -> tuple[int, bytes]:
        said.put(value)
        return value

    thread = threading.Thread(target=lambda: first.append(ProcessWatch(Share(0, 2), tell)))
    thread.start()
    port, password = said.get(timeout=20)
    stranger = socket.create_connection(("127.0.0.1", port), 20)
    stranger.sendall(bytes(len(password)))
    assert stranger.recv(1) == b""  # it is turned away
    second = ProcessWatch(Share(1, 2), lambda value: (port, password))
    thread.join(20)
    assert len(first) == 1 and not thread.is_alive()
    second.close()
    first[0].close()
    stranger.close()
