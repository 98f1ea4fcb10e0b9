"""A server's model answers in the chat bench, without any loaded one."""

from __future__ import annotations

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from tests.ui.test_chat_conversation import asked, begun, say
from tests.ui.test_server_picker import LOCAL
from workbench.session import protocol


async def test_a_server_answers_until_it_is_left(session: ScriptedSession, make_app: MakeApp) -> None:
    session.script(protocol.FindServers, lambda request: [protocol.ServersFound([LOCAL])])
    app = make_app(session, bench="chat")
    async with app.run_test(size=(120, 36)) as pilot:
        await begun(pilot)
        await wait_until(pilot, lambda: "alt+u" in screen_text(app))
        await pilot.press("alt+u")
        await wait_until(pilot, lambda: LOCAL["models"][0] in screen_text(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: f"at {LOCAL['url']} answers" in screen_text(app))
        await say(pilot, "Hello")
        request = asked(session)
        assert request.remote is not None
        assert (request.remote.url, request.remote.model) == (LOCAL["url"], LOCAL["models"][0])
        assert request.load is None
        # Its own request is stopped, not what the model lane does.
        session.hold(protocol.Generate, before=4)
        await pilot.press("a", "enter")
        await wait_until(pilot, lambda: len(session.asked(protocol.Generate)) == 2 and app.main.bench.answering)
        await pilot.press("escape")
        await wait_until(pilot, lambda: session.asked(protocol.Cancel))
        assert session.asked(protocol.Cancel)[-1].request_id
        await wait_until(pilot, lambda: not app.main.bench.answering)
        await pilot.press("alt+u")
        await wait_until(pilot, lambda: "let the loaded model answer again" in screen_text(app))
        await pilot.press("l")
        await wait_until(pilot, lambda: f"at {LOCAL['url']} answers" not in screen_text(app))
        await pilot.press("x", "enter")
        await wait_until(pilot, lambda: "No model is chosen." in screen_text(app))
        assert len(session.asked(protocol.Generate)) == 2
