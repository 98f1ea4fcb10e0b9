"""Print the fault matrix as Markdown."""

from __future__ import annotations

import importlib
from pathlib import Path

from tests.faults.table import TABLE


def main() -> None:
    """All rows, in the order of their files."""
    for folder in ("faults", "safety"):
        for file in sorted((Path(__file__).parents[1] / folder).glob("test_*.py")):
            importlib.import_module(f"tests.{folder}.{file.stem}")
    print("| # | fault | injected by | promise |\n|---|---|---|---|")
    for number, row in enumerate(TABLE, 1):
        print(f"| {number} | {row.name} | {row.injected} | {row.promise} |")


if __name__ == "__main__":
    main()
