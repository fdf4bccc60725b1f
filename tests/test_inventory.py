"""Inventories from files and ssh_config: what they resolve to, and what is said of broken ones."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provision.cli import main
from provision.errors import UsageError
from provision.inventory.model import Host, Inventory
from provision.inventory.patterns import select, spread
from provision.inventory.sources import is_cloud, resolve
from provision.transport import parse_target

OWN = """\
defaults: {user: ubuntu, identity: keys/fleet}
hosts:
  gpu-1: {address: 10.0.0.1}
  "gpu-[03:05]": {port: 2222}
  gpu-9:
    playbook: mine.yaml
    set: {docker.version: "29.7", docker.users: [ada, bob]}
    vars: {rack: r9, api_token: hunter2}
groups:
  train: {hosts: ["gpu-[03:04]"], user: ada, set: {driver.branch: "580"}}
  everywhere: {children: [train], hosts: [gpu-1], user: low, vars: {rack: r1}}
"""

INI = """\
# a comment
bare.example.com
[web]
w[1:3].x ansible_user=ann http_port=80   # another
db:2200 ansible_host=10.1.1.1 ansible_ssh_private_key_file=keys/db
[top:children]
web
[top:vars]
ansible_user = low
ansible_port="2201"
"""

YAML = """\
all:
  vars: {ansible_user: low}
  hosts: {bare.example.com: }
  children:
    top:
      vars: {ansible_user: low, ansible_port: 2201}
      children:
        web:
          hosts:
            w[1:3].x: {ansible_user: ann, http_port: 80}
            db: {ansible_host: 10.1.1.1, ansible_port: 2200}
