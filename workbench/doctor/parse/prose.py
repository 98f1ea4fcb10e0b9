"""What people say in their own words: torch, the system, WSL, that nothing sees the GPU. Needs the tables.

Read after everything else, and only for what nothing else has told. Of several answers none is taken.
"""

from __future__ import annotations

import bisect
import itertools
import re
from collections.abc import Sequence

from workbench.doctor.installed import NAMED
from workbench.doctor.parse import named_gpus, other_programs, told_copies, told_driver, told_states
from workbench.doctor.parse.draft import Draft
from workbench.doctor.versions import normalize, parse_version, release_of

_MAX_LINE = 600
_MAX_CHARACTERS = 150_000
"""Half from the start and half from the end: people's own words stand around a log, not deep in it."""
_UNIX_SITE = re.compile(r"(?:/home/|/root/|/usr/|/opt/)\S{1,160}/(?:site|dist)-packages/")
_TORCH = re.compile(
    r"\b(?:py)?torch(?:[ -]version)?[`*]{0,2}(?: is|:| ?={1,2}| v|-| ?\((?:v\.|version)?)? {0,2}[`*]{0,2}v?"
    r"(?P<version>[012]\.\d{1,2}(?:\.\d{1,2}(?:\.dev\d{8})?)?(?:\+\w{3,12}(?:\.\d){0,2})?)(?![\w.]*[-.]\w)"
    r"(?! ?\+(?!\w)|,? (?:or|and)(?: a)? (?:newer|later|above|higher|greater|up)\b)",
    re.I,
)
_PIN = re.compile(
    r"(?<![\w.-])(?P<name>[A-Za-z][\w-]{1,40}) ?== ?(?P<version>\d{1,4}\.\d[\w.]{0,20}(?:\+\w{1,12})?)(?<![.])"
)
# One line of "conda list": the package, its version and its build.
_CONDA_ROW = re.compile(
    r"[`\s>]{0,6}(?P<name>[A-Za-z][\w.-]{1,40}) {2,40}(?P<version>\d[\w.]{0,20}) {2,40}"
    r"(?:py\w{0,20}_\w{1,12}|pypi_0|h[0-9a-f]{7}_\d{1,3})\b"
)
# "export VLLM_VERSION=0.2.4", as guides have it before the address of a wheel.
_VARIABLE = re.compile(
    r"\W{0,4}(?:export |ARG |ENV |set )?(?P<name>VLLM|SGLANG|XFORMERS)_VERSION=v?(?P<version>\d+\.\d+[\w.]*)"
)
_PROGRAM = re.compile(
    r"\b(?:(?<!even )if|assert|elif|while|require\w*"
    r"|(?<!\bI )(?<!\bwe )(?<!\bhave )(?<!\bI've )(?<!\bare )(?<!\bis )pinned"
    r"|upgrad\w*|downgrad\w*|instead|before|try|tried)\b"
    r"|\binstall\b",
    re.I,
)
_MISSPELLED = {"transformer": "transformers", "pytorch": "torch", "bitsandbyte": "bitsandbytes", "bnb": "bitsandbytes"}
# "I have diffusers 0.33.1, accelerate 0.31 and peft 0.14".
_NAMES = "|".join(sorted((NAMED - {"torch", "setuptools"}) | {"bnb"}, key=len, reverse=True)).replace("-", "[-_]")
_SAID = re.compile(
    rf"(?<![\w./@-])(?P<name>{_NAMES})"
    r"(?:\[\w+\])?(?: version)?(?:[ :=(`'\"*]| is){1,4}v?(?P<version>\d{1,4}\.\d[\w.]{0,20}(?<![.]))(?![\w/-]|\.\w"
    r"| ?(?:\+|or (?:newer|later|above|higher|greater)|onwards|and (?:above|up)))",
    re.I,
)
# "with transformers-4.48.1"; pip writes so of what it removes and downloads.
_WITH = re.compile(
    rf"\b(?:with|using|on|have|has|my) (?P<name>{_NAMES})-"
    r"(?P<version>\d{1,2}\.\d[\d.]{0,8}(?<!\.))(?![\w/+-]|\.\w)",
    re.I,
)
# "but already have accelerate Version: 0.25.0", beside what is asked for.
_HAVE = re.compile(
    rf"\b(?:have|has|shows?|is) (?P<name>{_NAMES})(?: version)?[ :=]{{1,3}}"
    r"(?P<version>\d{1,2}\.\d[\d.]{0,8}(?<!\.))(?![\w/+-])",
    re.I,
)
# "I have transformers 4.30 and need peft 0.15": what is to stand beside what is there.
_ALSO = re.compile(
    r"\b(?:have|has|with|on|using)\b.{3,120}?\b(?:and|but) (?:I |we |it )?(?:also )?"
    r"(?:need|want|have to use|must use) "
    rf"(?P<name>{_NAMES})[ =]{{1,3}}v?(?P<version>\d{{1,4}}\.\d[\w.]{{0,20}}(?<![.]))(?![\w/-]|\.\w)",
    re.I,
)
_COMPARES = re.compile(
    r"\b(?:works?|worked|fine|until|since|from|changelog|released?|(?<!even )if|whereas|but)\b", re.I
)
# Only what is no word of everyday language.
_DISTRIBUTIONS = (
    re.compile(
        r"\b(?:Arch Linux|CachyOS|Manjaro|EndeavourOS|Fedora|Rocky ?Linux|AlmaLinux|CentOS|openSUSE|RHEL|Nobara)\b"
        r"(?: (?:Linux )?\d{1,2}\b)?"
    ),
    re.compile(r"\blinux-cachyos\b"),
    re.compile(r"\bNixOS\b|\bGentoo\b|\bKali Linux\b"),
    re.compile(r"\b[Dd]ebian (?:GNU/Linux )?(?:9|1[0-3])\b"),
    re.compile(r"(?<=\bis )Arch\b|(?<=\bon )Arch\b|\bArch\b(?= (?:packages?|repo|user|based)\b)"),
)
# What the kernels of these are called, and the commands that only they have.
_KERNELS = (
    ("Amazon Linux", re.compile(r"\d\.amzn2(?:023)?(?=\.x86_64|\.aarch64|\b)")),
    ("Red Hat", re.compile(r"\d\.el[789](?:_\d{1,2})?(?=\.x86_64|\.aarch64)")),
    ("Fedora", re.compile(r"\d\.fc[34]\d(?=\.x86_64|\.aarch64)")),
    ("Arch Linux", re.compile(r"\d-arch\d{1,2}-\d|^\W{0,4}sudo pacman -S|\byay -S")),
    ("openSUSE", re.compile(r"^\W{0,4}sudo zypper (?:in|install|addrepo|ar)\b")),
    ("Red Hat or Fedora", re.compile(r"^\W{0,4}sudo (?:dnf|yum) (?:-y )?(?:install|module|config-manager|update)\b")),
)
_NOT_THIS = re.compile(r"\b(?:not|unlike|than|or|docker|image|container|also on)\b[^.]{0,30}$", re.I)
# Only torch's own releases have these numbers and such a tag.
_TAGGED = re.compile(r"(?<![\w.=+-])[12]\.\d{1,2}\.\d\+(?:cu\d{2,3}|cpu)\b(?![\w.-])")
_CAME = re.compile(r"\b(?:gives|gave|got|installs|installed|brings|brought)\b.{0,20}$")
# "After upgrading to torch 2.7.0+cu128": what was done.
_DONE = re.compile(
    r"\b(?:after|having) (?:I )?(?:upgrad|updat|downgrad|chang|switch|mov)\w{2,3} (?:to )?(?:py)?torch (?:to )?$", re.I
)
# "vllm upgraded my torch from 2.3.0+cu118 to 2.4.0+cu121": the second is here.
_FROM_TO = re.compile(
    r"\b(?:py)?torch\b[^.\n]{0,30}\bfrom v?[012]\.\d{1,2}[\w.+]{0,14} (?:to|into|with) v?"
    r"(?P<version>[012]\.\d{1,2}\.\d(?:\+\w{3,8})?)(?![\w.+])",
    re.I,
)
# What scripts print of torch.backends.cuda.is_built().
_BUILT_WITHOUT = re.compile(
    r"\b(?:py)?torch\b[^\n]{0,20}\bbuilt with CUDA(?: support)?\b\W{1,12}(?:False|No)\b"
    r"|\btorch\.backends\.cuda\.is_built\(\)\W{1,12}False\b",
    re.I,
)
_BARE_TAG = re.compile(r"(?:^|\s)\+cpu\b")
# Words before a version that say that another one is meant than what is installed.
_OF_ANOTHER = re.compile(
    r"\b(?:requires?|required|needs?|for|built|compiled|against|than|before|since|until|upgrad\w*|updat\w*|"
    r"downgrad\w*|to|install|or|support\w*|tried|try|recommend\w*|expect\w*|want\w*|instead|http\S*)\b[\s\S]{0,24}$|[<>~!]",
    re.I,
)
_ABOUT_ANOTHER = re.compile(
    r"\brequires\b|pip3? install\b|conda install\b|\(you have|\bwith CUDA \d{4}\b"
    r"|(?<![\w-])[\w-]{1,60}==\S{1,40} .{0,200}torch==",
    re.I,
)
_OF_UV = re.compile(
    r"\b(?:managed|made|created|built) (?:by|with) uv\b|\buv(?:'s)? (?:venv|environment|project)\b|\buv-managed\b", re.I
)
# "on Python 3.13", "python version: 3.10.7": what a sentence runs, not what it asks for or has tried besides.
_PYTHON = re.compile(
    r"(?<![\w./-])(?:Python|Py)(?:-| {0,4})(?:version )?(?:is |[:=] ?)?(?:v ?)?"
    r"(?P<version>3\.(?:[5-9]|1\d)(?:\.\d{1,2}(?:(?:a|b|rc)\d)?)?)(?![\w-]|\.\w|,?<)"
    r"(?! ?(?:\+|or (?:newer|later|above|higher|greater)|and (?:above|up)|onwards|instead|works|worked|is fine))",
    re.I,
)
_MAKES_ANOTHER = re.compile(
    r"\brequires\b|\b(?:conda|uv|mamba|virtualenv) (?:create|install|venv|python)|\bFROM ", re.I
)
_NO_CUDA = re.compile(
    r"\bcuda(?: is)? (?:available )?(?:as |is |: ?)?(?:false|not available|unavailable)\b"
    r"|\b(?:GPUs?|cuda) (?:(?:is |are |was |were )?not|(?:is|are|was|were)n.?t) (?:being )?"
    r"(?:detected|recogni[sz]ed|found)\b"
    r"|\b(?:doesn't|does not|can't|cannot|isn't|not) (?:see|detect|find|use|using) (?:my |the |any |all )?"
    r"(?:Nvidia |AMD |Radeon |Intel )?GPUs?\b"
    r"|\b(?:sees?|seeing|finds?|detects?|shows?) no (?:CUDA |NVIDIA )?GPUs?\b"
    r"|\b(?:using|use|on) (?:the )?(?:GPU|cuda)\s?[:=]\s?(?:False|no)\b"
    r"|\bonly (?:loads?|uses?|runs? on|working on|works on) (?:the |my )?CPUs?\b"
    r"|\bGPU (?:is )?(?:not at all|not used|isn't used|idle|unused|never used|stays? (?:idle|at 0))"
    r"|\btorch (?:cannot|can't|can not|is not able to|is unable to|could not) "
    r"(?:run|use|see|find|detect|access)(?: on| with)? "
    r"(?:the |my |any )?(?:GPUs?|cuda)\b|\bgpu is unable to run torch|torch ?\S{0,16} ?cpu ?版"
    r"|\b(?:us(?:es?|ing)|run(?:s|ning)? on|work(?:s|ing)? on) (?:the |my )?CPU (?:instead of|rather than|and not)"
    r"|\btorch (?:says|reports|thinks|shows|sees|finds|found|detects?) (?:that |there is |there are |that there is )?"
    r"(?:no|0|zero|nothing|none)(?: (?:cuda|gpus?|devices?)\b|$|[,.;])"
    r"|\bno (?:version of )?(?:py)?torch (?:version |release )?(?:sees|finds|detects|supports) (?:the|my|this)\b"
    r"|\bkeeps? using (?:the |my )?CPU\b|\btorch reports (?:GPU|cuda) not available\b"
    r"|\bnone?[- ]?cuda (?:version of |build of )?(?:py)?torch\b|\b(?:installed|got|downloaded) torch without cuda\b"
    r"|\b(?:unable to|not able to|can(?:not|'t)) run (?:[\w.-]{2,20} ){1,3}(?:on|in|with) (?:a |the |my )?GPUs?\b"
    r"(?! ?(?:mem|ram))",
    re.I,
)
# What has CUDA libraries of its own: that it sees no GPU says nothing of torch.
_OF_OTHER_FRAMEWORK = re.compile(r"\b(?:tensorflow|tf ?2?|keras|jax|paddle(?:paddle)?|cupy)\b", re.I)
_SHOWS_TENSORFLOW = re.compile(
    r"\btensorflow/(?:core|stream_executor|compiler|python)/|^\W{0,6}TensorFlow version"
    r"|site-packages[/\\]paddle(?:ocr)?[/\\]",
    re.I,
)
# The same so vaguely that it counts only where no error is shown.
_WITHOUT_CUDA = re.compile(
    r"\b(?:can(?:'t|not| not)|could(?:n't| not)|unable to|not able to|won't|will not) (?:\w{2,10} ){0,2}?"
    r"(?:run|use|access|get|utili[sz]e|enable|work) (?:\w{2,10} ){0,3}?(?:cuda|gpus?)\b(?!.{0,20}memory)|"
    r"(?:无法|不能|没法|没有?)(?:使用|调用|用上|用) ?(?:gpu|cuda|显卡)|"
    r"\b(?:install\w*|downloads?|gets?|got|pulls?|uses?) (?:\w{2,10} ){0,2}?cpu(?:[- ]only)? (?:version|build|wheels?) "
    r"of (?:py)?torch"
    r"|\b(?:pip|conda|uv|mamba|poetry)\b.{0,80}torch.{0,80}\b(?:gives?|gave|installs?|installed|got|gets?|pulls?)"
    r" (?:me )?(?:a |the )?cpu(?:[- ]only)? (?:build|version|wheel|package|one)\b"
    r"|\b(?:py)?torch (?:\w{2,4} ){0,2}?cpu(?:[- ]only)? (?:version|build|wheel) (?:\w{2,7} ){0,2}?installed\b",
    re.I,
)
_SHOWS_AN_ERROR = re.compile(r"Traceback|\b\w{0,40}(?:Error|Exception)\b|\berror:", re.I)
# What a program says when it starts on the CPU; a complaint only where a GPU is spoken of.
_STARTED_ON_CPU = re.compile(
    r"\b(?:[Uu]sing |[Rr]unning on |[Ll]oaded on )?(?:torch )?[Dd]evice(?:[_ ]type)?:?(?: is| =|=)? ?"
    r"['\"`]?(?:cpu|CPU)\b"
    r"|\bFP16 is not supported on CPU\b"  # OpenAI's whisper
    r"|\b(?:torch|it|everything|inference|training|the model) (?:is|runs|is running|was) (?:only )?(?:on )?"
    r"(?:the )?CPU\b",
    re.I,
)
_WANTS_GPU = re.compile(
    r"\b(?:how|get|want|use|uses|using|see|find|detect\w*|back|on|my|the|have|has|with)\b.{0,40}\b(?:GPU|cuda|nvidia)\b"
    r"|\b(?:have|has|with|my)\b.{0,20}\b[RG]TX ?\d{3}"
    r"|\brocm (?:is )?installed|\bGPU ?(?:is|:)? ?(?:an? )?(?:AMD|NVIDIA|Radeon|RTX|GTX|RX)\b",
    re.I,
)
_SENTENCES = re.compile(r"(?<=[.!?;])\s{1,4}")
_NVIDIA_THERE = re.compile(
    r"\bnvidia (?:cuda )?(?:toolkit|gpu|card) (?:was |is )?(?:detected|found)\b"
    r"|(?<!n't )(?<!not )\b(?:I have|we have|I've got|have got|my machine has|my pc has|my) (?:an? |the )?"
    r"nvidia (?:gpu|card|graphics)\b|(?<![没無无])有 {0,2}(?:一[张块个] ?)?nvidia",
    re.I,
)
_SUPPOSES = re.compile(r"\b(?:if|unless|whether|in case)\b|如果|假如", re.I)
_CONDITION = re.compile(
    r"\b(?:if|when(?! (?:i|we) )|in case|unless|whether|should|no)\b|[<{=]|assert|raise|print|warn(?!ing\s)", re.I
)
_MAC = re.compile(
    r"\bi?Mac(?:Book(?:[ -]?(?:Pro|Air))?|OS| ?mini| ?Studio)?\b|\bOS ?X 1\d|\bApple (?:silicon|M\d)"
    r"|\bM[1-5] (?:Pro|Max|Ultra)\b|/Library/Frameworks/Python\.framework/|/opt/homebrew/|/Applications/\S{2,40}\.app/"
    r"|^Device: mps\b",
    re.I,
)
_OTHER_SYSTEM = re.compile(r"\b(?:linux|ubuntu|windows)\b", re.I)
_WSL = re.compile(r"\bWSL ?-?(?P<version>[12])?\b|\b(?:Windows|Linux|Ubuntu) Subsystem\b", re.I)
_NOT_WSL = re.compile(
    r"\b(?:not(?! found\b)|no|without|outside|isn't|native|instead|if|or) [^.\n]{0,20}WSL|\[ \]|https?://\S*wsl|wsl --"
    # A form's question, without an answer.
    r"|^[\s*#>-]{0,6}WSL ?\d? ?(?:version|kernel|distro\w*)\b[^:\n]{0,30}:\W{0,6}$",
    re.I,
)
_DONE_IN_WSL = re.compile(
    r"\b(?:in|inside|under|within|via|using|on|and) (?:my |the |a )?WSL ?-?2?\b"
    r"|\bWSL ?-?2? (?:with|running|and|Ubuntu)\b"
    r"|\b(?:Ubuntu|Debian)[ \d.-]{0,8}(?:\(|on |in )?WSL",
    re.I,
)
_UNIX_SHELL = re.compile(r"\b(?:ba|z|da)?sh: (?:line )?(?:\d+: )?[\w.-]{1,40}: (?:command )?not found\b")
_WORKS = re.compile(r"\b(?:works?|worked|fine|no (?:problem|issue|error)s?|tried|also)\b", re.I)
_WINDOWS_SITE = re.compile(r"[A-Za-z]:\\[^\n]{0,200}(?:site-packages|\\Lib\\|python\.exe)", re.I)
_OLD_WSL_KERNEL = re.compile(r"\b4\.4\.0-\d{4,6}-Microsoft\b|/lib/modules/3\.4\.0\+/")
_WSL_KERNEL = re.compile(r"\b[4-9]\.\d{1,3}\.\d{1,4}(?:\.\d{1,3})?-microsoft-standard", re.I)
_WINDOWS = re.compile(
    r"\bPress any key to continue \. \. \.|^\s{0,4}(?:\([\w.-]{1,40}\) )?(?:PS )?[A-Z]:\\[^>\n]{0,120}>"
    r"|\b(?:in|from|using|via|use|open(?:ed)?|with|run) (?:the |an? |my )?(?:windows )?power ?shell\b|\bcmd\.exe\b|"
    r"(?<![a-z])win(?:dows)? ?(?:10|11)\b|(?<!works )(?<!fine )(?<!worked )(?<!runs )\bon windows\b"
    r"|\bwindows (?:pc|laptop|machine|user|server)\b"
    r"|\b(?:downloaded|installed|installing|have) (?:microsoft )?visual ?studio\b(?! code)|\bComfyUI_windows_portable\b"
    r"|(?<![a-z])windows ?(?:[上下里中跑用]|系统|环境|平台|电脑|机器|主机|笔记本|で|の|版|에서|パソコン)"
    r"|[在用] ?windows|(?<![\w/])[A-Z]:\\\\?\w"
    r"|\bmsinfo(?:32)?\b|\bsystem ?32\b|\bdevice manager\b"
    r"|is not recogni[sz]ed as (?:an internal or external|(?:the|a) name of a cmdlet)"
    r"|without arguments to install from the Microsoft",
    re.I,
)


