"""The command ``layered-lr``. Nothing heavy is imported before a command needs it, so that ``--help`` is instant."""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.core import ParameterSource

from layered_lr.after_commands import card, evaluate, export, predict
from layered_lr.errors import LayeredLRError, ProcessLost, SpecError, TrainingDiverged
from layered_lr.flags import add_flags, describe_in_flags, look_here_last, read_flags, written
from layered_lr.guesses import explain_guess
from layered_lr.printed import harmless
from layered_lr.spelling import find_nearest
from layered_lr.tools import is_installed
from layered_lr.training.grouped_options import Precision
from layered_lr.training.import_paths import is_import_path
from layered_lr.training.options import KEPT_OF_A_RUN, merge_tables, options_with_meaning
from layered_lr.version import __version__

WRONG_INPUT, FAILED, INTERRUPTED = 2, 1, 130

_READY = sorted(file.stem for file in (Path(__file__).parent / "recipes").glob("*.toml"))

_RECIPE = click.option(
    "--recipe",
    metavar="FILE|NAME",
    help=(
        f"A TOML file, or the name of a ready recipe: {', '.join(_READY)}. The options below win over it.  "
        "[backbone-and-head]"
    ),
)
_SET = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help=(
        "A setting of the recipe's spec: layer_decay=0.8, optimizer.lr=1e-3, groups.head.lr_scale=0.5, groups=[]. "
        "The value is written as in TOML. Repeatable."
    ),
)
_TRUST = click.option(
    "--trust",
    is_flag=True,
    help="Import the code that the file or the folder names, and write where a recipe says. Importing runs it.",
)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="layered-lr")
def cli() -> None:
    """A learning rate for each group of layers: one recipe, the same training in PyTorch and in OneFlow.

    Begin with `layered-lr plan`, which prints the rates, and `layered-lr run`, which trains: MobileNetV2 on small
    pictures of digits, in a few minutes. `layered-lr COMMAND --help` has the options of a command.
    """


@cli.command()
@_RECIPE
@_SET
@_TRUST
@add_flags("run")
@click.pass_context
def run(context: click.Context, /, recipe: str | None, trust: bool, **options: Any) -> None:
    """Train, and print each group's rates, planned and applied.

    Without options it trains MobileNetV2 on the 1,797 digits that come with scikit-learn. Rates, groups and schedules
    stand in the recipe.
    """
    from layered_lr.api import run as train
    from layered_lr.training.many_processes import speaks

    spec, arguments = _recipe(recipe, options, trust)
    result = train(spec, **arguments)
    if not speaks():
        return
    _print(result)
    if arguments.get("dry_run"):
        return
    other, framework = ("oneflow-graph", "OneFlow") if result.backend.startswith("torch") else ("torch-eager", "torch")
    if _would_run(other, result, arguments):
        _print(f"the same on {framework}: {_command(context, backend=other)}")


def _would_run(backend: str, result: Any, arguments: dict[str, Any]) -> bool:
    """Whether a run that has ended would also run on another framework's backend, here."""
    from layered_lr.registry import TABLE

    if not is_installed(TABLE[backend].framework):
        return False
    if Precision.of(arguments.get("precision", "float32")).autocast is not None:  # which OneFlow has not
        return False
    if not isinstance(arguments.get("model", ""), str) or is_import_path(arguments.get("model", "")):
        return False
    if arguments.get("device", "auto") not in ("auto", "cpu", "cuda"):
        return False
    try:
        result.plan.lowering(backend)
    except LayeredLRError:  # it cannot apply this plan
        return False
    return True


@cli.command()
@click.argument("run", metavar="RUN")
@click.option("--recipe", metavar="FILE|NAME", help="Its spec takes the place of the run's, for what is left of it.")
@_TRUST
@add_flags("resume")
@click.option("--strict/--no-strict", default=True, help="Refuse what does not fit, or initialise it again.  [refuse]")
def resume(run: str, recipe: str | None, trust: bool, strict: bool, **options: Any) -> None:
    """Go on with a run that was stopped: RUN is the folder that was given as --checkpoint-dir."""
    from layered_lr.api import resume as go_on
    from layered_lr.training.many_processes import speaks
    from layered_lr.training.recipe import load_recipe

    changes = read_flags(options)
    look_here_last(changes, trust)
    spec = None if recipe is None else load_recipe(recipe, trust=trust).spec
    result = go_on(run, spec, strict=strict, trust=trust, **changes)
    if speaks():
        _print(result)


