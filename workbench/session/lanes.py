"""Lanes: threads that run jobs, so that nothing small waits behind something big. Stdlib only.

``model`` has one thread, since a model, its cache and CUDA graphs belong to one; ``quick`` answers what takes
well under a second; ``children`` waits for child processes, whose work can only be stopped by killing them.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from dataclasses import dataclass
from typing import Any, Callable, Optional

from workbench.errors import JobCancelled
from workbench.job import Job, running
from workbench.session.protocol import Event, JobProgressed, LaneStatus

PROGRESS_INTERVAL_SECONDS = 0.1


class LaneJob(Job):
    """One request on its way through a lane; the `Job` that its domain function sees.

    Args:
        name: wire name of the request.
        emit: thread-safe; sends an event to the client that asked.
        changed: thread-safe; says that the lane's status has changed.
    """

    def __init__(self, name: str, emit: Callable[[Event], None], changed: Callable[[], None]) -> None:
        self.name = name
        self.emit = emit
        self.latest: Optional[JobProgressed] = None
        self._changed = changed
        self._cancelled = threading.Event()
        self._last_sent = 0.0

    def progress(self, phase: str, done: int, total: Optional[int] = None, unit: str = "", detail: str = "") -> None:
        """Send progress at most ten times a second; a new phase and its end are always sent."""
        event = JobProgressed(phase, done, total, unit, detail)
        now = time.monotonic()
        new_phase = self.latest is None or self.latest.phase != phase
        self.latest = event
        if new_phase or done == total or now - self._last_sent >= PROGRESS_INTERVAL_SECONDS:
            self._last_sent = now
            self.emit(event)
            self._changed()

    def check(self) -> None:
        if self._cancelled.is_set():
            raise JobCancelled("stopped on request")

    def cancel(self) -> None:
        """Make the next `check` raise; thread-safe and idempotent."""
        self._cancelled.set()


@dataclass
class _Task:
    job: LaneJob
    run: Callable[[LaneJob], Any]
    done: Callable[[Any, Optional[BaseException]], None]


class Lane:
    """Daemon threads that take jobs in order.

    Args:
        name: as in `LaneStatus`.
        threads: how many jobs run at once.
        changed: thread-safe; called when the lane starts or ends a job.
    """

    def __init__(self, name: str, threads: int, changed: Callable[[], None]) -> None:
        self.name = name
        self._changed = changed
        self._tasks: queue.PriorityQueue[tuple[bool, int, _Task]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._running: list[LaneJob] = []
        self._lock = threading.Lock()
        for number in range(threads):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    def submit(
        self,
        job: LaneJob,
        run: Callable[[LaneJob], Any],
        done: Callable[[Any, Optional[BaseException]], None],
        first: bool = False,
    ) -> None:
        """Queue `run(job)`, before all that waits if `first`; `done(result, error)` is called on the lane's thread."""
        self._tasks.put((not first, next(self._numbers), _Task(job, run, done)))
        self._changed()

    def cancel_running(self) -> bool:
        """Cancel what runs now; False if the lane is idle."""
        with self._lock:
            for job in self._running:
                job.cancel()
            return bool(self._running)

    @property
    def busy(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self._running) or not self._tasks.empty()

    def status(self) -> LaneStatus:
        """A snapshot; of several running jobs the oldest is named."""
        with self._lock:
            job = self._running[0] if self._running else None
        waiting = self._tasks.qsize()
        if job is None:
            return LaneStatus(self.name, queued=waiting)
        latest = job.latest or JobProgressed("", 0)
        return LaneStatus(self.name, job.name, latest.phase, latest.done, latest.total, latest.unit, waiting)

    def _work(self) -> None:
        while True:
            self._run_one(self._tasks.get()[2])

    def _run_one(self, task: _Task) -> None:
        # A method of its own: a local of the endless loop would keep the last job's tensors alive while idle.
        with self._lock:
            self._running.append(task.job)
        self._changed()
        result: Any = None
        error: Optional[BaseException] = None
        try:
            task.job.check()
            with running(task.job):
                result = task.run(task.job)
        except BaseException as raised:
            error = raised
        with self._lock:
            self._running.remove(task.job)
        task.done(result, error)
        self._changed()
