"""Python packages against each other, in few words: each message with its finding, and a like one without it."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report

FIRES = {
    "pydantic writes what gradio cannot read": (
        "gradio-versions-apart",
        '  File "E:\\ui\\venv\\lib\\site-packages\\gradio_client\\utils.py", line 898, in get_type\n'
        "    if \"const\" in schema:\nTypeError: argument of type 'bool' is not iterable",
    ),
    "pydantic is given a class of Starlette": (
        "gradio-versions-apart",
        "pydantic.errors.PydanticSchemaGenerationError: Unable to generate pydantic-core schema for "
        "<class 'starlette.requests.Request'>.",
    ),
    "every call is answered with 422": (
        "gradio-versions-apart",
        "gradio 3.23.0, each button fails\nPOST http://127.0.0.1:7860/run/predict 422 (Unprocessable Entity)",
    ),
    "gradio behind a proxy": (
        "gradio-cannot-reach-itself",
        "ValueError: When localhost is not accessible, a shareable link must be created. Please set share=True",
    ),
    "another part of a tokenizer file": (
        "tokenizer-file-of-another-release",
        "!!! Exception !!! data did not match any variant of untagged enum PyPreTokenizerTypeWrapper at line 951",
    ),
    "only the first words of it": (
        "datasets-without-scripts",
        "`trust_remote_code` is not supported anymore.\nRuntimeError   Traceback (most recent call last)",
    ),
    "a pin with a long list": (
        "transformers-pin-conflict",
        '  File "/w/LLaMA-Factory/src/llamafactory/extras/misc.py", line 92, in check_dependencies\n'
        "ImportError: transformers>=4.45.0,<=4.51.3, !=4.46.0,!=4.46.1,!=4.46.2,!=4.46.3,!=4.47.0,!=4.47.1,!=4.48.0 is "
        "required for a normal functioning of this module, but found transformers==4.52.0.dev0.",
    ),
    "a configuration of a later release": (
        "transformers-too-old-for-model",
        '    self.mrope_section = config.rope_scaling.get("mrope_section", [24, 20, 20])\n'
        "AttributeError: 'NoneType' object has no attribute 'get'",
    ),
    "the message first, what raised it below": (
        "gradio-versions-apart",
        "TypeError: argument of type 'bool' is not iterable\nERROR:    Exception in ASGI application\n"
        '  File "/v/lib/python3.12/site-packages/uvicorn/protocols/http/h11_impl.py", line 403, in run_asgi\n',
    ),
    "numpy older than pyarrow's build, which fails as if it were a mixture": (
        "numpy-older-than-build",
        "RuntimeError: module compiled against API version 0xe but this version of numpy is 0xd\n"
        "ImportError: numpy.core.multiarray failed to import",
    ),
    "a release between two bounds, and a newer one": (
        "required-version-missing",
        "ImportError: Datasets requires pyarrow >= 6.0.1, < 7.0.0, but 12.0.1 is installed. Reinstall with",
    ),
    "Unsloth's converter calls python": (
        "python-command-missing",
        "Unsloth: [1] Converting model at model into f16 GGUF format.\n/bin/sh: 1: python: not found\n"
        "RuntimeError: Unsloth: Quantization failed for ./model-unsloth.F16.gguf\n"
        "You might have to compile llama.cpp yourself, then run this again.",
    ),
    "accelerate finds no GPU for half precision": (
        "no-cuda-gpus-available",
        '  File "E:\\k\\venv\\lib\\site-packages\\accelerate\\accelerator.py", line 355, in __init__\n'
        "ValueError: fp16 mixed precision requires a GPU",
    ),
    "a command, in Chinese": ("command-not-found", "'llamafactory-cli' 不是内部或外部命令，也不是可运行的程序"),
    "a command, in PowerShell": (
        "command-not-found",
        "accelerate : The term 'accelerate' is not recognized as the name of a cmdlet, function, script file",
    ),
    "a checkout that was not installed": (
        "program-not-installed",
        "ModuleNotFoundError: No module named 'llamafactory'\nfailed (exitcode: 1) local_rank: 0",
    ),
    "installed, elsewhere": (
        "module-missing",
        "Requirement already satisfied: fire in /home/u/.local/lib/python3.8/site-packages (from -r r.txt) (0.4.0)\n"
        "ModuleNotFoundError: No module named 'fire'",
    ),
    "behind a lazy import": (
        "lazy-import-hides-cause",
        "ModuleNotFoundError: Could not import module 'CLIPTextModel'. Are this object's requirements defined",
    ),
    "a release candidate lacks what its release lacks": (
        "package-versions-do-not-fit",
        "transformers==5.0.0rc1\nAttributeError: Qwen2Tokenizer has no attribute all_special_tokens_extended",
    ),
    "Unsloth's own code": (
        "package-versions-do-not-fit",
        '  File "/v/lib/python3.12/site-packages/unsloth_zoo/utils.py", line 43, in Version\n'
        "ValueError: Invalid version format: <module 'trl' from '/v'>",
    ),
    "code that runs on import": (
        "package-versions-do-not-fit",
        '  File "/v/lib/python3.12/site-packages/deepspeed/elasticity/agent.py", line 20, in <module>\n'
        "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
    ),
    "a metric's script": (
        "metric-script-not-fetched",
        "FileNotFoundError: Couldn't find a module script at /w/wer/wer.py. Module 'wer' doesn't exist on the Hub",
    ),
    "a file beside the program": ("package-shadowed", "AttributeError: module 'evaluate' has no attribute 'load'"),
    "a bare folder": (
        "package-shadowed",
        "ImportError: cannot import name 'load_dataset' from 'datasets' (unknown location)",
    ),
    "a package of the same name": (
        "package-shadowed",
        "AttributeError: module 'whisper' has no attribute 'load_model'",
    ),
    "an error at the end of a line of code": (
        "package-incomplete",
        "from ._pydantic_core import ( ModuleNotFoundError: No module named 'pydantic_core._pydantic_core'\n"
        'Traceback (most recent call last):\n  File "/v/lib/python3.11/site-packages/langchain/v1.py", line 15\n',
    ),
    "a package that has another name now": (
        "package-versions-do-not-fit",
        "Exception: flashinfer with minimum required version 0.1.6 is not installed. Please uninstall the old version",
    ),
    "the Hub is not reached, and the message speaks of a folder": (
        "model-files-missing",
        "OSError: Can't load tokenizer for 'bert-base-uncased'. If you were trying to load it from the Hub",
    ),
    "the second of two attempts": (
        "numpy-mixed",
        "ImportError: cannot import name 'top_k_top_p_filtering' from 'transformers'\n!pip install --upgrade trl\n"
        "Now it results in this\nImportError: cannot import name '_center' from 'numpy._core.umath'",
    ),
    "a comma of another script before the error": (
        "model-code-too-old",
        "执行报错，AttributeError: 'ChatGLMTokenizer' object has no attribute 'tokenizer'",
    ),
    "code that a model brings": (
        "model-code-too-old",
        '  File "/root/.cache/huggingface/modules/transformers_modules/x/modeling_x.py", line 12, in forward\n'
        "TypeError: forward() got an unexpected keyword argument 'position_embeddings'",
    ),
    "an option of another release": (
        "option-not-known",
        "vllm serve: error: the following arguments are required: model_tag",
    ),
    "trl asks more of vLLM than it knows": (
        "package-versions-do-not-fit",
        '  File "/v/lib/python3.10/site-packages/trl/scripts/vllm_serve.py", line 238, in main\n'
        '  File "/v/lib/python3.10/site-packages/vllm/entrypoints/llm.py", line 212, in __init__\n'
        "TypeError: EngineArgs.__init__() got an unexpected keyword argument 'worker_extension_cls'",
    ),
    "pkg_resources refuses": (
        "required-version-missing",
        "pkg_resources.DistributionNotFound: The 'transformers<4.45,>=4.33' distribution was not found and is required "
        "by ms-swift",
    ),
    "a part of ms-swift": ("program-not-installed", "ImportError: No module named swift.llm"),
    "httpx that calls it proxies": (
        "package-versions-do-not-fit",
        '  File "/p/venv/lib/python3.11/site-packages/starlette/routing.py", line 732, in lifespan\n'
        '  File "/p/routes.py", line 39, in lifespan\n'
        "TypeError: AsyncClient.__init__() got an unexpected keyword argument 'proxy'",
    ),
    "one wants a newer hub, another an older one": (
        "package-versions-do-not-fit",
        "cannot import name 'cached_download' from 'huggingface_hub' (/p/huggingface_hub/__init__.py)\nwith 0.25.2:\n"
        "ImportError: huggingface-hub>=0.26.0,<1.0 is required for a normal functioning of this module, but found "
        "huggingface-hub==0.25.2.",
    ),
    "a class that left langchain": (
        "langchain-parts-moved",
        "ImportError: cannot import name 'SentenceTransformerEmbeddings' from 'langchain.embeddings' (/v/__init__.py)",
    ),
    "an exception told without its name": (
        "module-missing",
        "all runs well, but then: Could not import sentence_transformers python package. Please install it with `pip "
        "install sentence_transformers`",
    ),
    "compiled for NumPy 1, run with 2": (
        "numpy2-with-old-torch",
        "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 96 from C header, got 88 "
        "from PyObject",
    ),
    "compiled for NumPy 2, run with 1": (
        "numpy-older-than-build",
        "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected 88 from C header, got 96 "
        "from PyObject",
    ),
    "a program started from another folder": (
        "program-file-not-found",
        "D:\\C\\python_embeded\\python.exe: can't open file 'D:\\C\\ComfyUI\\custom_nodes\\x\\ComfyUI\\main.py': "
        "[Errno 2] No such file or directory",
    ),
    "DeepSpeed without prepare": (
        "model-not-prepared",
        "[rank0]: AttributeError: 'Accelerator' object has no attribute 'deepspeed_config'",
    ),
    "a lightning of today": (
        "package-versions-do-not-fit",
        "when run the trainer, TypeError: __init__() got an unexpected keyword argument 'gpus'",
    ),
    "torchaudio without its backends": (
        "package-versions-do-not-fit",
        "ERROR - process_audio: module 'torchaudio' has no attribute 'set_audio_backend'",
    ),
    "openai that hands on proxies": (
        "package-versions-do-not-fit",
        "TypeError: Client.__init__() got an unexpected keyword argument 'proxies'",
    ),
}
OTHERWISE = {
    "a name that a package has lost": (
        "package-shadowed",
        "AttributeError: module 'datasets' has no attribute 'load_metric'",
    ),
    "an installed package": (
        "package-shadowed",
        "ImportError: cannot import name 'Dataset' from 'datasets' (/v/lib/site-packages/datasets/__init__.py)",
    ),
    "a command of the system": ("command-not-found", "bash: nvcc: command not found"),
    "a word that is no command": ("command-not-found", "model: vllm config not found"),
    "an error while a program runs": (
        "package-versions-do-not-fit",
        '  File "/v/lib/python3.12/site-packages/deepspeed/engine.py", line 20, in step\n'
        "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
    ),
    "a dict that cannot be hashed, elsewhere": ("gradio-versions-apart", "TypeError: unhashable type: 'dict'"),
    "a bool that is no list, elsewhere": (
        "gradio-versions-apart",
        "  File \"train.py\", line 3\nTypeError: argument of type 'bool' is not iterable",
    ),
}


@pytest.mark.parametrize("name", FIRES)
def test_the_first_finding_is_the_cause(name: str) -> None:
    expected, text = FIRES[name]
    findings = diagnose(parse_report(text)).findings
    assert [finding.id for finding in findings][:1] == [expected]


@pytest.mark.parametrize("name", OTHERWISE)
def test_a_like_message_does_not_give_it(name: str) -> None:
    unexpected, text = OTHERWISE[name]
    assert unexpected not in [finding.id for finding in diagnose(parse_report(text)).findings]


NO_SCRIPTS = "RuntimeError: Dataset scripts are no longer supported, but found {}.py"
FRAME = '  File "{}datasets{}load.py", line 9, in load_dataset\n'


@pytest.mark.parametrize(
    ("folder", "step"),
    [
        ("/srv/app/.venv/lib/python3.11/site-packages/", "source /srv/app/.venv/bin/activate"),
        ("C:\\ui\\venv\\Lib\\site-packages\\", "C:\\ui\\venv\\Scripts\\activate"),
        ("D:\\my ui\\venv\\Lib\\site-packages\\", '& "D:\\my ui\\venv\\Scripts\\activate"'),
        ("\\.venv\\Lib\\site-packages\\", ".venv\\Scripts\\activate"),
        (
            "D:\\ComfyUI\\python_embeded\\Lib\\site-packages\\",
            "D:\\ComfyUI\\python_embeded\\python.exe -m pip install",
        ),
        ("/home/u/.local/pipx/venvs/web-ui/lib/python3.12/site-packages/", "pipx runpip web-ui install"),
        ("/usr/local/lib/python3.10/dist-packages/", "python -m pip install"),
        ("C:\\Users\\u\\AppData\\Local\\Programs\\Python\\Python310\\Lib\\site-packages\\", "python -m pip install"),
        ("/x/$(reboot)/venv/lib/python3.11/site-packages/", "source /venv/bin/activate"),
    ],
)
def test_packages_go_into_the_environment_that_the_paths_lie_in(folder: str, step: str) -> None:
    text = FRAME.format(folder, folder[-1]) + NO_SCRIPTS.format("reviews")
    assert diagnose(parse_report(text)).findings[0].fix[0].startswith(step)


AUTO = '  File "/p/lib/python3.10/site-packages/transformers/models/auto/configuration_auto.py", line 951\n'


@pytest.mark.parametrize(
    ("text", "title", "step"),
    [
        (
            "KeyError: 'gemma2' even with Transformers 4.41.0\n" + AUTO,
            "transformers 4.41.0 does not know gemma2, which came with transformers 4.42",
            'python -m pip install -U "transformers>=4.42,<5"',
        ),
        (
            "transformers 5.15.0.dev0\nThe checkpoint has model type `gemma4_unified` but Transformers does not "
            "recognize this architecture",
            "transformers 5.15.0.dev0 knows gemma4_unified: the program runs with an older one",
            "Restart the notebook kernel or the program.",
        ),
        (
            '  File "/p/lib/python3.12/site-packages/vllm/transformers_utils/config.py", line 286, in get_config\n'
            + AUTO
            + "KeyError: 'qwen2_5_omni'",
            "transformers does not know qwen2_5_omni, which came with transformers 4.52",
            "python -m pip install -U vllm",
        ),
        (
            '  File "/w/LLaMA-Factory/src/llamafactory/model/loader.py", line 104\n' + AUTO + "KeyError: 'qwen3_next'",
            "transformers does not know qwen3_next, which came with transformers 4.57",
            'python -m pip install -U "transformers>=4.57,<5"',
        ),
    ],
)
def test_the_release_that_knows_a_model_is_named(text: str, title: str, step: str) -> None:
    finding = diagnose(parse_report(text)).findings[0]
    assert finding.title.startswith(title)
    assert finding.fix[0].startswith(step)
    assert ("DISABLE_VERSION_CHECK" in "".join(finding.fix)) is ("LLaMA-Factory" in text)


def test_a_command_is_put_on_the_path_of_the_folder_that_pip_named() -> None:
    told = (
        "WARNING: The script huggingface-cli is installed in '/Users/d/Library/Python/3.9/bin' which is not on PATH.\n"
    )
    assert diagnose(parse_report(told)).findings == ()
    fix = diagnose(parse_report(told + "zsh: command not found: huggingface-cli")).findings[0].fix
    assert fix[0].startswith('export PATH="/Users/d/Library/Python/3.9/bin:$PATH"')


def test_all_that_a_message_asks_for_is_installed() -> None:
    text = "ImportError: Loading a GPTQ model requires optimum (`pip install optimum`) and `pip install auto-gptq`"
    assert diagnose(parse_report(text)).findings[0].fix[0] == "python -m pip install -U optimum auto-gptq"


def test_the_model_that_is_to_be_fetched_is_named() -> None:
    text = (
        "OSError: We couldn't connect to 'https://huggingface.co' to load this file, couldn't find it in the cached "
        "files and it looks like bert-base-uncased is not the path to a directory containing a file named config.json."
    )
    assert "hf download bert-base-uncased --local-dir" in "".join(diagnose(parse_report(text)).findings[0].fix)


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("Can't load tokenizer for '/converted/model'.", "what was trained or converted there: copy the tokenizer's"),
        (
            "Can't load tokenizer for 'E:\\m\\models--a--b'. C:\\Users\\u\\python.exe",
            "hf download <owner>/<model> --local-dir E:\\m\\models--a--b ",
        ),
        (
            "a/b-7b does not appear to have a file named config.json.",
            "Look at the repository's list of files: https://hugg",
        ),
        (
            "401 Client Error. Repository Not Found for url: https://huggingface.co/llm/x-7b/resolve/main/c",
            "ls -la llm/x-7b ",
        ),
        (
            "Cannot access gated repo for url https://huggingface.co/meta/L-3.2-1B/resolve/main/config.json.",
            "Accept the licence on https://huggingface.co/meta/L-3.2-1B, ",
        ),
    ],
)
def test_the_folder_or_repository_at_hand_is_named(text: str, step: str) -> None:
    assert diagnose(parse_report("OSError: " + text)).findings[0].fix[0].startswith(step)


def test_torchaudio_is_taken_back_with_its_torch() -> None:
    text = (
        "torch 2.9.1+cu128\ntorchaudio 2.9.1+cu128\nPython 3.12\n"
        "AttributeError: module 'torchaudio' has no attribute 'info'"
    )
    steps = [step for finding in diagnose(parse_report(text)).findings for step in finding.fix]
    assert any("torch==2.8.*" in step and "torchaudio<2.9" in step and "whl/cu128" in step for step in steps)


def test_a_conflict_has_two_ways_out() -> None:
    text = (
        "autoawq 0.2.8 requires transformers<=4.47.1,>=4.45.0, but you have transformers 4.49.0 which is incompatible."
    )
    steps = [step for finding in diagnose(parse_report(text)).findings for step in finding.fix]
    assert any("to keep transformers 4.49.0" in step and "autoawq" in step for step in steps)


def test_the_package_that_refuses_numpy_2_is_named() -> None:
    text = (
        '  File "/v/lib/python3.9/site-packages/sklearn/__init__.py", line 82, in <module>\n    import scipy.linalg\n'
        '  File "/v/lib/python3.9/site-packages/scipy/linalg/blas.py", line 213, in <module>\n'
        "    from scipy.linalg import _fblas\nAttributeError: _ARRAY_API not found"
    )
    first = diagnose(parse_report(text)).findings[0]
    assert first.title == "scipy was built for NumPy 1, but NumPy 2 is installed"


def test_no_release_is_asked_for_that_no_release_can_be() -> None:
    steps = diagnose(parse_report(FIRES["one wants a newer hub, another an older one"][1])).findings[0].fix
    assert "diffusers" in steps[0]
    assert "<0.26" not in "".join(steps)


def test_a_conda_environment_in_a_program_of_unix_is_used_by_its_python() -> None:
    text = FRAME.format("/srv/ui/installer_files/env/lib/python3.11/site-packages/", "/") + NO_SCRIPTS.format("reviews")
    assert diagnose(parse_report(text)).findings[0].fix[0].startswith("/srv/ui/installer_files/env/bin/python -m pip")


def test_a_torch_that_was_replaced_alone_is_brought_back() -> None:
    text = (
        "torchaudio 2.7.1+cu128 requires torch==2.7.1+cu128, but you have torch 2.6.0 which is incompatible.\n"
        "torchvision 0.22.1+cu128 requires torch==2.7.1+cu128, but you have torch 2.6.0 which is incompatible."
    )
    findings = {finding.id: finding for finding in diagnose(parse_report(text)).findings}
    back = findings["torchvision-torch-mismatch"].fix
    assert "torch==2.7.*" in back[0]
    assert "whl/cu128" in back[0]
    assert "torch==2.6.0" in back[1]
    assert all("whl/cu128" in step for step in findings["requirement-conflicts"].fix)


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        (
            "huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach https://huggingface.co/x: offline mode is on",
            True,
        ),
        ("LocalEntryNotFoundError: Cannot find the files in the cache and outgoing traffic has been disabled.", True),
        ("OSError: We couldn't connect to 'https://huggingface.co' to load this file", False),
    ],
)
def test_a_hub_that_may_not_be_asked_is_told_from_one_that_is_not_reached(text: str, forbidden: bool) -> None:
    first = diagnose(parse_report(text)).findings[0]
    assert first.id == "hf-offline"
    assert ("setting" in first.title) is forbidden
    assert any("HF_ENDPOINT" in step for step in first.fix) is not forbidden
    assert ("HF_HUB_OFFLINE" in first.fix[0]) is forbidden


CAUSED = "ERROR: these package versions have conflicting dependencies.\n\nThe conflict is caused by:\n"


@pytest.mark.parametrize(
    ("sides", "step"),
    [
        (
            (
                "    The user requested tokenizers==0.10.3",
                "    transformers 4.32.0 depends on tokenizers!=0.11.3, <0.14 and >=0.11.1",
            ),
            "In the requirements: tokenizers!=0.11.3,<0.14,>=0.11.1 in place of tokenizers==0.10.3",
        ),
        (
            (
                "    The user requested huggingface_hub==1.12.0",
                "    datasets 4.8.4 depends on huggingface-hub<2.0 and >=0.25.0",
                "    **transformers 4.51.3 depends on huggingface-hub<1.0 and >=0.30.0**",
            ),
            "In the requirements: huggingface-hub<1.0,>=0.30.0 in place of huggingface-hub==1.12.0",
        ),
        (
            (
                '    sglang[srt] 0.4.9 depends on torch==2.7.1; extra == "srt"',
                "    flashinfer-python 0.2.7 depends on torch",
                "    flashinfer-python 0.2.7 depends on torch==2.8.*",
            ),
            "In the requirements: sglang without a version",
        ),
        (("    something else",), "Loosen one of the requirements that the message names"),
    ],
)
def test_the_side_that_gives_way_is_named(sides: tuple[str, ...], step: str) -> None:
    findings = {finding.id: finding for finding in diagnose(parse_report(CAUSED + "\n".join(sides))).findings}
    assert findings["requirements-contradict"].fix[0].startswith(step)
