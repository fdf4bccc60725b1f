"""`aws:…`: EC2 instances as hosts, by region, tag, state and type.

Credentials, profiles and endpoints are boto3's own affair (environment, ~/.aws, SSO, instance roles). DescribeInstances is always paged, and
throttling (RequestLimitExceeded) is waited out by botocore's own retries. Facts of the API: docs.aws.amazon.com/AWSEC2/latest/APIReference.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Optional

from provision.errors import Error, Failed, Unreachable, UsageError
from provision.inventory import checks, clouds
from provision.inventory.model import Host, Inventory
from provision.shipped import shipped_toml

KEYS = ("region", "state", "type", "address", "user", "port", "identity", "profile", "vpc", "subnet", "zone", "id", "page")
ADDRESSES = ("auto", "public", "private", "public-dns", "private-dns", "ipv6", "id")
STATES = ("pending", "running", "shutting-down", "terminated", "stopping", "stopped", "any")
FILTERS = {"type": "instance-type", "vpc": "vpc-id", "subnet": "subnet-id", "zone": "availability-zone", "id": "instance-id"}
# How often botocore tries a call that is throttled or fails on the way, waiting longer each time.
ATTEMPTS = 10
# DescribeInstances takes 5 to 1000.
PAGE = "1000"
IMAGES_AT_ONCE = 200


def read(source: str) -> Inventory:
    """The instances that the source asks for, region by region, in the order of their names.

    Raises UsageError for a source that cannot be, missing credentials or a missing boto3; Unreachable where AWS does not answer; Failed where it
    refuses.
    """
    asked = clouds.ask(source, KEYS, bare="region")
    _check(asked)
    hosts: list[Host] = []
    notes: list[str] = []
    with told(source):
        for region in _regions(asked):
            found = _region(asked, client(region, asked.one("profile")), region)
            hosts += found.hosts
            notes += found.notes
    hosts = clouds.named(hosts, [host.variables["id"] for host in hosts])
    return Inventory(tuple(sorted(hosts, key=lambda host: host.name)), tuple(notes))


@contextmanager
def told(source: str) -> Iterator[None]:
    """What boto3 raises inside, as this project's errors about `source`; a boto3 that is missing too."""
    try:
        from botocore import exceptions

        try:
            yield
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise _told(error, source) from None
    except ModuleNotFoundError as error:
        raise clouds.missing("aws", source, error.name) from None


def client(region: Optional[str], profile: str = "") -> Any:
    """boto3's EC2 client for a region (None: the one that boto3's own settings name). Raises what `told` tells."""
    import boto3
    from botocore.config import Config

    # What boto3 has to say about the end of a Python version is said to those who maintain this, by its releases.
    warnings.filterwarnings("ignore", "Boto3 will no longer support Python")
    config = Config(retries={"mode": "standard", "total_max_attempts": ATTEMPTS}, connect_timeout=10, read_timeout=60)
    return boto3.session.Session(profile_name=profile or None).client("ec2", region_name=region, config=config)


def _check(asked: clouds.Asked) -> None:
    asked.choice("address", ADDRESSES)
    asked.check_states(STATES)
    page = asked.one("page", PAGE)
    if not page.isdigit() or not 5 <= int(page) <= 1000:
        raise UsageError(f"{asked.source}: `page` cannot be {page!r}.", "It is how many instances one answer holds, from 5 to 1000.")
    for region in asked.values.get("region", ()):
        if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-[0-9]+|all", region):
            raise UsageError(f"{asked.source}: {region!r} is no region.", "Write a region such as eu-west-1, or region=all.")
    asked.check_login()


def _regions(asked: clouds.Asked) -> Sequence[Optional[str]]:
    """The regions to ask; None is the one that boto3's own settings name."""
    said = asked.values.get("region", ())
    if "all" not in said:
        return said or (None,)
    import boto3

    profile = asked.one("profile")
    anywhere = boto3.session.Session(profile_name=profile or None).region_name or "us-east-1"
    return sorted(row["RegionName"] for row in client(anywhere, profile).describe_regions()["Regions"])


def _region(asked: clouds.Asked, ec2: Any, region: Optional[str]) -> Inventory:
    place = region or ec2.meta.region_name
    paginator = ec2.get_paginator("describe_instances")
    pages = paginator.paginate(Filters=filters(asked), PaginationConfig={"PageSize": int(asked.one("page", PAGE))})
    instances = [instance for page in pages for reservation in page["Reservations"] for instance in reservation["Instances"]]
    users = {} if asked.one("user") else _users(ec2, {instance.get("ImageId", "") for instance in instances})
    hosts, notes = [], []
    for instance in instances:
        address = address_of(instance, asked.choice("address", ADDRESSES))
        if address is None:
            kind = asked.choice("address", ADDRESSES)
            notes.append(f"{asked.source}: {instance['InstanceId']} in {place} was left out: it has no address ({kind}).")
            continue
        hosts.append(_host(asked, instance, address, place, users))
    return Inventory(tuple(hosts), tuple(notes))


def filters(asked: clouds.Asked) -> list[dict[str, Any]]:
    """The source's conditions as DescribeInstances takes them; running instances where no state is said."""
    states = asked.values.get("state", ("running",))
    found: list[dict[str, Any]] = [] if "any" in states else [{"Name": "instance-state-name", "Values": list(states)}]
    found += [{"Name": name, "Values": list(asked.values[key])} for key, name in FILTERS.items() if key in asked.values]
    return found + [{"Name": f"tag:{key}", "Values": list(values)} for key, values in asked.tags.items()]


