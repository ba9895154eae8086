"""What the figures were taken on: processor, memory, load, versions. No host name, no path."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "layered-lr",
    "numpy",
    "torch",
    "torchvision",
    "oneflow",
    "flowvision",
    "lightning",
    "keras",
    "timm",
    "fastai",
)


def machine() -> dict[str, Any]:
    """The processor and how busy it is now."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gigabytes(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not known",
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Of Python and of what is installed and takes part."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def resident_megabytes() -> float:
    """Of this process, now; 0 where the system does not say."""
    return _kilobytes("VmRSS") * 1024 / 1e6


def peak_megabytes() -> float:
    """Of this process, at most, since it began or since ``reset_peak``.

    Linux lets a child begin with its parent's ru_maxrss; VmHWM is the process's own.
    """
    return _kilobytes("VmHWM") * 1024 / 1e6


def reset_peak() -> None:
    """Let ``peak_megabytes`` count from now on, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _kilobytes(name: str) -> int:
    value = _field("/proc/self/status", name)
    return int(value.split()[0]) if value else 0


def _memory_gigabytes() -> float:
    value = _field("/proc/meminfo", "MemTotal")
    return round(int(value.split()[0]) * 1024 / 1e9, 1) if value else 0.0


def _field(path: str, name: str) -> str:
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
