"""Rules about Ollama, which brings its own GPU code and is set up by its service's variables. Needs the tables."""

from __future__ import annotations

from dataclasses import replace
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, capabilities, evidence, gpu_names, is_jetson, seen
from workbench.doctor.rules.libcuda_refused import fabric_not_initialised
from workbench.doctor.rules.torch_vendor import relative_of
from workbench.doctor.tables import table
from workbench.doctor.versions import older

_DOCS = "https://docs.ollama.com/"
BUILT = frozenset(
    (
        *("gfx900", "gfx906", "gfx908", "gfx90a", "gfx940", "gfx941", "gfx942", "gfx1010", "gfx1012", "gfx1030"),
        *("gfx1100", "gfx1101", "gfx1102", "gfx1151", "gfx1200", "gfx1201"),
    )
)
"""AMD targets of newer releases: https://github.com/ollama/ollama/blob/main/CMakePresets.json."""
_STATES = {
    "100": "it sees no device",
    "35": "it is older than what this Ollama is built for",
    "803": "its kernel module and its library are of two versions",
    "804": "the container's CUDA compatibility package does not fit the card",
    "999": "its module for memory (nvidia_uvm) is in a bad state, as after sleep",
}


def ollama(facts: Facts) -> Result:
    """What keeps Ollama from the GPU, where it is not that it may not open it."""
    if facts.error("gpu-device-not-allowed"):
        return PASSED
    for id, make in _KINDS.items():
        error = facts.error(id)
        if error is not None:
            if id not in ("ollama-without-gpu-runners", "ollama-model-larger-than-gpu") and _unsupported(facts, error):
                return [_not_supported(facts, error)]
            return [make(facts, error)]
    return PASSED


def _gfx(facts: Facts, error: ErrorFact) -> Optional[str]:
    known = (gpu.compute_capability for gpu in facts.gpus or () if gpu.vendor == "amd")
    return error.values.get("gfx") or next((gfx for gfx in known if gfx and gfx.startswith("gfx")), None)


def _unsupported(facts: Facts, error: ErrorFact) -> bool:
    """Whether Ollama has no code for the only kind of GPU that is there."""
    gfx = _gfx(facts, error)
    if facts.has_amd() and not facts.has_nvidia():
        return gfx is not None and gfx not in BUILT
    known = capabilities(facts)
    return bool(known) and all(older(capability, "5.0") for _, capability in known)


def setting(facts: Facts, name: str, value: str) -> tuple[str, ...]:
    """How a variable reaches Ollama, which does not run in the user's shell."""
    if fixes.on_windows(facts):
        return (f"setx {name} {value}   # then quit Ollama in the tray, and start it again",)
    if facts.platform.system == "Darwin":
        return (f"launchctl setenv {name} {value}   # then quit Ollama, and start it again",)
    if facts.platform.container == "flatpak":
        return (
            f"flatpak override --user --env={name}={value} com.jeffser.Alpaca   # or in Alpaca: Preferences, "
            "Instances, Edit, Overrides; then start it again",
        )
    if facts.platform.container:
        return (f"docker run -e {name}={value} …   # the container anew, with this variable",)
    return (
        f'sudo systemctl edit ollama.service   # add: [Service] and, in the next line: Environment="{name}={value}"',
        "sudo systemctl daemon-reload && sudo systemctl restart ollama   # the service does not read .bashrc",
    )


_UPDATE = "curl -fsSL https://ollama.com/install.sh | sh"


def update(facts: Facts) -> str:
    """What brings the newest Ollama onto this machine."""
    if fixes.on_windows(facts) or facts.platform.system == "Darwin":
        return "Install the newest Ollama: https://ollama.com/download"
    if facts.platform.container:
        return "docker pull ollama/ollama" + (":rocm" if facts.has_amd() else "")
    return _UPDATE


def _not_supported(facts: Facts, error: ErrorFact) -> Finding:
    gfx = _gfx(facts, error)
    near = relative_of(gfx)
    vulkan = setting(facts, "OLLAMA_VULKAN", "1")
    if gfx in BUILT:
        fix: tuple[str, ...] = (f"{update(facts)}   # newer releases have code for {gfx}", *vulkan)
    elif near and not fixes.on_windows(facts):
        fix = (*setting(facts, "HSA_OVERRIDE_GFX_VERSION", near), f"or, with Ollama 0.12.11 or newer: {vulkan[0]}")
    else:
        fix = (f"{update(facts)}   # 0.12.11 or newer, which can use Vulkan", *vulkan)
    old = next((number for _, number in capabilities(facts) if older(number, "5.0")), None)
    capability = error.values.get("capability") or (None if gfx else old)
    which = f" ({gfx})" if gfx else f" (compute capability {capability})" if capability else ""
    return _finding(
        facts,
        error,
        "ollama-gpu-not-supported",
        f"Ollama has no code for this GPU{which}, and runs on the CPU",
        "It brings libraries for some GPUs only. Near relatives on Linux can run each other's code; Vulkan runs on "
        "nearly all. A variable has to reach Ollama's own process: a service reads no .bashrc.",
        fix,
        "gpu",
    )


