"""The `workbench` command: turns arguments into calls, results into text or JSON."""

from __future__ import annotations

import sys


def main() -> None:
    """Entry point of the console script; exits with the codes of the contract.

    0 done, 1 done and the answer is "no", 2 bad usage or unreadable input, 130 interrupted.
    """
    try:
        from workbench.cli.commands import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
