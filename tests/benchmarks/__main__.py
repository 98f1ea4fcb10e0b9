"""All benchmarks as one Markdown table, each row a ratio against its peer measured in the same run.

    python -m tests.benchmarks [NAME …] [--model DIRECTORY]

Takes about ten minutes on two cores and prints what each benchmark says as it goes. Names are those of the scripts
beside this file without ``bench_``. The model is SmolLM2-135M-Instruct, as `workbench models fetch` converts it.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.benchmarks.table import ROWS, Row, markdown
from workbench.models.gguf_convert import ensure_directory
from workbench.models.resolve import resolve

MODEL = "smollm2-135m-instruct"
PACKAGES = ("textual", "torch", "transformers", "tokenizers", "bitsandbytes")


def commands(model: Path) -> dict[str, tuple[str, ...]]:
    """The arguments of each benchmark."""
    return {
        "first_frame": ("--rounds", "9"),
        "doctor": (),
        "tokens": (str(model), "--megabytes", "100", "--rounds", "2"),
        "keystroke": (),
        "architecture": (),
        "trace": (str(model),),
        "plan_edit": (),
        "generation": (str(model),),
        "streaming": (),
        "terminal_bytes": (),
    }


def machine() -> str:
    """Machine, versions and date in one line."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    load = os.getloadavg()[0]
    today = datetime.date.today().isoformat()
    return (
        f"{today}, {os.cpu_count()} cores ({platform.machine()}), load {load:.1f} at the start, "
        f"Python {platform.python_version()}, {versions}"
    )


def main() -> None:
    """Run them and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--model", type=Path)
    options = parser.parse_args()
    every = commands(options.model or ensure_directory(resolve(MODEL)))
    unknown = set(options.names) - every.keys()
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    told = machine()
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "rows.jsonl")
        rows.touch()
        for name in options.names or every:
            print(f"\n== {name}", flush=True)
            command = [sys.executable, "-m", f"tests.benchmarks.bench_{name}", *every[name]]
            if subprocess.run(command, env={**os.environ, ROWS: str(rows)}, check=False).returncode:
                failed.append(name)
        found = [Row(**json.loads(line)) for line in rows.read_text(encoding="utf-8").splitlines()]
    print(f"\n{told}\n\n{markdown(found)}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