# Its CUDA builds had no libggml-base until then: https://github.com/conda-forge/ollama-feedstock/pull/59 (July 2025)
_OF_CONDA_FORGE = (
    "conda install -y -c conda-forge \"ollama[version='>=0.10',build='*cuda*']\"   # the build for CUDA; older ones of "
    "it lacked a library, and ran on the CPU",
    "or Ollama's own archive in your home, which needs no root: https://docs.ollama.com/linux#manual-install (tar -C "
    "~/.local in place of sudo tar -C /usr; then ~/.local/bin/ollama serve)",
)


def _without_runners(facts: Facts, error: ErrorFact) -> Finding:
    amd = facts.has_amd() or "rocm" in error.text or "Radeon" in error.text
    if fixes.on_windows(facts) or facts.platform.system == "Darwin":
        fix: tuple[str, ...] = (update(facts),)
    elif "conda" in error.values and not amd:
        fix = _OF_CONDA_FORGE
    elif facts.platform.container:
        fix = (update(facts),)
    elif "Arch" in (facts.platform.os or "") or "Manjaro" in (facts.platform.os or ""):
        fix = (f"sudo pacman -S ollama-{'rocm' if amd else 'cuda'}   # in place of the package ollama", _UPDATE)
    else:
        fix = (
            f"{_UPDATE}   # installs the GPU's libraries too",
            "From an archive: unpack all of it, with lib/ollama beside bin"
            + (", and ollama-linux-amd64-rocm as well" if amd else ""),
            f"From a distribution's packages: the one named ollama-{'rocm' if amd else 'cuda'}; built from source: "
            "with the CUDA toolkit or ROCm at hand",
        )
    return _finding(
        facts,
        error,
        "ollama-without-gpu-runners",
        "This Ollama was packed without the libraries for the GPU",
        "What computes on the GPU is a library of its own, beside the program (lib/ollama); this installation has "
        "those for the CPU only, or not those for this vendor.",
        fix,
        "linux",
    )


def _driver(facts: Facts, error: ErrorFact) -> Finding:
    code = "35" if error.values.get("symbol") else error.values.get("code", "")
    if code == "802":
        return fabric_not_initialised(facts, error)
    state = _STATES.get(code)
    if fixes.on_windows(facts):
        fix: tuple[str, ...] = ("nvidia-smi   # must answer; install the newest NVIDIA driver, and restart Windows",)
    elif facts.platform.wsl:
        fix = ("wsl --shutdown   # in PowerShell, with the newest NVIDIA driver in Windows; then start Ollama again",)
    elif code in ("35", "803"):
        fix = (
            "sudo reboot   # after the newest NVIDIA driver was installed: sudo ubuntu-drivers install",
            "nvidia-smi",
        )
    else:
        fix = (
            "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm   # on the host; or reboot",
            "nvidia-smi   # must answer; then restart Ollama",
        )
        if facts.platform.container and code == "100":
            fix = (
                "sudo nvidia-modprobe -u -c=0   # on the host: makes /dev/nvidia-uvm, without which nvidia-smi works "
                "and CUDA sees nothing",
                "docker restart <the container>   # started with --gpus=all; in compose with runtime: nvidia or "
                "deploy.resources.reservations.devices",
                "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker   # if it stays",
            )
        elif facts.platform.container:
            fix = (
                *fix,
                "docker restart <the container>; docker run --gpus=all …   # Docker Desktop: wsl --shutdown first",
            )
    return _finding(
        facts,
        error,
        "ollama-driver-does-not-start",
        f"The NVIDIA driver does not start for Ollama (error {code})" + (f": {state}" if state else ""),
        "Ollama found the driver's library, and the library answers with an error; nothing in Ollama changes that.",
        fix,
        "troubleshooting#nvidia-gpu-discovery",
    )


