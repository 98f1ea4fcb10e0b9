"""The screens that the tokens bench opens."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import TextArea

from tests.stubs import scripted_data as data
from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.settings import Settings, TokenSettings
from workbench.ui.benches.tokens import word_around
from workbench.ui.screens.token_tax import START, tax_content
from workbench.ui.screens.token_template import messages_of
from workbench.ui.screens.token_vocabulary import parsed
from workbench.ui.widgets.pieces import PieceView

MODEL = "smollm2-135m-instruct"
TWO = Settings(tokens=TokenSettings(models=("other-model",)))


async def typed(app: Any, pilot: Pilot[int], text: str) -> None:
    await wait_until(pilot, lambda: isinstance(app.focused, TextArea) and app.session.attached)
    app.query_one(TextArea).text = text
    await wait_until(pilot, lambda: app.query_one(PieceView).pieces)
    await pilot.press("escape")


async def test_enter_on_a_token_explains_its_word(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(app, pilot, "see the cat")
        await pilot.press("p", "right", "enter")
        await wait_until(pilot, lambda: "rank 9" in screen_text(app))
        assert session.asked(protocol.ExplainSplit)[0].text == " the"
        assert "th + e" in screen_text(app)
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(app.focused, PieceView))


async def test_the_vocabulary_is_searched_as_one_types(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(app, pilot, "the")
        await pilot.press("slash")
        await wait_until(pilot, lambda: "Vocabulary of" in screen_text(app))
        await pilot.press(*"/th")
        await wait_until(pilot, lambda: session.asked(protocol.SearchVocabulary)[-1].kind == "regex")
        await wait_until(pilot, lambda: "·the" in screen_text(app) and "4 B" in screen_text(app))
        await pilot.press("ctrl+n", "ctrl+n")
        await wait_until(pilot, lambda: "CYRILLIC" in screen_text(app))
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: session.asked(protocol.SearchVocabulary)[-1].query == "CYRILLIC")


async def test_one_key_compares_languages(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL, settings=TWO)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(app, pilot, "the")
        await pilot.press("l")
        await wait_until(pilot, lambda: "▓▓▓ 8.25×" in screen_text(app))
        assert session.asked(protocol.CompareLanguages)[0].models == [MODEL, "other-model"]


async def test_two_tokenizers_side_by_side(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL, settings=TWO)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(app, pilot, "one two three")
        await pilot.press("c")
        await wait_until(pilot, lambda: "75% of the text is split alike" in screen_text(app))
        await pilot.press("n")
        await wait_until(pilot, lambda: "characters 7–13" in screen_text(app))


async def test_what_is_left_out_is_said(session: ScriptedSession, make_app: MakeApp) -> None:
    token = {"id": 1, "spelling": "a", "text": "a", "bytes": 1, "special": False, "whole": True, "rank": 0.1}
    session.script(
        protocol.SearchVocabulary, lambda request: [protocol.VocabularySearched([token] * 500, 49152, more=True)]
    )
    app = make_app(session, bench="tokens", model=MODEL, settings=TWO)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(app, pilot, "one two " * 3000)
        await pilot.press("c")
        await wait_until(pilot, lambda: "first 20,000 of 24,000 characters" in screen_text(app))
        await pilot.press("escape", "slash")
        await wait_until(pilot, lambda: "Only the first 500 found of 49,152 tokens" in screen_text(app))


async def test_a_conversation_through_the_template(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(app, pilot, "the")
        await pilot.press("m")
        await wait_until(pilot, lambda: "17 from the template (55%)" in " ".join(screen_text(app).split()))
        assert session.asked(protocol.CheckPrompt)[0].messages[0]["role"] == "system"
        await pilot.press("ctrl+g")
        await wait_until(pilot, lambda: "does not open the assistant's turn" in screen_text(app))
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: "{% for message in messages %}" in screen_text(app))


async def test_many_findings_leave_room_for_the_rendering(session: ScriptedSession, make_app: MakeApp) -> None:
    findings = [
        {"id": str(i), "severity": "warning", "title": f"Warning {i}. " + "long words " * 9, "fix": "Do this " * 20}
        for i in range(4)
    ]

    def answer(request: protocol.CheckPrompt) -> list[protocol.Message]:
        (checked,) = data.SCRIPTS[protocol.CheckPrompt](request)
        return [dataclasses.replace(checked, report={**checked.report, "findings": findings})]

    session.script(protocol.CheckPrompt, answer)
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(app, pilot, "the")
        await pilot.press("m")
        await wait_until(pilot, lambda: "Warning 1." in screen_text(app))
        assert "and 2 more of these" in screen_text(app)
        assert app.screen.query_one(PieceView).size.height >= 5


async def test_the_tax_follows_its_fields(session: ScriptedSession, make_app: MakeApp) -> None:
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(80, 24)) as pilot:
        await typed(app, pilot, "the cat")
        await pilot.press("u")
        await wait_until(pilot, lambda: "$0.000140" in screen_text(app))
        await pilot.press("right")
        await wait_until(pilot, lambda: "$0.00015" in screen_text(app))
        await pilot.press("enter", *"0.15", "full_stop", "enter")
        await wait_until(pilot, lambda: "takes a number such as 0.15" in screen_text(app))
        await pilot.press("enter", *"0.075", "enter")
        await wait_until(pilot, lambda: "$0.075" in screen_text(app) and "$0.000133" in screen_text(app))
        await wait_until(pilot, lambda: app.screen._gpus)
        await pilot.press(*["down"] * 10, "right", "tab", "end")
        await wait_until(pilot, lambda: "$17,432 – $43,800" in screen_text(app))
        assert "$1.99 – $5 an hour, 2026-05:" in screen_text(app)


async def test_a_differing_autotokenizer_is_told(session: ScriptedSession, make_app: MakeApp) -> None:
    line = "AutoTokenizer of transformers 5 gives other ids than the file on 3 of 43 texts"
    session.script(
        protocol.CompareAutoTokenizer, lambda request: [protocol.AutoTokenizerCompared(True, line, {"differing": 3})]
    )
    app = make_app(session, bench="tokens", model=MODEL)
    async with app.run_test(size=(120, 36)) as pilot:
        await typed(app, pilot, "the cat")
        await wait_until(pilot, lambda: "AutoTokenizer" in screen_text(app))


def test_what_is_typed_into_the_search() -> None:
    assert parsed("262") == ("text", "262")
    assert parsed(" the") == ("text", " the")
    assert parsed("/^a") == ("regex", "^a")
    assert parsed("/") == ("text", "/")
    assert parsed(":script CJK") == ("script", "CJK")
    assert parsed(":longest") == ("longest", "")


def test_conversations_are_read_by_their_roles() -> None:
    assert messages_of("Hi\nuser: a\nb\nassistant:c\n") == [
        {"role": "user", "content": "Hi"},
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "c"},
    ]
    assert messages_of("") == []


@pytest.mark.parametrize(("start", "end", "word"), [(5, 7, " three"), (0, 3, "one"), (3, 9, " three"), (9, 10, "\n")])
def test_the_word_around_a_token(start: int, end: int, word: str) -> None:
    assert word_around("one three\n", start, end) == word


def test_the_tax_shows_vocabulary_against_length() -> None:
    counts = [{"model": "m", "tokens": 2, "vocab_size": 49152}]
    shown = tax_content(START, "aa bb", counts).plain
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[-4:]}
    assert rows == {
        "bytes": ["256", "5", "15"],
        "characters": ["3", "5", "15"],
        "words": ["2", "2", "3"],
        "m": ["49.2", "k", "2", "3"],
    }