@cli.command()
@_RECIPE
@_SET
@_TRUST
@add_flags("plan")
@click.option("--backend", metavar="NAME", help="Show how this backend would apply the rates.")
@click.option("--plot", metavar="FILE", help="Draw every group's rate over the run: a .png, .svg or .html.")
@click.option(
    "--scale", type=click.Choice(["auto", "log", "linear"]), default="auto", help="The axis of rates in --plot."
)
@click.option("--csv", metavar="FILE", help="Write every group's rate at every step.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON instead of a table.")
def plan(
    recipe: str | None,
    trust: bool,
    backend: str | None,
    plot: str | None,
    scale: Any,
    csv: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Print every group's parameters and rates, before anything trains."""
    from layered_lr.api import plan as make_plan
    from layered_lr.outputs import write_whole
    from layered_lr.plans.export import check_csv, json_text
    from layered_lr.plans.text import plan_text
    from layered_lr.registry import check_name

    outputs = _outputs(plot, scale, csv)
    spec, arguments = _recipe(recipe, options, trust)
    backend = backend or arguments.get("backend")
    if backend is not None:
        check_name(backend)
    known = options_with_meaning("plan")
    made = make_plan(spec, **{name: value for name, value in arguments.items() if name in known})
    if {"dropout", "initialise"} & arguments.keys():
        _check_beside_plan(arguments, made)
    text = json_text(made, backend) if as_json else plan_text(made, backend)
    if csv is not None:
        check_csv("--csv", csv, (".csv",), made)
    for path, chunks in outputs:
        write_whole(path, chunks(made, backend))
    _print(text)
    if outputs and not as_json:
        _print(f"written: {', '.join(str(path) for path, _ in outputs)}")


def _check_beside_plan(arguments: dict[str, Any], made: Any) -> None:
    """Refuse what a recipe says of the model, and the plan does not show."""
    from layered_lr.data import dataset_facts
    from layered_lr.training.chosen_model import check_beside_plan
    from layered_lr.training.options import RunOptions

    names = ("model", "data", "data_root", "image_size", "pretrained", "head", "dropout", "initialise")
    options = RunOptions(**{name: arguments[name] for name in names if name in arguments})
    facts = dataset_facts(options.data, options.data_root, options.image_size)
    check_beside_plan(options, facts, made.parameters)


_Output: TypeAlias = "tuple[Path, Callable[[Any, str | None], Iterable[bytes]]]"


def _outputs(plot: str | None, scale: Any, csv: str | None) -> list[_Output]:
    """The files to write, each with what makes its content of a plan and a backend; all of it checked."""
    from layered_lr.outputs import check_drawing
    from layered_lr.plans.export import check_csv, csv_chunks, html_text
    from layered_lr.plans.picture import picture
    from layered_lr.reports.figures import check_matplotlib

    outputs: list[_Output] = []
    if plot is not None:
        drawn = check_drawing("--plot", plot)
        suffix = drawn.suffix.lower()
        check_matplotlib()
        if suffix == ".html":
            outputs.append((drawn, lambda plan, backend: [html_text(plan, backend, scale).encode()]))
        else:
            outputs.append((drawn, lambda plan, _: [picture(plan, suffix, scale)]))
    if csv is not None:
        table = check_csv("--csv", csv, (".csv",))
        outputs.append((table, lambda plan, _: (chunk.encode() for chunk in csv_chunks(plan))))
    return outputs


@cli.command(short_help="Say whether a recipe trains alike on several backends.")
@_RECIPE
@_SET
@_TRUST
@add_flags("compare")
@click.option(
    "--backends",
    metavar="NAMES",
    help="Two or more, with commas; the first one is the reference.  [torch-eager,oneflow-eager,oneflow-graph]",
)
@click.option("--steps", type=int, help="How many updates to compare.  [50]")
@click.option(
    "--samples", type=int, help="How many runs of the reference measure what rounding does.  [2, 8 without float64]"
)
@click.option(
    "--quick", is_flag=True, default=None, help="Compare in float64 alone, over the first fifth of the updates."
)
@click.option(
    "--resume-at", type=int, metavar="STEP", help="Stop each run after this update and go on from a checkpoint."
)
@click.option("--report", metavar="FILE", help="Write tables and pictures to this .html file.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of tables.")
@click.pass_context
def compare(
    context: click.Context, /, recipe: str | None, trust: bool, report: str | None, as_json: bool, **options: Any
) -> None:
    """Say whether a recipe trains alike on several backends: exit code 0 same, 1 different, 2 wrong input.

    For models of two frameworks: --model torch=package.module:callable,oneflow=package.module:callable.
    The first --steps updates of the recipe's run are compared.
    """
    from layered_lr.api import compare as compare_backends
    from layered_lr.outputs import check_page

    if report is not None:
        check_page("--report", report)
    spec, arguments = _recipe(recipe, options, trust)
    known = inspect.signature(compare_backends).parameters
    found = compare_backends(spec, **{name: value for name, value in arguments.items() if name in known})
    if report is not None:
        found.to_html(report)
    _print(found.to_json() if as_json else found)
    if report is not None and not as_json:
        _print(f"written: {report}")
    context.exit(0 if found.same else FAILED)


@cli.command("find-lr", short_help="Find a rate: train at rising rates, and look at the loss.")
@_RECIPE
@_SET
@_TRUST
@add_flags("run", without=(*KEPT_OF_A_RUN, "ema_decay"))
@click.option("--start", type=float, help="The first rate.  [1e-07]")
@click.option("--end", type=float, help="The last rate.  [10]")
@click.option("--steps", type=int, help="How many updates, each with a rate of its own.  [100]")
@click.option("--group", metavar="NAME", help="Search for the rate of this group alone.  [all, their ratios kept]")
@click.option("--phase", type=int, help="The phase of the recipe whose rates and frozen groups hold.  [1]")
@click.option("--seeds", type=int, help="How many sweeps, each with a seed of its own.  [1]")
@click.option("--smoothing", type=float, help="How much of the mean of losses stays at each update.  [0.98]")
@click.option("--stop-factor", type=float, help="Stop at so many times the lowest smoothed loss.  [4]")
@click.option("--plot", metavar="FILE", help="Draw the curve, its suggestions marked: a .png, .svg or .html.")
@click.option(
    "--recipe-out",
    metavar="FILE",
    help="Write a recipe to this .toml file: the spec at the suggested rate, and the settings of the run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of a table.")
def find_lr(
    recipe: str | None, trust: bool, plot: str | None, recipe_out: str | None, as_json: bool, **options: Any
) -> None:
    """Train at rising rates, every group's ratio kept, and print the rates that the loss suggests.

    Nothing is kept of what is trained. Exit code 1: the curve suggests no rate.
    """
    from layered_lr.before.find_lr import find_lr as search_rate
    from layered_lr.before.search_picture import file_content
    from layered_lr.outputs import check_drawing, write_whole
    from layered_lr.reports.figures import check_matplotlib
    from layered_lr.strict_json import json_text
    from layered_lr.training.recipe import check_recipe, recipe_text, written_run

    drawn = None if plot is None else check_drawing("--plot", plot)
    if drawn is not None:
        check_matplotlib()
    written = None if recipe_out is None else check_recipe("--recipe-out", recipe_out)
    spec, run, said = _read_recipe(recipe, options, trust)
    arguments = merge_tables(run, said)
    arguments = {name: value for name, value in arguments.items() if name not in KEPT_OF_A_RUN}
    found = search_rate(spec, **arguments)
    if drawn is not None:
        is_page = drawn.suffix.lower() == ".html"
        write_whole(drawn, [found.to_html().encode() if is_page else file_content(found, drawn.suffix.lower())])
    _print(json_text(found.to_dict(), indent=1) if as_json else found)
    if not found.suggestions:
        sys.exit(FAILED)
    if written is not None:
        write_whole(written, [recipe_text(found.suggestion.spec, written_run(run, said)).encode()])
    if (drawn or written) and not as_json:
        _print(f"written: {', '.join(str(path) for path in (drawn, written) if path)}")


@cli.command(short_help="Say whether a model learns one batch by heart, and what is wrong where not.")
@_RECIPE
@_SET
@_TRUST
@add_flags("run", without=(*KEPT_OF_A_RUN, "ema_decay", "augment"))
@click.option("--batches", type=int, help="How many batches to learn.  [1]")
@click.option("--steps", type=int, help="The most updates.  [50]")
@click.option("--target", type=float, help="The loss to reach.  [a twentieth of the first loss]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON instead of a table.")
@click.pass_context
def overfit(context: click.Context, /, recipe: str | None, trust: bool, as_json: bool, **options: Any) -> None:
    """Train on one batch again and again: exit code 0 where it is learned, 1 where not, 2 for wrong input.

    Whatever the loss does, it looks for faults: rates of 0, a frozen head, labels that do not go with the images,
    images that are not normalised, dead activations, gradients that explode or vanish.
    """
    from layered_lr.before.overfit import overfit as learn_by_heart

    spec, arguments = _recipe(recipe, options, trust)
    left_out = (*KEPT_OF_A_RUN, "augment")
    found = learn_by_heart(spec, **{name: value for name, value in arguments.items() if name not in left_out})
    _print(found.to_json() if as_json else found)
    context.exit(0 if found.ok else FAILED)


@cli.command(short_help="List the runs of a folder.")
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def runs(folder: str, as_json: bool) -> None:
    """List the runs in DIR and in its folders: how far each is, its accuracies, and whether it can go on.

    A run is running, finished, stopped (`layered-lr resume` goes on with it) or damaged. Nothing is changed there.
    """
    from layered_lr.watching.run_list import list_runs

    found = list_runs(folder)
    _print(found.to_json() if as_json else found)


@cli.command(short_help="Write an HTML report of one run or several.")
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("-o", "--output", metavar="FILE", default="report.html", help="The .html file.  [report.html]")
@_TRUST
def report(runs: tuple[str, ...], output: str, trust: bool) -> None:
    """Write one HTML file about one run or several: plan, rates, losses, norms, accuracies, and what differs.

    RUN is a run's folder, or a folder of runs. The file refers to nothing outside it, and needs no script.
    """
    from layered_lr.watching.report import report as write_report

    look_here_last({}, trust)
    _print(f"written: {write_report(runs, output, trust=trust)}")


@cli.command(short_help="Make every run of a recipe that has lists of values.")
@click.argument("recipe", metavar="RECIPE")
@click.option("--into", metavar="DIR", required=True, help="The folder of the sweep; each run has a folder in it.")
@click.option("--jobs", type=int, default=1, help="How many runs go on at a time.  [1]")
@_TRUST
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.pass_context
def sweep(context: click.Context, /, recipe: str, into: str, jobs: int, trust: bool, as_json: bool) -> None:
    """Make every run of a recipe with lists, such as lr = [0.1, 0.01]: exit code 0 all finished, 1 not all.

    RECIPE is a TOML file. The same command goes on with what is missing, after a stop or an error.
    """
    from layered_lr.watching.sweep import sweep as make_sweep

    done = make_sweep(recipe, into, jobs, trust=trust)
    _print(done.to_json() if as_json else done)
    context.exit(0 if done.ok else FAILED)


@cli.command(short_help="Find faults in a training recipe that was written by hand.")
@click.argument("make", metavar="MODULE:MAKE")
@click.option("--steps", type=int, help="How often the loop calls scheduler.step() in the whole run.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON instead of a table.")
@click.pass_context
def audit(context: click.Context, /, make: str, steps: int | None, as_json: bool) -> None:
    """Find faults in a training recipe of torch: exit code 0 none found, 1 findings, 2 wrong input.

    MODULE:MAKE names a function without arguments that returns optimizer, model and, if there is one, scheduler; or a
    dictionary of the arguments of ll.audit. The module is imported, which runs it.
    """
    from layered_lr.auditing import audit_made

    if (here := str(Path.cwd())) not in sys.path:  # after all others, as for --model
        sys.path.append(here)
    found = audit_made(make, steps)
    _print(found.to_json() if as_json else found)
    context.exit(0 if found.ok else FAILED)


@cli.command(short_help="Measure how fast the library is (source checkout only).")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--list", "as_list", is_flag=True, help="List the benchmarks, and the question that each answers.")
@click.option("--quick", is_flag=True, help="Tiny sizes, one round, to see that they work. The figures mean nothing.")
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds after a warm-up.  [as each benchmark has it]")
@click.option("--out", metavar="DIR", help="For JSON and pictures.  [benchmarks/results; nothing of a quick run]")
@click.option("--data", metavar="FILE", help="An .npz of real images, for the benchmarks that train on images.")
@click.option("--trust", is_flag=True, help="Run the benchmarks of this folder, if the package has none.")
@click.pass_context
def bench(context: click.Context, /, names: tuple[str, ...], as_list: bool, trust: bool, **options: Any) -> None:
    """Measure how fast the library is: by all benchmarks of `make bench`, or by those named.

    The benchmarks are part of the source checkout. They are looked for next to the package, and with --trust also in
    the current folder.
    """
    root = _checkout(trust)
    sys.path.append(str(root))
    from benchmarks.suite import listed, measure

    if as_list:
        _print(listed())
        return
    context.exit(0 if measure(names, **options) else FAILED)


def _checkout(trust: bool) -> Path:
    """The folder that holds the benchmarks.

    Args:
        trust: Look in the current folder too, and run what is there.

    Raises:
        SpecError: Neither the one that this package lies in nor the current one does.
    """
    here = (Path(__file__).resolve().parents[1], *([Path.cwd()] if trust else []))
    for folder in here:
        if (folder / "benchmarks" / "suite.py").is_file():
            return folder
    raise SpecError(
        f"bench: there are no benchmarks next to the installed package ({here[0]}). They are part of the source "
        "checkout: call the command there, with --trust."
    )


@cli.command(short_help="List the models that are known by name.")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def models(names: tuple[str, ...], as_json: bool) -> None:
    """List the models that are known by name: parameters, groups that suggest themselves, the least images, the head.

    NAME may be a glob, such as 'resnet*' or 'timm:vit_*'. Of a single model it also says whether it can be translated
    to OneFlow. The first listing measures each model, which takes a minute or two; the next ones are at once.
    """
    import json

    from layered_lr.models.listing import list_models, models_text, try_translation

    facts = list_models(names)
    where = try_translation(facts[0]) if len(facts) == 1 else None
    if as_json:
        _print(json.dumps([{**each._asdict(), **({} if where is None else {"works": where})} for each in facts]))
    else:
        _print(models_text(facts, where))


@cli.command()
@click.pass_context
def doctor(context: click.Context, /) -> None:
    """Say which backends work here, and what to do about those that do not."""
    from layered_lr.backend.doctor import backends, doctor_text

    found = backends()
    _print(doctor_text(found))
    context.exit(0 if any(status.available for status in found.values()) else FAILED)


for _command_after in (predict, evaluate, export, card):
    cli.add_command(_command_after)


def _recipe(name: str | None, options: dict[str, Any], trust: bool) -> tuple[Any, dict[str, Any]]:
    """The spec, and the arguments of a run: the recipe's, with what the command line says instead."""
    spec, run, said = _read_recipe(name, options, trust)
    return spec, merge_tables(run, said)


def _read_recipe(name: str | None, options: dict[str, Any], trust: bool) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """The spec, the recipe's arguments of a run, and those that the command line says instead."""
    from layered_lr.training.recipe import DEFAULT, load_recipe
    from layered_lr.training.settings import change_spec

    settings = options.pop("settings")
    said = read_flags(options)
    look_here_last(said, trust)
    loaded = load_recipe(DEFAULT if name is None else name, trust=trust)
    return change_spec(loaded.spec, settings, trust=trust), loaded.run, said


def _command(context: click.Context, **instead: str) -> str:
    """The command line of this call, with some options replaced and no place to write to, ready to be pasted."""
    program = ["python", "-m", "layered_lr"] if sys.argv[0].endswith("__main__.py") else [sys.argv[0]]
    words = [*program, str(context.command.name)]
    left_out = (*instead, "save", "checkpoints__folder")  # this run has written there
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) != ParameterSource.COMMANDLINE or name in left_out:
            continue
        value = context.params[name]
        if isinstance(value, bool):
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            for item in value if isinstance(value, tuple) else (value,):
                words += [parameter.opts[0], written(item)]
    for name, value in instead.items():
        words += [f"--{name}", value]
    return shlex.join(words)


