"""What a paste tells in passing: container, batch system, processor, web UI, AMD's name of a GPU. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.parse.draft import Draft
from workbench.doctor.parse.fields import name_gpu
from workbench.doctor.tables import gpu_capability, table

_MAX_LINE = 600
# Name, words of which the paste must hold one before its lines are searched, and what is searched for.
_CONTAINERS = (
    (  # what docker compose writes, and before each line of its containers
        "docker",
        ("✔ container", "attaching to", "-1 | ", "-1  | ", " | traceback (most", ' |   file "'),
        re.compile(
            r"✔ Container \S|^Attaching to [\w-]+-\d|^[A-Za-z][\w-]{1,40}-\d{1,2} {1,6}\| \S"
            r'|^[A-Za-z][\w.-]{1,40} {1,20}\| (?:Traceback \(most|  File ")'
        ),
    ),
    ("lxc", ("lxc", "lxd", "incus"), re.compile(r"\b(?:lxc|lxd|incus)\b(?! *[/_])", re.I)),
    (
        "docker (snap)",
        ("snap", "docker.dockerd", "docker.service"),
        re.compile(
            r"\bsnap (?:services|list|info|install|refresh) docker|\bdocker\.dockerd\b|/snap/docker"
            r"|Unit docker\.service not found",
            re.I,
        ),
    ),
    (
        "podman",
        ("podman",),
        re.compile(r"\bpodman (?:run|exec|start|create|build)\b|\brootless podman\b|\bpodman \d|\bin podman\b", re.I),
    ),
    (
        "kubernetes",
        ("kubectl", "k8s", "k0s", "k3s", "minikube", "kubernetes", "cpu-manager", " pod", "gke", "eke", "openshift"),
        re.compile(
            r"\bkubectl\b|\b(?:micro)?k8s\b|\bk[03]s\b|\bminikube\b"
            r"|\bkubernetes(?:-created)? (?:pods?|containers?|cluster|node|配置|集群)|\bcpu-manager-policy\b"
            r"|\bin (?:the|a|my|each|every) pod\b|\b[GE]KE: pods?\b|\bGKE\b|\bopenshift\b",
            re.I,
        ),
    ),
    # An image may be called docker's and be run by another.
    (
        "apptainer",
        ("singularity", "apptainer"),
        re.compile(
            r"\b(?:singularity|apptainer) (?:exec|run|shell|instance)\b|^(?:Singularity|Apptainer)> "
            r"|\b(?:in|inside|with|using|via|under) (?:an? |the |my )?(?:singularity|apptainer)\b"
            r"|^(?:singularity|apptainer)[:,]"
            r"|\b(?:singularity|apptainer) (?:container|image)\b",
            re.I,
        ),
    ),
    (
        "docker",
        ("docker", "container", "@", "도커", "容器"),
        re.compile(
            r"\bdocker (?:run|exec|logs?|compose|images?|containers?)\b|\bdocker-compose\b"
            r"|\bDocker Desktop\b|\bContainer \S{3,80} {1,20}(?:Creat|Start)(?:ed|ing)\b"
            r"|\b[a-z][\w-]{1,30}@[0-9a-f]{12}:"
            r"|docker ?(?:内|里|中|下|容器|部署|镜像|コンテナ|上で)|(?:进入|使用|用|在) ?docker|도커"
            r"|构建的?(?:容器|镜像)"
            r"|\b(?:in|with|via|using|inside|through|i use|we use|i run|we run) (?:the |a )?docker\b"
            r"|\b(?:inside|trong|im|en el|dans le|no|nel) (?:the |my |a )?container\b|在?容器[里中内]",
            re.I,
        ),
    ),
)
_PROGRAMS = (
    # Not where it is only asked about: "a way around that (ZLUDA maybe?)".
    ("zluda", ("zluda",), re.compile(r"(?<!maybe )\bzluda\b(?! ?(?:maybe|perhaps|\?|instead\?))", re.I)),
    ("comfyui", ("comfyui",), re.compile(r"\bComfyUI(?![a-z])", re.I)),
    (
        "sd-webui-amd",
        ("webui-directml", "webui-amdgpu", "lshqqytiger"),
        re.compile(r"stable-diffusion-webui-(?:directml|amdgpu)|lshqqytiger", re.I),
    ),
    (
        "sd-webui",
        ("webui", "launch_utils", "a1111", "automatic1111", "skip-torch-cuda-test"),
        re.compile(
            r"stable-diffusion-webui|webui-user\.(?:bat|sh)|\blaunch_utils\.py|--skip-torch-cuda-test\b|\b(?:A1111|automatic1111|sd-webui)\b",
            re.I,
        ),
    ),
)
# Programs that do not start without torchvision, or torchaudio.
_NEED_VISION = (
    *(
        "invokeai",
        "kohya_ss",
        "sd[-_]scripts",
        "fooocus",
        "onetrainer",
        "fluxgym",
        "framepack",
        "swarmui",
        "ai-toolkit",
    ),
    *("facefusion", "musubi", "diffusion-pipe", "ultralytics", "yolov", "mmdet", "detectron2", "easyocr", "gfpgan"),
    *("realesrgan", "real-esrgan", "supir", "roop", "rembg"),
    *("whisperx", "insanely-fast-whisper", "pyannote", "xtts", "sovits", "demucs"),
)
_NEEDS_VISION = re.compile(rf"(?<![a-z])(?:{'|'.join(_NEED_VISION)})(?![a-rt-z])", re.I)
_KAGGLE = re.compile(
    r"/kaggle/(?:working|input)\b|^\W{0,4}kaggle(?: notebook| P100| T4(?: x2)?)?[,:]"
    r"|\b(?:in|on|a|my) (?:a )?kaggle(?: notebook| kernel)?\b|\bkaggle(?:'s)? image\b"
    r"|\bmachine_shape\b",
    re.I,
)
_COLAB = re.compile(
    r"(?<![-\w/.])(?:google ?)?colab(?:oratory)?(?![-\w/]|\.\w)|/content/(?:drive|gdrive|sample_data)\b"
    r"|\]\(https://localhost:8080/#\)"  # as its tracebacks link each file
    r"|(?:^|(?<=[\s'\"(=:\[]))/content/[\w.-]{2,60}/",
    re.I | re.A,
)
_COLAB_COMPARED = re.compile(
    r"\b(?:works?|worked|fine(?![- ]?tun)|ok|runs?|unlike|not|or|than|like)\b[^.\n]{0,30}colab"
    r"|colab\b[^.\n]{0,30}\b(?:works?|worked|is fine)|https?://\S*colab|\[ \]",
    re.I,
)
_SLURM = re.compile(
    r"^\s{0,4}#SBATCH\b|\b(?:sbatch|srun|salloc)\b|\bslurm(?:stepd)?\b|\b(?:login|compute|cluster) node\b", re.I
)
_ARM = re.compile(r"\baarch64\b|\bG[BH][23]00\b|\bGB10\b|\bDGX Spark\b|\bGrace[- ]Hopper\b|\bJetson\b", re.I | re.A)
_OTHER_PROCESSOR = re.compile(r"x86_64|amd64|\bmac(?:OS|Book| ?mini| ?studio)?\b|darwin|apple m\d", re.I)
# "the CPU version of torch", "CPU-only wheel"; not what is only compared, asked for or feared.
_CPU_BUILD = re.compile(r"\bCPU(?:[- ]only)? (?:version|build|wheel|variant)s?\b", re.I)
_NOT_HERE = re.compile(
    r"\b(?:not|n't|instead of|remove|uninstall\w*|no longer|than|or|if|unless|avoid|for)\b[^.]{0,40}$", re.I
)
_CONDA = re.compile(r"^\W{0,6}(?:conda|mamba|micromamba) install\b.{0,80}\bpytorch\b")
_GFX = re.compile(r"(?<![a-z0-9])gfx(?:[789]\d[0-9a-f]|1[0-2]\d[0-9a-f])(?![0-9a-z])")
_ROCMINFO = re.compile(r"\bName:\s{1,40}(?:amdgcn-amd-amdhsa--)?(gfx[0-9a-f]{3,4})\b")


_NO_CONTAINER = re.compile(
    r"(?:没有?|未|不是?)(?:在|使用|用)? ?(?:docker|容器)"
    r"|\b(?:not|without) (?:(?:using|in|inside) )?(?:a |any )?(?:docker|container)\b"
    r"|\bno docker\b(?! \w)|\boutside (?:of )?(?:the |a |any )?(?:docker|container)\b",
    re.I,
)
# The image that a Dockerfile starts from, or that a container is run from.
_FROM_IMAGE = re.compile(
    r"^(?:Step \d{1,3}/\d{1,3} : |#\d{1,3} \[[^\]]{1,60}\] )?\s{0,8}FROM (?:--\S+ )?(?P<image>\S{2,120})"
)
_RUN_IMAGE = re.compile(
    r"\b(?:docker|podman) run\b[^\n]{0,120}? (?P<image>[a-z][\w./-]{1,80}:[\w.-]*alpine[\w.]*)(?= |$|`)"
)


# A form's question, which names what is not there: "Docker (yes/no): no".
_ANSWERED_NO = re.compile(r"[:?)]\s{0,4}(?:no|none|n/a|false|否|不是|没有|нет)\W{0,3}$", re.I)


_FIRST_PROCESS = re.compile(
    r"^(?:\S{1,40} +\| )?\((?:APIServer|EngineCore\w{0,8}|Worker\w{0,8}) pid=1\) ", re.MULTILINE
)


def read_raw(text: str, draft: Draft) -> None:
    """Take what stands in the marks of processes before each line: vLLM's as the first process is in a container."""
    if "pid=1)" in text and _FIRST_PROCESS.search(text):
        draft.put(draft.platform, container="docker")


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take what nothing else has told."""
    short = [line for line in lines if 4 < len(line) <= _MAX_LINE and not _ANSWERED_NO.search(line[-20:])]
    text = "\n".join(short).lower()

    def said(pattern: re.Pattern[str], *words: str) -> bool:
        return any(word in text for word in words) and any(map(pattern.search, short))

    if "alpine" in text and _is_alpine(short):
        draft.put(draft.platform, os="Alpine Linux", libc="musl")
    kind = next((name for name, words, pattern in _CONTAINERS if said(pattern, *words)), None)
    if kind == "docker" and any(map(_NO_CONTAINER.search, short)):
        kind = None
    if kind is not None and draft.platform.get("container") in (None, "docker"):
        draft.platform["container"] = kind
    program = next((name for name, words, pattern in _PROGRAMS if said(pattern, *words)), None)
    if program is None and said(_NEEDS_VISION, *_NEED_VISION):
        program = "with-pictures"
    draft.put(draft.platform, program=program)
    if program == "zluda" and "/home/" not in text:
        draft.put(draft.platform, system="Windows")  # the web UIs that bring it do so for Windows
    if said(_KAGGLE, "kaggle"):
        draft.put(draft.platform, service="kaggle")
    elif (
        said(_COLAB, "colab", "/content/", "localhost:8080/#") and not draft.driver.get("version") and _on_colab(short)
    ):
        draft.put(draft.platform, service="colab")
    if said(_SLURM, "sbatch", "srun", "salloc", "slurm", "login node", "compute node", "cluster node"):
        draft.put(draft.platform, service="slurm")
    if said(
        _ARM, "aarch64", "h200", "h300", "b200", "b300", "gb10", "dgx spark", "grace", "jetson"
    ) and draft.platform.get("system") in (None, "Linux"):
        arm = not any(map(_OTHER_PROCESSOR.search, short))
        draft.put(draft.platform, machine="aarch64" if arm else None)
    if not draft.complaints and draft.torch.get("build") is None and draft.torch.get("cuda") is None:
        draft.put(draft.torch, build="cpu" if "cpu" in text and any(map(_cpu_build, short)) else None)
    draft.put(draft.python, kind="conda" if said(_CONDA, "pytorch") else None)
    gfx = _gfx(short) or _inside_processor(short, draft)
    if gfx is not None and not draft.gpus:
        name_gpu(draft, 0, f"AMD {gfx}")
    # The GPU inside a processor is not the card that somebody names beside it.
    card = gfx not in INTEGRATED or gpu_capability(draft.gpu(0).get("name") or "") in (None, *INTEGRATED)
    if gfx is not None and card and len(draft.gpus) == 1 and draft.gpu(0).get("vendor") == "amd":
        draft.gpu(0)["compute_capability"] = gfx


def _is_alpine(lines: Sequence[str]) -> bool:
    """Whether all images that are built from or run are Alpine's; of several stages one may be another's."""
    images = [
        found["image"] for line in lines for found in (_FROM_IMAGE.search(line), _RUN_IMAGE.search(line)) if found
    ]
    return bool(images) and all("alpine" in image for image in images)


def _on_colab(lines: Sequence[str]) -> bool:
    return any(_COLAB.search(line) and not _COLAB_COMPARED.search(line) for line in lines)


def _cpu_build(line: str) -> bool:
    found = _CPU_BUILD.search(line)
    return found is not None and "torch" in line.lower() and not _NOT_HERE.search(line[: found.start()])


INTEGRATED = frozenset(("gfx902", "gfx909", "gfx90c", "gfx1035", "gfx1036", "gfx1037", "gfx1103", "gfx1150"))
"""AMD's GPUs inside processors: https://llvm.org/docs/AMDGPUUsage.html#processors."""
_HIP_FAILED = frozenset(("hip-no-binary", "rocblas-no-kernels", "hip-no-gpus"))


def _inside_processor(lines: Sequence[str], draft: Draft) -> Optional[str]:
    """The gfx target of AMD's GPU inside the processor, where ROCm fails and no other GPU is spoken of."""
    failed = {error.id for error in draft.errors}
    crashed = "crash-in-compiled-code" in failed and any("rocm" in line.lower() for line in lines)
    named = any(gpu.get("compute_capability") or gpu_capability(gpu.get("name") or "") for gpu in draft.gpus.values())
    if named or not (crashed or _HIP_FAILED & failed):
        return None
    text = "\n".join(line for line in lines if "Ryzen" in line)[:4000]
    return next((str(row["gfx"]) for row in table("gpus")["apu"] if re.search(row["match"], text)), None)


def _gfx(lines: Sequence[str]) -> Optional[str]:
    """The one gfx target that is spoken of; a line with several lists what a library has."""
    shown = {match[1] for match in map(_ROCMINFO.search, lines) if match}
    spoken = {found[0] for line in lines if "gfx" in line and len(found := sorted(set(_GFX.findall(line)))) == 1}
    names = shown or spoken
    return names.pop() if len(names) == 1 else None
