"""Commands that mend this very environment: its own installer, and the wheel that its driver and GPUs can run."""

from __future__ import annotations

import re
import shlex
from pathlib import PurePath
from typing import Optional

from workbench.doctor import torch_builds, upgrades
from workbench.doctor.facts import Facts
from workbench.doctor.tables import (
    WHEELS,
    cuda_of,
    driver_runs,
    minimum_driver,
    table,
    torch_release,
    torch_releases,
    variant_of,
)
from workbench.doctor.torch_builds import (
    WIDELY_RUN,
    Wheel,
    asks_driver,
    choose_for_driver,
    choose_for_least_driver,
    choose_wheel,
    driver_of,
    is_published,
    release_fits,
    variant_fits,
)
from workbench.doctor.versions import at_least, local_tag, minor_name, older, parse_requirement, release_of


def on_windows(facts: Facts) -> bool:
    """Whether the commands are typed on Windows."""
    return facts.platform.is_windows


def quote(facts: Facts, text: str) -> str:
    """A word as the shell of this system takes it; single quotes mean nothing to cmd."""
    if not on_windows(facts):
        return shlex.quote(text)
    return text if re.fullmatch(r"[\w@%+=:,./\\-]+", text) else f'"{text}"'


def python_command(facts: Facts) -> str:
    """The interpreter as it is typed in a shell."""
    if facts.origin == "live" and facts.python.executable:
        command = quote(facts, facts.python.executable)
        # PowerShell takes a quoted word for a text unless it is told to call it.
        return f"& {command}" if command.startswith('"') else command
    return "python"


def run_python(facts: Facts) -> str:
    """The interpreter of the project at hand, as one calls it in the project's folder."""
    if facts.origin == "live" or facts.python.kind not in ("uv", "poetry"):
        return python_command(facts)
    return f"{facts.python.kind} run python"


def unset(facts: Facts, name: str, note: str = "") -> str:
    """The command that takes a variable out of this shell."""
    command = f"Remove-Item Env:{name}" if on_windows(facts) else f"unset {name}"
    return command + (f"   # {note}" if note else "")


def export(facts: Facts, name: str, value: str, note: str = "") -> str:
    """The command that sets a variable in this shell."""
    command = f'$env:{name} = "{value}"' if on_windows(facts) else f"export {name}={value}"
    return command + (f"   # {note}" if note else "")


def where_set(facts: Facts) -> str:
    """Where a variable that comes back with each new shell is set."""
    return "the environment variables in Windows' settings" if on_windows(facts) else "~/.bashrc or the service file"


def install(facts: Facts, *packages: str, options: str = "", upgrade: bool = False) -> str:
    """The command that installs `packages` into this environment, with the tool that installed them before."""
    upgrade = upgrade and not (upgrades.hub_by_its_floor(facts, packages) and not options)
    if upgrade:
        packages = _with_its_companions(facts, upgrades.fitted(facts, packages), options)
    elif not options:
        packages = upgrades.with_who_stays(facts, packages)
    packages = _with_this_torch(_with_wheels_here(facts, packages), options)
    words = " ".join(quote(facts, package) for package in packages)
    if not options and _all_from_conda(facts, packages):
        # There torch is called pytorch.
        names = re.sub(r"(?<![^ '])torch(?![\w-])", "pytorch", words)
        return f"conda install -y -c conda-forge {names}"
    flags = f"{' -U' if upgrade else ''}{' ' + options if options else ''}"
    return f"{_pip(facts, 'install')}{flags} {words}"


def anew(facts: Facts, package: str) -> str:
    """The command that puts the files of a package there anew, and of no other, in the release that is here."""
    version = facts.package(package) or ""
    named = package
    if re.fullmatch(r"\d+(?:\.\d+)+(?:\.post\d+)?", version):
        named = f"{package}=={version}"
    elif not version and facts.platform.service not in ("colab", "kaggle"):  # a %pip there knows no $( )
        code = f"import importlib.metadata as m; print(m.version('{package}'))"
        return f'{_pip(facts, "install")} {_ANEW} {package}==$(python -c "{code}")   # the release that is here'
    return install(facts, named, options=_ANEW)