def _hidden(facts: Facts, error: ErrorFact) -> Finding:
    name, value = error.values.get("variable", ""), error.values.get("value", "")
    return _finding(
        facts,
        error,
        "ollama-gpu-hidden",
        f"{name}={value} hides the GPUs from Ollama, or names some that are not there",
        "The variable is set where Ollama runs; it then sees these numbers or UUIDs only, and finds none of them.",
        (
            f"systemctl show ollama -p Environment; env | grep {name}   # where is it set? service, docker, .bashrc",
            "Take it out there (sudo systemctl edit ollama.service), and: sudo systemctl daemon-reload && sudo "
            "systemctl restart ollama",
            "nvidia-smi -L   # the GPUs there are; where each number exists, it is this release: another one of Ollama",
        ),
        "gpu",
    )


def _timeout(facts: Facts, error: ErrorFact) -> Finding:
    return _finding(
        facts,
        error,
        "ollama-discovery-timeout",
        "Ollama's search for GPUs did not end in time, so it runs on the CPU",
        "It starts a process that loads the GPU's libraries, and waits some seconds for it: a scanner of viruses, a "
        "slow disk, a sleeping card or a driver that hangs makes it late.",
        (
            update(facts),
            "Restart Ollama, now that the files were read once; let the virus scanner leave out Ollama's folder",
            *setting(facts, "OLLAMA_DEBUG", "1"),
        ),
        "troubleshooting",
    )


def _too_large(facts: Facts, error: ErrorFact) -> Finding:
    told = error.values
    return _finding(
        facts,
        error,
        "ollama-model-larger-than-gpu",
        "The model and its context do not fit the GPU's free memory: "
        + (
            f"{told['on_cpu']} % of it is left to the CPU"
            if "on_cpu" in told
            else f"{told['some']} of {told['all']} layers go there"
            if told["all"] != "-1"
            else "no layer goes there"
        ),
        "The rest is computed by the CPU, which is many times slower.",
        (
            "nvidia-smi   # who else holds memory on the card? ollama stop <other model>",
            "A smaller or more strongly quantized model, or a shorter context: /set parameter num_ctx 4096",
            *setting(facts, "OLLAMA_KV_CACHE_TYPE", "q8_0")[:1],
        ),
        "faq",
        severity="warning",
    )


def _on_jetson(facts: Facts, error: ErrorFact) -> Finding:
    nano = any((gpu.compute_capability or "") == "5.3" for gpu in facts.gpus or ())
    return _finding(
        facts,
        error,
        "ollama-finds-no-gpu",
        "Ollama has no code for the first Jetson Nano's GPU and JetPack 4"
        if nano
        else "Ollama on a Jetson needs its build for the JetPack that is here",
        "Jetson boards have CUDA libraries of their own: Ollama brings those for JetPack 5 and 6, no older ones.",
        (
            "jetson-containers run $(autotag ollama)   # for each JetPack: https://github.com/dusty-nv/jetson-containers"
            if not nano
            else "llama.cpp built on the board with CUDA 10.2, an old release of it: "
            "https://github.com/dusty-nv/jetson-containers; or a model small enough for the CPU",
            f"{_UPDATE}   # takes the archive for JetPack 5 or 6 by itself"
            if not nano
            else "cat /etc/nv_tegra_release",
        ),
        "docker",
        severity="warning",
    )


def _on_intel_mac(facts: Facts, error: ErrorFact) -> Finding:
    return _finding(
        facts,
        error,
        "ollama-finds-no-gpu",
        "On Macs with an Intel processor Ollama computes on the CPU only",
        "It uses Metal on Apple's own processors; the Radeon or Intel GPU of older Macs has no code in it.",
        (
            "A small model: 1 to 3 billion weights in 4 bits, for this processor",
            "llama.cpp with Vulkan through MoltenVK can use the Radeon: brew install molten-vk vulkan-loader "
            "vulkan-headers; cmake -B build -DGGML_METAL=OFF -DGGML_VULKAN=ON && cmake --build build",
        ),
        "macos",
        severity="warning",
    )


def _is_service(facts: Facts) -> bool:
    """Whether Ollama runs as the service that its installer makes on Linux, as far as is told."""
    inside = facts.platform.container or facts.platform.service in ("colab", "kaggle", "slurm")
    return not inside and not fixes.on_windows(facts) and facts.platform.system != "Darwin"


