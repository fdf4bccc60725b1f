"""`azure:…`: Azure virtual machines as hosts, by subscription, resource group, location, size, power state and tags.

Credentials are azure-identity's own chain (DefaultAzureCredential: environment, workload and managed identity, the az command). Machines, their
power states, network interfaces and public addresses are four paged lists, not calls for each machine; throttling (429 with Retry-After) is
waited out by the SDK's own retries. Facts of the API: learn.microsoft.com/rest/api/compute/virtual-machines.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from provision.errors import Error, Failed, Unreachable, UsageError
from provision.inventory import checks, clouds
from provision.inventory.model import Host, Inventory

KEYS = ("subscription", "group", "location", "size", "state", "address", "user", "port", "identity", "cloud", "endpoint")
ADDRESSES = ("auto", "public", "private", "fqdn")
STATES = ("running", "starting", "stopped", "stopping", "deallocated", "deallocating", "any")
# The resource managers of Azure's clouds; `endpoint` names another, as Azure Stack has.
CLOUDS = {
    "public": "https://management.azure.com",
    "usgov": "https://management.usgovcloudapi.net",
    "china": "https://management.chinacloudapi.cn",
}

# How often the SDK tries a call that is throttled or fails on the way, waiting longer each time or as long as Azure says.
RETRIES = 10


def read(source: str) -> Inventory:
    """The virtual machines that the source asks for, in the order of their names.

    Raises UsageError for a source that cannot be, missing credentials or missing SDKs; Unreachable where Azure does not answer; Failed where it
    refuses.
    """
    asked = clouds.ask(source, KEYS)
    subscriptions, endpoint = _check(asked)
    try:
        from azure.core import exceptions
        from azure.identity import DefaultAzureCredential
        from azure.mgmt.compute import ComputeManagementClient
        from azure.mgmt.network import NetworkManagementClient
    except ModuleNotFoundError as error:
        raise clouds.missing("azure", source, error.name) from None
    # Its warnings are told again by the exception; without a handler they would land on standard error.
    logging.getLogger("azure").addHandler(logging.NullHandler())
    options: dict[str, Any] = {"base_url": endpoint, "credential_scopes": [f"{endpoint}/.default"], "retry_total": RETRIES}
    hosts: list[Host] = []
    notes: list[str] = []
    try:
        with DefaultAzureCredential(**_authority(asked)) as credential:
            for subscription in subscriptions:
                with ComputeManagementClient(credential, subscription, **options) as compute, NetworkManagementClient(
                    credential, subscription, **options
                ) as network:
                    found = _subscription(asked, compute, _Network(network, asked.values.get("group", ())))
                hosts += found.hosts
                notes += found.notes
    except exceptions.AzureError as error:
        raise _told(error, source) from None
    hosts = clouds.named(hosts, [f"{host.name}.{host.variables['group']}" for host in hosts])
    return Inventory(tuple(sorted(hosts, key=lambda host: host.name)), tuple(notes))


def _check(asked: clouds.Asked) -> tuple[tuple[str, ...], str]:
    asked.choice("address", ADDRESSES)
    asked.check_states(STATES)
    own = os.environ.get("AZURE_SUBSCRIPTION_ID", "")
    subscriptions = asked.values.get("subscription", (own,) if own else ())
    if not subscriptions:
        raise UsageError(f"{asked.source}: it is not said which subscription.", "Write azure:subscription=ID,… or set AZURE_SUBSCRIPTION_ID.")
    endpoint = asked.one("endpoint").rstrip("/") or CLOUDS[asked.choice("cloud", tuple(CLOUDS))]
    if not re.fullmatch(r"https://[A-Za-z0-9.\[\]:-]+", endpoint):
        raise UsageError(f"{asked.source}: {endpoint!r} is no resource manager.", "Write its address, such as https://management.local.azurestack.external.")
    asked.check_login()
    return subscriptions, endpoint


def _authority(asked: clouds.Asked) -> dict[str, Any]:
    """Whom the credential asks: each sovereign cloud has a login of its own, the environment may name another."""
    from azure.identity import AzureAuthorityHosts

    hosts = {"usgov": AzureAuthorityHosts.AZURE_GOVERNMENT, "china": AzureAuthorityHosts.AZURE_CHINA}
    host = hosts.get(asked.one("cloud"))
    return {"authority": host} if host else {}


class _Network:
    """Network interfaces and public addresses of a subscription by id, listed once; what lies in another group is asked for by itself."""

    def __init__(self, client: Any, groups: tuple[str, ...]) -> None:
        self._client = client
        self._faces = _listed(client.network_interfaces, groups)
        self._public = _listed(client.public_ip_addresses, groups)

    def face(self, identity: str) -> Any:
        found = self._faces.get(_key(identity))
        return found or self._client.network_interfaces.get(part(identity, "resourceGroups"), part(identity, "networkInterfaces"))

    def public(self, identity: str) -> Any:
        found = self._public.get(_key(identity))
        return found or self._client.public_ip_addresses.get(part(identity, "resourceGroups"), part(identity, "publicIPAddresses"))


def _listed(operations: Any, groups: tuple[str, ...]) -> dict[str, Any]:
    """Everything of a kind by its id, in these resource groups or in all."""
    found = [thing for name in groups for thing in operations.list(name)] if groups else operations.list_all()
    return {_key(thing.id): thing for thing in found}


def _subscription(asked: clouds.Asked, compute: Any, network: _Network) -> Inventory:
    groups = asked.values.get("group", ())
    operations = compute.virtual_machines
    machines = [vm for name in groups for vm in operations.list(name)] if groups else list(operations.list_all())
    states: dict[str, str] = {}
    if "any" not in asked.values.get("state", ("running",)):
        states = _states(operations, machines)
    hosts, notes = [], []
    for vm in machines:
        state = states.get(_key(vm.id), "")
        if not _wanted(asked, vm, state):
            continue
        public, private, fqdn = _addresses(vm, network)
        kind = asked.choice("address", ADDRESSES)
        address = {"auto": public or private, "public": public, "private": private, "fqdn": fqdn}[kind]
        if not address:
            notes.append(f"{asked.source}: {vm.name} was left out: it has no address ({kind}).")
            continue
        hosts.append(_host(asked, vm, state, (public, private), address))
    return Inventory(tuple(hosts), tuple(notes))


def _states(operations: Any, machines: Sequence[Any]) -> dict[str, str]:
    """The power states of all machines at once; one by one for credentials that may not list the subscription's."""
    from azure.core.exceptions import HttpResponseError

    try:
        return {_key(vm.id): _power(vm.instance_view) for vm in operations.list_all(status_only="true")}
    except HttpResponseError as error:
        if error.status_code != 403:
            raise
    return {_key(vm.id): _power(operations.instance_view(part(vm.id, "resourceGroups"), vm.name)) for vm in machines}


