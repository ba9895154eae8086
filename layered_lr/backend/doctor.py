"""Which backends work on this machine; each is tried in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import NamedTuple

from layered_lr.backend.loading import explain_reinstall
from layered_lr.registry import TABLE, find_versions
from layered_lr.reports.tables import ReportTable, wrapped

# The program of a probe. It prints nothing if the backend works; otherwise the reason and what to do, as JSON.
_PROBE = """
import sys
if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # the current folder
import json
from layered_lr.errors import BackendUnavailable
from layered_lr.backend.loading import load_backend
try:
    load_backend(sys.argv[1])
except BackendUnavailable as error:
    print(json.dumps([error.reason, error.mend]))
"""


class BackendStatus(NamedTuple):
    """Whether a backend works on this machine.

    Args:
        name: One of the four names.
        available: Whether it works: it was imported successfully, in a process of its own.
        versions: The versions of the packages that it needs; None for a package that is not installed.
        reason: Why it does not work; empty if it works.
        mend: What to do about it; empty if it works.

    Example:
        >>> import layered_lr as ll
        >>> ll.BackendStatus("torch-eager", available=True, versions={"torch": "2.4.0"}).reason
        ''
    """

    name: str
    available: bool
    versions: dict[str, str | None]
    reason: str = ""
    mend: str = ""


def backends() -> dict[str, BackendStatus]:
    """Find out which of the four backends work on this machine.

    Each backend is really imported, in a process of its own, which takes some seconds: a broken installation can look
    complete, and can kill the process that imports it.

    Returns:
        The status of each backend, by its name.

    Example:
        >>> import layered_lr as ll
        >>> for name, status in ll.backends().items():  # doctest: +SKIP
        ...     print(name, status.available, status.mend)
        torch-eager True
    """
    probes = {
        name: subprocess.Popen(
            [sys.executable, "-c", _PROBE, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in TABLE
    }
    return {name: _read_status(name, probe) for name, probe in probes.items()}


def doctor_text(found: Mapping[str, BackendStatus]) -> str:
    """A table of the backends that fits the terminal; below it why some do not work, and what to do about it.

    Args:
        found: What ``backends`` answers.
    """
    rows = [
        [
            status.name,
            "works" if status.available else "does not work",
            ", ".join(f"{name} {version or 'not installed'}" for name, version in status.versions.items()),
        ]
        for status in found.values()
    ]
    # What to do is not wrapped: it holds a command to paste.
    why = [
        f"{wrapped(f'{status.name} {status.reason}.')}\n  {status.mend}"
        for status in found.values()
        if not status.available
    ]
    return "\n\n".join([ReportTable(["backend", "here", "versions"], rows).text(), *why])


def _read_status(name: str, probe: subprocess.Popen[str]) -> BackendStatus:
    entry = TABLE[name]
    found = find_versions(entry.framework)
    said, last_words = probe.communicate()
    if probe.returncode != 0:  # the process died before it could print a reason
        words = (last_words.strip().splitlines() or ["it printed nothing"])[-1]
        reason = f"cannot be loaded: the process that tried it ended with exit code {probe.returncode}: {words}"
        return BackendStatus(name, False, found, reason, explain_reinstall(entry))
    if said.strip():
        return BackendStatus(name, False, found, *json.loads(said.strip().splitlines()[-1]))
    return BackendStatus(name, True, found)
