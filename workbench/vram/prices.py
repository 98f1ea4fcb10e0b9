"""What GPUs and APIs cost, from a dated table that the user can replace. Stdlib only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from workbench import paths, toml
from workbench.errors import WorkbenchError
from workbench.text import one_line
from workbench.vram.gpus import Gpu

TABLE = Path(__file__).with_name("prices.toml")
_MAX_PRICE = 10**6


@dataclass(frozen=True)
class Price:
    """Dollars an hour for one GPU."""

    low: float
    high: float
    date: str
    source: str


@dataclass(frozen=True)
class ApiPrice:
    """Dollars for a million tokens."""

    input_per_million: float
    output_per_million: float
    date: str
    source: str


@dataclass(frozen=True)
class Prices:
    """The table in force."""

    gpus: dict[str, Price]
    apis: dict[str, ApiPrice]

    def of(self, gpu: Gpu) -> Optional[Price]:
        """Rent of `gpu`, or None where the table has none."""
        return self.gpus.get(gpu.name)


def user_file() -> Path:
    """Where a user's own table stands."""
    return paths.config_dir() / "prices.toml"


def load_prices(own: Optional[Path] = None) -> Prices:
    """The table that comes along, with the user's entries in place of its own.

    Raises:
        WorkbenchError: ``bad-prices`` or ``bad-toml`` naming file and entry.
    """
    found = _read(TABLE)
    path = own if own is not None else user_file()
    if not path.exists():
        return found
    theirs = _read(path)
    return Prices({**found.gpus, **theirs.gpus}, {**found.apis, **theirs.apis})


def copy_for_editing(path: Optional[Path] = None) -> Path:
    """Put a copy of the table where the user can edit it, unless there is one; its place."""
    target = path if path is not None else user_file()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(TABLE.read_text(encoding="utf-8"), encoding="utf-8")
    return target


def _read(path: Path) -> Prices:
    values = toml.load(path)
    gpus = {
        str(name): Price(_number(path, name, entry, "low"), _number(path, name, entry, "high"), *_stated(entry))
        for name, entry in _section(path, values, "gpu").items()
    }
    apis = {
        str(name): ApiPrice(
            _number(path, name, entry, "input_per_million"),
            _number(path, name, entry, "output_per_million"),
            *_stated(entry),
        )
        for name, entry in _section(path, values, "api").items()
    }
    for name, price in gpus.items():
        if price.low > price.high:
            raise _bad(path, name, "low is above high")
    return Prices(gpus, apis)


def _section(path: Path, values: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    section = values.get(name, {})
    if not isinstance(section, dict) or not all(isinstance(entry, dict) for entry in section.values()):
        raise _bad(path, name, "it holds no entries")
    return section


def _number(path: Path, name: str, entry: dict[str, Any], key: str) -> float:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_PRICE:
        raise _bad(path, name, f"{key} is {value!r:.40}, no price")
    return float(value)


def _stated(entry: dict[str, Any]) -> tuple[str, str]:
    return one_line(str(entry.get("date", "")), 20), one_line(str(entry.get("source", "")), 200)


def _bad(path: Path, name: str, what: str) -> WorkbenchError:
    return WorkbenchError("bad-prices", f"{path}: {one_line(str(name), 60)}: {what}.", "Mend that entry.")
