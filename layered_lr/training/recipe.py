"""Recipes: TOML files with a spec and the arguments of a run. Some come with the library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w

from layered_lr.errors import SpecError
from layered_lr.files import as_path, begins_with
from layered_lr.guesses import unknown_name
from layered_lr.optimizers import OPTIMIZERS
from layered_lr.outputs import check_output
from layered_lr.printed import shown
from layered_lr.schedules import SCHEDULES
from layered_lr.spec.groups import Group
from layered_lr.spec.spec import RUN_TABLE, Spec
from layered_lr.spec.toml import read_toml
from layered_lr.spelling import did_you_mean
from layered_lr.training.in_file import marked, unmarked
from layered_lr.training.option import old_name, options_of
from layered_lr.training.options import KEPT_OF_A_RUN, RunOptions, merge_tables
from layered_lr.training.written_options import table_of_options
from layered_lr.yes_or_no import check_yes_or_no

DEFAULT = "backbone-and-head"
_MARK = "# Written by layered-lr, which may write over it: give a recipe of your own another name.\n"


class Recipe(NamedTuple):
    """A spec and the arguments of ``run`` that go with it.

    Args:
        spec: What to train with.
        run: Arguments of ``layered_lr.run``, by name: ``layered_lr.run(recipe.spec, **recipe.run)``.

    Example:
        >>> import layered_lr as ll
        >>> recipe = ll.load_recipe("backbone-and-head")
        >>> recipe.spec.optimizer.lr
        0.1
        >>> recipe.run["epochs"]
        6
    """

    spec: Spec
    run: dict[str, Any]


def ready_recipes() -> list[str]:
    """The names of the recipes that come with the library.

    Example:
        >>> import layered_lr as ll
        >>> ll.ready_recipes()[:2]
        ['adamw-fine-tune', 'backbone-and-head']
    """
    return sorted(file.name.removesuffix(".toml") for file in _folder().iterdir() if file.name.endswith(".toml"))


def load_recipe(name_or_path: str | Path, *, trust: bool = False) -> Recipe:
    """Read a recipe. Nothing is imported or run, whoever wrote it.

    Args:
        name_or_path: A ready recipe's name, such as ``"tutorial-graph"``, or the path of a TOML file. Its ``[run]``
            table holds arguments of ``run``; the rest is the spec.
        trust: Whether code that the file names may be imported (``model``, functions of schedules), and places that it
            names written to (``save``, the folder of ``checkpoints``). Without it, to run such a recipe is a
            ``SpecError``, unless these are given instead.

    Raises:
        SpecError: No such recipe or file, not TOML, an unknown key or a value that is not allowed.

    Example:
        >>> import layered_lr as ll
        >>> [group.label for group in ll.load_recipe("adamw-fine-tune").spec.groups]
        ['backbone', 'head']
    """
    check_yes_or_no("load_recipe", "trust", trust)
    is_ready = isinstance(name_or_path, str | Path) and str(name_or_path) in ready_recipes()
    table = read_recipe_table(name_or_path)
    run = table.pop(RUN_TABLE, {})
    if not isinstance(run, dict):
        raise SpecError(
            f"recipe {str(name_or_path)!r}: {RUN_TABLE} must be a table; write [{RUN_TABLE}] above its keys"
        )
    known = [name for name, declared in options_of(RunOptions).items() if declared.is_written]
    for name in run:
        if name not in known:
            hint = old_name(name) or unknown_name("run", name, known)
            raise SpecError(f"recipe {str(name_or_path)!r}: [{RUN_TABLE}] has no {name!r}.{hint}")
    if not is_ready and not trust:
        run = marked(run)
        RunOptions(**unmarked(run))
    else:
        RunOptions(**run)
    return Recipe(Spec.from_dict(table, trust=trust or is_ready), run)


def read_recipe_table(name_or_path: Any) -> dict[str, Any]:
    """What a recipe's TOML says, unchecked.

    Args:
        name_or_path: As ``load_recipe`` takes it.

    Raises:
        SpecError: No such recipe or file, or not TOML.
    """
    if not isinstance(name_or_path, str | Path):
        raise SpecError(f"recipe {shown(name_or_path)}: must be a path or a name.")
    ready = ready_recipes()
    if str(name_or_path) in ready:
        return read_toml((_folder() / f"{name_or_path}.toml").read_text(encoding="utf-8"))
    if isinstance(name_or_path, str) and not name_or_path.endswith(".toml"):
        raise SpecError(
            f"recipe {shown(name_or_path)}: must be the path of a .toml file or one of {', '.join(ready)}."
            f"{did_you_mean(name_or_path, ready)}"
        )
    return read_toml(as_path("recipe", name_or_path))


def check_recipe(what: str, path: str | Path) -> Path:
    """Check that a recipe can be written to a path; one that this library has written is replaced, and nothing else.

    Args:
        what: The name of the option, for messages.
        path: The path of a .toml file.

    Raises:
        SpecError: It cannot.
    """
    return check_output(what, path, (".toml",), is_ours=lambda file: begins_with(file, _MARK.encode()))


def recipe_text(spec: Spec, run: Mapping[str, Any]) -> str:
    """A recipe as TOML, with a mark by which it is told from others.

    Args:
        spec: What to train with.
        run: Arguments of ``run`` that a recipe can hold, plain, as ``written_run`` gives them.
    """
    return _MARK + tomli_w.dumps({**spec.to_dict(), **({RUN_TABLE: dict(run)} if run else {})})


def written_run(run: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's arguments of ``run`` with what was said instead, as a recipe holds them.

    Args:
        run: The recipe's.
        said: Of options beside it; what no recipe holds is left out.
    """
    merged = {name: value for name, value in merge_tables(run, said).items() if name not in KEPT_OF_A_RUN}
    known = options_of(RunOptions)
    table = table_of_options(RunOptions(**{name: value for name, value in merged.items() if name in known}))
    new = {name: table[name] for name in said if name in table}
    plain: dict[str, Any] = _without_none({**run, **new})
    return plain


def _without_none(value: Any) -> Any:
    """Tables and lists without None, which TOML has not: there the default says the same."""
    if isinstance(value, Mapping):
        return {name: _without_none(part) for name, part in value.items() if part is not None}
    if isinstance(value, list | tuple):
        return [_without_none(part) for part in value]
    return str(value) if isinstance(value, str | Path) else value


@cache
def default_spec() -> Spec:
    """The spec of the recipe that runs where none is given."""
    return load_recipe(DEFAULT).spec


def _folder() -> Any:
    return resources.files("layered_lr") / "recipes"


def recipe_place(setting: str) -> str:
    """Where a recipe holds a setting of its spec; empty where it is none.

    Example:
        >>> recipe_place("lr"), recipe_place("schedule"), recipe_place("clip_grad_norm"), recipe_place("epochs")
        ('under [optimizer]', 'under [schedule]', 'above all tables', '')
    """
    tables = {"optimizer": "[optimizer]", "schedule": "[schedule]", "groups": "[[groups]]", "phases": "[[phases]]"}
    if setting in options_of(RunOptions):
        return ""
    if setting in tables:
        return f"under {tables[setting]}"
    holders: dict[str, Iterable[Any]] = {
        "under [optimizer]": OPTIMIZERS.values(),
        "under [[groups]]": [Group],
        "under [schedule]": SCHEDULES.values(),
        "above all tables": [Spec],
    }
    named = (
        place for place, kinds in holders.items() if any(setting == f.name for kind in kinds for f in fields(kind))
    )
    return next(named, "")
