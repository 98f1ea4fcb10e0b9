"""Errors that no table of messages knows: what their own words, the traceback and the releases' times still tell."""

from __future__ import annotations

import itertools
import re

import pytest

from workbench.doctor.changes import asker_here, askers_of, by_time, change_of, change_of_call, month_of, never_there
from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.exceptions import last_exception
from workbench.doctor.parse.report import parse_report
from workbench.doctor.tables import names_read, packages_read, table
from workbench.doctor.versions import at_least, normalize, older, parse_requirement, parse_version, satisfies

SITE = '  File "/home/u/.venv/lib/python3.11/site-packages/{}/core.py", line 12, in <module>\n'


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


def trace(*packages: str) -> str:
    return "Traceback (most recent call last):\n" + "".join(SITE.format(name) for name in packages)


MISFITS = {
    "name added later": (
        "torch==2.1.0\naccelerate==1.0.1\n"
        + trace("accelerate")
        + "AttributeError: module 'torch' has no attribute 'xpu'",
        "torch 2.1.0 is too old for accelerate 1.0.1: xpu came with torch 2.3",
        "torch",
    ),
    "name removed": (
        "pyarrow==21.0.0\ndatasets==2.10.0\n"
        + trace("datasets")
        + "AttributeError: module 'pyarrow' has no attribute 'PyExtensionType'",
        "datasets 2.10.0 is too old for pyarrow 21.0.0: PyExtensionType is gone since pyarrow 21.0",
        "install -U datasets",
    ),
    "module gone, no versions": (
        trace("diffusers") + "ModuleNotFoundError: No module named 'torchaudio.backend'",
        "diffusers is too old for torchaudio: backend is gone since torchaudio 2.9",
        "install -U diffusers",
    ),
    "argument, and nobody said who calls": (
        "transformers==4.37.2\nTypeError: Accelerator.__init__() got an unexpected keyword argument 'dispatch_batches'",
        "transformers 4.37.2 is too old for accelerate: Accelerator(dispatch_batches) is gone since accelerate 1.0",
        "install -U transformers",
    ),
    "the same argument, by the version that is there": (
        "accelerate==0.24.0\n"
        "TypeError: Accelerator.__init__() got an unexpected keyword argument 'use_seedable_sampler'",
        "accelerate 0.24.0 is too old for transformers: Accelerator(use_seedable_sampler) came with accelerate 0.26",
        "accelerate>=0.26",
    ),
    "another class method of two packages": (
        "transformers==4.47.0\ntrl==0.12.1\nTypeError: DPOTrainer.log() takes 2 positional arguments but 3 were given",
        "trl 0.12.1 is too old for transformers 4.47.0",
        "install -U trl",
    ),
    "only the time of the releases tells": (
        "peft==0.3.0\ntransformers==4.45.0\n"
        + trace("transformers", "peft")
        + "TypeError: inject() got an unexpected keyword argument 'never_heard_of'",
        "peft 0.3.0 is too old for transformers 4.45.0",
        "install -U peft",
    ),
    "Python itself": (
        "Python 3.13.1\n" + trace("librosa") + "ModuleNotFoundError: No module named 'audioop'",
        "librosa is too old for Python 3.13.1: audioop is gone since python 3.13",
        "uv venv --seed --python 3.12",
    ),
    "Python too old": (
        "Python 3.9.1\n"
        + trace("gradio")
        + "ImportError: cannot import name 'batched' from 'itertools' (unknown location)",
        "Python 3.9.1 is too old for gradio: itertools.batched came with python 3.12",
        "uv venv --seed --python 3.12",
    ),
    "prose on the line of the message": (
        "[Bug] AttributeError: module 'torch.amp' has no attribute 'custom_fwd'. Why does this happen on my 3090?",
        "torch is too old for the program: amp.custom_fwd came with torch 2.4",
        "torch",
    ),
    "quoted, behind a log's prefix": (
        "> 2025-01-02 10:00:00 ERROR main: ImportError: cannot import name 'load_metric' from 'datasets' (/x/y.py)",
        "The program is too old for datasets: load_metric is gone since datasets 3.0",
        "datasets<3.0",
    ),
    "the cause of a chain, not its end": (
        "pydantic==1.10.2\n"
        + trace("gradio")
        + "ImportError: cannot import name 'TypeAdapter' from 'pydantic' (/v/site-packages/pydantic/__init__.py)\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        + trace("fastapi")
        + "RuntimeError: the server could not be started",
        "pydantic 1.10.2 is too old for gradio: TypeAdapter came with pydantic 2.0",
        "pydantic>=2.0",
    ),
    "Windows paths": (
        '  File "D:\\ai\\venv\\Lib\\site-packages\\gradio\\blocks.py", line 3, in <module>\n'
        "ImportError: cannot import name 'field_validator' from 'pydantic' (D:\\ai\\venv\\x.pyd)",
        "pydantic is too old for gradio: field_validator came with pydantic 2.0",
        "pydantic>=2.0",
    ),
    "versions in a sentence, and who imports the name is known": (
        "RuntimeError: Failed to import diffusers.loaders.peft because of the following error (look up to see its "
        "traceback):\ncannot import name 'clear_device_cache' from 'accelerate.utils.memory' "
        "(G:\\Lib\\site-packages\\accelerate\\utils\\memory.py)\n"
        "I have diffusers 0.33.1, accelerate 0.31 and peft 0.14",
        "accelerate 0.31 is too old for diffusers 0.33.1: utils.memory.clear_device_cache came with accelerate 0.32",
        "accelerate>=0.32",
    ),
    "who imports it, by a version in a list, and no traceback": (
        "ImportError: cannot import name 'shard_checkpoint' from 'transformers.modeling_utils' (/v/modeling_utils.py)\n"
        "autoawq 0.2.5\ntransformers 4.50.0",
        "autoawq 0.2.5 is too old for transformers 4.50.0: modeling_utils.shard_checkpoint is gone since",
        "autoawq>=0.2.7",
    ),
    "many may ask": (
        "ImportError: cannot import name ‘cached_download‘ from ‘huggingface_hub.",
        "The program, or a package such as diffusers before 0.29, is too old for huggingface-hub",
        "huggingface-hub<0.26",
    ),
    "a class of a model that came as a whole": (
        "transformers 4.34.1\nImportError: cannot import name 'PhiForTokenClassification' from 'transformers'",
        "transformers 4.34.1 is too old for the program: PhiForTokenClassification came with transformers 4.36",
        "transformers>=4.36",
    ),
    "errors within errors": (
        "RuntimeError: Failed to import transformers.models.clip because of the following error (look up to see its "
        "traceback):\nFailed to import transformers.generation because of the following error (look up to see its "
        "traceback):\n'FieldInfo' object has no attribute 'required'\npydantic==2.7.1",
        "deepspeed is too old for pydantic 2.7.1",
        "install -U deepspeed",
    ),
    "what a release asks for": (
        "trl==0.19.0\ntransformers==4.46.0\n" + trace("trl") + "RuntimeError: nothing that anybody knows",
        "transformers 4.46.0 is too old for trl 0.19.0",
        "transformers>=4.51.0",
    ),
    "an old Python does not say where from": (
        "/usr/local/lib/python3.6/dist-packages/pandas/util/testing.py in <module>()\n"
        "---> 28 from pandas.compat import _import_lzma, raise_with_traceback\n"
        "ImportError: cannot import name 'raise_with_traceback'",
        "pandas does not fit itself",
        "Restart",
    ),
}


