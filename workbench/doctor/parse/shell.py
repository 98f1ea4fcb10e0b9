"""What shell sessions and tracebacks tell by the way: variables, uname, lspci, df, nvcc, paths, the Python prompt."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.environment import mask_text, mask_value, matters
from workbench.doctor.facts import ErrorFact
from workbench.doctor.parse.draft import Draft
from workbench.doctor.parse.fields import gpu_vendor, name_gpu

_ASSIGNMENT = re.compile(
    r"\s{0,8}`?(?:\$\s{0,2}|#\s{0,2}"
    # "(base) me@box:~$", "[me@box work]$"
    r"|(?:\([\w.-]{1,40}\) ?)?"
    r"(?:[\w.-]{1,40}@[\w.-]{1,60}:[^\s$#]{0,120}|\[[\w.-]{1,40}@[\w.-]{1,60} [^\]\n]{1,60}\])[$#]\s{1,2}"
    r")?(?:export\s{1,4}|set\s{1,4}|declare -x\s{1,4}|ENV\s{1,4})?"
    r"([A-Za-z][A-Za-z0-9_]{2,60})="
    r"(\"[^\"\n]{0,2000}\"|'[^'\n]{0,2000}'|\S{0,2000})"
)
# In the environment of a compose file or a pod: "CUDA_VISIBLE_DEVICES: all", "- CUDA_VISIBLE_DEVICES=all".
_IN_YAML = re.compile(
    r"\s{2,24}(?:- ?)?[\"']?([A-Z][A-Z0-9_]{2,60})[\"']?(?:: {1,4}|=)([\"']?[\w,.:/-]{0,200}[\"']?)\s{0,8}$"
)
# "A=1 B=2 python …": the second and the next.
_BESIDE = re.compile(r"(?<=\s)([A-Z][A-Z0-9_]{2,60})=(\S{1,200})(?=\s)")
_ENVIRON = re.compile(
    r"environ\[['\"]([A-Z][A-Z0-9_]{2,60})['\"]\]\s{0,4}=\s{0,4}(f?)(['\"])((?:(?!\3)[^\n]){0,500})\3"
)
_DRIVER = re.compile(r"\b[Dd]river(?: [Vv]ersion)?(?: is|:|=)? {0,2}v?(\d{3}\.\d{2,3}(?:\.\d{2})?)\b")
_DRIVER_PACKAGE = re.compile(r"\bnvidia-driver-(?:latest-|dkms-|open-|cuda-)+(\d{3}\.\d{2,3}(?:\.\d{2})?)\b")
_IMAGE = re.compile(r"\b((?:nvcr|ghcr|gcr|quay|docker)\.io/[\w./-]{3,100}(?::[\w.-]{1,60})?)")
_IMAGE_NAME = re.compile(r"[a-z0-9][\w.-]{1,60}(?:/[\w.-]{1,60}){0,4}(?::[\w.-]{1,60})?")
# Options of docker run that stand alone; every other one takes the next word.
_LONE_OPTIONS = frozenset(
    [
        "-d",
        "-i",
        "-t",
        "-it",
        "-ti",
        "-dit",
        "-itd",
        "--rm",
        "--privileged",
        "--init",
        "--detach",
        "--interactive",
        "--tty",
    ]
)
_ECHO = re.compile(r"echo \"?\$\{?([A-Z][A-Z0-9_]{2,60})\}?\"?\s{0,8}$")
_NVCC = re.compile(r"Cuda compilation tools, release (\d{1,2}\.\d{1,2})")
# nvcc as a build calls it, or as CMake found it.
_NVCC_USED = re.compile(
    r"cuda-(?P<linux>\d{1,2}\.\d)/bin/nvcc\b|CUDA[/\\]{1,2}v(?P<windows>\d{1,2}\.\d)[/\\]{1,2}(?:bin[/\\]{1,2}nvcc|include)\b"
    r"|CUDA compiler identification is NVIDIA (?P<compiler>\d{1,2}\.\d)|\bcuda_(?P<build>\d{1,2}\.\d)\.r\d"
    r"|Found CUDAToolkit: .{0,200}version \"(?P<cmake>\d{1,2}\.\d)"
)
_UNAME = re.compile(r"Linux \S{1,80} (\d{1,2}\.\d{1,3}\S{0,60}) .{0,200}(x86_64|aarch64)")
_LSPCI = re.compile(
    r"(?:VGA compatible controller|3D controller|Display controller|Processing accelerators)[^:\n]{0,40}:\s"
    r"(NVIDIA|Advanced Micro Devices|Intel)[^\[\n]{0,100}(?:\[AMD/ATI\][^\[\n]{0,80})?(?:\[([^\]\n]{2,80})\])?"
)
_DF_SHM = re.compile(r"^\S{1,40}\s{1,20}(\d{1,10})([KMG]?)i?\s.{0,80}/dev/shm\s{0,4}$")
_SITE = re.compile(r"[/\\]lib(?:64)?[/\\]python(\d\.\d{1,2})[/\\](?:site|dist)-packages")
_CONDA_ENVIRONMENT = re.compile(
    r"(?:/|~\\|[A-Za-z]:\\)[^\s\"':;]{0,120}(?:(?:conda|forge|mamba)\d?[/\\]|conda_)envs[/\\][\w.-]{1,60}",
    re.IGNORECASE,
)
_MAC_HOME = re.compile(r"(?:^|[\s\"'(])/Users/[^/\s]{1,60}/\S{0,200}\.py\b")
_WINDOWS_PATH = re.compile(
    r"(?:(?:[A-Za-z]:|~)|(?<![A-Za-z])[A-Z]:/[^\s:]{1,100})\\[^\n]{0,200}(?:site-packages|python)", re.IGNORECASE
)
_REPL = re.compile(
    r"(?:^(?:>\s)?(?=torch\.cuda\.is_available\(\)\s{0,8}$)|>>>|In \[\d{1,5}\]:|print\()"
    r"\s{0,2}.{0,80}torch\.cuda\.is_available\(\)"
)
_BOX = re.compile(r"\s{0,6}[-*] \[([ xX])\] (Linux|Windows|macOS|Mac ?OS|Mac|WSL ?2)\b", re.IGNORECASE)
_APPLE = re.compile(r"\(Apple M\d(?: Pro| Max| Ultra)?\)|\b(?:[Mm]y|[Oo]n an?) (?:Apple )?M[1-5] (?:Mac|Pro\b|Max\b)")
_MAC = re.compile(
    r"\bApple M\d\b|\bMacBook\b"
    r"|MacBook-(?:Pro|Air)\b|\bfile:///Users/\w|/private/var/folders/"
    r"|/Library/Frameworks/Python\.framework/|\bdlopen\(/(?:Users|Library|opt/homebrew)/"
    r"|(?<![A-Za-z0-9])Mac M[1-5](?![A-Za-z0-9])"
    r"|\bMac (?:mini|[Ss]tudio)\b|\b(?:on|my|brand new|new) (?:a )?[Mm]ac(?:OS|Book)?\b|\bmacOS \d|\bMac ?OS ?X\b"
)
_APPLE_PROCESSOR = re.compile(
    r"\bApple (?:[Ss]ilicon|M[1-5]\b)"
    r"|\b(?:Mac|MacBook|mac ?OS)(?: ?(?:[Pp]ro|[Aa]ir|[Mm]ini|[Ss]tudio)\b)?[ (,]{1,3}M[1-5]\b"
    r"|\bM[1-5](?: (?:Pro|Max|Ultra))? (?:Mac|[Cc]hip|machine)"
)
# One of these is in each line that `_named_system` can use.
_NAMING = ("mac", "Apple M", "Mac", "- [", "in1", "indows 1", "/private/var/folders/", "file:///Users/")
_SECURE_BOOT = re.compile(r"\bsecure ?boot(?: is| state)?[: ]{0,3}(enabled|disabled|on|off)\b", re.I)
_NO_GPU = re.compile(
    r"\b(?:I|[Ww]e|my (?:machine|computer|laptop)) (?:do not|don't|does not|doesn't) have (?:a|any) "
    r"(?:NVIDIA |Nvidia |nvidia )?(?:GPU|gpu)\b"
)
_WINDOWS = re.compile(r"\b[Ww]in(?:dows )?1[01]\b")
_YES_NO = re.compile(
    r"(?:Out ?\[\d{1,5}\]: ?|(?:[Ii]t )?(?:returns?|returned|output|prints?|gives?)[: ]{0,3})?"
    r"[`'*]{0,3}(True|False)[`'*.]{0,3}"
)
_PROMPT = re.compile(r"\s{0,4}(?:>>>|In \[\d{1,5}\]:|\S{0,60}[$#] )")
_BARE_VERSION = re.compile(r"[012]\.\d{1,2}\.\d{1,2}[\w.+]{0,20}")
_BARE_CUDA = re.compile(r"(?:9|1[0-3])\.\d{1,2}")
_ANSWER = re.compile(r"[\s:=>-]{0,6}(?:Out\[\d{1,5}\]:\s{0,2})?['\"]?(\d{1,2}\.\d{1,3}[\w.+]{0,30})['\"]?,?")
_PYTHON_BANNER = re.compile(r"^\s{0,4}(?:[-*•] )?Python v?['\"]?(\d\.\d{1,2}\.\d{1,2}(?:(?:rc|a|b)\d{1,2})?)\b")
_MSC = re.compile(r"(\d\.\d{1,2}\.\d{1,2}) \(.{0,80}\[MSC v\.\d{4} (32|64) bit")
_OS_RELEASE = re.compile(r"PRETTY_NAME=\"?([^\"\n]{3,80})")
# Every way in which an install command names the CUDA of a torch build.
_ASKED_CUDA = re.compile(
    r"\b(?:cudatoolkit|pytorch-cuda|cuda-version) ?==? ?(?P<dotted>\d{1,2}\.\d{1,2})"
    r"|(?:torch==[\d.]{3,12}\+|/whl/(?:nightly/)?)cu(?P<tag>\d{2,3})\b"
)
_INSTALL = re.compile(r"\b(?:pip3?|conda|mamba|uv add|poetry add)\b.{0,40}\b(?:install|add|create)\b")
_SMALL_UNITS = {"": 1024, "K": 1024, "M": 2**20, "G": 2**30}


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take what the lines tell by the way."""
    available: list[bool] = []
    for index, line in enumerate(lines):
        if "=" in line or ("_" in line and ": " in line):
            _variable(line, draft)
        if "echo" in line and "$" in line:
            _echo(lines, index, draft)
        if "cuda.is_available" in line:
            answers = _availability(lines, index)
            if answers and not available:
                draft.errors.append(ErrorFact("cuda-answered", mask_text(line.strip()[:300]), index + 1))
            available += answers
        if "nvcc" in line or "CUDA" in line or "cuda_" in line:
            used = _NVCC_USED.search(line[:1000])
            if used and "o such file" not in line and "not found" not in line:
                draft.put(draft.toolkit, nvcc=used[used.lastindex or 1])
        if "torch.__version__" in line or "torch.version.cuda" in line:
            _torch_version(lines, index, draft)
        if "packages" in line or "\\" in line:
            _path(line, draft)
        if "controller" in line or "accelerators" in line:
            _pci(line, draft)
        if "river" in line:
            driver = _DRIVER_PACKAGE.search(line) or _DRIVER.search(line)
            draft.put(draft.driver, version=driver[1] if driver else None)
        if ".io/" in line or "docker" in line.lower():
            _image(line, draft)
        if "ecure" in line and "oot" in line:
            secure = _SECURE_BOOT.search(line)
            draft.put(draft.platform, secure_boot=secure[1].lower() in ("enabled", "on") if secure else None)
        if " have a" in line and _NO_GPU.search(line):
            draft.no_gpus = True
            draft.put(draft.platform, gpu_vendors=())
        _rest(line, draft)
    # Of two environments told of, one that works is no subject of a report.
    if available:
        draft.put(draft.torch, cuda_available=all(available))
    _printed_versions(lines, draft)
    _user_site(lines, draft)
    _asked_cuda(lines, draft)


