"""Makes tables of workbench/doctor/tables anew from the releases of the packages themselves.

    python -m docs.tables [--cache FOLDER] [--offline] [names] [askers] [requirements]

names: what came with a minor release or went with one. askers: who imports such a name (needs names).
requirements: what releases ask of each other. Without a name all three are written.

A release that came out since is read for names and askers once its row stands in dates.toml (or in the plan here that
names releases one by one), for requirements at once; what is read of it is kept in the cache folder, so that a next run
fetches only what is new. The first run fetches some 500 wheels, one at a time, and the metadata of 1,500. Needs the dev
extra, and pip with access to an index that serves parts of files.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Callable

from docs.tables import askers, names, requirements
from docs.tables.releases import Releases
from workbench.paths import cache_dir

MAKERS: dict[str, Callable[[Releases], Path]] = {
    "names": names.make,
    "askers": askers.make,
    "requirements": requirements.make,
}


def main() -> None:
    summary, _, description = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        "python -m docs.tables", None, summary, description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=", ".join(MAKERS))
    parser.add_argument("--cache", type=Path, default=cache_dir() / "tables", help="default: %(default)s")
    parser.add_argument("--offline", action="store_true", help="fetch nothing: only what is in the cache")
    arguments = parser.parse_args()
    unknown = set(arguments.tables) - set(MAKERS)
    if unknown:
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    releases = Releases(arguments.cache, arguments.offline)
    for table, make in MAKERS.items():
        if table in arguments.tables or not arguments.tables:
            print(make(releases))


if __name__ == "__main__":
    main()
