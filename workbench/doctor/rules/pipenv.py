"""pipenv and the builds of torch: its sources are indexes by name, and pages of links are none."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.tables import WHEELS, table
from workbench.doctor.versions import at_least

_ASKED = re.compile(r"\btorch==(?P<release>\d{1,2}\.\d{1,2}(?:\.\d)?)(?P<tag>\+(?:cu\d{2,3}|cpu))?")


def torch_not_in_its_source(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """A release that pipenv does not find in the sources of its Pipfile, where this Python is not known to be why."""
    asked = _ASKED.search(error.text)
    if asked is None or facts.error("pipenv-told") is None:
        return None
    release, tag = asked["release"], asked["tag"] or ""
    return Finding(
        "torch-build-on-another-index",
        "error",
        f"pipenv finds no torch=={release}{tag} in the sources of this Pipfile",
        "pipenv takes a package from the one source that its line names, by default the first; a page of links, such "
        "as torch_stable.html, is no index that it reads, and builds named +cu118 stand on PyTorch's own alone.",
        {**evidence(asked=release + tag), **seen(error)},
        (
            *_by_source(release, tag),
            f"pipenv run pip install torch=={release}{tag} -f {table('torch')['old']['page']}   # past the lock, into "
            "the same environment: the older releases, whose builds are on that page",
        ),
        "https://pipenv.pypa.io/en/latest/indexes.html",
        affects=("chat", "architecture", "vram"),
        observed=True,
    )


def _by_source(release: str, tag: str) -> tuple[str, ...]:
    """The source and the line of the Pipfile, for releases that PyTorch's index has."""
    if not at_least(release, "1.13"):
        return ()
    index = tag.removeprefix("+") or "cu126"
    return (
        f'In the Pipfile: [[source]] name = "pytorch", url = "{WHEELS}/{index}", verify_ssl = true; under [packages]: '
        f'torch = {{version = "=={release}{tag}", index = "pytorch"}}',
        "pipenv lock --clear && pipenv sync",
    )