def _asked_cuda(lines: Sequence[str], draft: Draft) -> None:
    """The CUDA of the torch that was asked for; of several answers none is taken."""
    found = {
        match["dotted"] or f"{match['tag'][:-1]}.{match['tag'][-1]}"
        for line in lines
        if "torch" in line and _INSTALL.search(line[:600])
        for match in _ASKED_CUDA.finditer(line[:600])
    }
    draft.put(draft.torch, asked_cuda=found.pop() if len(found) == 1 else None)
    # Only ROCm's index was ever asked: that is the build which is there.
    asked = [line[:600] for line in lines if "/whl/" in line and "torch" in line and _INSTALL.search(line[:600])]
    if asked and all(re.search(r"/whl/cpu\b", line) for line in asked):
        draft.put(draft.torch, build=None if draft.torch.get("cuda") else "cpu", installed=True)
    if asked and all("/whl/rocm" in line or "/nightly/rocm" in line for line in asked):
        draft.put(draft.torch, build=None if draft.torch.get("cuda") else "rocm", installed=True)


def _rest(line: str, draft: Draft) -> None:
    if "compilation tools" in line:
        match = _NVCC.search(line)
        if match:
            draft.saw("nvcc")
            draft.toolkit["nvcc"] = match[1]
    elif "PRETTY_NAME" in line:
        match = _OS_RELEASE.search(line)
        if match:
            draft.put(draft.platform, os=match[1], system="Linux")
    elif "Linux " in line:
        match = _UNAME.search(line)
        if match:
            wsl = "microsoft" in line.lower()
            draft.put(draft.platform, system="Linux", kernel=match[1], machine=match[2], wsl=wsl)
    elif "/dev/shm" in line:
        match = _DF_SHM.match(line.strip())
        if match:
            draft.put(draft.platform, shm_total_bytes=int(match[1]) * _SMALL_UNITS[match[2]])
            if line.strip().startswith("shm"):
                draft.put(draft.platform, container="docker")
    elif "[MSC v." in line:
        match = _MSC.search(line)
        if match:
            if draft.python.get("version", "").count(".") == 1:
                del draft.python["version"]  # by the name of a folder, which may stand for another one
            draft.put(draft.python, version=match[1], bits=int(match[2]))
            draft.put(draft.platform, system="Windows")
    elif "Python " in line:
        match = _PYTHON_BANNER.match(line)
        if match:
            draft.put(draft.python, version=match[1])
            if "32 bit" in line:
                draft.put(draft.python, bits=32)
    elif "/.dockerenv" in line:
        draft.put(draft.platform, container="docker")
    elif any(word in line for word in _NAMING):
        _named_system(line, draft)


