from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from workbench.doctor import selftest
from workbench.doctor.child import Limits
from workbench.doctor.selftest import STEPS, SelfTestStep, run_self_test
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