_ANEW = "--force-reinstall --no-deps --no-cache-dir"


def _with_wheels_here(facts: Facts, packages: tuple[str, ...]) -> tuple[str, ...]:
    """`packages` with what does their work here in place of those that have no wheels for this system, by the tables.

    The NumPy of today does not suit a torch before 2.3 either.
    """
    system = facts.platform.system if facts.platform.wsl is not True else "Linux"
    kind = {"Linux": "linux", "Windows": "windows", "Darwin": "mac"}.get(system or "", "")
    rows = [row for row in table("platforms")["package"] if kind in row and system not in row["wheels"]]
    instead = {name: row[kind] for row in rows for name in row["names"]}
    if older(facts.torch.version, "2.3"):
        instead["numpy"] = "numpy<2"
    return tuple(instead.get(package, package) for package in packages)


def lift(facts: Facts, package: str, *beside: str) -> str:
    """The command that brings a release from a floor on (``peft>=0.14``), with those that have to go on beside it.

    Without ``-U`` pip leaves what is named beside it where it is, and goes no further than that bears; so does uv for
    what is named first.
    """
    return install(facts, *beside, *upgrades.fitted(facts, (package,)))


def _with_its_companions(facts: Facts, packages: tuple[str, ...], options: str) -> tuple[str, ...]:
    """`packages` of an upgrade, with those that are bound to one torch where torch is among them: all move together."""
    names = [requirement.name for requirement in map(parse_requirement, packages) if requirement]
    if "torch" not in names or "--no-deps" in options:
        return packages
    bound = ("torchvision", "torchaudio", *(() if "/rocm" in options else ("xformers",)))
    return (*packages, *(name for name in bound if facts.package(name) and name not in names))


def _with_this_torch(packages: tuple[str, ...], options: str) -> tuple[str, ...]:
    """`packages` with what belongs to the torch that is named exactly among them, where pip would not see to it.

    torchaudio 2.11, its last, names no torch any more (by its metadata), so that pip takes it beside any; a forced
    install fetches NumPy anew too, and that of today does not suit a torch before 2.3.
    """
    torch = next((package[7:].split("+")[0] for package in packages if package.startswith("torch==")), None)
    minor = minor_name(torch)
    if torch is None or minor is None or "dev" in torch or at_least(torch, "2.12"):
        return packages
    audio = f"0.{minor[2:]}" if minor.startswith("1.") else minor  # it has torch's own number since 2.0
    named = tuple(f"torchaudio=={audio}.*" if package == "torchaudio" else package for package in packages)
    forced = "--force-reinstall" in options and "--no-deps" not in options and "torchvision" in packages
    return (*named, "numpy<2") if forced and older(torch, "2.3") else named


def companion(facts: Facts, name: str) -> str:
    """The command that installs torchvision or torchaudio, and leaves the torch that is here as it is."""
    version, tag = str(facts.torch.version or ""), local_tag(facts.torch.version) or ""
    if version:
        # A tag of AMD's own builds goes on behind the number of ROCm: rocm7.2.0.lw.git7e1940d4.
        own = re.match(r"(?:cu\d{2,3}|cpu)$|rocm\d{1,2}\.\d{1,2}", tag) if at_least(version, "1.13") else None
        options = f"--index-url {WHEELS}/{own[0]}" if own else ""
        return install(facts, name, f"torch=={version.split('+')[0]}", options=options)
    if on_windows(facts):
        return f"{install(facts, name)}   # with torch==<the version that pip show torch names> in the same command"
    here = "\"torch==$(python -c 'import torch; print(torch.__version__)')\""
    return f"{_pip(facts, 'install')} {name} {here}   # the one that belongs to the torch that is here, which stays"


def uninstall(facts: Facts, *packages: str) -> str:
    """The command that removes `packages` from this environment."""
    if _all_from_conda(facts, packages):
        return f"conda remove -y {' '.join(packages)}"
    command = _pip(facts, "uninstall")
    yes = "" if command.startswith("uv ") else " -y"
    return f"{command}{yes} {' '.join(packages)}"


