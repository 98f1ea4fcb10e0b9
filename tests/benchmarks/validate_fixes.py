"""Fixes of Doctor, carried out: environments that are broken at random, and what the first fix makes of them.

    python -m tests.benchmarks.validate_fixes [--fault moved] [--first 0] [--count 10] [--torch torch==2.13.0]
        [--find-links FOLDER]

Each case takes what a task asks for as the index had it at some day, breaks it, and runs the task. Kinds of faults:
``moved`` (one package to another day, up, down, or out), ``damaged`` (files of one lost, or of two releases),
``hidden`` (another module of its name comes first), ``absent`` (an optional part is not there), and ``refused``, about
an install instead: requirements of two times, for some Python, which pip or uv refuses.

Doctor reads what was printed, in half of the cases with ``pip list`` below it, and the commands of its first finding's
fix are run in order, without those that are named as another way, until the task runs or they end. A case counts only
where the task runs without the fault. The numbers of the cases are seeds: the same number is the same case as long as
the index stays as it is.

Needs uv on the path (for ``refused`` also Python 3.9 to 3.13), the network, and about a minute and some hundred MiB of
uv's cache for each case.
"""

from __future__ import annotations

import argparse
import datetime
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.fix_faults import FAULTS, NEWEST, OLDEST, Subject
from tests.benchmarks.fix_places import Place, build, resolved
from tests.benchmarks.fix_refusals import drawn
from tests.benchmarks.fix_steps import HOME, carried_out, do_in
from tests.benchmarks.fix_tasks import TRAINING, WITH_OPTIONAL_PARTS
from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report


def case(number: int, fault: str, place: Place) -> bool | None:
    """Build, break and mend one environment; None where the fault broke nothing, or the task never ran."""
    draw = random.Random(number)
    tasks = WITH_OPTIONAL_PARTS if fault == "absent" else TRAINING
    task = tasks[draw.choice(sorted(tasks))]
    day = OLDEST + datetime.timedelta(draw.randrange((NEWEST - OLDEST).days))
    pins = resolved(place, task.wanted, str(day))
    if not pins or not build(place, pins) or (task.prepare and not place.run(task.prepare)[0]):
        return None
    done = FAULTS[fault](Subject(place, task, pins, day, draw))
    runs, printed = place.run(task.program)
    if runs:
        return None
    listed = place.listed()
    report = f"$ python {place.script}\n{printed}" + (f"\n$ pip list\n{listed}" if draw.random() < 0.5 else "")
    findings = diagnose(parse_report(report.replace(str(place.folder), HOME))).findings
    fix = findings[0].fix if findings else ()
    mended = carried_out(fix, lambda step: do_in(place, step), lambda: place.run(task.program)[0])
    if not mended and not _runs_whole(place, pins, task.program):
        return None
    return _told(number, mended, f"{day}, {done}", findings)


def _runs_whole(place: Place, pins: list[str], program: str) -> bool:
    """Whether a program runs where nothing was broken."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Place(Path(folder), place.torch, place.find_links)
        if (place.folder / "model").is_dir():
            (whole.folder / "model").symlink_to(place.folder / "model")
        return build(whole, pins) and whole.run(program)[0]


def refused(number: int, folder: Path) -> bool | None:
    """Ask for what does not resolve, and change it as the first fix says; None where it resolves."""
    asked = drawn(folder, number)
    resolves, printed = asked.resolve()
    if resolves:
        return None
    held = f" -c {' '.join(asked.constraints)}" if asked.constraints else ""
    wanted = f"Python {asked.python}, {asked.tool}: {' '.join(asked.lines)}{held}"
    findings = diagnose(parse_report(printed.replace(str(folder), HOME))).findings
    mended = carried_out(findings[0].fix if findings else (), asked.change, lambda: asked.resolve()[0])
    return _told(number, mended, wanted, findings)


def _told(number: int, mended: bool, done: str, findings: Sequence[Finding]) -> bool:
    title = findings[0].title if findings else "nothing found"
    print(f"{number:4} {'mended' if mended else 'not mended'}: {done}: {title}", flush=True)
    return mended


def main() -> None:
    """Run the cases, and tell how many of those that broke were mended."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fault", choices=sorted([*FAULTS, "refused"]), default="moved")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--torch", default="torch==2.13.0")
    parser.add_argument("--find-links", default="")
    asked = parser.parse_args()
    links = ("--find-links", asked.find_links) if asked.find_links else ()
    results = []
    for number in range(asked.first, asked.first + asked.count):
        with tempfile.TemporaryDirectory() as folder:
            place = Place(Path(folder), asked.torch, links, with_pip=asked.fault in ("damaged", "hidden"))
            requirements = asked.fault == "refused"
            results.append(refused(number, place.folder) if requirements else case(number, asked.fault, place))
    broken = [result for result in results if result is not None]
    print(f"{len(broken)} of {len(results)} environments were broken; the first fix mended {sum(broken)}")


if __name__ == "__main__":
    main()