# "cuda 11.8, and cuDNN for it is installed": the toolkit of a sentence, not that of a wheel or of the driver.
_TOOLKIT = re.compile(
    r"(?<![\w-])cuda(?: (?:toolkit|version|ver))?[ :=v-]{0,3}(?P<version>(?:9|1[0-3])\.\d)(?![\w])", re.I
)
_OF_NO_TOOLKIT = re.compile(
    r"\b(?:for|built|build|compiled|requires?|needs?|supports?|driver|smi|torch|wheel|whl|install(?:ing)?|than|to|or|"
    r"tried|try|instead|upgrad\w*|downgrad\w*)\b|\.so|cu1\d\d|https?:|[/\\]",
    re.I,
)


def read(lines: Sequence[str], draft: Draft) -> None:
    """Take what nothing else has told."""
    short = _around([line for line in lines if 4 < len(line) <= _MAX_LINE])
    told_states.read(lines, draft)
    _pins(short, draft)
    named_gpus.read_started(short, draft)
    _wsl(short, draft)
    unseen = str(draft.driver.get("error") or "").endswith("No devices were found")
    if not draft.gpus and (not draft.no_gpus or unseen):
        named_gpus.read_named(short, draft)
    if draft.torch.get("version") is None and "torch" not in draft.packages and draft.torch.get("installed") is None:
        _torch(short, draft)
    if any(_BUILT_WITHOUT.search(line) for line in short):
        draft.put(draft.torch, build="cpu")
    if not draft.gpus and draft.platform.get("gpu_vendors") is None and any("/opt/rocm/" in line for line in short):
        draft.put(draft.platform, gpu_vendors=("amd",))
    if any(_NVIDIA_THERE.search(line) and not _SUPPOSES.search(line) for line in short):
        draft.put(draft.platform, gpu_vendors=("nvidia",))
    _distribution(short, draft)
    _by_driver_model(short, draft)
    told_driver.read(short, draft)
    told_copies.read(short, draft)
    draft.put(draft.python, kind="uv" if any(map(_OF_UV.search, short)) else None)
    _toolkit(short, draft)
    _python(short, draft)
    of_torch = _of_torch(short, bool(draft.complaints))
    told = any(map(_told_blind, of_torch)) or (
        any(_STARTED_ON_CPU.search(line) for line in short) and any(_WANTS_GPU.search(line) for line in short)
    )
    if not told and not draft.complaints and not any(map(_SHOWS_AN_ERROR.search, short)):
        told = any(_WITHOUT_CUDA.search(line) and not _CONDITION.search(line) for line in of_torch)
    vendors = draft.platform.get("gpu_vendors") or ()
    on_mac = any(_MAC.search(line) and not _OTHER_SYSTEM.search(line) for line in short)
    if not draft.gpus and "nvidia" not in vendors and on_mac:
        system = None if any(_WINDOWS.search(line) or "/home/" in line for line in short) else "Darwin"
        draft.put(draft.platform, system=system)
    mac = draft.platform.get("system") == "Darwin"
    other = mac or any(error.id.startswith("llama-cpp") for error in draft.errors)  # it is another program's GPU
    of_any = told or any(map(_told_blind, short))  # lines of another framework count for a program other than torch
    if of_any and not any(error.id.startswith("llama-cpp") for error in draft.errors) and "version" not in draft.torch:
        blind = other_programs.blind(lines, lambda line: _told_blind(line) or _WITHOUT_CUDA.search(line), mac)
        other = other or blind is not None
        draft.errors += [blind] if blind else []
    draft.put(draft.torch, cuda_available=False if told and not other else None)
    unix = any(_UNIX_SITE.search(line) for line in short)
    if draft.platform.get("system") is None and not unix and any(_WINDOWS.search(line) for line in short):
        draft.put(draft.platform, system="Windows")


