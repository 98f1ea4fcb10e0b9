"""Answers, their branches and what is inside them, from a real worker with real weights."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Opener
from workbench.errors import WorkbenchError
from workbench.session import protocol
from workbench.session.client import Call, SessionClient

pytestmark = pytest.mark.model

GREEDY = {"greedy": True, "max_new_tokens": 12}


async def say(client: SessionClient, prompt: str = "", **options: Any) -> protocol.Generated:
    options = {"sampling": GREEDY, "alternatives": 4, **options}
    return await client.ask(protocol.Generate(prompt, **options), protocol.Generated)


async def comes(call: Call, kind: type[protocol.Event]) -> None:
    """Wait for an event of a request."""
    async for event in call.events():
        if isinstance(event, kind):
            return
    raise AssertionError(f"the request ended without {kind.__name__}")


async def shown(client: SessionClient, conversation: str) -> list[dict[str, Any]]:
    reply = await client.ask(protocol.OpenConversation(conversation), protocol.ConversationRead)
    return reply.conversation["messages"]


async def test_what_is_done_with_answers(session_opener: Opener, smollm2_dir: Path) -> None:
    """One worker and one load for all of it: they take longer than the rest together."""
    client = await session_opener()
    await client.ask(protocol.LoadModel(str(smollm2_dir), dtype="float32", device="cpu"), protocol.ModelLoaded)
    await branches_continuations_and_forks(client)
    await looking_inside(client)
    await an_unfinished_character(client)


async def branches_continuations_and_forks(client: SessionClient) -> None:
    first = await say(client, "Name three colours.", system="You are brief.")
    conversation, answer = first.conversation_id, first.result["message_id"]

    # Continued, the answer is what it would have been in one go, and stays one message.
    longer = await say(client, conversation_id=conversation, again=answer, extend=True)
    assert longer.result["message_id"] == answer
    assert longer.result["given_tokens"] == 12
    whole = await say(client, "Name three colours.", system="You are brief.", sampling={**GREEDY, "max_new_tokens": 24})
    assert longer.result["ids"] == whole.result["ids"]
    messages = await shown(client, conversation)
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    assert messages[-1]["text"] == whole.result["text"] == longer.result["text"]

    # Every token was recorded, with what else could have stood there.
    read = await client.ask(protocol.ReadAnswer(conversation, answer), protocol.AnswerRead)
    assert read.source == "recorded"
    assert [token["id"] for token in read.tokens] == longer.result["ids"]
    assert all(token["alternatives"][0]["id"] == token["id"] for token in read.tokens)
    assert all(token["logprob"] <= 0 and token["entropy_bits"] >= 0 for token in read.tokens)
    assert "".join(token["text"] for token in read.tokens) == longer.result["text"]

    # A fork keeps the tokens before it and takes the other one.
    other = read.tokens[3]["alternatives"][1]["id"]
    forked = await say(client, conversation_id=conversation, again=answer, keep_tokens=3, then_token=other)
    assert forked.result["ids"][:4] == [*longer.result["ids"][:3], other]
    messages = await shown(client, conversation)
    assert messages[-1]["siblings"] == [answer, forked.result["message_id"]]
    back = await client.ask(protocol.ShowMessage(conversation, answer), protocol.ConversationRead)
    assert back.conversation["messages"][-1]["id"] == answer

    # An earlier message in other words begins a branch at its place; the first one too.
    question = messages[1]
    edited = await say(client, "Name two animals.", conversation_id=conversation, after=question["parent"])
    assert edited.result["reused_tokens"] > 0
    messages = await shown(client, conversation)
    assert [message["text"] for message in messages[:2]] == ["You are brief.", "Name two animals."]
    assert len(messages[1]["siblings"]) == 2

    found = await client.ask(protocol.SearchConversations("three COLOURS"), protocol.ConversationsFound)
    assert {item["conversation"] for item in found.found} == {conversation, whole.conversation_id}
    exported = await client.ask(
        protocol.ExportConversations([conversation], form="jsonl"), protocol.ConversationsExported
    )
    rows = [json.loads(line) for line in exported.text.splitlines()]
    assert [message["content"] for message in rows[0]["messages"]] == [message["text"] for message in messages]


async def looking_inside(client: SessionClient) -> None:
    reply = await say(client, "What is the capital of France?")
    conversation, answer = reply.conversation_id, reply.result["message_id"]

    prompt = await client.ask(protocol.ReadPrompt(conversation_id=conversation, answer=answer), protocol.PromptRead)
    assert prompt.tokens == reply.result["prompt_tokens"] == len(prompt.pieces)
    assert prompt.text.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    assert prompt.pieces[0] == {"id": 1, "text": "<|im_start|>", "special": True}
    assert prompt.context_length == 8192
    draft = protocol.ReadPrompt("And of Spain?", conversation_id=conversation)
    assert reply.result["text"] in (await client.ask(draft, protocol.PromptRead)).text

    # What the answer's tokens were chosen from is what scoring it again finds.
    recorded = (await client.ask(protocol.ReadAnswer(conversation, answer), protocol.AnswerRead)).tokens
    unrecorded = await say(client, "What is the capital of France?", alternatives=0)
    request = protocol.ReadAnswer(
        unrecorded.conversation_id, unrecorded.result["message_id"], score=True, alternatives=4
    )
    scored = await client.ask(request, protocol.AnswerRead)
    assert scored.source == "scored"
    for ours, theirs in zip(scored.tokens, recorded, strict=False):
        assert ours["id"] == theirs["id"]
        assert ours["logprob"] == pytest.approx(theirs["logprob"], abs=1e-3)
        assert ours["entropy_bits"] == pytest.approx(theirs["entropy_bits"], abs=1e-2)

    # The distribution at a place, filter by filter.
    look = protocol.ReadDistribution(
        {"temperature": 0.5, "top_k": 5, "top_p": 0.9}, conversation_id=conversation, answer=answer, position=2
    )
    result = (await client.ask(look, protocol.DistributionRead)).result
    assert [stage["name"] for stage in result["stages"]] == ["model", "temperature", "top-k", "top-p"]
    assert result["stages"][2]["kept"] == 5
    assert 1 <= result["stages"][3]["kept"] <= 5
    best = result["tokens"][0]
    assert best["id"] == recorded[2]["id"]
    assert math.log(best["probabilities"][0]) == pytest.approx(recorded[2]["logprob"], abs=1e-3)
    assert best["probabilities"][1] > best["probabilities"][0]
    options = {
        item["name"]: item for item in (await client.ask(protocol.ReadSampling(), protocol.SamplingRead)).options
    }
    assert options["temperature"]["low"] == 0
    with pytest.raises(WorkbenchError, match="is none of them"):
        await client.ask(
            protocol.ReadDistribution({}, conversation_id=conversation, answer=answer, position=99),
            protocol.DistributionRead,
        )


async def an_unfinished_character(client: SessionClient) -> None:
    """An answer cut within a character ends before it, in the store too, and goes on with the whole of it."""
    pieces = (await client.ask(protocol.ReadPrompt("🙂"), protocol.PromptRead)).pieces
    begins = next(piece["id"] for piece in pieces if piece["text"] == "<0xF0><0x9F>")
    one = {**GREEDY, "max_new_tokens": 1}
    first = await say(client, "An emoji, please.", sampling=one)
    conversation, answer = first.conversation_id, first.result["message_id"]
    cut = await say(client, conversation_id=conversation, again=answer, keep_tokens=0, then_token=begins, sampling=one)
    assert (cut.result["text"], (await shown(client, conversation))[-1]["text"]) == ("", "")
    read = await client.ask(protocol.ReadAnswer(conversation, cut.result["message_id"]), protocol.AnswerRead)
    assert [token["text"] for token in read.tokens] == ["", ""]
    assert all(token["alone"].startswith("<0x") for token in read.tokens)
    whole = await say(client, conversation_id=conversation, again=cut.result["message_id"], extend=True, sampling=one)
    assert whole.result["ids"][:2] == cut.result["ids"]
    assert whole.result["text"] == (await shown(client, conversation))[-1]["text"] != ""
    assert "\ufffd" not in whole.result["text"]


async def a_conversation_longer_than_the_context_loses_its_oldest_messages(client: SessionClient) -> None:
    await client.ask(protocol.LoadModel("tiny-llama", dtype="float32", device="cpu"), protocol.ModelLoaded)
    conversation = ""
    for _turn in range(12):
        reply = await say(client, "word " * 60, conversation_id=conversation, overflow="drop-oldest")
        conversation = reply.conversation_id
    assert "oldest messages were left out" in reply.result["note"]
    assert len(await shown(client, conversation)) == 24
    with pytest.raises(WorkbenchError, match="context"):
        await say(client, "word " * 60, conversation_id=conversation)


async def a_load_without_room(client: SessionClient, smollm2_dir: Path) -> None:
    """The worker may hold no more than now: what it missed is said, and what VRAM suggests."""
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        return
    pid = (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status.pid
    held = 1024 * int(Path(f"/proc/{pid}/status").read_text().split("VmSize:")[1].split()[0])
    hard = resource.prlimit(pid, resource.RLIMIT_AS)[1]
    resource.prlimit(pid, resource.RLIMIT_AS, (held, hard))
    with pytest.raises(WorkbenchError) as raised:
        await client.ask(protocol.LoadModel(str(smollm2_dir), dtype="float32", device="cpu"), protocol.ModelLoaded)
    resource.prlimit(pid, resource.RLIMIT_AS, (hard, hard))
    assert raised.value.kind == "out-of-memory"
    assert re.search(r"[KMG]iB more were needed; this process may use .* of address space", raised.value.message)
    assert re.match(r"VRAM estimates \S+ GiB for this with 4,096 tokens; int8 would take", raised.value.remedy)


async def test_what_ends_with_its_client_and_what_comes_back(session_opener: Opener, smollm2_dir: Path) -> None:
    client, other = await session_opener(), await session_opener()
    load = protocol.LoadModel(str(smollm2_dir), device="cpu")
    await client.ask(load, protocol.ModelLoaded)
    endless = protocol.Generate("Tell me.", raw=True, sampling={"max_new_tokens": 8000, "greedy": True}, save=False)
    answer = other.start(endless)
    await comes(answer, protocol.TokensGenerated)
    # A value that cannot be is refused at once, whatever the model is doing.
    with pytest.raises(WorkbenchError, match="temperature is -1"):
        await say(client, "Hello", sampling={"temperature": -1}, load=protocol.LoadModel("tiny-llama"))
    # Nobody reads on what was not to be kept: the model is free as soon as its client has gone.
    await other.close()
    assert (await say(client, "Hello", sampling={**GREEDY, "max_new_tokens": 2})).result["new_tokens"] == 2

    # A comparison that is stopped, or that fails, gives the model back.
    variants = ["fp32", "bf16", "fp16"]
    comparing = client.start(protocol.CompareVariants("tiny-gpt2", variants, "word " * 40, device="cpu"))
    await comes(comparing, protocol.VariantMeasured)
    comparing.cancel()
    reply = await client.ask(protocol.MeasureLoaded(), protocol.MemoryMeasured)
    assert reply.model == load.model
    compare = protocol.CompareVariants("tiny-bert", ["fp32", "bf16"], device="cpu")
    with pytest.raises(WorkbenchError, match="encoder-only"):
        await client.ask(compare, protocol.VariantsCompared)
    assert (await client.ask(protocol.MeasureLoaded(), protocol.MemoryMeasured)).model == load.model
    await a_load_without_room(client, smollm2_dir)
    await a_conversation_longer_than_the_context_loses_its_oldest_messages(client)
