"""What a program says of one that it started or called, and tracebacks that break off: what decides all the same."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report

CUT = (
    "Traceback (most recent call last):\n"
    '  File "C:\\py\\lib\\site-packages\\whisper\\audio.py", line 46, in load_audio\n'
    "    ffmpeg.input(file, threads=0)\n"
    '  File "C:\\py\\lib\\site-packages\\ffmpeg\\_run.py", line 284, in run_async\n'
    "    return subprocess.Popen(\n"
    '  File "C:\\py\\lib\\subprocess.py", line 971, in __init__\n'
    "    self._execute_child(args, executable, preexec_fn, close_fds,\n"
)
CHECKED = (
    "Traceback (most recent call last):\n"
    '  File "/opt/factory/src/loader.py", line 21, in <module>\n'
    '    require_version("transformers>=4.36.2", "To fix: pip install transformers>=4.36.2")\n'
    '  File "/usr/lib/python3/dist-packages/transformers/utils/versions.py", line 111, in require_version\n'
)
OLLAMA = '  File "/opt/venv/lib/python3.12/site-packages/ollama/_client.py", line 70, in _request\n'
LAUNCHER = (
    "subprocess.CalledProcessError: Command '['D:\\\\kohya\\\\venv\\\\Scripts\\\\python.exe', 'train_network.py', "
    "'--seed=1']' returned non-zero exit status {}.\n"
)
WRAPPED = (
    "CalledProcessError: Command \n'['D:\\\\trainer\\\\python.exe', \n'D:\\\\trainer/sdxl_train_network.py', \n"
    "'--seed=1']' returned non-zero \nexit status 1.\n"
)
OF_PYDANTIC = (
    '  File "/opt/venv/lib/python3.11/site-packages/pydantic/_internal/_model_construction.py", line 221, in '
    "__getattr__\n    raise AttributeError(item)\nAttributeError: {}\n"
)
OF_TRAINER = (
    '  File "/home/u/net/tuner.py", line 14, in setup\n    x = trainer.{0}\n'
    "AttributeError: 'Trainer' object has no attribute '{0}'\n"
)


def _first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


def test_a_traceback_cut_where_ffmpeg_is_started() -> None:
    assert _first(CUT).title.startswith("ffmpeg is most likely not installed")
    assert _first(CUT).fix[0].startswith("winget install Gyan.FFmpeg")
    assert "ffmpeg" not in _first(CUT + "PermissionError: [WinError 5] Access is denied\n").title
    assert _first(CUT.replace("ffmpeg", "tool").replace("whisper", "tool")).id == "traceback-cut"


def test_a_traceback_cut_in_the_check_of_a_version() -> None:
    found = _first(CHECKED)
    assert found.id == "required-version-missing"
    assert "transformers>=4.36.2" in found.fix[0]
    assert _first(CHECKED.replace("transformers/utils/versions", "factory/other")).id == "traceback-cut"


@pytest.mark.parametrize(
    "text",
    [
        OLLAMA + "httpx.ConnectError: [Errno 111] Connection refused\n",
        OLLAMA + "httpx.ConnectError: All connection attempts failed\n",
        "I call llama3 of ollama out of a container:\nhttpx.ConnectError: [Errno 111] Connection refused\n",
    ],
)
def test_httpx_does_not_say_that_it_was_ollama(text: str) -> None:
    assert _first(text).id == "server-not-reached"
    assert any("OLLAMA_HOST" in step for step in _first(text).fix)


def test_a_connection_to_something_else_is_not_ollamas() -> None:
    text = "ollama==0.4.1\nhttpx.ConnectError: [Errno 111] Connection refused\n"
    assert _first(text).id != "server-not-reached"


@pytest.mark.parametrize("text", [LAUNCHER.format(1), WRAPPED])
def test_a_launcher_only_says_that_its_program_ended(text: str) -> None:
    assert _first(text).id == "cause-stands-above"


def test_what_stands_above_the_launcher_is_judged() -> None:
    above = "RuntimeError: the wheels of this train do not fit its rails\n"
    assert "wheels" in str(_first(above + LAUNCHER.format(1)).evidence)
    above = "ImportError: cannot import name 'find_executable_batch_size' from 'accelerate.utils'\n"
    assert _first(above + LAUNCHER.format(1)).id == "accelerate-import-error"
    assert _first(LAUNCHER.format(3221225477)).id == "crash-in-compiled-code"


@pytest.mark.parametrize("name", ["__config__", "config"])
def test_what_was_written_for_pydantic_1(name: str) -> None:
    found = _first(OF_PYDANTIC.format(name))
    assert found.id == "pydantic-too-new"
    assert any("pydantic<2" in step for step in found.fix)


def test_a_name_of_a_model_that_the_program_lacks_is_not_pydantics() -> None:
    assert _first(OF_PYDANTIC.format("temperature")).id != "pydantic-too-new"


@pytest.mark.parametrize(("name", "pin"), [("training_type_plugin", "<1.8"), ("num_devices", ">=1.6")])
def test_what_the_trainer_of_lightning_had_and_has(name: str, pin: str) -> None:
    assert f"pytorch-lightning{pin}" in _first(OF_TRAINER.format(name)).fix[0]


def test_an_error_told_beside_the_word_warning_counts() -> None:
    text = "It is `AttributeError: module 'torchaudio' has no attribute 'list_audio_backends'` now, once a warning\n"
    assert _first(text).id == "package-versions-do-not-fit"
    # A warning of an import that failed and was passed over stays one.
    with_warning = "UserWarning: AttributeError: module 'torchaudio' has no attribute 'list_audio_backends'\n"
    told = diagnose(parse_report("torch 2.9.0\n" + with_warning + "torchaudio 2.9.0\n"))
    assert "package-versions-do-not-fit" not in [finding.id for finding in told.findings]


def test_a_whole_error_counts_before_one_that_was_cut() -> None:
    text = (
        '  File "/opt/venv/lib/python3.10/site-packages/trl/trainer/sft_trainer.py", line 401, in __init__\n'
        "    super().__init__(\nTypeError: Trainer.__init__() got an unexpected keyword argument 'tokenizer'\n"
        "With processing_class:\nTypeError: SFTTrainer.__init__() got an unexpected keyword argument\n"
    )
    assert _first(text).title.startswith("trl is too old for transformers")


def test_the_environment_that_webui_starts_with() -> None:
    text = "venv \"E:\\webui\\venv\\Scripts\\Python.exe\"\nModuleNotFoundError: No module named 'pytorch_lightning'\n"
    facts = parse_report(text)
    assert (facts.python.kind, facts.python.prefix) == ("venv", "E:\\webui\\venv")


def test_devices_of_ctranslate2_have_no_number() -> None:
    found = _first("ValueError: unsupported device cuda:1\n")
    assert found.id == "device-number-apart"
    assert "device_index=1" in found.fix[0]
    assert _first("ValueError: unsupported device npu\n").id != "device-number-apart"


def test_accelerate_launch_without_a_configuration() -> None:
    line = "    mixed_precision = PrecisionType(args.mixed_precision.lower())\n"
    error = "AttributeError: 'NoneType' object has no attribute 'lower'\n"
    assert _first(line + error).id == "accelerate-not-configured"
    assert _first("    name = args.model.lower()\n" + error).id != "accelerate-not-configured"
