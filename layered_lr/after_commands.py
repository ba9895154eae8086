"""The commands for what was trained: ``predict``, ``evaluate``, ``export``, ``card``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from layered_lr.flags import look_here_last
from layered_lr.printed import harmless

if TYPE_CHECKING:
    from layered_lr.training.result import Result
    from layered_lr.training.trained.assessment import Evaluation
    from layered_lr.training.trained.predictions import Predictions

C = TypeVar("C", bound=Callable[..., Any])

_RUN = click.argument("run", metavar="RUN")
_CHECKPOINT = click.option(
    "--checkpoint", metavar="last|best|STEP", default="last", help="Which checkpoint of a run's folder.  [last]"
)
_WEIGHTS = click.option(
    "--weights",
    type=click.Choice(["average", "last"]),
    help="The moving average, or the weights after the last update.  [the average where there is one]",
)
_MODEL = click.option(
    "--model", metavar="MODULE:CALLABLE", help="What builds the model, where the run could not write it down."
)
_TRUST = click.option(
    "--trust", is_flag=True, help="Import the code that the run's file or folder names. Importing runs it."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
_OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace a file that is there already.")


def _answering(function: C) -> C:
    """Give a command the options of whatever answers with a run's model."""
    for add in (
        click.option("--device", metavar="NAME", default="auto", help="Where to compute: auto, cpu or cuda.  [auto]"),
        click.option("--backend", metavar="NAME", help="What answers.  [the run's own]"),
        _MODEL,
        _TRUST,
        _WEIGHTS,
        _CHECKPOINT,
    ):
        function = add(function)
    return function


@click.command(short_help="Say what a trained model sees in images.")
@_RUN
@click.argument("images", metavar="IMAGES...", nargs=-1, required=True)
@_answering
@click.option("--top-k", type=int, default=1, help="How many classes of each image to name.  [1]")
@click.option("--batch-size", type=int, default=64, help="How many images the model takes at a time.  [64]")
@click.option("--resize/--no-resize", default=None, help="Resize images of other sizes, or refuse them.  [resize them]")
@click.option("--csv", metavar="FILE", help="Write a row for each image and class, or for each image's values, here.")
@click.option("--folder", metavar="DIR", help="Write a file for each image to this new folder: masks, or values.")
@_JSON
def predict(
    run: str,
    images: tuple[str, ...],
    top_k: int,
    csv: str | None,
    folder: str | None,
    as_json: bool,
    checkpoint: str,
    trust: bool,
    model: str | None,
    **options: Any,
) -> None:
    """Say what a trained model sees in images: files, or folders of them.

    RUN is the folder that was given as --checkpoint-dir, or the file that was given as --save. Images are normalised
    and resized as in the run. A run on masks writes .png files with --folder, and a run on values .npy files.
    """
    from layered_lr.training.trained.answers import check_folder
    from layered_lr.training.trained.predictions import check_csv, check_written

    if csv is not None:
        check_csv("--csv", csv)
    if folder is not None:
        check_folder("--folder", folder)
    result = _open(run, checkpoint, trust, model)
    takes = result.model_input
    check_written("classes" if takes is None else takes.targets, csv, folder)
    found = result.predict(list(images), top_k=top_k, model=model, **options)
    if folder is not None:
        found.save(folder)
    _tell(found, csv, as_json)
    if folder is not None and not as_json:
        _print(f"written: {folder} ({len(found)} files)")


