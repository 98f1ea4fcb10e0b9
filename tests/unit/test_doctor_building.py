"""Builds and native libraries: what a paste tells of them, and the first step that mends it on that very machine."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import Report, diagnose
from workbench.doctor.parse.commands import last_install, name_of
from workbench.doctor.parse.report import parse_report


def judged(text: str) -> Report:
    return diagnose(parse_report(text + "\n"))


NO_TORCH = (
    "{}\n  × Getting requirements to build wheel did not run successfully.\n"
    "  in get_requires_for_build_wheel\n  ModuleNotFoundError: No module named 'torch'"
)
GCC = "{}/bits/std_function.h:435:145: error: parameter packs not expanded with ‘...’:"
NOT_COMPILED = "#error -- unsupported GNU version! gcc versions later than {} are not supported!"

# What is told; the finding; what its steps say, and what they must not say.
CASES = {
    "a git address": (
        NO_TORCH.format("pip install 'git+https://github.com/facebookresearch/detectron2.git'"),
        "build-isolation-hides-torch",
        ["--no-build-isolation git+https://github.com/facebookresearch/detectron2.git"],
        ["<package>"],
    ),
    "the folder at hand": (
        NO_TORCH.format("pip install .\nProcessing /home/u/diff-gaussian-rasterization"),
        "build-isolation-hides-torch",
        ["--no-build-isolation ."],
        ["uv "],
    ),
    "uv": (
        NO_TORCH.format("uv pip install -r requirements.txt\n  × Failed to build `flash-attn==2.7.4`"),
        "build-isolation-hides-torch",
        ["uv pip install torch", "uv pip install --no-build-isolation -r requirements.txt"],
        ["python -m pip"],
    ),
    "a project of uv": (
        NO_TORCH.format("$ uv sync\n  × Failed to build `flash-attn==2.7.4`"),
        "build-isolation-hides-torch",
        ['no-build-isolation-package = ["flash-attn"]', "uv sync"],
        ["pip install"],
    ),
    "poetry": (
        NO_TORCH.format("poetry add mamba-ssm\nFailed to build mamba-ssm"),
        "build-isolation-hides-torch",
        ["poetry run python -m pip install --no-build-isolation mamba-ssm"],
        [],
    ),
    "GCC 13 under CUDA 11.7": (
        "/usr/local/cuda-11.7/bin/nvcc -c a.cu\n" + GCC.format("/usr/include/c++/13"),
        "host-compiler-too-new-for-nvcc",
        ["sudo apt install gcc-11 g++-11"],
        ["conda"],
    ),
    "GCC 11's own headers": (
        GCC.format("/usr/include/c++/11"),
        "host-compiler-too-new-for-nvcc",
        ["gcc-10 g++-10"],
        ["gcc-11"],
    ),
    "conda": (
        "The current installed version of g++ (13.2.0) is greater than the maximum required version by CUDA 12.1.\n"
        "/root/miniconda3/envs/llm/lib/python3.10/site-packages/torch/utils/cpp_extension.py",
        "host-compiler-too-new-for-nvcc",
        ["gxx_linux-64=12"],
        ["sudo"],
    ),
    "Fedora": ("Fedora 40\n" + NOT_COMPILED.format(13), "host-compiler-too-new-for-nvcc", ["gxx_linux-64=13"], ["apt"]),
    "Visual Studio, torch of CUDA 11": (
        r"C:\VC\Tools\MSVC\14.41.34120\include\yvals_core.h(902): error: static assertion failed with "
        '"error STL1002: Unexpected compiler version, expected CUDA 12.4 or newer."\ntorch 2.3.0+cu118',
        "host-compiler-too-new-for-nvcc",
        ["-vcvars_ver=14.39"],
        ["Install CUDA 12.4"],
    ),
    "a GPU of today": (
        "nvcc fatal   : Unsupported gpu architecture 'compute_90a'",
        "nvcc-too-old-for-gpu",
        ["cuda-12.0"],
        ["11.8"],
    ),
    "a GPU of yesterday": (
        "RTX 3090\n/usr/local/cuda-12.2/bin/nvcc\nnvcc fatal   : Unsupported gpu architecture 'compute_35'",
        "nvcc-too-old-for-gpu",
        ["TORCH_CUDA_ARCH_LIST=8.6"],
        ["Install", "cuda-toolkit-"],
    ),
    "cuDNN 8 and CUDA 11": (
        "pip install faster-whisper. Linux, 4090, cuda 11.8\n"
        "Could not load library libcudnn_ops_infer.so.8. Error: libcudnn_ops_infer.so.8: cannot open shared object",
        "cudnn-library-missing",
        ["nvidia-cudnn-cu11==8.*", "LD_LIBRARY_PATH"],
        ["ctranslate2>=4.5"],
    ),
    "ONNX Runtime in a program of its own": (
        '1 : FAIL : LoadLibrary failed with error 126 "" when trying to load "D:\\app\\onnxruntime_providers_cuda.dll"',
        "onnxruntime-libraries-missing",
        ["Install CUDA 12 and cuDNN 9"],
        ["pip install"],
    ),
    "ONNX Runtime that names what is missing": (
        "Failed to load library libonnxruntime_providers_cuda.so with error: libcublasLt.so.11: cannot open shared "
        "object file\nin /home/u/lib/python3.10/site-packages/onnxruntime/capi/x.py",
        "onnxruntime-libraries-missing",
        ["CUDA 11.8 and cuDNN 8"],
        [],
    ),
    "mmcv of another CUDA": (
        'File "/home/u/lib/python3.9/site-packages/mmcv/utils/ext_loader.py", line 13, in load_ext\n'
        "ImportError: libcudart.so.10.1: cannot open shared object file: No such file or directory",
        "extension-built-for-other-cuda",
        ["mim install mmcv"],
        ["two CUDA majors"],
    ),
    "a library without its owner": (
        "ImportError: libcudart.so.11.0: cannot open shared object file: No such file or directory",
        "extension-built-for-other-cuda",
        ["nvidia-cuda-runtime-cu11", "LD_LIBRARY_PATH"],
        [],
    ),
    "a C++ name without its underlines": (
        "ImportError: /opt/e/lib/python3.10/site-packages/causal_conv1d_cuda.cpython-310-x86_64-linux-gnu.so: "
        "undefined symbol: *ZNK3c1017SymbolicShapeMeta18init*is_contiguousEv",
        "extension-built-for-other-torch",
        ["--no-cache-dir causal-conv1d mamba-ssm"],
        [],
    ),
    "conda on Windows, without a build for CUDA 10": (
        "conda install pytorch==1.12.1 torchvision==0.13.1 cudatoolkit=10.2 -c pytorch\n"
        "  environment location: D:\\anaconda3\n    pytorch-1.12.1    |      py3.8_cpu_0       133.8 MB  pytorch",
        "torch-cpu-only",
        ['"pytorch=1.12.1=*cuda11.3*"', "cudatoolkit=11.3"],
        [],
    ),
    "a DLL on the next line": (
        "ERROR    Could not load torch: [WinError 126] The specified module could not be found. Error loading\n"
        '         "P:\\AI\\kohya_ss\\venv\\lib\\site-packages\\torch\\lib\\fbgemm.dll" or one of its dependencies.',
        "torch-import-broken",
        ["torch==2.4.1", "libomp140"],
        [],
    ),
    "a Python that PyO3 does not know, by pipx": (
        "pipx install git+https://github.com/a/tool.git\n"
        "  process didn't exit: `/T/pip-install-shos_6vg/tokenizers_5d282553bb4f4c208432da3b5fbaa137/bindings`\n"
        "  the configured Python interpreter version (3.13) is newer than PyO3's maximum supported version (3.12)",
        "package-too-old-for-python",
        ["pipx install --force --python python3.12 git+https://github.com/a/tool.git"],
        ["rustup"],
    ),
    "a free-threaded Python": (
        "  × Building wheel for tokenizers (pyproject.toml) did not run successfully.\n"
        "⚠️ Warning: CPython 3.13t at /home/b/.venv/bin/python does not yet support abi3 so the build artifacts will be",
        "package-too-old-for-python",
        ["uv venv --seed --python 3.13 "],
        ["rustup"],
    ),
    "pkg_resources in the build's own environment": (
        "Collecting openai-whisper==20231117 (from -r requirements.txt (line 25))\n"
        "  × Getting requirements to build wheel did not run successfully.\n"
        "      ModuleNotFoundError: No module named 'pkg_resources'\n"
        "ERROR: Failed to build 'openai-whisper' when getting requirements to build wheel",
        "setuptools-mismatch",
        ['"setuptools<81" wheel', "--no-build-isolation openai-whisper==20231117", "-r requirements.txt"],
        [],
    ),
    "pkg_resources in a program": (
        "    import pkg_resources\nModuleNotFoundError: No module named 'pkg_resources'",
        "setuptools-mismatch",
        ['"setuptools<81"'],
        ["isolation"],
    ),
    "an older neighbour of a wheel's library": (
        "OSError: /usr/local/lib/python3.8/dist-packages/torch/lib/../../nvidia/cublas/lib/libcublas.so.11: undefined "
        "symbol: cublasLtGetStatusString, version libcublasLt.so.11",
        "ld-library-path-shadows-nvidia-wheels",
        ["unset LD_LIBRARY_PATH", "libcublasLt"],
        ["show torch"],
    ),
    "a DLL of a package for torch": (
        "Can't import SageAttention: DLL load failed while importing _fused: The specified module could not be found\n"
        "pytorch version: 2.9.1+cu130",
        "extension-built-for-other-torch",
        ["+cu130torch2.9"],
        [],
    ),
    "a DLL of a package that has nothing to do with torch": (
        "C:\\v\\Lib\\site-packages\\cv2\\__init__.py\nImportError: DLL load failed while importing cv2: The specified "
        "module could not be found.",
        "library-does-not-load",
        ["Redistributable"],
        ["made for"],
    ),
    "a procedure that a DLL has not": (
        "import _ext as _backend\nImportError: DLL load failed while importing _ext: Не найдена указанная процедура.",
        "library-does-not-load",
        ["build it again"],
        [],
    ),
    "glibc, told without its asker's words": (
        "libc.so.6: version `GLIBC_2.32' not found ( /w/.venv/lib/python3.10/site-packages/flash_attn_2_cuda.abi3.so)",
        "glibc-too-old",
        ["--no-binary flash-attn"],
        ["torch==2.6.0"],
    ),
    "no compiler, and a package of wheels": (
        "Collecting sentencepiece\n  error: subprocess-exited-with-error\n      -- Building for: NMake Makefiles\n"
        "      CMake Error: CMAKE_CXX_COMPILER not set, after EnableLanguage",
        "cmake-missing",
        ["--only-binary :all: sentencepiece"],
        [],
    ),
    "a package's own header": (
        "pip install failed on windows with python 3.9\nsrc/sentencepiece/sentencepiece_wrap.cxx(2822): fatal error "
        "C1083: Cannot open include file: 'sentencepiece_processor.h': No such file or directory",
        "build-failed",
        ["--only-binary :all: sentencepiece"],
        ["apt"],
    ),
    "a source for a Python of long ago, in one padded line": (
        "Installing collected packages: sentencepiece" + " " * 900 + "Running setup.py install for sentencepiece ... "
        "error" + " " * 200 + "ERROR: Command errored out with exit status 1: command: "
        "'c:\\programs\\python\\python35\\python.exe' -u -c 'import setuptools'",
        "build-failed",
        ["uv venv --seed --python 3.12", "--only-binary :all: sentencepiece"],
        [],
    ),
    "tokenizers that a program pins": (
        "pip install -e .\n  × Building wheel for tokenizers (pyproject.toml) did not run successfully.\n"
        "      creating build/lib.linux-x86_64-cpython-310/tokenizers",
        "build-failed",
        [
            "uv venv --seed --python 3.8",
            "newer one: python -m pip install -U --only-binary :all: transformers tokenizers",
        ],
        [],
    ),
    "a header of the system, on Fedora": (
        "Fedora 40\nfatal error: mpi.h: No such file or directory",
        "header-missing",
        ["sudo dnf install openmpi-devel"],
        ["apt"],
    ),
    "a header of the system, on a Mac": (
        "macOS 14 on my MacBook\nsrc/pyaudio.c:31:10: fatal error: 'portaudio.h' file not found",
        "header-missing",
        ["brew install portaudio"],
        ["apt"],
    ),
    "Windows without its SDK": (
        "Windows 11\nfatal error C1083: Cannot open include file: 'io.h': No such file or directory",
        "header-missing",
        ["Windows 11 SDK"],
        [],
    ),
    "a source for x86 on an Arm": (
        "/tmp/bitsandbytes/include/SIMD.h:16:10: fatal error: immintrin.h: No such file or directory",
        "header-missing",
        ["newest release"],
        ["apt"],
    ),
    "an image without the toolkit": (
        "docker run -it pytorch/pytorch:2.3.0-cuda12.1-cudnn8-runtime\n"
        "a.cu:1: fatal error: cuda_runtime.h: No such file or directory",
        "cuda-headers-missing",
        ["pytorch/pytorch:2.3.0-cuda12.1-cudnn8-devel"],
        [],
    ),
    "a virtual machine": (
        "Proxmox, processor type kvm64\nIllegal instruction (core dumped)",
        "cpu-lacks-instructions",
        ["--cpu host"],
        [],
    ),
    "another program on Alpine": (
        "Error relocating ./libonnxruntime.so: __cxa_thread_atexit_impl: symbol not found",
        "musl-alpine",
        ["python:3.12-slim"],
        [],
    ),
    "the CUDA of torch, told by apex": (
        "RuntimeError: Cuda extensions are being compiled with a version of Cuda that does not match the version used "
        "to compile Pytorch binaries.  Pytorch binaries were compiled with Cuda 10.1.",
        "nvcc-torch-cuda-mismatch",
        ["cuda-10.1"],
        [],
    ),
    "a project of uv with the CPU build": (
        "Windows uv sync resolves torch 2.7.0 cpu. Local repro reports torch 2.7.0+cpu, torch.cuda.is_available False.",
        "torch-cpu-only",
        ['explicit = true; and [tool.uv.sources] torch = { index = "pytorch-cu128" }', "uv sync"],
        ["python -m pip"],
    ),
    "a project of poetry with the CPU build": (
        "RTX 4090\n$ poetry install\n>>> torch.__version__\n'2.3.1+cpu'",
        "torch-cpu-only",
        ["poetry source add --priority=explicit", "poetry add --source"],
        ["uv "],
    ),
    "requirements of another Python": (
        "C:\\Python312\\Lib\npip install -r requirements.txt\n  Downloading ml_dtypes-0.2.0.tar.gz\n"
        "  × pip subprocess to install build dependencies did not run successfully.",
        "build-failed",
        ["uv venv --seed --python 3.11 ", "-r requirements.txt"],
        ["--only-binary"],
    ),
    "TensorRT of the file's major": (
        'File "/v/lib/python3.10/site-packages/tensorrt/__init__.py", line 68\n'
        "ImportError: libnvinfer.so.8: cannot open shared object file: No such file or directory",
        "library-does-not-load",
        ['"tensorrt==8.*"'],
        [],
    ),
    "versions alone, of a build that is cut": (
        "Win11, visual studio community 2022 17.13.3\n`nvcc --version` show cuda_11.8.r11.8/compiler.31833905_0\n"
        "Building wheel for diff_gaussian_rasterization (setup.py) ... error\n"
        "  × python setup.py bdist_wheel did not run successfully.",
        "host-compiler-too-new-for-nvcc",
        ["-vcvars_ver=14.39"],
        ["Install CUDA 12.4"],
    ),
    "a nightly of a day that is gone": (
        "pip3 install --extra-index-url https://download.pytorch.org/whl/nightly/cpu torch==2.6.0.dev20241217\n"
        "ERROR: Could not find a version that satisfies the requirement torch==2.6.0.dev20241217 (from versions: 2.5)",
        "torch-build-not-published",
        ["whl/cpu torch==2.6.0 ", "nightly/cpu"],
        ["uv venv"],
    ),
    "cuBLAS of another major": (
        "win 11\nError: Library cublas64_12.dll is not found or cannot be loaded\ntorch 2.1.2+cu118",
        "cublas-library-missing",
        ['"ctranslate2<4"'],
        [],
    ),
    "cuBLAS on Linux, in the environment of a uv tool": (
        '  File "/home/kim/.local/share/uv/tools/whisper-ctranslate2/lib/python3.12/site-packages/faster_whisper/'
        'transcribe.py", line 1301, in encode\nRuntimeError: Library libcublas.so.12 is not found or cannot be loaded',
        "cublas-library-missing",
        ["source /home/kim/.local/share/uv/tools/", "uv pip install", "nvidia-cublas-cu12", "LD_LIBRARY_PATH"],
        ["PATH before"],
    ),
    "ROCm's index on an NVIDIA GPU": (
        "ml.g4dn.xlarge (Tesla T4)\n!pip install torch --index-url https://download.pytorch.org/whl/rocm5.4.2\n"
        "subprocess.CalledProcessError: Command '['ninja', '-v']' returned non-zero exit status 1.",
        "rocm-wheel-on-nvidia",
        ["/whl/cu"],
        ["/whl/rocm"],
    ),
    "triton, where it has no wheels": (
        "ERROR: Could not find a version that satisfies the requirement triton (from versions: none)\n"
        "ERROR: No matching distribution found for triton",
        "no-matching-distribution",
        ["triton-windows", "on Linux"],
        ["uv venv"],
    ),
    "CUDA code on a Mac": (
        "s@sMacBook-Pro DA-2 % pip install -e src/\nCollecting xformers==0.0.28.post2 (from da2==0.1.0)\n"
        "  × Getting requirements to build wheel did not run successfully.\n"
        "ModuleNotFoundError: No module named 'torch'",
        "no-matching-distribution",
        ["xformers out of the requirements"],
        ["--no-build-isolation"],
    ),
    "xformers on Windows without a wheel": (
        "D:\\Comfy_UI>python_embeded\\python.exe -m pip install xformers\n  Using cached xformers-0.0.28.post3.tar.gz\n"
        "torch 2.5.1+cu121\n  Building wheel for xformers (setup.py) ... error\n  error: subprocess-exited-with-error",
        "build-failed",
        ["--index-url https://download.pytorch.org/whl/cu121 xformers==0.0.29.post1"],
        [],
    ),
    "a torch that pip replaces": (
        "Collecting xformers==0.0.19\nCollecting torch==2.0.0 (from xformers==0.0.19)\n  Attempting uninstall: torch\n"
        "    Found existing installation: torch 2.0.1+cu118",
        "torch-replaced-by-pip",
        ["python -m pip install --no-deps xformers==0.0.21"],
        [],
    ),
    "a torch that a sentence says is replaced": (
        "I want xformers for Torch 2.5.1:\npip install -U git+https://github.com/facebookresearch/xformers.git\n"
        "It always downloads Torch 2.7",
        "torch-replaced-by-pip",
        ["xformers==0.0.29.post1"],
        [],
    ),
    "a library under Nix": (
        'I run it on NixOS\nFile "/home/a/.venv/lib/python3.11/site-packages/numpy/core/overrides.py", line 8\n'
        "ImportError: libstdc++.so.6: cannot open shared object file: No such file or directory",
        "library-does-not-load",
        ["nix-ld", "makeLibraryPath"],
        ["apt"],
    ),
    "a library of an older torch": (
        'File "/e/lib/python3.8/site-packages/pytorch3d/ops/knn.py", line 7\n'
        "ImportError: libtorch_cuda_cu.so: cannot open shared object file: No such file or directory",
        "library-does-not-load",
        ["pytorch3d.git@stable"],
        ["before pytorch3d"],
    ),
    "libGL on Arch": (
        "I use Arch Linux\nImportError: libGL.so.1: cannot open shared object file: No such file or directory",
        "system-library-missing",
        ["sudo pacman -S libglvnd"],
        ["apt"],
    ),
    "libGL in a container": (
        "docker run -it mycorp/app:1.0\n"
        "ImportError: libGL.so.1: cannot open shared object file: No such file or directory",
        "system-library-missing",
        ["apt-get update && apt-get install -y libgl1"],
        ["sudo apt"],
    ),
    "a target of CMake without its library": (
        "-- The CUDA compiler identification is NVIDIA 12.6.85\nCMake Error at CMakeLists.txt:147:\n"
        '  Target "ggml-cuda" links to:\n\n    CUDA::cublas\n\n  but the target was not found.',
        "build-library-not-found",
        ["cuda-libraries-dev-12-6", "cuda-libraries-dev=12.6"],
        [],
    ),
    "a package of CMake on Fedora": (
        "Fedora Linux 41\nCMake Error at FindPackageHandleStandardArgs.cmake:230 (message):\n"
        "  Could NOT find Vulkan (missing: Vulkan_LIBRARY glslc)",
        "build-library-not-found",
        ["sudo dnf install vulkan-headers"],
        ["apt"],
    ),
    "torch's own CMake files": (
        'Could not find a package configuration file provided by "Torch" with any of the following names:',
        "build-library-not-found",
        ["cmake_prefix_path"],
        ["apt"],
    ),
    "a library that no table knows": (
        'By not providing "FindZyxlib.cmake" in CMAKE_MODULE_PATH this project has asked CMake to find it',
        "build-library-not-found",
        ["apt-file", "Zyxlib"],
        [],
    ),
    "pkg-config": (
        "pip install av\nPackage libavformat was not found in the pkg-config search path.\n"
        "ERROR: Failed building wheel for av",
        "build-library-not-found",
        ["--only-binary :all: av", "libavformat-dev"],
        [],
    ),
    "bitsandbytes on a Jetson": (
        "Linux box 5.15.122-tegra #1 SMP PREEMPT aarch64 GNU/Linux\nSuccessfully installed bitsandbytes-0.42.0\n"
        "CUDA SETUP: Loading binary /e/lib/python3.10/site-packages/bitsandbytes/libbitsandbytes_cuda122.so...\n"
        "libcusparse.so.11: cannot open shared object file: No such file or directory\nCUDA SETUP: Setup Failed!",
        "bnb-legacy-loader",
        ["DCOMPUTE_CAPABILITY=87"],
        ["install -U bitsandbytes"],
    ),
    "a build whose log no terminal took": (
        "Collecting llama-cpp-python\n  Building wheel for llama-cpp-python (pyproject.toml): "
        "finished with status 'error'\nCMake Error: CMAKE_C_COMPILER not set, after EnableLanguage",
        "cmake-missing",
        ["whl/cpu llama-cpp-python"],
        [],
    ),
    "nvcc's first test under CMake": (
        "-- The CXX compiler identification is GNU 11.4.0\n-- The CUDA compiler identification is unknown\n"
        "CMake Error at CMakeDetermineCUDACompiler.cmake:266 (message):\n"
        "  Failed to detect a default CUDA architecture.",
        "cuda-compiler-does-not-work",
        ["export CUDACXX=/usr/local/cuda/bin/nvcc"],
        [],
    ),
    "ONNX Runtime of CUDA 13 beside CUDA 12": (
        "torch 2.5.1+cu124\nonnxruntime-gpu 1.27.0\n2026-01-01 [E:onnxruntime:Default, provider_bridge_ort.cc:2022] "
        'Error loading "C:\\a\\site-packages\\onnxruntime\\capi\\onnxruntime_providers_cuda.dll" which depends on '
        '"cublasLt64_13.dll" which is missing.',
        "onnxruntime-libraries-missing",
        ["onnxruntime-gpu>=1.21,<1.27"],
        [],
    ),
    "a checkout of bitsandbytes": (
        "/home/a/bitsandbytes/bitsandbytes/cextension.py:34: UserWarning: The installed version of bitsandbytes was "
        "compiled without GPU support.",
        "bitsandbytes-unusable",
        ["uninstall -y bitsandbytes", "Move /home/a/bitsandbytes/bitsandbytes"],
        [],
    ),
    "an extension of another torch, whose version is not told": (
        "OSError: torch_scatter/_version_cuda.so: undefined symbol: _ZN5torch3jit17parseSchemaOrNameERKSs",
        "extension-built-for-other-torch",
        ["torch.__version__", "torch.version.cuda else 'cpu'", "https://data.pyg.org/whl/torch-$M.0+$C.html"],
        ["<torch>"],
    ),
    "MinGW under nvcc": (
        "CMake Error: nvcc fatal : Host compiler targets unsupported OS.",
        "mingw-in-place-of-msvc",
        ["BuildTools"],
        [],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_cause_and_its_steps(name: str) -> None:
    text, finding_id, says, silent = CASES[name]
    first = judged(text).findings[0]
    steps = "\n".join(first.fix)
    assert first.id == finding_id
    assert all(word in steps for word in says), steps
    assert not any(word in steps for word in silent), steps


# What is like one of these, and none.
HARMLESS = [
    "-- Could NOT find Vulkan (missing: Vulkan_LIBRARY)\n-- Could NOT find OpenMP_C (missing: OpenMP_C_FLAGS)\n"
    "-- Configuring done\n-- Build files have been written to: /home/a/llama.cpp/build",
    "-- Building for: Ninja\n-- The C compiler identification is GNU 13.2.0\n-- Configuring done",
    "/usr/local/cuda-12.4/bin/nvcc -gencode arch=compute_90a,code=sm_90a\nSuccessfully installed flash-attn-2.7.4",
    "we use g++ 13.2.0; nvcc of CUDA 12.6 takes it",
]


@pytest.mark.parametrize("text", HARMLESS)
def test_a_build_that_goes_well_is_no_fault(text: str) -> None:
    assert judged(text).findings == ()


@pytest.mark.parametrize(
    ("line", "tool", "targets"),
    [
        ("$ pip3 install -U -i https://x.org/simple torch==2.1 'xformers<0.1'", "pip", ("torch==2.1", "xformers<0.1")),
        ("RUN uv pip install --system -e ./a/b && echo", "uv pip", ("-e ./a/b",)),
        ("I ran `python -m pip install -r req.txt` twice", "pip", ("-r req.txt",)),
        ("> uv add flash-attn --no-build-isolation", "uv", ("flash-attn",)),
    ],
)
def test_a_command_is_read_as_it_was_typed(line: str, tool: str, targets: tuple[str, ...]) -> None:
    install = last_install([line])
    assert install is not None
    assert (install.tool, install.targets) == (tool, targets)


def test_a_target_names_its_package() -> None:
    names = ["git+https://g.org/a/Some_Lib.git@v1", "-e ./src/Some_Lib/", "some-lib[x]>=1", "-r requirements.txt", "."]
    assert [name_of(name) for name in names] == ["some-lib"] * 3 + ["", ""]