def _named_system(line: str, draft: Draft) -> None:
    """The system as a person names it, in a sentence or by ticking a box."""
    if _APPLE_PROCESSOR.search(line) and "[ ]" not in line:
        draft.put(draft.platform, gpu_vendors=("apple",))
    box = _BOX.match(line)
    if box and box[2].upper().startswith("WSL"):
        if box[1] in "xX":
            draft.put(draft.platform, system="Linux", wsl=True)
    elif box:
        system = {"linux": "Linux", "windows": "Windows"}.get(box[2].lower(), "Darwin")
        if box[1] in "xX":
            draft.put(draft.platform, system=system)
    elif "(not a mach-o file)" in line or _APPLE.search(line):
        draft.put(draft.platform, system="Darwin")
    elif "[ ]" not in line and len(line) < 300 and "wsl" not in line.lower():
        named = "Darwin" if _MAC.search(line) else "Windows" if _WINDOWS.search(line) else None
        draft.put(draft.platform, system=named)


def _variable(line: str, draft: Draft) -> None:
    """The variables that a line sets: one or more before a command, or one in a program."""
    match = _ASSIGNMENT.match(line) or _IN_YAML.match(line)
    if match is None:
        assigned = _ENVIRON.search(line)
        if assigned is not None:
            _set(assigned[1], assigned[4].split("{")[0] if assigned[2] else assigned[4], line, draft)
        return
    _set(match[1], match[2], line, draft)
    for name, value in _BESIDE.findall(line, match.end()) if match[1].isupper() else ():
        _set(name, value, line, draft)


