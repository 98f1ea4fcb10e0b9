"""Soak a session of its own for some time and say what was found; exit code 1 when something did not hold."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from pathlib import Path

from tests.faults.box import Box
from tests.soak.drive import soak


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=4)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Box.shared_environment(Path(folder)) as environment:
        os.environ.update(environment, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
        findings = asyncio.run(soak(given.seconds, given.clients))
    print("\n".join(findings.lines()))
    return 1 if findings.problems else 0


if __name__ == "__main__":
    sys.exit(main())
