"""Choosing a server's model, on a scripted session."""

from __future__ import annotations

from typing import Any

from textual.widgets import Input

from tests.stubs.scripted_session import ScriptedSession
from tests.ui.conftest import MakeApp, screen_text, wait_until
from workbench.session import protocol
from workbench.ui.screens.server_picker import PickedServer, ServerPicker

LOCAL: dict[str, Any] = {
    "url": "http://localhost:8000/v1",
    "kind": "vllm",
    "title": "vLLM",
    "models": ["Qwen/Qwen3-8B", "[/bold] odd"],
    "context_lengths": {"Qwen/Qwen3-8B": 40960},
    "can": ["chat", "top_k"],
    "cannot": ["KV cache: the server keeps its own."],
    "note": "",
}
LOCKED = {**LOCAL, "url": "http://localhost:1234/v1", "title": "LM Studio", "models": [], "note": "It asks for a key."}
FAR = {**LOCAL, "url": "https://far.example/v1", "title": "SGLang", "models": ["big"], "context_lengths": {}}


def answer(request: protocol.FindServers) -> list[protocol.Message]:
    if not request.url:
        return [protocol.ServersFound([LOCAL, LOCKED])]
    if not request.api_key:
        return [protocol.Failed("server-unauthorized", f"{request.url} asks for a key.", "Give its key.")]
    return [protocol.ServersFound([{**FAR, "url": request.url}])]


async def test_choosing_servers(session: ScriptedSession, make_app: MakeApp) -> None:
    session.script(protocol.FindServers, answer)
    app = make_app(session)
    picked: list[PickedServer | None] = []
    async with app.run_test(size=(100, 30)) as pilot:
        await wait_until(pilot, lambda: app.link.client is not None)

        async def opened(current: protocol.RemoteModel | None = None) -> ServerPicker:
            picker = ServerPicker(app.link, current)
            app.push_screen(picker, picked.append)
            await wait_until(pilot, lambda: "Qwen" in screen_text(app), "the list")
            return picker

        await opened()
        text = screen_text(app)
        for words in ("vLLM  http://localhost:8000/v1", "40,960 tokens", "[/bold] odd", "KV cache: the server keeps"):
            assert words in text
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: picked)
        assert picked.pop() == PickedServer(
            protocol.RemoteModel(LOCAL["url"], "[/bold] odd"), "vLLM", ("chat", "top_k"), tuple(LOCAL["cannot"])
        )

        # An address that asks for a key: the key goes there and nowhere else, and is never on screen.
        picker = await opened()
        await pilot.press(*"far.example:9", "enter")
        await wait_until(pilot, lambda: "asks for a key" in screen_text(app))
        assert picker.focused is picker.query_one("#server-key", Input)
        await pilot.press(*"sk-secret", "enter")
        await wait_until(pilot, lambda: "big" in screen_text(app))
        assert "sk-secret" not in screen_text(app)
        await pilot.press("enter")
        await wait_until(pilot, lambda: picked)
        chosen = picked.pop()
        assert chosen is not None
        assert chosen.remote == protocol.RemoteModel("far.example:9", "big", "sk-secret")
        assert [(ask.url, ask.api_key) for ask in session.asked(protocol.FindServers)][1:] == [
            ("", ""),
            ("far.example:9", ""),
            ("far.example:9", "sk-secret"),
        ]

        # The key that is known of the server in use is not sent to another one.
        await opened(chosen.remote)
        await pilot.press("enter")
        await wait_until(pilot, lambda: picked)
        other = picked.pop()
        assert other is not None
        assert (other.remote.model, other.remote.api_key) == ("Qwen/Qwen3-8B", "")
        await opened()
        await pilot.press("escape")
        await wait_until(pilot, lambda: picked)
        assert picked == [None]
