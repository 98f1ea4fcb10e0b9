"""What an error that no table knows still tells, by kind of error. Needs the tables."""

from __future__ import annotations

from typing import Optional

from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.unknown.apart import together
from workbench.doctor.rules.unknown.calls import call_refused
from workbench.doctor.rules.unknown.instead import no_package
from workbench.doctor.rules.unknown.missing import advised, distribution, missing, required
from workbench.doctor.rules.unknown.names import name_missing


def guessed_error(facts: Facts, error: ErrorFact) -> Optional[list[Finding]]:
    """A finding on an unknown exception, where its own words are enough for one."""
    kinds = (together, distribution, required, no_package, missing, advised, name_missing, call_refused)
    finding = next(filter(None, (kind(facts, error) for kind in kinds)), None)
    return [finding] if finding else None


def decided_name(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """The finding on a name that a package does not have, where a table, the time or the spelling tells why."""
    finding = name_missing(facts, error)
    sure = finding is not None and (finding.id != "package-versions-do-not-fit" or "too old" in finding.title)
    return finding if sure else None
