"""A diagnosis as JSON, as Markdown for an issue, and as plain text. Stdlib only.

The renderers take the JSON form, because that is what travels from the session to the command and the bench.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

from workbench.doctor.diagnose import Report
from workbench.text import format_bytes, one_line, sanitize

Json = Mapping[str, Any]

_COMPANIONS = (
    "transformers",
    "tokenizers",
    "huggingface-hub",
    "accelerate",
    "bitsandbytes",
    "peft",
    "trl",
    "safetensors",
    "numpy",
    "triton",
    "torchvision",
    "flash-attn",
    "xformers",
    "vllm",
)


def to_json(report: Report, self_test: Iterable[Any] = ()) -> dict[str, Any]:
    """The object that ``workbench doctor --json`` prints, without ``schema`` and ``command``.

    Args:
        report: what `diagnose` returned.
        self_test: the steps that `run_self_test` returned, if it ran.
    """
    result: dict[str, Any] = _plain(report)
    result["self_test"] = [_plain(step) for step in self_test]
    return result


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def headline(report: Json) -> str:
    """The verdict in one line."""
    findings = report["findings"]
    counts = [
        f"{number} {name}{'s' if number > 1 else ''}"
        for name, severity in (("error", "error"), ("warning", "warning"), ("note", "info"))
        if (number := sum(finding["severity"] == severity for finding in findings))
    ]
    checks = f"{report['passed']} checks passed"
    if report.get("unknown"):
        checks += f", {report['unknown']} could not be judged"
    worst = findings[0]["title"] if findings and findings[0]["severity"] != "info" else "nothing wrong was found"
    tally = f" ({', '.join(counts)}; {checks})" if counts else f" ({checks})"
    return f"{report['verdict']}: {one_line(worst)}{tally}"


def summary(report: Json) -> list[tuple[str, str]]:
    """The four lines that say what the environment is; what is unknown is left out."""
    facts = report["facts"]
    python = _python(facts["python"], facts["platform"])
    lines = [
        ("python" if facts["python"].get("version") else "system", python),
        ("torch", _torch(facts["torch"])),
        ("gpu", _gpus(facts)),
        ("packages", _packages(facts)),
    ]
    return [(name, one_line(text)) for name, text in lines if text]


def _python(python: Json, platform: Json) -> str:
    kind = f" ({python['kind']})" if python.get("kind") else ""
    system = " ".join(filter(None, (platform.get("os") or platform.get("system"), platform.get("machine"))))
    where = ["WSL"] if platform.get("wsl") else []
    if platform.get("container"):
        where.append(f"in {platform['container']}")
    system = ", ".join(filter(None, (system, *where)))
    parts = [f"{python['version']}{kind}" if python.get("version") else "", python.get("executable") or "", system]
    return " · ".join(filter(None, parts))


def _torch(torch: Json) -> str:
    if torch.get("installed") is False:
        return "not installed"
    if not torch.get("version"):
        return ""
    build = {"cpu": "CPU build", "cuda": f"CUDA {torch.get('cuda')}", "rocm": f"ROCm {torch.get('hip') or ''}".strip()}
    available = torch.get("cuda_available") if torch.get("cuda") else None
    works = "" if available is None else "CUDA works" if available else "CUDA is not available"
    if torch.get("kernel_ok"):
        works = "kernels run"
    return " · ".join(filter(None, (torch["version"], build.get(torch.get("build") or "", ""), works)))


def _gpus(facts: Json) -> str:
    gpus = facts.get("gpus")
    if gpus is None and not facts["driver"].get("version"):
        return ""
    if not gpus and not facts["driver"].get("version"):
        return "none found"
    names: dict[str, int] = {}
    for gpu in gpus or ():
        memory = f" {format_bytes(gpu['memory_bytes'])}" if gpu.get("memory_bytes") else ""
        capability = f" (compute capability {gpu['compute_capability']})" if gpu.get("compute_capability") else ""
        key = f"{gpu.get('name') or 'unnamed GPU'}{memory}{capability}"
        names[key] = names.get(key, 0) + 1
    shown = [f"{count} × {name}" if count > 1 else name for name, count in names.items()]
    driver = facts["driver"]
    if driver.get("version"):
        shown.append(f"driver {driver['version']}" + (f" (up to CUDA {driver['cuda']})" if driver.get("cuda") else ""))
    return " · ".join(shown)


def _packages(facts: Json) -> str:
    packages = facts["packages"]
    return " · ".join(f"{name} {packages[name]}" for name in _COMPANIONS if name in packages)


def to_text(report: Json) -> str:
    """Plain lines: about five when all is well, else each finding with its evidence and its fix."""
    lines = [headline(report)]
    lines += [f"  {name:<9} {text}" for name, text in summary(report)]
    notes = [finding for finding in report["findings"] if finding["severity"] == "info"]
    if len(notes) == len(report["findings"]):
        # Who pastes a warning that is harmless wants to be rid of it.
        notes = [note for note in notes if report["facts"]["origin"] == "live" or not note["observed"]]
    for finding in report["findings"]:
        if finding not in notes:
            lines += ["", *_finding_lines(finding)]
    lines += [""] if notes and len(notes) < len(report["findings"]) else []
    lines += [f"  note      {one_line(finding['title'])}  [{finding['id']}]" for finding in notes]
    lines += _self_test_lines(report.get("self_test") or ())
    return "\n".join(lines)


def _command(step: str) -> str:
    """A step whole and with its spaces, which may matter to the shell."""
    return " ".join(sanitize(step).splitlines())


def _finding_lines(finding: Json) -> list[str]:
    lines = [f"{finding['severity'].upper()}  {one_line(finding['title'])}  [{finding['id']}]"]
    if finding.get("caused_by"):
        lines.append(f"  follows from {finding['caused_by']}: mend that first")
        return lines
    lines.append(f"  {one_line(finding['why'], 600)}")
    lines += [f"  seen: {name} = {one_line(value, 240)}" for name, value in finding["evidence"].items()]
    lines += [f"  fix:  {_command(step)}" for step in finding["fix"]]
    if finding.get("source"):
        lines.append(f"  more: {finding['source']}")
    return lines


def _self_test_lines(steps: Iterable[Json]) -> list[str]:
    lines: list[str] = []
    for step in steps:
        if not lines:
            lines += ["", "self-test"]
        lines.append(
            f"  {step['status']:<8} {step['step']:<11} {step['seconds']:.2f} s  {one_line(step['detail'], 240)}"
        )
    return lines


def to_markdown(report: Json) -> str:
    """The report for an issue: verdict, findings, facts, packages folded away."""
    lines = [f"**{_cell(headline(report))}**", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in summary(report)]
    for finding in report["findings"]:
        lines += ["", *_finding_markdown(finding)]
    steps = list(report.get("self_test") or ())
    if steps:
        lines += ["", "### Self-test", "", "| step | result | seconds | |", "|---|---|---|---|"]
        lines += [f"| {s['step']} | {s['status']} | {s['seconds']:.2f} | {_cell(s['detail'])} |" for s in steps]
    if report.get("comparison") is not None:
        lines += _comparison_markdown(report["comparison"], str(report.get("compared_with") or "another environment"))
        lines += ["", f"There: {_cell(report['compared_verdict'])}"] if report.get("compared_verdict") else []
    lines += _details("Environment variables", [f"{k}={v}" for k, v in report["facts"]["environment"].items()])
    lines += _details("Packages", [f"{k}=={v}" for k, v in report["facts"]["packages"].items()])
    return "\n".join(lines) + "\n"


def _comparison_markdown(differences: list[Json], other: str) -> list[str]:
    if not differences:
        return ["", f"### Nothing differs from {_cell(other)}"]
    lines = ["", f"### Compared with {_cell(other)}", "", "| differs | here | there | explains |", "|---|---|---|---|"]
    for item in differences:
        cells = (item["name"], one_line(item["left"] or "", 200), one_line(item["right"] or "", 200))
        explains = ", ".join(f"`{cause}`" for cause in item["explains"])
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} | {explains} |")
    return lines


def _finding_markdown(finding: Json) -> list[str]:
    lines = [f"### {finding['severity']}: {_cell(finding['title'])} (`{finding['id']}`)", ""]
    if finding.get("caused_by"):
        return [*lines, f"Follows from `{finding['caused_by']}`."]
    lines.append(_cell(finding["why"]))
    if finding["evidence"]:
        lines += ["", *(f"- {_cell(name)}: {_code(value)}" for name, value in finding["evidence"].items())]
    if finding["fix"]:
        lines += ["", *_fenced(finding["fix"])]
    if finding.get("source"):
        lines += ["", f"<{finding['source']}>"]
    return lines


def _details(title: str, rows: list[str]) -> list[str]:
    if not rows:
        return []
    return ["", f"<details><summary>{title}</summary>", "", *_fenced(rows), "", "</details>"]


def _fenced(rows: Iterable[str]) -> list[str]:
    text = [one_line(row, 2000) for row in rows]
    # A fence longer than any run of backticks inside cannot be closed by it.
    longest = max((len(run) for row in text for run in re.findall(r"`+", row)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *text, fence]


def _code(value: str) -> str:
    text = one_line(value, 400)
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def _cell(text: Optional[str]) -> str:
    escaped = re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", sanitize(text or ""))
    # No @mention and no #reference: a pasted report must not notify anybody.
    return " ".join(escaped.replace("@", "@\u200c").split())
