"""Which backends work on this machine, tried out in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import NamedTuple

from layered_lr.backend.loading import explain_reinstall
from layered_lr.registry import TABLE, find_versions

# What a probe runs: silent where the backend works, its reason and mend as JSON where it says so itself.
_PROBE = """
import json, sys
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
        available: It was imported successfully, in a process of its own.
        versions: Of the packages it stands on, None for one that is not installed.
        reason: Why it does not work; empty where it does.
        mend: What to do about it; empty where it works.
    """

    name: str
    available: bool
    versions: dict[str, str | None]
    reason: str = ""
    mend: str = ""


def backends() -> dict[str, BackendStatus]:
    """Which of the four backends work on this machine.

    Each is really loaded, in a process of its own (some seconds), because a broken installation can look whole
    from outside and can end the process that imports it.
    """
    probes = {
        name: subprocess.Popen(
            [sys.executable, "-c", _PROBE, name], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for name in TABLE
    }
    return {name: _read_status(name, probe) for name, probe in probes.items()}


def _read_status(name: str, probe: subprocess.Popen[str]) -> BackendStatus:
    entry = TABLE[name]
    found = find_versions(entry.framework)
    said, last_words = probe.communicate()
    if probe.returncode != 0:  # it did not even come to say why
        words = (last_words.strip().splitlines() or ["it said nothing"])[-1]
        reason = f"cannot be loaded: the process that tried ended with exit code {probe.returncode}: {words}"
        return BackendStatus(name, False, found, reason, explain_reinstall(entry))
    if said.strip():
        return BackendStatus(name, False, found, *json.loads(said.strip().splitlines()[-1]))
    return BackendStatus(name, True, found)
