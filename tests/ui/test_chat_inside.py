"""Looking inside an answer, and forking it there."""

from __future__ import annotations

from tests.stubs import scripted_chat
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from tests.ui.test_chat_conversation import answered, app_store, asked, begun
from workbench.session import protocol
from workbench.ui.screens.chat_inside_rows import alternative_rows, answer_line, entropy_line
from workbench.ui.widgets.heat import Heat
from workbench.ui.widgets.probability_view import ProbabilityView, probability_style
from workbench.ui.widgets.transcript import Transcript


async def test_tokens_alternatives_prompt_and_a_fork(loaded_session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(100, 30)) as pilot:
        await begun(pilot, "Capital of France?")
        await pilot.press("escape", "i")
        await wait_until(pilot, lambda: "token 1 of 9" in screen_text(app))
        assert "9 tokens, 2 below 50 %" in screen_text(app)
        assert "most 4.9 bits" in screen_text(app)
        await pilot.press("u")
        await wait_until(pilot, lambda: "token 6 of 9" in screen_text(app))
        text = screen_text(app)
        assert "7.0 %" in text
        assert "entropy 4.90 bits" in text
        assert "·Lyon" in text
        await pilot.press("n")
        await wait_until(pilot, lambda: "·**⁷Paris⁶²" in screen_text(app))
        await pilot.press("p")
        await wait_until(pilot, lambda: "<|im_start|>" in screen_text(app) and "special" in screen_text(app))
        assert loaded_session.asked(protocol.ReadPrompt)[-1].answer == "2"
        await pilot.press("t", "enter", "up", "enter")
        await answered(pilot)
        tokens = scripted_chat.tokens()
        paris = next(other["id"] for other in tokens[5]["alternatives"] if other["text"] == " Paris")
        request = asked(loaded_session)
        assert (request.again, request.keep_tokens, request.then_token) == ("2", 5, paris)
        assert app.query_one(Transcript).turns[-1].branch == (2, 2)


def test_the_rank_of_a_token_below_the_recorded_ones_is_not_claimed() -> None:
    token = dict(scripted_chat.tokens()[5])
    others = [other for other in token["alternatives"] if other["id"] != token["id"]]
    *ranked, chosen = [row.content(60).plain.split() for row in alternative_rows({**token, "alternatives": others})]
    assert [words[0] for words in ranked] == [str(number) for number in range(1, len(others) + 1)]
    assert chosen[:2] == ["▸", "…"]


async def test_an_answer_that_was_not_recorded_is_scored_on_request(
    loaded_session: ScriptedSession, make_app: MakeApp
) -> None:
    app = make_app(loaded_session, bench="chat")
    async with app.run_test(size=(80, 24)) as pilot:
        await begun(pilot, "Capital of France?")
        app_store(loaded_session).save_tokens(2, [])
        await pilot.press("alt+i")
        await wait_until(pilot, lambda: "not recorded" in screen_text(app))
        assert "s runs the answer" in screen_text(app)
        assert not loaded_session.asked(protocol.ReadAnswer)[-1].score
        await pilot.press("s")
        await wait_until(pilot, lambda: "token 1 of 9" in screen_text(app))
        assert loaded_session.asked(protocol.ReadAnswer)[-1].score
        assert app.screen.query_one(ProbabilityView).token is not None


def test_unlikely_tokens_stand_out_without_any_colour() -> None:
    none = Heat((), ())
    assert [probability_style(known, none) for known in (0.9, 0.4, 0.05)] == ["", "underline", "bold underline"]
    assert probability_style(None, none) == "$muted"


def test_entropy_is_drawn_to_the_width_with_its_highest_place_seen() -> None:
    tokens = [{"entropy_bits": 0.1} for _ in range(300)]
    tokens[150] = {"entropy_bits": 5.0}
    line = entropy_line(tokens, 0, 80)
    assert line.cell_length <= 80
    assert line.plain.count("█") == 1
    assert line.plain.endswith("most 5.0 bits")


def test_perplexity_is_that_of_the_mean_log_probability() -> None:
    tokens = [{"logprob": -0.6931471805599453, "entropy_bits": 1.0} for _ in range(4)]
    assert "perplexity 2.00" in answer_line(tokens)
    assert "mean entropy 1.00 bits" in answer_line(tokens)
