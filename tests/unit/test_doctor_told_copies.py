"""A package that is imported in another release than the installed one, as people say it."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report

TOLD = {
    "pip list shows torch 0.4.0 but python prints 1.6.0.": "torch 1.6.0 is imported, and not the 0.4.0",
    "torch.__version__ says 1.13.1 although I installed 2.0.1 in this conda env.": "torch 1.13.1 is imported",
    "pip show torch: Version: 2.4.0\n>>> torch.__version__\n'1.13.1'": "torch 1.13.1 is imported, and not the 2.4.0",
    "transformers.__version__ is 4.30.2 but pip freeze says transformers==4.44.0": "transformers 4.30.2 is imported",
    "When I switch from A to B, still the torch of A is loaded.": "torch is imported from another place",
    "after activating the environment, which python points to /usr/bin/python": "What runs is /usr/bin/python",
    "Jupyter uses another torch version than the terminal: 2.1.0 against 1.13.1": "torch is imported from another",
}


@pytest.mark.parametrize("text", TOLD)
def test_other_copy_is_told_in_a_sentence(text: str) -> None:
    finding = diagnose(parse_report(f"{text}\n")).findings[0]
    assert finding.id == "copy-outside-environment"
    assert finding.title.startswith(TOLD[text])


@pytest.mark.parametrize(
    "text",
    [
        "pip list shows torch 2.4.0, and python prints 2.4.0+cu121.",
        "I upgraded transformers to 4.44.0; torch.__version__ is 4.44.0",
        "pip install transformers==4.30.2, with Python 3.11.4 and CUDA 12.1",
        "The old torch is fine; which python: /home/u/env/bin/python",
    ],
)
def test_no_copy_is_made_out_of_one_release(text: str) -> None:
    assert "copy-outside-environment" not in {each.id for each in diagnose(parse_report(f"{text}\n")).findings}


def test_what_was_installed_in_vain_is_installed_by_the_python_that_runs() -> None:
    text = "torch.__version__ says 1.13.1 although I installed 2.0.1 in this conda environment.\n"
    assert diagnose(parse_report(text)).findings[0].fix[0].startswith("python -m pip install torch==2.0.1")
    listed = "pip list shows torch 0.4.0 but python prints 1.6.0.\n"
    assert diagnose(parse_report(listed)).findings[0].fix[0].startswith("unset PYTHONPATH")


def test_what_only_a_package_itself_asks_is_of_two_releases() -> None:
    text = "AttributeError: module 'pyarrow.lib' has no attribute 'ListViewType'\n"
    assert diagnose(parse_report(text)).findings[0].title.startswith("pyarrow does not fit itself")


def test_numpys_own_generator_tells_of_two_numpys() -> None:
    text = (
        "[/usr/local/lib/python3.11/dist-packages/numpy/random/_pickle.py](x) in <module>\n"
        "----> 1 from .mtrand import RandomState\n\nnumpy/random/mtrand.pyx in init numpy.random.mtrand()\n\n"
        "ValueError: numpy.dtype size changed, may indicate binary incompatibility. "
        "Expected 96 from C header, got 88 from PyObject\n"
    )
    findings = diagnose(parse_report(text)).findings
    assert [finding.id for finding in findings] == ["numpy-mixed"]
    assert findings[0].fix[0].startswith("Restart")


def test_torch_that_xformers_names_comes_before_that_of_sentences() -> None:
    text = (
        "xFormers can't load C++/CUDA extensions. xFormers was built for:\n"
        "   PyTorch 2.1.0+cu121 with CUDA 1201 (you have 2.1.0+cpu)\n"
        "How do I get torch from 2.1.0+cpu to 2.1.0+cu121?\n"
    )
    assert diagnose(parse_report(text)).findings[0].id == "torch-cpu-only"


def test_paste_that_ends_within_the_message_is_read_by_its_title() -> None:
    text = (
        "cannot import name 'FluxPipeline' from 'diffusers'\n> 9 from diffusers import FluxPipeline\nImportError: canno"
    )
    assert "FluxPipeline" in diagnose(parse_report(text)).findings[0].title
