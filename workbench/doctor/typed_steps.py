"""The steps of a fix as they are typed on the machine, and in the environment, that the facts tell of."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath

from workbench.doctor import fixes, shells, system_packages
from workbench.doctor.facts import Facts
from workbench.doctor.tables import WHEELS
from workbench.doctor.versions import local_tag, older

# Images that hold a system or a Python and nothing of ours: no newer tag of theirs mends a package.
_BARE_IMAGE = re.compile(
    r"(?:docker\.io/)?(?:library/)?(?:python|ubuntu|debian|alpine|fedora|centos|rockylinux|archlinux|nvidia/cuda"
    r"|continuumio/(?:mini|ana)conda3?|mambaorg/micromamba|condaforge/[\w-]+)(?::|@|$)"
)


_FLASH_WHEELS = "https://github.com/Dao-AILab/flash-attention/releases"


_FLASH_WHEELS_FOR_WINDOWS = "https://github.com/kingbri1/flash-attention/releases"


def in_environment(facts: Facts, steps: tuple[str, ...]) -> tuple[str, ...]:
    """`steps` of a fix as they are typed on the machine, and in the environment, that a report tells of."""
    steps = _in_its_environment(facts, steps)
    if re.search(r"[/\\]micromamba[/\\]", f"{facts.python.prefix}/{facts.python.executable}"):
        steps = shells.for_micromamba(steps)
    notebook = facts.origin != "live" and facts.platform.service in ("colab", "kaggle")
    return shells.for_notebook(steps) if notebook else steps


def _in_its_environment(facts: Facts, steps: tuple[str, ...]) -> tuple[str, ...]:
    """`steps` of a pasted report, with a word on conda, or on the image, before the first that uses pip there."""
    steps = tuple(system_packages.adapted(facts, _named_command(facts, step)) for step in steps)
    steps = tuple(_on_its_host(facts, _from_its_index(facts, step)) for step in steps)
    if fixes.on_windows(facts):  # the project itself publishes wheels for Linux alone
        steps = tuple(step.replace(_FLASH_WHEELS, _FLASH_WHEELS_FOR_WINDOWS) for step in steps)
        # A container there, and what a report tells of WSL, is Linux.
        steps = steps if facts.platform.wsl or facts.platform.container else shells.for_powershell(steps)
    if facts.platform.system is None:
        steps = shells.for_any(steps)
    if facts.platform.system == "Darwin" and not facts.platform.container:
        steps = shells.for_mac(steps)
    with_pip = any(re.search(r"\bpython -m pip (?:un)?install\b", step) for step in steps)
    if with_pip and facts.origin != "live" and _BARE_IMAGE.match(facts.platform.image or ""):
        return (*steps, "In a Dockerfile: RUN before each pip command; what a running container is given goes with it.")
    if with_pip and facts.origin != "live" and facts.platform.image:
        return _before_pip(
            steps,
            f"This runs from the image {facts.platform.image}: take a newer tag of it, where there is one.",
            f"or build on it: a Dockerfile with FROM {facts.platform.image}, and RUN before each pip command here; "
            "what is installed into a running container goes with it",
        )
    with_uv = facts.python.kind == "uv" and any(re.search(r"\buv pip (?:un)?install\b", step) for step in steps)
    if facts.origin == "live" or not (with_pip or with_uv):
        return steps
    if facts.python.kind == "conda":
        return _before_pip(steps, _activate_conda(facts))
    return _in_own_python(facts, steps)


_OF_THE_HOST = re.compile(
    r"(?:or[:,][^#]{0,60}: |or: )?sudo (?:reboot|modprobe|rmmod|nvidia-modprobe|systemctl|ubuntu-drivers|nvidia-ctk"
    r"|mokutil|update-grub"
    r"|apt (?:update && sudo apt )?install (?:-y |--only-upgrade )?(?:nvidia-(?:driver|container|utils)|linux-))"
)


def _on_its_host(facts: Facts, step: str) -> str:
    """A step that can be typed only outside the container which the report comes from, with a word on that."""
    if not facts.platform.container or facts.platform.wsl or not _OF_THE_HOST.match(step):
        return step
    if re.search(r"\b(?:host|node|outer|outside|machine|where this docker)\b", step):
        return step
    command, _, note = step.partition("   # ")
    return f"{command}   # on the host" + (f"; {note}" if note else "")


def _before_pip(steps: tuple[str, ...], *words: str) -> tuple[str, ...]:
    installs = re.compile(r"\bpython -[mc] |\bconda (?:remove|install) |\buv pip ")
    first = next((number for number, step in enumerate(steps) if installs.search(step)), 0)
    return (*steps[:first], *words, *steps[first:])


def _activate_conda(facts: Facts) -> str:
    name = facts.environment.get("CONDA_DEFAULT_ENV") or PurePath((facts.python.prefix or "").replace("\\", "/")).name
    known = re.fullmatch(r"[\w.-]{1,60}", name or "")
    return (
        f"conda activate {name if known else '<this environment>'}   # a conda environment: pip installs into it, "
        "beside what conda brought"
    )


def _quoted(path: str) -> str:
    """A path of `_SAFE_PATH` for a shell of Unix, in which a ~ still means the home directory."""
    return path if " " not in path else f'"{path.replace("~", "$HOME", 1)}"'


# What holds its packages where pip cannot write, and how one that is newer gets there.
# https://nixos.org/manual/nixpkgs/stable/#python, https://pyinstaller.org/en/stable/operating-mode.html
_NO_PIP_INSIDE = {
    "nix": (
        "nix flake update   # in the folder of the program's flake, then build and start it anew: this Python lies in "
        "/nix/store, where pip cannot write, and its packages are those of its nixpkgs",
        "in the flake, for a torch with CUDA: python3Packages.torch-bin (PyTorch's own wheel) in place of torch, from "
        "a nixpkgs that has the release named below, with config = { allowUnfree = true; cudaSupport = true; }",
        "or the program in an environment outside the store: python3 -m venv .venv && source .venv/bin/activate; "
        "in it:",
    ),
    "packed": (
        "Take a newer release of this program, or its package for this GPU: it was packed with a Python and a torch of "
        "its own, which pip does not reach.",
        "or run it from its source, in a venv (python -m venv .venv), after its requirements with:",
    ),
}
_SAFE_PATH = re.compile(r"[\w.@+~:/\\ -]{1,200}")


def _in_own_python(facts: Facts, steps: tuple[str, ...]) -> tuple[str, ...]:
    """`steps` of a pasted report in the environment that its paths lie in: another Python would take the packages."""
    prefix = facts.python.prefix or ""
    if facts.python.kind in _NO_PIP_INSIDE:
        return _before_pip(steps, *_NO_PIP_INSIDE[facts.python.kind])
    if not _SAFE_PATH.fullmatch(prefix):
        return steps
    backslashes = "\\" in prefix or fixes.on_windows(facts)
    if facts.python.kind in ("venv", "uv"):
        script = f"{prefix}\\Scripts\\activate" if backslashes else f"{prefix}/bin/activate"
        call = (f'& "{script}"' if " " in script else script) if backslashes else f"source {_quoted(script)}"
        return _before_pip(
            steps, f"{call}   # the program's own environment: what pip installs elsewhere is not seen by it"
        )
    if facts.python.kind == "portable":
        program = f"{prefix}\\python.exe" if backslashes else f"{prefix}/bin/python"
        if backslashes and " " in program:
            # cmd knows no "& ", and PowerShell calls no quoted program without it; both know pushd.
            inside = tuple(re.sub(r"\bpython (?=-m |-c )", lambda _: ".\\python.exe ", step) for step in steps)
            return (f'pushd "{prefix}"   # the program\'s own Python', *inside) if inside != steps else steps
        return tuple(re.sub(r"\bpython (?=-m |-c )", lambda _: f"{program} ", step) for step in steps)
    if facts.python.kind == "pipx":
        name = shlex.quote(PurePath(prefix).name)
        return tuple(step.replace("python -m pip ", f"pipx runpip {name} ") for step in steps)
    return steps


_HUB_COMMANDS = (
    ("hf auth login", "huggingface-cli login"),
    ("hf download", "huggingface-cli download"),
    ("hf cache prune", "huggingface-cli delete-cache"),
)


def _named_command(facts: Facts, step: str) -> str:
    """`step` with the Hub's command as it is called here: ``hf`` came with huggingface_hub 0.34."""
    hub, transformers = facts.package("huggingface-hub"), facts.package("transformers")
    # transformers before 5 takes no huggingface_hub from 1.0 on, and all before that have the old command.
    if older(hub, "0.34") or (hub is None and older(transformers, "5.0")):
        for new, old in _HUB_COMMANDS:
            step = step.replace(new, old)
    return step