def _all_from_conda(facts: Facts, packages: tuple[str, ...]) -> bool:
    names = [requirement.name for requirement in map(parse_requirement, packages) if requirement]
    return bool(names) and len(names) == len(packages) and all(name in facts.conda for name in names)


def _pip(facts: Facts, verb: str) -> str:
    if facts.origin != "live":
        uv = "uv pip list" in facts.formats or facts.python.kind == "uv"
        poetry = facts.python.kind == "poetry"
        return f"uv pip {verb}" if uv else f"poetry run python -m pip {verb}" if poetry else f"python -m pip {verb}"
    python = python_command(facts)
    if facts.python.kind == "uv":
        return f"uv pip {verb} --python {python}"
    if facts.python.kind == "pipx" and facts.python.prefix:
        return f"pipx runpip {shlex.quote(PurePath(facts.python.prefix).name)} {verb}"
    return f"{python} -m pip {verb}"


def new_environment(python: str = "3.12", folder: str = ".venv", anew: bool = False) -> str:
    """The command that makes an environment with a Python of its own, and with a pip, which uv alone leaves out.

    Args:
        python: the release that it is to have, or a range in quotes.
        folder: where it is put.
        anew: whether it takes the place of one that may be there.
    """
    return f"uv venv {'--clear ' if anew else ''}--seed --python {python} {folder}"


def preparation(facts: Facts) -> tuple[str, ...]:
    """What must come before any install here: a pip, or an environment of one's own."""
    if facts.origin != "live":
        return ()
    python = python_command(facts)
    if facts.python.externally_managed:
        return (
            f"{python} -m venv ~/envs/models   # this Python belongs to the system and refuses pip (PEP 668)",
            "~/envs/models/bin/python -m pip install …   # use that interpreter in the commands below",
        )
    if facts.python.pip == "" and facts.python.kind not in ("uv", "pipx"):
        return (f"{python} -m ensurepip --upgrade   # there is no pip in this environment",)
    return ()


def _for_older_driver(facts: Facts, keep_release: bool, wheel: Wheel) -> tuple[str, ...]:
    """The build for a driver one CUDA major older than `wheel` needs."""
    major = (release_of(cuda_of(wheel.variant)) or (WIDELY_RUN,))[0]
    older_wheel = choose_for_driver(facts, keep_release, minimum_driver(major - 1, on_windows(facts))[0])
    newer = minimum_driver(major, on_windows(facts))[0]
    update = f"where it shows an older CUDA: update the NVIDIA driver to {newer} or newer first"
    # On ARM there were builds for servers from CUDA 12 on alone: whl/cu118 has none for aarch64.
    on_arm = facts.platform.machine in ("aarch64", "arm64") and major < 13
    if older_wheel is None or older_wheel.variant == wheel.variant or on_arm:
        return (update,)
    command = install(facts, *torch_pins(facts, older_wheel), options=f"--index-url {older_wheel.index}")
    return (f"or, where it shows CUDA {major - 1}.x: {command}", update)