def _set(name: str, value: str, line: str, draft: Draft) -> None:
    # Advice printed by programs holds placeholders; nobody has set such a value.
    if not matters(name) or "<" in value or "path_to" in value or "/path/to" in value or value.startswith("="):
        return
    if re.fullmatch(r"[Xx]{2,8}", value):  # as bitsandbytes explains its own variable
        return
    if not value and line.lstrip().startswith("export"):
        return
    draft.environment.setdefault(name, mask_value(name, value.strip("\"'")[:1000]))


def _echo(lines: Sequence[str], index: int, draft: Draft) -> None:
    match = _ECHO.search(line := lines[index])
    if match is None or not matters(match[1]) or index + 1 >= len(lines):
        return
    answer = lines[index + 1].strip()
    # The next prompt right after the command means that the variable is empty or unset, which is not the same.
    if answer and not re.match(r"\S{0,60}[$#]\s|[$#]\s", answer + " ") and answer != line:
        draft.environment.setdefault(match[1], mask_value(match[1], answer[:1000]))


def _image(line: str, draft: Draft) -> None:
    """The container image that the paste is about."""
    if re.match(r"\s{0,6}[-*] \[[xX]\] docker\b", line, re.IGNORECASE):
        draft.put(draft.platform, container="docker")
    named = _IMAGE.search(line)
    name = named[1].rstrip(".-/") if named else _image_run(line)
    # Commands that only try out whether containers see the GPU.
    if name and "nvidia-smi" not in line and not re.search(r"nvidia/cuda\b|hello-world", name):
        draft.put(draft.platform, image=name, container="docker")