def address_of(instance: Mapping[str, Any], kind: str) -> Optional[str]:
    """Where an instance is reached: `auto` is its public address, else its private one. None where it has none of the kind."""
    keys = {
        "auto": ("PublicIpAddress", "PrivateIpAddress"),
        "public": ("PublicIpAddress",),
        "private": ("PrivateIpAddress",),
        "public-dns": ("PublicDnsName",),
        "private-dns": ("PrivateDnsName",),
        "ipv6": ("Ipv6Address",),
        "id": ("InstanceId",),
    }[kind]
    found = next((str(instance[key]) for key in keys if instance.get(key)), None)
    if found is None and kind == "ipv6":
        addresses = [a["Ipv6Address"] for face in instance.get("NetworkInterfaces", ()) for a in face.get("Ipv6Addresses", ())]
        found = addresses[0] if addresses else None
    return found


def _host(asked: clouds.Asked, instance: Mapping[str, Any], address: str, region: str, users: Mapping[str, str]) -> Host:
    tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", ())}
    identity = instance["InstanceId"]
    kind, zone = instance.get("InstanceType", ""), instance.get("Placement", {}).get("AvailabilityZone", "")
    groups = [clouds.group("region", region), clouds.group("zone", zone), clouds.group("type", kind)]
    groups += [clouds.group("tag", key, value) for key, value in sorted(tags.items()) if key != "Name"]
    facts = {
        "id": identity,
        "region": region,
        "profile": asked.one("profile"),
        "type": kind,
        "zone": zone,
        "state": instance.get("State", {}).get("Name", ""),
        "image": instance.get("ImageId", ""),
        "arch": instance.get("Architecture", ""),
        "public": instance.get("PublicIpAddress", ""),
        "private": instance.get("PrivateIpAddress", ""),
    }
    return Host(
        tags.get("Name") or identity,
        checks.address(address, f"{asked.source}: {identity}"),
        asked.one("user") or users.get(instance.get("ImageId", "")),
        int(asked.one("port")) if asked.one("port") else None,
        asked.one("identity") or None,
        tuple(name for name in groups if name),
        variables={key: value for key, value in facts.items() if value},
        where=f"{asked.source}: {identity} in {region}",
    )


def _users(ec2: Any, images: Iterable[str]) -> dict[str, str]:
    """Image id -> the login name its makers set up; nothing for an image that is gone or unknown."""
    wanted = sorted(image for image in images if image)
    found = {}
    for at in range(0, len(wanted), IMAGES_AT_ONCE):
        # A filter, not ImageIds: that is refused as a whole where one image is gone.
        for image in ec2.describe_images(Filters=[{"Name": "image-id", "Values": wanted[at : at + IMAGES_AT_ONCE]}])["Images"]:
            user = user_of(str(image.get("OwnerId", "")), f"{image.get('Name', '')} {image.get('Description', '')}")
            if user:
                found[image["ImageId"]] = user
    return found


@lru_cache(maxsize=1)
def _image_users() -> tuple[Mapping[str, Any], ...]:
    return tuple(shipped_toml("data/inventory/image_users.toml")["image"])


def user_of(owner: str, words: str) -> Optional[str]:
    """The default login of an image by its owner's account or its name and description. See `data/inventory/image_users.toml`."""
    for row in _image_users():
        if ("owner" in row and row["owner"] == owner) or ("name" in row and re.search(row["name"], words, re.IGNORECASE)):
            return str(row["user"])
    return None


def _told(error: Any, source: str) -> Error:
    """botocore's exception in our words."""
    kind = type(error).__name__
    words = " ".join(str(error).split())
    if kind in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound", "UnauthorizedSSOTokenError", "SSOTokenLoadError", "TokenRetrievalError"):
        return UsageError(f"{source}: AWS credentials: {words}.", "Log in as for the aws command (`aws sts get-caller-identity` shows whether it works).")
    if kind == "NoRegionError":
        return UsageError(f"{source}: it is not said which region.", "Write aws:region=eu-west-1,… or set AWS_DEFAULT_REGION.")
    if kind == "ClientError":
        code = error.response.get("Error", {}).get("Code", "")
        if code in ("RequestLimitExceeded", "Throttling", "ThrottlingException", "RequestThrottled"):
            return Unreachable(f"{source}: AWS answers {code} still after {ATTEMPTS} tries.", "Wait a minute; fewer regions or filters on tags ask for less.")
        if code in ("UnauthorizedOperation", "AccessDenied"):
            return Failed(f"{source}: {words}", "The credentials need ec2:DescribeInstances and ec2:DescribeImages (with region=all also ec2:DescribeRegions).")
        if code in ("AuthFailure", "InvalidClientTokenId", "ExpiredToken", "RequestExpired", "SignatureDoesNotMatch"):
            return Failed(f"{source}: {words}", "Log in again; `aws sts get-caller-identity` shows whether it works.")
        return Failed(f"{source}: {words}", "Look at the filters after `aws:`.")
    if "Connect" in kind or "Endpoint" in kind or "Timeout" in kind or "SSLError" in kind:
        return Unreachable(f"{source}: {words}", "Can this machine reach AWS, and is the region's name right?")
    return Failed(f"{source}: {words}", "This came from boto3.")
