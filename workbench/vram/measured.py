"""Measured points: what a plan really took, kept in SQLite and held against what was predicted. Stdlib only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from workbench import paths
from workbench.errors import WorkbenchError
from workbench.sqlite_file import move_aside, open_database
from workbench.vram.plan import FOUR_BIT, Plan, plan_to_dict
from workbench.vram.shares import CATEGORIES, Shares

FORMAT_VERSION = 1
"""Of a measurement's numbers; points of another format are passed over."""
_STEPS = (
    """
CREATE TABLE point (
    id INTEGER PRIMARY KEY AUTOINCREMENT, measured_at REAL NOT NULL, model TEXT NOT NULL, config TEXT NOT NULL,
    plan TEXT NOT NULL, device_kind TEXT NOT NULL, device TEXT NOT NULL, format INTEGER NOT NULL, body TEXT NOT NULL);
CREATE INDEX point_of_plan ON point(config, plan);
""",
)
"""What brings a database from each schema version to the next."""
MOST_LISTED = 1000


@dataclass(frozen=True)
class MeasuredPhase:
    """The largest moment of one phase."""

    name: str
    """``load``, ``prepare``, ``forward``, ``backward``, ``optimizer``, ``zero-grad``; ``prefill``, ``between``,
    ``decode``."""
    step: int
    peak_bytes: int
    """CUDA: ``max_memory_allocated`` within the phase. CPU: the most bytes of tensors alive at once."""
    reserved_bytes: int
    """CUDA: ``max_memory_reserved`` within the phase; 0 on the CPU."""
    process_bytes: int
    """At the end of the phase, on a GPU what the driver counts, else the resident set."""
    seconds: float


@dataclass(frozen=True)
class Measurement(Shares):
    """One real run, at its largest moment. On the CPU `total` is of the tensors, as it has no overhead."""

    requested_bytes: int
    """Bytes of all tensors at the peak."""
    allocated_bytes: int
    """``torch.cuda.max_memory_allocated``; on the CPU the same as `requested_bytes`."""
    reserved_bytes: int
    """``torch.cuda.max_memory_reserved``; 0 on the CPU."""
    process_bytes: int
    """What the driver counts for the process; on the CPU its largest resident set, libraries included."""
    peak_phase: str
    peak_step: int
    phases: tuple[MeasuredPhase, ...]
    step_seconds: tuple[float, ...]
    """Of each training step, or of prefill and each decoding step that was run."""
    device_kind: str
    """``cuda`` or ``cpu``."""
    device: str
    """The GPU's name, or ``CPU``."""
    weights_from: str
    """``checkpoint``, or ``random`` where it is not on this box."""
    notes: tuple[str, ...]
    """What to know when comparing it, one line each."""
    versions: dict[str, str]
    seconds: float
    """The whole of it, without importing libraries."""
    cpu_simulated_bytes: Optional[int] = None
    """Of a run on the CPU the same peak, simulated with the CPU's operators instead of a GPU's."""
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class Point:
    """A measurement with its settings."""

    id: int
    measured_at: float
    """Seconds since the epoch."""
    model: str
    plan: dict[str, Any]
    measurement: Measurement


def measurement_from_dict(value: Mapping[str, Any]) -> Measurement:
    """The measurement that `dataclasses.asdict` turned into `value`, after a trip through JSON.

    Raises:
        ValueError, TypeError, KeyError: if `value` is anything else.
    """
    if value["format_version"] != FORMAT_VERSION:
        raise ValueError(f"measurement format {value['format_version']}")
    fields = dict(value)
    fields["phases"] = tuple(MeasuredPhase(**entry) for entry in value["phases"])
    fields["step_seconds"] = tuple(float(seconds) for seconds in value["step_seconds"])
    fields["notes"] = tuple(str(line) for line in value["notes"])
    return Measurement(**fields)


def settled(plan: Plan) -> dict[str, Any]:
    """The JSON form of `plan` with what its job ignores at its default, so that equal jobs are equal."""
    values = plan_to_dict(plan)
    defaults = plan_to_dict(Plan())
    ignored: list[str] = []
    if plan.trains:
        ignored += ["new_tokens", "kv_dtype", "cache"]
        ignored += [] if plan.has_adapters else ["lora"]
        ignored += [] if plan.optimizer in ("adamw", "sgd") else ["fused"]
    else:
        ignored += ["optimizer", "fused", "gradient_checkpointing", "lora", "keep_outputs"]
        ignored += ["chunked_loss", "accumulation", "offload"]
        if plan.kv_dtype == plan.dtype:
            ignored.append("kv_dtype")
    ignored += [] if plan.job == "qlora" else ["kbit_prepare"]
    ignored += [] if plan.quant in FOUR_BIT else ["double_quant"]
    return {**values, **{name: defaults[name] for name in ignored}}


