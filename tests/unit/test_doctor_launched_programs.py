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


# Where the paths of no package are shown, and the program's own folder tells of the environment that it always has.
IN_A_PROGRAM = "  File \"{}\", line 3, in <module>\n    import cv2\nModuleNotFoundError: No module named 'cv2'\n"


@pytest.mark.parametrize(
    ("text", "activated"),
    [
        (IN_A_PROGRAM.format("G:\\SM\\Data\\Packages\\ComfyUI\\nodes.py"), "G:\\SM\\Data\\Packages\\ComfyUI\\venv\\"),
        (IN_A_PROGRAM.format("/opt/SM/Data/Packages/kohya_ss/setup/a.py"), "/opt/SM/Data/Packages/kohya_ss/venv/"),
        (IN_A_PROGRAM.format("D:\\ai\\stable-diffusion-webui\\launch.py"), "D:\\ai\\stable-diffusion-webui\\venv\\"),
        (
            "** Python executable: E:\\Comfy\\.venv\\Scripts\\python.exe\n"
            + IN_A_PROGRAM.format("E:\\App\\ComfyUI\\nodes.py"),
            "E:\\Comfy\\.venv\\",
        ),
        (
            "  creator CPython3Windows(dest=D:\\x\\kohya\\venv, clear=False)\n"
            + IN_A_PROGRAM.format("D:\\x\\kohya\\a.py"),
            "D:\\x\\kohya\\venv\\",
        ),
    ],
)
def test_the_environment_in_a_programs_own_folder(text: str, activated: str) -> None:
    steps = _first(text).fix
    assert any(f"{activated}Scripts\\activate" in step or f"{activated}bin/activate" in step for step in steps), steps


@pytest.mark.parametrize(
    "text",
    [
        IN_A_PROGRAM.format("/stable-diffusion-webui/launch.py"),  # an image has none
        IN_A_PROGRAM.format("/content/stable-diffusion-webui/launch.py"),
        '  File "C:\\Python310\\lib\\site-packages\\x\\y.py", line 3, in y\n'
        + IN_A_PROGRAM.format("D:\\ai\\stable-diffusion-webui\\launch.py"),
        IN_A_PROGRAM.format("D:\\ai\\my-project\\launch.py"),
    ],
)
def test_no_environment_is_made_up(text: str) -> None:
    assert not any("activate" in step for step in _first(text).fix)


def test_the_number_typed_before_a_command_is_changed_there() -> None:
    text = (
        "$ CUDA_VISIBLE_DEVICES={} python main.py --lr 1\n"
        "RuntimeError: cuda runtime error (38) : no CUDA-capable device is detected\n"
        "| NVIDIA-SMI 535.54.03   Driver Version: 535.54.03   CUDA Version: 12.2 |\n"
    )
    assert _first(text.format("3")).fix[0].startswith("CUDA_VISIBLE_DEVICES=0 python main.py --lr 1   #")
    assert not any("CUDA_VISIBLE_DEVICES=0 python" in step for step in _first(text.format("0")).fix)


def test_titles_turn_pythons_words() -> None:
    told = _first("[Bug]: I can't import name packaging from pkg_resources on a fresh install")
    assert told.id == "setuptools-mismatch"
    assert "pip install insightface" in _first("Reactor: No module named insightface").fix[0]


def test_compiled_packages_that_were_never_there() -> None:
    found = _first("ModuleNotFoundError: No module named 'detectron2'\n")
    assert found.id == "module-missing"
    assert "git+https://github.com/facebookresearch/detectron2" in found.fix[0]
    assert "--no-deps" not in found.fix[0]
    old = (
        "ImportError: /home/u/.local/lib/python3.8/site-packages/detectron2/_C.cpython-38-x86_64-linux-gnu.so: "
        "undefined symbol: _ZNK2at10TensorBase8data_ptrIdEEPT_v\ntorch 1.9.0+cu111\n"
    )
    assert any("wheels/cu111/torch1.9/index.html" in step for step in _first(old).fix)


def test_what_pip_offered_torn_by_the_terminal() -> None:
    text = (
        "ERROR: Could not find a version that satisfies the requirement transformers>=3.0.2 (from a) (fr\n"
        "om versions: 0.1, 2.0.0, 2.5.0, 2.5.1)\nERROR: No matching distribution found for transformers>=3.0.2\n"
    )
    assert "ends there with 2.5.1" in _first(text).title


