"""Rules about the way to the Hub: which of its steps fails, as far as the error tells."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen

_DOCS = "https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables"
_AFFECTS = ("chat", "tokens", "architecture")


def not_resolved(facts: Facts) -> Result:
    """The Hub's name has no address here."""
    error = facts.error("hub-name-not-resolved")
    if error is None:
        return PASSED
    host = error.values.get("host") or "huggingface.co"
    return [
        _not_reached(
            facts,
            error,
            f"The name {host} has no address here: there is no DNS, or no network at all",
            "Nothing was asked of the Hub yet. A container gets its name servers from the host's, which it may not "
            "reach; nodes of a cluster and notebooks with the internet switched off have none.",
            _name_servers(facts, host),
        )
    ]


def _name_servers(facts: Facts, host: str) -> tuple[str, ...]:
    elsewhere = (
        "hf download <model>   # where there is a network; then that folder, or the cache (HF_HOME), to this machine, "
        f"and: {fixes.export(facts, 'HF_HUB_OFFLINE', '1')}"
    )
    service = facts.platform.service
    if service == "kaggle":
        return ("Settings, Internet on   # the account's phone number must be verified; then the same cell again",)
    if service == "slurm":
        return (elsewhere.replace("where there is a network", "on the login node, which has a network"),)
    if facts.platform.container:
        return (
            "docker run --dns 1.1.1.1 …   # compose: dns: [1.1.1.1] at the service, then docker compose up -d; for all "
            'containers: {"dns": ["1.1.1.1"]} in /etc/docker/daemon.json and sudo systemctl restart docker',
            f"docker run --rm busybox nslookup {host}   # fails on, while the host resolves it? a VPN or a firewall "
            "closes port 53: network_mode: host",
            elsewhere,
        )
    if facts.platform.wsl:
        return (
            "echo 'nameserver 1.1.1.1' | sudo tee /etc/resolv.conf   # and generateResolvConf=false below [network] in "
            "/etc/wsl.conf, or it is written anew at the next start",
            elsewhere,
        )
    if fixes.on_windows(facts):
        return (f"nslookup {host} 1.1.1.1   # an address? then set 1.1.1.1 as the adapter's DNS server", elsewhere)
    return (
        f"getent hosts {host} || echo 'nameserver 1.1.1.1' | sudo tee -a /etc/resolv.conf   # no address even then: "
        "there is no network here, or a proxy is the only way: export HTTPS_PROXY=http://<proxy>:<port>",
        elsewhere,
        "Kaggle: Settings, Internet on",
    )


def too_slow(facts: Facts) -> Result:
    """The Hub was reached, and the answer was not waited for."""
    error = facts.error("hub-read-timeout")
    if error is None or facts.error("hub-name-not-resolved"):
        return PASSED
    host, seconds = error.values.get("host") or "huggingface.co", error.values.get("seconds")
    return [
        _not_reached(
            facts,
            error,
            f"{host} did not answer in time"
            + (f": the request was given up after {seconds} seconds" if seconds else ""),
            "The connection stands, and the answer takes longer than is waited for: a slow or crowded line, a proxy "
            "that looks into files, or the Hub itself.",
            (
                fixes.export(facts, "HF_HUB_DOWNLOAD_TIMEOUT", "120", "in the shell of the program, before it starts"),
                fixes.export(facts, "HF_HUB_ETAG_TIMEOUT", "60", "then the same command again: what came is kept"),
                f"or a mirror: {fixes.export(facts, 'HF_ENDPOINT', 'https://hf-mirror.com')}",
            ),
        )
    ]


_HOW = {
    "unreachable": "no way leads there from this network",
    "route": "no way leads there from this network",
    "timed": "a connection does not come about",
    "timeout": "a connection does not come about",
    "refused": "the connection is refused",
    "reset": "the connection is broken off",
    "closed": "the connection is broken off",
}


_CARRIED = (
    "hf download <model> --local-dir <folder>   # on a machine with a network; that folder, copied here, in place of "
    "the model's name, with HF_HUB_OFFLINE=1"
)


def no_answer(facts: Facts) -> Result:
    """The Hub's address is known, and no connection to it comes about or stays."""
    error = facts.error("hub-no-answer")
    if error is None or facts.error("hub-name-not-resolved", "hub-read-timeout"):
        return PASSED
    host, told = error.values.get("host") or "huggingface.co", error.values.get("how", "").lower()
    how = next((words for mark, words in _HOW.items() if mark in told), "")
    mirror = facts.environment.get("HF_ENDPOINT")
    if facts.platform.container or facts.platform.service == "slurm" or mirror or "mirror" in host:
        return PASSED
    return [
        _not_reached(
            facts,
            error,
            f"{host} is not reached" + (f": {how}" if how else ""),
            "A firewall, a country's network, a proxy that programs have to be told of, or a machine without the "
            "internet.",
            (
                *((_CARRIED,) if facts.error("no-network-told") else ()),
                fixes.export(
                    facts,
                    "HF_ENDPOINT",
                    "https://hf-mirror.com",
                    "where huggingface.co is blocked (China): this mirror, before Python starts",
                ),
                "or: "
                + fixes.export(
                    facts, "HTTPS_PROXY", "http://<proxy>:<port>", "behind a proxy; AutoDL: source /etc/network_turbo"
                ),
                "or hf download <model> on a machine with network; that folder here in place of the name",
            ),
        )
    ]


def _not_reached(facts: Facts, error: ErrorFact, title: str, why: str, fix: tuple[str, ...]) -> Finding:
    mirror = facts.environment.get("HF_ENDPOINT")
    told = {**evidence(HF_ENDPOINT=mirror), **seen(error)}
    return Finding("hub-not-reachable", "error", title, why, told, fix, _DOCS, affects=_AFFECTS, observed=True)


RULES: tuple[Rule, ...] = (not_resolved, too_slow, no_answer)
