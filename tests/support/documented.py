"""Run what the documentation shows: the Python blocks of a page, and the words of its shell blocks.

Sybil finds the blocks and evaluates them in one namespace a page, as a reader would type them one after the other. Its
plug-in for pytest is left out: it makes a test of each block, and pytest-xdist would send blocks of one page, which
share their names, to different processes. Blocks in comments (``<!--- invisible-code-block: python``) make what a
reader already has.
"""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

from layered_lr.cli import cli
from layered_lr.registry import check_name
from layered_lr.spec.toml import read_toml
from layered_lr.training.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[2]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
EVERYWHERE = ("cd", "export", "git", "kill", "python")  # what a shell block may call beside the project's own


def pages() -> list[Path]:
    """Every page with blocks to run."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def needs_oneflow(page: Path) -> bool:
    """Whether a Python block of the page uses OneFlow."""
    blocks = re.findall(r"(?:```python|invisible-code-block: python)\n(.*?)\n(?:```|-->)", page.read_text(), re.DOTALL)
    return any("oneflow" in block for block in blocks)


def run_page(page: str) -> int:
    """Evaluate every block of a page in its order.

    Returns:
        How many there were.

    Raises:
        Exception: What a block raises, with the page's own line in the traceback; SybilFailure where an output differs.
    """
    parsers = [PythonCodeBlockParser(doctest_optionflags=FLAGS), CodeBlockParser("sh", check_shell), SkipParser()]
    examples = list(Sybil(parsers, path=str(ROOT)).parse(Path(page)))
    for example in examples:
        example.evaluate()
    return len(examples)


def check_shell(example: Example) -> None:
    """Check that each command of a shell block is one that there is, with options that it takes."""
    for words in commands(example.parsed):
        check_command(words)


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a shell block."""
    for line in text.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|;", line.partition(" #")[0]):
            words = [word for word in shlex.split(part, comments=True) if not re.fullmatch(r"[A-Z_]+=.*|&", word)]
            if words:
                yield words


def check_command(words: list[str]) -> None:
    """Check one command; a call of ``layered-lr plan`` is made.

    Raises:
        AssertionError: There is no such command, target, extra or file.
        click.ClickException: ``layered-lr`` does not take an option or its value.
        LayeredLRError: No such recipe or backend.
    """
    program, *rest = words
    if program == "layered-lr":
        _check_call(rest)
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert next(word for word in rest if "=" not in word) in targets, words
    elif program == "pip":
        extras = read_toml(ROOT / "pyproject.toml")["project"]["optional-dependencies"]
        named = ",".join(re.findall(r"\.\[([a-z,]+)\]", " ".join(rest)))
        assert rest[0] == "install" and set(filter(None, named.split(","))) <= set(extras), words
    else:
        assert program in EVERYWHERE, f"{words}: not a command that a test knows"
        files = [word for word in rest if program == "python" and word.endswith(".py") and "/" in word]
        assert all((ROOT / file).is_file() for file in files), f"{words}: no such file"


def _check_call(words: list[str]) -> None:
    name, *rest = words
    if name.startswith("--"):
        return
    if "--help" in rest:
        assert name in cli.commands, words
        return
    if name == "plan" and "mine.toml" not in rest:  # quick enough to be called
        called = CliRunner().invoke(cli, words, catch_exceptions=False)
        assert called.exit_code == 0, called.output
    above = click.Context(cli, info_name="layered-lr", **cli.context_settings)  # whose settings hold for the commands
    parsed = cli.commands[name].make_context(name, rest, parent=above).params
    if parsed.get("recipe") and not parsed["recipe"].endswith(".toml"):
        load_recipe(parsed["recipe"])
    for backend in filter(None, [parsed.get("backend"), *(parsed.get("backends") or "").split(",")]):
        check_name(backend)


def documented_modules() -> list[str]:
    """Every module of the package whose docstrings have examples (``>>>``)."""
    folders = [(ROOT, "layered_lr"), *((ROOT / "backends", f"layered_lr_{name}") for name in ("torch", "oneflow"))]
    files = [(root, path) for root, package in folders for path in sorted((root / package).rglob("*.py"))]
    return [
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for root, path in files
        if ">>> " in path.read_text(encoding="utf-8")
    ]


def source_of(module: str) -> str:
    """The text of a module's file, which is not imported."""
    found = importlib.util.find_spec(module)
    assert found is not None and found.origin is not None, module
    return Path(found.origin).read_text(encoding="utf-8")


def run_docstrings(module: str) -> tuple[int, int]:
    """Evaluate the examples in a module's docstrings; how many failed, and how many there were."""
    import importlib

    failed, attempted = doctest.testmod(importlib.import_module(module), optionflags=FLAGS)
    return failed, attempted
