"""`ssh:PATTERN`: the hosts that ssh_config names and the pattern takes in. Address, user, port and keys stay ssh_config's own affair."""

from __future__ import annotations

from typing import Optional

from provision.errors import UsageError
from provision.inventory import checks
from provision.inventory.model import Host, Inventory
from provision.transport.sshconfig import host_names, matches


def read(pattern: str, config_file: Optional[str]) -> Inventory:
    """Hosts whose names the pattern list (`gpu-*,!gpu-9`) takes in. Raises UsageError where there is none, SshConfigError for a broken file."""
    named = host_names(config_file)
    patterns = [word for word in pattern.split(",") if word] or ["*"]
    found = [name for name in named if matches(patterns, name)]
    if not found:
        file = config_file or "ssh_config"
        raise UsageError(
            f"ssh:{pattern}: {file} has no Host line with a name that this takes in.",
            f"It names {', '.join(named[:10])}." if named else "Only names without wildcards can be listed.",
        )
    return Inventory(tuple(Host(checks.name(name, f"ssh:{pattern}"), name, groups=("ssh",), where=f"ssh:{pattern}") for name in found))
