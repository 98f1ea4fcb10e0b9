"""The chat bench on a real worker: sampling, answering, looking inside, forking, editing, comparing, exporting."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.model,
    pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux"),
]
ROOT = Path(__file__).parents[2]
TINY = ROOT / "sample_models" / "tiny-llama"


@pytest.mark.timeout(300)
def test_a_conversation_by_keyboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    terminal = Terminal(
        sys.executable, "-m", "workbench", "--bench", "chat", "--model", str(TINY), width=110, height=34
    )
    try:
        terminal.wait_for("5 Chat", "Write a message", seconds=60)
        terminal.keys("C-l")
        terminal.wait_for("Load", "quantize")
        terminal.keys("Enter")
        terminal.wait_until(lambda screen: "● tiny-llama" in screen, 120, "never loaded")
        terminal.type("Hello there")
        # Twelve tokens at most, greedily; the chart is of the very message being written.
        terminal.keys("M-s")
        terminal.wait_for("the first token of the answer to come", "tokens left", seconds=60)
        terminal.keys("Down", "Down", "Down", "Down", "Down", "Down", "Enter")
        terminal.type("12")
        terminal.keys("Enter", "Down", "Down", "Down", "Right")
        terminal.wait_for("100.0 %", seconds=60)
        terminal.keys("Escape")
        terminal.wait_for("max 12 · greedy")
        terminal.keys("Enter")
        terminal.wait_for("12 out", "stopped at the limit of 12 tokens", seconds=60)
        terminal.keys("Escape")
        terminal.wait_for("c continue")
        terminal.keys("c")
        terminal.wait_for("12 kept", "12 out", seconds=60)
        terminal.keys("i")
        terminal.wait_for("token 1 of 24", "as recorded while it was written", "entropy", seconds=60)
        terminal.keys("p")
        terminal.wait_for("The prompt as the model saw it")
        terminal.keys("t", "Right", "Enter", "Down", "Enter")
        terminal.wait_for("‹ 2/2 ›", "2 kept", seconds=60)
        terminal.keys("Up", "e")
        terminal.wait_for("sends it as a branch of its own")
        terminal.type(" again")
        terminal.keys("Enter")
        terminal.wait_for("Hello there again", seconds=60)
        terminal.wait_until(lambda screen: screen.count("‹ 2/2 ›") == 1 and "answering" not in screen, 60, "no branch")
        terminal.keys("Escape", "n")
        exact = re.compile(r"KV cache now +(\S+ KiB) +\1 +\+0\.0 %")
        terminal.wait_until(lambda screen: bool(exact.search(screen)), 60, "the KV cache is not as estimated")
        terminal.keys("Escape", "x")
        terminal.wait_for("fine-tune")
        terminal.keys("j")
        terminal.wait_for("Write to a file", "hello-there.jsonl")
        terminal.keys("Enter")
        terminal.wait_for("Written:")
    finally:
        terminal.kill()
    row = json.loads((tmp_path / "hello-there.jsonl").read_text())
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert row["messages"][0]["content"] == "Hello there again"
