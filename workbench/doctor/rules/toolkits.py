"""How a CUDA toolkit, the compiler above all, comes to the machine that a report tells of."""

from __future__ import annotations

from dataclasses import replace

from workbench.doctor import fixes, system_packages
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.versions import release_of

_TORCH_CUDA = "$(python -c 'import torch; print(torch.version.cuda)')"
_DASHED = '$(python -c \'import torch; print(torch.version.cuda.replace(".", "-"))\')'
_KEYRING = (
    ". /etc/os-release; wget https://developer.download.nvidia.com/compute/cuda/repos/{system}/x86_64/"
    "cuda-keyring_1.1-1_all.deb && sudo dpkg -i cuda-keyring_1.1-1_all.deb && sudo apt update && "
)


_INSTALLED = "export CUDA_HOME=$(ls -d /usr/local/cuda-* /opt/cuda 2>/dev/null | tail -1)   # the installed one"
# A torch without CUDA looks for no toolkit, whatever the variable says:
# https://github.com/pytorch/pytorch/blob/main/torch/utils/cpp_extension.py, at CUDA_HOME.
_LOOKED = (
    'python -c "import torch.utils.cpp_extension as e; print(e.torch.version.cuda, e.CUDA_HOME)"   # what the build '
    "sees, in the same shell; None None: this torch is a CPU build, which looks for no toolkit"
)


def not_seen(facts: Facts) -> str:
    """What is wrong with the toolkit of somebody whose build finds none: there is none, or it is not seen."""
    if facts.error("cuda-home-told-set"):
        return "the CUDA_HOME that is said to be set does not reach it: another name, or a shell opened before"
    if _torch_does_not_look(facts):
        return "torch looks for no toolkit although nvcc is there: most likely this torch is a build for the CPU"
    if facts.error("cuda-of-conda-told"):
        return "there is no toolkit: what conda brings beside torch is the runtime, without nvcc"
    if _told_to_be_there(facts):
        return "does not see the toolkit that is said to be installed"
    return "there is no toolkit"


def _torch_does_not_look(facts: Facts) -> bool:
    """Whether nvcc runs and torch says that there is none: it asks PATH itself, unless it is built without CUDA."""
    error = facts.error("cuda-home")
    says = error is not None and _torch_has_looked(error) and "does not exist" not in error.text
    unknown = facts.torch.cuda is None and facts.torch.build in (None, "cpu")
    return says and unknown and facts.toolkit.nvcc is not None and bool(facts.error("nvcc-printed"))


def _torch_with_cuda(facts: Facts) -> tuple[str, ...]:
    first, *rest = fixes.reinstall_torch(facts)
    return (
        'python -c "import torch; print(torch.__version__, torch.version.cuda)"   # None: a build for the CPU; then:',
        first,
        *rest,
    )


def _set_for_this_window(facts: Facts) -> tuple[str, ...]:
    """Windows: what is set in its dialogs is known to programs that are started afterwards, by its exact name."""
    newest = r'(Get-ChildItem "$env:ProgramFiles\NVIDIA GPU Computing Toolkit\CUDA" | Select-Object -Last 1).FullName'
    return (
        f"$env:CUDA_HOME = {newest}   # PowerShell, in the window that builds: the name is CUDA_HOME, with _; an "
        "error: no toolkit is installed there",
        _LOOKED,
        '[Environment]::SetEnvironmentVariable("CUDA_HOME", $env:CUDA_HOME, "User")   # for good; then close and open '
        "the terminal, VS Code and PyCharm anew",
    )


def toolkit_steps(facts: Facts) -> tuple[str, ...]:
    """What brings the compiler of torch's CUDA, and points CUDA_HOME at it."""
    error = facts.error("cuda-home")
    windows = fixes.on_windows(facts)
    told = facts.error("cuda-home-told-set") is not None
    if _torch_does_not_look(facts):
        return _torch_with_cuda(facts)
    if facts.error("cuda-of-conda-told") and not windows:
        return fresh_toolkit(replace(facts, python=replace(facts.python, kind="conda")))
    if told and (windows or facts.error("system-variables-told")) and not facts.platform.wsl:
        return _set_for_this_window(facts)
    if windows:
        return (
            *_on_windows_path(facts),
            f"Install the CUDA toolkit {facts.torch.cuda or 'of torch.version.cuda'} from "
            "https://developer.nvidia.com/cuda-toolkit-archive, then open a new window",
        )
    steps = fresh_toolkit(facts)
    there = _told_to_be_there(facts)
    if told and not there:
        there = _INSTALLED
    if there:
        return (there, *((_LOOKED,) if told else ()), *(f"or: {step}" for step in steps[:1]), *steps[1:])
    if error is not None and _torch_has_looked(error):
        elsewhere = "or, where one lies elsewhere: export CUDA_HOME=<it>   # ls -d /usr/local/cuda-* /opt/cuda"
        return (*steps, elsewhere)
    if facts.torch.cuda:
        return steps
    on_path = "export CUDA_HOME=/usr/local/cuda PATH=/usr/local/cuda/bin:$PATH   # where ls /usr/local shows cuda"
    return (on_path, *(f"else: {step}" for step in steps[:1]), *steps[1:])