@pytest.mark.parametrize("name", MISFITS)
def test_who_is_too_old_for_whom_is_told(name: str) -> None:
    text, title, step = MISFITS[name]
    finding = first(text + "\n")
    assert finding.severity == "error"
    assert finding.title.startswith(title)
    assert any(step in line for line in finding.fix)
    assert finding.source.startswith("https://")


LIBRARIES = {
    "torch's own, before torch": (
        "ImportError: libc10.so: cannot open shared object file: No such file or directory",
        "a library of torch",
    ),
    "TensorRT": (trace("tensorrt_llm") + "OSError: libnvinfer.so.10: cannot open shared object file: x", "TensorRT"),
    "nobody's": (trace("foo") + "OSError: libwhatever.so.3: cannot open shared object file: x", "foo does not find"),
    "a symbol of Python": (
        "ImportError: /v/lib/python3.11/site-packages/foo/_core.so: undefined symbol: PyUnicode_AsUTF8Thing",
        "foo does not fit this Python",
    ),
    "a symbol of the driver": (
        "ImportError: /v/lib/python3.11/site-packages/foo/_core.so: undefined symbol: cuGetProcAddress_v2",
        "foo does not fit the driver's libcuda",
    ),
    "damaged": (
        "OSError: /v/lib/python3.11/site-packages/foo/libfoo.so: invalid ELF header",
        "The file libfoo.so is damaged",
    ),
    "a system's copy comes first": (
        "ImportError: /usr/local/cuda/lib64/libfoo.so.2: version `libfoo.so.2.1' not found (required by /v/x.so)",
        "The libfoo.so.2 that is found first in /usr/local/cuda/lib64 is too old",
    ),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_library_that_does_not_load_is_told_with_its_owner(name: str) -> None:
    text, title = LIBRARIES[name]
    finding = first(text + "\n")
    assert finding.id == "library-does-not-load"
    assert title in finding.title
    assert finding.fix


SINGLE = {
    "package-shadowed": "ImportError: cannot import name 'AutoModel' from partially initialized module 'datasets' "
    "(most likely due to a circular import) (/home/u/work/datasets.py)",
    "package-incomplete": trace("pydantic", "pydantic_core")
    + "ModuleNotFoundError: No module named 'pydantic_core._pydantic_core'",
    "required-version-missing": "Exception: flashinfer_python with minimum required version 0.2.5 is not installed.",
    "package-versions-do-not-fit": "TypeError: LlamaForCausalLM.__init__() got an unexpected keyword argument 'zzz'",
    "peft-import-error": "ImportError: cannot import name 'Loraconfig' from 'peft' (/v/site-packages/peft/__init__.py)",
}


@pytest.mark.parametrize("name", SINGLE)
def test_other_words_of_an_exception_that_say_enough(name: str) -> None:
    assert first(SINGLE[name] + "\n").id == name


@pytest.mark.parametrize(
    "text",
    [
        "ImportError: cannot import name 'helper' from 'utils' (/home/u/utils.py)",
        "AttributeError: 'Config' object has no attribute 'rate'",
        "TypeError: train() got an unexpected keyword argument 'epochs'",
        "KeyError: 'input_ids'",
        "Exception: requires 2.0 of something",
        "ValueError: matrix_rank requires ndim >= 2",
        "ValueError: math domain error",
    ],
)
def test_a_program_s_own_errors_are_blamed_on_no_package(text: str) -> None:
    finding = first('Traceback (most recent call last):\n  File "train.py", line 1\n' + text + "\n")
    assert finding.id == "unrecognised-error"
    assert finding.title.startswith("Could not be judged")


def test_a_version_that_has_the_name_is_not_said_to_lack_it() -> None:
    text = trace("accelerate") + "AttributeError: module 'torch' has no attribute 'xpu'\n"
    assert "too old" not in first("torch==2.9.0\n" + text).title
    assert change_of("torch", "xpu", "2.9.0") is None
    assert change_of("pyarrow", "PyExtensionType", "20.0.0") is None
    assert change_of("numpy", "nothing_of_the_kind") is None
    facts = parse_report("accelerate==0.30.0\n")
    assert change_of_call(facts, "Accelerator", "dispatch_batches", ()) is None
    assert change_of_call(facts, "Accelerator", "no_such_thing", ()) is None


def test_what_releases_ask_of_each_other_is_told_where_the_error_is_about_them() -> None:
    versions = "trl==0.19.0\ntransformers==4.46.0\n"
    assert first(versions).title == "transformers 4.46.0 is too old for trl 0.19.0"
    assert first(versions).severity == "warning"
    assert first(versions + trace("somebody") + "RuntimeError: a fault of its own\n").id == "unrecognised-error"
    for fitting in ("trl==0.19.0\ntransformers==4.51.0\n", "trl==0.19.0.dev0\ntransformers==4.46.0\n"):
        assert diagnose(parse_report(fitting)).verdict == "healthy"


def test_a_distribution_that_is_not_found_is_asked_for_as_its_metadata_say() -> None:
    asked = "The 'transformers!=4.46.*,<=4.48.3,>=4.41.2' distribution was not found and is required by {}\n"
    finding = first(
        "RuntimeError: Failed to import x because of the following error (look up to see its traceback):\n"
        + asked.format("llamafactory")
    )
    assert finding.title.startswith("llamafactory asks for transformers!=4.46.*,<=4.48.3,>=4.41.2")
    assert "transformers!=4.46.*,<=4.48.3,>=4.41.2" in finding.fix[0]
    assert first("ERROR: the distribution was not found and is required by many\n").id == "unrecognised-error"


def test_the_package_that_asks_torch_for_a_name_is_the_one_in_the_traceback() -> None:
    text = (
        "transformers==4.40.2\ntorch==2.3.1\ndiffusers==0.35.1\n"
        "RuntimeError: Failed to import diffusers.m because of the following error (look up to see its traceback):\n"
        "module 'torch.library' has no attribute 'custom_op'\n"
    )
    assert first(text).title == "diffusers 0.35.1 needs torch 2.4, but 2.3.1 is installed"
    assert not first(text.replace("torch==2.3.1", "torch==2.5.0")).title.startswith("diffusers 0.35.1 needs")


def test_a_name_is_of_the_release_that_the_source_shows() -> None:
    name = "models.llama.modeling_llama.LLAMA_ATTENTION_CLASSES"
    found = change_of("transformers", name, "4.50.0")
    assert found is not None
    assert (found.added, found.version) == (False, "4.48")
    assert change_of("transformers", name, "4.47.1") is None
    assert change_of("transformers", "models.llama.modeling_llama.never_there") is None
    moved = change_of("accelerate", "utils.memory.clear_device_cache")
    assert moved is not None
    assert [item.package for item in askers_of(moved)] == ["diffusers", "peft"]
    assert asker_here(parse_report("diffusers==0.30.0\npeft==0.10.0\n"), moved) == ""
    assert asker_here(parse_report("diffusers==0.35.0\npeft==0.10.0\n"), moved) == "diffusers"


def test_a_version_of_another_time_or_place_is_not_taken_for_the_one_that_is_here() -> None:
    told = "I have diffusers 0.33.1 and {}\nImportError: x\n"
    assert parse_report(told.format("accelerate 0.31")).packages["accelerate"] == "0.31"
    for other in ("it needs accelerate 0.31", "accelerate 0.31 or newer is asked for", "accelerate 0.31/0.32"):
        assert "accelerate" not in (parse_report(told.format(other)).packages or {})
    assert "accelerate" not in (parse_report("It worked with accelerate 0.31\n").packages or {})


def test_a_pair_that_is_known_to_part_fits_from_the_release_on_that_mended_it() -> None:
    error = "AttributeError: 'AdamW' object has no attribute 'train'\ntransformers==4.45.2\n"
    assert first(error + "accelerate==0.33.0\n").title.startswith(
        "accelerate 0.33.0 is too old for transformers 4.45.2"
    )
    assert "accelerate 1.0.1 is too old" not in first(error + "accelerate==1.0.1\n").title


def test_a_folder_s_name_in_a_traceback_is_not_taken_for_a_package_to_install() -> None:
    text = trace("someones_tool") + "ModuleNotFoundError: No module named 'torchaudio.backend'\n"
    assert not any("-U someones" in step for step in first(text).fix)
    assert any("-m pip install -U someones-tool" in step for step in first("someones-tool==1.0\n" + text).fix)


def test_a_known_message_leaves_nothing_to_be_guessed() -> None:
    text = "AssertionError: Torch not compiled with CUDA enabled\n" + trace("accelerate")
    findings = diagnose(parse_report(text + "AttributeError: module 'torch' has no attribute 'xpu'\n")).findings
    assert findings[0].id == "torch-cpu-only"
    assert "package-versions-do-not-fit" not in {finding.id for finding in findings}


def test_no_verdict_of_health_where_cuda_is_missing_without_a_reason() -> None:
    head = "PyTorch version (GPU?): 1.12.1+cu116 (False)\n- Platform: Linux-{}-x86_64-with-glibc2.31\n"
    unexplained = diagnose(parse_report(head.format("5.15.0-56-generic")))
    assert [finding.id for finding in unexplained.findings] == ["cuda-unavailable-unexplained"]
    assert unexplained.verdict == "degraded"
    assert first(head.format("4.4.0-19041-Microsoft")).title == "WSL 1 has no GPU"
    assert diagnose(parse_report("PyTorch version (GPU?): 1.12.1+cu116 (True)\n")).verdict == "healthy"
    assert diagnose(parse_report("PyTorch version (GPU?): 1.12.1+cpu (False)\n")).verdict == "healthy"


def test_the_time_between_releases_decides_only_where_it_is_known() -> None:
    facts = parse_report("peft==0.3.0\ntransformers==4.45.0\ntrl==0.12.1\naccelerate==0.99.0\nnumpy==99.0\n")
    verdict = by_time(facts, "transformers", "peft")
    assert verdict is not None
    assert (verdict.old, verdict.new) == ("peft", "transformers")
    assert by_time(facts, "transformers", "trl") is not None
    assert by_time(facts, "transformers", "unknown") is None
    # Beyond the table a release is later than its last row, but nobody knows by how much.
    last = list(table("dates")["numpy"].values())[-1].split("-")
    assert month_of("numpy", "99.0") == (int(last[0]) * 12 + int(last[1]), False)
    assert by_time(facts, "numpy", "peft") == by_time(facts, "peft", "numpy")
    assert by_time(parse_report("deepspeed==99.0\ntransformers==5.23.0\n"), "deepspeed", "transformers") is None


def test_a_name_that_no_release_has_is_likely_misspelled_or_newer() -> None:
    said = "ImportError: cannot import name '{}' from 'gradio'\ngradio=={}\n"
    misspelled = first(said.format("ChatBot", "5.1.0"))
    assert "which no release up to" in misspelled.title
    assert misspelled.fix[0].startswith("Write Chatbot ")
    # Of a release that is newer than the table nobody knows; what came or went, or was always there, is known.
    assert [never_there("gradio", name, version) for name, version in (("ChatBot", "99.0"), ("ChatBot", None))] == [
        "",
        "",
    ]
    assert [never_there("gradio", name, "5.1.0") for name in ("Box", "Blocks", "a.b", "_inner")] == [""] * 4
    assert first(said.format("Blocks", "5.1.0")).id == "package-shadowed"
    assert (
        "is gone since triton 3.5"
        in first("ImportError: cannot import name 'triton_key' from 'triton.compiler.compiler'\n").title
    )


@pytest.mark.parametrize(
    ("here", "apart"),
    [
        # By the metadata on PyPI: 0.10.0 asks for transformers>=4.53.2, 0.10.1 for >=4.55.0.
        ("vllm==0.10.0 transformers==4.55.1", False),
        ("vllm==0.10.1 transformers==4.54.1", True),
        ("unsloth==2026.6.8 transformers==5.5.0", False),  # asks for transformers<=5.5.0
        ("unsloth==2026.1.4 transformers==5.0.0", True),
        ("unsloth==2999.1.1 transformers==4.30.0", False),  # of one to come nothing is known
    ],
)
def test_a_release_is_told_what_itself_asks_for_not_what_its_neighbour_does(here: str, apart: bool) -> None:
    findings = diagnose(parse_report("pip list:\n" + here.replace(" ", "\n"))).findings
    assert ("packages-known-apart" in [finding.id for finding in findings]) is apart


def test_the_tables_are_in_order() -> None:
    for name, row in table("changes").items():
        if not isinstance(row, dict):
            continue
        assert row["source"].startswith("https://"), name
        for word in ("added", "removed"):
            assert all(not value or parse_version(value) for value in row.get(word, {}).values()), name
        for key in set(row.get("added", {})) & set(row.get("removed", {})):
            assert older(row["added"][key], row["removed"][key]), key
    for name in packages_read():
        row = names_read(name)
        assert name == normalize(name)
        assert row["source"].startswith("https://"), name
        assert all(parse_version(release) for word in ("added", "removed") for release in row[word]), name
    asked = [table("askers")[package] for package in table("askers") if package not in ("checked", "source")]
    bounds = [item for row in asked for names in row.values() for line in names.values() for item in line.split()]
    assert all(re.fullmatch(r"[\w-]+(?:(?:<|>=)\d[\w.]*)?", item) for item in bounds)
    for name, rows in table("requirements").items():
        if isinstance(rows, dict):
            assert all(at_least(b, a) for a, b in itertools.pairwise(rows)), name
            lines = [text for line in rows.values() for text in line.split()]
            assert all(satisfies("1.0", parse_requirement(text).specifier) is not None for text in lines), name
    for name, rows in table("dates").items():
        if isinstance(rows, dict):
            assert list(rows.values()) == sorted(rows.values()), name
            assert all(at_least(b, a) for a, b in itertools.pairwise(rows)), name


def test_an_endless_chain_and_repeated_lines_come_to_an_end() -> None:
    chain = "ValueError: x\n\nDuring handling of the above exception, another exception occurred:\n\n" * 9000
    repeats = "ImportError: cannot import name 'something_long_enough' from 'nowhere'\n" * 39000
    words = ("a.b.c.aError " * 40 + "\n") * 3000
    found = [last_exception(text.splitlines(), set()) for text in (chain, repeats, words)]
    assert [error is not None for error in found] == [True, True, False]


def test_an_unknown_error_is_told_with_what_its_own_words_ask_for() -> None:
    called = trace("accelerate").replace("<module>", "launch")
    finding = first(called + "OSError: mpirun was not found. Ensure that Open MPI is installed; curl x | sh")
    assert finding.id == "unrecognised-error"
    assert "Ensure that Open MPI is installed" in finding.why
    assert not any("curl" in step for step in finding.fix)
    assert "asks" not in first(called + "OSError: the shape (3, 4) does not match").why


@pytest.mark.parametrize(
    "line",
    [
        "srun: error: Something new that nobody has seen",
        "slurmstepd[1234]: error: couldn't do that",
        "nvidia-container-cli: strange error: 7",
        "exec /opt/run.sh: no such file or directory",
        "docker: Error response from daemon: something else.",
        "SomethingNotFound: no such thing: /home/u/x",
    ],
)
def test_a_tool_s_complaint_is_not_called_healthy(line: str) -> None:
    assert first(f"$ run\n{line}").severity in ("warning", "error")


def test_the_base_class_of_all_models_is_of_no_release() -> None:
    assert change_of("transformers", "PreTrainedModel") is None
    assert change_of("transformers", "PreTrainedTokenizerFast") is None


@pytest.mark.parametrize(
    "line",
    ["torch._dynamo.exc.Unsupported: call_function x", "struct.error: unpack requires 8 bytes", "KeyboardInterrupt"],
)
def test_a_traceback_may_end_in_an_exception_of_any_name(line: str) -> None:
    found = parse_report(trace("accelerate") + "    call()\n" + line).error("unknown-error")
    assert found is not None
    assert found.text == line
    assert parse_report(trace("accelerate") + "    call()\nINFO: going on").error("unknown-error") is None


def test_a_name_that_was_cut_off_is_the_one_of_the_import_above_it() -> None:
    shown = trace("transformers") + "    from huggingface_hub import HfFolder, create_repo, whoami\n"
    found = parse_report(shown + "ImportError: cannot import name 'crea").error("hub-import", "unknown-error")
    assert found is not None
    assert "'create_repo' from 'huggingface_hub'" in found.text
    vague = parse_report(shown.replace("whoami", "create_tag") + "ImportError: cannot import name 'crea")
    assert "create_repo'" not in " ".join(error.text for error in vague.errors)


@pytest.mark.parametrize("rest", [". Run `pip install einops transformers_stream_generator`", ""])
def test_all_that_a_models_own_code_asks_for_is_installed_at_once(rest: str) -> None:
    text = "ImportError: This modeling file requires the following packages that were not found in your environment: "
    finding = first(f"{text}einops, transformers_stream_generator{rest}\n")
    assert finding.id == "module-missing"
    assert finding.fix[0].endswith("einops transformers-stream-generator")


@pytest.mark.parametrize(("name", "release"), [("SAFE_WEIGHTS_NAME", "4.23"), ("cached_file", "4.22")])
def test_what_transformers_utils_has_since_before_the_tables(name: str, release: str) -> None:
    finding = first(f"ImportError: cannot import name '{name}' from 'transformers.utils'\n")
    assert finding.title.startswith("transformers is too old for ")
    assert finding.title.endswith(f"utils.{name} came with transformers {release}")
    assert f"transformers>={release}" in finding.fix[0]


def test_wheel_of_vllm_for_cuda_11_gets_its_own_torch_back() -> None:
    text = (
        "ImportError: /opt/c/envs/v/lib/site-packages/vllm/_C.cpython-39-x86_64-linux-gnu.so: undefined symbol: "
        "_ZN2at4_ops15to_dtype_layout4callE\nexport VLLM_VERSION=0.2.7\npip uninstall torch -y\n"
        "pip install torch --upgrade --index-url https://download.pytorch.org/whl/cu118\n"
    )
    assert first(text).title.startswith("vLLM 0.2.7 was compiled for torch 2.1.2")
    assert any("whl/cu118 torch==2.1.2 xformers==0.0.23.post1" in step for step in first(text).fix)


def test_release_before_all_that_the_tables_know_is_too_old_for_a_name_that_later_ones_have() -> None:
    text = "ImportError: cannot import name 'CamembertModel' from 'transformers' (/opt/e/lib/python3.8/transformers)\n"
    row = "`transformers              2.1.1              pyhd3eb1b0_0`\n"
    assert first(text + row).title.startswith("transformers 2.1.1 is too old for the program: it has no CamembertModel")
    assert "too old" not in first(text + row.replace("2.1.1", "4.40.0")).title


def test_code_of_a_program_is_not_the_models_own() -> None:
    text = "ImportError: cannot import name 'LlamaFlashAttention2' from 'transformers.models.llama.modeling_llama'\n"
    report = diagnose(parse_report(f"transformers 4.48.2\nllamafactory-cli train qwen.yaml\n{text}"))
    assert "model-code-too-old" not in {finding.id for finding in report.findings}


def test_cpu_build_gives_way_to_the_torch_that_xformers_was_made_for() -> None:
    text = (
        "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. xFormers was built for:\n"
        "    PyTorch 2.1.2+cu121 with CUDA 1201 (you have 2.1.0+cpu)\n"
    )
    assert any("whl/cu121 torch==2.1.2" in step for step in first(text).fix)
