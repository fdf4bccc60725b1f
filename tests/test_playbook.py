"""Playbooks: what is read, what is refused and how that is told. Bad playbooks are files under tests/playbooks/bad; a new file is a new test."""

from __future__ import annotations

import json
import os
import re
import stat
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from provision import playbook, playbook_docs, playbook_reader, playbook_ready, playbook_yaml
from provision.errors import UsageError
from provision.playbook import Loaded, digest, directories, load, packaged, redacted
from provision.playbook_schema import settings as schema
from provision.shipped import shipped
from provision.spec import Spec

ROOT = Path(__file__).resolve().parent.parent
BAD = sorted((ROOT / "tests" / "playbooks" / "bad").glob("*.yaml"))
FINGERPRINT = "0123456789ABCDEF0123456789ABCDEF01234567"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str | bytes, name: str = "p.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def refused(source: str, *sets: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(source, sets)
    assert caught.value.fix, f"no remedy in: {caught.value}"
    return caught.value


# ---------------------------------------------------------------- bad files

@pytest.fixture(params=["as installed", "pure Python"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyYAML comes with and without its C part; both must say the same."""
    if request.param == "pure Python":
        monkeypatch.setattr(playbook_reader, "_LOADER", yaml.SafeLoader)


@pytest.mark.usefixtures("loader")
@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_playbook_is_refused_with_its_place_and_a_remedy(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first.startswith("# expect: ")
    error = refused(str(path))
    assert first[len("# expect: "):].strip() in str(error)
    assert re.match(re.escape(str(path)) + r":\d+:\d+: ", error.message), error.message
    assert error.exit_code == 2


def test_a_url_in_an_error_does_not_repeat_the_password() -> None:
    assert "hunter2" not in str(refused(str(ROOT / "tests/playbooks/bad/secret-is-not-repeated.yaml")))
    for text in ("http://u:hunter2@h:x", "hunter2", "http://u:hunter2@/", "http://u:hun/ter2@h:1", "http://u:hunter2 @h"):
        message = str(refused("gpu-host", f"proxy.http={text}"))
        assert "hunter2" not in message
        assert "ter2" not in message


def test_a_missing_file_tells_the_systems_reason(tmp_path: Path) -> None:
    path = str(tmp_path / "none.yaml")
    assert str(refused(path)).startswith(f"{path}: the playbook cannot be read: no such file or directory.")


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert "is a directory" in str(refused(str(tmp_path)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_refused(write: Any) -> None:
    path = write("gpu: auto\n")
    Path(path).chmod(0)
    assert "permission denied" in str(refused(path))


def test_binary_junk_is_refused_with_its_place(write: Any) -> None:
    assert "p.yaml:2:3: byte 0xff is not UTF-8 text." in str(refused(write(b"gpu: auto\n# \xff\xfe")))
    assert "p.yaml:1:4: character U+0000 does not belong in a YAML text." in str(refused(write(b"ELF\0\0")))


def test_a_file_above_the_limit_is_refused_whatever_is_in_it(write: Any) -> None:
    assert "larger than 1 MiB" in str(refused(write(b"#" * (1024 * 1024 + 1))))
    assert load(write(b"#" * (1024 * 1024))).spec.gpu == "auto"


def test_an_endless_file_is_not_read_to_its_end() -> None:
    assert stat.S_ISCHR(os.stat("/dev/zero").st_mode)
    assert "larger than 1 MiB" in str(refused("/dev/zero"))


@pytest.mark.parametrize("name", ["a\0b.yaml", "a\nb", "\ud800", "./\udcff.yaml", "~nobody\0/x.yaml"])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    str(refused(name)).encode()


def test_terminal_sequences_in_a_playbook_do_not_reach_the_terminal(write: Any) -> None:
    assert "\x1b" not in str(refused(write('"\\e[31mred": 1\n')))


# ---------------------------------------------------------------- good files

@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "{}\n", "---\n...\n", "\ufeff", "docker:\ndriver:\n"])
def test_an_empty_playbook_is_all_defaults(write: Any, text: str) -> None:
    assert load(write(text)).spec == Spec(name="p")


def test_windows_line_ends_and_a_byte_order_mark_are_fine(write: Any) -> None:
    loaded = load(write("\ufeffgpu: required\r\ndocker:\r\n  version: \"29.70\"\r\n"))
    assert (loaded.spec.gpu, loaded.spec.docker.version) == ("required", "29.70")


def test_values_arrive_in_their_types_and_canonical_forms(write: Any) -> None:
    spec = load(write("""
        docker:
          users: [alice, _svc$]
          remove_conflicts: yes
          live_restore: yes
          data_root: /srv//docker/
          shm_size: 8G
          ulimits: {memlock: unlimited, nofile: 1048576}
          insecure_registries: [10.0.0.0/8, "registry.example:5000"]
          daemon: {debug: true, max-concurrent-downloads: 3, log-opts: {tag: "{{.Name}}"}, dns: [10.0.0.1]}
        mirrors:
          docker: {url: "https://mirror.example/docker/", fingerprint: 9dc8 5822 9fc7 dd38 854a  e2d8 8d81 803c 0ebf cd88}
        smoke: {image: "registry.example:5000/cuda/base:12.4@sha256:%s"}
        storage: {disk: "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"}
    """ % ("ab" * 32))).spec
    assert spec.docker.users == ("alice", "_svc$")
    assert spec.docker.remove_conflicts is True
    assert spec.docker.live_restore == "yes"
    assert spec.docker.data_root == "/srv/docker"
    assert spec.docker.shm_size == "8g"
    assert spec.docker.ulimits == {"memlock": "unlimited", "nofile": "1048576"}
    assert spec.docker.daemon == {"debug": True, "max-concurrent-downloads": 3, "log-opts": {"tag": "{{.Name}}"}, "dns": ["10.0.0.1"]}
    assert spec.mirrors.docker.url == "https://mirror.example/docker"
    assert spec.mirrors.docker.fingerprint == "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"
    assert spec.smoke.image.startswith("registry.example:5000/cuda/base:12.4@sha256:abab")
    assert spec.storage.disk == "/dev/disk/by-path/pci-0000:00:1f.2-ata-1"


@pytest.mark.parametrize("image", [
    "embedded", "ubuntu", "ubuntu:24.04", "nvidia/cuda:12.4.1-base-ubuntu22.04", "localhost:5000/a_b/c--d__e.f:x", "ghcr.io/a/b", "a.b:80/c", "[::1]:5000/a",
])
def test_image_references_of_every_form_are_taken(image: str) -> None:
    assert load(None, [f"smoke.image={image}"]).spec.smoke.image == image


@pytest.mark.parametrize("image", ["", ":", "a b", "-v", "a/", "/a", "a//b", "a:b:c", "a@", "a:-x", "a$b", "a\nb", "ubuntu:" + "x" * 129, "a" * 256])
def test_what_is_no_image_reference_is_refused(image: str) -> None:
    assert "--set smoke.image" in str(refused("gpu-host", f"smoke.image={image}"))


@pytest.mark.parametrize("host", ["*", ".example.com", "*.example.com", "localhost", "10.0.0.0/8", "::1", "fd00::/8", "host:8080"])
def test_no_proxy_takes_hosts_domains_and_networks(host: str) -> None:
    assert load(None, ["proxy.http=http://p:1", f"proxy.no_proxy={host}"]).spec.proxy.no_proxy == (host,)


def test_anchors_and_merge_keys_work_and_explicit_keys_win(write: Any) -> None:
    spec = load(write("""
        mirrors:
          docker: &m {url: https://a.example, key_url: https://a.example/key}
          toolkit: {<<: *m, url: https://b.example}
          cuda: {<<: [{url: https://c.example}, *m]}
    """)).spec
    assert spec.mirrors.toolkit.url == "https://b.example"
    assert spec.mirrors.toolkit.key_url == "https://a.example/key"
    assert spec.mirrors.cuda.url == "https://c.example"


# ---------------------------------------------------------------- names, extends

def test_no_playbook_is_the_packaged_gpu_host() -> None:
    assert load(None) == load("gpu-host")
    assert load(None).path is None
    assert load(None).spec == Spec(name="gpu-host")


@pytest.mark.parametrize("name", sorted(packaged()))
def test_every_packaged_playbook_is_read_under_its_name(name: str) -> None:
    assert load(name).spec.name == name


@pytest.mark.parametrize("name", sorted(packaged()))
def test_every_setting_of_a_packaged_playbook_has_a_comment(name: str) -> None:
    lines = Path(packaged()[name]).read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    for above, line in zip(lines, lines[1:]):
        if re.match(r" *[a-z_]+: [^{&]", line) and not line.startswith("name:"):
            assert above.lstrip().startswith("#"), f"{name}: {line}"


@pytest.mark.parametrize("name", sorted(packaged()))
def test_what_a_packaged_playbook_has_commented_out_can_be_used(name: str, write: Any) -> None:
    text = Path(packaged()[name]).read_text(encoding="utf-8")
    used = re.sub(r"(?m)^( *)# ([a-z_]+: \S.*)$", r"\1\2", text)
    assert load(write(used, "steps-are-elsewhere.yaml")).spec.name == name


def test_deep_learning_says_what_training_needs() -> None:
    docker = load("deep-learning").spec.docker
    assert (docker.log.max_size, docker.log.max_file, docker.shm_size, docker.live_restore) == ("50m", 3, "8g", "yes")
    assert docker.ulimits == {"memlock": "unlimited", "stack": "67108864", "nofile": "1048576"}
    assert load("deep-learning").spec.gpu == "auto"


def test_packaged_playbooks_are_looked_for_in_the_package_and_beside_it() -> None:
    inside, beside = directories()
    assert Path(inside).parent.name == "provision"
    assert Path(beside) == ROOT / "playbooks"


def test_another_place_to_search_replaces_the_packaged_ones(write: Any, tmp_path: Path) -> None:
    write("gpu: required\n", "mine.yaml")
    assert load("mine", search=[str(tmp_path)]).spec.gpu == "required"
    assert load("mine", search=[str(tmp_path / "nowhere"), str(tmp_path)]).path is None
    with pytest.raises(UsageError, match="no playbook named `gpu-host`"):
        load("gpu-host", search=[str(tmp_path)])


def test_an_unknown_name_tells_the_nearest_one() -> None:
    assert "Did you mean `docker-host`?" in str(refused("docker-hots"))


def test_a_file_in_the_working_directory_needs_no_slash(write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("gpu: ignore\n", "mine")
    monkeypatch.chdir(tmp_path)
    assert load("mine").path == "mine"


def test_extends_gives_the_defaults_and_lists_are_replaced(write: Any) -> None:
    write("name: base\ndocker:\n  users: [alice]\n  ulimits: {memlock: unlimited, nofile: 1}\n  daemon: {features: {a: true}, debug: true}\n", "base/base.yaml")
    spec = load(write("extends: base/base.yaml\ndocker:\n  users: [bob]\n  ulimits: {nofile: 2}\n  daemon: {features: {b: true}}\n")).spec
    assert spec.docker.users == ("bob",)
    assert spec.docker.ulimits == {"memlock": "unlimited", "nofile": "2"}
    assert spec.docker.daemon == {"features": {"a": True, "b": True}, "debug": True}
    assert spec.name == "p"


def test_extends_is_relative_to_the_file_that_says_it(write: Any) -> None:
    write("gpu: required\n", "a/b/deep.yaml")
    write("extends: b/deep.yaml\n", "a/mid.yaml")
    assert load(write("extends: a/mid.yaml\n")).spec.gpu == "required"


def test_a_circle_of_playbooks_is_found(write: Any) -> None:
    write("extends: p.yaml\n", "other.yaml")
    error = refused(write("extends: ./other.yaml\n"))
    assert re.search(r"other\.yaml:1:10: `extends` leads back to .*p\.yaml", error.message)


def test_a_chain_of_playbooks_has_an_end(write: Any) -> None:
    for number in range(9):
        write(f"extends: ./{number + 1}.yaml\n" if number < 8 else "gpu: required\n", f"{number}.yaml")
    assert load(write("extends: ./1.yaml\n", "first.yaml")).spec.gpu == "required"
    assert "more than 8 playbooks" in str(refused(write("extends: ./0.yaml\n", "first.yaml")))


def test_an_error_in_an_extended_playbook_stands_in_that_file(write: Any) -> None:
    base = write("gpu: maybe\n", "base.yaml")
    assert str(refused(write("extends: ./base.yaml\n"))).startswith(f"{base}:1:6: `gpu` cannot be")


def test_a_contradiction_across_playbooks_names_the_line_to_change(write: Any) -> None:
    write("driver: {branch: \"580\"}\n", "base.yaml")
    assert "base.yaml:1:18: `driver.branch`" in str(refused(write("extends: ./base.yaml\ngpu: ignore\n")))
    assert "--set driver.branch: `driver.branch`" in str(refused("docker-host", "driver.branch=580"))


def test_steps_are_files_relative_to_their_playbook(write: Any, tmp_path: Path) -> None:
    write("steps: [one.py, sub/two.py, entry-point]\n", "base/base.yaml")
    loaded = load(write("extends: base/base.yaml\n"))
    assert loaded.step_files == (str(tmp_path / "base/one.py"), str(tmp_path / "base/sub/two.py"), "entry-point")


# ---------------------------------------------------------------- --set

def test_set_takes_texts_literally() -> None:
    spec = load(None, ["docker.version=29.70", "driver.branch=580", "docker.live_restore=no", "name=on", "docker.log.max_size=10m"]).spec
    assert (spec.docker.version, spec.driver.branch, spec.docker.live_restore, spec.name) == ("29.70", "580", "no", "on")


def test_set_reads_other_kinds_as_yaml() -> None:
    spec = load(None, ["docker.remove_conflicts=yes", "preflight.lock_wait=5", "docker.users=[alice, bob]", "docker.ulimits={memlock: unlimited}"]).spec
    assert spec.docker.remove_conflicts is True
    assert spec.preflight.lock_wait == 5
    assert spec.docker.users == ("alice", "bob")
    assert spec.docker.ulimits == {"memlock": "unlimited"}


def test_set_takes_a_single_entry_for_a_list_and_nothing_for_an_empty_one() -> None:
    assert load(None, ["docker.users=alice"]).spec.docker.users == ("alice",)
    assert load(None, ["docker.users=alice", "docker.users="]).spec.docker.users == ()


def test_set_reaches_into_mappings_and_adds_to_them() -> None:
    spec = load("deep-learning", ["docker.ulimits.nofile=1024", "docker.daemon.debug=true", "docker.daemon.features.x=false"]).spec
    assert spec.docker.ulimits == {"memlock": "unlimited", "stack": "67108864", "nofile": "1024"}
    assert spec.docker.daemon == {"debug": True, "features": {"x": False}}


def test_a_later_set_wins() -> None:
    assert load(None, ["gpu=ignore", "gpu=required"]).spec.gpu == "required"


@pytest.mark.parametrize(("item", "text"), [
    ("gpu", "--set gpu: there is no `=`."),
    ("", "there is no `=`."),
    ("=x", "there is no such setting."),
    ("docker.verison=29", "--set docker.verison: there is no such setting. Did you mean `docker.version`?"),
    ("docker.version.major=29", "--set docker.version.major: there is no such setting."),
    ("docker.daemon.=1", "there is no such setting"),
    ("docker=x", "--set docker: `docker` is a section. Set one of its keys, for example `--set docker.source=…`."),
    ("extends=x", "--set extends: a playbook is chosen with `--playbook`"),
    ("gpu=maybe", "--set gpu: `gpu` cannot be `maybe`. It is one of"),
    ("docker.remove_conflicts=", "--set docker.remove_conflicts: `docker.remove_conflicts` has no value."),
    ("docker.remove_conflicts=maybe", "--set docker.remove_conflicts: `docker.remove_conflicts` wants `true` or `false`, not a text."),
    ("preflight.lock_wait=soon", "--set preflight.lock_wait: `preflight.lock_wait` wants a whole number, not a text."),
    ("docker.users=[a", "--set docker.users: not valid YAML"),
    ("docker.users=[29]", "--set docker.users: `docker.users` wants a text, but unquoted `29` is a number to YAML. Quote it: \"29\"."),
    ("docker.daemon=x", "--set docker.daemon: `docker.daemon` wants a mapping, not a text."),
    ("docker.daemon.hosts=[]", "--set docker.daemon.hosts: `docker.daemon.hosts` is refused"),
    ("docker.version=29\ud800", "which is not a version"),
    ("docker.daemon.x=\ud800", "character U+D800 does not belong"),
])
def test_a_wrong_set_is_named(item: str, text: str) -> None:
    message = str(refused("gpu-host", item))
    assert text in message
    message.encode()


# ---------------------------------------------------------------- digest, secrets, docs

def test_the_digest_is_of_the_values_not_of_how_they_are_written(write: Any) -> None:
    one = load(write("docker: {version: '29', users: [alice]}\n", "one.yaml"))
    two = load(write("# other\ndocker:\n  users:\n  - alice\n  version: \"29\"\ngpu: auto\n", "two.yaml"))
    assert one.digest == two.digest == load(None, ["docker.version=29", "docker.users=alice"]).digest
    assert one.digest != load(None, ["docker.version=29.7", "docker.users=alice"]).digest
    assert re.fullmatch("[0-9a-f]{64}", one.digest)


def test_redacted_values_hold_no_credentials() -> None:
    loaded = load(None, [
        "proxy.http=http://alice:hunter2@proxy.example:3128", "proxy.https=http://hunter2@proxy.example:3129",
        "docker.daemon={log-opts: {splunk-token: hunter2, splunk-url: 'https://x:hunter2@splunk.example'}}", "docker.users=alice",
    ])
    values = redacted(loaded.spec)
    assert "hunter2" not in json.dumps(values)
    assert values["proxy"]["http"] == "http://***@proxy.example:3128"
    assert values["docker"]["daemon"]["log-opts"]["splunk-token"] == "***"
    assert values["docker"]["users"] == ["alice"]
    assert loaded.spec.proxy.http == "http://alice:hunter2@proxy.example:3128"


def test_the_reference_in_the_docs_is_what_the_schema_says() -> None:
    assert (ROOT / "docs" / "playbooks.md").read_text(encoding="utf-8") == playbook_docs.reference(), "run: python -m provision.playbook_docs > docs/playbooks.md"


def test_the_reference_names_every_setting() -> None:
    page = playbook_docs.reference()
    for setting in schema().values():
        assert f"`{setting.key}`" in page


# ---------------------------------------------------------------- anything at all

_KEYS = [setting.path[-1] for setting in schema().values()] + ["<<", "hosts", "x", "memlock"]
_SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.dates(), st.text(max_size=12), st.sampled_from([
    "auto", "29.7", "https://a.example", "/srv/x", "50m", "alice", "embedded", "ignore", "http://u:p@h:1", FINGERPRINT, "never", "instance-store", "~", "*"]))
_TREES = st.recursive(_SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(_KEYS) | st.text(max_size=6), inner, max_size=6), max_leaves=20)
_YAMLISH = st.text(alphabet=string.ascii_lowercase[:6] + "0129 \t\n\r:-[]{}&*!|>'\"%#,?@`\\<.~\ufeff\x85\u2028\0\x1b", max_size=80)
_QUICK = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


def only_a_usage_error(source: str, sets: list[str]) -> Loaded | None:
    """Reading either works or ends in an error that can be printed and names a remedy."""
    error = UsageError("")
    try:
        return load(source, sets)
    except UsageError as caught:
        error = caught
    assert error.message
    assert error.fix
    str(error).encode()
    return None


def nested(path: tuple[str, ...], value: Any) -> Any:
    for key in reversed(path):
        value = {key: value}
    return value


@pytest.mark.usefixtures("loader")
@_QUICK
@given(content=st.one_of(st.binary(max_size=80), _YAMLISH.map(str.encode), st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace"))))
def test_no_content_of_a_file_ends_in_a_traceback(content: bytes, write: Any) -> None:
    only_a_usage_error(write(content), [])


@pytest.mark.usefixtures("loader")
@_QUICK
@given(tree=_TREES)
def test_no_structure_ends_in_a_traceback(tree: Any, write: Any) -> None:
    only_a_usage_error(write(yaml.safe_dump(tree)), [])


@_QUICK
@given(path=st.sampled_from(sorted(schema())), value=_TREES)
def test_no_value_of_a_setting_ends_in_a_traceback_and_what_is_taken_can_be_digested(path: tuple[str, ...], value: Any, write: Any) -> None:
    loaded = only_a_usage_error(write(yaml.safe_dump(nested(path, value))), [])
    if loaded:
        assert loaded.digest == digest(loaded.spec)
        json.dumps(redacted(loaded.spec), allow_nan=False)


@_QUICK
@given(key=st.sampled_from([setting.key for setting in schema().values()]) | st.text(max_size=12), value=_YAMLISH | st.text(max_size=20))
def test_no_set_ends_in_a_traceback(key: str, value: str) -> None:
    only_a_usage_error("gpu-host", [f"{key}={value}"])
    only_a_usage_error("gpu-host", [f"{key}{value}"])


def taken() -> Iterator[tuple[str, str]]:
    """Every setting with a value that is not its default, as `--set` writes it."""
    by_kind = {"bool": "true", "int": "7", "text": "x", "path": "/srv/x", "url": "https://a.example", "version": "29.70", "json": "{debug: true}", "size": "8g",
               "limits": "{nofile: 3}"}
    special = {
        "driver.branch": "580", "smoke.image": "ubuntu:24.04", "storage.disk": "/dev/vdb", "docker.users": "[alice]", "docker.beside": "[snap]",
        "docker.insecure_registries": "['a:5000']", "mirrors.registry": "['https://hub.example']", "proxy.no_proxy": "[.example]", "run.volumes": "['/data:ro']", "run.env": "[HF_TOKEN]", "steps": "[/srv/x.py]",
        "smoke.enabled": "false",
    }
    for setting in schema().values():
        if setting.section is None and setting.key != "extends":
            by_choice = next((choice for choice in setting.choices if choice != setting.default), "")
            value = special.get(setting.key, by_choice or (FINGERPRINT if setting.key.endswith("fingerprint") else by_kind.get(setting.kind, "")))
            yield setting.key, value


@pytest.mark.parametrize(("key", "value"), list(taken()), ids=[key for key, _ in taken()])
def test_each_setting_reaches_the_spec_from_a_file_and_from_set_alike(key: str, value: str, write: Any) -> None:
    mirror = key.rsplit(".", 1)[0] + ".url=https://m.example" if key.startswith("mirrors.") and not key.endswith(("url", "registry", ".driver")) else ""
    mirror = key[: -len("key_url")] + "url=https://m.example" if key.endswith("key_url") else mirror
    others = [item for item in (mirror, "docker.log.max_size=1m" if key == "docker.log.max_file" else "") if item]
    by_set = load(None, [*others, f"{key}={value}"])
    quoted = value if schema()[tuple(key.split("."))].kind in ("bool", "int", "json", "limits", "texts") else json.dumps(value)
    path = tuple(key.split("."))
    text = "".join("  " * depth + f"{part}:" + (f" {quoted}\n" if depth == len(path) - 1 else "\n") for depth, part in enumerate(path))
    by_file = load(write(text), others)
    assert by_file.digest == by_set.digest
    if key != "name":
        assert by_set.digest != load(None, others).digest


def test_packaged_playbooks_are_stored_as_they_read() -> None:
    """Store them anew with `python -m provision.playbook_ready > provision/data/playbooks.json`."""
    assert shipped("data/playbooks.json") == playbook_ready.document()
    for name, path in packaged().items():
        assert playbook._read(playbook_yaml.read(path), path) == playbook.parsed(playbook_yaml.read(path), path), name


def test_a_packaged_playbook_that_was_changed_is_read(write: Any) -> None:
    text = playbook_yaml.read(packaged()["docker-host"])
    assert playbook_ready.ready(text) is not None
    assert load(write(text.replace("gpu: ignore", "gpu: required"))).spec.gpu == "required"
