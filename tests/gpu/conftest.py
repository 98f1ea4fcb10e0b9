"""Tests that need a CUDA device; without one they are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def has_cuda() -> bool:
    """Whether torch is installed and sees a GPU."""
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if HERE in item.path.parents]
    missing = bool(ours) and not has_cuda()
    for item in ours:
        item.add_marker(pytest.mark.gpu)
        item.add_marker(pytest.mark.timeout(900))
        # Libraries warn differently with each card and version.
        item.add_marker(pytest.mark.filterwarnings("ignore"))
        if missing:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
