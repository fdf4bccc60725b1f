"""The page of known failures, made from the data: `python -m provision.failure_docs > docs/failures.md`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from provision.doctor.failures import LAYERS, Failure, load

_HEAD = """\
# Known failures

<!-- Made by `python -m provision.failure_docs`; change provision/data/failures/*.toml instead. -->

What `mlhost doctor` knows, by the layer that is broken: {count} failures. A failure with a message is found when that message is given to the
doctor (or stands in what the machine itself says) and the checks do not contradict it; one marked ● is found by its checks alone, without any
message. Where several causes share a message, the checks tell them apart on the machine. How to use it: [doctor.md](doctor.md).
"""


def page(failures: Sequence[Failure] | None = None) -> str:
    """The whole page, Markdown."""
    known = load() if failures is None else failures
    lines = [_HEAD.format(count=len(known))]
    for layer in LAYERS:
        rows = [failure for failure in known if failure.layer == layer]
        if not rows:
            continue
        lines += [f"## {layer}", ""]
        for failure in rows:
            lines += _entry(failure)
    return "\n".join(lines).rstrip() + "\n"


def _entry(failure: Failure) -> list[str]:
    checks = ", ".join(name.replace("-", " ") for name in failure.check)
    out = [f"### {'● ' if failure.alone else ''}{failure.title}", "", f"`{failure.id}`: {failure.cause}", ""]
    if failure.signature:
        out += [f"- Message: {' or '.join(_code(pattern.pattern) for pattern in failure.signature)}"]
    if checks:
        out += [f"- Checked: {checks}"]
    out += [f"- Remedy: {'; '.join(_code(text) if _command(text) else text for text in failure.remedy)}"]
    if failure.fix:
        out += [f"- `--fix` does: {', '.join(failure.fix)}"]
    return [*out, f"- Source: <{failure.source}>", ""]


def _code(text: str) -> str:
    return f"``{text}``" if "`" in text else f"`{text}`"


def _command(text: str) -> bool:
    return text.split(" ", 1)[0] in ("sudo", "mlhost", "docker", "nvidia-smi", "systemctl", "journalctl", "apt-cache", "dpkg", "ls", "cat", "ldconfig")


if __name__ == "__main__":
    sys.stdout.write(page())
