"""On which GPUs a model goes, and what that asks of transformers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from workbench.job import SILENT
from workbench.models.load import LoadOptions, _placed
from workbench.models.placement import SPARE_BYTES, Placement, place
from workbench.paths import data_dir
from workbench.session.handlers.models import _needed_bytes

GIB = 2**30


def test_one_gpu_as_long_as_one_has_room() -> None:
    assert place(5 * GIB, [8 * GIB, 24 * GIB]) == Placement(0)
    assert place(8 * GIB, [8 * GIB, 24 * GIB]) == Placement(0)
    assert place(9 * GIB, [8 * GIB, 24 * GIB, 16 * GIB]) == Placement(1)
    assert place(0, [GIB, 24 * GIB]) == Placement(0)
    assert _placed(Placement(1)) == {"device_map": {"": "cuda:1"}}


def test_several_where_none_has_room_each_with_some_to_spare() -> None:
    spread = place(30 * GIB, [24 * GIB, 16 * GIB])
    assert spread == Placement(0, ((0, 24 * GIB - SPARE_BYTES), (1, 16 * GIB - SPARE_BYTES)))
    assert _placed(spread) == {"device_map": "auto", "max_memory": dict(spread.max_memory)}
    # A GPU that another program has filled takes no part.
    assert place(30 * GIB, [GIB // 2, 16 * GIB, 24 * GIB]).max_memory == (
        (1, 16 * GIB - SPARE_BYTES),
        (2, 24 * GIB - SPARE_BYTES),
    )
    assert place(30 * GIB, [GIB // 2, 16 * GIB, 24 * GIB]).index == 1


def test_the_emptiest_where_all_together_are_too_small() -> None:
    assert place(40 * GIB, [16 * GIB, 24 * GIB]) == Placement(1)
    assert place(39 * GIB, [16 * GIB, 24 * GIB]) == Placement(1)
    assert place(30 * GIB, [24 * GIB, GIB // 2]) == Placement(0)


@pytest.mark.model
def test_what_a_load_needs_is_what_vram_estimates() -> None:
    context = SimpleNamespace(job=SILENT, runtime=SimpleNamespace(services={}))
    tiny = str(data_dir("sample_models") / "tiny-llama")
    half, whole = (_needed_bytes(tiny, LoadOptions(dtype=dtype), context) for dtype in ("bfloat16", "float32"))
    assert 0 < half < whole
    assert _needed_bytes("no such model", LoadOptions(), context) == 0