def errors(predicted: Mapping[str, Any], allocated: int, measurement: Measurement) -> dict[str, Optional[float]]:
    """How far a prediction lies from what was measured, in per cent of the latter.

    Args:
        predicted: bytes by category and ``total``, of an estimate or a simulation.
        allocated: its tensors at the peak, to hold against the allocator's count.
        measurement: what was measured.

    Returns:
        By category, ``allocated`` and ``total``; None where a percentage means nothing: nothing was measured, and on
        the CPU the overhead. There ``total`` is without it on both sides.
    """
    on_cpu = measurement.device_kind == "cpu"
    found = {name: _error(int(predicted[name]), getattr(measurement, name)) for name in CATEGORIES}
    found["allocated"] = _error(allocated, measurement.allocated_bytes)
    if on_cpu:
        found["overhead"] = None
        found["total"] = _error(int(predicted["total"]) - int(predicted["overhead"]), measurement.total)
    else:
        found["total"] = _error(int(predicted["total"]), measurement.total)
    return found


def cpu_errors(measurement: Measurement) -> dict[str, Optional[float]]:
    """As `errors`, of the steps simulated as a CPU runs them: what is left is the simulation's own."""
    found = _error(measurement.cpu_simulated_bytes or 0, measurement.allocated_bytes)
    return {"allocated": found, "total": found}


def _error(predicted: int, measured: int) -> Optional[float]:
    if measured == 0:
        return 0.0 if predicted == 0 else None
    return 100.0 * (predicted / measured - 1.0)


class MeasuredStore:
    """The points measured on this box, in a file of the user's own. Every method may be called from any thread."""

    def __init__(self, path: Optional[Path] = None) -> None:
        """Use the file at `path`, by default ``measurements.sqlite3`` in the state directory."""
        self.path = path or paths.state_dir() / "measurements.sqlite3"
        self.note = ""
        """What happened to a damaged file, one line."""
        self._lock = threading.Lock()
        self._db: Optional[sqlite3.Connection] = None

    def add(self, model: str, config: Mapping[str, Any], plan: Plan, measurement: Measurement) -> Point:
        """Keep a point.

        Raises:
            WorkbenchError: ``store-newer``, ``cannot-write``.
        """
        now = time.time()
        row = (now, model, _digest(config), _canonical(settled(plan)), measurement.device_kind, measurement.device)
        body = json.dumps(asdict(measurement))
        with self._using() as db:
            cursor = db.execute(
                "INSERT INTO point (measured_at, model, config, plan, device_kind, device, format, body) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, FORMAT_VERSION, body),
            )
            return Point(int(cursor.lastrowid or 0), now, model, settled(plan), measurement)

    def find(self, config: Mapping[str, Any], plan: Plan, gpus: Sequence[str] = ()) -> Optional[Point]:
        """The newest point of exactly this model and plan: on one of `gpus` if there is one, else on any GPU, else CPU.

        Raises:
            WorkbenchError: ``store-newer``, ``cannot-write``.
        """
        if not self.path.exists():
            return None
        with self._using() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM point WHERE config = ? AND plan = ? AND format = ? ORDER BY id DESC LIMIT 100",
                (_digest(config), _canonical(settled(plan)), FORMAT_VERSION),
            ).fetchall()
        points = [point for point in map(_point, rows) if point is not None]
        # `max` keeps the first of equals, the newest.
        return max(points, key=lambda point: _nearness(point.measurement, gpus), default=None)

    def points(self, model: str = "", limit: int = MOST_LISTED) -> list[Point]:
        """Points, the newest first; of one model by name, or all.

        Raises:
            WorkbenchError: ``store-newer``, ``cannot-write``.
        """
        if not self.path.exists():
            return []
        with self._using() as db:
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM point WHERE (? = '' OR model = ?) AND format = ? ORDER BY id DESC LIMIT ?",
                (model, model, FORMAT_VERSION, max(0, min(limit, MOST_LISTED))),
            ).fetchall()
        return [point for point in map(_point, rows) if point is not None]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._db is not None:
                self._db.close()
                self._db = None

    @contextlib.contextmanager
    def _using(self) -> Any:
        with self._lock:
            try:
                if self._db is None:
                    self._db = self._open()
                yield self._db
            except (OSError, sqlite3.Error) as error:
                raise WorkbenchError(
                    "cannot-write",
                    f"The measured points in {self.path} cannot be had: {error}.",
                    "Free some space or make the folder writable, or set XDG_STATE_HOME elsewhere.",
                ) from None

    def _open(self) -> sqlite3.Connection:
        try:
            return open_database(self.path, _STEPS)
        except sqlite3.OperationalError:
            # Locked, or no space: nothing is wrong with the file.
            raise
        except sqlite3.DatabaseError:
            kept = move_aside(self.path)
            self.note = (
                f"The measured points in {self.path} were damaged; they are kept as {kept} and a new file was begun."
            )
            return open_database(self.path, _STEPS)


_COLUMNS = "id, measured_at, model, plan, body"


def _point(row: Sequence[Any]) -> Optional[Point]:
    """None for a row that this version cannot read."""
    try:
        return Point(int(row[0]), float(row[1]), str(row[2]), json.loads(row[3]), measurement_from_dict(_json(row[4])))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _json(text: Any) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _nearness(measurement: Measurement, gpus: Sequence[str]) -> int:
    if measurement.device_kind != "cuda":
        return 0
    # A GPU of this box is called by its name and index.
    return 2 if any(measurement.device == gpu.partition(" #")[0] for gpu in gpus) else 1


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _digest(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(_canonical(config).encode("utf-8", "surrogatepass")).hexdigest()
