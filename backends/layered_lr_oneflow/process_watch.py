"""Ends a process of a run whose others have ended, and says so: OneFlow 0.9 waits then without a word, or aborts."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Final

from layered_lr.data.share import Share
from layered_lr.errors import ProcessLost
from layered_lr.files import one_line

_GOODBYE: Final = b"."
_SECONDS_TO_CONNECT: Final = 30.0
_SECONDS_TO_SPEAK: Final = 5.0
"""How long a process that has connected may take to say the password."""
_PASSWORD_BYTES: Final = 16
_SECONDS_TO_END: Final = 5.0
"""How long this process may still be busy after another has left without a goodbye: an error may end all of them."""
_SPEAKER: Final = """
import os, signal
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)  # the launcher ends the group of its processes
said = b""
while more := os.read(0, 4096):
    said += more
if not said.endswith(b"\\0"):
    os.write(2, said + b"\\n")
"""
"""What a small process of its own does: it waits until this one ends, and says its last words if there was no goodbye.
OneFlow aborts from a thread of its own, where no code of Python runs any more."""


def listen(address: str, count: int) -> socket.socket:
    """Listen where the other processes connect, at a free port: at the first process's address alone.

    On all interfaces only where that address may not be the one under which other machines know this one: a name that
    means the loopback here, or an address that no interface has.

    Args:
        address: The first process's, as the launcher gives it.
        count: How many processes there are.

    Raises:
        OSError: It cannot.
    """
    family, _, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
    if address == "localhost" or _is_loopback(address) or not _is_loopback(str(place[0])):
        with contextlib.suppress(OSError):
            return socket.create_server((place[0], 0), family=family, backlog=count)
    return socket.create_server(("", 0), backlog=count)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:  # a name
        return False


def _says(peer: socket.socket, password: bytes) -> bool:
    """Whether what has connected is a process of this run, and no stranger."""
    peer.settimeout(_SECONDS_TO_SPEAK)
    said = b""
    with contextlib.suppress(OSError):
        while len(said) < len(password) and (more := peer.recv(len(password) - len(said))):
            said += more
    return secrets.compare_digest(said, password)


class ProcessWatch:
    """A connection of each process to the first one, over which nothing is sent but a password and a goodbye.

    The system closes it where a process ends in any way. The first process then ends too, so that each notices it. A
    thread waits for it, since the process itself waits inside of OneFlow.

    Args:
        share: Which process this is.
        from_first: Gives the first process's value to all.

    Raises:
        ProcessLost: The first process cannot be reached.
    """

    def __init__(self, share: Share, from_first: Callable[[tuple[int, bytes]], tuple[int, bytes]]) -> None:
        self._share = share
        self._has_ended = threading.Event()
        self._speaker: subprocess.Popen[bytes] | None = None
        self._peers: list[socket.socket] = []
        try:
            self._connect(from_first)
        except OSError as error:
            raise ProcessLost(
                f"process {share.rank} of {share.count} does not reach the others: {one_line(error)}"
            ) from error
        os.register_at_fork(after_in_child=self._leave_to_parent)
        threading.Thread(target=self._wait, name="layered_lr: other processes", daemon=True).start()

    def _connect(self, from_first: Callable[[tuple[int, bytes]], tuple[int, bytes]]) -> None:
        address = os.environ.get("MASTER_ADDR", "127.0.0.1")
        if self._share.rank:
            port, password = from_first((0, b""))
            self._peers = [socket.create_connection((address, port), _SECONDS_TO_CONNECT)]
            self._peers[0].sendall(password)
        else:
            with listen(address, self._share.count) as server:
                server.settimeout(_SECONDS_TO_CONNECT)
                password = secrets.token_bytes(_PASSWORD_BYTES)
                from_first((server.getsockname()[1], password))
                while len(self._peers) < self._share.count - 1:
                    peer, _ = server.accept()
                    if _says(peer, password):
                        self._peers.append(peer)
                    else:
                        peer.close()
        for peer in self._peers:
            peer.setblocking(False)

    def prepare_last_words(self, advice: str) -> None:
        """Let it be said where this process ends before ``close``, even by an abort.

        Args:
            advice: What to do then, as a sentence.
        """
        text = (
            f"{ProcessLost.__name__}: process {self._share.rank} of {self._share.count} has ended, or another one that "
            f"it trains with, so that the run cannot go on. {advice}"
        )
        self._speaker = subprocess.Popen([sys.executable, "-I", "-S", "-c", _SPEAKER], stdin=subprocess.PIPE)
        assert self._speaker.stdin is not None
        self._speaker.stdin.write(text.encode())
        self._speaker.stdin.flush()

    def close(self) -> None:
        """Say goodbye; where an error ends this process, leave without it, and the others do not wait for it."""
        if self._has_ended.is_set():
            return
        self._has_ended.set()
        is_failing = sys.exc_info()[0] is not None
        for peer in self._peers:
            with contextlib.suppress(OSError):
                if not is_failing:
                    peer.send(_GOODBYE)
                peer.shutdown(socket.SHUT_WR)
        if self._speaker is not None and self._speaker.stdin is not None:
            with contextlib.suppress(OSError):
                self._speaker.stdin.write(b"\0")
                self._speaker.stdin.close()
            self._speaker.wait()

    def _leave_to_parent(self) -> None:
        """In a forked child: hold no connection open after its parent has ended."""
        for peer in self._peers:
            peer.close()
        if self._speaker is not None and self._speaker.stdin is not None:
            with contextlib.suppress(OSError):
                os.close(self._speaker.stdin.fileno())

    def _wait(self) -> None:
        """Wait until every other process has said goodbye; end this one where one has left without it."""
        with selectors.DefaultSelector() as selector:
            for peer in self._peers:
                selector.register(peer, selectors.EVENT_READ, peer)
            polite: set[socket.socket] = set()
            while selector.get_map():
                for key, _ in selector.select():
                    peer = key.data
                    try:
                        said = peer.recv(1)
                    except OSError:
                        said = b""
                    if said:
                        polite.add(peer)
                        continue
                    selector.unregister(peer)
                    if peer not in polite and not self._has_ended.wait(_SECONDS_TO_END):
                        os._exit(1)  # its last words are said
