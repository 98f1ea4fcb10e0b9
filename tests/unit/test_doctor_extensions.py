"""Compiled extensions of a program: what their build or their import says, and the step that mends it."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report

DLL = "ImportError: DLL load failed while importing {}: The specified module could not be found."

# What is told; the first finding; what its steps say, and what no title and no step says.
CASES = {
    "mmcv by the project that asks": (
        '  File "C:\\e\\lib\\site-packages\\mmdet\\evaluation\\__init__.py", line 3, in <module>\n'
        + DLL.format("_ext"),
        "extension-built-for-other-torch",
        ["mim install mmcv"],
        ["vc_redist"],
    ),
    "mmcv by its module alone": (
        DLL.format("_ext") + "\n(pytorch1.9+cuda10.2)",
        "extension-built-for-other-torch",
        ["mim install mmcv"],
        [],
    ),
    "another module of that name": (
        "    import _ext as _backend\n" + DLL.format("_ext"),
        "library-does-not-load",
        [],
        ["mmcv"],
    ),
    "torchvision by the line above": (
        "    from torchvision import _C\n" + DLL.format("_C"),
        "torchvision-torch-mismatch",
        ["torchvision"],
        ["vc_redist"],
    ),
    "PyG's warning over a traceback that is cut off": (
        "UserWarning: An issue occurred while importing 'torch-scatter'. Disabling its usage. Stacktrace: "
        "/home/u/e/lib/python3.10/site-packages/torch_scatter/_scatter_cuda.so: undefined symbol: "
        "_ZNK3c107SymBool10guard_boolEPKcl\nTraceback (most recent call last):\n"
        '  File "/home/u/p/train.py", line 9, in <module>\n    from pointcept.engines.train',
        "extension-built-for-other-torch",
        ["install torch-scatter -f"],
        [],
    ),
    "a symbol that is not told": (
        "OSError: /usr/local/lib/python3.10/dist-packages/torch_sparse/_spmm_cuda.so: undefined symbol:",
        "extension-built-for-other-torch",
        ["install torch-scatter torch-sparse -f"],
        [],
    ),
    "NVIDIA's apex, which is not the one of the index": (
        "RuntimeError: Cuda extensions are being compiled with a version of Cuda that does not match the version used "
        "to compile Pytorch binaries.  Pytorch binaries were compiled with Cuda 10.0.130.\n"
        "  Running setup.py install for apex ... error\nERROR: Command errored out: -c '' --cpp_ext --cuda_ext",
        "nvcc-torch-cuda-mismatch",
        ["cuda-10.0"],
        ["requirements"],
    ),
    "the newest GCC, told by the one after it": (
        "/usr/include/host_config.h:82:2: error: #error -- unsupported GNU version! gcc 4.9 and up are not supported!",
        "host-compiler-too-new-for-nvcc",
        ["g++-4.8"],
        ["g++-11"],
    ),
    "nvcc in the headers of GCC": (
        "/usr/include/c++/11/type_traits(1406): error: type name is not allowed\n          detected during:",
        "host-compiler-too-new-for-nvcc",
        ["g++-10"],
        [],
    ),
    "an older toolkit behind the nvcc of the shell": (
        "nvcc -V\nCuda compilation tools, release 11.8, V11.8.89\n"
        "RuntimeError: mamba_ssm is only supported on CUDA 11.6 and above.  Note: make sure nvcc has it",
        "toolkit-too-old-for-package",
        ["which nvcc"],
        ["(11.8) is older"],
    ),
    "conda told in words": (
        "**Conda env:** `grx`\nImportError: …/libstdc++.so.6: version `GLIBCXX_3.4.32' not found (required by …/x.so)",
        "libstdcxx-too-old",
        ["conda install"],
        ["add-apt-repository"],
    ),
    "flash-attn's wheels of 2.8 for torch 2.6": (
        "torch==2.6.0\nImportError: /v/lib/python3.11/site-packages/flash_attn_2_cuda.cpython-311-x86_64-linux-gnu.so: "
        "undefined symbol: _ZN3c105ErrorC2ENS_14SourceLocationENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE",
        "flash-attn-built-for-other-torch",
        ["flash-attn==2.7.4.post1"],
        [],
    ),
    "a module of a repository": (
        "ModuleNotFoundError: No module named 'tinycudann'",
        "compiled-module-missing",
        ["--no-build-isolation 'git+https://github.com/NVlabs/tiny-cuda-nn/#subdirectory=bindings/torch'"],
        ["install tinycudann"],
    ),
    "the compiled part of one": (
        "ModuleNotFoundError: No module named 'simple_knn._C'",
        "compiled-module-missing",
        ["./submodules/simple-knn"],
        [],
    ),
    "a module of the program's own folder": (
        "ModuleNotFoundError: No module named 'MultiScaleDeformableAttention'",
        "compiled-module-missing",
        ["--include=setup.py MultiScaleDeformableAttention ."],
        ["install MultiScaleDeformableAttention"],
    ),
    "the same on Windows": (
        "PS C:\\pointr> python main.py\nModuleNotFoundError: No module named 'chamfer'",
        "compiled-module-missing",
        ["Get-ChildItem"],
        ["dirname"],
    ),
    "flash-attn in NVIDIA's image, whose torch is its own": (
        "I'm using `nvcr.io/nvidia/pytorch:23.10-py3`\nImportError: /app/v/lib/python3.10/site-packages/"
        "flash_attn_2_cuda.cpython-310-x86_64-linux-gnu.so: undefined symbol: _ZN2at4_ops9_pad_enum4callERKNS_6TensorE",
        "flash-attn-built-for-other-torch",
        ["FLASH_ATTENTION_FORCE_BUILD"],
        ["SKIP_CUDA_BUILD"],
    ),
    "SageAttention 2, which the index has not": (
        "ImportError: cannot import name 'sageattn_qk_int8_pv_fp8_cuda' from 'sageattention' (/v/a/core.py)",
        "sageattention-of-the-index",
        ["git+https://github.com/thu-ml/SageAttention.git"],
        ["install -U sageattention"],
    ),
    "SageAttention that is not there at all": (
        "ModuleNotFoundError: No module named 'sageattention'",
        "module-missing",
        ["pip install sageattention"],
        ["git+"],
    ),
    "xformers, whose newest pins another torch": (
        "torch==2.4.1\nModuleNotFoundError: No module named 'xformers.ops'",
        "package-versions-do-not-fit",
        ["xformers==0.0.28.post1"],
        ["-U xformers\n"],
    ),
    "flash-attn's Python files alone": (
        "ModuleNotFoundError: No module named 'flash_attn_2_cuda'",
        "flash-attn-built-for-other-torch",
        ["--no-build-isolation --no-cache-dir flash-attn"],
        ["compiled for another torch"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_cause_and_its_steps(case: str) -> None:
    text, name, said, unsaid = CASES[case]
    first = diagnose(parse_report(text + "\n")).findings[0]
    steps = "\n".join(first.fix)
    assert first.id == name
    assert all(step in steps for step in said), steps
    assert not any(word in first.title + steps for word in unsaid), first.title + steps


HARMLESS = (
    "warning: 'AT_CHECK' is deprecated [-Wdeprecated-declarations]\n inline void deprecated_AT_CHECK() {}",
    "#include <cstdint>\nstatic const uint32_t size = FLT_MAX_LEVELS;",
    "UserWarning: Failed to load custom C++ ops. Running on CPU mode Only!",
    "WARNING: No module named 'chamfer' is fine here\nepoch 3 loss 0.2",
    "/usr/include/c++/11/bits/stl_vector.h(89): warning #20012-D: __host__ annotation is ignored",
)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_a_build_says_on_its_way_is_no_fault(text: str) -> None:
    assert not [finding.id for finding in diagnose(parse_report(text + "\n")).findings if finding.severity == "error"]
