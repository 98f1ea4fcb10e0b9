"""Faults while a model loads, answers, is traced or simulated: one worker for as many rows as it survives."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.box import Box, alive, pid_of, processes_of, refused
from tests.faults.table import fault
from workbench.paths import data_dir
from workbench.session import protocol
from workbench.session.client import Call, SessionClient

pytestmark = pytest.mark.model

LLAMA = protocol.LoadModel("tiny-llama", dtype="float32", device="cpu")
GPT2 = protocol.LoadModel("tiny-gpt2", dtype="float32", device="cpu")
SAMPLING = {"greedy": True, "max_new_tokens": 12}

PATCH = """
import torch, time
from transformers import LlamaForCausalLM as Model
if not hasattr(Model, "whole"):
    Model.whole = Model.forward
calls = 0
def forward(self, *given, **named):
    global calls
    calls += 1
    {what}
    return Model.whole(self, *given, **named)
Model.forward = forward
"""
MEND = "from transformers import LlamaForCausalLM as Model\nModel.forward = Model.whole\n"


@contextlib.contextmanager
def patched(box: Box, pid: int, what: str) -> Iterator[None]:
    """Every forward pass of the model does something first."""
    box.inject(pid, PATCH.format(what=what))
    try:
        yield
    finally:
        if alive(pid):
            box.inject(pid, MEND)


async def loaded(box: Box) -> SessionClient:
    client = await box.open()
    await client.ask(LLAMA, protocol.ModelLoaded)
    return client


async def say(client: SessionClient, prompt: str = "Once upon a time", **options: Any) -> protocol.Generated:
    return await client.ask(protocol.Generate(prompt, **{"sampling": SAMPLING, **options}), protocol.Generated)


async def begun(client: SessionClient, tokens: int = 300) -> tuple[Call, str]:
    """An answer that has begun, and its conversation."""
    request = protocol.Generate("Once upon a time", sampling={"greedy": True, "max_new_tokens": tokens, "min_p": 0.0})
    call = client.start(request)
    async for event in call.events():
        if isinstance(event, protocol.TokensGenerated):
            return call, event.conversation_id
    raise AssertionError(await call.reply())


async def last_answer(client: SessionClient, conversation: str) -> dict[str, Any]:
    reply = await client.ask(protocol.OpenConversation(conversation), protocol.ConversationRead)
    return dict(reply.conversation["messages"][-1])


async def kept(client: SessionClient, conversation: str) -> dict[str, Any]:
    """The answer, when it has ended."""
    while True:
        answer = await last_answer(client, conversation)
        if answer["state"] != "partial":
            return answer
        await asyncio.sleep(0.05)


@fault(
    "out of memory while loading", "RLIMIT_AS of the worker, weights of 1 GB", "said with what helps; loads the next"
)
async def test_oom_loading(shared_box: Box, tmp_path: Path) -> None:
    client = await loaded(shared_box)
    big = tmp_path / "big"
    grow(data_dir("sample_models") / "tiny-llama", big, vocabulary=4_000_000)
    limits = resource.prlimit(pid_of(client), resource.RLIMIT_AS)
    memory = int(Path(f"/proc/{pid_of(client)}/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.prlimit(pid_of(client), resource.RLIMIT_AS, (memory + 600 * 2**20, limits[1]))
    try:
        request = protocol.LoadModel(str(big), dtype="float32", device="cpu")
        error = await refused(client.ask(request, protocol.ModelLoaded))
        assert error.kind == "out-of-memory"
    finally:
        resource.prlimit(pid_of(client), resource.RLIMIT_AS, limits)
    assert (await client.ask(LLAMA, protocol.ModelLoaded)).model.name == "tiny-llama"
    assert (await say(client)).result["text"]


def grow(source: Path, target: Path, vocabulary: int) -> None:
    """A copy of a model with a huge embedding, as a sparse file."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    config["vocab_size"] = vocabulary
    (target / "config.json").write_text(json.dumps(config))
    data = (source / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    embedding = header["model.embed_tokens.weight"]
    more = vocabulary * embedding["shape"][1] * 2 - (embedding["data_offsets"][1] - embedding["data_offsets"][0])
    embedding["shape"][0] = vocabulary
    end = embedding["data_offsets"][1]
    for name, tensor in header.items():
        if name != "__metadata__":
            start, stop = tensor["data_offsets"]
            tensor["data_offsets"] = [start + more * (start >= end), stop + more * (stop >= end)]
    text = json.dumps(header).encode()
    with (target / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + len(data) - 8 - length + more)


@fault(
    "out of memory in an answer", "a forward pass asks for 2^50 bytes", "said; what was written is kept; answers again"
)
async def test_oom_answering(shared_box: Box) -> None:
    client = await loaded(shared_box)
    with patched(shared_box, pid_of(client), "calls == 40 and torch.empty(2**50)"):
        call, conversation = await begun(client)
        error = await refused(call.reply())
    assert "memory" in error.message
    answer = await last_answer(client, conversation)
    assert answer["state"] == "failed"
    assert answer["text"]
    assert (await say(client, conversation_id=conversation)).result["text"]


@fault(
    "two clients want different models", "two answers with their own model at once", "each answered by its own model"
)
async def test_two_models(shared_box: Box) -> None:
    first, second = await loaded(shared_box), await shared_box.open()
    asked = [say(first, load=LLAMA), say(second, load=GPT2), say(first, load=LLAMA), say(second, load=GPT2)]
    results = [reply.result for reply in await asyncio.gather(*asked)]
    assert [result["model"] for result in results] == ["tiny-llama", "tiny-gpt2"] * 2
    assert [result["ids"] for result in results[:2]] == [result["ids"] for result in results[2:]]


@fault("client killed while it is answered", "SIGKILL of `workbench chat`", "the answer goes on and is kept")
async def test_killed_ui(shared_box: Box) -> None:
    client = await loaded(shared_box)
    with patched(shared_box, pid_of(client), "time.sleep(0.005)"):
        code = (
            "import asyncio, sys\n"
            "from workbench.session import protocol\n"
            "from workbench.session.launch import open_session, SessionOptions\n"
            "async def main():\n"
            "    client = await open_session(SessionOptions('shared'), client='test', watch=False)\n"
            "    call = client.start(protocol.Generate('Once', sampling={'greedy': True, 'max_new_tokens': 120}))\n"
            "    async for event in call.events():\n"
            "        if isinstance(event, protocol.TokensGenerated):\n"
            "            print(event.conversation_id, flush=True)\n"
            "asyncio.run(main())\n"
        )
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        conversation = (await asyncio.to_thread(process.stdout.readline)).strip()
        process.kill()
        process.wait()
        process.stdout.close()
        before = await last_answer(client, conversation)
        answer = await kept(client, conversation)
    assert before["state"] == "partial"
    assert answer["state"] == "complete"
    assert answer["text"].startswith(before["text"])
    assert len(answer["text"]) > len(before["text"])


@fault("client detached and attached again in an answer", "connection closed", "follows where it was, nothing twice")
async def test_attached_again(shared_box: Box) -> None:
    client = await loaded(shared_box)
    with patched(shared_box, pid_of(client), "time.sleep(0.005)"):
        _call, conversation = await begun(client, 120)
        await shared_box.detach()
        again = await shared_box.open()
        text = ""
        call = again.start(protocol.FollowConversation(conversation))
        async for event in call.events():
            if isinstance(event, protocol.ConversationOpened):
                text = event.conversation["messages"][-1]["text"]
            elif isinstance(event, protocol.TokensGenerated):
                text += event.text
        await call.reply()
    assert text == (await kept(again, conversation))["text"]


@fault("model folder deleted after the load", "rm -r", "answers go on; loading it again names the folder")
async def test_deleted_model(shared_box: Box, tmp_path: Path) -> None:
    client = await loaded(shared_box)
    folder = tmp_path / "mine"
    shutil.copytree(data_dir("sample_models") / "tiny-llama", folder)
    await client.ask(protocol.LoadModel(str(folder), dtype="float32", device="cpu"), protocol.ModelLoaded)
    shutil.rmtree(folder)
    assert (await say(client)).result["text"]
    error = await refused(client.ask(protocol.LoadModel(str(folder), device="cpu"), protocol.ModelLoaded))
    assert str(folder) in error.message


@fault(
    "weights cut short or overwritten", "half a file; noise in place of the header", "the file named, nothing loaded"
)
async def test_broken_weights(shared_box: Box, tmp_path: Path) -> None:
    client = await loaded(shared_box)
    whole = (data_dir("sample_models") / "tiny-llama" / "model.safetensors").read_bytes()
    for number, content in enumerate((whole[: len(whole) // 2], b"\xff" * 4096, b"", whole[:8])):
        folder = tmp_path / str(number)
        shutil.copytree(data_dir("sample_models") / "tiny-llama", folder)
        (folder / "model.safetensors").write_bytes(content)
        error = await refused(client.ask(protocol.LoadModel(str(folder), device="cpu"), protocol.ModelLoaded))
        assert error.kind == "corrupt-file"
        assert str(folder) in error.message


@fault(
    "disk full while an answer is kept",
    "RLIMIT_FSIZE of the worker",
    "answered all the same, the reason said; kept after",
)
async def test_full_disk(shared_box: Box) -> None:
    client = await loaded(shared_box)
    earlier = await say(client)
    limits = resource.prlimit(pid_of(client), resource.RLIMIT_FSIZE)
    resource.prlimit(pid_of(client), resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        reply = await say(client, "word " * 50)
        assert reply.result["text"]
        assert "ot saved" in reply.result["note"]
        assert "\n" not in reply.result["note"]
        log = await client.ask(protocol.ReadLog(), protocol.LogRead)
        assert log.lines
    finally:
        resource.prlimit(pid_of(client), resource.RLIMIT_FSIZE, limits)
    after = await say(client)
    assert "ot saved" not in after.result["note"]
    assert (await kept(client, after.conversation_id))["text"] == after.result["text"]
    assert (await kept(client, earlier.conversation_id))["text"] == earlier.result["text"]


@fault(
    "the clock jumps",
    "a year back, ten years on, while a model is loaded",
    "nothing unloaded, nothing ends, order kept",
)
async def test_clock(shared_box: Box) -> None:
    client = await loaded(shared_box)
    first = await say(client)
    for years in (-1, 10):
        code = "import time\nreal = getattr(time, 'real', time.time)\ntime.real = real\n"
        code += f"time.time = lambda: real() + {years} * 31557600\n"
        shared_box.inject(pid_of(client), code)
        await asyncio.sleep(0.6)
        reply = await say(client, conversation_id=first.conversation_id)
        assert (await kept(client, first.conversation_id))["text"] == reply.result["text"]
    status = (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status
    assert status.model is not None
    shared_box.inject(pid_of(client), "import time\ntime.time = time.real\n")


@fault("a simulation's process is killed", "SIGKILL of the child only", "said; the session and its other lanes go on")
async def test_killed_child(shared_box: Box) -> None:
    runtime = os.environ["WORKBENCH_RUNTIME_DIR"]
    client = await shared_box.open()
    call = client.start(protocol.SimulateMemory("llama-3.1-8b", {"job": "full"}))
    children: list[int] = []
    async for event in call.events():
        children = [pid for pid in processes_of(runtime) if pid != pid_of(client)]
        if children and isinstance(event, protocol.JobProgressed) and event.phase in ("forward", "backward"):
            break  # the child has the request; one that dies before is started again
    assert children
    for child in children:
        os.kill(child, signal.SIGKILL)
    error = await refused(call.reply())
    assert "signal 9" in error.message or "SIGKILL" in error.message
    assert alive(pid_of(client))