def reinstall_torch(facts: Facts, keep_release: bool = True) -> tuple[str, ...]:
    """Steps that replace torch and its companions by builds that run here, or the driver that has to come first."""
    steps = list(preparation(facts))
    if facts.has_nvidia() is False and not facts.has_amd() and facts.platform.system != "Darwin":
        return (*steps, *_remove_torch(facts), _cpu_torch(facts, keep_release))
    kept = _same_old_release(facts) if keep_release else None
    if kept:
        return (*steps, *_remove_torch(facts), kept)
    of_xformers = _torch_of_xformers(facts) if keep_release else None
    if of_xformers:
        return (*steps, *_remove_torch(facts), of_xformers)
    wheel = choose_wheel(facts, keep_release)
    asks = asks_driver(facts) and wheel is not None
    asked = f"   # nvidia-smi must show CUDA {_cuda_of_wheel(wheel)} or newer in its heading" if asks and wheel else ""
    if wheel is None:
        newer = choose_wheel(facts, keep_release, assume_driver="999.0")
        if newer is None:
            return (*steps, "No published torch wheel fits this Python, system and GPU together: see the evidence.")
        wheel = choose_for_least_driver(facts, keep_release) or newer
        major = (release_of(cuda_of(wheel.variant)) or (13,))[0]
        minimum = minimum_driver(major, on_windows(facts))[0]
        offers = f" (it offers CUDA {facts.driver.cuda})" if facts.driver.cuda else ""
        steps.append(
            f"Update the NVIDIA driver to {minimum} or newer first{_on_host(facts)}: no wheel of torch that fits here "
            f"runs on the present one{offers}."
        )
    if facts.torch.version and keep_release and not is_published(facts.torch.version):
        steps.append(
            f"The installed torch {facts.torch.version} is a nightly, a build from source or part of a vendor's image; "
            "what follows puts a published release in its place."
        )
    steps += _remove_torch(facts)
    steps.append(install(facts, *torch_pins(facts, wheel), options=f"--index-url {wheel.index}") + asked)
    return (*steps, *(_for_older_driver(facts, keep_release, wheel) if asks else ()))


def _torch_of_xformers(facts: Facts) -> Optional[str]:
    """The command for the CUDA build that xformers here was made for, beside a CPU build of the same minor release."""
    error = facts.error("xformers-extensions")
    number, _, tag = ((error.values.get("built") if error else "") or "").partition("+")
    if not tag.startswith("cu") or facts.torch.build != "cpu" or minor_name(number) != minor_name(facts.torch.version):
        return None
    packages = (f"torch=={number}", *torch_companions(facts))
    return f"{install(facts, *packages, options=f'--index-url {WHEELS}/{tag}')}   # the one that xformers was built for"


def project_torch(facts: Facts) -> tuple[str, ...]:
    """How a project of uv or poetry is told to take a CUDA build; empty where there is no such project.

    What pip would put there is taken back by the next ``uv sync`` or ``poetry install``.
    """
    wheel = choose_wheel(facts)
    names = ["torch", *torch_companions(facts)]
    if wheel is None or facts.origin == "live":
        return ()
    index = f"pytorch-{wheel.variant}"
    if "uv project" in facts.formats:
        sources = "; ".join(f'{name} = {{ index = "{index}" }}' for name in names)
        return (
            f'in pyproject.toml: [[tool.uv.index]] name = "{index}", url = "{wheel.index}", explicit = true; and '
            f"[tool.uv.sources] {sources}   # without a marker that leaves this system out",
            "uv lock --upgrade-package torch && uv sync --reinstall-package torch",
            f"or, until the next uv sync: uv pip install --reinstall {' '.join(names)} --torch-backend=auto",
        )
    if "poetry project" in facts.formats:
        return (
            f"poetry source add --priority=explicit {index} {wheel.index}",
            f"poetry add --source {index} {' '.join(names)}",
        )
    return ()


def old_torch(facts: Facts, cuda: Optional[str]) -> tuple[str, ...]:
    """The build of a torch before 1.13 for a driver of CUDA 10 or older, which ran nothing newer than its own CUDA."""
    rows = table("torch")["old"]
    known = release_of(facts.torch.version)
    fitting = [
        (version, tag)
        for version, tags in rows.items()
        if isinstance(tags, list) and known in (None, release_of(version))
        for tag in tags
        if not older(cuda, cuda_of(tag) or "")
    ]
    if not fitting or cuda is None:
        return ()
    version, tag = fitting[-1]
    if facts.python.kind == "conda" or _all_from_conda(facts, ("torch",)):
        command = f"conda install -y pytorch=={version} cudatoolkit={cuda_of(tag)} -c pytorch"
    else:
        pin = f"torch=={version}" + ("" if tag == "cu102" else f"+{tag}")
        command = install(facts, pin, options=f"-f {rows['page']}")
    other = "" if known else f"   # or the release that the program names, built for CUDA {cuda_of(tag)} too"
    return (f"or the build for the driver's CUDA: {command}{other}",)