def _wanted(asked: clouds.Asked, vm: Any, state: str) -> bool:
    """The API has no filter for most of these, so they are compared here, as Azure does: without case, except tags' values."""
    states = asked.values.get("state", ("running",))
    size = _size(vm)
    tags = {str(key).lower(): value for key, value in (vm.tags or {}).items()}
    return (
        ("any" in states or state in states)
        and _any_of(asked.values.get("location"), vm.location or "")
        and _any_of(asked.values.get("size"), size)
        and all(tags.get(key.lower()) in values for key, values in asked.tags.items())
    )


def _size(vm: Any) -> str:
    """A size that the SDK knows may be one of its enumeration."""
    size = vm.hardware_profile.vm_size if vm.hardware_profile else ""
    return str(getattr(size, "value", size) or "")


def _any_of(patterns: Optional[tuple[str, ...]], text: str) -> bool:
    from fnmatch import fnmatchcase

    return patterns is None or any(fnmatchcase(text.lower(), pattern.lower()) for pattern in patterns)


def _power(view: Any) -> str:
    """`running` from the status code `PowerState/running`."""
    statuses = view.statuses if view and view.statuses else ()
    return next((str(s.code).partition("/")[2] for s in statuses if str(s.code).startswith("PowerState/")), "")


def _addresses(vm: Any, network: _Network) -> tuple[str, str, str]:
    """Public address, private address and full name of the primary interface's primary configuration; empty where there is none."""
    references = (vm.network_profile.network_interfaces if vm.network_profile else None) or []
    # `primary` stands only where there are several.
    reference = next((r for r in references if r.primary), references[0] if references else None)
    if reference is None:
        return "", "", ""
    configurations = network.face(reference.id).ip_configurations or []
    chosen = next((c for c in configurations if c.primary), configurations[0] if configurations else None)
    if chosen is None:
        return "", "", ""
    public = network.public(chosen.public_ip_address.id) if chosen.public_ip_address else None
    fqdn = public.dns_settings.fqdn if public is not None and public.dns_settings else None
    return (public.ip_address or "") if public is not None else "", chosen.private_ip_address or "", fqdn or ""


def _host(asked: clouds.Asked, vm: Any, state: str, addresses: tuple[str, str], address: str) -> Host:
    resource_group = part(vm.id, "resourceGroups")
    size = _size(vm)
    groups = [clouds.group("group", resource_group.lower()), clouds.group("location", vm.location or ""), clouds.group("size", size)]
    groups += [clouds.group("tag", str(key), str(value)) for key, value in sorted((vm.tags or {}).items())]
    facts: Mapping[str, str] = {
        "group": resource_group.lower(), "size": size, "location": vm.location or "", "state": state, "public": addresses[0], "private": addresses[1],
    }
    where = f"{asked.source}: {vm.name} in {resource_group}"
    user = asked.one("user") or (vm.os_profile.admin_username if vm.os_profile else None)
    return Host(
        str(vm.name),
        checks.address(address, where),
        checks.user(str(user), where) if user else None,
        int(asked.one("port")) if asked.one("port") else None,
        asked.one("identity") or None,
        tuple(name for name in groups if name),
        variables={key: value for key, value in facts.items() if value},
        where=where,
    )


def part(identity: str, kind: str) -> str:
    """The name after `kind` in a resource's id; ids keep no case."""
    words = identity.split("/")
    return next((words[at + 1] for at, word in enumerate(words[:-1]) if word.lower() == kind.lower()), "")


def _key(identity: str) -> str:
    return identity.lower()


def _told(error: Any, source: str) -> Error:
    """azure-core's exception in our words: the first line says it, the rest of a credential's is a list of what was tried."""
    kind = type(error).__name__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [kind]
    if kind in ("ClientAuthenticationError", "CredentialUnavailableError"):
        return UsageError(f"{source}: Azure credentials: {lines[0]}", "Log in with `az login`, or set AZURE_CLIENT_ID, AZURE_TENANT_ID and AZURE_CLIENT_SECRET.")
    if kind in ("ServiceRequestError", "ServiceResponseError", "ServiceRequestTimeoutError", "ServiceResponseTimeoutError"):
        return Unreachable(f"{source}: {lines[0]}", "Can this machine reach Azure's resource manager?")
    status = getattr(error, "status_code", None)
    if status == 429:
        return Unreachable(f"{source}: Azure still answers 429 (too many requests).", "Wait a few minutes and try again.")
    if status == 403:
        return Failed(f"{source}: {lines[0]}", "The credentials need the role Reader on the subscription or on the resource group.")
    return Failed(f"{source}: {lines[0]}", "Look at the subscription and the resource group after `azure:`.")
