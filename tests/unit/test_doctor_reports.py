from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from workbench.doctor import diagnose as diagnosis
from workbench.doctor.causes import CAUSES
from workbench.doctor.diagnose import RULES, Report, diagnose
from workbench.doctor.facts import Facts
from workbench.doctor.parse.report import parse_report
from workbench.doctor.report import to_json, to_markdown, to_text
from workbench.doctor.tables import faults, table

DATA = Path(__file__).parent.parent / "data" / "doctor"
REPORTS = {path.stem: path.read_text(encoding="utf-8") for path in sorted(DATA.glob("*.txt"))}
FAULTY = [name for name in REPORTS if not name.startswith("healthy--")]
HEALTHY = [name for name in REPORTS if name.startswith("healthy--")]


@cache
def diagnosed(name: str) -> Report:
    return diagnose(parse_report(REPORTS[name]))


@pytest.mark.parametrize("name", FAULTY)
def test_first_finding_is_the_root_cause(name: str) -> None:
    report = diagnosed(name)
    first = report.findings[0]
    assert first.id == name.split("--")[0], [finding.id for finding in report.findings]
    assert first.caused_by is None
    assert first.evidence
    assert first.source.startswith("https://")
    assert first.fix


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_report_raises_no_error_and_no_warning(name: str) -> None:
    report = diagnosed(name)
    assert report.verdict == "healthy", [finding.id for finding in report.findings]
    assert report.passed > 5


@pytest.mark.parametrize("name", FAULTY)
def test_every_consequence_names_a_cause_that_stands_before_it(name: str) -> None:
    findings = diagnosed(name).findings
    ids = [finding.id for finding in findings]
    assert len(set(ids)) == len(ids)
    for position, finding in enumerate(findings):
        if finding.caused_by is not None:
            assert finding.caused_by in ids[:position]


def test_nothing_known_fires_nothing() -> None:
    report = diagnose(Facts(origin="report"))
    assert report.findings == ()
    assert report.verdict == "healthy"
    assert report.unknown > 40


def test_every_rule_judges_some_report() -> None:
    silent = {rule.__name__: rule for rule in RULES}
    for text in REPORTS.values():
        facts = diagnosis.derive(parse_report(text))
        silent = {name: rule for name, rule in silent.items() if not rule(facts)}
    # These look at facts that no paste gives; the tests of live environments and of facts cover them.
    assert set(silent) <= LIVE_ONLY, sorted(set(silent) - LIVE_ONLY)


LIVE_ONLY = {
    "torch_import_hangs",
    "cuda_hangs",
    "import_hangs",
    "family_import_broken",
    "only_files_read",
    "nvidia_smi_hangs",
    "wsl_libcuda",
    "python_bits",
    "torch_missing",
    "torch_import_broken",
    "cuda_init_failed",
    "kernel_failed",
    "newer_torch_than_known",
    "missing",
    "transformers_missing",
    "requirement_conflicts",
    "rocm_no_device",
    "gated",
    "other_pin",
    "vllm_pin",
    "no_cuda_gpus",
}


def test_every_fault_of_a_message_has_a_source_and_steps() -> None:
    for row in faults():
        assert row["source"].startswith("https://"), row["id"]
        assert row["fix"]
        assert row["affects"]
        assert "message" in row or "contains" in row


def test_causes_name_only_findings_that_exist() -> None:
    source = "".join(
        path.read_text(encoding="utf-8") for path in (Path(diagnosis.__file__).parent / "rules").glob("*.py")
    )
    plain = {row["id"] for row in faults()}
    for consequence, causes in CAUSES.items():
        for name in (consequence, *causes):
            assert f'"{name}"' in source or name in plain, name


@pytest.mark.parametrize("name", FAULTY)
def test_quoting_and_fencing_change_nothing(name: str) -> None:
    expected = [finding.id for finding in diagnosed(name).findings]
    quoted = "On Tue someone wrote:\n" + "".join(f"> > {line}\n" for line in REPORTS[name].splitlines())
    fenced = f"### Environment\n\n<details>\n\n```text\n{REPORTS[name]}\n```\n\n</details>\nThanks!\n"
    for text in (quoted.replace("\n", "\r\n"), fenced):
        assert [finding.id for finding in diagnose(parse_report(text)).findings] == expected


@pytest.mark.parametrize("name", list(REPORTS))
def test_truncated_reports_raise_no_exception(name: str) -> None:
    text = REPORTS[name]
    for cut in range(len(text) // 6, len(text), max(1, len(text) // 2)):
        for part in (text[:cut], text[cut:]):
            report = to_json(diagnose(parse_report(part)))
            to_text(report)
            to_markdown(report)


def test_sections_in_any_order_give_the_same_facts() -> None:
    sections = [
        "PyTorch version: 2.8.0+cu128\nIs CUDA available: True\nNvidia driver version: 570.86.10\n",
        "Package      Version\n------------ -------\nnumpy        2.2.6\ntransformers 4.56.0\n",
        "Cuda compilation tools, release 12.4, V12.4.131\n",
        "=================== bitsandbytes v0.47.0 ===================\n",
    ]
    expected = None
    for seed in range(6):
        random.Random(seed).shuffle(sections)
        facts = parse_report("\n\n".join(sections))
        seen = (facts.torch, facts.driver, facts.packages, facts.toolkit, facts.bitsandbytes)
        expected = expected or seen
        assert seen == expected


@pytest.mark.parametrize("name", ["torch", "cuda", "bitsandbytes", "transformers", "gpus", "companions", "pairs"])
def test_every_table_row_has_a_source(name: str) -> None:
    data = table(name)
    rows = [row for rows in data.values() if isinstance(rows, list) for row in rows if isinstance(row, dict)]
    sections = [section for section in data.values() if isinstance(section, dict)]
    assert rows or sections
    for row in rows + sections:
        assert str(row.get("source", data.get("source", ""))).startswith("https://"), row
