"""The parts of ``layered_lr/api.py`` that are made from the declarations of the options.

``python -m docs.generated`` renews them; a test says when they are not current.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

from layered_lr.training.option import Option, options_of
from layered_lr.training.options import RunOptions, field_types, options_with_meaning

API = Path(__file__).parents[1] / "layered_lr" / "api.py"
WIDTH = 120
POSITIONAL = {"run": ("backend", "model", "data"), "plan": ("model", "data"), "compare": ("data",)}
HAND_WRITTEN = {"run": (), "plan": (), "compare": ("model",)}
"""Options that a function declares itself, because it takes more of them."""
BEHIND = ("steps", "samples", "quick", "resume_at", "total_steps", "steps_per_epoch")
"""Arguments that are no options and stand behind them."""


def renew(text: str) -> str:
    """The source of ``api.py`` with the signatures and ``Args`` as the declarations have them."""
    for command in POSITIONAL:
        start, end = f"    # begin of {command}\n", f"    # end of {command}\n"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = before + start + signature_lines(command) + end + _with_arguments(after, command)
    return text


def _names(command: str) -> list[str]:
    names = [name for name in options_with_meaning(command) if name not in HAND_WRITTEN[command]]
    return sorted(names, key=lambda name: name not in POSITIONAL[command])  # stable: the others stay in their order


def signature_lines(command: str) -> str:
    """The options among a function's parameters, as source text."""
    types, declared = field_types(RunOptions), options_of(RunOptions)
    lines = [f"    {name}: {types[name]} = {_default(declared[name], command)},\n" for name in _names(command)]
    lines.insert(len(POSITIONAL[command]), "    *,\n")
    return "".join(lines)


def _default(declared: Option, command: str) -> str:
    default = declared.default_in(command)
    return f'"{default}"' if isinstance(default, str) else repr(default)


def _with_arguments(text: str, command: str) -> str:
    """The rest of the file with the first docstring's entries renewed; those that are written by hand stay."""
    head, args, rest = text.partition("    Args:\n")
    section, blank, tail = rest.partition("\n\n")
    entries = re.split(r"\n(?=        \w+: )", section)
    own = [entry for entry in entries if entry.split(":")[0].strip() not in _names(command)]
    first = [entry for entry in own if entry.split(":")[0].strip() not in BEHIND]
    last = [entry for entry in own if entry not in first]
    return head + args + "\n".join([*first, *map(argument_entry, _names(command)), *last]) + blank + tail


def argument_entry(name: str) -> str:
    """An option's entry in a docstring's ``Args``."""
    text = f"{name}: {options_of(RunOptions)[name].help}"
    return textwrap.fill(text, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12, break_long_words=False)


def options_table(cls: type = RunOptions, prefix: str = "") -> str:
    """The table of all options, in Markdown: a row for each, parts below the option that they belong to."""
    rows = ["| option | flag | default | allowed | meaning |", "|---|---|---|---|---|"] if not prefix else []
    for name, declared in options_of(cls).items():
        shown = f"`{prefix}{name}`"
        flag = f"`{declared.flag}`" if declared.flag else ""
        default = declared.shown_default or ("" if declared.default in (None, ()) else f"`{declared.default!r}`")
        where = "" if "resume" in declared.meaning else " Fixed when a run goes on."
        rows.append(f"| {shown} | {flag} | {default} | {declared.allowed} | {declared.help}{where} |")
        if declared.parts is not None:
            rows.append(options_table(declared.parts, f"{name}."))
    return "\n".join(rows)


def main() -> None:
    """Write the file anew."""
    API.write_text(renew(API.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
