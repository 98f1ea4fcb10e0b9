"""Python's errors as people tell them in titles and sentences, put into Python's own words. Stdlib only.

Every pattern here is linear in its input.
"""

from __future__ import annotations

import re

from workbench.doctor.parse import told_imports

# Only a text of a person's length is searched for what is said without any word of Python's.
_LONGEST_PROSE = 20_000

# In titles and sentences Python's words are turned a little, and the quotes left out.
_CANNOT = re.compile(
    r"\b(?:can['’]?t|can not|cannot|could ?n['’]?t|could not|unable to|failed to|error importing) import (?:the )?name"
    r"(?= ['\"`]?\w)",
    re.I,
)
_NO_MODULE = re.compile(r"\bno module named:? (?=['\"`]?[A-Za-z_])")
# Python itself leaves the quotes out where a module is started with -m, and before Python 3.
_UNQUOTED_MODULE = re.compile(
    r"(?<!\bpython: )(?<!\bpython3: )(?<!python3\.\d: )(?<!python3\.\d\d: )(?<!python\.exe: )"
    r"\b(?P<said>No module named )"
    r"(?P<name>[A-Za-z_]\w{1,40}(?:\.\w{1,40}){0,5})(?=[.,;:!?)\]\"]{0,2}(?:\s|$))"
)
# People put other quotes round the name than Python does.
_MODULE = re.compile(r"(?<=No module named )[\"`]([\w.]{1,80})[\"`]")
# In headings and in sentences an error is cut down to what was missing: "ImportError: libcudart.so.12".
_BARE_LIBRARY = re.compile(
    r"(?<=Error: )(lib[\w+-]{2,60}\.so(?:\.\d{1,3}){0,3})(?![\w:]|[.-]\w|\S{0,4}: | cannot )"
    r"(?: (?:was |is )?(?:not found|missing)\b)?"
)
_BARE_MODULE = re.compile(
    r"(?:(?<=ImportError: )|(?<=FoundError: ))['`]?((?!ca(?:n(?:n(?:ot?)?)?)?[ \t]*$)[a-z]\w{1,40})['`]?"
    r"(?: {0,2}(?:(?:is )?not found|(?:is )?missing|未找到|找不到|не найден|no encontrado))?[ \t]{0,4}$",
    re.MULTILINE,
)
# A paste that ends in the middle of "cannot import name": the import above it says more.
_CUT_OFF = re.compile(r"\bImportError: c(?:an?n?o?t?)?(?: i\w{0,6})?(?: n\w{0,4})?\s{0,8}\Z")
# The names without the quotes that Python puts round them, or with others.
_BARE_NAME = re.compile(
    r"(?<=cannot import name )['\"`]?(\w{1,80})['\"`]? from ['\"`]?(?!(?:partially|the|a|my|this|it|its|module)\b)"
    r"([A-Za-z_][\w.]{1,80}\w)['\"`]?(?![\w'])"
)
# "ImportError cannot import name ...", "ModuleNotFoundError torch._six": the colon is what is missing.
_NO_COLON = re.compile(
    r"\b((?:Import|Attribute|ModuleNotFound)Error)[ -]{1,3}"
    r"(?=cannot import name|No module named|module '\w|'\w{1,60}' object)"
)
_NAMED_ONLY = re.compile(
    r"\b(ModuleNotFoundError)(?::| -|) ['\"`]?"
    r"((?!is|in|on|when|with|for|and|or|the|after|while|error|No|from|at|if)[a-z_]\w{1,40}(?:\.\w{1,40}){0,5})['\"`]?"
    r"(?=[ \t]{0,4}(?:$|[,;)\]]|(?:in|when|on|with|after|while|for|during|at) \w))",
    re.MULTILINE,
)
# A name that has a capital or an underline, or comes from within a package: what else is "imported from" is no name.
_TOLD_NAME = re.compile(
    r"\b(?i:can['\u2019]?t|can not|cannot|could ?n['\u2019]?t|could not|unable to|failed to) import (?!name\b)['\"`]?"
    r"(?P<name>[A-Z]\w{2,60}|[a-z]\w{0,60}[A-Z_]\w{0,60}|[a-z]\w{2,60}(?=['\"`]? from ['\"`]?\w+\.\w))['\"`]?"
    r" from ['\"`]?(?P<module>(?!(?:the|a|my|this|it|its|module)\b)[a-z_]\w{1,40}(?:\.\w{1,40}){0,5})['\"`]?(?![\w'(])"
)
_NO_OBJECT = re.compile(r"(?<=AttributeError: )('[A-Z]\w{2,60}') (?=has no attribute)")
# "tokenizers>=0.21 required but 0.20.3 is installed": as transformers would say it.
_PIN_UNMET = r"\g<name>\g<spec> is required for a normal functioning of this module, but found \g<name>==\g<found>"
_TOLD_PIN = re.compile(
    r"(?<![\w-])(?P<name>[A-Za-z][\w-]{1,40})(?P<spec>[<>=!~]{1,2}\d[\w.,<>=!~]{0,40}) (?:is )?(?:required|needed),?"
    r" but (?:only |found |I have |you have )?(?:version )?(?P<found>\d[\w.]{1,20})"
    r"(?: is)?(?: installed| found| here| there)?(?![\w.])"
)
_TOLD_ARGUMENT = re.compile(
    r"\b(?P<call>[A-Z]\w{2,60}) "
    r"(?:has no|(?:does not|doesn't|did not|didn't) (?:accept|take|know|support|have|recogni[sz]e)"
    r"|no longer (?:accepts|takes|has|knows|supports)) "
    r"(?:an? |the )?(?:"
    r"['\"`]?(?P<argument>[a-z]\w{2,40})['\"`]? (?:argument|parameter|keyword|kwarg)\b"
    r"|(?:argument|parameter|keyword|kwarg) ['\"`]?(?P<behind>[a-z]\w{2,40})['\"`]?"
    r"|['\"`]?(?P<alone>[a-z]{2,20}_\w{2,40})['\"`]?(?: any ?more| any longer)?(?=$|[.,;:)]| since| with| in | after)"
    r")",
    re.MULTILINE,
)
# "load_in_8bit is no longer accepted by from_pretrained".
_ARGUMENT_OF = re.compile(
    r"(?<![\w.])['\"`]?(?P<argument>[a-z]{2,20}_\w{2,40})['\"`]? (?:is|was) "
    r"(?:no longer|not) (?:accepted|taken|known|supported|recogni[sz]ed|a parameter|an argument) (?:by|of|in) "
    r"['\"`]?(?P<call>[A-Z]\w{2,60}|from_pretrained|from_config)\b"
)
# "LlamaForCausalLM has no attribute generate".
_NO_ATTRIBUTE = re.compile(
    r"(?<![\w'.])(?P<kind>[A-Z][a-z]\w{2,60}[a-z][A-Z]\w{0,40}) (?:object )?has no attribute:? "
    r"['\"`]?(?P<name>[a-z_]\w{1,60})['\"`]?"
)
# "tokenizers 0.20 is installed, transformers asks for >=0.21".
_TOLD_ASKED = re.compile(
    r"(?<![\w-])(?P<name>[A-Za-z][\w-]{1,40}) (?:package )?(?:version )?v?(?P<found>\d{1,3}\.\d[\w.]{0,12}) "
    r"(?:is |was )?(?:installed|there|here),? (?:but |and |while |whereas )?(?P<asker>[A-Za-z][\w-]{1,40}) "
    r"(?:asks? for|needs?|requires?|wants?|demands?) (?:at least |(?P=name) ?)?"
    r"(?P<spec>[<>=!~]{1,2} ?\d[\w.,<>=!~]{0,40})"
)
# "requires trl<=0.9.6, I've trl 0.14".
_TOLD_NEED = re.compile(
    r"\b(?:requires?|needs?|wants?|asks? for) (?P<name>[A-Za-z][\w-]{1,40})"
    r"(?P<spec>[<>=!~]{1,2} ?\d[\w.,<>=!~]{0,40}?),? (?:but |and |while )?"
    r"(?:I have|I've|I've got|I got|there is|there's|mine is|found|here is)(?: (?P=name))? "
    r"(?:version )?v?(?P<found>\d{1,3}\.\d[\w.]{0,12}\w)"
)
# "Unrecognized model type gemma3".
_MODEL_TYPE = re.compile(
    r"\b(?:[Uu]nrecogni[sz]ed|[Uu]nknown|[Uu]nsupported) (?:model type|model_type|architecture):? ['\"`]?"
    r"(?P<type>[a-z][a-z0-9_-]{2,30}\d?)['\"`]?(?=[.,;:)]|$| (?:in|with|by|and|for|but)\b)",
    re.MULTILINE,
)
_PACKAGES = (
    r"torch|torchvision|torchaudio|torchtext|transformers|diffusers|accelerate|peft|trl|datasets|huggingface_hub"
    r"|tokenizers|pytorch_lightning|lightning|numpy|scipy|sklearn|langchain|langchain_community|gradio|timm|triton|keras"
    r"|tensorflow|bitsandbytes|xformers|flash_attn|deepspeed|vllm|pydantic|onnx|optimum|auto_gptq|openai|evaluate|mmcv"
)
_PATH = (
    rf"['\"`]?(?P<%s>(?:{_PACKAGES})\.(?!(?:py|cuda|version|whl|git|org|com|io|dev)\b)\w{{1,40}}(?:\.\w{{1,40}}){{0,4}})"
    r"['\"`]?"
)
_IS_NOT = (
    r"(?: module)?(?: is| was)? (?:cannot be found|can't be found|could not be found|not (?:to be )?found|missing|gone"
    r"|not there|doesn't exist|does not exist|no longer (?:exists|there|available))\b"
)
# A module inside a package that somebody does not find, told in a sentence.
_TOLD_MODULE = re.compile(
    rf"(?<![\w./]){_PATH % 'first'}{_IS_NOT}"
    rf"|\b(?:can't|cannot|can not|could not|couldn't|unable to|not able to|does not|doesn't) find (?:the )?(?:module )?"
    rf"{_PATH % 'second'}|\b(?:[Nn]o|without a) (?:module |such module |module called |package ){_PATH % 'third'}"
)


