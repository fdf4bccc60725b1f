"""What leaves the machine has no secrets in it, and still tells the same."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from provision.capture import join, split
from provision.catalog import load as load_catalog
from provision.errors import UsageError
from provision.examine import diagnosed
from provision.model import Section
from provision.playbook import load as load_playbook
from provision.redaction import scrub, scrub_capture
from provision.supportbundle import CAPTURE, MOST_BYTES, capture_in, files, pack
from tests.captures import ok
from tests.doctor_hosts import FAULTS, working

CATALOG = load_catalog()
SECRET = "s3cr3tvalue"
# Each holds SECRET, or is made of what a vendor's token looks like; nothing of it may be left.
PLANTED = {
    "a proxy's user part": f"Acquire::http::Proxy \"http://ada:{SECRET}@proxy.corp:3128\";",
    "a proxy in daemon.json": f'{{"proxies": {{"https-proxy": "http://ada:{SECRET}@proxy:3128"}}}}',
    "a mirror's user part": f"deb https://ada:{SECRET}@mirror.corp/debian bookworm main",
    "an environment variable": f"Environment=REGISTRY_PASSWORD={SECRET} MODE=fast",
    "a quoted setting": f'api_token = "{SECRET} with blanks"',
    "a YAML value": f"secretKey: {SECRET}",
    "a JSON value": f'"client_secret": "{SECRET}"',
    "a command line": f"registry-login --password {SECRET} --user ada",
    "a command line with =": f"tool --access-key={SECRET}",
    "a header": f"Authorization: Bearer {SECRET}{SECRET}",
    "a basic header": f"Proxy-Authorization: Basic {SECRET}==",
    "Docker's login": f'{{"auths": {{"nvcr.io": {{"auth": "{SECRET}"}}}}}}',
    "an identity token": f'"identitytoken": "{SECRET}"',
    "a netrc line": f"machine mirror.corp login ada password {SECRET}",
    "a signed URL": f"GET https://cdn.example/x?Expires=1&Signature={SECRET}&Key-Pair-Id={SECRET}",
    "a metadata token": f"X-aws-ec2-metadata-token: {SECRET}",
    "a private key": f"-----BEGIN OPENSSH PRIVATE KEY-----\n{SECRET}\n{SECRET}\n-----END OPENSSH PRIVATE KEY-----",
    "a private key cut short": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n",
    "a PGP private key": f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n{SECRET}\n-----END PGP PRIVATE KEY BLOCK-----",
    "a storage key": f"AccountKey={SECRET}==;EndpointSuffix=core.windows.net",
}
# Not whole in this file, so that no scanner takes them for real ones.
TOKENS = ("AKIA" + "ABCDEFGHIJKLMNOP", "ghp" + "_" + "a" * 36, "nvapi" + "-" + "b" * 40, "hf" + "_" + "c" * 30, "glpat" + "-" + "d" * 20, "dckr" + "_pat_" + "e" * 24,
          "xoxb" + "-123456789012-abcdef", "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl", "AIza" + "f" * 35)
ACCOUNTS = {
    "arn:aws:iam::123456789012:role/x": "123456789012",
    "123456789012.dkr.ecr.eu-west-1.amazonaws.com/image": "123456789012",
    '"accountId" : "123456789012"': "123456789012",
    "/subscriptions/0f0f0f0f-1111-2222-3333-444444444444/resourceGroups/g": "0f0f0f0f-1111-2222-3333-444444444444",
    "projects/my-project-4711/zones/europe-west4-a": "my-project-4711",
    "ocid1.tenancy.oc1..aaaaaaaabbbbbbbbccccccccdddddddd": "aaaaaaaabbbbbbbbccccccccdddddddd",
}
# What a diagnosis needs, and what only looks like a secret.
KEPT = (
    'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].',
    "The following signatures couldn't be verified because the public key is not available: NO_PUBKEY DDCAE044F796ECB0",
    "GPU-2d3c1f6e-52b1-7c50-9a44-0b0f5f1d8e11",
    "NVRM: Xid (PCI:0000:31:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.",
    "Signed-By: /etc/apt/keyrings/docker.asc",
    "E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 4242 (apt-get)",
    "kernel: systemd[1]: Started Forward Password Requests to Plymouth.",
    "toomanyrequests: You have reached your unauthenticated pull rate limit.",
)


@pytest.mark.parametrize("where", PLANTED, ids=lambda name: str(name).replace(" ", "-"))
def test_a_planted_secret_is_gone_and_the_rest_is_there(where: str) -> None:
    planted = f"before\n{PLANTED[where]}\nafter is here"
    clean = scrub(planted)
    assert SECRET not in clean
    assert "***" in clean
    assert clean.startswith("before")
    assert "cut short" in where or clean.endswith("after is here")


@pytest.mark.parametrize("token", TOKENS, ids=lambda token: str(token)[:5])
def test_a_vendors_token_is_gone_wherever_it_stands(token: str) -> None:
    for line in (f"using {token} now", f"'{token}'", f"x={token},y=1", f"https://h.example/{token}"):
        assert token not in scrub(line)


@pytest.mark.parametrize(("line", "account"), ACCOUNTS.items())
def test_account_numbers_of_clouds_are_gone(line: str, account: str) -> None:
    assert account not in scrub(line)


@pytest.mark.parametrize("line", KEPT)
def test_what_a_diagnosis_reads_stays(line: str) -> None:
    assert scrub(line) == line


def test_scrubbing_twice_is_scrubbing_once_and_hostile_text_costs_little() -> None:
    for planted in PLANTED.values():
        assert scrub(scrub(planted)) == scrub(planted)
    began = time.process_time()
    for hostile in ("password=" * 50_000, "-----BEGIN RSA PRIVATE KEY-----" * 5_000, "a" * 1_000_000, "://" * 200_000, "--token " * 50_000, '"' * 300_000):
        scrub(hostile)
    assert time.process_time() - began < 60


@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: str(name).replace(" ", "-"))
def test_a_bundle_tells_the_same_as_the_host(fault: str) -> None:
    sections = working()
    FAULTS[fault][1](sections)
    raw = join(sections, "0badcafe")
    here = diagnosed(raw, None, CATALOG)
    there = diagnosed(capture_in(pack({CAPTURE: scrub_capture(raw)})), None, CATALOG)
    assert [(f.failure.id, f.certainty) for f in there.findings] == [(f.failure.id, f.certainty) for f in here.findings]
    assert [f.evidence for f in there.findings] == [f.evidence for f in here.findings]


def test_no_file_of_a_bundle_holds_any_planted_secret() -> None:
    sections = working()
    everything = "\n".join([*PLANTED.values(), *TOKENS, *ACCOUNTS])
    for name in ("deep_dmesg", "deep_journal:docker", "deep_containers", "deep_apt", "toolkit_config"):
        sections[name] = ok(everything)
    sections["proxy:/etc/apt/apt.conf.d/90proxy"] = ok(PLANTED["a proxy's user part"] + "\n")
    sections["file:/etc/apt/sources.list.d/x.list"] = ok(PLANTED["a mirror's user part"] + "\n")
    sections["daemon_json"] = ok(PLANTED["a proxy in daemon.json"])
    members = files(join(sections, "0badcafe"), {"run:20260101T000000-abc/log": everything, "log:nvidia-installer.log": everything}, load_playbook("gpu-host", ()), CATALOG, "gpu-7")
    whole = b"\n".join(members.values()).decode()
    assert SECRET not in whole
    for gone in (*TOKENS, *ACCOUNTS.values()):
        assert gone not in whole
    assert {name.rpartition("/")[2] for name in members} >= {"README", "capture.txt", "diagnosis.txt", "diagnosis.json", "plan.txt", "versions.json", "log"}
    json.loads(members["mlhost-support/diagnosis.json"])
    assert "NVIDIA L4" in members["mlhost-support/plan.txt"].decode() or "GPU" in members["mlhost-support/plan.txt"].decode()


def test_public_signing_keys_stay_byte_for_byte() -> None:
    sections = working()
    sections["key64:/etc/apt/keyrings/x.gpg"] = Section(0, "c2VjcmV0PXRva2VuPXBhc3N3b3Jk\ntoken=abcdef\n")
    assert split(scrub_capture(join(sections, "0badcafe")))["key64:/etc/apt/keyrings/x.gpg"] == sections["key64:/etc/apt/keyrings/x.gpg"]


def test_the_same_files_give_the_same_archive_for_its_owner_only() -> None:
    members = {CAPTURE: b"x", "mlhost-support/README": b"y"}
    assert pack(members) == pack(dict(reversed(members.items())))
    with tarfile.open(fileobj=io.BytesIO(pack(members))) as archive:
        assert {info.mode for info in archive} == {0o600}


@pytest.mark.parametrize(
    "content",
    [b"\x1f\x8bnot gzip", gzip.compress(b"not a tar"), pack({"mlhost-support/README": b"no capture"}), pack({"../../etc/passwd": b"x"}), gzip.compress(b"")],
    ids=["broken", "no-tar", "no-capture", "elsewhere", "empty"],
)
def test_an_archive_that_is_none_of_ours_is_refused(content: bytes) -> None:
    with pytest.raises(UsageError):
        capture_in(content)


def test_an_archive_that_swells_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(UsageError, match="larger"):
        capture_in(gzip.compress(b"\0" * (MOST_BYTES + 10)))


def test_a_link_in_an_archive_is_not_followed() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        info = tarfile.TarInfo(CAPTURE)
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UsageError):
        capture_in(out.getvalue())


def test_the_command_writes_a_bundle_that_the_doctor_reads(tmp_path: Path) -> None:
    sections = working()
    FAULTS["the toolkit's hook gone"][1](sections)
    capture, bundle = tmp_path / "capture.txt", tmp_path / "bundle.tar.gz"
    capture.write_bytes(join(sections, "0badcafe"))

    def mlhost(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "provision", *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120)

    made = mlhost("support-bundle", "--capture", str(capture), "--out", str(bundle))
    assert made.returncode == 0, made
    assert "before you share it" in made.stdout
    assert bundle.stat().st_mode & 0o077 == 0
    done = mlhost("doctor", "--capture", str(bundle), "--format", "json")
    assert done.returncode == 7, done
    assert [f["id"] for f in json.loads(done.stdout)["findings"]] == ["gpus-hook-missing"]
    assert mlhost("support-bundle", "a", "b").returncode == 2
