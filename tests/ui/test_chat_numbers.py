"""What an answer took, beside what was estimated."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from tests.ui.test_chat_conversation import begun
from workbench.session import protocol
from workbench.ui.benches.chat_figures import figures_line
from workbench.ui.benches.chat_numbers import numbers_lines, plan_of

MIB = 2**20
MESSAGE: dict[str, Any] = {
    "settings": {"model": "m", "quant": "nf4", "dtype": "bfloat16"},
    "figures": {
        "prompt_tokens": 1200, "given_tokens": 20, "new_tokens": 80, "reused_tokens": 1000, "prefill_seconds": 0.5,
        "decode_seconds": 4.0, "tokens_per_second": 20.0, "stopped_by": "max-new-tokens", "seed": 7, "greedy": False,
        "memory": {"weights_bytes": 100 * MIB, "kv_cache_bytes": 50 * MIB, "peak_bytes": 200 * MIB,
                   "peak_of": "device"},
    },
}  # fmt: skip
ESTIMATE = {
    "estimate": {"weights": 100 * MIB, "kv_cache": 30 * MIB, "total": 700 * MIB},
    "phases": [{"name": "prefill", "kv_cache": 30 * MIB}, {"name": "decode", "kv_cache": 55 * MIB}],
    "static": {"weights": 100 * MIB},
    "allocated_bytes": 190 * MIB,
}


def lines_of(message: dict[str, Any], estimate: dict[str, Any]) -> str:
    return "\n".join(line.plain for line in numbers_lines(message, data.MODEL, estimate, 60))


def test_each_measure_stands_beside_its_estimate() -> None:
    text = lines_of(MESSAGE, ESTIMATE)
    rows = {line[:13].strip(): line.split() for line in text.splitlines()}
    assert rows["weights"][-2:] == ["+0.0", "%"]
    assert rows["KV cache now"][-2:] == ["+10.0", "%"]
    assert rows["peak"][-2:] == ["-5.0", "%"]
    assert "440 tok/s   220 tokens in 0.50 s" in text
    assert "1,200 tokens   20 kept of the answer   1,000 of 1,220 still in the KV cache" in text
    line = figures_line(MESSAGE["figures"])
    assert line.startswith("1,200 in · 20 kept (1,000 reused) · 80 out")
    assert "1,300 of 8,192 tokens   6,892 left" in text
    assert "at the limit of new tokens" in text


def test_a_measured_way_of_decoding_is_told() -> None:
    told = "4.0 ms as a CUDA graph, 10.0 ms a token pass by pass"
    model = dataclasses.replace(data.MODEL, name="m", decoding=told)
    message = MESSAGE | {"figures": MESSAGE["figures"] | {"method": "graph"}}
    lines = [line.plain for line in numbers_lines(message, model, ESTIMATE, 80)]
    assert any(line.startswith("decode") and "CUDA graph" in line for line in lines)
    assert any(line.startswith("measured") and told in line for line in lines)
    assert not any("CUDA" in line.plain for line in numbers_lines(MESSAGE, data.MODEL, ESTIMATE, 80))


def test_a_process_is_not_compared_with_a_gpu() -> None:
    figures = MESSAGE["figures"] | {"memory": MESSAGE["figures"]["memory"] | {"peak_of": "process"}}
    text = lines_of(MESSAGE | {"figures": figures}, ESTIMATE)
    assert next(line for line in text.splitlines() if line.startswith("peak ")).split()[-1] == "–"
    assert "the whole process's highest" in " ".join(text.split())


def test_the_plan_is_of_these_very_settings_and_lengths() -> None:
    plan = plan_of(MESSAGE, None)
    assert (plan["quant"], plan["dtype"], plan["sequence_length"], plan["new_tokens"]) == ("nf4", "bfloat16", 1200, 100)
    memory = MESSAGE["figures"]["memory"]
    for held, lengths in ((1299, (1200, 100)), (1300, (1200, 101)), (900, (900, 0))):
        counted = {"figures": MESSAGE["figures"] | {"memory": memory | {"kv_cache_tokens": held}}}
        plan = plan_of(MESSAGE | counted, None)
        assert (plan["sequence_length"], plan["new_tokens"]) == lengths
    assert plan_of({"settings": {}, "figures": {}}, None) == {}


async def test_numbers_are_a_key_away_and_beside_the_conversation_where_there_is_room(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot, "Hello")
        await pilot.press("alt+n")
        await wait_until(pilot, lambda: "KV cache now" in screen_text(app) and "17.0 MiB" in screen_text(app))
        request = loaded_session.asked(protocol.EstimateMemory)[-1]
        assert (request.model, request.plan["sequence_length"], request.plan["new_tokens"]) == (data.MODEL.name, 38, 8)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "KV cache now" not in screen_text(app))
    wide = make_app(loaded_session, bench="chat")
    async with wide.run_test(size=(200, 60)) as pilot:
        await begun(pilot, "Hello")
        await wait_until(pilot, lambda: "KV cache now" in screen_text(wide))
        assert "The capital of France is Paris." in screen_text(wide)


def test_what_a_server_does_not_tell_is_unknown_and_no_zero() -> None:
    server = "http://localhost:8000/v1"
    figures = {
        "prompt_tokens": None, "reused_tokens": None, "new_tokens": 7, "tokens_told": False, "decode_seconds": 1.0,
        "tokens_per_second": 6.0, "stopped_by": "end-token", "seed": None, "greedy": False,
        "memory": {"weights_bytes": None, "kv_cache_bytes": None, "peak_bytes": None, "peak_of": "server"},
    }  # fmt: skip
    message = {"settings": {"model": f"org/tiny at {server}", "server": server}, "figures": figures}
    rows = {line[:13].strip(): line[13:].strip() for line in lines_of(message, ESTIMATE).splitlines()}
    assert {rows[name] for name in ("prompt", "used", "weights", "KV cache", "peak")} == {"unknown"}
    assert "seed" not in rows
    assert lines_of(message, ESTIMATE).startswith("ANSWER  org/tiny\n")
    assert figures_line(figures) == "7 pieces out · 6.0 tok/s"
