"""Every example that a reader sees runs: on pages, in docstrings, and in ``examples/``."""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import layered_lr as ll
from tests.support.documented import (
    ROOT,
    check_command,
    documented_modules,
    needs_oneflow,
    pages,
    run_docstrings,
    source_of,
)
from tests.support.documented import run_page as run_page_here
from tests.support.isolation import value_of

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
SHOWN_ON_A_PAGE = {"compare", "Comparison"}  # docs/compare.md runs them: a comparison takes several processes


def in_cases(files: list[Path]) -> list[Any]:
    """A case for each file, by its name; those that compare backends, each in a process of its own, take longer."""
    return [
        pytest.param(file, id=file.name, marks=[pytest.mark.slow] if "ll.compare(" in file.read_text() else [])
        for file in files
    ]


@pytest.fixture(autouse=True)
def one_thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiny batches gain nothing by threads; on a busy machine, waiting for threads takes ten times as long."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of the processes that are started here
    torch = request.getfixturevalue("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def page_alone(page: str) -> int:
    """The page in a process of its own, where OneFlow may do as it likes."""
    from tests.support.documented import run_page

    return run_page(page)


def docstrings_alone(module: str) -> list[int]:
    """Likewise a module's docstrings."""
    from tests.support.documented import run_docstrings

    return list(run_docstrings(module))


def example_alone(path: str) -> bool:
    """Likewise an example, at tiny size."""
    import os
    import runpy

    os.environ["MAX_STEPS"] = "2"
    runpy.run_path(path, run_name="__main__")
    return True


@pytest.mark.parametrize("page", in_cases(pages()))
def test_the_blocks_of_a_page_run(
    page: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if needs_oneflow(page):
        request.getfixturevalue("oneflow")
        assert value_of(page_alone, str(page)) > 0
    else:
        assert run_page_here(str(page)) >= 0


@pytest.mark.parametrize("module", documented_modules())
def test_the_examples_in_docstrings_run(
    module: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if ">>> import oneflow" in source_of(module) or module.startswith("layered_lr_oneflow"):
        request.getfixturevalue("oneflow")
        failed, attempted = value_of(docstrings_alone, module)
    else:
        failed, attempted = run_docstrings(module)
    assert failed == 0 and attempted > 0


@pytest.mark.parametrize("example", in_cases(EXAMPLES))
def test_an_example_runs_at_tiny_size(
    example: Path, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if "oneflow" in example.read_text():
        request.getfixturevalue("oneflow")
        assert value_of(example_alone, str(example))
    else:
        monkeypatch.setenv("MAX_STEPS", "2")
        assert runpy.run_path(str(example), run_name="__main__")


def test_examples_are_short() -> None:
    assert EXAMPLES
    assert {path.name: lines for path in EXAMPLES if (lines := len(path.read_text().splitlines())) > 60} == {}


@pytest.mark.parametrize(
    "words",
    ["make nothing", "pip install .[everything]", "frob", "python examples/none.py", "layered-lr run --recipe none"],
)
def test_what_is_no_command_is_found(words: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        check_command(words.split())


def test_an_option_that_is_none_is_found(tmp_path: Path) -> None:
    import click

    page = tmp_path / "page.md"
    page.write_text("```sh\nlayered-lr run --epohcs 3\n```\n")
    with pytest.raises(click.UsageError, match="--epohcs"):
        run_page_here(str(page))


def test_a_block_that_fails_fails_and_an_output_that_differs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```python\none = 1\n```\n\n```python\n>>> one + 1\n3\n```\n")
    with pytest.raises(Exception, match="Expected"):
        run_page_here(str(page))
    page.write_text("<!--- invisible-code-block: python\none = 1\n-->\n\n```python\nassert one == 2\n```\n")
    with pytest.raises(AssertionError):
        run_page_here(str(page))


def lacks_example(documented: Any) -> bool:
    return ">>> " not in (documented.__doc__ or "")


def public_functions_without_example() -> Iterator[str]:
    """Functions, classes, and methods that take arguments; a method that overrides another needs none of its own."""
    for name in ll.__all__:
        value = getattr(ll, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)) or name in SHOWN_ON_A_PAGE:
            continue
        if lacks_example(value):
            yield name
        for method in vars(value) if inspect.isclass(value) else ():
            function = getattr(value, method)
            if method.startswith("_") or not (inspect.isfunction(function) or inspect.ismethod(function)):
                continue
            given = [p for p in inspect.signature(function).parameters if p != "self"]
            bases = [vars(base)[method] for base in value.__mro__ if method in vars(base)]
            if given and all(lacks_example(getattr(base, "__func__", base)) for base in bases):
                yield f"{name}.{method}"


def test_each_public_name_has_an_example_in_its_docstring() -> None:
    assert [*public_functions_without_example()] == []
