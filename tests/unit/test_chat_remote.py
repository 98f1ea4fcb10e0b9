"""A server's answers and its faults, against a scripted server on loopback."""

from __future__ import annotations

import contextlib
import gzip
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stubs.openai_server import DONE, END, Answer, Call, FakeServer, chunk, page, serving
from workbench.chat.answers import GenerationFailed, TokenStep
from workbench.chat.options import SamplingOptions, effective_options
from workbench.chat.remote import RemoteAnswerer, RemoteResult
from workbench.chat.remote_http import Address, parse_address
from workbench.chat.remote_servers import Server, choose_model, describe_server, find_servers
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job

KEY = "sk-do-not-tell-anyone-0123456789"
QUESTION = [{"role": "user", "content": "Say hello."}]


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with serving(FakeServer()) as server:
        yield server


@pytest.fixture(autouse=True)
def tempting_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What must not change anything: a token of the user's, offline mode, a proxy that does not exist."""
    monkeypatch.setenv("HF_TOKEN", "hf_thetokenoftheuser")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def ask(
    fake: FakeServer, steps: list[TokenStep] | None = None, key: str = "", idle: float = 20.0, **options: Any
) -> RemoteResult:
    given = options.pop("sampling", {})
    job = options.pop("job", Job())
    server = options.pop("server", None) or describe_server(fake.url, key, job)
    answerer = RemoteAnswerer(server, choose_model(server, ""), key, idle)
    taken = [] if steps is None else steps
    return answerer.answer(QUESTION, given, effective_options(given, None), taken.append, job, **options)


def test_a_whole_answer(fake: FakeServer) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    told = b"data: " + json.dumps({"choices": [], "usage": usage}).encode() + b"\n\n"
    fake.says(chunk("Hel"), chunk("lo"), chunk(".", finish_reason="stop"), told, DONE)
    steps: list[TokenStep] = []
    result = ask(fake, steps, sampling={"greedy": True, "max_new_tokens": 5, "stop": ["x"], "seed": 3})
    assert result.text == "Hello." == "".join(step.text for step in steps)
    assert (result.finish_reason, result.stopped_by) == ("stop", "end-token")
    assert (result.prompt_tokens, result.new_tokens, result.reused_tokens) == (9, 3, 4)
    assert (result.note, result.server_kind, result.model) == ("", "vLLM", "tiny")
    (call,) = fake.asked()
    assert call.path == "/v1/chat/completions"
    assert call.body == {
        "stream": True,
        "model": "tiny",
        "messages": QUESTION,
        "temperature": 0,
        "max_tokens": 5,
        "stop": ["x"],
        "seed": 3,
        "stream_options": {"include_usage": True},
    }


def test_nobody_gets_a_key_that_was_not_given_for_it(fake: FakeServer) -> None:
    ask(fake)
    assert not any("hf_" in str(call) for call in fake.calls)
    assert not any(name.lower() == "authorization" for call in fake.calls for name in call.headers)
    ask(fake, key=KEY)
    assert fake.calls[-1].headers["Authorization"] == f"Bearer {KEY}"


