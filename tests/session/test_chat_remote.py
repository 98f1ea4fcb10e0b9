"""Answers of servers through a real session: kept, followed, stopped, looked into; one of them a real server."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.conftest import Opener
from tests.stubs.openai_server import DONE, END, Answer, Call, FakeServer, chunk, page, serving
from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.session.client import SessionClient

KEY = "sk-do-not-tell-anyone-0123456789"


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


def request(fake: FakeServer, prompt: str = "", **options: Any) -> protocol.Generate:
    return protocol.Generate(prompt, remote=protocol.RemoteModel(fake.url, api_key=KEY), **options)


async def say(client: SessionClient, fake: FakeServer, prompt: str = "", **options: Any) -> protocol.Generated:
    return await client.ask(request(fake, prompt, **options), protocol.Generated)


async def shown(client: SessionClient, conversation: str) -> list[dict[str, Any]]:
    reply = await client.ask(protocol.OpenConversation(conversation), protocol.ConversationRead)
    return reply.conversation["messages"]


LOGPROBS = {"content": [{"token": "Red", "logprob": -0.5, "top_logprobs": [{"token": "Blue", "logprob": -1.0}]}]}


async def test_a_conversation_with_a_server(session_opener: Opener, fake: FakeServer, tmp_path: Path) -> None:
    client = await session_opener()
    found = await client.ask(protocol.FindServers(fake.url, KEY), protocol.ServersFound)
    assert [(server["kind"], server["models"]) for server in found.servers] == [("vllm", ["tiny"])]

    fake.says(chunk("Red", logprobs=LOGPROBS), END)
    first = await say(client, fake, "A colour?", system="Be brief.", alternatives=4)
    conversation, answer = first.conversation_id, first.result["message_id"]
    assert first.result["text"] == "Red"
    read = await client.ask(protocol.ReadAnswer(conversation, answer), protocol.AnswerRead)
    assert read.source == "recorded"
    assert [(token["text"], token["logprob"]) for token in read.tokens] == [("Red", -0.5)]
    assert read.tokens[0]["alternatives"][0]["text"] == "Blue"

    # The server is sent the whole conversation, and is asked for its models only once.
    fake.says(chunk("Green"), END)
    second = await say(client, fake, "Another?", conversation_id=conversation)
    assert [message["content"] for message in fake.asked()[-1].body["messages"]] == [
        "Be brief.",
        "A colour?",
        "Red",
        "Another?",
    ]
    assert len([call for call in fake.calls if call.path == "/v1/models"]) == 1
    unknown = await client.ask(protocol.ReadAnswer(conversation, second.result["message_id"]), protocol.AnswerRead)
    assert (unknown.source, unknown.tokens) == ("", [])

    # Given again beside it, and gone on with, which vLLM can.
    fake.says(chunk("Blue"), END)
    again = await say(client, fake, conversation_id=conversation, again=second.result["message_id"])
    fake.says(chunk(", of course"), END)
    longer = await say(client, fake, conversation_id=conversation, again=again.result["message_id"], extend=True)
    assert longer.result["text"] == "Blue, of course"
    assert fake.asked()[-1].body["continue_final_message"] is True
    messages = await shown(client, conversation)
    assert [message["text"] for message in messages] == ["Be brief.", "A colour?", "Red", "Another?", "Blue, of course"]
    assert len(messages[-1]["siblings"]) == 2
    assert messages[-1]["settings"]["server"] == fake.url
    with pytest.raises(WorkbenchError, match="token ids"):
        await say(client, fake, conversation_id=conversation, again=answer, keep_tokens=1, then_token=5)

    # The key is nowhere on disk.
    assert all(call.headers["Authorization"] == f"Bearer {KEY}" for call in fake.calls)
    written = [file for folder in (tmp_path, client_folder()) for file in folder.rglob("*") if file.is_file()]
    assert any(b"of course" in file.read_bytes() for file in written)
    assert not any(KEY.encode() in file.read_bytes() for file in written)


def client_folder() -> Path:
    return Path(os.environ["WORKBENCH_RUNTIME_DIR"])


async def test_faults_and_stops_keep_what_came(session_opener: Opener, fake: FakeServer) -> None:
    client = await session_opener()
    fake.says(chunk("Half an ans"))
    with pytest.raises(WorkbenchError) as raised:
        await say(client, fake, "A question?")
    assert raised.value.kind == "server-cut"
    listed = await client.ask(protocol.ListConversations(), protocol.ConversationsListed)
    conversation = listed.conversations[0]["id"]
    messages = await shown(client, conversation)
    assert (messages[-1]["text"], messages[-1]["state"]) == ("Half an ans", "failed")

    # A stalled server: a second answer into the same conversation waits for nobody, other work goes on, a stop stops.
    fake.says(chunk("Once ") + chunk("upon "), stall=True)
    call = client.start(request(fake, "Go on.", conversation_id=conversation))
    seen = ""
    async for event in call.events():
        if isinstance(event, protocol.TokensGenerated):
            seen += event.text
            if seen == "Once upon ":
                break
    assert (await shown(client, conversation))[-1]["text"] == "Once upon "
    for other in (request(fake, "Me too.", conversation_id=conversation), protocol.DeleteConversation(conversation)):
        with pytest.raises(WorkbenchError, match="being answered"):
            await client.ask(other, protocol.Reply)  # type: ignore[type-abstract]
    status = (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status
    assert status.conversation_id == conversation
    assert not next(lane for lane in status.lanes if lane.name == "model").job
    follower = await session_opener()
    following = follower.start(protocol.FollowConversation(conversation))
    async for event in following.events():
        assert isinstance(event, protocol.ConversationOpened)
        assert event.conversation["messages"][-1]["text"] == "Once upon "
        break
    assert (await follower.ask(protocol.StopAnswer(conversation), protocol.CancelNoted)).found
    stopped = await asyncio.wait_for(call.reply(), 10)  # the server itself lets go after thirty seconds
    assert isinstance(stopped, protocol.Generated)
    assert (stopped.result["text"], stopped.result["finish_reason"]) == ("Once upon ", "cancelled")
    assert isinstance(await following.reply(), protocol.Followed)
    assert (await shown(client, conversation))[-1]["state"] == "cancelled"


async def test_what_does_not_fit_is_left_out_if_so_wished(session_opener: Opener, fake: FakeServer) -> None:
    def small(call: Call) -> Answer:
        if len(call.body["messages"]) > 2:
            return page({"message": "This model's maximum context length is 64 tokens."}, 400)
        return Answer(chunk("fine") + DONE)

    client = await session_opener()
    fake.answer = small
    first = await say(client, fake, "One?")
    with pytest.raises(WorkbenchError) as raised:
        await say(client, fake, "Two?", conversation_id=first.conversation_id)
    assert raised.value.kind == "prompt-too-long"
    third = await say(client, fake, "Three?", conversation_id=first.conversation_id, overflow="drop-oldest")
    assert "oldest messages were left out" in third.result["note"]
    assert fake.asked()[-1].body["messages"] == [{"role": "user", "content": "Three?"}]


async def test_a_server_without_a_list_needs_a_name(session_opener: Opener, fake: FakeServer) -> None:
    client = await session_opener()
    del fake.pages["/v1/models"]
    with pytest.raises(WorkbenchError, match="HTTP 404"):
        await say(client, fake, "A question?")
    named = protocol.Generate("A question?", remote=protocol.RemoteModel(fake.url, "some/model"))
    assert (await client.ask(named, protocol.Generated)).result["text"] == "Hello"
    assert fake.asked()[-1].body["model"] == "some/model"


async def workbench(*arguments: str, stdin: bytes = b"", expect: int = 0) -> tuple[str, str]:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "workbench", "chat", *arguments, "--session", "test"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await child.communicate(stdin)
    assert child.returncode == expect, err.decode()
    return out.decode(), err.decode()


async def test_the_command(session_opener: Opener, fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    await session_opener()
    monkeypatch.setenv("MY_KEY", KEY)
    fake.says(chunk("Red"), END)
    given = ("--url", fake.url.removesuffix("/v1"), "--api-key-env", "MY_KEY")
    out, err = await workbench("tiny", *given, "--prompt", "-", "--prompt-lookup", "4", stdin=b"A colour?")
    assert out == "Red\n"
    assert "does not take prompt-lookup" in err
    out, _err = await workbench(*given, "--prompt", "A colour?", "--json")
    assert json.loads(out)["text"] == "Red"
    _out, err = await workbench("other", *given, "--prompt", "A colour?", expect=2)
    assert "has no 'other'. It has tiny" in err
    for wrong in (("--url", fake.url, "--quant", "nf4"), ("--api-key-env", "MY_KEY"), ("--url", "auto", *given[2:])):
        await workbench(*wrong, "--prompt", "x", expect=2)
    assert KEY not in out + err


async def test_progress_leaves_the_text_on_a_terminal_alone(session_opener: Opener, fake: FakeServer) -> None:
    await session_opener()
    fake.says(chunk("Half an answer"), stall=True)
    arguments = ["-m", "workbench", "chat", "--url", fake.url, "--prompt", "A question?", "--session", "test"]
    child = pexpect.spawn(sys.executable, arguments, dimensions=(24, 80), timeout=30)
    child.expect("Half an answer")
    # The server's silence is told twice a second.
    assert child.expect(["\x1b", pexpect.TIMEOUT], timeout=1.6) == 1
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


@pytest.fixture
def transformers_serve(smollm2_dir: Path, tmp_path: Path) -> Iterator[str]:
    """A real server with the real model, on a port of its own."""
    for name in ("fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"transformers serve needs {name}: pip install 'transformers[serving]'")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "import sys; from transformers.cli.transformers import main; sys.exit(main())"
    arguments = ["serve", str(smollm2_dir), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with (tmp_path / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-c", start, *arguments, "--dtype", "float32"], stdout=log, stderr=log, cwd=tmp_path
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server, tmp_path / "serve.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None:
        try:
            with opener.open(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(log.read_text()[-2000:])


@pytest.mark.model
async def test_a_real_server_answers_as_the_model_does_here(
    session_opener: Opener, smollm2_dir: Path, transformers_serve: str
) -> None:
    client = await session_opener()
    found = await client.ask(protocol.FindServers(transformers_serve), protocol.ServersFound)
    assert found.servers[0]["kind"] == "transformers"
    sampling = {"greedy": True, "max_new_tokens": 16}
    remote = protocol.RemoteModel(transformers_serve)
    question = protocol.Generate("What is the capital of France?", sampling=sampling, alternatives=4, remote=remote)
    theirs = await client.ask(question, protocol.Generated)
    raw = protocol.Generate("The capital of France is", sampling=sampling, raw=True, remote=remote, save=False)
    completed = await client.ask(raw, protocol.Generated)

    await client.ask(protocol.LoadModel(str(smollm2_dir), dtype="float32", device="cpu"), protocol.ModelLoaded)
    ours = await client.ask(protocol.Generate(question.prompt, sampling=sampling), protocol.Generated)
    assert "Paris" in ours.result["text"]
    for name in ("text", "prompt_tokens", "finish_reason", "new_tokens"):
        assert theirs.result[name] == ours.result[name]
    own_raw = await client.ask(protocol.Generate(raw.prompt, sampling=sampling, raw=True), protocol.Generated)
    assert completed.result["text"] == own_raw.result["text"]

    # No probabilities came; the model here can read the server's answer all the same.
    look = protocol.ReadAnswer(theirs.conversation_id, theirs.result["message_id"], score=True)
    scored = await client.ask(look, protocol.AnswerRead)
    assert scored.source == "scored"
    assert f"at {transformers_serve}/v1, read by {smollm2_dir}" in scored.note
