"""Clients that misbehave: one worker for all rows, and it must serve the others all the while."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.box import Box, alive, pid_of, refused, until
from tests.faults.table import fault
from workbench.errors import JobCancelled
from workbench.session import protocol


async def raw(box: Box) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(box.files.socket), limit=protocol.MAX_FRAME_BYTES)


async def status(box: Box) -> protocol.SessionStatus:
    client = box.clients[0] if box.clients else await box.open()
    return (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status


async def answer_to(box: Box, *lines: bytes) -> dict[str, Any]:
    """The last answer to lines sent by a client of their own."""
    await status(box)
    reader, writer = await raw(box)
    answer: dict[str, Any] = {}
    for line in lines:
        writer.write(line + b"\n")
        answer = json.loads(await asyncio.wait_for(reader.readline(), 20))
    writer.close()
    return answer


def hello(version: int = 1, **body: Any) -> bytes:
    return json.dumps({"v": version, "id": 1, "type": "hello", "body": body}).encode()


@fault("client sends bytes that are no text", "NUL, 0xff, half a UTF-8 sequence", "one answer `bad-json`, goes on")
async def test_binary(shared_box: Box) -> None:
    for line in (b"\x00\xff binary", b"\xe2\x82", b"\x1b]52;c;aGk=\x07", b"[" * 100_000):
        answer = await answer_to(shared_box, line)
        assert answer["type"] == "failed"
        assert answer["body"]["kind"] == "bad-json"


@fault("client sends a request nobody knows", "a made-up type; a reply in place of a request", "named, goes on")
async def test_unknown_request(shared_box: Box) -> None:
    answer = await answer_to(shared_box, hello(), b'{"v":1,"id":5,"type":"fly","body":{}}')
    assert (answer["id"], answer["body"]["kind"]) == (5, "unknown-request")
    assert "fly" in answer["body"]["message"]
    answer = await answer_to(shared_box, hello(), b'{"v":1,"id":5,"type":"cancel_noted","body":{"found":true}}')
    assert answer["body"]["kind"] == "unknown-request"


@fault("client of an older protocol", "version 0 in the frame and in the greeting", "both versions named, what to do")
async def test_older_protocol(shared_box: Box) -> None:
    for line in (hello(version=0), hello(protocol_version=0)):
        answer = await answer_to(shared_box, line)
        assert answer["body"]["kind"] == "protocol-version"
        assert "0" in answer["body"]["message"]
    assert "session stop" in answer["body"]["remedy"]


@fault(
    "client of a newer protocol", "version 9; and version 1 with fields not known here", "refused; the fields ignored"
)
async def test_newer_protocol(shared_box: Box) -> None:
    for line in (hello(version=9), hello(protocol_version=9)):
        answer = await answer_to(shared_box, line)
        assert answer["body"]["kind"] == "protocol-version"
        assert "9" in answer["body"]["message"]
    assert (await answer_to(shared_box, hello(colour="blue")))["type"] == "welcome"


@fault("client asks before greeting, or twice under one id", "list_models first; id 0", "refused, goes on")
async def test_wrong_order(shared_box: Box) -> None:
    early = await answer_to(shared_box, b'{"v":1,"id":5,"type":"list_models","body":{}}')
    assert early["body"]["kind"] == "protocol-version"
    taken = await answer_to(shared_box, hello(), b'{"v":1,"id":0,"type":"get_status","body":{}}')
    assert taken["body"]["kind"] == "bad-message"


@fault("client sends fields of wrong types", "texts for lists, lists for numbers, NaN, 10^400", "`bad-field`, goes on")
async def test_wrong_types(shared_box: Box) -> None:
    for name, body in (
        ("count_tokens", '{"texts":"all","models":["tiny-llama"]}'),
        ("count_tokens", '{"texts":[{"a":1}],"models":["tiny-llama"]}'),
        ("read_log", '{"lines":[1]}'),
        ("read_log", '{"lines":NaN}'),
        ("welcome", "{}"),
        ("generate", "[]"),
    ):
        line = f'{{"v":1,"id":5,"type":"{name}","body":{body}}}'.encode()
        assert (await answer_to(shared_box, hello(), line))["body"]["kind"] == "bad-field", line
    huge = b'{"v":1,"id":5,"type":"read_log","body":{"lines":1' + b"0" * 400 + b"}}"
    assert (await answer_to(shared_box, hello(), huge))["type"] in ("log_read", "failed")


@fault("client sends noise", "2,000 messages mutated at random", "every line answered or the connection ended, goes on")
async def test_noise(shared_box: Box) -> None:
    pid = (await status(shared_box)).pid
    dice = random.Random(7)
    names = [name for name in protocol.registry() if name not in ("shutdown", "fetch_model", "warm", "load_model")]
    reader, writer = await raw(shared_box)
    drain = asyncio.ensure_future(reader.read())
    values: list[Any] = [None, -1, 0, 1e308, "", "\x00", "x" * 300, [], {}, [[]], True]
    for number in range(2000):
        body = {dice.choice(("lines", "text", "model", "request_id", "limit")): dice.choice(values)}
        quick = dice.choice(("hello", "get_status", "read_log", "cancel", dice.choice(names)))
        known = quick if quick in ("hello", "get_status", "cancel") else f"{quick}{dice.choice(('', 'x'))}"
        line = json.dumps({"v": 1, "id": dice.choice((number, 0, -1, "a")), "type": known, "body": body})
        if dice.random() < 0.5:
            at = dice.randrange(len(line))
            line = line[:at] + chr(dice.randrange(1, 255)) + line[at + 1 :]
        writer.write(line.encode("utf-8", "replace").replace(b"\n", b" ") + b"\n")
        if number % 200 == 0:
            await writer.drain()
    await writer.drain()
    assert (await status(shared_box)).pid == pid
    writer.close()
    drain.cancel()


@fault("client dies in the middle of a line", "half a line, then close", "forgotten, nothing done")
async def test_half_a_line(shared_box: Box) -> None:
    before = (await status(shared_box)).clients
    _reader, writer = await raw(shared_box)
    writer.write(hello() + b'\n{"v":1,"id":2,"type":"shut')
    await writer.drain()
    writer.close()
    client = shared_box.clients[0]
    while (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status.clients > before:
        await asyncio.sleep(0.02)


@fault("client sends a gigabyte without a newline", "1 MiB blocks until cut off", "cut off at 32 MiB, memory bounded")
async def test_endless_line(shared_box: Box) -> None:
    before = (await status(shared_box)).resident_bytes
    reader, writer = await raw(shared_box)
    sent = 0
    with contextlib.suppress(ConnectionError):
        for _ in range(1024):
            writer.write(b"x" * 2**20)
            await writer.drain()
            sent += 1
    assert sent < 200
    with contextlib.suppress(ConnectionError):
        assert b"frame-too-large" in await asyncio.wait_for(reader.read(), 20)
    assert (await status(shared_box)).resident_bytes - before < 250 * 2**20


@fault(
    "client never reads", "200 requests for the whole log, unread", "cut off at 64 MiB unread; the others are served"
)
async def test_never_reads(shared_box: Box) -> None:
    await status(shared_box)
    with shared_box.files.log.with_suffix(".raw").open("a") as spool:
        spool.writelines(f"{number} {'x' * 1000}\n" for number in range(600))
    _reader, writer = await raw(shared_box)
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(hello(watch=True) + b"\n")
    for number in range(2, 202):
        writer.write(f'{{"v":1,"id":{number},"type":"read_log","body":{{"lines":10000}}}}\n'.encode())
    client = await shared_box.open()

    async def noted() -> bool:
        lines = (await client.ask(protocol.ReadLog(lines=30), protocol.LogRead)).lines
        return any("cut off a client" in line for line in lines)

    while not await noted():
        await asyncio.sleep(0.1)
    assert (await status(shared_box)).resident_bytes < 500 * 2**20
    writer.transport.abort()


@fault("clients eat all file descriptors", "RLIMIT_NOFILE lowered under the worker, 80 clients", "serves again after")
async def test_too_many_clients(shared_box: Box) -> None:
    pid = (await status(shared_box)).pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        writers = [(await raw(shared_box))[1] for _ in range(80)]
        assert (await status(shared_box)).pid == pid
        for writer in writers:
            writer.close()
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert (await shared_box.must_work()).pid == pid


@fault("client is killed while its request runs", "SIGKILL of a client that waits", "its request is stopped, goes on")
async def test_killed_client(shared_box: Box, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "some words to count"}\n' * 400_000)
    code = (
        "import asyncio, sys\n"
        "from workbench.session import protocol\n"
        "from workbench.session.launch import open_session, SessionOptions\n"
        "async def main():\n"
        "    client = await open_session(SessionOptions('shared'), client='test', watch=False)\n"
        "    call = client.start(protocol.MeasureDataset(sys.argv[1], ['tiny-llama'], field='text'))\n"
        "    async for event in call.events():\n"
        "        print(event, flush=True)\n"
        "asyncio.run(main())\n"
    )
    await status(shared_box)
    process = subprocess.Popen([sys.executable, "-c", code, str(rows)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await asyncio.to_thread(process.stdout.readline)
    process.kill()
    process.wait()
    process.stdout.close()
    client = shared_box.clients[0]
    while any(lane.job for lane in (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status.lanes):
        await asyncio.sleep(0.05)


@fault("client of another user", "setuid to another uid, permissions opened", "turned away and noted")
async def test_other_user(shared_box: Box) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to become someone else")
    await status(shared_box)
    files = shared_box.files
    files.socket.chmod(0o777)
    files.socket.parent.chmod(0o755)
    code = (
        "import os, socket, sys\n"
        "os.setuid(12345)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n"
        "s.settimeout(20)\n"
        "try:\n"
        "    s.sendall(b'hello')\n"
        "    print(len(s.recv(100)))\n"
        "except (BrokenPipeError, ConnectionResetError):\n"
        "    print(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(files.socket)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    log = (await shared_box.clients[0].ask(protocol.ReadLog(), protocol.LogRead)).lines
    assert any("uid 12345" in line for line in log)
    files.socket.chmod(0o600)
    files.socket.parent.chmod(0o700)


@fault(
    "the worker floods its own output", "5,000 equal lines and a token on descriptor 2", "folded to one, token masked"
)
async def test_flood(shared_box: Box) -> None:
    client = await shared_box.open()
    with shared_box.files.log.with_suffix(".raw").open("ab") as file:
        file.write(b"noise\n" * 5000 + b"10%\r50%\r100%\n" + b"token hf_abcdefghijklmnopqrstuvwxyz\n")
    log = (await client.ask(protocol.ReadLog(lines=50), protocol.LogRead)).lines
    text = "\n".join(log)
    assert sum(line.endswith(" noise") for line in log) == 1
    assert "repeated 4,999 times more: noise" in text
    assert "abcdefghij" not in text


@fault("the last client goes", "all clients closed", "the worker stays; the next one finds it")
async def test_everyone_leaves(shared_box: Box) -> None:
    pid = (await status(shared_box)).pid
    await shared_box.detach()
    await until(lambda: alive(pid))
    assert (await status(shared_box)).pid == pid


def endless_tokenizer(folder: Path) -> str:
    """A model's folder with a WordPiece vocabulary that tries every end of a word, however long the word is."""
    vocab = {"x": 0, "[UNK]": 1, "##x": 2}
    model = {"type": "WordPiece", "vocab": vocab, "unk_token": "[UNK]", "continuing_subword_prefix": "##"}
    content = {"version": "1.0", "added_tokens": [], "model": {**model, "max_input_chars_per_word": 10**9}}
    parts = dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({**content, **parts}))
    return str(folder)


