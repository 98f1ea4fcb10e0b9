"""Rules about processes that wait for each other, where a paste tells what for."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen


def collective_timed_out(facts: Facts) -> Result:
    """A rank waited in a collective operation until the limit of time was over."""
    error = facts.error("collective-timed-out")
    if error is None:
        return PASSED
    alone = facts.error("one-rank-alone")
    minutes = int(error.values["limit"]) // 60000 if error.values.get("limit") else None
    limit = f" of {minutes} min" if minutes else ""
    longer = (
        f"ddp_timeout=7200 in the Trainer, or init_process_group(timeout=timedelta(hours=2))   # longer than the "
        f"limit{limit}",
        "What one rank does alone (validation, saving, tokenizing) has to be done by all, or stand between two "
        "barriers; each rank needs the same number of steps",
    )
    apart = (
        fixes.export(facts, "NCCL_P2P_DISABLE", "1", "on cards without NVLink, or with IOMMU on: does it run then?"),
        f"{fixes.export(facts, 'TORCH_NCCL_TRACE_BUFFER_SIZE', '2000')}; {fixes.export(facts, 'NCCL_DEBUG', 'INFO')}  "
        f" # the "
        "rank whose last operation has the lowest number is the one that stopped; read its log first, not the last",
        "py-spy dump --pid <a process>   # while it hangs: where each of them waits",
    )
    return [
        Finding(
            "collective-timed-out",
            "error",
            "One rank works alone for longer than the others wait"
            if alone
            else "One process of several did not come to a common step in time",
            f"All ranks must reach each common operation within the limit{limit}. "
            + (
                "What is done at this point, validation, saving or preparing data, keeps one of them away."
                if alone
                else "A rank died (out of memory, an exception above in its log), was slower by minutes (loading, "
                "tokenizing, saving), had fewer steps than the others, or the GPUs cannot reach each other."
            ),
            {**evidence(limit=f"{minutes} min" if minutes else None), **seen(alone or error)},
            (*longer, *apart) if alone else (*apart[1:2], *longer[:1], apart[0], longer[1], apart[2]),
            "https://docs.pytorch.org/docs/stable/distributed.html",
            affects=("vram",),
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (collective_timed_out,)
