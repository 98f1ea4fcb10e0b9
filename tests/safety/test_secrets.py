"""Access tokens of all kinds in the environment, in pastes and on the wire: nothing that is written holds one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.faults.table import fault
from tests.safety.ways import on_terminal
from tests.stubs.openai_server import END, Answer, FakeServer, chunk, serving
from workbench.session.launch import stop_session

SECRETS = {
    "HF_TOKEN": "hf_" + "Q7x" * 11,
    "OPENAI_API_KEY": "sk-proj-" + "Zk9" * 14,
    "WANDB_API_KEY": "c0ffee" * 6 + "abcd",
    "GITHUB_TOKEN": "ghp_" + "9Ab" * 12,
    "AWS_SECRET_ACCESS_KEY": "wJalr" * 8,
    "https_proxy": "http://somebody:Passw0rdInProxy@127.0.0.1:9",
    "PIP_INDEX_URL": "https://user:Passw0rdInIndex@127.0.0.1:9/simple",
}
HELD = [value.partition("somebody:")[2].partition("@")[0] or value for value in SECRETS.values()]
HELD[-1] = "Passw0rdInIndex"


@pytest.mark.model
@fault(
    "secrets in the environment, in a pasted report and in a server's key",
    "tokens of seven kinds; every output, report, export, log and file searched",
    "none is written anywhere",
)
def test_secrets(private_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    paste = tmp_path.parent / f"{tmp_path.name}-paste.txt"
    variables = "\n".join(f"{name}={value}" for name, value in SECRETS.items())
    paste.write_text(f"PyTorch version: 2.4.0+cu121\nOS: Linux\n{variables}\nAuthorization: Bearer {HELD[0]}\n")
    with serving(FakeServer()) as server:
        server.answer = Answer([chunk("fine"), END])
        asked = ["--url", server.url, "--api-key-env", "OPENAI_API_KEY", "--prompt", "x"]
        commands = [
            ["doctor", "--light"],
            ["doctor", "--markdown"],
            ["doctor", "--light", "--json"],
            ["doctor", "--from", str(paste), "--markdown"],
            ["doctor", "--from", str(paste), "--json"],
            ["models", "get", "someone/not-there"],
            ["chat", "tiny", *asked],
            ["tokens", "x", "--model", "tiny-llama", "--json"],
        ]
        written = b"".join(on_terminal(*arguments, no_proxy="127.0.0.1", HF_HUB_OFFLINE="0") for arguments in commands)
        server.answer = Answer(b'{"error": {"message": "bad key %s"}}' % HELD[1].encode(), 401, "application/json")
        written += on_terminal("chat", "tiny", *asked, no_proxy="127.0.0.1")
        assert any(call.headers.get("Authorization") == f"Bearer {HELD[1]}" for call in server.calls)
    written += on_terminal("session", "log")
    asyncio.run(stop_session("default", force=True))
    found = {secret for secret in HELD if secret.encode() in written}
    for folder in (tmp_path, Path(os.environ["WORKBENCH_RUNTIME_DIR"])):
        for file in folder.rglob("*"):
            if file.is_file() and not file.is_symlink():
                content = file.read_bytes()
                found |= {f"{secret} in {file}" for secret in HELD if secret.encode() in content}
    assert not found
