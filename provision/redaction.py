"""Secrets out of texts that leave the machine. Pure.

What a secret looks like is known in three ways: by the name it is given (`password=`, `Authorization:`), by its own form (a vendor's token, a
private key), and by its place (a URL's user part, an account's number in a cloud resource's name). Rather too much goes than too little, but
nothing that a diagnosis reads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from provision.capture import join, split
from provision.model import Section
from provision.report.sanitize import redact

GONE = "***"

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)", re.DOTALL)
_NAME = r"[A-Za-z0-9_.\-]{0,60}(?:passw(?:or)?d|passphrase|secret|token|credential|api[_\-]?key|access[_\-]?key|private[_\-]?key|account[_\-]?key|sas[_\-]?key|webhook)[A-Za-z0-9_.\-]{0,60}"
# name = value, name: value, "name": "value"; not the kernel's word about passwords asked on consoles, and not an empty value.
_NAMED = re.compile(rf"""(?P<name>["']?\b{_NAME}["']?\s{{0,5}}(?:=|:(?!//))\s{{0,5}})(?P<value>"[^"\n]{{1,4000}}"|'[^'\n]{{1,4000}}'|[^\s"',;}}\]]{{1,4000}})""", re.IGNORECASE)
_OPTION = re.compile(rf"(?P<name>--?{_NAME}[ =])(?P<value>[^\s-]\S{{0,4000}})", re.IGNORECASE)
_HEADER = re.compile(r"(?P<name>\b(?:Proxy-)?Authorization[\"']?\s{0,5}[:=]\s{0,5}[\"']?(?:(?:Bearer|Basic|Token|Negotiate|Digest)\s{1,5})?)(?P<value>[^\s\"'&]{1,4000})", re.IGNORECASE)
_BEARER = re.compile(r"(?P<name>\b(?:Bearer|Basic)\s{1,5})(?P<value>[A-Za-z0-9+/._=~\-]{12,4000})")
# ~/.docker/config.json and Kubernetes' pull secrets.
_REGISTRY = re.compile(r"""(?P<name>"(?:auth|identitytoken|registrytoken)"\s{0,5}:\s{0,5})(?P<value>"[^"\n]{0,8000}")""")
_NETRC = re.compile(r"(?P<name>\blogin\s{1,10}\S{1,200}\s{1,10}password\s{1,10}|\bpassword\s{1,10}(?=\S{1,200}\s*$))(?P<value>\S{1,400})", re.MULTILINE)
_QUERY = re.compile(r"(?P<name>[?&](?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|sig|sv|se|token|access_token|key|Key-Pair-Id|Policy|code)=)(?P<value>[^&\s\"']{1,4000})", re.IGNORECASE)
# The vendors' own forms of tokens.
_FORMS = re.compile(
    r"\b(?:(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{20,255}|github_pat_[A-Za-z0-9_]{20,255}|glpat-[A-Za-z0-9_\-]{16,255}|dckr_pat_[A-Za-z0-9_\-]{16,255}"
    r"|nvapi-[A-Za-z0-9_\-]{16,255}|hf_[A-Za-z0-9]{16,255}|xox[abeprs]-[A-Za-z0-9\-]{10,255}|sk-[A-Za-z0-9_\-]{20,255}|AIza[A-Za-z0-9_\-]{30,60}|ya29\.[A-Za-z0-9_\-]{20,2000}"
    r"|AQAEA[A-Za-z0-9_\-=]{20,200}|eyJ[A-Za-z0-9_\-]{8,4000}\.[A-Za-z0-9_\-]{8,8000}\.[A-Za-z0-9_\-]{0,4000})"
)
_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_ACCOUNTS = (
    (re.compile(r"\b(arn:aws[a-z\-]{0,10}:[a-z0-9\-]{1,40}:[a-z0-9\-]{0,40}:)\d{12}\b"), rf"\1{GONE}"),
    (re.compile(r"\b\d{12}(\.dkr\.ecr[.\-])"), rf"{GONE}\1"),
    (re.compile(r"""(["']?\b(?:accountId|account[_\-]?id|owner-?id|subscription[_\-]?id|tenant[_\-]?id|project[_\-]?(?:id|number)|tenancy)["']?\s{0,5}[=:]\s{0,5}["']?)[A-Za-z0-9.\-]{4,120}""",
                re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(rf"(/(?:subscriptions|tenants)/){_UUID}", re.IGNORECASE), rf"\1{GONE}"),
    (re.compile(r"\b(projects/)[a-z0-9\-]{4,60}"), rf"\1{GONE}"),
    (re.compile(r"\bocid1\.[a-z]{2,30}\.[a-z0-9]{0,20}\.[a-z0-9\-]{0,30}\.{1,2}[a-z0-9]{20,100}"), GONE),
    (re.compile(r"(?<![0-9a-f-])i-(?:[0-9a-f]{17}|[0-9a-f]{8})\b"), GONE),
)
# Sections whose text is a public key, byte for byte.
_KEYS = ("keytext:", "key64:", "keyhex:")


def scrub(text: str) -> str:
    """The text without secrets, each replaced by `***`; names, hosts, versions and messages stay. Costs no more than the text's length."""
    text = _PRIVATE_KEY.sub(f"-----PRIVATE KEY {GONE}-----", text)
    text = redact(text)
    for pattern in (_HEADER, _BEARER, _REGISTRY, _NETRC, _QUERY, _NAMED, _OPTION):
        text = pattern.sub(_without, text)
    text = _FORMS.sub(GONE, text)
    for pattern, instead in _ACCOUNTS:
        text = pattern.sub(instead, text)
    return text


def _without(found: re.Match[str]) -> str:
    value = found["value"]
    quote = value[0] if value[0] in "\"'" and value[-1] == value[0] and len(value) > 1 else ""
    return f"{found['name']}{quote}{GONE}{quote}"


def scrub_capture(raw: bytes) -> bytes:
    """A capture without secrets. It is still one. Raises ProbeFailed for what is none."""
    sections: Mapping[str, Section] = split(raw)
    return join(
        {name: section if name.startswith(_KEYS) else Section(section.rc, scrub(section.text)) for name, section in sections.items()}, "scrubbed"
    )