def _same_old_release(facts: Facts) -> Optional[str]:
    """The command for the CUDA build of a torch before 1.13, which a program of its time asks for; None where no
    build of it runs on this GPU, driver and Python."""
    version = str(facts.torch.version).split("+")[0]
    last = torch_builds.last_python(version)
    newest_gpu = any(at_least(gpu.compute_capability, "9.0") for gpu in facts.nvidia_gpus())
    too_new = last is not None and at_least(facts.python.version, last) and minor_name(facts.python.version) != last
    if last is None or at_least(version, "1.13") or newest_gpu or too_new or not is_published(version):
        return None
    rows, driver = table("torch")["old"], driver_of(facts)
    tags: list[str] = next((tags for name, tags in rows.items() if minor_name(name) == minor_name(version)), [])
    # Ampere and Ada run from CUDA 11 on, no older card is left out by it, and a driver of it runs each of its builds.
    fits = bool(tags) and at_least(cuda_of(tags[-1]), "11.0")
    if older(version, "1.7") and any(at_least(gpu.compute_capability, "8.0") for gpu in facts.nvidia_gpus()):
        version, tags, fits = "1.7.1", rows["1.7.1"], True  # the nearest that was built with CUDA 11
    newest = tags[-1] if fits and not (driver and driver_runs(driver, 11, on_windows(facts)) is False) else None
    companions = torch_companions(facts)
    return install(facts, f"torch=={version}+{newest}", *companions, options=f"-f {rows['page']}") if newest else None


def _on_host(facts: Facts) -> str:
    return " (on the host: a container uses its driver)" if facts.platform.container else ""


def _cuda_of_wheel(wheel: Wheel) -> str:
    return f"{(release_of(cuda_of(wheel.variant)) or (WIDELY_RUN,))[0]}.0"


def _cpu_torch(facts: Facts, keep_release: bool) -> str:
    """The CPU build, for a machine without a GPU; the package index would bring gigabytes of CUDA along."""
    current = torch_release(facts.torch.version) if keep_release else None
    kept = current is not None and is_published(facts.torch.version) and release_fits(facts, current)
    names = [f"torch=={str(facts.torch.version).split('+')[0]}" if kept else "torch"]
    names += torch_companions(facts)
    return install(facts, *names, options=f"--index-url {WHEELS}/cpu")


def fresh_torch(facts: Facts, *others: str, upgrade: bool = False) -> str:
    """The command that installs torch anew; on Windows the package index has CPU builds only."""
    companions = (name for name in torch_companions(facts) if name not in others)
    return install(facts, "torch", *companions, *others, options=index_of_torch(facts), upgrade=upgrade)


def index_of_torch(facts: Facts, version: Optional[str] = None) -> str:
    """The option for the index whose torch runs here; ``""`` where that of all packages will do, or none is known.

    Args:
        facts: derived facts.
        version: the release that is asked for, where it is not the newest.
    """
    gpu, amd = facts.has_nvidia(), facts.has_amd()
    if facts.platform.system == "Darwin":
        return ""
    if amd and not gpu:
        return f"--index-url {rocm_index(facts, newest=True)}" if facts.platform.system == "Linux" else ""
    if gpu is False:
        return f"--index-url {WHEELS}/cpu"
    if not gpu and not on_windows(facts):
        return ""
    if version is None:
        wheel = choose_wheel(facts, keep_release=False)
        return f"--index-url {wheel.index}" if wheel else ""
    release = torch_release(version)
    newest_first = sorted(
        release.variants if release else (), key=lambda name: release_of(cuda_of(name)) or (), reverse=True
    )
    fitting = (name for name in newest_first if release and variant_fits(facts, release, name, driver_of(facts)))
    tag = next(fitting, None)
    return f"--index-url {WHEELS}/{tag}" if tag else ""


