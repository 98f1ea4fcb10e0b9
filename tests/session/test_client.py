from __future__ import annotations

import asyncio

import pytest

from workbench.errors import JobCancelled, WorkbenchError
from workbench.session import protocol
from workbench.session.client import SessionClient, SessionLost
from workbench.session.transport import MemoryTransport, memory_pair


@pytest.fixture
async def wire() -> tuple[SessionClient, MemoryTransport]:
    ours, theirs = memory_pair()
    return SessionClient(ours, sanitize=True), theirs


async def received(end: MemoryTransport) -> protocol.Frame:
    return protocol.decode(await asyncio.wait_for(end.read_line(), 5))


async def test_events_and_reply_reach_their_own_call(wire: tuple[SessionClient, MemoryTransport]) -> None:
    client, end = wire
    first = client.start(protocol.ListModels())
    second = client.start(protocol.ReadLog())
    ids = [(await received(end)).id for _ in range(2)]
    assert ids[0] != ids[1]
    end.write(protocol.encode(ids[1], protocol.LogRead("log", ("line",))))
    end.write(protocol.encode(ids[0], protocol.JobProgressed("scan", 1, 2)))
    end.write(protocol.encode(ids[0], protocol.ModelsListed([])))
    assert [event async for event in first.events()] == [protocol.JobProgressed("scan", 1, 2)]
    assert await first.reply() == protocol.ModelsListed([])
    assert await second.reply() == protocol.LogRead("log", ("line",))


async def test_unread_progress_is_replaced_but_tokens_never(wire: tuple[SessionClient, MemoryTransport]) -> None:
    client, end = wire
    call = client.start(protocol.Generate("hi"))
    message_id = (await received(end)).id
    for done in range(5):
        end.write(protocol.encode(message_id, protocol.JobProgressed("prefill", done, 5)))
    for text in ("a", "b"):
        end.write(protocol.encode(message_id, protocol.TokensGenerated(text, 1)))
    end.write(protocol.encode(message_id, protocol.Generated("", {})))
    await asyncio.sleep(0.05)
    seen = [event async for event in call.events()]
    assert seen == [
        protocol.JobProgressed("prefill", 4, 5),
        protocol.TokensGenerated("a", 1),
        protocol.TokensGenerated("b", 1),
    ]


async def test_failures_and_cancellations_are_raised(wire: tuple[SessionClient, MemoryTransport]) -> None:
    client, end = wire
    failing = client.start(protocol.ResolveModel("x"))
    end.write(protocol.encode((await received(end)).id, protocol.Failed("unknown-model", "No.", "Look.")))
    with pytest.raises(WorkbenchError, match=r"No\. Look\."):
        await failing.reply()
    stopped = client.start(protocol.ResolveModel("x"))
    end.write(protocol.encode((await received(end)).id, protocol.Cancelled()))
    with pytest.raises(JobCancelled):
        await stopped.reply()


async def test_cancelling_the_awaiting_task_cancels_the_request(wire: tuple[SessionClient, MemoryTransport]) -> None:
    client, end = wire
    asking = asyncio.ensure_future(client.ask(protocol.ListModels(), protocol.ModelsListed))
    asked = (await received(end)).id
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert (await received(end)).message == protocol.Cancel(request_id=asked)


async def test_a_lost_session_fails_every_call_now_and_later(wire: tuple[SessionClient, MemoryTransport]) -> None:
    client, end = wire
    call = client.start(protocol.ListModels())
    await received(end)
    end.close()
    with pytest.raises(SessionLost):
        await call.reply()
    with pytest.raises(SessionLost):
        await client.ask(protocol.ListModels(), protocol.ModelsListed)
    assert [event async for event in client.broadcasts()] == []


async def test_strings_are_made_safe_on_arrival(wire: tuple[SessionClient, MemoryTransport]) -> None:
    client, end = wire
    call = client.start(protocol.ListModels())
    hostile = {"name\x1b]0;x\x07": ["\x9b31m", {"\u202e": "[@click=app.quit]x[/]"}]}
    end.write(protocol.encode((await received(end)).id, protocol.ModelsListed([hostile])))
    reply = await call.reply()
    assert isinstance(reply, protocol.ModelsListed)
    text = repr(reply.models)
    assert not any(character in text for character in "\x1b\x07\x9b\u202e")
    assert "[@click=app.quit]x[/]" in text


async def test_garbage_from_the_worker_ends_the_connection_with_a_reason(
    wire: tuple[SessionClient, MemoryTransport],
) -> None:
    client, end = wire
    call = client.start(protocol.ListModels())
    end.write(b"\x00\x01garbage\n")
    with pytest.raises(SessionLost, match="no message"):
        await call.reply()