def _image_run(line: str) -> Optional[str]:
    words = iter(line.partition("docker run ")[2].split()[:60])
    for word in words:
        if not word.startswith("-"):
            return word if _IMAGE_NAME.fullmatch(word) else None
        if "=" not in word and word not in _LONE_OPTIONS:
            next(words, None)
    return None


def _availability(lines: Sequence[str], index: int) -> list[bool]:
    rest = lines[index].split("cuda.is_available", 1)[1].removeprefix("()")
    same = re.match(
        r"[)\s:=>\"'`-]{0,12}(?:is |as |return(?:s|ing|ed)? |gives |giving |was |= ?)?[\s\"'`]{0,3}(True|False)\b", rest
    )
    if "True" in rest and "False" in rest:
        return [False]  # of two states told in one breath, the one that fails is the subject
    answer = same[1] if same else ""
    if not answer and _REPL.search(lines[index]):
        answer = _later_answer(lines[index + 1 : index + 9])
    elif not answer and re.fullmatch(r"[)\s\"'`]{0,6}[:=][\s\"'`]{0,6}", rest):
        answer = _later_answer(lines[index + 1 : index + 2])
    return [answer == "True"] if answer else []


def _later_answer(following: Sequence[str]) -> str:
    """The answer below a question; warnings, blank lines and the rest of a script may stand in between."""
    for line in following:
        match = _YES_NO.fullmatch(line.strip())
        if match:
            return match[1]
        if _PROMPT.match(line):
            break
    return ""


def _torch_version(lines: Sequence[str], index: int, draft: Draft) -> None:
    """``torch.__version__`` and ``torch.version.cuda`` with the answer on the same line or the next."""
    name, _, rest = lines[index].partition(
        "torch.__version__" if "torch.__version__" in lines[index] else "torch.version.cuda"
    )
    following = lines[index + 1] if index + 1 < len(lines) else ""
    same = _ANSWER.match(rest.strip(" )}\"'"))
    answer = same or (
        _ANSWER.fullmatch(following.strip()) if ">>>" in name or "print" in name or "In [" in name else None
    )
    if answer is None:
        return
    if "torch.__version__" in lines[index]:
        draft.put(draft.torch, version=answer[1], installed=True)
        draft.package("torch", answer[1], "import torch")
    elif re.match(r"\d", answer[1]):
        draft.put(draft.torch, cuda=answer[1])