def test_a_redirect_is_told_and_not_followed(fake: FakeServer) -> None:
    with serving(FakeServer()) as other:
        for status in (301, 302, 307, 308):
            fake.answer = Answer(status=status, headers={"Location": f"{other.url}/chat/completions"})
            with pytest.raises(WorkbenchError) as raised:
                ask(fake, key=KEY)
            assert raised.value.kind == "server-redirects"
            assert other.url in raised.value.message
        fake.pages["/v1/models"] = Answer(status=302, headers={"Location": f"{other.url}/models"})
        with pytest.raises(WorkbenchError, match="sends to"):
            describe_server(fake.url, KEY)
        assert other.calls == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (chunk("a") + b": ping\n\n" + chunk("b") + END, "ab"),
        (b"event: message\r\n" + chunk("a").replace(b"\n\n", b"\r\n\r\n") + b"data:[DONE]\r\n\r\n", "a"),
        (chunk("a").replace(b"\n\n", b"\n") + chunk("b").replace(b"\n\n", b"\n") + b"data: [DONE]\n", "ab"),
        (chunk("a").removeprefix(b"data: ") + chunk("b", finish_reason="stop").removeprefix(b"data: "), "ab"),
        (chunk("a") + chunk("b", finish_reason="stop"), "ab"),
        (b'data: {"choices":\ndata: [{"delta": {"content": "a"}}]}\n\n' + END, "a"),
        (b'data: {"choices": null}\n\ndata: {"choices": [null]}\n\n' + chunk("a") + END, "a"),
        (chunk("line\u2028break\x85and\u2029more") + END, "line\u2028break\x85and\u2029more"),
        (chunk("a").rstrip(b"\n") + b"\n\n" + END.rstrip(b"\n"), "a"),
        (b'data: {"choices": [{"text": "a", "finish_reason": "eos_token"}]}\n\n', "a"),
    ],
    ids=["comment", "crlf", "no-blank-lines", "ndjson", "no-done", "two-lines", "nulls", "u2028", "no-newline", "tgi"],
)
def test_forms_of_a_stream_that_are_taken(fake: FakeServer, body: bytes, text: str) -> None:
    fake.says(body)
    result = ask(fake)
    assert (result.text, result.finish_reason, result.note) == (text, "stop", "")


def test_lines_that_are_no_json_are_left_out_and_said(fake: FakeServer) -> None:
    fake.says(chunk("a"), b"data: nonsense\n\n", b"data: [1]\n\n", chunk("b"), END)
    result = ask(fake)
    assert result.text == "ab"
    assert result.note == "no JSON, left out: 2 lines of the server"


def test_an_answer_in_one_piece(fake: FakeServer) -> None:
    message = {"message": {"role": "assistant", "content": "Whole."}, "finish_reason": "length"}
    fake.answer = page({"choices": [message], "usage": {"prompt_tokens": 2, "completion_tokens": 1}})
    result = ask(fake)
    assert (result.text, result.finish_reason, result.new_tokens) == ("Whole.", "length", 1)


MULTIBYTE = chunk("naïve café").split("é".encode())[0] + "é".encode()[:1]


@pytest.mark.parametrize(
    ("answer", "kind", "partial"),
    [
        (page({"error": {"message": f"Incorrect API key provided: {KEY}"}}, 401), "server-unauthorized", None),
        (page({"error": "no"}, 403), "server-unauthorized", None),
        (page({"error": {"message": "The model `x` does not exist."}}, 404), "server-not-found", None),
        (page({"message": "slow down"}, 429, **{"Retry-After": "7"}), "server-busy", None),
        (page({"detail": "boom"}, 500), "server-failed", None),
        (Answer(b"<html><title>502 Bad Gateway</title></html>", 502, "text/html"), "server-failed", None),
        (Answer(b"<!DOCTYPE html><p>It works</p>", type="text/html"), "not-openai", None),
        (Answer(b"<html>hello</html>\n"), "not-openai", None),
        (Answer(b"data: nonsense\n\ndata: more\n\n"), "not-openai", None),
        (Answer(b"", type="application/json"), "not-openai", None),
        (Answer(b"[1, 2]", type="application/json"), "not-openai", None),
        (Answer(b""), "server-cut", None),
        (Answer(chunk("Hel") + chunk("lo")), "server-cut", "Hello"),
        (Answer(chunk("Hel") + MULTIBYTE), "server-cut", "Hel"),
        (Answer(chunk("Hel") + b'data: {"choices": [{"delta'), "server-cut", "Hel"),
        (Answer(chunk("Hel"), length=4000), "server-cut", "Hel"),
        (Answer(chunk("Hel") + b'data: {"error": {"message": "CUDA out of memory"}}\n\n'), "server-failed", "Hel"),
        (Answer(chunk("Hel") + b"data: " + b"x" * (5 * 2**20)), "not-openai", "Hel"),
        (page({"detail": [{"loc": ["body", "seed"], "msg": "not a number"}]}, 422), "server-refused", None),
        (page({"message": "This model's maximum context length is 512 tokens."}, 400), "prompt-too-long", None),
    ],
)  # fmt: skip
def test_each_fault_is_one_typed_line(fake: FakeServer, answer: Answer, kind: str, partial: str | None) -> None:
    fake.answer = answer
    with pytest.raises(WorkbenchError) as raised:
        ask(fake, key=KEY)
    error = raised.value
    assert error.kind == kind
    assert error.message
    assert "\n" not in error.message
    assert len(error.message) < 500
    assert error.remedy
    assert "<" not in error.message
    assert KEY not in f"{error.message} {error.remedy} {error.details}"
    assert isinstance(error, GenerationFailed) == (partial is not None)
    if isinstance(error, GenerationFailed):
        assert (error.partial.text, error.partial.finish_reason) == (partial, "failed")


