from __future__ import annotations

from workbench.ui.environment import over_ssh, prepare_environment


def test_frames_follow_the_link() -> None:
    local: dict[str, str] = {}
    prepare_environment(False, local)
    assert "TEXTUAL_FPS" not in local
    remote = {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}
    prepare_environment(False, remote)
    assert remote["TEXTUAL_FPS"] == "15"
    slow: dict[str, str] = {}
    prepare_environment(True, slow)
    assert slow["TEXTUAL_FPS"] == "4"
    assert over_ssh(remote)
    assert not over_ssh(local)


def test_what_the_user_set_stays() -> None:
    environment = {"SSH_TTY": "/dev/pts/1", "TEXTUAL_FPS": "60", "TEXTUAL_ANIMATIONS": "full"}
    prepare_environment(True, environment)
    assert environment["TEXTUAL_FPS"] == "60"
    assert environment["TEXTUAL_ANIMATIONS"] == "full"
