"""The sampling screen: values, refusals, presets, and the chart that follows them."""

from __future__ import annotations

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from tests.ui.test_chat_conversation import asked, begun, say
from workbench.session import protocol
from workbench.ui.screens.chat_sampling import SamplingScreen
from workbench.ui.screens.chat_sampling_chart import chart
from workbench.ui.widgets.row_list import RowList
from workbench.ui.widgets.sampling_list import SamplingList, stop_texts


async def test_knobs_are_stepped_typed_refused_and_shown_at_work(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(120, 36)) as pilot:
        await begun(pilot)
        await pilot.press(*"Capital of France?", "alt+s")
        await wait_until(pilot, lambda: "the first token of the answer to come" in screen_text(app))
        text = screen_text(app)
        assert all(label in text for label in ("min-p", "no-repeat n-gram", "stop texts", "prompt lookup", "seed"))
        assert "model's own" in text
        assert loaded_session.asked(protocol.ReadDistribution)[-1].prompt == "Capital of France?"
        # 0.2 of the model's own, one step up.
        await pilot.press("right")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.ReadDistribution)[-1].sampling)
        assert loaded_session.asked(protocol.ReadDistribution)[-1].sampling == {"temperature": 0.3}
        await wait_until(pilot, lambda: "model's 0.2" in screen_text(app))
        await pilot.press("enter", *"0.5", "enter")
        await wait_until(pilot, lambda: "Lyon" in screen_text(app) and "55.0 %" in screen_text(app))
        await wait_until(pilot, lambda: "77.6 %" in screen_text(app))
        count = len(loaded_session.asked(protocol.ReadDistribution))
        await pilot.press("down", "enter", *"1.5", "enter")
        await wait_until(pilot, lambda: "✖ top-p is 1.5." in screen_text(app))
        await pilot.press("enter", *"warm", "enter")
        await wait_until(pilot, lambda: "✖ a number" in screen_text(app))
        assert len(loaded_session.asked(protocol.ReadDistribution)) == count
        await pilot.press("down", "enter", "2", "enter")
        await wait_until(pilot, lambda: "–" in screen_text(app))
        app.screen.query_one(SamplingList).move_to("stop")
        await pilot.press("enter", *"END", "enter")
        await wait_until(pilot, lambda: '"END"' in screen_text(app))
        await pilot.press("p", "tab", *"sharp", "enter")
        await wait_until(pilot, lambda: "Kept as “sharp”." in screen_text(app))
        await pilot.press("r", *"keen", "enter")
        await wait_until(pilot, lambda: "“sharp” is “keen” now." in screen_text(app))
        assert [row.key for row in app.screen.query_one(RowList).rows] == ["keen"]
        assert "temp 0.5 · top-k 2 · 1 stop" in screen_text(app)
        await pilot.press("escape", "D")
        await wait_until(pilot, lambda: "model's 0.2" not in screen_text(app))
        await pilot.press("p")
        await wait_until(pilot, lambda: "keen" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "model's 0.2" in screen_text(app))
        await wait_until(pilot, lambda: isinstance(app.screen, SamplingScreen) and not app.screen.asking)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "temp 0.5 · top-k 2 · 1 stop" in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: loaded_session.asked(protocol.Generate))
        assert asked(loaded_session).sampling == {"temperature": 0.5, "top_k": 2, "stop": ["END"]}


async def test_without_a_draft_the_last_answer_is_looked_at(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot)
        await pilot.press("alt+s")
        await wait_until(pilot, lambda: "Write a message first" in screen_text(app))
        await pilot.press("escape")
        await say(pilot, "Hello")
        await pilot.press("alt+s")
        await wait_until(pilot, lambda: "token 1 of the last answer" in screen_text(app))
        await pilot.press("full_stop")
        await wait_until(pilot, lambda: "token 2 of the last answer" in screen_text(app))
        last = loaded_session.asked(protocol.ReadDistribution)[-1]
        assert (last.conversation_id, last.answer, last.position, last.prompt) == ("1", "2", 1, "")


def test_the_chart_has_the_model_first_and_the_end_last_however_narrow() -> None:
    stages = [{"name": f"filter {i}", "setting": i, "kept": 9 - i, "entropy_bits": 1.0} for i in range(6)]
    tokens = [{"id": 1, "text": "[/x]\n", "probabilities": [0.5, 0.4, 0.3, 0.2, 0.1, 0.0]}]
    result = {"stages": stages, "tokens": tokens, "greedy": False, "vocab_size": 9}
    lines = [line.plain for line in chart(result, 60, 8)]
    assert "filter 0" in lines[0]
    assert "filter 5" in lines[0]
    assert "filter 1" not in lines[0]
    assert lines[-1].startswith("[/x]↵")
    assert "50.0 %" in lines[-1]
    assert "–" in lines[-1]
    assert all(len(line) <= 60 for line in lines)


def test_taking_the_best_is_a_stage_of_its_own() -> None:
    stages = [{"name": "model", "setting": None, "kept": 9, "entropy_bits": 1.0}]
    tokens = [{"id": i, "text": text, "probabilities": [p]} for i, (text, p) in enumerate((("a", 0.4), ("b", 0.6)))]
    lines = [line.plain for line in chart({"stages": stages, "tokens": tokens, "greedy": True}, 70, 9)]
    assert "greedy" in lines[0]
    assert ("–" in lines[-2], "100.0 %" in lines[-1]) == (True, True)


def test_stop_texts_are_typed_plainly_or_as_a_list() -> None:
    assert stop_texts("User:") == ["User:"]
    assert stop_texts('"\\n\\n"') == ["\n\n"]
    assert stop_texts('["a", "b"]') == ["a", "b"]