def _of_torch(lines: list[str], complaints: bool) -> list[str]:
    """The lines that may tell of torch's GPU, not of TensorFlow's or JAX's beside it.

    Where torch is not named at all it is another program that they tell of, and what that prints says more.
    """
    if not any("torch" in line.lower() for line in lines):
        return [] if complaints and any(map(_SHOWS_TENSORFLOW.search, lines)) else lines
    return [line for line in lines if "torch" in line.lower() or not _OF_OTHER_FRAMEWORK.search(line)]


def _told_blind(line: str) -> bool:
    """Whether a line tells that there is no CUDA; what it supposes, or what stands in a program, does not."""
    return any(
        _NO_CUDA.search(sentence) and not _CONDITION.search(_NO_CUDA.sub(" ", sentence))
        for sentence in _SENTENCES.split(line)
    )


def _around(lines: list[str]) -> list[str]:
    """The lines at the start and at the end that together keep to the limit."""
    if sum(map(len, lines)) <= _MAX_CHARACTERS:
        return lines
    head = _first(lines)
    return head + _first(lines[: len(head) - 1 : -1])[::-1]


def _first(lines: list[str]) -> list[str]:
    ends = list(itertools.accumulate(map(len, lines)))
    return lines[: bisect.bisect_right(ends, _MAX_CHARACTERS // 2)]


def _pins(lines: Sequence[str], draft: Draft) -> None:
    """Versions that a sentence names as pip would, several in a line too; of two answers none is taken."""
    found: dict[str, set[str]] = {}
    for line in lines:
        if "==" not in line or _ABOUT_ANOTHER.search(line) or _PROGRAM.search(line):
            continue
        for match in itertools.islice(_PIN.finditer(line), 40):
            name = normalize(match["name"])
            found.setdefault(_MISSPELLED.get(name, name), set()).add(match["version"])
    for match in filter(None, (_CONDA_ROW.match(line) for line in lines if "  " in line)):
        found.setdefault(normalize(match["name"]), set()).add(match["version"])
    for match in filter(None, (_VARIABLE.match(line) for line in lines if "VERSION=" in line)):
        found.setdefault(match["name"].lower(), set()).add(match["version"])
    for line in lines:
        if _ABOUT_ANOTHER.search(line) or _PROGRAM.search(line) or _COMPARES.search(line):
            have = _HAVE.search(line)
            found.setdefault(normalize(have["name"]), set()).add(have["version"]) if have else None
            continue
        for match in itertools.islice(itertools.chain(_SAID.finditer(line), _WITH.finditer(line)), 40):
            if not _OF_ANOTHER.search(line[max(0, match.start() - 30) : match.start()]):
                name = normalize(match["name"])
                found.setdefault(_MISSPELLED.get(name, name), set()).add(match["version"])
    for also in filter(None, map(_ALSO.search, lines)):
        found.setdefault(normalize(also["name"]), set()).add(also["version"])
    for name, versions in found.items():
        if len(versions) == 1 and name in NAMED and name not in draft.packages:
            draft.package(name, versions.pop(), "named")


def _toolkit(lines: Sequence[str], draft: Draft) -> None:
    """The CUDA toolkit that a sentence names; of several none is taken."""
    found = {
        match["version"]
        for line in lines
        for match in _TOOLKIT.finditer(line)
        if not _OF_NO_TOOLKIT.search(re.split(r"[.;!?] ", line[: match.start()])[-1][-40:])
    }
    draft.put(draft.toolkit, installed=tuple(found) if len(found) == 1 else None)


def _python(lines: Sequence[str], draft: Draft) -> None:
    """The Python that a sentence names; of several none is taken."""
    found = {
        match["version"]
        for line in lines
        if "py" in line.lower() and not _MAKES_ANOTHER.search(line)
        for match in _PYTHON.finditer(line)
        if not (_OF_ANOTHER.search(line[max(0, match.start() - 30) : match.start()]) or _COMPARES.search(line))
    }
    if len({release_of(version) for version in found}) == 1:
        draft.put(draft.python, version=max(found, key=len))


def _distribution(lines: Sequence[str], draft: Draft) -> None:
    """The distribution, or a kernel that only one has, as a sentence names it."""
    if draft.platform.get("os") is not None or draft.platform.get("system") in ("Windows", "Darwin"):
        return
    for line in lines:
        found = next(filter(None, (pattern.search(line) for pattern in _DISTRIBUTIONS)), None)
        if found and not _NOT_THIS.search(line[: found.start()]) and "[ ]" not in line:
            draft.put(draft.platform, os=found[0], system="Linux")
            return
    if any("apt-get " in line or "apt install" in line for line in lines):
        return  # commands for several distributions are a guide's
    named = (name for name, pattern in _KERNELS if any(map(pattern.search, lines)))
    name = next(named, None)
    draft.put(draft.platform, os=name, system="Linux" if name else None)


def _by_driver_model(lines: Sequence[str], draft: Draft) -> None:
    """Only Windows' own nvidia-smi tells a driver model; it may be pasted beside what a container or WSL says."""
    told = any(gpu.get("driver_model") for gpu in draft.gpus.values())
    if told and not draft.platform.get("container") and not any(map(_LINUX_TOO.search, lines)):
        draft.put(draft.platform, system="Windows")


_LINUX_TOO = re.compile(r"wsl|linux|ubuntu|debian|docker|container|/(?:home|usr|mnt|opt|root)/", re.IGNORECASE)


def _worked_in_wsl(lines: Sequence[str]) -> bool:
    """Whether several lines tell of what was done in WSL, on a Windows whose own Python shows no file."""
    if any(_WINDOWS_SITE.search(line) for line in lines if "\\" in line):
        return False
    if any("WSL Version" in line for line in lines) and any("Distro Version" in line for line in lines):
        return True  # the form of WSL's own tracker, which asks for both
    if any(_UNIX_SHELL.search(line) for line in lines):
        return any(_WSL.search(line) and not _NOT_WSL.search(line) for line in lines if "wsl" in line.lower())
    told = [line for line in lines if "wsl" in line.lower() and _DONE_IN_WSL.search(line) and not _NOT_WSL.search(line)]
    return len(told) > 1 and not any(_WORKS.search(line) for line in told)


def _wsl(lines: Sequence[str], draft: Draft) -> None:
    # Who names Windows and shows paths of Linux names the host of a WSL.
    kernel = any(_WSL_KERNEL.search(line) for line in lines if "-microsoft-" in line)
    inside = kernel or any(_UNIX_SITE.search(line) for line in lines)
    hosts = draft.platform.get("system") == "Windows" and (inside or _worked_in_wsl(lines))
    old = any(_OLD_WSL_KERNEL.search(line) for line in lines if "Microsoft" in line or "/3.4.0+" in line)
    elsewhere = draft.platform.get("system") in ("Windows", "Darwin") and not hosts and not old
    if elsewhere or draft.platform.get("wsl") is False:
        return
    for line in lines:
        found = _WSL.search(line) if "wsl" in line.lower() or "Subsystem" in line else None
        if old or kernel or (found and not _NOT_WSL.search(line)):
            version = 1 if old else 2 if kernel else int(found["version"] or 0) if found else 0
            draft.platform["system"] = "Linux"
            draft.put(draft.platform, wsl=True, wsl_version=version or None)


def _tag_after(rest: str, version: str) -> str:
    """ "torch 2.8.0 cu128": the build that follows the number, as the version itself would end."""
    tag = re.match(r" \(?(cu\d{3})\b(?!\.)", rest)
    if not tag or "+" in version:
        return ""
    return (".0" if version.count(".") == 1 else "") + f"+{tag[1]}"


def _torch(lines: Sequence[str], draft: Draft) -> None:
    found = {match["version"] for line in lines for match in _FROM_TO.finditer(line)}
    found = found or {
        match["version"] + _tag_after(line[match.end() :], match["version"])
        for line in lines
        if "orch" in line.lower() and not _ABOUT_ANOTHER.search(line)
        for match in _TORCH.finditer(line)
        if not _OF_ANOTHER.search(line[max(0, match.start() - 30) : match.start()])
    }
    found = found or {
        match[0]
        for line in lines
        if "+c" in line
        for match in _TAGGED.finditer(line)
        if _CAME.search(line[: match.start()])
        or _DONE.search(line[: match.start()])
        or not (_ABOUT_ANOTHER.search(line) or _OF_ANOTHER.search(line[max(0, match.start() - 30) : match.start()]))
    }
    if not found and any(_BARE_TAG.search(line) for line in lines):
        draft.put(draft.torch, build="cpu")
    if len({parse_version(version) for version in found}) == 1:
        version = max(found, key=len)
        draft.put(draft.torch, version=version, installed=True)
        draft.package("torch", version, "named")