def test_nothing_listens_and_no_such_machine() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(WorkbenchError, match=f"Nothing listens at http://127.0.0.1:{port}"):
        describe_server(f"localhost:{port}".replace("localhost", "127.0.0.1"))


def test_something_else_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            connection, _ = listening.accept()
            connection.recv(65536)
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
            connection.close()

        threading.Thread(target=greet, daemon=True).start()
        with pytest.raises(WorkbenchError) as raised:
            describe_server(f"127.0.0.1:{listening.getsockname()[1]}")
    assert raised.value.kind in ("not-openai", "server-cut")


def test_a_stalled_server_has_a_limit(fake: FakeServer) -> None:
    fake.says(chunk("Hel"), stall=True)
    with pytest.raises(GenerationFailed) as raised:
        ask(fake, idle=0.3)
    assert raised.value.kind == "server-stalled"
    assert raised.value.partial.text == "Hel"


@pytest.mark.parametrize("parts", [(), (chunk("Hel"),)], ids=["before the answer", "in its middle"])
def test_cancel_does_not_wait_for_a_stalled_server(fake: FakeServer, parts: tuple[bytes, ...]) -> None:
    fake.says(*parts, stall=True)

    class Cancelled(Job):
        def check(self) -> None:
            if fake.stalled.is_set() and (steps or not parts):
                raise JobCancelled

    steps: list[TokenStep] = []
    started = time.monotonic()
    result = ask(fake, steps, job=Cancelled())
    assert result.finish_reason == "cancelled"
    assert result.text == "".join(step.text for step in steps) == ("Hel" if parts else "")
    assert time.monotonic() - started < 15  # the server itself lets go after thirty


LOGPROBS = {
    "content": [
        {
            "token": "Hel",
            "logprob": -0.25,
            "top_logprobs": [{"token": "Hel", "logprob": -0.25}, {"token": "Hi", "logprob": -1.5}],
        },
        {"token": "lo", "logprob": -0.5, "top_logprobs": []},
    ]
}


def test_probabilities_are_taken_as_they_come(fake: FakeServer) -> None:
    fake.says(chunk("Hello", logprobs=LOGPROBS), END)
    steps: list[TokenStep] = []
    ask(fake, steps, alternatives=5)
    assert fake.asked()[0].body["top_logprobs"] == 5
    assert [(step.text, step.logprob) for step in steps[:2]] == [("Hel", -0.25), ("lo", -0.5)]
    assert [(other.text, other.logprob) for other in steps[0].alternatives] == [("Hel", -0.25), ("Hi", -1.5)]