@click.command(short_help="Say how good a trained model is on images with targets.")
@_RUN
@click.option("--data", metavar="NAME|FILE", help="As for `run`.  [what the run was trained on]")
@click.option("--data-root", metavar="DIR", help="The folder of the CIFAR-10 files.  [the user's cache]")
@click.option("--part", type=click.Choice(["test", "train", "all"]), default="test", help="Which images count.  [test]")
@_answering
@click.option("--batch-size", type=int, help="How many images the model takes at a time.  [the run's]")
@click.option("--csv", metavar="FILE", help="Write the confusion matrix to this .csv file.")
@click.option("--loss", metavar="MODULE:CALLABLE", help="What loss to measure.  [the run's, where it is written down]")
@click.option(
    "--metric", "metrics", metavar="MODULE:CALLABLE", multiple=True, help="What else to measure; may be repeated."
)
@_JSON
def evaluate(
    run: str,
    csv: str | None,
    as_json: bool,
    checkpoint: str,
    trust: bool,
    model: str | None,
    metrics: tuple[str, ...],
    **options: Any,
) -> None:
    """Say how good a trained model is on images with targets: the loss and metrics.

    Of classes also the accuracy, the confusion matrix, and each class by itself.

    RUN is the folder that was given as --checkpoint-dir, or the file that was given as --save.
    """
    from layered_lr.training.import_paths import imported
    from layered_lr.training.trained.assessment import check_has_matrix, check_matrix_csv

    if csv is not None:
        check_matrix_csv("--csv", csv)
    result = _open(run, checkpoint, trust, model or options["loss"] or next(iter(metrics), None))
    if csv is not None and result.model_input is not None:
        check_has_matrix("--csv", result.model_input.targets)
    names = [path.rpartition(":")[2] for path in metrics]
    measured = {
        name if names.count(name) == 1 else path: imported(path, "--metric")
        for name, path in zip(names, metrics, strict=True)
    }
    found = result.evaluate(model=model, metrics=measured, **options)
    _tell(found, csv, as_json)


@click.command(short_help="Write a trained model as ONNX, torch.export or a state_dict.")
@_RUN
@click.argument("file", metavar="FILE")
@click.option(
    "--format",
    type=click.Choice(["onnx", "torch.export", "torch", "safetensors", "oneflow"]),
    help="What to write.  [as FILE ends: .onnx, .pt2, .pth, .safetensors, .oneflow]",
)
@click.option(
    "--normalise/--no-normalise",
    default=False,
    help="Let the model normalise: it then takes pixels, uint8 of shape (N, C, H, W).  [no]",
)
@click.option(
    "--check/--no-check", default=True, help="Compare the file's answers with those of both frameworks.  [compare]"
)
@_OVERWRITE
@_MODEL
@_TRUST
@_WEIGHTS
@_CHECKPOINT
def export(run: str, file: str, checkpoint: str, trust: bool, model: str | None, **options: Any) -> None:
    """Write a trained model for use without this library.

    RUN is the folder that was given as --checkpoint-dir, or the file that was given as --save. An .onnx or a .pt2 holds
    the whole model; a .pth, a .safetensors or a .oneflow holds its weights, a plain state_dict.
    """
    _print(_open(run, checkpoint, trust, model).export(file, model=model, **options))


@click.command(short_help="Describe a trained model in Markdown.")
@_RUN
@click.argument("file", metavar="[FILE]", required=False)
@_CHECKPOINT
@_OVERWRITE
@_MODEL
@_TRUST
def card(run: str, file: str | None, checkpoint: str, overwrite: bool, trust: bool, model: str | None) -> None:
    """Describe a trained model in Markdown: plan, data, versions, metrics, how to load it.

    RUN is the folder that was given as --checkpoint-dir, or the file that was given as --save. Without FILE the card is
    printed.
    """
    text = _open(run, checkpoint, trust).card(file, overwrite=overwrite, model=model)
    _print(text.rstrip() if file is None else f"written: {file}")


def _open(run: str, checkpoint: str, trust: bool = False, model: str | None = None) -> Result:
    from layered_lr.training.result import Result

    look_here_last({} if model is None else {"model": model}, trust)
    chosen: str | int = int(checkpoint) if checkpoint.isascii() and checkpoint.isdigit() else checkpoint
    return Result.load(run, trust=trust, checkpoint=chosen)


def _tell(found: Predictions | Evaluation, csv: str | None, as_json: bool) -> None:
    """Print what was found, and write it to a .csv file where one was asked for."""
    if csv is not None:
        found.to_csv(csv)
    _print(found.to_json() if as_json else found)
    if csv is not None and not as_json:
        _print(f"written: {csv}")


def _print(text: object) -> None:
    """Print on stdout; names from files are harmless there."""
    click.echo(harmless(str(text)))
