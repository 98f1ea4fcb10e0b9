from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.drive import soak


@pytest.mark.model
@pytest.mark.e2e
async def test_a_short_soak(private_home: Path) -> None:
    findings = await soak(15.0, clients=3)
    assert not findings.problems, "\n".join(findings.lines())
    assert findings.done.total() > 60
    assert findings.chaos.total() >= 2
    assert findings.answers