def _remove_torch(facts: Facts) -> list[str]:
    """What takes torch and its companions out, each by the tool that brought it."""
    own = ("pytorch", "pytorch-gpu", "pytorch-cpu", "pytorch-cuda", "cpuonly", "libtorch", "torchvision", "torchaudio")
    by_conda = [name for name in own if name in facts.conda]
    by_pip = [name for name in ("torchvision", "torchaudio") if facts.package(name) and name not in facts.conda]
    if not any("torch" in name and name.startswith(("py", "lib")) for name in by_conda):
        by_pip.insert(0, "torch")
    steps = [f"conda remove -y {' '.join(by_conda)}"] if by_conda else []
    return [*steps, uninstall(facts, *by_pip)] if by_pip else steps


def repair_torch(facts: Facts) -> tuple[str, ...]:
    """Steps that put the very torch that is installed back together with the libraries that it pins.

    Empty when its version or build is unknown or was never published; `repair_in_words` says then what to do.
    """
    version, variant = facts.torch.version, variant_of(facts.torch.cuda)
    release = torch_release(version)
    if release is None or not is_published(version) or facts.torch.build != "cuda" or variant not in release.variants:
        return ()
    wheel = Wheel(release, str(version).split("+")[0], variant)
    options = f"--force-reinstall --index-url {wheel.index}"
    return (*preparation(facts), install(facts, *torch_pins(facts, wheel), options=options))


def repair_in_words(facts: Facts) -> tuple[str, ...]:
    """What `repair_torch` does, for a torch whose version is not known."""
    if on_windows(facts):
        return (
            *preparation(facts),
            f"{_pip(facts, 'show')} torch   # its version",
            "Install that very version again with --force-reinstall, from the index that it came from.",
        )
    version = "$(python -c \"import importlib.metadata as m; print(m.version('torch').split('+')[0])\")"
    if older(facts.python.version, "3.8"):  # which has no importlib.metadata
        version = f"$({_pip(facts, 'show')} torch | sed -n 's/^Version: \\([^+]*\\).*/\\1/p')"
    return (
        *preparation(facts),
        f"{_pip(facts, 'install')} --force-reinstall torch=={version}   # the very version that is here: the NVIDIA "
        "packages that it pins come along; --index-url too, where it came from another index",
    )


# Programs that do not start without both.
_WITH_PICTURES = frozenset(("comfyui", "sd-webui", "sd-webui-amd", "with-pictures"))


_COMPANION_MISSING = re.compile(r"No module named '?(torchvision|torchaudio)\b")


def torch_companions(facts: Facts) -> tuple[str, ...]:
    """Those of torchvision and torchaudio that are installed, are missed, or belong to the program that runs here."""
    missed = {found[1] for error in facts.errors for found in _COMPANION_MISSING.finditer(error.text)}
    wanted = facts.platform.program in _WITH_PICTURES
    return tuple(
        name
        for name in ("torchvision", "torchaudio")
        if facts.package(name) or name in missed or (wanted and not facts.lacks(name))
    )


def torch_pins(facts: Facts, wheel: Wheel) -> list[str]:
    """torch and those companions that go along, each at the version that belongs to `wheel`."""
    pins = [f"torch=={wheel.version}"]
    companions = torch_companions(facts)
    if "torchvision" in companions:
        # A companion of the same patch level resolves by itself, since torchvision pins torch exactly.
        exact = wheel.version == wheel.release.latest
        pins.append(f"torchvision=={wheel.release.torchvision}" if exact else "torchvision")
    if "torchaudio" in companions:
        pins.append("torchaudio")
    return pins


def rocm_index(facts: Facts, newest: bool = False) -> str:
    """The package index with ROCm builds of the installed release, or of the newest one that has them."""
    with_rocm = [release for release in reversed(torch_releases()) if release.rocm]
    current = None if newest else torch_release(facts.torch.version)
    told = re.match(r"rocm\d{1,2}\.\d{1,2}", local_tag(facts.torch.version) or "")
    if told and not newest:
        return f"{WHEELS}/{told[0]}"
    return f"{WHEELS}/rocm{current.rocm if current and current.rocm else with_rocm[0].rocm}"
