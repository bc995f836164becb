"""The report of `load_tests.publishers`: a table, and one HTML file with plots that loads nothing. Pure."""

from __future__ import annotations

import html as escaping
import os
from collections.abc import Callable, Sequence
from statistics import median

from engines.plot import Panel, svg
from load_tests import publish_figures
from load_tests.publish_figures import Step
from load_tests.publish_scenario import Scenario
from streamsvc.evaluation.markdown import markdown_table

_HEADS = (
    "publishers",
    "first p50 / p95 / p99 s",
    "stable p50 / p95 / p99 s",
    "word emission latency s",
    "coverage % (worst)",
    "WER %",
    "new picture p50 / p95 s",
    "event p50 / p99 ms",
    "events/s",
    "packets lost of sent",
    "level",
    "more fit, by",
    "event loop, all, clients CPU s/s",
    "memory MB",
    "in budget",
)
_STYLE = (
    "body{font:14px sans-serif;max-width:1400px;margin:2em auto;color:#222}table{border-collapse:collapse;"
    "font-size:12px}td,th{border:1px solid #ccc;padding:3px 6px;text-align:right}th{background:#eee}"
    "svg{max-width:100%;height:auto}"
)


def line(step: Step, scenario: Scenario) -> str:
    """One step in a line."""
    return ", ".join(f"{head} {cell}" for head, cell in zip(_HEADS, _row(step, scenario), strict=True))


def _row(step: Step, scenario: Scenario) -> tuple[str, ...]:
    cpu, clients = step.machine.cpu, sum(step.machine.clients.values())
    refused = f" ({step.refused} refused)" if step.refused else ""
    return (
        f"{step.publishers}{refused}",
        _seconds(step.first),
        _seconds(step.stable),
        _seconds((step.emission,)),
        f"{100 * step.coverage:.1f} ({100 * step.worst_coverage:.1f})",
        "-" if step.wer is None else f"{100 * step.wer:.1f}",
        _seconds(step.changes) + ("" if step.seen is None else f", {100 * step.seen:.0f} % seen"),
        " / ".join("-" if value is None else f"{1000 * value:.1f}" for value in step.delivery),
        f"{step.events_a_second:.0f}",
        f"{step.missing} of {step.packets}",
        f"{step.level}",
        f"{step.free}, {step.bound_by}",
        f"{cpu.get('event loop', 0.0):.2f}, {sum(cpu.values()):.2f}, {clients:.2f}",
        f"{sum(step.machine.memory.values()):.0f}",
        "yes" if step.in_budget(scenario.budget, scenario.coverage) else "no",
    )


def _seconds(values: Sequence[float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.2f}" for value in values)


def text(scenario: Scenario, steps: Sequence[Step]) -> str:
    """A Markdown table, the capacity, and what is used most in the last step."""
    table = markdown_table(_HEADS, [_row(step, scenario) for step in steps])
    return f"{table}\n\n{_verdict(scenario, steps)}"


def _verdict(scenario: Scenario, steps: Sequence[Step]) -> str:
    capacity = publish_figures.capacity(steps, scenario.budget, scenario.coverage)
    used = publish_figures.bottleneck(steps[-1], len(scenario.server_cpus) or os.cpu_count() or 1)
    late = max(step.late for step in steps)
    refusals = [one for step in steps for one in step.refusals]
    told = (
        f" {len(refusals)} offers to the full service were answered 503 after {median(refusals):.1f} ms "
        f"(median), {max(refusals):.1f} at most."
        if refusals
        else ""
    )
    return (
        f"Capacity: {capacity} publishers (p95 of stable words within {scenario.budget:g} s, coverage "
        f"{100 * scenario.coverage:g} %). Used most with {steps[-1].publishers}: {used}. "
        f"Senders were late by {1000 * late:.0f} ms at most.{told}"
    )


def plots(scenario: Scenario, steps: Sequence[Step]) -> list[str]:
    """SVG pictures against the number of publishers."""
    ticks = [str(step.publishers) for step in steps]

    def over(value: Callable[[Step], float | None]) -> list[float]:
        return [value(step) or 0.0 for step in steps]

    threads = sorted({name for step in steps for name in step.machine.cpu})
    processes = sorted({name for step in steps for name in step.machine.memory})
    latencies = {
        "stable p50": over(lambda step: step.stable[0]),
        "stable p95": over(lambda step: step.stable[1]),
        "stable p99": over(lambda step: step.stable[2]),
        "emission": over(lambda step: step.emission),
        "new picture p95": over(lambda step: step.changes[1]),
    }
    shares = {
        "coverage": over(lambda step: 100 * step.coverage),
        "worst": over(lambda step: 100 * step.worst_coverage),
        "WER": over(lambda step: 100 * (step.wer or 0.0)),
    }
    lost = {
        "packets": over(lambda step: 100 * step.missing / max(1, step.packets)),
        "level": over(lambda step: float(step.level)),
    }
    cpu = {name: over(lambda step, name=name: step.machine.cpu.get(name)) for name in threads}  # type: ignore[misc]
    memory = {name: over(lambda step, name=name: step.machine.memory.get(name)) for name in processes}  # type: ignore[misc]
    panels = (
        Panel("seconds from glass to caption", ticks, latencies, scenario.budget),
        Panel("percent of the words", ticks, shares, 100 * scenario.coverage),
        Panel("CPU seconds a second", ticks, cpu, 1.0),
        Panel("memory in MB", ticks, memory),
        Panel("events a second to subscribers", ticks, {"events": over(lambda step: step.events_a_second)}),
        Panel("percent of packets lost; highest level", ticks, lost),
    )
    return [svg([panel]) for panel in panels]  # one legend each: they share no line


def html(scenario: Scenario, steps: Sequence[Step]) -> str:
    """The report as one HTML page."""
    head = "".join(f"<th>{escaping.escape(name)}</th>" for name in _HEADS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escaping.escape(cell)}</td>" for cell in _row(step, scenario)) + "</tr>"
        for step in steps
    )
    title = escaping.escape(scenario.name)
    settings = escaping.escape(scenario.model_dump_json(indent=1))
    notes = escaping.escape((publish_figures.__doc__ or "").partition("\n\n")[2])
    return "\n".join(
        (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1>",
            f"<p>{escaping.escape(_verdict(scenario, steps))}</p>",
            f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
            "<h2>By number of publishers</h2>",
            *plots(scenario, steps),
            f"<p>{notes}</p><details><summary>Scenario</summary><pre>{settings}</pre></details>",
            "</body></html>",
        )
    )
