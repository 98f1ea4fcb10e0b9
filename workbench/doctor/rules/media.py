"""What reads sound and video beside torch. Needs the tables."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.tables import companion, companion_of
from workbench.doctor.versions import minor_name


def torchcodec_steps(facts: Facts) -> tuple[str, ...]:
    """The torchcodec that was compiled for this torch, where both are known and do not belong together."""
    torch, minor = facts.torch.version, minor_name(facts.torch.version)
    wanted = companion("torchcodec", facts.package("torchcodec"))
    fitting = companion_of("torchcodec", minor)
    # A nightly belongs to the nightly torch of its days, whatever its number says.
    apart = "dev" in (facts.package("torchcodec") or "") and "dev" not in (torch or "")
    if fitting is None or not (apart or (wanted is not None and minor_name(wanted[0]) != minor)):
        return ()
    return (fixes.install(facts, f"torchcodec=={fitting}", options="--force-reinstall --no-deps"),)
