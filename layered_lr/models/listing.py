"""What ``layered-lr models`` prints: the models that are known by name, and what is known of each."""

from __future__ import annotations

import contextlib
import fnmatch
import importlib.util
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from layered_lr.errors import LayeredLRError, SpecError
from layered_lr.models.answering_layer import find_head
from layered_lr.models.catalogue import MODELS, list_parameters
from layered_lr.models.zoo import TIMM, ZooFacts, is_catalogued, open_zoo
from layered_lr.outputs import write_whole
from layered_lr.registry import FRAMEWORKS, find_versions
from layered_lr.reports.tables import ReportTable
from layered_lr.tools import is_installed

_FILE = "models.json"
_MOST_GROUPS = 4


def list_models(patterns: Sequence[str] = (), progress: bool = True) -> list[ZooFacts]:
    """Find what is known of models, each measured on the model itself, once for each version of torchvision.

    Args:
        patterns: Names, or globs of names; none is all of torchvision's classifiers.
        progress: Whether to show a bar while models are measured for the first time.

    Raises:
        SpecError: No model has such a name.
    """
    zoo = open_zoo("") if is_installed("torch") else None
    known = [*MODELS, *(name for name in (zoo.list_names() if zoo else ()) if name not in MODELS)]
    chosen: dict[str, None] = dict.fromkeys([] if patterns else known)
    for pattern in patterns:
        within = zoo.list_timm_names() if zoo and pattern.startswith(TIMM) else known
        found = fnmatch.filter(within, pattern)
        if not within:
            open_zoo(pattern).check_name(pattern)  # says what is not installed
        if not found and any(character in pattern for character in "*?["):
            raise SpecError(f"models: {pattern!r} matches none of the {len(within)} names, such as {known[0]}.")
        if not found:
            open_zoo(pattern).check_name(pattern)
        chosen |= dict.fromkeys(found or [pattern])
    cached = _read_cache()
    facts: dict[str, ZooFacts] = {}
    with tqdm(chosen, desc="models", disable=None if progress else True, leave=False) as names:
        for name in names:
            if name not in cached:
                cached[name] = _catalogued(name) if zoo is None else zoo.describe(name)
            facts[name] = cached[name]
    if zoo is not None:
        _write_cache(cached)
    return list(facts.values())


def _catalogued(name: str) -> ZooFacts:
    """What is known of a model of the catalogue where there is no torch."""
    parameters = list_parameters(name, 1000)
    groups = dict.fromkeys(parameter.name.partition(".")[0] for parameter in parameters)
    count = sum(parameter.elements for parameter in parameters)
    return ZooFacts(name, count, 1, tuple(groups), find_head(parameters) or "")


def models_text(facts: Iterable[ZooFacts], where: Mapping[str, str] | None = None) -> str:
    """A table of models that fits the terminal, and below it what works where.

    Args:
        facts: From ``list_models``.
        where: What was tried, by backend's framework; None says it in general.
    """
    rows = [
        [
            each.name,
            f"{each.parameters:,}",
            "" if each.least_size is None else str(each.least_size),
            _shortened(each.groups),
            each.head,
        ]
        for each in facts
    ]
    headers = ["model", "parameters", "least pixels", "groups", "head"]
    table = ReportTable(headers, rows, frozenset({"parameters", "least pixels"})).text()
    return f"{table}\n\n{_where_text() if where is None else where_lines(where)}"


def _shortened(groups: Sequence[str]) -> str:
    if len(groups) <= _MOST_GROUPS:
        return ", ".join(groups)
    return f"{groups[0]}, {groups[1]}, … {groups[-1]} ({len(groups)})"


def where_lines(where: Mapping[str, str]) -> str:
    """What works where, a line for each framework."""
    return "\n".join(f"{name}: {words}" for name, words in where.items())


def _where_text() -> str:
    return (
        "torch-eager, torch-compile: all of them. oneflow-eager, oneflow-graph: mobilenet_v2, also without torch; the\n"
        'others are translated when a run begins, and `layered-lr models NAME` tries it. In a spec, "head" and\n'
        '"backbone" are groups of each. Parameters are counted for 1,000 classes.'
    )


def try_translation(facts: ZooFacts) -> dict[str, str]:
    """Find where one model works, by translating it at its least size.

    Args:
        facts: Of the model.
    """
    found = {"torch": "works" if is_installed("torch") else "is not installed"}
    if is_catalogued(facts.name):
        return {**found, "oneflow": "works, also without torch"}
    if facts.least_size is None:
        return dict.fromkeys(FRAMEWORKS, "takes no square images")
    from layered_lr.registry import load_tracer, load_zoo

    shape = (3, facts.least_size, facts.least_size)
    try:
        import numpy as np

        tracer = load_tracer("torch")
        model = tracer.prepare_traced(load_zoo("torch").ZooModel(facts.name, 10, shape)(), "float32")
        tracer.trace_model(model, (np.zeros((2, *shape), np.float32),))
        found["oneflow"] = f"can be translated (tried with images of {facts.least_size}x{facts.least_size})"
    except LayeredLRError as error:
        found["oneflow"] = f"no: {error}"
    return found


def _cache_file() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "layered_lr" / _FILE


def _versions() -> dict[str, Any]:
    timm = importlib.util.find_spec("timm")
    return {**find_versions("torch"), "timm": "" if timm is None else str(timm.origin)}


def _read_cache() -> dict[str, ZooFacts]:
    """What was measured with the versions that are installed; nothing where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RuntimeError):
        table = json.loads(_cache_file().read_text(encoding="utf-8"))
        if table["versions"] == _versions():
            return {name: _facts(name, row) for name, row in table["models"].items()}
    return {}


def _facts(name: str, row: Mapping[str, Any]) -> ZooFacts:
    least = row["least_size"]
    if not isinstance(row["parameters"], int) or not isinstance(least, int | None) or not isinstance(row["head"], str):
        raise TypeError(name)
    return ZooFacts(name, row["parameters"], least, tuple(map(str, row["groups"])), row["head"])


def _write_cache(models: Mapping[str, ZooFacts]) -> None:
    """Keep what was measured; a folder that cannot be written to is no harm."""
    with contextlib.suppress(OSError, LayeredLRError, RuntimeError):
        file = _cache_file()
        file.parent.mkdir(parents=True, exist_ok=True)
        rows = {name: each._asdict() for name, each in models.items()}
        write_whole(file, [json.dumps({"versions": _versions(), "models": rows}).encode()])
