"""The model card: what a model is, what it was trained on and how, how good it is, and how to load it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tomli_w

from layered_lr.arrays import Float64
from layered_lr.errors import SpecError
from layered_lr.files import begins_with
from layered_lr.outputs import check_output, write_whole
from layered_lr.printed import harmless, name_of, shown
from layered_lr.training.import_paths import is_import_path
from layered_lr.training.trained.best_epoch import ACCURACY, OF_AVERAGE, Told, measured_after, step_of_weights
from layered_lr.training.trained.model_input import ModelInput
from layered_lr.training.trained.trained_model import Trained
from layered_lr.yes_or_no import check_yes_or_no

_UNNAMED = "a model of the user's own"
_MARK = "<!-- A model card of layered_lr -->"
_MOST_NAMES = 50  # of classes that a card lists
_KINDS = {
    "classes": "An image classifier",
    "values": "A model that answers values for each image",
    "masks": "A model that answers a class for each pixel",
}
_OUTPUTS = {"classes": "classes", "values": "values of an image", "masks": "classes of a pixel"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


class Measured(Trained, Told, Protocol):
    """A run with what it has measured: a ``Result``."""

    @property
    def losses(self) -> Float64:
        """Of each update."""

    @property
    def rates(self) -> dict[str, Float64]:
        """Of each group at each update."""

    @property
    def lowering(self) -> dict[str, str]:
        """How the rates were applied."""


def card_text(run: Measured, model: str | Callable[[], Any] | None = None) -> str:
    """The card of a run's model, in Markdown.

    Args:
        run: The run.
        model: What builds its model, where the run could not write it down.

    Raises:
        SpecError: ``model`` is neither a name nor a callable.
    """
    if not (model is None or callable(model) or (isinstance(model, str) and model.strip())):
        raise SpecError(
            f"card: model={shown(model)}: must be what builds the model: a callable, or its name or import path."
        )
    return "\n".join(_lines(run, model)) + "\n"


def write_card(path: str | Path, text: str, overwrite: bool = False) -> None:
    """Write a card, whole or not at all.

    Args:
        path: The file.
        text: Of the card.
        overwrite: Whether a file that is no card may be replaced.

    Raises:
        SpecError: Nothing can be written there, or there is a file that is no card.
    """
    write_whole(check_card("path", path, overwrite), [text.encode()])


def check_card(what: str, path: str | Path, overwrite: bool) -> Path:
    """Check that a card can be written to a path.

    Args:
        what: The name of the option, for messages.
        path: The file.
        overwrite: Whether a file that is no card may be replaced.

    Raises:
        SpecError: It cannot.
    """
    check_yes_or_no("card", "overwrite", overwrite)
    return check_output(what, path, is_ours=lambda file: overwrite or begins_with(file, _MARK.encode()))


def _lines(run: Measured, model: str | Callable[[], Any] | None) -> Iterator[str]:
    takes = run.model_input
    named = _name_model(run, model)
    yield _MARK
    yield f"# {_plain(named or _UNNAMED)}, trained on {_plain(takes.data if takes else 'images')}"
    yield ""
    kind = _KINDS["classes" if takes is None else takes.targets]
    yield f"{kind}, trained with layered_lr on the backend {_plain(run.backend)}."
    yield from _usage(run, takes, named)
    yield from _data(run, takes)
    yield from _training(run, named)
    yield from _plan(run)
    yield from _metrics(run)
    yield from _versions(run)


def _name_model(run: Measured, model: str | Callable[[], Any] | None) -> str:
    """What a model is called, or what builds it; empty for a function without a name."""
    said: object = model if model is not None else run.options.get("model", run.make_model)
    name = said if isinstance(said, str) else "" if said is None else name_of(said)
    return "" if name == "<lambda>" else str(name)


def _usage(run: Measured, takes: ModelInput | None, named: str) -> Iterator[str]:
    yield from ("", "## How to use it", "")
    yield from ("```python", "import layered_lr as ll", "")
    known = run.options.get("model")
    needs = "" if isinstance(known, str) else f", model={_in_code(named)}"
    trusts = ", trust=True" if isinstance(known, str) and is_import_path(known) else ""
    yield f'result = ll.Result.load("result.npz"{trusts})  # or the folder of the run'
    images = '"images/"' if takes is None or takes.takes_pixels else "images"
    top = ", top_k=3" if takes is None or takes.targets == "classes" else ""
    yield f"predictions = result.predict({images}{top}{needs})"
    yield (
        f'result.export("model.onnx", normalise=True{needs})'
        if takes is None or takes.takes_pixels
        else (f'result.export("model.onnx"{needs})')
    )
    yield "```"
    if trusts or needs:
        what = f"the code in {_plain(str(known))}" if trusts else _plain(named or "the callable that built the model")
        yield ""
        yield f"It needs {what}, which no file holds{', and imports it with `trust=True` alone' if trusts else ''}."
    if takes is None:
        return
    channels, height, width = takes.image_shape
    yield ""
    yield f"It takes images of {channels} channels, {height}x{width} (height x width)."
    if takes.mean is not None and takes.std is not None:
        mean, std = (", ".join(f"{each:.6g}" for each in numbers) for numbers in (takes.mean, takes.std))
        yield f"Pixels of 0 to 255 are divided by 255 and normalised with mean {mean} and deviation {std}."
    else:
        yield "They are floats, prepared before: the run has not normalised them."


def _in_code(named: str) -> str:
    """What builds a model, as an argument: a name as it is, an import path as a string."""
    if named.isidentifier():
        return named
    plain = bool(named) and all(part.isidentifier() for part in re.split("[.:]", named))
    return f'"{named}"' if plain else "make_model"


def _data(run: Measured, takes: ModelInput | None) -> Iterator[str]:
    yield from ("", "## Data", "")
    if takes is None:
        yield f"{_plain(str(run.options.get('data', 'arrays')))}; a run of this version says no more."
        return
    names = [takes.name_of(index) for index in range(takes.num_classes)]
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    listed = ", ".join(_plain(name) for name in names[:_MOST_NAMES]) + more
    rows = [
        ["data", takes.data],
        ["digest (BLAKE2b)", takes.digest or "not known"],
        ["training images", str(takes.train_size)],
        ["test images", str(takes.test_size)],
        ["images (channels, height, width)", ", ".join(map(str, takes.data_shape))],
        [_OUTPUTS[takes.targets], str(takes.num_classes)],
    ]
    yield from _table(["", ""], rows)
    yield ""
    if takes.class_names is not None:
        yield f"{'Values' if takes.targets == 'values' else 'Classes'}: {listed}."
    elif takes.targets == "values":
        yield "The values have no names."
    else:
        yield "The classes have no names, only numbers."


def _training(run: Measured, named: str) -> Iterator[str]:
    yield from ("", "## Training", "")
    rows = [["backend", run.backend], ["updates", str(len(run.losses))]]
    if (step := step_of_weights(run)) is not None:
        rows.append(["weights", f"those of the best epoch, after {step} updates"])
    rows += [["model", named]] if named and "model" not in run.options else []
    left_out = ("backend", "save", "checkpoints", "progress", "data_root")  # places on the machine that trained
    rows += [
        [name, str(value)] for name, value in run.options.items() if name not in left_out and value not in (None, {})
    ]
    yield from _table(["option", "value"], rows)
    yield from ("", "The spec:", "", "```toml")
    yield from (
        harmless(tomli_w.dumps(_without_none(run.plan.spec.to_dict()))).rstrip().replace("```", "'''").splitlines()
    )
    yield "```"


def _plan(run: Measured) -> Iterator[str]:
    yield from ("", "## Plan", "")
    rows = [
        [group.name, str(len(group.parameters)), *_span(run.rates.get(group.name)), run.lowering.get(group.name, "")]
        for group in run.plan.groups
    ]
    yield from _table(["group", "parameters", "first rate", "last rate", "how it was applied"], rows)


def _span(rates: Float64 | None) -> tuple[str, str]:
    if rates is None or not len(rates):
        return "", ""
    return f"{rates[0]:.6g}", f"{rates[-1]:.6g}"


def _metrics(run: Measured) -> Iterator[str]:
    yield from ("", "## Metrics", "")
    rows: list[list[str]] = []
    if len(run.losses):
        rows.append(["loss of the last batch", f"{run.losses[-1]:.4f}"])
    step = step_of_weights(run)
    if step is not None:
        for name, number in measured_after(run, step).items():
            shown_number = f"{number:.4f}" if name in (ACCURACY, OF_AVERAGE) else f"{number:.6g}"
            rows.append([f"{name}, of these weights", shown_number])
    for what, series in ((ACCURACY, run.accuracies), (OF_AVERAGE, run.ema_accuracies)):
        if len(series):
            rows.append([f"{what}, last", f"{series[-1]:.4f}"])
            rows.append([f"{what}, best", f"{np.nanmax(series) if not np.isnan(series).all() else np.nan:.4f}"])
    rows += [[f"{name}, last", f"{values[-1, 1]:.6g}"] for name, values in run.logged.items() if len(values)]
    if rows:
        yield from _table(["metric", "value"], rows)
    else:
        yield "None were measured."


def _versions(run: Measured) -> Iterator[str]:
    yield from ("", "## Versions", "")
    yield from _table(["package", "version"], [[name, version] for name, version in run.versions.items()])


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(headers) + " |"
    yield "|" + "---|" * len(headers)
    for row in rows:
        yield "| " + " | ".join(_plain(cell) for cell in row) + " |"


def _plain(text: str) -> str:
    """A text that Markdown shows as it is, in one line: nothing in a name becomes a link, a table or HTML."""
    return _SPECIAL.sub(r"\\\1", harmless(str(text), keep=""))


def _without_none(table: Any) -> Any:
    if isinstance(table, Mapping):
        return {name: _without_none(value) for name, value in table.items() if value is not None}
    return [_without_none(value) for value in table] if isinstance(table, list | tuple) else table
