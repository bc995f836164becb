"""The panels of the Grafana dashboard as Prometheus answers them, as a page of SVG and a picture of that.

Grafana itself is not needed: titles, places, units, thresholds and queries are those of
deploy/grafana/dashboards/streamsvc.json, drawn as lines and single values. A picture is taken by Chromium.
"""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_tests.prometheus_process import Prometheus, Sample, scaled

DASHBOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "dashboards" / "streamsvc.json"
PROGRAM = "chromium"
BUDGET = "budget"  # the line that a measured one is compared with
COLUMN, ROW, EDGE = 50, 26, 6  # pixels of a column and a row of the grid, and between two panels
COLOURS = ("#73bf69", "#5794f2", "#f2cc0c", "#ff780a", "#b877d9", "#e02f44", "#8ab8ff", "#96d98d")
THRESHOLDS = {"green": "#73bf69", "orange": "#ff780a", "red": "#e02f44", "blue": "#5794f2"}
_SIZES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a panel: its name, and points (Unix second, value)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel with its data. panel: as in the dashboard. lines: what its queries returned."""

    panel: dict[str, Any]
    lines: Sequence[Line]

    @property
    def title(self) -> str:
        """As in the dashboard."""
        return str(self.panel["title"])


def query_of(expression: str, speed: float) -> str:
    """The query of a panel for all instances, with the durations of the load test."""
    return scaled(expression.replace("$instance", ".*"), speed)


def name_of(legend: str, labels: Sample) -> str:
    """The name of a line, as Grafana fills a legend in."""
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.labels.get(found[1], ""), legend)


async def panels(prometheus: Prometheus, seconds: float, speed: float) -> list[Panel]:
    """All panels with the data of the last seconds; rows have none."""
    end = time.time()
    found = []
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        lines = [
            Line(name_of(target["legendFormat"], one), one.points)
            for target in panel.get("targets", ())
            for one in await prometheus.query_range(query_of(target["expr"], speed), end - seconds, end)
        ]
        found.append(Panel(panel, lines))
    return found


def empty(found: Sequence[Panel]) -> list[str]:
    """Titles of the panels without data; a budget alone is none."""
    charts = [one for one in found if one.panel["type"] != "row"]
    measured = [Panel(one.panel, [line for line in one.lines if line.name != BUDGET]) for one in charts]
    return [one.title for one in measured if not _numbers(one)]


def _numbers(panel: Panel) -> list[float]:
    return [value for line in panel.lines for _, value in line.points if not math.isnan(value)]


def told(value: float, unit: str) -> str:
    """A value in the unit of its panel."""
    if unit == "bool_yes_no":
        return "Yes" if value else "No"
    if unit == "percentunit":
        return f"{100 * value:.3g} %"
    for size, sign in _SIZES:
        if abs(value) >= size:
            return f"{value / size:.3g} {sign}{'B' if unit == 'bytes' else ''}"
    return f"{value:.3g}" + {"s": " s", "bytes": " B"}.get(unit, "")


# --- the page -------------------------------------------------------------------------------------------


def page(found: Sequence[Panel], caption: str) -> tuple[str, tuple[int, int]]:
    """The dashboard as HTML, and its size in pixels."""
    width = 24 * COLUMN + 2 * EDGE
    height = 30 + max(ROW * (one.panel["gridPos"]["y"] + one.panel["gridPos"]["h"]) for one in found) + EDGE
    parts = [_svg(one) for one in found]
    style = "font-family:sans-serif;fill:#ccccdc;font-size:11px"
    drawing = "".join(parts)
    text = (
        f'<!doctype html><meta charset="utf-8"><body style="margin:0;background:#111217">'
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" style="{style}">'
        f'<text x="{EDGE}" y="19" font-size="14">{html.escape(caption)}</text>{drawing}</svg>'
    )
    return text, (width, height)


def _svg(panel: Panel) -> str:
    place = panel.panel["gridPos"]
    x, y = EDGE + COLUMN * place["x"], 30 + ROW * place["y"]
    width, height = COLUMN * place["w"] - EDGE, ROW * place["h"] - EDGE
    title = html.escape(panel.title)
    if panel.panel["type"] == "row":
        return f'<text x="{x}" y="{y + 18}" font-weight="bold" font-size="13">{title}</text>'
    body = _single(panel, width, height) if panel.panel["type"] == "stat" else _lines(panel, width, height)
    return (
        f'<g transform="translate({x},{y})"><rect width="{width}" height="{height}" fill="#181b1f" '
        f'stroke="#2c3035"/><text x="8" y="16" font-weight="bold">{title}</text>{body}</g>'
    )


def _single(panel: Panel, width: int, height: int) -> str:
    """The newest value of each line, in the colour of its threshold."""
    defaults = panel.panel["fieldConfig"]["defaults"]
    now = max((line.points[-1][0] for line in panel.lines), default=0.0)
    shown = [line for line in panel.lines if line.points[-1][0] > now - 5]
    parts = []
    for number, line in enumerate(shown):
        value = line.points[-1][1]
        steps = [step for step in defaults["thresholds"]["steps"] if value >= (step["value"] or 0)]
        colour = THRESHOLDS[steps[-1]["color"] if steps else "red"]
        at = width * (2 * number + 1) / (2 * len(shown))
        parts.append(
            f'<text x="{at:.0f}" y="{height * 0.6:.0f}" text-anchor="middle" font-size="24" '
            f'style="fill:{colour}">{told(value, defaults["unit"])}</text><text x="{at:.0f}" '
            f'y="{height - 10}" text-anchor="middle" font-size="9">{html.escape(line.name)}</text>'
        )
    return "".join(parts) or _nothing(width, height)


def _nothing(width: int, height: int) -> str:
    return f'<text x="{width / 2:.0f}" y="{height / 2:.0f}" text-anchor="middle">no data</text>'


def _lines(panel: Panel, width: int, height: int) -> str:
    values = _numbers(panel)
    if not values:
        return _nothing(width, height)
    unit = panel.panel["fieldConfig"]["defaults"]["unit"]
    names = list(dict.fromkeys(line.name for line in panel.lines))[:6]
    left, top, bottom = 58, 26, height - 22 - 12 * ((len(names) + 1) // 2)
    begin = min(at for line in panel.lines for at, _ in line.points)
    end = max(at for line in panel.lines for at, _ in line.points)
    most = max(values) * 1.1 or 1.0

    def point(at: float, value: float) -> str:
        x = left + (width - left - 8) * (at - begin) / max(1.0, end - begin)
        return f"{x:.1f},{bottom - (bottom - top) * value / most:.1f}"

    parts = []
    for share in (0.0, 0.5, 1.0):
        y = bottom - (bottom - top) * share
        parts.append(
            f'<path d="M{left},{y:.0f}H{width - 8}" stroke="#2c3035"/><text x="{left - 4}" y="{y + 3:.0f}" '
            f'text-anchor="end" font-size="9">{told(most * share, unit)}</text>'
        )
    for line in panel.lines:
        colour = COLOURS[names.index(line.name) % len(COLOURS)] if line.name in names else COLOURS[-1]
        for part in _unbroken(line.points):
            places = " ".join(point(at, value) for at, value in part)
            parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="1.2"/>')
    for number, name in enumerate(names):
        x, y = 10 + (number % 2) * (width - 16) // 2, bottom + 16 + 12 * (number // 2)
        parts.append(
            f'<path d="M{x},{y - 3}h10" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="2"/>'
            f'<text x="{x + 14}" y="{y}" font-size="9">{html.escape(name)}</text>'
        )
    return "".join(parts)


def _unbroken(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """Points without a hole of more than two seconds, and without "not a number"."""
    parts: list[list[tuple[float, float]]] = []
    for at, value in points:
        if math.isnan(value):
            continue
        if parts and at - parts[-1][-1][0] <= 2:
            parts[-1].append((at, value))
        else:
            parts.append([(at, value)])
    return parts


def missing() -> str:
    """What this machine lacks for a picture; "": nothing."""
    return "" if shutil.which(PROGRAM) else "there is no chromium: install Debian's package chromium"


def take(found: Sequence[Panel], caption: str, to: Path) -> None:
    """Write a picture of the panels as PNG. Raises CalledProcessError: Chromium failed."""
    text, (width, height) = page(found, caption)
    with tempfile.TemporaryDirectory(prefix="dashboard-") as folder:
        written = Path(folder) / "page.html"
        written.write_text(text, encoding="utf-8")
        subprocess.run(
            [
                PROGRAM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={folder}/profile",
                f"--window-size={width},{height}",
                f"--screenshot={to.resolve()}",
                written.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )
