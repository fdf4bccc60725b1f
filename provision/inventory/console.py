"""A cloud instance's SSH host keys as its console shows them (`--host-keys cloud`).

At its first boot cloud-init writes the host's public keys to the console, which only the instance and its cloud can write and which is read over
the cloud's own authenticated interface: nobody on the network between can put a key there. Facts of the text: cloud-init,
config/cc_keys_to_console.py and tools/write-ssh-key-fingerprints. Of the interface: docs.aws.amazon.com/AWSEC2/latest/APIReference,
GetConsoleOutput: the last 64 KB; the latest at any time on Nitro, else what was posted after the boot.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from provision.inventory.model import Host
from provision.transport.hostkeys import fingerprint, kind_of, known_keys, read_known_hosts

WAIT, PAUSE = 300.0, 10.0
"""How long a new instance may take to show its keys, and how often it is asked, in seconds."""

NEW = 900.0
"""An instance that has run for longer than this, in seconds, shows what it will ever show."""

_BLOCK = re.compile(r"-----BEGIN SSH HOST KEY KEYS-----(.*?)-----END SSH HOST KEY KEYS-----", re.DOTALL)
_PRINTS = re.compile(r"-----BEGIN SSH HOST KEY FINGERPRINTS-----(.*?)-----END SSH HOST KEY FINGERPRINTS-----", re.DOTALL)
_KEY = re.compile(r"^((?:ssh|ecdsa|sk)-[a-z0-9@.-]{1,60}) ([A-Za-z0-9+/]{40,4000}={0,2})(?:\s.*)?$")
_PRINT = re.compile(r"\b\d{3,5} (SHA256:[A-Za-z0-9+/]{43})(?![A-Za-z0-9+/=])")


def fingerprints(text: str) -> frozenset[str]:
    """The fingerprints (`SHA256:…`) of the host keys in a console's text; empty where it shows none. What is mangled by other messages is passed over.

    Of several such blocks the last counts: the host keys were made anew.
    """
    found: set[str] = set()
    blocks = _BLOCK.findall(text)
    for line in blocks[-1].splitlines() if blocks else ():
        key = _KEY.match(line.strip())
        if not key:
            continue
        try:
            blob = base64.b64decode(key[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        if kind_of(blob) == key[1]:
            found.add(fingerprint(blob))
    prints = _PRINTS.findall(text)
    return frozenset(found or (_PRINT.findall(prints[-1]) if prints else ()))


class Console(NamedTuple):
    """An instance whose console can be asked. A value that may be sent to other processes: credentials are found where it is asked."""

    identity: str
    region: str
    profile: str = ""

    @property
    def name(self) -> str:
        """What its keys are remembered by: an instance's id is never given to another, while its address is."""
        return f"{self.identity}.{self.region}.ec2"

    @property
    def file(self) -> str:
        """Where keys that a console has shown are remembered, in the form of known_hosts: a console forgets."""
        data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
        return os.path.join(data, "mlhost", "cloud_known_hosts")

    def await_keys(self, heard: Callable[[str], None], wait: float = WAIT) -> None:
        """Until the console of a new instance shows keys, or `wait` seconds; nothing where some are remembered. `heard` is told of the wait.

        A connection must not wait for it: sshd hangs up on who is slow to log in.
        """
        if not known_keys(read_known_hosts([self.file]), self.name):
            self.ask(wait, heard)

    def ask(self, wait: float = 0.0, heard: Callable[[str], None] = lambda _: None, sleep: Callable[[float], None] = time.sleep) -> frozenset[str]:
        """The fingerprints that the console shows. A new instance is asked until it shows some, for `wait` seconds at most.

        Raises UsageError, Failed and Unreachable as `provision.inventory.aws` does.
        """
        from provision.inventory import aws

        with aws.told(f"the console of {self.identity}"):
            client = aws.client(self.region, self.profile)
            end = time.monotonic() + wait
            while True:
                found = fingerprints(_output(client, self.identity))
                if found or time.monotonic() >= end or not _is_new(client, self.identity):
                    return found
                heard(f"the console of {self.identity} shows no host keys yet")
                sleep(PAUSE)


def _output(client: Any, identity: str) -> str:
    from botocore.exceptions import ClientError

    try:
        answer = client.get_console_output(InstanceId=identity, Latest=True)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ("UnsupportedOperation", "InvalidParameterCombination"):
            raise
        answer = client.get_console_output(InstanceId=identity)
    return str(answer.get("Output") or "")


def _is_new(client: Any, identity: str) -> bool:
    found = client.describe_instances(InstanceIds=[identity])["Reservations"]
    launched = found[0]["Instances"][0].get("LaunchTime") if found else None
    return launched is not None and time.time() - launched.timestamp() < NEW


def console_of(host: Host) -> Optional[Console]:
    """The console of an inventory's host, where its variables say which EC2 instance it is: `id` and `region`, `zone` or `arn`, as EC2, Terraform and
    Ansible name them. None where they do not."""
    variables = host.variables
    identity = next(
        (word for word in (*(variables.get(key, "") for key in ("id", "instance_id", "ec2_id")), host.name, host.address) if re.fullmatch(r"i-[0-9a-f]{8,17}", word)),
        "",
    )
    zone = next((variables[key] for key in ("zone", "availability_zone", "ec2_placement") if variables.get(key)), "")
    arn = re.match(r"arn:aws[a-z-]*:ec2:([a-z0-9-]+):", variables.get("arn", ""))
    region = variables.get("region") or (arn[1] if arn else "") or re.sub(r"(?<=[0-9])[a-z]$", "", zone)
    if not identity or not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-[0-9]+", region):
        return None
    return Console(identity, region, variables.get("profile", ""))