@pytest.mark.parametrize(
    ("path", "python"),
    [
        ("C:\\ai\\ComfyUI_windows_portable\\ComfyUI\\nodes.py", "C:\\ai\\ComfyUI_windows_portable\\python_embeded"),
        ("D:\\webui_forge_cu121_torch21\\webui\\launch.py", "D:\\webui_forge_cu121_torch21\\system\\python"),
        ("E:\\x y\\sd.webui\\webui\\launch.py", "E:\\x y\\sd.webui\\system\\python"),
        ("Pack\\python_standalone\\Lib\\cv3\\a.py", "Pack\\python_standalone"),
    ],
)
def test_the_python_that_a_ready_made_package_brings(path: str, python: str) -> None:
    found = _first(f'Traceback (most recent call last):\n  File "{path}", line 3, in a\n{BNB}')
    assert python in "".join(found.fix), found.fix


BNB = "bitsandbytes\\cextension.py CUDA Setup failed despite GPU being available. Please run the following command\n"


def test_programs_that_need_torchvision_get_it_with_torch() -> None:
    told = "AssertionError: Torch not compiled with CUDA enabled\n{} on Windows 11, RTX 3060, torch 2.6.0+cpu\n"
    for program in ("FramePack", "InvokeAI", "kohya_ss", "framepack_cu126"):
        assert any("torchvision==" in step for step in _first(told.format(program)).fix), program
    assert not any("torchvision" in step for step in _first(told.format("my script")).fix)


def test_pipx_by_the_command_that_installed_the_program() -> None:
    told = "`pipx install insanely-fast-whisper --force`\nAssertionError: Torch not compiled with CUDA enabled\n"
    assert _first(told).fix[0].startswith("pipx runpip insanely-fast-whisper uninstall")
    assert "pipx" not in "".join(_first(told.replace("pipx", "pip")).fix)


def test_the_system_by_what_only_its_nvidia_smi_tells() -> None:
    row = "|   0  NVIDIA GeForce RTX 4080 L...  WDDM | 00000000:01:00.0  On |                  N/A |\n"
    told = "| NVIDIA-SMI 532.09    Driver Version: 532.09    CUDA Version: 12.1 |\n" + row
    assert parse_report(told).platform.system == "Windows"
    assert parse_report(told + "inside WSL: nvidia-smi fails\n").platform.system != "Windows"
    assert parse_report(told.replace("WDDM", " Off")).platform.system is None


def test_builds_for_cuda_on_a_mac() -> None:
    told = (
        "/Users/me/w $ python -m pip install torch --index-url https://download.pytorch.org/whl/cu121\n"
        "ERROR: Could not find a version that satisfies the requirement torch (from versions: none)\n"
        "ERROR: No matching distribution found for torch\nmacOS 14, M2\n"
    )
    assert "no builds for a Mac" in _first(told).title
    assert "index-url" not in _first(told).fix[0].split("#")[0]


def test_blackwell_told_without_a_model() -> None:
    told = "CUDA error: no kernel image is available for execution on the device ({})\n"
    assert "whl/cu128" in _first(told.format("Blackwell GPU")).fix[0]
    assert "get_arch_list" in _first(told.format("my GPU")).fix[0]


def test_after_a_fresh_driver_a_reboot_comes_first() -> None:
    told = "RuntimeError: CUDA unknown error - this may be due to an incorrectly set up environment\n"
    assert _first("I just installed the nvidia driver.\n" + told).fix[0].startswith("sudo reboot")
    assert _first(told).fix[0].startswith("sudo rmmod nvidia_uvm")
    again = "I just installed the nvidia driver and rebooted, still the same.\n" + told
    assert _first(again).fix[0].startswith("sudo rmmod nvidia_uvm")


def test_an_override_in_bashrc_does_not_reach_ollamas_service() -> None:
    told = (
        "Ollama uses only the CPU. The 6700M GPU runs stable diffusion, Ubuntu 22.04 with AMD ROCm installed.\n"
        "AMD ROCm setup in .bashrc\nexport {}HSA_OVERRIDE_GFX_VERSION=10.3.0\nHow to enable my AMD GPU?\n"
    )
    found = _first(told.format(""))
    assert "shell alone" in found.title
    assert 'Environment="HSA_OVERRIDE_GFX_VERSION=10.3.0"' in found.fix[0]
    assert "shell alone" not in _first(told.format("NO_")).title


def test_an_import_cut_off_behind_the_file_of_an_extension() -> None:
    told = "ImportError: /e/lib/python3.8/site-packages/mmcv/_ext.cpython-38-x86_64-linux-gnu.so:{}\n"
    found = _first(told.format(""))
    assert found.id == "extension-built-for-other-torch"
    assert found.title.startswith("mmcv")
    other = _first(told.format(" cannot open shared object file: No such file or directory"))
    assert other.id != "extension-built-for-other-torch"
