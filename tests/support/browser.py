"""Headless Chromium: a page is opened at some widths, and says how large everything on it is."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

REQUIRE = "LAYERED_LR_REQUIRE_BROWSER"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",  # as on a phone, where they lie over the page
    "--allow-file-access-from-files",
)

# A window of Chromium is at least 500 pixels wide, so the page stands in a frame of the width that is asked for.
_FRAME = """<!DOCTYPE html><body style="margin:0">{frames}<pre id="answer"></pre><script>
const measured = (page) => {{
  const box = (element) => {{
    const at = element.getBoundingClientRect();
    return [at.left, at.top, at.right, at.bottom];
  }};
  const shown = (element) => element.getClientRects().length > 0;
  for (const details of page.querySelectorAll("details")) details.open = true;
  const overflowing = [...page.querySelectorAll("body *")].filter(
    (element) => shown(element) && !element.closest("svg") && element.scrollWidth > element.clientWidth + 1
      && element.clientWidth > 0 && getComputedStyle(element).display !== "inline");
  const svgs = [...page.querySelectorAll("svg")].filter(shown).map((svg) => ({{
    box: box(svg),
    pixels: svg.clientWidth / svg.viewBox.baseVal.width,
    texts: [...svg.querySelectorAll('[id*="-text_"]')].map((text) => ({{
      box: box(text),
      scales: [...text.querySelectorAll("g")].flatMap((part) =>
        [...(part.getAttribute("transform") || "").matchAll(/scale\\(([\\d.]+)/g)].map((found) => +found[1])),
      said: [...text.childNodes].filter((node) => node.nodeType === 8).map((node) => node.data.trim()).join(" "),
    }})),
  }}));
  const words = [...page.querySelectorAll("p, li, td, th, h1, h2, h3, summary, pre")].filter(shown);
  return {{
    scroll_width: page.documentElement.scrollWidth,
    client_width: page.documentElement.clientWidth,
    overflowing: overflowing.map((element) => element.outerHTML.slice(0, 80)),
    smallest_font: Math.min(...words.map((word) => parseFloat(getComputedStyle(word).fontSize))),
    top_of: Object.fromEntries(["h1", ".verdicts", "table", "svg"].map((what) => {{
      const found = [...page.querySelectorAll(what)].filter(shown);
      return [what, found.length ? box(found[0])[1] : null];
    }})),
    svgs,
  }};
}};
onload = () => {{
  const all = [...document.querySelectorAll("iframe")].map((frame) => measured(frame.contentDocument));
  document.getElementById("answer").textContent = JSON.stringify(all);
}};
</script></body>"""


def chromium() -> str:
    """The browser's path; the test skips where there is none, or fails where the environment requires one."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        why = f"none of {', '.join(_NAMES)} is on PATH"
        if os.environ.get(REQUIRE):
            pytest.fail(f"{REQUIRE} is set, and {why}")
        pytest.skip(f"{why}: pages can only be measured in a browser")
    return found


def measured(page: Path, widths: Sequence[int], folder: Path) -> dict[int, dict[str, Any]]:
    """How large everything on a page is, at each width; what is folded is opened first.

    Args:
        page: An HTML file.
        widths: Of screens, in pixels.
        folder: An empty one for the browser.
    """
    frames = (
        f'<iframe style="border:0;display:block;width:{width}px;height:1000px" src="{page.as_uri()}"></iframe>'
        for width in widths
    )
    frame = folder / "frame.html"
    frame.write_text(_FRAME.format(frames="".join(frames)), encoding="utf-8")
    dom = _chromium(folder, f"--window-size={max(widths) + 100},1000", "--dump-dom", frame.as_uri())
    answer = re.search(r'<pre id="answer">(.+?)</pre>', dom, flags=re.DOTALL)
    assert answer, f"the page did not load: {dom[-500:]}"
    return dict(zip(widths, json.loads(html.unescape(answer[1])), strict=True))


def printed(page: Path, folder: Path) -> bytes:
    """The page as a PDF."""
    _chromium(folder, "--no-pdf-header-footer", f"--print-to-pdf={folder / 'page.pdf'}", page.as_uri())
    return (folder / "page.pdf").read_bytes()


def _chromium(folder: Path, *arguments: str) -> str:
    command = [chromium(), *_QUIET, f"--user-data-dir={folder / 'profile'}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