_INSTALLS_TORCH = re.compile(
    r"(?:\bpython(?:\.exe)? -m|\buv) pip install (?P<options>(?:-\S+ )*)"
    r"(?P<words>(?:['\"]?torch(?:vision|audio)?(?![\w.-])[\w.,<>=!~*]*['\"]?(?: (?=\S)|$))+)(?=$|[;&#]| )"
)


def _from_its_index(facts: Facts, step: str) -> str:
    """A step that installs torch from the index of all packages, with the index that has the build for this machine.

    On Windows the former has CPU builds alone, and elsewhere none for a GPU or driver that newer builds left behind.
    """
    command, mark, note = step.partition("   # ")
    found = _INSTALLS_TORCH.search(command)
    pinned = re.search(r"\btorch(?!vision|audio)(?:==(?P<version>[\d.]+))?", found["words"]) if found else None
    rest = command[found.end() :] if found else ""
    if found is None or pinned is None or not re.match(r"$|;|&&", rest.strip()) or "--pre" in found["options"]:
        return step
    own = local_tag(facts.torch.version) or ""
    forced = "--force-reinstall" in found["options"] and re.fullmatch(r"cu\d{2,3}", own)
    option = f"--index-url {WHEELS}/{own}" if forced else fixes.index_of_torch(facts, pinned["version"])
    if not option:
        return step
    words = found["words"].rstrip()
    before = command[: found.start("words")] + words
    return f"{before} {option}{command[found.start('words') + len(words) :]}{mark}{note}"
