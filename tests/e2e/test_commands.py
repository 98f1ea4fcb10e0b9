"""The commands as a script calls them: real processes, real session, real models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from workbench.paths import data_dir

QUESTION = "What is the capital of France?"


def workbench(*arguments: str, stdin: str | bytes = "", expect: int = 0) -> subprocess.CompletedProcess[str]:
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run([sys.executable, "-m", "workbench", *arguments], input=data, capture_output=True, timeout=110)
    result = subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
    assert result.returncode == expect, f"exit {result.returncode}: {result.stdout[-2000:]}{result.stderr[-2000:]}"
    return result


def as_json(*arguments: str, stdin: str | bytes = "", expect: int = 0) -> dict[str, Any]:
    result = workbench(*arguments, "--json", stdin=stdin, expect=expect)
    found: dict[str, Any] = json.loads(result.stdout)
    assert found["schema"] == 1
    assert found["command"].split()[0] == arguments[0]
    assert "\x1b" not in result.stdout
    return found


def refused(*arguments: str, stdin: str | bytes = "") -> str:
    """The one line a command answers bad input with."""
    result = workbench(*arguments, stdin=stdin, expect=2)
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("workbench: ")
    assert result.stdout == ""
    return lines[0]


def test_help_and_version_need_no_session() -> None:
    assert "workbench" in workbench("--version").stdout
    listed = workbench("--help").stdout
    for name in ("doctor", "tokens", "inspect", "vram", "chat", "models", "session", "envs"):
        assert name in listed
        assert "--json" in workbench(name, "--help").stdout or name in ("models", "session")


def test_tokens_of_text_files_and_standard_input(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("Grüße 12345", encoding="utf-8")
    counted = as_json(
        "tokens", "--file", str(file), "--model", "tiny-llama", "--model", "tiny-bert", "--ids", "--pieces"
    )
    assert counted["texts"] == [{"name": str(file), "bytes": 13, "characters": 11, "words": 2}]
    assert [entry["model"] for entry in counted["results"]] == ["tiny-llama", "tiny-bert"]
    for entry in counted["results"]:
        assert len(entry["ids"]) == entry["tokens"] == len(entry["pieces"])
    piped = as_json("tokens", "-", "--model", "tiny-llama", stdin="Grüße 12345")
    assert piped["results"][0]["tokens"] == counted["results"][0]["tokens"]


def test_a_data_set_is_measured_row_by_row(tmp_path: Path) -> None:
    rows = [{"text": "word " * count, "other": count} for count in range(1, 101)]
    file = tmp_path / "train.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)) + "\n{broken\n")
    measured = as_json("tokens", "--dataset", str(file), "--model", "tiny-llama", "--field", "text")
    counted = as_json("tokens", "-", "--model", "tiny-llama", stdin="word " * 50)["results"][0]["tokens"]
    (result,) = measured["results"]
    assert measured["dataset"]["bad_rows"] == 1
    assert result["rows"] == 100
    assert result["p50"] == counted
    assert result["max"] == max(entry["tokens"] for entry in result["longest"])
    assert {entry["length"] for entry in result["lengths"]} >= {512, 1024, 2048, 4096, 8192}
    assert sum(entry["rows"] for entry in result["histogram"]) == 100
    assert "train.jsonl:101" in workbench("tokens", "--dataset", str(file), "--model", "tiny-llama").stdout
    assert "nothing-here" in refused("tokens", "--dataset", str(tmp_path / "nothing-here"), "--model", "tiny-llama")


def test_tokens_with_the_chat_template_cost_more() -> None:
    plain = as_json("tokens", "Hello", "--model", "tiny-llama")["results"][0]["tokens"]
    wrapped = as_json("tokens", "Hello", "--model", "tiny-llama", "--chat")["results"][0]["tokens"]
    assert wrapped > plain


@pytest.mark.model
def test_inspect_a_catalogue_model_to_the_unit() -> None:
    inspected = as_json("inspect", "llama-3.1-8b")
    assert inspected["parameters"]["total"] == 8_030_261_248
    assert inspected["facts"]["attention_kind"] == "GQA"
    assert sum(inspected["parameters"]["by_component"].values()) == 8_030_261_248
    changed = as_json("inspect", "llama-3.1-8b", "--set", "num_hidden_layers=16")
    assert changed["facts"]["num_hidden_layers"] == 16
    assert changed["parameters"]["total"] < 5_000_000_000
    assert "num_hidden_layers" in refused("inspect", "tiny-llama", "--set", "num_hidden_layer=8")


@pytest.mark.model
def test_vram_says_whether_it_fits() -> None:
    fits = as_json("vram", "llama-3.1-8b", "--quant", "nf4", "--gpu", "24GiB")
    assert fits["gpus"][0]["fits"] is True
    assert fits["estimate"]["total"] == sum(count for key, count in fits["estimate"].items() if key != "total")
    too_big = as_json("vram", "llama-3.1-8b", "--gpu", "8GiB", expect=1)
    assert too_big["gpus"][0]["fits"] is False
    assert too_big["estimate"]["weights"] > fits["estimate"]["weights"]


def test_doctor_reports_this_environment() -> None:
    report = as_json("doctor", "--light")
    assert report["verdict"] in ("healthy", "degraded")
    assert report["facts"]["python"]["executable"]
    assert report["facts"]["packages"]["textual"]


def test_doctor_reads_a_pasted_report_and_refuses_what_is_none() -> None:
    reports = Path(__file__).parents[1] / "data" / "doctor"
    broken = sorted(reports.glob("driver-too-old-for-wheel-cuda--*.txt"))[0]
    found = as_json("doctor", "--from", str(broken), expect=1)
    assert found["verdict"] == "broken"
    assert found["findings"][0]["id"] == "driver-too-old-for-wheel-cuda"
    assert found["findings"][0]["fix"]
    assert "driver-too-old" in workbench("doctor", "--from", "-", stdin=broken.read_bytes(), expect=1).stdout
    assert "Nothing in" in refused("doctor", "--from", "-", stdin="lorem ipsum dolor")


def test_envs_finds_the_one_it_runs_in() -> None:
    found = as_json("envs")["environments"]
    assert any(os.path.realpath(entry["python"]) == os.path.realpath(sys.executable) for entry in found)


@pytest.mark.model
@pytest.mark.timeout(240)
def test_chat_answers_paris_in_four_bits_and_keeps_the_model(shared_cache: Path) -> None:
    first = as_json("chat", "smollm2-135m-instruct", "--quant", "nf4", "--greedy", "--prompt", QUESTION)
    assert "Paris" in first["text"]
    assert first["finish_reason"] == "stop"
    assert first["new_tokens"] == len(first["ids"])
    assert first["memory"]["weights_bytes"] < 120 * 2**20
    assert QUESTION not in first["text"]
    status = as_json("session", "status")
    assert status["model"]["quant"] == "nf4"
    again = workbench("chat", "--greedy", "--prompt", "-", stdin=QUESTION)
    assert again.stdout.strip() == first["text"].strip()
    assert "Unloaded" in workbench("session", "unload").stdout
    assert as_json("session", "status")["model"] is None
    assert "ended" in workbench("session", "stop").stdout


def answering() -> subprocess.Popen[bytes]:
    """A command in the middle of a long answer of the real model."""
    options = ("smollm2-135m-instruct", "--raw", "--greedy", "--max-new-tokens", "4000", "--prompt", "Once upon a time")
    running = subprocess.Popen(
        [sys.executable, "-m", "workbench", "chat", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert running.stdout is not None
    assert running.stdout.read(4)
    return running


@pytest.mark.model
@pytest.mark.timeout(240)
def test_interrupting_an_answer_stops_the_worker_too_and_its_death_is_one_line(shared_cache: Path) -> None:
    running = answering()
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 130
    assert errors == b""
    deadline = time.monotonic() + 10
    while (status := as_json("session", "status"))["lanes"][0]["job"]:
        assert time.monotonic() < deadline

    running = answering()
    os.kill(status["pid"], signal.SIGKILL)
    _, errors = running.communicate(timeout=20)
    assert running.returncode == 2
    assert errors.decode().count("\n") == 1
    assert "died" in errors.decode()


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    not_json = tmp_path / "not-json"
    not_json.mkdir()
    (not_json / "config.json").write_text("{nonsense")
    corrupt = tmp_path / "corrupt.gguf"
    corrupt.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 64)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Grüße".encode("latin-1"))
    assert "no-such-model" in refused("inspect", "no-such-model")
    assert str(empty) in refused("inspect", str(empty))
    assert "config.json" in refused("inspect", str(not_json))
    assert "corrupt.gguf" in refused("tokens", "x", "--model", str(corrupt))
    assert "byte 2" in refused("tokens", "--file", str(latin), "--model", "tiny-llama")
    assert "absent.txt" in refused("tokens", "--file", str(tmp_path / "absent.txt"), "--model", "tiny-llama")
    assert "--model" in refused("tokens", "x")
    assert "no Python interpreter" in refused("doctor", "--python", str(tmp_path / "none"))
    assert "/bin/false" in refused("doctor", "--python", "/bin/false")
    assert "KEY=VALUE" in refused("inspect", "tiny-llama", "--set", "layers")
    assert "divisor" in refused("inspect", "tiny-llama", "--set", "num_key_value_heads=3")
    assert "cannot name a session" in refused("session", "start", "--session", "../x")
    assert "nonsense" in refused("vram", "tiny-llama", "--gpu", "nonsense")
    assert "without a name" in refused("vram", "tiny-llama", "--gpu", "")
    assert "--lora means nothing for inference" in refused("vram", "tiny-llama", "--lora", "r=8")
    assert "No such command" in refused("fly")


@pytest.mark.model
def test_models_that_cannot_chat_or_are_damaged_say_so_and_the_loaded_one_stays(tmp_path: Path) -> None:
    workbench("chat", "tiny-llama", "--max-new-tokens", "1", "--prompt", "hi")
    assert "encoder" in refused("chat", "tiny-bert", "--prompt", "x")
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in (data_dir("sample_models") / "tiny-llama").iterdir():
        data = file.read_bytes()
        (damaged / file.name).write_bytes(data[: len(data) // 2] if file.suffix == ".safetensors" else data)
    assert "temperature" in refused("chat", "tiny-llama", "--temperature", "-1", "--prompt", "x")
    assert as_json("session", "status")["model"]["name"] == "tiny-llama"
    assert "safetensors" in refused("chat", str(damaged), "--prompt", "x")
    too_long = workbench("chat", "tiny-t5", "--prompt", "-", stdin="word " * 20_000, expect=2)
    assert "the encoder of this model takes" in too_long.stderr


def test_models_are_named_by_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(data_dir("sample_models") / "tiny-llama", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for name in ("mine", "./mine", "mine/", "../" + tmp_path.name + "/mine"):
        assert as_json("tokens", "Hello", "--model", name)["results"][0]["tokens"]
    assert as_json("models", "where", "./mine")["model"]["path"] == str(tmp_path / "mine")
    assert "absent" in refused("tokens", "Hello", "--model", "./absent")


def test_options_mean_the_same_before_and_after_the_command(tmp_path: Path) -> None:
    assert "no Python interpreter" in refused("--python", str(tmp_path / "none"), "doctor")
    workbench("--session", "mine", "session", "start")
    running = as_json("session", "list")["sessions"]
    assert [entry["session"] for entry in running] == ["mine"]
    assert "--theme" in refused("--theme", "dark", "doctor")


@pytest.mark.model
def test_sampling_options_of_zero_are_meant() -> None:
    def answer(*options: str) -> dict[str, Any]:
        return as_json("chat", "tiny-llama", "--prompt", "hi", "--max-new-tokens", "12", *options)

    cold, seeded = answer("--temperature", "0"), answer("--seed", "0")
    assert cold["greedy"] is True
    assert cold["ids"] == answer("--greedy")["ids"]
    assert seeded["seed"] == 0
    assert seeded["ids"] == answer("--seed", "0")["ids"]
    assert "max-new-tokens" in refused("chat", "tiny-llama", "--prompt", "hi", "--max-new-tokens", "0")
    assert "prompt is empty" in refused("chat", "tiny-llama", "--prompt", "")
    assert "byte 1" in refused("chat", "tiny-llama", "--prompt", "-", stdin=b"x\xff")


def test_one_bad_model_of_several_is_an_error_and_the_rest_is_counted() -> None:
    counted = as_json("tokens", "hi", "--model", "tiny-llama", "--model", "no-such-model", expect=2)
    assert counted["results"][0]["tokens"]
    assert counted["results"][1]["tokens"] is None
    assert "no-such-model" in counted["results"][1]["error"]


def test_usage_errors_are_json_too() -> None:
    found = as_json("vram", "tiny-llama", "--seq", "0", expect=2)
    assert found["error"]["kind"] == "bad-usage"
    assert as_json("session", "bogus", expect=2)["error"]


def test_settings_that_are_wrong_are_said(private_home: Path) -> None:
    folder = private_home / "config" / "workbench"
    folder.mkdir()
    (folder / "settings.toml").write_text("[session]\nkeep_modl_minutes = 3\n")
    assert "keep_modl_minutes" in workbench("session", "start").stderr


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    shell = f"{sys.executable} -m workbench models list | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [("models", "list"), ("inspect", "tiny-llama"), ("inspect", "tiny-llama", "--json")],
    ids=" ".join,
)
def test_a_reader_that_has_gone_is_no_answer(arguments: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "workbench", *arguments]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_start_that_is_given_up_leaves_no_process(tmp_path: Path) -> None:
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 654.321\n")
    slow.chmod(0o755)
    starting = subprocess.Popen(
        [sys.executable, "-m", "workbench", "session", "start", "--python", str(slow)], stderr=subprocess.PIPE
    )
    time.sleep(1.5)
    starting.send_signal(signal.SIGINT)
    _, errors = starting.communicate(timeout=20)
    assert starting.returncode == 130
    assert errors == b""
    assert subprocess.run(["pgrep", "-f", "sleep 654.321"], capture_output=True).returncode == 1


def test_an_error_is_json_too() -> None:
    found = as_json("inspect", "no-such-model", expect=2)
    assert found["error"]["kind"] == "unknown-model"
    assert found["error"]["remedy"]


def test_offline_and_not_here_is_said(private_home: Path) -> None:
    line = refused("models", "get", "org/never-heard-of")
    assert "org/never-heard-of" in line


def test_the_app_refuses_where_it_has_no_terminal() -> None:
    assert "The app cannot open here: standard input and standard error are not both a terminal" in refused()
