from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from workbench.doctor import selftest
from workbench.doctor.child import Limits
from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.facts import BitsandbytesFacts, Facts, PlatformFacts, ProbeStep, TorchFacts
from workbench.doctor.selftest import FAILED, STEPS, SelfTestStep, explanation, run_self_test, with_self_test
from workbench.errors import JobCancelled
from workbench.job import Job


def with_stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str) -> None:
    """A package that the child, not this process, finds before the real one."""
    (tmp_path / "stubs" / name).mkdir(parents=True)
    (tmp_path / "stubs" / name / "__init__.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "stubs"))


def test_crash_is_a_failed_step_and_the_rest_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stub(tmp_path, monkeypatch, "torch", "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)")
    seen: list[SelfTestStep] = []
    steps = run_self_test(on_step=seen.append)
    assert [step.step for step in steps] == list(STEPS)
    assert (steps[0].status, steps[0].detail) == ("failed", "the process was ended by SIGSEGV")
    assert {step.status for step in steps[1:]} == {"skipped"}
    assert seen == steps


def test_hang_is_ended_early_and_the_line_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stub(tmp_path, monkeypatch, "torch", "import time\ntime.sleep(600)")
    steps = run_self_test(limits=Limits(30.0, 2.0))
    assert steps[0].detail.startswith("hangs: it has done nothing for 2 s, in ")
    assert "stubs/torch/__init__.py line 2" in steps[0].detail


def test_failure_names_the_finding_that_explains_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stub(tmp_path, monkeypatch, "torch", "raise AssertionError('Torch not compiled with CUDA enabled')")
    first = run_self_test()[0]
    assert first.status == "failed"
    assert first.explained_by == "torch-cpu-only"


def test_cancelling_ends_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "pid"
    with_stub(
        tmp_path,
        monkeypatch,
        "torch",
        f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)",
    )

    class UntilStarted(Job):
        def check(self) -> None:
            if mark.exists() and mark.read_text():
                raise JobCancelled

    with pytest.raises(JobCancelled):
        run_self_test(UntilStarted())
    with pytest.raises(ProcessLookupError):
        os.kill(int(mark.read_text()), signal.SIG_DFL)


@pytest.mark.model
@pytest.mark.parametrize("model", ["sample", "made here"])
def test_this_environment_trains(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if model == "made here":
        monkeypatch.setattr(selftest, "data_dir", lambda name: tmp_path / "nothing")
    steps = {step.step: step for step in run_self_test()}
    assert list(steps) == list(STEPS)
    has_gpu = steps["gpu"].status == "passed"
    assert has_gpu or "CPU" in steps["gpu"].detail
    for name in STEPS[1:]:
        assert steps[name].status == "passed", steps[name]
        assert steps[name].memory_bytes
    assert "NF4" in steps["load-4bit"].detail
    assert "gradient norm" in steps["train-step"].detail


@pytest.mark.model
def test_without_bitsandbytes_the_other_steps_still_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stub(tmp_path, monkeypatch, "bitsandbytes", "raise ImportError(\"No module named 'bitsandbytes'\")")
    steps = {step.step: step for step in run_self_test()}
    assert steps["load-4bit"].status == "failed"
    assert steps["load-4bit"].explained_by is not None
    assert steps["train-step"].status == "passed"
    assert "not quantized" in steps["train-step"].detail


def test_child_speaks_json_only_on_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_stub(tmp_path, monkeypatch, "torch", "import os\nos.write(1, b'noise')\nraise ImportError('x')")
    assert run_self_test()[0].detail == "ImportError: x"


def report_of(facts: Facts, *steps: SelfTestStep) -> Report:
    return with_self_test(diagnose(facts), steps)


def test_a_failed_step_is_never_healthy() -> None:
    step = SelfTestStep("lora", "failed", "RuntimeError: something nobody knows", 0.1)
    report = report_of(Facts(), step)
    assert report.verdict == "broken"
    assert report.findings[0].id == FAILED
    assert "something nobody knows" in report.findings[0].title


def test_a_failure_that_rules_know_is_told_by_them() -> None:
    detail = "AssertionError: Torch not compiled with CUDA enabled"
    facts = Facts(torch=TorchFacts(installed=True, version="2.8.0+cpu", build="cpu"))
    step = SelfTestStep("gpu", "failed", detail, 0.1, explained_by="torch-cpu-only")
    report = report_of(facts, step)
    assert report.verdict == "broken"
    assert [finding.id for finding in report.findings if finding.severity == "error"] == ["torch-cpu-only"]


def test_what_explains_a_failure_is_new_with_it() -> None:
    facts = Facts(packages={"peft": "0.21.2"}, platform=PlatformFacts(system="Linux", shm_total_bytes=64 * 2**20))
    detail = "peft is installed, but does not import: ImportError: no such name"
    found = explanation(facts, SelfTestStep("lora", "failed", detail, 0.1))
    assert found is not None
    assert found.id == "peft-import-broken"
    unknown = explanation(facts, SelfTestStep("inference", "failed", "ValueError: what", 0.1))
    assert unknown is None


def test_four_bits_that_work_outrank_a_library_that_does_not_load() -> None:
    facts = Facts(
        torch=TorchFacts(installed=True, version="2.13.0+cpu", build="cpu"),
        bitsandbytes=BitsandbytesFacts(installed=True, version="0.50.2"),
        probes=(ProbeStep("bitsandbytes", "failed", detail="no native library was loaded"),),
    )
    assert report_of(facts).verdict == "broken"
    report = report_of(facts, SelfTestStep("load-4bit", "passed", "28 layers in NF4 on cpu", 1.0))
    assert report.verdict == "degraded"
    assert "still work" in next(item.title for item in report.findings if item.id == "bitsandbytes-unusable")


def test_a_missing_native_library_is_a_warning_where_four_bits_were_seen_to_work() -> None:
    found = BitsandbytesFacts(installed=True, version="0.50.2", libraries=(), location="/x/bitsandbytes")
    facts = Facts(torch=TorchFacts(installed=True, version="2.13.0+cpu", build="cpu"), bitsandbytes=found)
    assert report_of(facts).verdict == "broken"
    report = report_of(facts, SelfTestStep("load-4bit", "passed", "28 layers in NF4 on cpu", 1.0))
    assert report.verdict == "degraded"
    assert "all the same" in report.findings[0].why


@pytest.mark.model
def test_peft_that_is_there_and_broken_is_said_to_be_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with_stub(tmp_path, monkeypatch, "peft", "raise ImportError('cannot import name X')")
    steps = {step.step: step for step in run_self_test()}
    assert steps["lora"].status == "failed"
    assert steps["lora"].detail.startswith("peft is installed, but does not import: ImportError")
    assert steps["lora"].explained_by == "peft-import-broken"
    assert steps["train-step"].status == "passed"