def test_a_completion_has_another_form_of_probabilities(fake: FakeServer) -> None:
    logprobs = {"tokens": ["a", "b"], "token_logprobs": [None, -1.0], "top_logprobs": [None, {"c": -2.0, "b": -1.0}]}
    choice = {"text": "ab", "logprobs": logprobs, "finish_reason": "stop"}
    fake.says(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
    steps: list[TokenStep] = []
    result = ask(fake, steps, alternatives=2, raw=True)
    assert result.text == "ab"
    assert [other.text for other in steps[1].alternatives] == ["b", "c"]
    (call,) = fake.asked()
    assert (call.path, call.body["prompt"], call.body["logprobs"]) == ("/v1/completions", "Say hello.", 2)


def test_what_is_ignored_or_refused_is_said(fake: FakeServer) -> None:
    assert "gave no log-probabilities though asked" in ask(fake, alternatives=3).note

    def picky(call: Call) -> Answer:
        for name in ("stream_options", "logprobs", "min_p"):
            if name in call.body:
                return page({"error": {"message": f"Unrecognized request argument supplied: {name}"}}, 400)
        if "max_tokens" in call.body:
            told = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return page({"error": {"message": told}}, 400)
        return Answer(chunk("fine") + END)

    fake.pages["/v1/models"] = page({"data": [{"id": "m", "owned_by": "someone"}]})
    fake.answer = picky
    result = ask(fake, alternatives=3, sampling={"min_p": 0.1, "top_p": 0.9, "max_new_tokens": 7})
    assert result.text == "fine"
    assert result.note == "the server refuses logprobs; the server refuses min p"
    last = fake.asked()[-1].body
    assert (last["max_completion_tokens"], last["top_p"]) == (7, 0.9)
    assert last.keys().isdisjoint({"min_p", "logprobs", "top_logprobs", "stream_options", "max_tokens"})

    fake.pages["/v1/models"] = page({"data": [{"id": "m", "owned_by": "library"}]})
    fake.says(chunk("a"), END)
    result = ask(fake, sampling={"top_k": 5, "min_p": 0.0, "no_repeat_ngram_size": 3, "temperature": 0.5})
    assert result.note == "Ollama does not take no-repeat-ngram-size, top-k: not sent"
    assert fake.asked()[-1].body["temperature"] == 0.5


def test_reasoning_is_kept_apart(fake: FakeServer) -> None:
    fake.says(
        chunk(delta={"reasoning_content": "They greet."}),
        chunk(None, delta={"reasoning": " So do I."}),
        chunk("Hi", delta={"reasoning_content": None}),
        END,
    )
    result = ask(fake)
    assert (result.text, result.reasoning) == ("Hi", "They greet. So do I.")
    assert "20 characters of reasoning are kept apart" in result.note


def test_an_endless_answer_is_cut_off(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.chat.remote.MOST_CHARACTERS", 5000)
    fake.says(*[chunk("x" * 100)] * 200)
    result = ask(fake)
    assert 5000 < len(result.text) <= 5100
    assert (result.finish_reason, "did not end" in result.note) == ("length", True)


@pytest.mark.parametrize(
    ("pages", "kind"),
    [
        ({"/v1/models": page({"data": [{"id": "m", "owned_by": "sglang"}]})}, "sglang"),
        ({"/v1/models": page({"data": [{"id": "m", "owned_by": "llamacpp"}]})}, "llama.cpp"),
        ({"/v1/models": page({"data": [{"id": "m", "owned_by": "organization_owner"}]})}, "lmstudio"),
        ({"/v1/models": page({"object": "list", "data": None}), "/api/version": page({"version": "0.12"})}, "ollama"),
        (
            {
                "/v1/models": page({"data": [{"id": "m", "owned_by": "m"}]}),
                "/info": page({"model_id": "m", "max_total_tokens": 9}),
            },
            "tgi",
        ),
        ({"/v1/models": page({}, 500), "/openapi.json": page({"paths": {"/load_model": {}}})}, "transformers"),
        ({"/v1/models": page({"data": [{"id": "m", "owned_by": "me"}]})}, "unknown"),
    ],
)
def test_the_kind_is_recognised(fake: FakeServer, pages: dict[str, Answer], kind: str) -> None:
    fake.pages.update(pages)
    found = describe_server(fake.url)
    assert (found.kind, found.url) == (kind, fake.url)
    assert any("KV cache" in line for line in found.cannot)
    assert any("Forking" in line for line in found.cannot)
    assert ("logprobs" in found.can) == (kind != "transformers")


def test_servers_of_this_box_are_found(fake: FakeServer) -> None:
    with (
        serving(FakeServer()) as locked,
        serving(FakeServer()) as page_server,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        locked.pages["/v1/models"] = page({"error": "key"}, 401)
        page_server.pages["/v1/models"] = Answer(b"<html>Who are you?</html>", 403, "text/html")
        ports = (fake.port, locked.port, page_server.port, silent.getsockname()[1])
        found = find_servers(ports=ports, seconds=1.0)
    assert [(server.kind, server.models, server.note) for server in found] == [
        ("vllm", ("tiny",), ""),
        ("unknown", (), "It asks for a key."),
    ]
    assert found[0].context_lengths == {"tiny": 512}


def test_models_are_named_as_the_server_does() -> None:
    server = Server("http://x/v1", "ollama", "Ollama", ("qwen:latest", "phi"))
    assert choose_model(Server("http://x/v1", "ollama", "Ollama", ("phi",)), "") == "phi"
    with pytest.raises(WorkbenchError, match="has 2 models and none was named") as raised:
        choose_model(server, "")
    assert raised.value.remedy == "Name one of qwen:latest, phi."
    assert choose_model(server, "qwen") == "qwen:latest"
    with pytest.raises(WorkbenchError, match="has no 'llama'"):
        choose_model(server, "llama")
    assert choose_model(Server("http://x/v1", "transformers", "", ("cached",)), "") == ""


def test_addresses_as_people_type_them() -> None:
    assert parse_address("localhost:8000") == Address("http", "localhost", 8000, "/v1")
    assert parse_address(" HTTPS://Host/api/v1/chat/completions ") == Address("https", "host", 443, "/api/v1")
    assert parse_address("http://[::1]:9/v1/").url == "http://[::1]:9/v1"
    assert parse_address("http://127.0.0.1:80").url == "http://127.0.0.1/v1"
    bad = ["", "http://", "ftp://x", "http://x:99999", "http://x/ y", "http://x/v1?a=b", "http://h\u00e9/v1", "x:0"]
    for url in [*bad, "http://me:secret@x/v1"]:
        with pytest.raises(WorkbenchError) as raised:
            parse_address(url)
        assert raised.value.kind == "bad-url"
        assert "secret" not in str(raised.value)


def test_a_key_that_would_break_the_header_is_refused_unseen(fake: FakeServer) -> None:
    for key in ("sk\r\nX-Evil: 1", "schlüssel"):
        with pytest.raises(WorkbenchError) as raised:
            describe_server(fake.url, key)
        assert raised.value.kind == "bad-key"
        assert key not in str(raised.value)
    assert fake.calls == []


def test_other_machines_are_reached_through_the_proxy(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://name:word@127.0.0.1:{fake.port}")
    place = "http://models.example.invalid:8000"
    fake.pages[f"{place}/v1/models"] = fake.pages["/v1/models"]
    found = describe_server(place)
    assert found.models == ("tiny",)
    assert fake.calls[0].headers["Proxy-Authorization"] == "Basic bmFtZTp3b3Jk"
    assert "unencrypted" in describe_server(place, KEY).note


def test_defaults_are_left_to_the_server(fake: FakeServer) -> None:
    ask(fake)
    assert fake.asked()[0].body.keys() == {"stream", "model", "messages", "max_tokens", "stream_options"}
    assert fake.asked()[0].body["max_tokens"] == SamplingOptions().max_new_tokens


def test_a_certificate_that_does_not_hold_ends_it(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    make = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost -out c.pem"
    subprocess.run(["openssl", *make.split(), "-keyout", "k.pem"], check=True, capture_output=True, cwd=tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "c.pem", tmp_path / "k.pem")
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            connection, _ = listening.accept()
            with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
                heard.append(secure.recv(65536))

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        with pytest.raises(WorkbenchError) as raised:
            describe_server(f"https://localhost:{listening.getsockname()[1]}", KEY)
        thread.join(10)
    assert raised.value.kind == "bad-certificate"
    assert not any(heard)


def event(choices: list[dict[str, Any]], **more: Any) -> bytes:
    """One event with these choices, as servers write it; `more` stands beside them."""
    known = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny", "choices": choices}
    return b"data: " + json.dumps({**known, **more}, ensure_ascii=False).encode() + b"\n\n"


def choice(delta: dict[str, Any], reason: str | None = None, **more: Any) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": delta, "finish_reason": reason, **more}]


USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
TIMINGS = {"prompt_n": 9, "prompt_ms": 20.0, "predicted_n": 2, "predicted_ms": 40.0, "predicted_per_second": 50.0}
STREAMS = {
    "llama.cpp": [
        event(choice({"role": "assistant", "content": None}), system_fingerprint="b11434"),
        event(choice({"content": "Grüß"}), system_fingerprint="b11434"),
        event(choice({"content": " Gott"})),
        event(choice({}, "stop")),
        event([], usage=USAGE, timings=TIMINGS),
        DONE,
    ],
    "vllm": [
        event(choice({"role": "assistant", "content": ""}, logprobs=None), prompt_token_ids=None),
        b": ping - 2026-11-22 09:00:00\r\n\r\n",
        event(choice({"content": "Grüß", "reasoning_content": None}, logprobs=None, token_ids=None)),
        event(choice({"content": " Gott"}, logprobs=None, token_ids=None)),
        event(choice({"content": ""}, "stop", logprobs=None, stop_reason=None)),
        event([], usage={**USAGE, "prompt_tokens_details": None}),
        DONE,
    ],
    "sglang": [
        event(choice({"role": "assistant", "content": "", "reasoning_content": None, "tool_calls": None}), usage=None),
        event(choice({"role": None, "content": "Grüß"}, matched_stop=None), usage=None),
        event(choice({"role": None, "content": " Gott"}, matched_stop=None), usage=None),
        event(choice({"role": None, "content": None}, "stop", matched_stop=2), usage=None),
        event([], usage=USAGE),
        DONE,
    ],
    "ollama": [
        event(choice({"role": "assistant", "content": "Grüß"}), system_fingerprint="fp_ollama"),
        event(choice({"role": "assistant", "content": " Gott"}), system_fingerprint="fp_ollama"),
        event(choice({"role": "assistant", "content": ""}, "stop"), usage=None),
        event([], usage=USAGE),
        DONE,
    ],
    "usage in every event": [
        event(choice({"role": "assistant"}), usage={**USAGE, "completion_tokens": 0}),
        event(choice({"content": "Grüß"}, ""), usage={**USAGE, "completion_tokens": 1}),
        event(choice({"content": " Gott"}, "stop"), usage=USAGE),
        DONE,
    ],
}


@pytest.mark.parametrize("cut", [0, 1, 7], ids=["whole", "byte by byte", "seven bytes"])
@pytest.mark.parametrize("kind", STREAMS)
def test_streams_as_each_server_writes_them(fake: FakeServer, kind: str, cut: int) -> None:
    """However the network cuts them, in the middle of a character too."""
    whole = b"".join(STREAMS[kind])
    parts = [whole[at : at + cut] for at in range(0, len(whole), cut)] if cut else STREAMS[kind]
    fake.says(*parts)
    steps: list[TokenStep] = []
    result = ask(fake, steps)
    assert (result.text, result.finish_reason, result.note) == ("Grüß Gott", "stop", "")
    assert "".join(step.text for step in steps) == "Grüß Gott"
    assert (result.prompt_tokens, result.new_tokens) == (9, 2)


@pytest.mark.parametrize(
    "failure",
    [
        b'data: {"error": {"message": "slot lost", "type": "server_error", "code": 500}}\n\n',
        b'error: {"code": 500, "message": "slot lost", "type": "server_error"}\n\n',
        b'event: error\ndata: {"message": "slot lost", "code": 500}\n\n',
        b'data: {"object": "error", "message": "slot lost", "type": "InternalServerError", "code": 500}\n\n',
    ],
    ids=["openai", "llama.cpp", "sse", "older vllm"],
)
def test_an_error_in_the_middle_is_told_in_the_servers_words(fake: FakeServer, failure: bytes) -> None:
    fake.says(chunk("Hel"), failure, DONE)
    with pytest.raises(GenerationFailed, match="slot lost") as raised:
        ask(fake)
    assert (raised.value.kind, raised.value.partial.text) == ("server-failed", "Hel")


def test_a_compressed_stream_is_refused_in_words(fake: FakeServer) -> None:
    """It was asked for none (``Accept-Encoding: identity``)."""
    fake.answer = Answer(gzip.compress(chunk("a") + END), headers={"Content-Encoding": "gzip"})
    with pytest.raises(WorkbenchError, match="gzip") as raised:
        ask(fake)
    assert raised.value.kind == "not-openai"
    assert fake.asked()[-1].headers.get("Accept-Encoding", "identity") == "identity"
