"""The same for those who do not use cloud-init: a start-up script, Packer, Ansible, and a container build that tries it out. Pure.

All of them carry the installer of `provision.pull.render`; nothing here does any work of its own.
"""

from __future__ import annotations

import base64
import gzip
import json

from provision.errors import Failed
from provision.pull.model import STATE, Pull
from provision.pull.render import installer

PIECE = 60_000
_HOME = STATE.rsplit("/", 1)[0]


def packer(pull: Pull) -> str:
    """Provisioners for the `build` block of a Packer template (HCL2): the work is done while the image is made; what needs a reboot or the real
    hardware is left to the unit, which goes on at each machine's first boot."""
    script = _heredoc(installer(pull))
    return (
        "# Written by mlhost: put this into the `build` block of a Packer template.\n"
        "#\n"
        "# The image's builder does the work. Exit code 6 says that the rest needs a reboot, or hardware that the builder has not: the unit that was\n"
        "# installed does it at the first boot of every machine made from the image.\n"
        'provisioner "shell" {\n'
        "  inline_shebang   = \"/bin/sh\"\n"
        '  execute_command  = "chmod 0700 {{ .Path }}; {{ .Vars }} sudo -E sh {{ .Path }} now"\n'
        "  valid_exit_codes = [0, 6]\n"
        "  inline = [<<-MLHOST\n"
        f"{script}"
        "  MLHOST\n"
        "  ]\n"
        "}\n"
    )


def _heredoc(text: str) -> str:
    """Text in an HCL template: `${` and `%{` would begin an expression."""
    return text.replace("${", "$${").replace("%{", "%%{")


def ansible(pull: Pull) -> str:
    """A task file: `ansible.builtin.include_tasks`, with `become: true`, on hosts that Ansible reaches."""
    lines = [
        "# Written by mlhost: a task file. In a play with `become: true`: ansible.builtin.include_tasks: mlhost.yml",
        "- name: Mlhost | A folder that root alone can read",
        "  ansible.builtin.file:",
        f"    path: {_HOME}",
        "    state: directory",
        "    owner: root",
        '    mode: "0755"',
        "",
        "- name: Mlhost | Bring what sets the machine up",
        "  ansible.builtin.copy:",
        f"    dest: {_HOME}/pull.sh",
        "    owner: root",
        '    mode: "0600"',
        "    # It is no template, whatever it looks like.",
        "    content: !unsafe |",
        *(f"      {line}" if line else "" for line in str(installer(pull)).splitlines()),
        "  no_log: true",
        "",
    ]
    for title, register, when in (
        ("Set the machine up", "mlhost_first", ""),
        ("Reboot where that is needed", "", "mlhost_first.rc == 6"),
        ("Go on after the reboot", "mlhost_second", "mlhost_first.rc == 6"),
    ):
        lines.append(f"- name: Mlhost | {title}")
        if register:
            lines += [
                "  ansible.builtin.command:",
                f"    cmd: sh {_HOME}/pull.sh now",
                f"  register: {register}",
                f"  changed_when: \"'has set itself up already' not in {register}.stdout\"",
                f"  failed_when: {register}.rc not in {[0, 6] if not when else [0]}",
            ]
        else:
            lines += ["  ansible.builtin.reboot:"]
        lines += [f"  when: {when}", ""] if when else [""]
    return "\n".join(lines).rstrip("\n") + "\n"


def dockerfile(pull: Pull) -> str:
    """A Dockerfile whose build tells whether a system can run what would do the work: no machine is set up, a container is none."""
    packed = gzip.compress(installer(pull).encode("utf-8", "surrogateescape"), 9, mtime=0)
    text = base64.b64encode(packed).decode("ascii")
    lines = [
        "# Written by mlhost: builds where the system of the base image can run what user-data would bring to it.",
        "#   docker build --build-arg BASE=ubuntu:24.04 -f FILE .",
        "ARG BASE=debian:12",
        "FROM ${BASE}",
        "# The exit code of the last line is the answer. It fetches what is to be fetched, checks it, and reads the system with it.",
    ]
    # In pieces, as a builder reads no line of 64 KiB and keeps no more than 127 layers.
    # Source: github.com/moby/buildkit frontend/dockerfile/parser (bufio.MaxScanTokenSize); overlay2's limit.
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    if len(pieces) > 100:
        raise Failed(f"What is to be tried is too big for a Dockerfile ({len(packed):,} bytes).", "Have it fetched: --source URL --sha256 HEX.")
    lines += [f"RUN printf '%s' '{piece}' >>/mlhost.b64" for piece in pieces]
    lines.append("RUN base64 -d /mlhost.b64 | gzip -dc >/mlhost.sh && sh /mlhost.sh test")
    # What it would do on a machine, for those who look into the image.
    lines.append(f"LABEL mlhost.pull={json.dumps(pull.id)}")
    return "\n".join(lines) + "\n"