def main() -> None:
    """The entry point: every expected error is one or two lines on stderr and an exit code, never a traceback."""
    if sys.stdout is not None and not str(sys.stdout.encoding).lower().startswith("utf"):
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a name need not end the command
    try:
        code = cli.main(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.NoSuchOption as error:
        where = error.ctx.command_path if error.ctx else "layered-lr"
        _fail(f"No such option {error.option_name!r}.{_hint(error)} (see '{where} --help')", error.exit_code)
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "layered-lr"
        _fail(f"{error.format_message()} (see '{where} --help')", error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", INTERRUPTED)
    except LayeredLRError as error:
        code = FAILED if isinstance(error, (TrainingDiverged, ProcessLost)) else WRONG_INPUT
        whose = "" if _speaks(error) else _wait_to_speak(error)
        if whose is None:
            sys.exit(code)
        _fail(f"{whose}{describe_in_flags(error, sys.argv[1:])}", code)
    except BrokenPipeError:  # whoever read it has gone away
        _leave_stdout()
        sys.exit(FAILED)
    except OSError as error:
        _leave_stdout()
        _fail(f"what there is to say cannot be written: {error.strerror or error}.", FAILED)
    else:
        sys.exit(code if isinstance(code, int) else 0)


def _speaks(error: LayeredLRError) -> bool:
    """Whether this process is to say an error: of several, one does."""
    from layered_lr.training.many_processes import speaks

    return speaks(error)


def _wait_to_speak(error: LayeredLRError) -> str | None:
    """Wait until a process that says an error has done so; where none has, whose error this is."""
    from layered_lr.training.many_processes import seconds_of_silence, who_is_left

    time.sleep(seconds_of_silence(error))
    return who_is_left(error)


def _hint(error: click.NoSuchOption) -> str:
    """Where to say what an unknown option was to say: in a recipe, or by an option whose name is truly near."""
    from layered_lr.training.recipe import recipe_place

    if error.ctx is None:
        return ""
    name = error.option_name.lstrip("-").replace("-", "_")
    parameters = error.ctx.command.get_params(error.ctx)
    if any(parameter.name == "recipe" for parameter in parameters) and (place := recipe_place(name)):
        return f" It belongs in a recipe, {place}: write it in a TOML file for --recipe FILE, or use --set KEY=VALUE."
    # Without the dashes: with them, every short name is near to every other one.
    known = [flag[2:] for each in parameters for flag in (*each.opts, *each.secondary_opts) if flag.startswith("--")]
    if near := find_nearest(name.replace("_", "-"), known):
        return f" Did you mean '--{near}'?"
    flags = {str(parameter.name).partition("__")[0]: parameter.opts[0] for parameter in reversed(parameters)}
    guess = explain_guess("run", name, list(flags))
    return functools.reduce(lambda text, own: text.replace(f"'{own}'", f"'{flags[own]}'"), flags, guess)


def _print(text: object) -> None:
    """Print on stdout; names from files and from the command line are harmless there."""
    click.echo(harmless(str(text)))


def _leave_stdout() -> None:
    """Write nothing more to a standard output that takes nothing, such as a file on a full disk."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _fail(message: str, code: int) -> None:
    click.echo(harmless(f"layered-lr: {message}"), err=True)
    sys.exit(code)


def console() -> None:
    """``main`` as a process of its own, which ends with its exit code whatever happens to OneFlow's threads.

    Ctrl-C ends it with 130, also where ``main`` is just ending; after that the process is on its way out, and a signal
    changes its exit code no more.
    """
    try:
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else FAILED
    except KeyboardInterrupt:
        code = INTERRUPTED
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "oneflow" in sys.modules:  # 0.9 crashes at times while it is taken down, when all is done
        with contextlib.suppress(OSError):  # nobody reads any more
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
