"""Expressions that would take for ever end within their bound, with the package regex and without it."""

from __future__ import annotations

import contextlib

import pytest

from workbench.architecture import patterns
from workbench.architecture.lora import LoraPlan, count_adapter
from workbench.architecture.patterns import Matcher
from workbench.architecture.skeleton import ModuleEntry, ParameterEntry, Skeleton
from workbench.errors import WorkbenchError

NAMES = [f"model.layers.{number}.self_attn.{'a' * 40}.q_norm" for number in range(60)]
ENDLESS = (r"(\w+\.?)+proj!", r"(a|aa)+$", r"((((a?){50}){50}){50}){50}", r"(\w*)*(\w*)*[0-9]\1!")
SANE = (
    r".*\.(q|v)_proj",
    r".*layers\.\d+\.(self_attn|mlp)\.(q_proj|up_proj)",
    r"(.*\.)?q_norm",
    r"model\..{10,80}norm",
)


@pytest.mark.parametrize("pattern", ENDLESS)
def test_an_endless_expression_is_refused_where_it_could_not_be_stopped(monkeypatch, pattern):
    monkeypatch.setattr(patterns, "_regex_package", lambda: None)
    with pytest.raises(WorkbenchError, match="takes too long") as caught:
        Matcher().fullmatch(pattern, NAMES[0])
    assert caught.value.kind == "pattern-timeout"


@pytest.mark.parametrize("pattern", ENDLESS)
def test_an_endless_expression_ends(pattern):
    matcher = Matcher(limit_seconds=0.2)
    # The package knows short ways through some of them.
    with contextlib.suppress(WorkbenchError):
        assert not any(matcher.fullmatch(pattern, name) for name in NAMES)


@pytest.mark.parametrize("pattern", SANE)
def test_a_sane_expression_needs_no_package(monkeypatch, pattern):
    monkeypatch.setattr(patterns, "_regex_package", lambda: None)
    assert Matcher().fullmatch(pattern, NAMES[0]) == pattern.endswith("norm")


def test_a_lora_plan_is_bounded():
    def linear(name: str) -> tuple[ModuleEntry, ParameterEntry]:
        weight = ParameterEntry(f"{name}.weight", (8, 8), "float32", name)
        return ModuleEntry(name, "Linear", "linear", "linear"), weight

    entries = [linear(name) for name in NAMES]
    skeleton = Skeleton(
        "M", "llama", "5", "float32", {}, tuple(e[0] for e in entries), tuple(e[1] for e in entries), ()
    )
    for plan in (LoraPlan(regex=r"(\w+\.?)+((\w+)*)*\3!"), LoraPlan(rank_pattern={r"(\w+\.?)+((\w+)*)*\4!": 3})):
        with pytest.raises(WorkbenchError) as caught:
            count_adapter(skeleton, plan)
        assert caught.value.kind in ("pattern-timeout", "bad-lora")