def _torch_has_looked(error: ErrorFact) -> bool:
    """Whether the message is torch's or DeepSpeed's, which follows it: both try /usr/local/cuda by themselves.

    https://github.com/pytorch/pytorch/blob/main/torch/utils/cpp_extension.py, _find_cuda_home
    """
    text = error.text.lower()
    return any(words in text for words in _OF_TORCH)


# Its message, DeepSpeed's, and the frames above them, where a paste ends before.
_OF_TORCH = (
    "cuda_home environment variable is not set",
    "cuda_home does not exist",
    "in _join_cuda_home",
    "installed_cuda_version()",
)


def _told_to_be_there(facts: Facts) -> str:
    """The variable for a toolkit that is said to be installed, under the name that its installer gives it."""
    versions = facts.toolkit.installed or ((facts.toolkit.nvcc,) if facts.toolkit.nvcc else ())
    wanted = release_of(facts.torch.cuda)
    if not versions and facts.error("toolkit-installed-told"):
        return _INSTALLED
    if len(versions) != 1 or (wanted and (release_of(versions[0]) or wanted)[0] != wanted[0]):
        return ""
    folder = f"/usr/local/cuda-{versions[0]}"
    return f"export CUDA_HOME={folder} PATH={folder}/bin:$PATH   # the one that is installed: ls {folder}/bin/nvcc"


def fresh_toolkit(facts: Facts) -> tuple[str, ...]:
    """What brings a toolkit of torch's CUDA to a Linux of this kind, whatever lies there already."""
    cuda = facts.torch.cuda
    if facts.python.kind == "conda":
        # By its label: cuda-toolkit=12.1 alone asks for parts of 12.1 or newer.
        label = f"nvidia/label/cuda-{cuda or _TORCH_CUDA}.0"
        return (f"conda install -y -c {label} cuda-toolkit", "export CUDA_HOME=$CONDA_PREFIX")
    if facts.platform.service == "slurm":
        return (
            "module load cuda   # module avail cuda lists them: the one of torch.version.cuda",
            "export CUDA_HOME=$(dirname $(dirname $(which nvcc)))",
        )
    if facts.platform.container == "docker" and not facts.platform.wsl:
        image = f"nvidia/cuda:{cuda}.0-devel-ubuntu22.04" if cuda else "nvidia/cuda:<torch.version.cuda>.0-devel-…"
        return (f"FROM {image}   # in the Dockerfile; images called base and runtime have no nvcc",)
    return (_from_the_system(facts),)


def _from_the_system(facts: Facts) -> str:
    name = f"cuda-toolkit-{facts.torch.cuda.replace('.', '-') if facts.torch.cuda else _DASHED}"
    command = system_packages.install(facts, name, dnf=name, pacman="cuda", zypper=name)
    note = "   # from NVIDIA's own packages; CUDA_HOME is then found at /usr/local/cuda"
    if not command.startswith("sudo apt"):
        return command
    system = "wsl-ubuntu" if facts.platform.wsl else "$ID${VERSION_ID//./}"
    return f"{_KEYRING.format(system=system)}sudo apt install -y {name}{note}"


def _on_windows_path(facts: Facts) -> tuple[str, ...]:
    """A toolkit that is said to be installed, put before the others for this window."""
    if not (facts.toolkit.installed or facts.error("installed-in-vain")):
        return ()
    version = (facts.toolkit.installed or ("<version>",))[0]
    folder = rf"C:\Program Files\NVIDIA GPU Computing Toolkit\CUDA\v{version}"
    return (
        f'$env:CUDA_HOME = "{folder}"; $env:Path = "{folder}\\bin;$env:Path"   # PowerShell; that folder is there? '
        "Windows open since before the installation do not know it; for good: the system's environment variables",
    )