"""

LIST = {
    "_meta": {"hostvars": {"w1": {"ansible_host": "10.1.1.1", "ansible_user": "ann", "ansible_port": 2201}, "w2": {}}},
    "all": {"children": ["ungrouped", "web"]},
    "web": {"hosts": ["w1", "w2"], "vars": {}},
    "ungrouped": {"hosts": ["alone"]},
}

TERRAFORM = {
    "gpu_ips": {"sensitive": False, "type": ["list", "string"], "value": ["192.0.2.4", "192.0.2.5"]},
    "vpc_id": {"sensitive": False, "type": "string", "value": "vpc-1"},
    "nodes": {"sensitive": False, "value": {"a": {"public_ip": "192.0.2.9", "user": "ubuntu", "zone": "b"}, "b": "2001:db8::7"}},
    "hidden": {"sensitive": True, "type": "string", "value": "192.0.2.99"},
}


def file(folder: Path, name: str, content: str | object) -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def by_name(source: str) -> dict[str, Host]:
    return {host.name: host for host in resolve([source]).hosts}


# ---------------------------------------------------------------- mlhost's own


def test_the_own_file_gives_hosts_with_ranges_groups_and_defaults(tmp_path: Path) -> None:
    hosts = by_name(file(tmp_path, "fleet.yaml", OWN))
    assert list(hosts) == ["gpu-1", "gpu-03", "gpu-04", "gpu-05", "gpu-9"]
    assert hosts["gpu-1"].target == "low@10.0.0.1"
    assert hosts["gpu-03"].target == "ada@gpu-03:2222"
    assert hosts["gpu-05"].target == "ubuntu@gpu-05:2222"
    assert hosts["gpu-03"].groups == ("train", "everywhere")
    assert hosts["gpu-03"].variables == {"rack": "r1"}


def test_a_host_s_playbook_and_settings_are_its_own_and_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    host = by_name(file(tmp_path, "fleet.yaml", OWN))["gpu-9"]
    assert host.playbook == str(tmp_path / "mine.yaml")
    assert host.identity == str(tmp_path / "keys/fleet")
    assert host.sets == ("docker.version=29.7", 'docker.users=["ada", "bob"]')


@pytest.mark.parametrize(("text", "where", "hint"), [
    ("hosts: {a: {adress: x}}", "1:13: host a has no key `adress`", "`address`"),
    ("host: {a: {}}", "1:1: an inventory has no key `host`", "`hosts`"),
    ("hosts: {gpu-1: {}}\ngroups:\n  g: {hosts: [gpu-l]}", "3:15: there is no host 'gpu-l'", "`gpu-1`"),
    ("hosts: {a: {}}\ngroups: {one: {children: [two]}, tow: {}}", "2:27: there is no group 'two'", "`tow`"),
    ("hosts: {a: {port: 99999}}", "1:19: '99999' is no port", "65535"),
    ("hosts: {a: {address: 'x;reboot'}}", "1:22: The host in the target", "Expected"),
    ("hosts: {a: {user: 'ada@b'}}", "1:19: 'ada@b' is no user name", "alone"),
    ("hosts: {'a b': {}}", "1:9: 'a b' is no name for a host", "blanks"),
    ("hosts: {a: {}}\ngroups: {a: {}}", "'a' is the name of a group and of something else", "another name"),
    ("hosts: {a: {}}\ngroups: {x: {children: [y]}, y: {children: [x]}}", "is its own child", "children"),
    ("hosts: {'a[1:2]': {address: 10.0.0.1}}", "several hosts (a[1:2]) cannot have one `address`", "each host"),
    ("hosts: {'a[5:2]': {}}", "1:9: the range [5:2] runs backwards", "[01:20]"),
    ("hosts: {'a[1:2]': {}, a2: {}}", "1:23: the host 'a2' is there twice", "once"),
    ("hosts: {a: {}, a: {}}", "1:16", ""),
    ("hosts: [a, {b: 1}]", "1:12: a list of hosts holds names", "hosts:"),
])
def test_what_is_wrong_in_the_own_file_is_told_with_line_and_column(tmp_path: Path, text: str, where: str, hint: str) -> None:
    path = file(tmp_path, "fleet.yaml", text)
    with pytest.raises(UsageError) as caught:
        resolve([path])
    assert where in caught.value.message
    assert path in caught.value.message
    assert hint in caught.value.fix


# ---------------------------------------------------------------- Ansible


@pytest.mark.parametrize(("name", "text"), [("hosts", INI), ("hosts.yml", YAML), ("hosts_without_suffix", YAML)])
def test_ansible_s_files_give_what_ansible_would_connect_to(tmp_path: Path, name: str, text: str) -> None:
    hosts = by_name(file(tmp_path, name, text))
    assert {name: host.address for name, host in hosts.items()} == {
        "bare.example.com": "bare.example.com", "w1.x": "w1.x", "w2.x": "w2.x", "w3.x": "w3.x", "db": "10.1.1.1",
    }
    assert (hosts["w1.x"].user, hosts["w1.x"].port) == ("ann", 2201)
    assert hosts["db"].target == "low@10.1.1.1:2200"
    assert set(hosts["w1.x"].groups) == {"web", "top"}
    assert hosts["w2.x"].variables == {"http_port": "80"}


def test_a_key_in_an_ansible_inventory_is_relative_to_the_working_directory_as_for_ansible(tmp_path: Path) -> None:
    assert by_name(file(tmp_path, "hosts", INI))["db"].identity == "keys/db"


def test_the_nearer_group_s_variables_win_and_of_two_as_near_the_later_name(tmp_path: Path) -> None:
    text = "[b]\nx\n[a]\nx\n[outer:children]\na\n[all:vars]\nansible_port=1\n[outer:vars]\nansible_user=outer\nansible_port=2\n[a:vars]\nansible_user=a\n[b:vars]\nansible_user=b\n"
    host = by_name(file(tmp_path, "hosts", text))["x"]
    # `a` lies a level deeper than `b`, because it is a child of `outer`.
    assert (host.user, host.port) == ("a", 2)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("ansible-inventory") is None, reason="ansible-inventory is not installed")
@pytest.mark.parametrize(("name", "text"), [("hosts", INI), ("hosts.yml", YAML)])
def test_ansible_itself_resolves_the_same(tmp_path: Path, name: str, text: str) -> None:
    path = file(tmp_path, name, text)
    done = subprocess.run(["ansible-inventory", "-i", path, "--list"], capture_output=True, text=True, check=True)
    listed = by_name(file(tmp_path, "list.json", done.stdout))
    assert {n: h.target for n, h in listed.items()} == {n: h.target for n, h in by_name(path).items()}


def test_the_json_of_ansible_inventory_list_is_read_also_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(json.dumps(LIST).encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    hosts = by_name("-")
    assert hosts["w1"].target == "ann@10.1.1.1:2201"
    assert hosts["w1"].groups == ("web",)
    assert hosts["alone"].groups == ()


def test_what_only_ansible_can_resolve_is_refused_with_the_command_that_does(tmp_path: Path) -> None:
    (tmp_path / "program").write_text("#!/bin/sh\necho '{}'\n")
    for source in (
        file(tmp_path, "a", "[g]\nx ansible_host={{lookup}}"),
        file(tmp_path, "aws_ec2.yml", "plugin: amazon.aws.aws_ec2\nregions: [eu-west-1]\n"),
        file(tmp_path, "vault.json", {"_meta": {"hostvars": {"x": {"ansible_user": {"__ansible_vault": "$ANSIBLE"}}}}, "g": {"hosts": ["x"]}}),
        str(tmp_path / "program"),
        str(tmp_path),
    ):
        with pytest.raises(UsageError) as caught:
            resolve([source])
        assert "ansible-inventory -i FILE --list" in caught.value.fix


def test_what_is_left_of_an_ansible_inventory_is_named_and_no_password_is(tmp_path: Path) -> None:
    (tmp_path / "group_vars").mkdir()
    text = "[g]\nx ansible_password=hunter2\nhere ansible_connection=local\n"
    found = resolve([file(tmp_path, "hosts", text)])
    notes = " ".join(found.notes)
    assert [host.name for host in found.hosts] == ["x"]
    assert "here is left out" in notes
    assert "ansible_password is not taken" in notes
    assert "group_vars beside it are not read" in notes
    assert "hunter2" not in repr(found)


@pytest.mark.parametrize(("text", "where"), [
    ("[g]\nx y", "hosts:2: 'y' is no variable"),
    ("[g:kinder]\nx", "hosts:1: [g:kinder] is no section"),
    ("[g]\nx a='b", "hosts:2: unbalanced quotes"),
    ("[g:vars]\nwhat", "hosts:2: 'what' is no variable"),
    ("[a:children]\nb\n[b:children]\na", "in a circle"),
])
def test_what_is_wrong_in_an_ini_file_is_told_with_its_line(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve([file(tmp_path, "hosts", text)])
    assert where in caught.value.message


# ---------------------------------------------------------------- Terraform


def test_terraform_s_outputs_give_their_addresses_and_the_rest_is_named(tmp_path: Path) -> None:
    path = file(tmp_path, "out.json", TERRAFORM)
    found = resolve([path])
    assert {host.name: host.target for host in found.hosts} == {
        "192.0.2.4": "192.0.2.4", "192.0.2.5": "192.0.2.5", "a": "ubuntu@192.0.2.9", "b": "[2001:db8::7]",
    }
    assert found.groups == {"gpu_ips": ("192.0.2.4", "192.0.2.5"), "nodes": ("a", "b")}
    assert any("vpc_id holds no address" in note for note in found.notes)
    assert any("hidden is sensitive" in note for note in found.notes)


def test_one_output_can_be_named_also_a_sensitive_one(tmp_path: Path) -> None:
    path = file(tmp_path, "out.json", TERRAFORM)
    assert [host.address for host in resolve([f"{path}#hidden"]).hosts] == ["192.0.2.99"]
    with pytest.raises(UsageError, match="no output 'node'") as caught:
        resolve([f"{path}#node"])
    assert "`nodes`" in caught.value.fix


def test_a_single_output_s_json_is_a_list_of_hosts(tmp_path: Path) -> None:
    assert [host.target for host in resolve([file(tmp_path, "o.json", ["ada@gpu-1:2200", "gpu-2"])]).hosts] == ["ada@gpu-1:2200", "gpu-2"]


# ---------------------------------------------------------------- ssh_config


def test_ssh_config_s_hosts_are_found_by_pattern_through_includes(tmp_path: Path) -> None:
    (tmp_path / "more").write_text("Host gpu-3 gpu-9\n  Port 22\n")
    config = file(tmp_path, "config", f"Host gpu-1 gpu-2 *.example.com\n  User ada\nInclude {tmp_path}/more\nHost web\nHost *\n  Port 2222\n")
    names = [host.name for host in resolve(["ssh:gpu-*,!gpu-9"], config).hosts]
    assert names == ["gpu-1", "gpu-2", "gpu-3"]
    assert [host.target for host in resolve(["ssh:web"], config).hosts] == ["web"]  # user and port stay ssh_config's affair
    with pytest.raises(UsageError, match="no Host line") as caught:
        resolve(["ssh:db-*"], config)
    assert "gpu-1" in caught.value.fix


# ---------------------------------------------------------------- patterns, and together

GPUS = [Host(f"gpu-{n}", f"10.0.0.{n}", groups=("train", "odd") if n % 2 else ("train",)) for n in range(1, 6)]
FLEET = Inventory((*GPUS, Host("web", "web")))


@pytest.mark.parametrize(("patterns", "expected"), [
    ((), "gpu-1 gpu-2 gpu-3 gpu-4 gpu-5 web"),
    (("all",), "gpu-1 gpu-2 gpu-3 gpu-4 gpu-5 web"),
    (("odd",), "gpu-1 gpu-3 gpu-5"),
    (("web", "gpu-2"), "gpu-2 web"),
    (("gpu-*,!odd",), "gpu-2 gpu-4"),
    (("!train",), "web"),
    (("train,&odd,!gpu-5",), "gpu-1 gpu-3"),
    (("gpu-?", "!gpu-1"), "gpu-2 gpu-3 gpu-4 gpu-5"),
])
def test_patterns_pick_hosts_in_the_inventory_s_order(patterns: tuple[str, ...], expected: str) -> None:
    assert " ".join(host.name for host in select(FLEET, patterns)) == expected


@pytest.mark.parametrize(("pattern", "hint"), [("gpu-11", "gpu-1"), ("trian", "`train`"), ("zzz*", "`!pattern`"), ("!nobody", "lists"), ("!", "`!pattern`")])
def test_a_pattern_that_picks_nothing_is_an_error(pattern: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        select(FLEET, [pattern])
    assert hint in caught.value.fix


def test_ranges_count_with_zeros_letters_and_steps() -> None:
    assert spread("n[08:10]", "") == ["n08", "n09", "n10"]
    assert spread("r[a:c]-[1:2]", "") == ["ra-1", "ra-2", "rb-1", "rb-2", "rc-1", "rc-2"]
    assert spread("x[0:10:5]", "") == ["x0", "x5", "x10"]


def test_two_sources_that_disagree_about_a_name_are_an_error(tmp_path: Path) -> None:
    one = file(tmp_path, "one.yaml", "hosts: {a: {address: 10.0.0.1}, b: {}}\ngroups: {g: {hosts: [b]}}")
    two = file(tmp_path, "two.yaml", "hosts: {b: {}}\ngroups: {h: {hosts: [b]}}")
    assert [host.groups for host in resolve([one, two]).hosts] == [(), ("g", "h")]
    with pytest.raises(UsageError, match=r"'a' is 10\.0\.0\.2 here"):
        resolve([one, file(tmp_path, "three.yaml", "hosts: {a: {address: 10.0.0.2}}")])


def test_a_host_called_aws_is_no_cloud() -> None:
    assert is_cloud("aws:region=eu-west-1")
    assert is_cloud("azure:")
    assert not is_cloud("aws:22")
    assert not is_cloud("ada@aws:x")


def test_ten_thousand_hosts_are_read(tmp_path: Path) -> None:
    text = "hosts:\n" + "".join(f"  h{n}: {{address: 10.1.{n // 250}.{n % 250}, user: u}}\n" for n in range(10_000))
    assert len(resolve([file(tmp_path, "big.yaml", text)]).hosts) == 10_000


# ---------------------------------------------------------------- mlhost inventory


def test_the_command_shows_what_a_source_has(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = file(tmp_path, "fleet.yaml", OWN)
    assert main(["inventory", path, "--limit", "train", "--format", "hosts"]) == 0
    assert capsys.readouterr().out == "ada@gpu-03:2222\nada@gpu-04:2222\n"
    assert main(["inventory", path, "--verbose"]) == 0
    text = capsys.readouterr().out
    assert "gpu-9" in text
    assert "5 hosts" in text
    assert main(["inventory", path, "--format", "json"]) == 0
    out = capsys.readouterr().out
    document = json.loads(out)
    assert document["hosts"][0]["target"] == "low@10.0.0.1"
    assert document["hosts"][4]["variables"] == {"rack": "r9", "api_token": "***"}
    assert "hunter2" not in text + out


@pytest.mark.parametrize(("arguments", "message"), [
    (["inventory", "/nowhere/fleet.yaml"], "cannot be read: no such file or directory"),
    (["inventory"], "Missing argument"),
    (["setup", "-i", "/nowhere/fleet.yaml"], "cannot be read"),
    (["plan", "nobody", "-i", "FLEET"], "no host or group 'nobody'"),
    (["setup", "-i", "FLEET", "--limit", "gpu-8"], "--limit: the inventory has no host or group 'gpu-8'"),
    (["verify", "-i", "FLEET", "train", "--limit", "gpu-1"], "no host to work on"),
    (["setup", "-i", "FLEET", "gpu-9"], "the host gpu-9"),
    (["setup", "a", "b", "--batch", "0"], "--batch cannot be '0'"),
    (["setup", "a", "b", "--batch", "120%"], "--batch cannot be '120%'"),
    (["setup", "a", "b", "--max-failures", "some"], "--max-failures cannot be 'some'"),
])
def test_wrong_use_ends_with_2_before_anything_is_reached(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    path = file(tmp_path, "fleet.yaml", OWN)
    assert main([path if word == "FLEET" else word for word in arguments]) == 2
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------- whatever is in a file

PIECES = st.sampled_from([
    "hosts", "groups", "children", "vars", "defaults", "all", "_meta", "hostvars", "ansible_host", "set", "value", "sensitive", "a", "b[1:3]", "10.0.0.1", "[", "]",
    "{", "}", ":", ": ", ",", "\n", "\n  ", "  - ", "=", '"', "'", "#", "\\", "!vault ", "&x ", "*x", "null", "true", "7", "\x00", "\u202e", "é",
])


def outcome(source: str) -> Inventory | UsageError:
    """What becomes of a source; anything but these two is raised."""
    try:
        return resolve([source])
    except UsageError as error:
        return error


@given(st.lists(PIECES, max_size=25).map("".join), st.sampled_from(["", ".yaml", ".json"]), st.sampled_from(["", "mlhost:", "ansible:", "terraform:"]))
def test_whatever_is_in_a_file_it_is_hosts_or_an_error_that_names_it(text: str, suffix: str, kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"inventory{suffix}"
        path.write_text(text)
        found = outcome(f"{kind}{path}")
    assert found.fix if isinstance(found, UsageError) else all(parse_target(host.target) for host in found.hosts)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70_000) | st.sampled_from(["10.0.0.1", "a.b", "x y", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["hosts", "groups", "children", "vars", "_meta", "hostvars", "value", "sensitive", "type", "a", "ansible_host", "ansible_port", "public_ip", "user"]), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_whatever_json_there_is_it_is_hosts_or_an_error(document: object) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "inventory.json"
        path.write_text(json.dumps(document))
        found = outcome(str(path))
    assert found.fix if isinstance(found, UsageError) else all(parse_target(host.target) for host in found.hosts)
