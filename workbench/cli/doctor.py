"""``workbench doctor``."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from workbench.cli.common import Common, ask, common_options, with_session
from workbench.cli.output import console, print_json, print_text, table
from workbench.doctor.environment import carried_environment
from workbench.doctor.report import headline, to_markdown, to_text
from workbench.doctor.source import decode_report, is_report, read_report, refuse_what_is_no_python
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
    if source and self_test:
        raise WorkbenchError("bad-usage", "A pasted report cannot be run.", "Leave out --from or --self-test.")
    report = _examine_report(common, source) if source else _examine_interpreter(common, light, self_test)
    if compare:
        report["comparison"], other = _compare(common, report, compare, light)
        report["compared_with"], report["compared_verdict"] = compare, headline(other)
    if common.as_json:
        print_json("doctor", report)
    else:
        print_text(sanitize(to_markdown(report) if markdown else to_text(report)))
        if compare and not markdown:
            _print_comparison(report["comparison"], compare, report["compared_verdict"])
    return 1 if report["verdict"] == "broken" else 0


def _examine_report(common: Common, source: str) -> Report:
    """Diagnose a pasted report, in a file or on standard input."""

    async def examine(session: SessionClient) -> Report:
        return (await ask(session, DiagnoseText(_read(source)), Diagnosed)).report

    report = with_session(common, examine)
    _refuse_unrecognised(report, source)
    return report


def _examine_interpreter(common: Common, light: bool, self_test: bool = False) -> Report:
    """Diagnose the target interpreter in a session of its own; one too old for that by its files alone."""
    environment = carried_environment(os.environ)
    python = common.session_options().python
    version = _too_old(python) if python != sys.executable else ""
    if version and self_test:
        raise WorkbenchError(
            "python-too-old",
            f"{python} is Python {version}, which is too old for the self-test.",
            "Without --self-test its packages, the driver and the GPUs are examined all the same.",
        )
    request = Diagnose(not light, environment, updates=False)
    if version:
        request = Diagnose(False, environment, files_of=python)

    async def examine(session: SessionClient) -> Report:
        report = (await ask(session, request, Diagnosed)).report
        if self_test:
            tested = await ask(session, RunSelfTest(environment, report), SelfTested)
            report = tested.report or {**report, "self_test": tested.steps}
        return report

    return with_session(Common(common.as_json, sys.executable, "") if version else common, examine)


def _too_old(python: str) -> str:
    from workbench.doctor.environments import too_old  # costs a tenth of a light examination

    return too_old(python)


def _refuse_unrecognised(report: Report, source: str) -> None:
    """A text in which nothing was recognised says nothing about health."""
    if not (report["facts"]["formats"] or report["facts"]["errors"] or report["findings"]):
        raise WorkbenchError(
            "bad-report",
            f"Nothing in {source if source != '-' else 'standard input'} is a report that is known here.",
            "Known: collect_env, python -m bitsandbytes, nvidia-smi, pip list, conda list, transformers env, nvcc.",
        )


def _compare(common: Common, report: Report, other: str, light: bool) -> tuple[list[dict[str, Any]], Report]:
    """What differs from another interpreter, examined in a session of its own, or from a report in a file; and it."""
    if is_report(Path(other).expanduser()):
        right = _examine_report(common, other)
    else:
        refuse_what_is_no_python(Path(other).expanduser())
        right = _examine_interpreter(Common(common.as_json, other, ""), light)

    async def differences(session: SessionClient) -> list[dict[str, Any]]:
        return (await ask(session, CompareReports(report, right), ReportsCompared)).differences

    return with_session(common, differences), right


def _print_comparison(differences: list[dict[str, Any]], other: str, verdict: str) -> None:
    print_text(f"\ncompared with {sanitize(other)}, which is {sanitize(verdict)}")
    if not differences:
        print_text(f"Nothing differs from {sanitize(other)}.")
        return
    grid = table("differs", "here", sanitize(other), "explains")
    for item in differences:
        grid.add_row(item["name"], item["left"] or "", item["right"] or "", ", ".join(item["explains"]))
    console().print(grid)


def _read(source: str) -> str:
    if source == "-":
        return decode_report(sys.stdin.buffer.read())
    return read_report(Path(source).expanduser())
