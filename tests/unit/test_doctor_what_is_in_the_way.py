"""What a finding on the C library, a notebook's memory, caches and harmless warnings tells to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.findings import Finding
from workbench.doctor.parse.report import parse_report

DATA = Path(__file__).parent.parent / "data" / "doctor"


def first(text: str) -> Finding:
    return diagnose(parse_report(text)).findings[0]


def of_file(name: str) -> Finding:
    return first((DATA / f"{name}.txt").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        # Of a library of CUDA that conda packed, pip's torch brings another; there is no package of that name.
        ("conda-cuda", "torch==2.4.1", "libcufft"),
        ("cut", "--no-binary flash-attn", "torch==2.6.0"),
        ("one-wheel", "--no-binary flash-attn", "libshm"),
    ],
)
def test_what_asks_for_a_newer_glibc_is_what_is_replaced(text: str, wanted: str, unwanted: str) -> None:
    finding = of_file(f"glibc-too-old--{text}")
    assert any(wanted in step for step in finding.fix)
    assert not any(f"{unwanted} " in step or step.endswith(unwanted) for step in finding.fix)
    assert "torch 2.7" not in finding.why


def test_a_library_of_torch_itself_is_no_package() -> None:
    text = (
        "CentOS release 6.8, ldd (GNU libc) 2.12, pytorch 1.0\nImportError: /lib64/libc.so.6: version `GLIBC_2.14' "
        "not found (required by /data/lib/python3.6/site-packages/torch/lib/libshm.so)\n"
    )
    assert len(first(text).fix) == 1
    program = "ollama: /lib64/libc.so.6: version `GLIBC_2.27' not found (required by ollama)\n"
    assert "this program (ollama)" in first(program).title


def test_a_notebook_is_restarted_before_anything_is_installed() -> None:
    held = of_file("stale-notebook-kernel--pkg-resources")
    assert held.fix[0].startswith("Runtime, Restart session")
    assert any("urllib3<2,>=1.26" in step for step in held.fix)
    assert "protobuf<3.20,>=3.9.2" in of_file("required-version-missing--pkg-resources").fix[0]
    # In Colab an installed NumPy is not the one in use either, until the session is new.
    text = "On Google Colab: A module that was compiled using NumPy 1.x cannot be run in NumPy 2.0.2, torch 2.2.1+cu121"
    assert first(text).fix[1].startswith("then: Runtime, Restart session")


def test_windows_is_seen_in_what_its_builds_of_torch_print() -> None:
    warned = "UserWarning: Failed to initialize NumPy: _ARRAY_API not found (Triggered internally at {}csrc\\utils.cpp)"
    assert parse_report(warned.format("..\\torch\\")).platform.system == "Windows"
    assert parse_report(warned.format("../torch/csrc/")).platform.system is None
    mixed = 'C:/Miniconda3\\envs\\a\\lib\\site-packages\\diffusers\\x.py", line 9\nRuntimeError: Numpy is not available'
    assert parse_report(mixed).platform.system == "Windows"


def test_a_machine_to_which_the_cache_was_brought_is_told_of_no_mirror() -> None:
    failed = (
        "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the "
    )
    for told in ("I copied the cached model over from my laptop.", "Our compute nodes have no internet."):
        finding = first(f"{told}\n{failed}cached files.\n")
        assert finding.id == "offline-cache-incomplete", told
        assert not any("hf-mirror" in step or "PROXY" in step for step in finding.fix)
    assert "hf-mirror" in first(f"It worked yesterday.\n{failed}cached files.\n").fix[0]


@pytest.mark.parametrize(
    ("path", "command"),
    [
        (
            "/home/kim/.cache/huggingface/hub/models--a--b",
            "sudo chown -R $(id -u):$(id -g) /home/kim/.cache/huggingface",
        ),
        ("/.cache", "export HF_HOME=/tmp/hf-$(id -u)"),
        ("/root/.cache/huggingface/token", "export HF_HOME=/tmp/hf-$(id -u)"),
    ],
)
def test_a_cache_that_cannot_be_written_is_mended_by_what_this_user_may_do(path: str, command: str) -> None:
    assert first(f"PermissionError: [Errno 13] Permission denied: '{path}'\n").fix[0].startswith(command)
    read_only = first(f"OSError: [Errno 30] Read-only file system: '{path}'\n")
    assert not any("chown -R" in step for step in read_only.fix[:1])


def test_the_warning_of_pynvml_goes_with_that_package() -> None:
    text = "FutureWarning: The pynvml package is deprecated. Please install nvidia-ml-py instead.\n"
    both = first("Package Version\n------- -------\npynvml 13.0.1\nnvidia-ml-py 13.580.82\n" + text)
    assert not any("install nvidia-ml-py" in step for step in both.fix)
    assert any("_pynvml_redirector" in step for step in both.fix)
    assert any("PYTHONWARNINGS" in step for step in first(text).fix)


def test_zluda_runs_a_torch_for_cuda() -> None:
    text = (
        "pytorch version: 2.3.0+cu118\nDevice: cuda:0 AMD Radeon RX 6800 [ZLUDA] : native\nImportError: "
        "huggingface-hub>=0.24.0,<1.0 is required for a normal functioning of this module, but found "
        "huggingface-hub==0.21.0\n"
    )
    assert [finding.id for finding in diagnose(parse_report(text)).findings] == ["huggingface-hub-pin-conflict"]


def test_a_bitsandbytes_for_older_systems_takes_the_place_of_one_for_newer() -> None:
    text = (
        "OSError: /lib64/libc.so.6: version `GLIBC_2.34' not found (required by "
        "/home/kim/.local/lib/python3.11/site-packages/bitsandbytes/libbitsandbytes_cuda128.so)\n"
    )
    assert "bitsandbytes>=0.46" in first(text).fix[0]


@pytest.mark.parametrize(
    ("told", "step"),
    [
        ("On Kaggle, in /kaggle/working:", "/kaggle/tmp/hf"),
        ("On Google Colab, in /content/run:", "Disconnect and delete runtime"),
        ("On our server:", "export HF_HOME="),
    ],
)
def test_room_is_made_where_the_notebook_has_some(told: str, step: str) -> None:
    assert step in first(f"{told}\nOSError: [Errno 28] No space left on device\n").fix[0]


def test_a_newer_hub_is_none_that_the_transformers_beside_it_does_not_bear() -> None:
    text = "ImportError: cannot import name 'is_offline_mode' from 'huggingface_hub' (/srv/huggingface_hub/__init__.py)"
    assert first(text).fix[0].endswith('install transformers "huggingface-hub>=1.2.1"')
