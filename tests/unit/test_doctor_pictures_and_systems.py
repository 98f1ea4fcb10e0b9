"""What people paste of programs for pictures and speech, and of the systems below them: the first finding and fix."""

from __future__ import annotations

import pytest

from workbench.doctor.diagnose import diagnose
from workbench.doctor.parse.report import parse_report

# Each: the paste, the first finding, what stands in its title, what its first step holds.
FIRST = {
    "a title that tells it, above a traceback that breaks off": (
        "Unable to run yolov8 in a GPU\npython t.py --device 0\nUltralytics YOLOv8.0.88  Python-3.9.16 "
        'torch-2.0.0+cpu\nTraceback (most recent call last):\n  File "C:\\u\\track.py", line 365, in <module>\n'
        '    main(opt)\n  File "C:\\u\\conda\\envs\\y\\lib\\site-packages\\torch\\utils\\_contextlib.py", line 115',
        ("torch-cpu-only", "CPU build", "conda activate y"),
    ),
    "YOLOv5's own question for a device": (
        "$ python detect.py --device 0\nAssertionError: CUDA unavailable, invalid device 0 requested",
        ("no-cuda-gpus-available", "sees no GPU", "torch.__version__"),
    ),
    "TensorFlow's GPU, where torch's works": (
        "WSL2, Ubuntu 22.04. PyTorch is working perfectly with CUDA. Tensorflow is not recognizing my GPU.\n"
        "| NVIDIA-SMI 550.60.01              Driver Version: 551.76         CUDA Version: 12.4     |\n"
        "W tensorflow/core/common_runtime/gpu/gpu_device.cc:2251] Cannot dlopen some GPU libraries.\n"
        "Skipping registering GPU devices...",
        ("gpu-libraries-of-another-framework", "TensorFlow", "tensorflow[and-cuda]"),
    ),
    "a form's choice of a maker above the card": (
        "### GPU vendor\n\nAMD (ROCm)\n\n### GPU model\n\nRX 6800\n\n### Operating system\n\nLinux\n\n"
        '{\n  "torch": "2.4.1+cu121",\n  "torchvision": "0.19.1"\n}\nIt uses the CPU.',
        ("cuda-wheel-on-amd", "AMD", "rocm6.1 torch torchvision"),
    ),
    "an AMD card that is told by the way": (
        "C:\\f>.\\python_embeded\\python.exe -s Fooocus\\entry_with_update.py\nRuntimeError: Found no NVIDIA driver on "
        "your system.\nIt has to do with AMD on Windows, that's what I have",
        ("cuda-wheel-on-amd", "AMD", "torch-directml"),
    ),
    "mmcv 1 without its kernels": (
        "ModuleNotFoundError: No module named 'mmcv._ext'\nThe versions I am using are mmdet 2.6.0 and mmcv 1.1.5",
        ("extension-built-for-other-torch", "mmcv", "uninstall -y mmcv"),
    ),
    "DirectML and random numbers": (
        "Device: privateuseone\nRuntimeError: Device type privateuseone is not supported for torch.Generator() api.",
        ("directml-lacks-operation", "random numbers", "git pull"),
    ),
    "a crash where the processor's GPU is listed beside the card": (
        "torch 2.5.1+rocm6.2 on a RX 7600 XT\n0    1     0x7480  gfx1102\n1    2     0x164e  gfx1036   N/A\n"
        "Segmentation fault (core dumped)",
        ("integrated-gpu-taken", "gfx1036", "HIP_VISIBLE_DEVICES=0"),
    ),
    "a pod that loses its devices": (
        "kubelet: --cpu-manager-policy=static\n# nvidia-smi\nFailed to initialize NVML: Unknown Error",
        ("container-lost-gpu", "right to use", "PASS_DEVICE_SPECS"),
    ),
    "an index that has nothing, for a new Python": (
        "Python: 3.14\nOS: Windows 11\nERROR: Could not find a version that satisfies the requirement some-tts (from "
        "versions: none)\nERROR: No matching distribution found for some-tts",
        ("no-matching-distribution", "fits Python 3.14", "--python 3.11"),
    ),
    "two pins of one package, in one line": (
        "ERROR: Cannot install numpy==2.1.1 and numpy==2.1.2 because these package versions have conflicting "
        "dependencies.\nThe conflict is caused by: The user requested numpy==2.1.2 The user requested numpy==2.1.1",
        ("requirements-contradict", "another line", "numpy==2.1.1 in place of numpy==2.1.2"),
    ),
    "Poetry's sentence of a dependency's dependency": (
        "  SolveFailure\n\n  Because mine depends on opencv-python (4.5.5.62) which depends on numpy (>=1.21.2), numpy "
        "is required.\n  So, because mine depends on numpy (1.19.5), version solving failed.",
        ("requirements-contradict", "opencv-python 4.5.5.62 wants numpy>=1.21.2", "numpy>=1.21.2 in place of"),
    ),
    "a certificate of a proxy's own": (
        "WARNING: Retrying after connection broken by 'SSLError(SSLCertVerificationError(1, '[SSL: "
        "CERTIFICATE_VERIFY_FAILED] certificate verify failed: self signed certificate in certificate chain "
        "(_ssl.c:1108)'))': /whl/torch_stable.html",
        ("tls-interception", "signs with its own", "REQUESTS_CA_BUNDLE"),
    ),
    "pip without SSL, which then finds no torch": (
        "C:\\>pip install torch==1.4.0+cpu\nERROR: Could not find a version that satisfies the requirement "
        "torch==1.4.0+cpu (from versions: none)\nERROR: No matching distribution found for torch==1.4.0+cpu\nWARNING: "
        "pip is configured with locations that require TLS/SSL, however the ssl module in Python is not available.",
        ("python-built-without-library", "ssl", "conda activate base"),
    ),
    "python.org's Python on a Mac": (
        '  File "/Library/Frameworks/Python.framework/Versions/3.8/lib/python3.8/urllib/request.py", line 1350\n'
        "urllib.error.URLError: <urlopen error [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to "
        "get local issuer certificate (_ssl.c:1108)>",
        ("tls-interception", "not trusted", "Certificates.command"),
    ),
    "an update of the host, told beside a container": (
        "I ran yum update -y on my RHEL vm.\n$ nvidia-smi\nFailed to initialize NVML: Function Not Found\n$ sudo "
        "nvidia-docker run -it nvidia/cuda nvidia-smi\nError: nvml: Driver/library version mismatch",
        ("driver-library-version-mismatch", "updated under", "sudo reboot"),
    ),
    "a card by its number and Ti alone": (
        "5060ti 16g 无法启动\nPyTorch: 2.7.0+cu126\n"
        "CUDA error: no kernel image is available for execution on the device",
        ("torch-wheel-lacks-gpu-arch", "5060 Ti", "/whl/cu128"),
    ),
    "a CUDA library by its name without a number": (
        '  File "/e/lib/python3.9/site-packages/cudf/utils/gpu_utils.py", line 95, in validate_setup\n'
        "OSError: libcudart.so: cannot open shared object file: No such file or directory",
        ("library-does-not-load", "without a number", "/usr/local/cuda/lib64"),
    ),
    "RAPIDS beside a newer cuda-python": (
        ' File "rmm/_lib/device_buffer.pyx", line 1, in init rmm._lib.device_buffer\nTypeError: C function '
        "cuda.ccudart.cudaStreamSynchronize has wrong signature (expected a, got b)",
        ("rapids-and-cuda-python", "cuda-python", "cuda-python<11.7.1"),
    ),
    "float8 on a Mac": (
        "Device: mps\nTrying to convert Float8_e4m3fn to the MPS backend but it does not have support for that dtype.",
        ("mps-has-no-float8", "float8", "without fp8"),
    ),
    "torch on a Raspberry Pi 4": (
        "Raspberry Pi 4, 8 GB\npip3 install torch\npython3 -c 'import torch'\nIllegal instruction (core dumped)",
        ("cpu-lacks-instructions", "Raspberry Pi", "torch==2.3.1"),
    ),
    "an extension of another web UI": (
        '*** Error loading script: n.py\n  File "I:\\Forge\\extensions\\sd-webui-negpip\\scripts\\negpip.py", line '
        "5, in <module>\n    import ldm.modules.attention as atm\nModuleNotFoundError: No module named 'ldm'",
        ("webui-extension-of-other-time", "web UI's own code", "pull"),
    ),
    "Arch's own toolkit, where a form asks for WSL in vain": (
        "- OS: Arch Linux\n- WSL version (if applicable):\nsudo docker compose up\nError response from daemon: could "
        'not select device driver "nvidia" with capabilities: [[gpu]]',
        ("container-without-gpu-runtime", "without the GPU", "pacman -S --needed nvidia-container-toolkit"),
    ),
    "WSL 1": (
        "I'm using Windows with WSL1\ndocker compose up\nnvidia-container-cli: initialization error: WSL environment "
        "detected but no adapters were found: unknown",
        ("wsl-shows-no-gpu", "WSL 1 has no GPU", "--set-version"),
    ),
    "Fedora's key for its modules": (
        "Linux fedora 6.0.17-300.fc37.x86_64 #1 SMP x86_64 GNU/Linux\n# modprobe nvidia\nmodprobe: ERROR: could not "
        "insert 'nvidia': Key was rejected by service",
        ("kernel-module-not-loaded", "not loaded", "/etc/pki/akmods/certs"),
    ),
    "a pin that no release meets for this Python": (
        "ERROR: Cannot install some-tts==0.1.0 and some-tts==0.1.1 because these package versions have conflicting "
        "dependencies.\n\nThe conflict is caused by:\n    some-tts 0.1.1 depends on numpy==1.26.0\n    some-tts 0.1.0 "
        "depends on numpy==1.26.0",
        ("requirements-contradict", "No release of numpy==1.26.0 fits", "3.11"),
    ),
    "Paddle loaded before torch": (
        "from paddleocr import PaddleOCR\nimport torch\nOSError: [WinError 127] Cannot find it. Error "
        'loading "D:\\e\\lib\\site-packages\\torch\\lib\\shm.dll" or one of its dependencies',
        ("two-frameworks-in-one-process", "Another framework", "import torch"),
    ),
    "Paddle's own cuDNN": (
        "# Can't Run the model on GPU, but CPU is fine\nOS: windows\n"
        '  File "C:\\e\\lib\\site-packages\\paddle\\inference\\wrapper.py", line 52, in copy_from_cpu\n'
        "RuntimeError: The third-party dynamic library (cudnn64_8.dll) that Paddle depends on is not "
        "configured correctly. (error code is 126)",
        ("gpu-libraries-of-another-framework", "cudnn64_8.dll", "paddlepaddle-gpu>=3"),
    ),
    "Windows' own window for a symbol that is missing": (
        "The procedure entry point\n?_singleton@UndefinedTensorImpl@c10@@0U12@A could\nnot be located in the dynamic "
        "link library\nC:\\forge\\venv\\Lib\\site-packages\\xformers\\_C.pyd.",
        ("extension-built-for-other-torch", "xformers", "venv\\Scripts\\activate"),
    ),
    "pipenv and a page of links": (
        "pipenv install\nLocking Failed!\nCRITICAL:pipenv.patched.notpip.index:Could not find a "
        "version that satisfies the requirement torch==1.6.0 (from -r C:\\T\\c.txt (line 3)) (from versions: none)",
        ("torch-build-on-another-index", "pipenv", "torch_stable.html"),
    ),
    "pipenv and a build by its name": (
        "$ pipenv install\nERROR: Could not find a version that satisfies the requirement torch==2.4.1+cu118 (from "
        "versions: 2.4.0, 2.4.1, 2.5.0)\nERROR: No matching distribution found for torch==2.4.1+cu118",
        ("torch-build-on-another-index", "pipenv", "whl/cu118"),
    ),
    "a card that was replaced": (
        "I replaced my GTX 1080 with a RTX 5070 Ti. torch 2.5.1+cu121\n"
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        ("torch-wheel-lacks-gpu-arch", "5070 Ti", "/whl/cu128"),
    ),
    "a card that went to another machine": (
        "I had a RTX 4090 and a 7900 XTX. I moved the 4090 into another machine; since then:\ntorch 2.5.1+rocm6.2\n"
        "torch.cuda.is_available() False",
        ("rocm-no-device", "ROCm finds no GPU", "render,video"),
    ),
    "RX 5000 and the last ROCm for it": (
        "RX 5500 XT, rocminfo says gfx1012\ntorch 2.3.0+rocm6.0\nRuntimeError: HIP error: invalid device function",
        ("rocm-gfx-unsupported", "gfx1012", "torch==1.13.1+rocm5.2"),
    ),
    "a web UI by its own switch, on AMD": (
        'Ubuntu 22.04 | RX 6800XT | "Torch is not able to use GPU; add --skip-torch-cuda-test to COMMANDLINE_ARGS"',
        ("cuda-wheel-on-amd", "AMD", "TORCH_COMMAND"),
    ),
    "a node that brought another torch": (
        "the node downloaded a none cuda Torch and replaced the one installed\nC:\\AI>.\\python_embeded\\python.exe -s "
        'ComfyUI\\main.py\nTraceback (most recent call last):\n  File "C:\\AI\\ComfyUI\\main.py", line 80, in <module>',
        ("no-cuda-gpus-available", "without CUDA", "python_embeded"),
    ),
    "TensorFlow's cuDNN in Windows": (
        "Windows 10, Nvidia T2000\nI tensorflow/stream_executor/cuda/cuda_dnn.cc:384] Loaded cuDNN version 8600\n"
        "I am unable to use my GPU for training\nCould not load library cudnn_cnn_infer64_8.dll. Error code 126",
        ("cudnn-library-missing", "cudnn_cnn_infer64_8.dll", "cudnn=8.1.0"),
    ),
    "CTranslate2's cuDNN by the program's name": (
        "# Could not load library libcudnn_ops_infer.so.8.\npip install faster-whisper\nCould not load library "
        "libcudnn_ops_infer.so.8. Error: libcudnn_ops_infer.so.8: cannot open shared object file",
        ("cudnn-library-missing", "A program looks for libcudnn_ops_infer.so.8", "ctranslate2>=4.5"),
    ),
    "Numba's own bound": (
        "ImportError: Numba needs NumPy 2.4 or less. Got NumPy 2.5.",
        ("numpy-outside-range", "2.4 at most", "numpy==2.4.*"),
    ),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_finding_and_its_first_steps(name: str) -> None:
    text, (finding, title, step) = FIRST[name]
    first = diagnose(parse_report(text)).findings[0]
    assert first.id == finding
    assert title in first.title
    steps = [line for line in first.fix if "uninstall -y torch" not in line]
    assert step in steps[0]


def test_the_mmcv_of_the_program_s_time() -> None:
    told = "ModuleNotFoundError: No module named 'mmcv._ext'\n"
    for version, spec in (
        ("mmdet 2.6.0 and\nmmcv 1.1.5", "mmcv-full==1.1.5"),
        ("mmdet 2.25", "mmcv-full<1.8"),
        ("mmdet 3.3", "mim install mmcv"),
    ):
        fix = "\n".join(diagnose(parse_report(told + version)).findings[0].fix)
        assert spec in fix


# Each: a paste that is like one above, and what must not be found in it.
NOT = {
    "a Pi 5 has ARMv8.2": ("Raspberry Pi 5\nIllegal instruction (core dumped)", "Raspberry Pi's"),
    "a card is no reason of its own": ("torch 2.7.0+cu128, 5060ti, 2080ti are both here", "torch-wheel-lacks-gpu-arch"),
    "TensorFlow's complaint tells nothing of torch": (
        "I tensorflow/stream_executor/cuda/cuda_dnn.cc:384] Loaded cuDNN version 8600\nWindows 10, T2000. I am unable "
        "to use my GPU for training, cannot find any GPU.",
        "torch sees no GPU",
    ),
    "a list with the processor's GPU, and nothing that fails": (
        "torch 2.5.1+rocm6.2\nName: gfx1102\nName: gfx1036\ntorch.cuda.is_available(): True",
        "integrated-gpu-taken",
    ),
    "pip that goes back through releases": (
        "ERROR: Cannot install foo==1.0 and foo==1.1 because these package versions have conflicting dependencies.\n"
        "The conflict is caused by:\n    foo 1.1 depends on bar>=2\n    foo 1.0 depends on bar>=2\n",
        "another line",
    ),
}


@pytest.mark.parametrize("name", NOT)
def test_a_like_paste_does_not_give_it(name: str) -> None:
    text, unwanted = NOT[name]
    for finding in diagnose(parse_report(text)).findings:
        assert unwanted not in f"{finding.id} {finding.title}"
