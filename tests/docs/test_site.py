"""The site: it builds strictly without the network, refers to nothing outside, and leaves no public name out."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import layered_lr as ll
from tests.support.documented import ROOT
from tests.support.made_once import make_once

ASSET = re.compile(r"""<(?:link|script|img|iframe|source)\b[^>]*?\b(?:href|src)=["']?(?:https?:)?//[^"'> ]*""")
SHEET_ASSET = re.compile(r"""url\(["']?(?:https?:)?//[^)]*|@import[^;]*""")
NOWHERE = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https", "all")}  # no port answers there


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    pytest.importorskip("mkdocs")  # which environments for other releases of torch do not have
    built: Path = make_once(tmp_path_factory, "site", build)
    return built


def build(folder: Path) -> Path:
    """Build the site into a folder; any warning is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, **NOWHERE, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_there_and_in_the_menu(site: Path) -> None:
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
        assert f'href="{page.stem}.html"' in index or page.stem == "index"


def test_nothing_is_fetched_from_the_net(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    assert [found for page in pages for found in ASSET.findall(page.read_text(encoding="utf-8"))] == []
    sheets = [sheet.read_text(encoding="utf-8") for sheet in site.rglob("*.css")]
    assert [
        found for sheet in sheets for found in re.findall(r"url\([\"']?(?:https?:)?//[^)]*|@import[^;]*", sheet)
    ] == []


def test_no_program_of_ours_is_published(site: Path) -> None:
    assert list(site.rglob("*.py")) == []


def test_what_would_be_fetched_is_found() -> None:
    assert ASSET.findall('<script src="https://cdn.example/x.js">') and ASSET.findall(
        "<link rel=x href=//fonts.example>"
    )
    assert not ASSET.findall('<a href="https://arxiv.org/abs/1"><img src="images/plan.svg">')


def public_names() -> list[str]:
    """The names that ``__init__.pyi`` lists."""
    stub = ast.parse((ROOT / "layered_lr" / "__init__.pyi").read_text(encoding="utf-8"))
    return [name.asname or name.name for node in stub.body if isinstance(node, ast.ImportFrom) for name in node.names]


def test_the_reference_has_every_public_name_once(site: Path) -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: layered_lr\.(\w+)$", text, re.MULTILINE)
    assert sorted(listed) == sorted(set(public_names()) - {"__version__"})
    built = (site / "reference.html").read_text(encoding="utf-8")
    assert [name for name in listed if f'id="layered_lr.{name}"' not in built] == []


def test_the_reference_shows_arguments_and_defaults(site: Path) -> None:
    built = re.sub(r"<[^>]+>", "", (site / "reference.html").read_text(encoding="utf-8"))
    words = " ".join(built.split())
    assert "StepLR( step_size, gamma=0.1, *, unit=" in words and "lr_scale=1.0" in words


def test_every_error_class_is_explained() -> None:
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    errors = [name for name in public_names() if isinstance(getattr(ll, name), type)]
    errors = [name for name in errors if issubclass(getattr(ll, name), ll.LayeredLRError)]
    assert len(errors) >= 7 and [name for name in errors if f"`{name}`" not in text] == []


def said_in_the_code() -> str:
    """Every string of the sources, one after the other; what a message fills in is left out."""
    files = [*(ROOT / "layered_lr").rglob("*.py"), *(ROOT / "backends").rglob("*.py")]
    trees = [ast.parse(file.read_text(encoding="utf-8")) for file in files]
    constants = (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return "\n".join(constant for constant in constants if isinstance(constant, str))


def test_every_message_that_is_explained_is_one_of_the_code() -> None:
    rows = re.findall(r"^\| `(.*?)` \|", (ROOT / "docs" / "errors.md").read_text(encoding="utf-8"), re.MULTILINE)
    messages = [row for row in rows if " " in row]
    parts = {part.strip() for message in messages for part in message.split("…") if len(part.strip()) > 3}
    said = said_in_the_code()
    assert len(messages) > 40 and [part for part in sorted(parts) if part not in said] == []