def in_pythons_words(text: str) -> str:
    """`text` with the errors of imports and attributes as Python writes them, on the lines where they stand."""
    if "module named" in text:
        text = _NO_MODULE.sub("No module named ", text)
    if "No module named" in text:
        text = _UNQUOTED_MODULE.sub(r"\g<said>'\g<name>'", _MODULE.sub(r"'\1'", text))
    if "Error: " in text:
        text = _CUT_OFF.sub("", text)
        text = _BARE_LIBRARY.sub(r"\1: cannot open shared object file: No such file or directory", text)
        text = _BARE_MODULE.sub(r"No module named '\1'", text)
        text = _NO_OBJECT.sub(r"\1 object ", text)
    if "import" in text:
        text = _CANNOT.sub("cannot import name", text) if "name" in text else text
        text = _TOLD_NAME.sub(r"cannot import name '\g<name>' from '\g<module>'", text)
    if "cannot import name" in text:
        text = _BARE_NAME.sub(r"'\1' from '\2'", text)
    if "Error" in text:
        text = _NO_COLON.sub(r"\1: ", text)
        text = _NAMED_ONLY.sub(r"\1: No module named '\2'", text)
    if "required" in text or "needed" in text:
        text = _TOLD_PIN.sub(_PIN_UNMET, text)
    if "I've" in text or "I have" in text or "there" in text or "found" in text:
        text = _TOLD_NEED.sub(_PIN_UNMET, text)
    if "installed" in text or " here" in text:
        text = _TOLD_ASKED.sub(_PIN_UNMET, text)
    if len(text) < _LONGEST_PROSE and "Error: " not in text:
        text = _MODEL_TYPE.sub(r"has model type `\g<type>` but Transformers does not recognize this architecture", text)
        text = _TOLD_ARGUMENT.sub(_unexpected, text)
        text = _ARGUMENT_OF.sub(_unexpected, text)
        text = _NO_ATTRIBUTE.sub(r"AttributeError: '\g<kind>' object has no attribute '\g<name>'", text)
    if len(text) < _LONGEST_PROSE and "Traceback" not in text and "Error: " not in text:
        text = told_imports.in_pythons_words(_TOLD_MODULE.sub(_not_found, text))
    return text


def _unexpected(found: re.Match[str]) -> str:
    """The error of a call that does not take an argument."""
    named = found.groupdict()
    argument = named["argument"] or named.get("behind") or named.get("alone")
    call = named["call"] + (".__init__" if named["call"][0].isupper() else "")
    return f"TypeError: {call}() got an unexpected keyword argument '{argument}'"


def _not_found(found: re.Match[str]) -> str:
    return f" No module named '{next(filter(None, found.groups()))}'"