def _override_for_the_shell(facts: Facts, error: ErrorFact, override: str) -> Finding:
    return _finding(
        facts,
        error,
        "ollama-finds-no-gpu",
        "Likely: HSA_OVERRIDE_GFX_VERSION is set for the shell alone, and Ollama's service does not see it",
        "A service reads no .bashrc; without the override Ollama's ROCm leaves out the relatives of the cards that it "
        "has code for, such as gfx1031 beside gfx1030, while programs that are started in the shell run.",
        (
            *setting(facts, "HSA_OVERRIDE_GFX_VERSION", override),
            "rocminfo | grep gfx; id ollama   # the user ollama must be in the groups render and video: "
            "sudo usermod -aG render,video ollama",
            f"or, with Ollama 0.12.11 or newer: {setting(facts, 'OLLAMA_VULKAN', '1')[0]}",
        ),
        "gpu",
        severity="warning",
    )


def _finds_none(facts: Facts, error: ErrorFact) -> Finding:
    if is_jetson(facts):
        return _on_jetson(facts, error)
    if facts.platform.system == "Darwin" and facts.platform.machine == "x86_64":
        return _on_intel_mac(facts, error)
    override = facts.environment.get("HSA_OVERRIDE_GFX_VERSION")
    if override and error.id == "ollama-gpu-not-used" and _is_service(facts):
        return _override_for_the_shell(facts, error, override)
    nvidia = (
        "nvidia-smi   # must answer, with driver 531 or newer and a card of compute capability 5.0 or newer",
        "sudo rmmod nvidia_uvm && sudo modprobe nvidia_uvm   # after sleep",
    )
    amd: tuple[str, ...] = (
        "rocminfo | grep gfx; id ollama   # the user ollama must be in the groups render and video: "
        "sudo usermod -aG render,video ollama",
        "sudo systemctl restart ollama",
        f"or, with Ollama 0.12.11 or newer: {setting(facts, 'OLLAMA_VULKAN', '1')[0]}",
    )
    docker = facts.platform.container not in (None, "", "flatpak")
    if docker and error.values.get("later") and not facts.has_amd():
        return _lost(facts, error)
    if docker:
        nvidia = (
            "docker run --gpus=all …   # with the NVIDIA Container Toolkit on the host; nvidia-smi must answer inside; "
            "compose: deploy: {resources: {reservations: {devices: [{driver: nvidia, count: all, capabilities: "
            "[gpu]}]}}}",
            "docker restart <the container>   # where it worked before",
        )
        amd = ("docker run --device /dev/kfd --device /dev/dri … ollama/ollama:rocm",)
    is_amd = facts.has_amd() and not facts.has_nvidia()
    fix = amd if is_amd else nvidia if facts.has_nvidia() else (*nvidia, "AMD: " + amd[0])
    likely = error.id == "ollama-gpu-not-used"
    return _finding(
        facts,
        error,
        "ollama-finds-no-gpu",
        ("Likely: " if likely else "") + "Ollama finds no GPU that it can use, and runs on the CPU",
        "It asks the driver's own library: a driver that is missing or too old, a container without the GPU, a card "
        "that it has no code for, or, after sleep, a driver that has lost its memory module.",
        (*fix, *setting(facts, "OLLAMA_DEBUG", "1")[:1]),
        "troubleshooting",
        severity="warning" if likely else "error",
    )


def _lost(facts: Facts, error: ErrorFact) -> Finding:
    row = next(row for row in table("symptoms")["symptom"] if row["id"] == "container-loses-gpu-later")
    return replace(
        _finding(
            facts,
            error,
            row["id"],
            f"Likely: {row['title'][0].lower()}{row['title'][1:]}",
            row["why"],
            tuple(row["fix"]),
            "",
            "warning",
        ),
        source=row["source"],
    )


def _finding(
    facts: Facts,
    error: ErrorFact,
    id: str,
    title: str,
    why: str,
    fix: tuple[str, ...],
    page: str,
    severity: str = "error",
) -> Finding:
    return Finding(
        id,
        severity,
        title,
        why,
        {**evidence(gpus=gpu_names(facts), container=facts.platform.container), **seen(error)},
        fix,
        _DOCS + page,
        affects=("chat",),
        observed=True,
    )


_KINDS = {
    "ollama-gpu-not-supported": _not_supported,
    "ollama-without-gpu-runners": _without_runners,
    "ollama-driver-does-not-start": _driver,
    "ollama-gpu-hidden": _hidden,
    "ollama-discovery-timeout": _timeout,
    "ollama-model-larger-than-gpu": _too_large,
    "ollama-finds-no-gpu": _finds_none,
    "ollama-gpu-not-used": _finds_none,
}
RULES: tuple[Rule, ...] = (ollama,)
