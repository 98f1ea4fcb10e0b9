"""``workbench doctor``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, with_session
from workbench.cli.output import console, print_json, print_text, table
from workbench.doctor.report import to_markdown, to_text
from workbench.errors import WorkbenchError
from workbench.session.client import SessionClient
from workbench.session.protocol import (
    CompareReports,
    Diagnose,
    Diagnosed,
    DiagnoseText,
    ReportsCompared,
    RunSelfTest,
    SelfTested,
)
from workbench.text import sanitize

Report = dict[str, Any]


@click.command("doctor")
@click.option("--from", "source", default="", metavar="FILE|-", help="Examine a pasted report of another machine.")
@click.option("--compare", default="", metavar="PATH|FILE", help="Another interpreter or report: what differs.")
@click.option("--self-test", is_flag=True, help="Run the five steps that prove an environment for fine-tuning.")
@click.option("--markdown", is_flag=True, help="The report as Markdown, for an issue.")
@click.option("--light", is_flag=True, help="Do not import torch or touch the GPU.")
@common_options
def command(common: Common, source: str, compare: str, self_test: bool, markdown: bool, light: bool) -> int:
    """Diagnose this machine and the target interpreter.

    Exit code 1 means that something is broken.
    """
    request = DiagnoseText(_read(source)) if source else Diagnose(live=not light)

    async def diagnose(session: SessionClient) -> Report:
        report = (await ask(session, request, Diagnosed)).report
        if source:
            _refuse_unrecognised(report, source)
        if self_test:
            report["self_test"] = (await ask(session, RunSelfTest(), SelfTested)).steps
        return report

    report = with_session(common, diagnose)
    if compare:
        report["comparison"] = _compare(common, report, compare, light)
        report["compared_with"] = compare
    if common.as_json:
        print_json("doctor", report)
    else:
        print_text(sanitize(to_markdown(report) if markdown else to_text(report)))
        if compare and not markdown:
            _print_comparison(report["comparison"], compare)
    return 1 if report["verdict"] == "broken" else 0


def _refuse_unrecognised(report: Report, source: str) -> None:
    """A text in which nothing was recognised says nothing about health."""
    if not report["facts"]["formats"] and not report["facts"]["errors"]:
        raise WorkbenchError(
            "bad-report",
            f"Nothing in {source if source != '-' else 'standard input'} is a report that is known here.",
            "Known: collect_env, python -m bitsandbytes, nvidia-smi, pip list, conda list, transformers env, nvcc.",
        )


def _compare(common: Common, report: Report, other: str, light: bool) -> list[dict[str, Any]]:
    """What differs from another interpreter, examined in a session of its own, or from a report in a file."""
    path = Path(other).expanduser()
    is_report = path.is_file() and not os.access(path, os.X_OK)

    async def examine(session: SessionClient) -> Report:
        request = DiagnoseText(_read(other)) if is_report else Diagnose(live=not light)
        found = (await ask(session, request, Diagnosed)).report
        if is_report:
            _refuse_unrecognised(found, other)
        return found

    right = with_session(common if is_report else Common(common.as_json, other, ""), examine)

    async def differences(session: SessionClient) -> list[dict[str, Any]]:
        return (await ask(session, CompareReports(report, right), ReportsCompared)).differences

    return with_session(common, differences)


def _print_comparison(differences: list[dict[str, Any]], other: str) -> None:
    if not differences:
        print_text(f"Nothing differs from {sanitize(other)}.")
        return
    grid = table("differs", "here", sanitize(other), "explains")
    for item in differences:
        grid.add_row(item["name"], item["left"] or "", item["right"] or "", ", ".join(item["explains"]))
    console().print(grid)


def _read(source: str) -> str:
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).expanduser().read_bytes()
    except OSError as error:
        raise WorkbenchError(
            "unreadable-file", f"Cannot read {source}: {error.strerror}.", "Give a text file, or - for standard input."
        ) from None
    return data.decode("utf-8", "replace")
