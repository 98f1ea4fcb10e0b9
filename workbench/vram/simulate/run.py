"""`simulate`: a plan's memory, simulated in a child process and kept on disk. Stdlib only.

A simulation changes the whole process (a device is registered, functions of torch are replaced), so it has one of
its own. That process stays for a while, as most of the time goes into importing.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import hashlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from importlib import metadata
from pathlib import Path
from typing import Any, Optional, Union

import workbench
from workbench import paths
from workbench.architecture.skeleton import Skeleton
from workbench.architecture.validate import check_config
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.packages import missing
from workbench.vram.plan import Plan, check_plan, plan_to_dict
from workbench.vram.simulate.result import FORMAT_VERSION, Simulation, simulation_from_dict

MAX_ENTRIES = 300
"""Simulations kept; the oldest beyond this number are removed."""
LIBRARIES = ("torch", "transformers", "bitsandbytes", "peft")
"""Whose versions change what a plan takes."""
_POLL_SECONDS = 0.1
_MAX_ANSWER_BYTES = 32 * 2**20


def simulate(source: Union[dict[str, Any], Skeleton], plan: Plan, job: Job = SILENT) -> Simulation:
    """The memory of `plan`, from a run of the real model classes on tensors without data.

    Args:
        source: the content of a ``config.json``, or a skeleton, whose config is taken.
        plan: what to run.
        job: phases and steps; cancelling kills the process at once.

    Raises:
        WorkbenchError: ``bad-plan``, ``unsupported-plan`` (sharded over GPUs, offloaded), ``missing-package``,
            ``simulation-failed``, and as for a skeleton.
        JobCancelled: if the caller asked to stop.
    """
    config = source.config if isinstance(source, Skeleton) else source
    if isinstance(source, Skeleton):
        config = {**config, "architectures": [source.architecture]}
    check_config(config)
    check_plan(plan)
    _refuse_unsupported(plan)
    versions = library_versions()
    needed = ["torch", "transformers"]
    needed += ["bitsandbytes"] if plan.quant != "none" or "8bit" in plan.optimizer else []
    needed += ["peft"] if plan.has_adapters else []
    for library in needed:
        if library not in versions:
            raise missing(library, "Simulating this plan")
    entry = _entry_path(config, plan, versions)
    kept = _read(entry)
    if kept is not None:
        return kept
    request = {"config": config, "plan": plan_to_dict(plan), "versions": versions}
    found = simulation_from_dict(_process.ask(request, job))
    with contextlib.suppress(OSError):
        paths.write_atomic(entry, json.dumps(dataclasses.asdict(found)).encode("utf-8"))
        _prune(entry.parent)
    return found


def cached_simulation(source: Union[dict[str, Any], Skeleton], plan: Plan) -> Optional[Simulation]:
    """The simulation of `plan` if it was made before with these libraries."""
    config = source.config if isinstance(source, Skeleton) else source
    if isinstance(source, Skeleton):
        config = {**config, "architectures": [source.architecture]}
    return _read(_entry_path(config, plan, library_versions()))


def library_versions() -> dict[str, str]:
    """Versions of what is installed of `LIBRARIES`, without importing it."""
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _refuse_unsupported(plan: Plan) -> None:
    if plan.parallel not in ("none", "ddp"):
        raise WorkbenchError(
            "unsupported-plan",
            f"A job sharded by {plan.parallel} is not simulated.",
            "The estimate covers it; or simulate one GPU that holds everything.",
        )
    if plan.trains and plan.offload != "none":
        raise WorkbenchError(
            "unsupported-plan",
            "An optimizer in CPU memory is not simulated.",
            "The estimate covers it; or simulate with offload none.",
        )


def _entry_path(config: dict[str, Any], plan: Plan, versions: dict[str, str]) -> Path:
    subject = {"config": config, "plan": plan_to_dict(plan), "versions": versions, "format": FORMAT_VERSION}
    canonical = json.dumps(subject, sort_keys=True, separators=(",", ":"), default=str)
    digest = hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
    return paths.cache_dir() / "simulations" / f"{digest}.json"


def _read(entry: Path) -> Optional[Simulation]:
    try:
        return simulation_from_dict(json.loads(entry.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def _prune(folder: Path) -> None:
    entries = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    for path in entries[:-MAX_ENTRIES]:
        path.unlink()


class _Process:
    """The child, started when it is needed and kept as long as it lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._child: Optional[subprocess.Popen[bytes]] = None
        self._errors: Any = None
        atexit.register(self.close)

    def ask(self, request: dict[str, Any], job: Job) -> dict[str, Any]:
        """Have one simulation made; requests wait for each other."""
        while not self._lock.acquire(timeout=_POLL_SECONDS):
            job.check()
        try:
            return self._ask(request, job)
        except BaseException as error:
            if not isinstance(error, WorkbenchError) or error.kind == "simulation-died":
                self.close()
            raise
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is None:
            return
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)

    def _ask(self, request: dict[str, Any], job: Job) -> dict[str, Any]:
        line = json.dumps(request).encode("utf-8") + b"\n"
        child = self._running()
        try:
            _send(child, line)
        except OSError:
            # It went to sleep for good between two requests.
            self.close()
            child = self._running()
            _send(child, line)
        for message in self._messages(child, job):
            if "progress" in message:
                job.progress(*message["progress"])
            elif "error" in message:
                raise WorkbenchError(*message["error"])
            else:
                simulation: dict[str, Any] = message["simulation"]
                return simulation
        raise self._died(child)

    def _messages(self, child: subprocess.Popen[bytes], job: Job) -> Any:
        assert child.stdout is not None
        pending = b""
        while True:
            job.check()
            if not select.select([child.stdout], [], [], _POLL_SECONDS)[0]:
                continue
            data = os.read(child.stdout.fileno(), 2**16)
            if not data:
                return
            *lines, pending = (pending + data).split(b"\n")
            if len(pending) > _MAX_ANSWER_BYTES:
                return
            for line in lines:
                yield json.loads(line)

    def _died(self, child: subprocess.Popen[bytes]) -> WorkbenchError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(1.0)
        code = child.returncode
        how = f"by signal {-code}" if code is not None and code < 0 else f"with exit code {code}"
        self._errors.seek(0)
        text = self._errors.read()[-6000:].decode("utf-8", "replace")
        return WorkbenchError(
            "simulation-died",
            f"The simulating process ended {how}.",
            "The estimate stands; the details are what it wrote last.",
            text,
        )

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            self._errors.seek(0)
            self._errors.truncate()
            return self._child
        self.close()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the child)
        root = str(Path(workbench.__path__[0]).parent)
        # The package's own folder goes last on the path: importable, but it shadows nothing of the interpreter.
        boot = (
            f"import runpy, sys; sys.path[:] = [p for p in sys.path if p]; sys.path.append({root!r}); "
            "runpy.run_module('workbench.vram.simulate.child', run_name='__main__')"
        )
        self._child = subprocess.Popen(
            [sys.executable, "-c", boot],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            start_new_session=True,
        )
        return self._child


def _send(child: subprocess.Popen[bytes], line: bytes) -> None:
    assert child.stdin is not None
    child.stdin.write(line)
    child.stdin.flush()


_process = _Process()
