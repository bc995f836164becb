"""Where Chromium lies, how it is started, and what axe finds on a page."""

from __future__ import annotations

from pathlib import Path

from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import Page

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-features=SpareRendererForSitePerProcess"]


def serious(page: Page) -> list[str]:
    """Serious and critical violations that axe reports; run by the debugger, so the page keeps its CSP."""
    page.evaluate(AXE_FILE_PATH.read_text())
    found = page.evaluate("axe.run().then((result) => result.violations)")
    return [
        f"{v['id']}: {n['html'][:120]} {n['failureSummary']}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for n in v["nodes"]
    ]