def _printed_versions(lines: Sequence[str], draft: Draft) -> None:
    """torch's version and its CUDA, printed one below the other by a script that the paste shows."""
    if not any("torch.version.cuda" in line for line in lines) or draft.torch.get("version"):
        return
    for line, following in zip(lines, lines[1:]):
        version, cuda = _BARE_VERSION.fullmatch(line.strip()), _BARE_CUDA.fullmatch(following.strip())
        if version and cuda:
            draft.put(draft.torch, version=version[0], cuda=cuda[0], installed=True)
            draft.package("torch", version[0], "import torch")
            return


def _path(line: str, draft: Draft) -> None:
    site = _SITE.search(line)
    if "envs" in line:
        environment = _CONDA_ENVIRONMENT.search(line)
        if environment:
            draft.put(draft.python, kind="conda", prefix=environment[0])
    if site:
        draft.put(draft.python, version=site[1])
        if _MAC_HOME.search(line) or "/opt/homebrew/" in line:
            draft.put(draft.platform, system="Darwin")
    elif ("ython" in line or "site-packages" in line) and _WINDOWS_PATH.search(line):
        draft.put(draft.platform, system="Windows")
        # The folder that Python's own installer for Windows makes: Python311, or Python311-32.
        version = re.search(r"[Pp]ython(3)(\d{1,2})(-32)?\\", line)
        if version:
            draft.put(draft.python, version=f"{version[1]}.{version[2]}", bits=32 if version[3] else None)


def _pci(line: str, draft: Draft) -> None:
    match = _LSPCI.search(line)
    if match is None:
        return
    vendor = {"NVIDIA": "nvidia", "Intel": "intel"}.get(match[1], "amd")
    draft.platform["gpu_vendors"] = tuple(sorted({*(draft.platform.get("gpu_vendors") or ()), vendor}))
    name = match[2]
    if name and vendor == "nvidia" and gpu_vendor(name) and not any(g.get("name") for g in draft.gpus.values()):
        name_gpu(draft, 0, name.split("/")[0].strip())


_WINDOWS_ENVIRONMENT = re.compile(
    r"\\(?:envs\\[\w.-]{1,60}|\.?venv[\w.-]{0,40}|env)\\Lib\\site-packages\\", re.IGNORECASE
)


# A prompt with an environment's name in it, and the path of a package in the home directory that Python tells there.
_ACTIVATED = re.compile(r"\s{0,4}\((?!base\))[\w.-]{1,40}\) \S")
_HOME_PACKAGE = re.compile(
    r"\s{0,4}['\"]?(?:[A-Za-z]:\\[^\n]{0,100}\\AppData\\Roaming\\Python\\|/\S{0,100}/\.local/lib/python3)[^\n]{0,200}-packages"
)


def _at(lines: Sequence[str], index: int) -> str:
    return lines[index] if index < len(lines) else ""


def _user_site(lines: Sequence[str], draft: Draft) -> None:
    """A traceback that runs through the home directory and an environment: the two are mixed."""
    homes, others, imported = 0, 0, ""
    for index, line in enumerate(lines):
        if "__file__" in line and _ACTIVATED.match(line) and _HOME_PACKAGE.match(_at(lines, index + 1)):
            homes, others, imported = index + 2, index + 1, "torch" if "torch" in line else ""
        if "File " not in line or "packages" not in line:
            continue
        site = _SITE.search(line)
        if _WINDOWS_ENVIRONMENT.search(line):
            others = others or index + 1
            continue
        if site is None and "AppData\\Roaming\\Python" not in line:
            continue
        prefix = line[max(0, site.start() - 200) : site.start()].split('"')[-1] if site else ""
        if site is None or prefix.endswith("/.local"):
            homes = homes or index + 1
        elif re.search(r"envs?/|venv|conda", prefix):
            others = others or index + 1
    if homes and others:
        text = " ".join(lines[homes - 1].split())[:300]
        draft.errors.append(ErrorFact("user-site-mixed", text, homes, {"imported": imported}))
