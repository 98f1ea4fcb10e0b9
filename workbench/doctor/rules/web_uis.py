"""What the web UIs for pictures (stable-diffusion-webui and its forks) take to get the right torch: they install it."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import Facts

_PYTHON = "3.10"
"""The Python that the web UI was made for, and the torch that it asks for has wheels for."""


ON_THE_CPU = (
    "COMMANDLINE_ARGS=--use-cpu all --no-half --precision full --skip-torch-cuda-test   # in webui-user.bat or "
    "webui-user.sh, or among the launch options of the program that starts the web UI; a picture takes minutes then",
)


def installs_torch_itself(facts: Facts) -> bool:
    """Whether the report is of the start of a web UI that installs its torch into its own folder ``venv`` then."""
    return facts.platform.program == "sd-webui" and facts.error("web-ui-starts") is not None


def torch_anew(facts: Facts) -> str:
    """The step that lets the web UI install the torch with CUDA that it was made for."""
    if fixes.on_windows(facts):
        return (
            "Delete the folder venv of the web UI, and start webui-user.bat again: it installs the torch with CUDA "
            "that it was made for   # take a VENV_DIR or TORCH_COMMAND of your own out of webui-user.bat; RTX 50: set "
            "TORCH_COMMAND=pip install torch==2.7.1 torchvision==0.22.1 --index-url "
            "https://download.pytorch.org/whl/cu128"
        )
    return "rm -rf venv && ./webui.sh   # in the web UI's folder: it installs the torch with CUDA that it was made for"


def other_python(facts: Facts) -> tuple[str, ...]:
    """The steps that let the web UI run with the Python that its torch has wheels for."""
    if fixes.on_windows(facts):
        return (
            f"winget install Python.Python.{_PYTHON}   # beside the one that is there",
            f"In webui-user.bat: set PYTHON=py -{_PYTHON}",
            "Delete the folder venv of the web UI, and start webui-user.bat again",
        )
    return (
        f"uv python install {_PYTHON}   # beside the one that is there; or apt install python{_PYTHON}-venv, where it "
        "has it",
        f"In webui-user.sh: python_cmd=$(uv python find {_PYTHON})",
        "rm -rf venv && ./webui.sh   # in the web UI's folder",
    )
