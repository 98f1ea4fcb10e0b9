"""The rows of the tables: each fires on its own message, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

from workbench import toml
from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.parse.report import parse_report
from workbench.doctor.tables import (
    faults,
    table,
)


def ids(report: Report) -> list[str]:
    return [finding.id for finding in report.findings]


REPORTS = Path(__file__).parent.parent / "data" / "doctor"
MESSAGES = toml.load(REPORTS / "messages.toml")
PLAIN: dict[str, str] = MESSAGES["examples"]
SYMPTOMS: dict[str, str] = MESSAGES["symptoms"]
HARMLESS = (
    "ModuleNotFoundError: No module named 'torchsummary'\n"
    "the worker was killed and started anew\nlearning rate 1e-9\nnumpy is fine: from 'numpy'\n"
    "Requirement already satisfied: ninja in /x\nimport torch; print(torch.nn)\n"
    "It requires CUDA 12.4 and above, CMake, git and a Rust compiler to build from source\n"
    "Building wheel for deepspeed (setup.py) ... done\nSuccessfully built deepspeed\n"
)


def test_every_message_of_the_plain_table_fires_and_only_there() -> None:
    # Each has its own example here, or a whole report that is named after it.
    named = {name: row["id"] for row in faults() for name in (row["id"], row.get("message", row["id"]))}
    covered = {named[name] for name in PLAIN} | {path.name.split("--")[0] for path in REPORTS.glob("*--*.txt")}
    assert set(named.values()) <= covered
    for name, text in PLAIN.items():
        findings = diagnose(parse_report(text + "\n")).findings
        assert [finding.id for finding in findings if finding.caused_by is None] == [named[name]]
        assert not re.search(r"\{\w+\}", findings[0].title + "".join(findings[0].fix)), "a name that nothing filled in"
    assert not set(ids(diagnose(parse_report(HARMLESS)))) & set(PLAIN)


def test_every_symptom_is_named_where_there_is_no_error_and_only_there() -> None:
    rows = table("symptoms")["symptom"]
    known = {name: row["id"] for row in rows for name in (row["id"], row.get("variant", row["id"]))}
    reports = {path.name.split("--")[0] for path in REPORTS.glob("*--*.txt")}
    assert set(SYMPTOMS) <= set(known)
    assert set(known.values()) <= {*(known[name] for name in SYMPTOMS), *reports}
    for name, text in SYMPTOMS.items():
        alone = diagnose(parse_report(text + "\n"))
        assert [finding.id for finding in alone.findings] == [known[name]]
        assert alone.verdict == "degraded"
        beside = diagnose(parse_report(f"{text}\nRuntimeError: operator torchvision::nms does not exist\n"))
        assert known[name] not in ids(beside)