@fault(
    "a tokenizer that does not end",
    "a vocabulary whose words may be as long as the text: minutes in native code",
    "the others are served meanwhile; stopped at once when told to; one line after its time",
)
async def test_endless_tokenizer(shared_box: Box, tmp_path: Path) -> None:
    client = await shared_box.open()
    request = protocol.CountTokens([{"name": "a", "text": "x" * 12_000}], [endless_tokenizer(tmp_path / "endless")])
    stopped, left = client.start(request), client.start(request)
    words = protocol.CountTokens([{"name": "a", "text": "some words " * 20}], ["tiny-llama"])
    assert (await client.ask(words, protocol.TokensCounted)).result["results"][0]["tokens"]
    stopped.cancel()
    with pytest.raises(JobCancelled):
        await stopped.reply()
    status = (await client.ask(protocol.GetStatus(), protocol.StatusReported)).status
    assert [lane.job for lane in status.lanes if lane.job] == ["count_tokens"]
    shared_box.inject(pid_of(client), "from workbench.tokens import patience\npatience._SECONDS = 0.1")
    late = await refused(client.ask(request, protocol.TokensCounted))
    assert late.kind == "slow-tokenizer"
    assert "session stop" in late.remedy
    left.cancel()
    # The calls left to themselves end with the worker.
    await client.ask(protocol.Shutdown(force=True), protocol.ShutdownNoted)
    await until(lambda: client.lost is not None)
