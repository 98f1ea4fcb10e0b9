"""What is said of environments that tests/benchmarks/validate_fixes.py broke, by what was really printed there."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report

SITE = '  File "/home/user/venv/lib/python3.11/site-packages/{}", line 12, in <module>\n'


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


def trace(*files: str) -> str:
    frames = "".join(SITE.format(file) for file in files)
    return f'Traceback (most recent call last):\n  File "/home/user/train.py", line 1, in <module>\n{frames}'


def listed(**versions: str) -> str:
    rows = "".join(f"{name.replace('_', '-'):<20} {version}\n" for name, version in versions.items())
    return f"\n$ pip list\nPackage              Version\n-------------------- -------\n{rows}"


LOCAL_FILE = (
    trace("datasets/arrow_writer.py", "fsspec/spec.py", "fsspec/implementations/local.py")
    + "FileNotFoundError: [Errno 2] No such file or directory: '/home/user/data/data-00000-of-00001.arrow'\n"
)


def test_a_data_set_that_is_not_written_because_fsspec_is_newer() -> None:
    finding = first(LOCAL_FILE + listed(datasets="2.8.0", fsspec="2023.10.0"))
    assert finding.title.startswith("datasets 2.8.0 is too old for fsspec 2023.10.0")
    assert any("pip install -U datasets" in step for step in finding.fix)


def test_a_file_of_a_data_set_that_is_really_not_there_is_no_fault_of_fsspec() -> None:
    older = first(LOCAL_FILE + listed(datasets="2.8.0", fsspec="2023.9.0"))
    assert "too old for fsspec" not in older.title
    read = trace("datasets/load.py", "datasets/table.py") + LOCAL_FILE.splitlines()[-1] + "\n"
    assert "too old for fsspec" not in first(read).title


HUB_CONSTANT = trace("transformers/utils/hub.py") + (
    "AttributeError: module 'huggingface_hub.constants' has no attribute 'HF_HUB_CACHE'\n"
)


@pytest.mark.parametrize(
    ("transformers", "wanted"), [("4.37.2", '"huggingface-hub>=0.19,<1"'), ("5.2.0", '"huggingface-hub>=0.19"')]
)
def test_a_hub_that_is_raised_stays_below_the_major_that_transformers_does_not_bear(transformers, wanted) -> None:
    finding = first(HUB_CONSTANT + listed(huggingface_hub="0.17.3", transformers=transformers))
    assert f"install transformers {wanted}" in " ".join(finding.fix)


NO_TRANSFORMERS = trace() + "ModuleNotFoundError: No module named 'transformers'\n"


def test_a_transformers_that_is_gone_comes_back_for_the_accelerate_that_is_here() -> None:
    alone = first(NO_TRANSFORMERS).fix
    assert alone[1] == "Where accelerate and peft are here from before: python -m pip install -U accelerate peft"
    old = " ".join(first(NO_TRANSFORMERS + listed(accelerate="1.0.1", peft="0.13.2")).fix)
    assert "transformers<5" in old
    assert "-U accelerate" not in old
    new = " ".join(first(NO_TRANSFORMERS + listed(accelerate="1.12.0", peft="0.18.0")).fix)
    assert "install transformers" in new


PARQUET = "ImportError: Unable to find a usable engine; tried using: 'pyarrow', 'fastparquet'.\n"


def test_a_pyarrow_that_is_not_there_comes_in_a_release_for_the_numpy_that_is() -> None:
    old = " ".join(first(trace("pandas/io/parquet.py") + PARQUET + listed(pandas="2.2.0", numpy="1.26.3")).fix)
    assert '"pyarrow<26.0"' in old
    assert "numpy>=2" not in old
    new = " ".join(first(trace("pandas/io/parquet.py") + PARQUET + listed(pandas="2.2.3", numpy="2.1.0")).fix)
    assert "-U pyarrow " in new


def test_a_dictionary_that_is_gone_is_named_as_pip_calls_it() -> None:
    finding = first(
        trace("transformers/models/bert_japanese/tokenization_bert_japanese.py")
        + "ModuleNotFoundError: No module named 'ipadic'\n\nDuring handling of the above exception, another exception "
        "occurred:\n\n"
        + trace("transformers/models/bert_japanese/tokenization_bert_japanese.py")
        + "ModuleNotFoundError: The ipadic dictionary is not installed. See https://github.com/polm/ipadic-py for "
        "installation.\n"
    )
    assert any("pip install transformers ipadic" in step for step in finding.fix)


AT_HOME = "/home/user/.local/lib/python3.11/site-packages"
DEPRECATED = SITE.format("torch/__init__.py") + (
    f"ImportError: cannot import name 'deprecated' from 'typing_extensions' ({AT_HOME}/typing_extensions.py)\n"
)


@pytest.mark.parametrize(
    ("place", "steps"),
    [
        (AT_HOME, ["export PYTHONNOUSERSITE=1", "unset PYTHONPATH"]),
        ("/home/user/lib", ["unset PYTHONPATH"]),
    ],
)
def test_a_copy_outside_the_environment_is_left_out_of_the_path(place: str, steps: list[str]) -> None:
    finding = first(DEPRECATED.replace(AT_HOME, place))
    assert finding.id == "copy-outside-environment"
    assert finding.title == f"typing-extensions is taken from {place}, and not from the environment"
    commands = [step.partition("   # ")[0] for step in finding.fix]
    assert commands[: len(steps)] == steps
    assert "python -m pip install typing-extensions" in commands


@pytest.mark.parametrize(
    "text",
    [
        DEPRECATED.replace(AT_HOME, "/home/user/venv/lib/python3.11/site-packages"),
        DEPRECATED.replace(AT_HOME, "/usr/lib/python3/dist-packages"),
        # A checkout of the package is meant to be imported, and so is what lies beside the program.
        trace("trl/core.py")
        + "ImportError: cannot import name 'Cache' from 'transformers' (/srv/transformers/src/transformers/cache.py)\n",
        '  File "/srv/train/run.py", line 1, in <module>\n'
        + SITE.format("trl/core.py")
        + "ImportError: cannot import name 'Cache' from 'peft' (/srv/train/peft/tuners/lora.py)\n",
        # No environment is told of.
        DEPRECATED.replace("/home/user/venv", "/usr/local"),
    ],
)
def test_what_is_meant_to_be_imported_is_no_copy_in_the_way(text: str) -> None:
    findings = diagnose(parse_report(text)).findings
    assert "copy-outside-environment" not in {finding.id for finding in findings}


def test_a_file_of_ones_own_is_known_by_what_pythons_module_never_lacked() -> None:
    report = (
        trace("torch/__init__.py", "typing_extensions.py") + "AttributeError: module 'inspect' has no attribute '{}'\n"
    )
    finding = first(report.format("signature"))
    assert finding.id == "package-shadowed"
    assert finding.fix[0].startswith("mv /home/user/inspect.py /home/user/inspect_own.py")
    assert finding.fix[1] == "Where it is a folder: mv /home/user/inspect /home/user/inspect_own"
    assert first(report.format("getargspec")).id != "package-shadowed"  # Python 3.11 has lost that one


OWN_TYPES = "ImportError: cannot import name 'GenericAlias' from 'types' (/home/user/types.py)\n"


def test_a_file_beside_the_program_that_only_the_error_names_is_moved_away() -> None:
    finding = first(trace("torch/__init__.py") + OWN_TYPES)
    assert "mv /home/user/types.py /home/user/types_own.py" in finding.fix[0]
    folder = OWN_TYPES.replace("types", "tokenizers").replace("tokenizers.py", "tokenizers/__init__.py")
    hidden = first(trace("transformers/__init__.py") + folder.replace("GenericAlias", "AddedToken"))
    assert "mv /home/user/tokenizers /home/user/tokenizers_own" in hidden.fix[0]
    own = diagnose(parse_report(trace() + folder)).findings  # the program asks a package of its own
    assert not any("tokenizers_own" in step for finding in own for step in finding.fix)


def test_files_come_anew_in_the_release_that_is_here() -> None:
    lost = trace("datasets/packaged_modules/__init__.py") + (
        "ImportError: cannot import name 'pandas' from 'datasets.packaged_modules.pandas' "
        "(/home/user/venv/lib/python3.11/site-packages/datasets/packaged_modules/pandas/__init__.py)\n"
    )
    assert "--no-deps --no-cache-dir datasets==2.17.0" in " ".join(first(lost + listed(datasets="2.17.0")).fix)
    unknown = " ".join(first(lost).fix)
    assert "datasets==$(python -c \"import importlib.metadata as m; print(m.version('datasets'))\")" in unknown


def test_a_package_without_its_version_comes_in_one_that_is_asked_for() -> None:
    finding = first(
        trace("transformers/utils/versions.py")
        + "ValueError: Unable to compare versions for huggingface-hub>=0.19.3,<1.0: need=0.19.3 found=None. This is "
        "unusual. Consider reinstalling huggingface-hub.\n"
    )
    assert any('--force-reinstall --no-deps "huggingface-hub>=0.19.3,<1.0"' in step for step in finding.fix)


def test_what_only_seems_not_to_fit_follows_from_the_copy_outside() -> None:
    report = trace("transformers/utils/hub.py") + (
        "ImportError: cannot import name 'list_repo_tree' from 'huggingface_hub' (/srv/lib/huggingface_hub/x.py)\n"
    )
    findings = diagnose(parse_report(report)).findings
    assert [finding.caused_by for finding in findings[1:2]] == ["copy-outside-environment"]


OFFERED = (
    "Python 3.13.0\nERROR: Could not find a version that satisfies the requirement {} (from versions: 0.15.1, 0.15.2, "
    "0.20.2, 0.20.3, 0.21.0, 0.22.2)\nERROR: No matching distribution found for {}\n"
)


def test_a_range_without_wheels_for_a_new_python_gets_an_older_one() -> None:
    asked = "tokenizers<0.20,>=0.19 (from transformers)"
    finding = first(OFFERED.format(asked, asked))
    assert finding.title.startswith("tokenizers<0.20,>=0.19 has no wheel for Python 3.13")
    assert finding.fix[0].startswith("uv venv --seed --python 3.12 .venv")
    assert not any("tokenizers==" in step for step in finding.fix)


def test_a_version_that_was_never_there_is_no_fault_of_the_python() -> None:
    finding = first(OFFERED.format("tokenizers==0.19.7", "tokenizers==0.19.7"))
    assert finding.title.startswith("There is no tokenizers==0.19.7")


def test_an_old_release_gets_a_python_of_its_time() -> None:
    offered = "1.14.1, 1.15.0, 1.18.1"
    text = (
        "Python 3.13.0\nERROR: Could not find a version that satisfies the requirement scipy==1.11.2 "
        f"(from versions: {offered})\n"
    )
    assert "--python 3.11 " in first(text + "ERROR: No matching distribution found for scipy==1.11.2\n").fix[0]


NO_WHEELS = (
    "Using Python {} environment at: venv\nerror: No solution found when resolving dependencies\n"
    "  cause: Because {} has no usable wheels and you require {}, we can conclude that your requirements are "
    "unsatisfiable.\n\nhint: Wheels are required for `regex` because building from source is disabled for all packages "
    "(i.e., with `--no-build`)\n"
)


def test_a_release_that_takes_no_old_python_is_not_built_for_it() -> None:
    pin = "tokenizers==0.23.1"
    assert "--python 3.12" in first("Python 3.9.18\n" + NO_WHEELS.format("3.9.18", pin, pin)).fix[0]
    assert "--no-build" in first("Python 3.10.2\n" + NO_WHEELS.format("3.10.2", pin, pin)).fix[0]


def test_what_has_no_wheel_is_built_where_that_is_allowed() -> None:
    finding = first(NO_WHEELS.format("3.13.0", "regex==2024.7.24", "regex==2024.7.24"))
    assert finding.id == "no-wheel-for-this-platform"
    assert finding.fix[0].startswith("the same command without --no-build")
    assert "--python 3.12" in finding.fix[1]


def test_a_package_that_lacks_what_it_always_had_is_a_folder_beside_the_program() -> None:
    lacks = "AttributeError: module 'numpy' has no attribute 'ndarray'\n"
    steps = first(trace("torch/utils/data/_utils/collate.py") + lacks).fix
    assert "Where it is a folder: mv /home/user/numpy /home/user/numpy_own" in steps
    assert any("Where there is neither" in step and "pip install" in step for step in steps)
    asked_by_the_program = first(trace() + lacks)
    assert not any("numpy_own" in step for step in asked_by_the_program.fix)


PIP_SIDES = (
    "ERROR: Cannot install -r requirements.txt (line 1) because these package versions have conflicting dependencies.\n"
    "\nThe conflict is caused by:\n    transformers 4.38.1 depends on tokenizers<0.19 and >=0.14\n"
    "    The user requested {}tokenizers==0.13.2\n\nTo fix this you could try to:\n"
)


def test_a_constraint_is_told_from_a_requirement() -> None:
    held = "In the constraints: tokenizers<0.19,>=0.14 in place of tokenizers==0.13.2"
    assert first(PIP_SIDES.format("(constraint) ")).fix[0].startswith(held)
    assert first(PIP_SIDES.format("")).fix[0].startswith(held.replace("constraints", "requirements"))
    by_uv = (
        "error: No solution found when resolving dependencies\n  cause: Because transformers==4.38.1 depends on "
        "tokenizers>=0.14,<0.19 and {}tokenizers==0.13.2, we can conclude that transformers==4.38.1 cannot be used.\n"
    )
    assert "In the constraints: tokenizers>=0.14,<0.19 in place of" in first(by_uv.format("")).fix[0]
    assert "In the requirements: tokenizers>=0.14,<0.19" in first(by_uv.format("you require ")).fix[0]


def test_a_check_that_is_not_met_after_the_install_has_found_another_copy() -> None:
    refuses = trace("transformers/utils/versions.py") + (
        "ImportError: {0}>=0.4.1 is required for a normal functioning of this module, but found {0}==0.3.0.\n"
    )
    for package in ("safetensors", "tokenizers"):
        steps = first(refuses.format(package)).fix
        assert "If the same message comes again, another copy comes first: unset PYTHONPATH" in steps
    never = first(trace("transformers/utils/hub.py") + "ModuleNotFoundError: No module named 'huggingface_hub'\n").fix
    assert not any("PYTHONPATH" in step for step in never)


def test_who_stays_is_named_before_what_comes() -> None:
    """uv decides in the order of the command: a newer huggingface-hub would move transformers to another major."""
    gone = trace("diffusers/utils/constants.py") + "ModuleNotFoundError: No module named 'huggingface_hub'\n"
    assert "python -m pip install transformers diffusers huggingface-hub" in first(gone).fix


def test_a_package_that_goes_on_is_upgraded_for_a_new_python_and_one_that_does_not_gets_an_older_one() -> None:
    refused = "ValueError: mutable default <class '{}'> for field version is not allowed: use default_factory\n"
    report = trace("datasets/utils/version.py") + refused
    assert any(
        step.startswith("python -m pip install -U") for step in first(report.format("datasets.utils.Version")).fix
    )
    old = first(report.format("fairseq.dataclass.configs.CommonConfig"))
    assert not any(step.startswith("python -m pip install") for step in old.fix)
