"""`python -m benchmarks.fleet`: a run that finds nothing to do on many hosts at once, in mlhost, pyinfra, Ansible, and bare SSH.

The hosts are real sshds in namespaces of this machine, so both ends of every connection are on its processors; needs root. The limit is a loop in
paramiko that connects, runs one script with the checks by hand, and hangs up; what it costs to run `true` is told beside it. All work on as many hosts at a time (`--parallel`). Besides the time on the clock it takes the
processor time of the controller and of the hosts' sessions, which a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.fleet_hosts import Fleet, converged_fleet
from benchmarks.host import mlhost_env
from benchmarks.measure import ROOT, Case, Sample
from benchmarks.peers import peers_bin, versions

JOB = Path(__file__).resolve().parent / "job"
BARE, LOOP, PROBED = "paramiko loop: true", "paramiko loop: seven checks", "paramiko loop: mlhost's probe"
SSH, MLHOST = "parallel ssh: true", "mlhost setup"
PYINFRA, ANSIBLE = "pyinfra", "Ansible"


def cases(fleet: Fleet, count: int, parallel: int) -> dict[str, Case]:
    """The programs, for the first so many hosts."""
    addresses = fleet.first(count)
    wanted_file = fleet.folder / "README"
    wanted_file.write_text(fleet.hosts[0].run("cat /etc/docker/README", user="root").out)
    bench = {"BENCH_FILE": str(wanted_file), "SSH_AUTH_SOCK": "", "NO_COLOR": "1"}
    hosts = fleet.folder / f"pyinfra-{count}.py"
    way = f"'ssh_user': 'root', 'ssh_key': {str(fleet.key)!r}, 'ssh_known_hosts_file': {str(fleet.known_hosts)!r}, 'ssh_config_file': '/dev/null'"
    hosts.write_text(f"hosts = [(address, {{{way}}}) for address in {addresses!r}]\n")
    inventory = fleet.folder / f"ansible-{count}.ini"
    options = f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={fleet.known_hosts} -o GlobalKnownHostsFile=/dev/null"
    inventory.write_text(
        "[all]\n" + "".join(f"{address}\n" for address in addresses) + f"[all:vars]\nansible_user=root\nansible_ssh_private_key_file={fleet.key}\n"
        f"ansible_python_interpreter=/usr/bin/python3\nansible_ssh_common_args='{options}'\n"
    )
    ansible = {**bench, "ANSIBLE_PIPELINING": "1", "ANSIBLE_HOME": str(fleet.folder / "ansible"), "LC_ALL": "C.UTF-8", "ANSIBLE_FORKS": str(parallel)}
    loop = (sys.executable, str(Path(__file__).with_name("paramiko_loop.py")), str(fleet.key), str(fleet.known_hosts), str(parallel))
    ssh = f"ssh {options} -i {fleet.key} -o BatchMode=yes root@{{}} true </dev/null"
    listed = fleet.folder / f"addresses-{count}"
    listed.write_text("\n".join(addresses) + "\n")
    out = fleet.folder / "report.json"
    return {
        BARE: Case(BARE, (*loop, "-", "-", *addresses)),
        LOOP: Case(LOOP, (*loop, str(JOB / "fleet_checks.sh"), hashlib.sha256(wanted_file.read_bytes()).hexdigest(), *addresses)),
        PROBED: Case(PROBED, (*loop, str(ROOT / "provision/scripts/probe.sh"), "0", *addresses)),
        SSH: Case(SSH, ("xargs", "-a", str(listed), "-P", str(parallel), "-I{}", "sh", "-c", ssh), {"SSH_AUTH_SOCK": ""}),
        MLHOST: Case(MLHOST, fleet.mlhost("setup", count, "--parallel", str(parallel), "--format", "json", "--out", str(out)), mlhost_env()),
        PYINFRA: Case(
            PYINFRA, (str(peers_bin() / "pyinfra"), "-y", "--parallel", str(parallel), str(hosts), str(JOB / "fleet_pyinfra.py")), bench
        ),
        ANSIBLE: Case(
            ANSIBLE, (str(peers_bin() / "ansible-playbook"), "-i", str(inventory), str(JOB / "fleet_playbook.yml")), ansible, fresh=_own_connections
        ),
    }


def _own_connections() -> Mapping[str, str]:
    # One connection to a host for the whole run, but none that an earlier run left open.
    return {"ANSIBLE_SSH_CONTROL_PATH_DIR": tempfile.mkdtemp(prefix="cp-", dir="/tmp")}


def at(fleet: Fleet, count: int, parallel: int, repeats: int, slow_rounds: int, quiet: bool) -> dict[str, Any]:
    """Measure so many hosts. Every round runs every case once; pyinfra and Ansible only in the first `slow_rounds`, Ansible in the first alone."""
    known = cases(fleet, count, parallel)
    samples: dict[str, list[Sample]] = {name: [] for name in known}
    there: dict[str, list[float]] = {name: [] for name in known}
    for number in range(-1, repeats):
        names = [BARE, LOOP, PROBED, SSH, MLHOST]
        names += [PYINFRA] if 0 <= number < slow_rounds else []
        names += [ANSIBLE] if number == 0 and slow_rounds else []
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            if quiet:
                measure.wait_for_quiet(5.0)
            before = fleet.session_seconds(count)
            sample = measure.run_once(known[name])
            if number >= 0:
                samples[name].append(sample)
                there[name].append(fleet.session_seconds(count) - before)
                measure.progress(f"{count} hosts, {name}: {sample.wall:.2f} s, {sample.cpu:.2f} s of processor, {there[name][-1]:.2f} on the hosts")
    samples = {name: found for name, found in samples.items() if found}
    return {
        "hosts": count,
        "cases": measure.summary(samples),
        "cpu_ms_a_host": {name: measure.spread([one.cpu / count * 1000 for one in found]) for name, found in samples.items()},
        "hosts_cpu_ms_a_host": {name: measure.spread([one / count * 1000 for one in there[name]]) for name in samples},
        "per_mlhost": {name: measure.ratio(samples, name, MLHOST) for name in samples if name != MLHOST},
        "of_the_loop": {name: measure.ratio(samples, name, LOOP) for name in samples if name != LOOP},
        "of_true": {name: measure.ratio(samples, name, BARE) for name in samples if name != BARE},
    }


def bars(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for result in results:
        what = f"{result['hosts']} hosts: "
        found += [
            measure.bar(f"{what}mlhost in units of {name}", result[against][MLHOST]["median"], at_most=1.5)
            for name, against in ((BARE, "of_true"), (LOOP, "of_the_loop"))
        ]
        found += [
            measure.bar(f"{what}{name} in units of mlhost", result["per_mlhost"][name]["median"], at_least=least)
            for name, least in ((SSH, 1.0), (PYINFRA, 5.0), (ANSIBLE, 30.0))
            if name in result["per_mlhost"]
        ]
        found.append(measure.bar(what + "mlhost, CPU ms a host", result["cpu_ms_a_host"][MLHOST]["median"], at_most=12))
    if len(results) > 1:
        few, many = results[0], results[-1]
        peak: Callable[[Mapping[str, Any]], float] = lambda result: float(result["cases"][MLHOST]["peak_mb"]["median"])  # noqa: E731
        found.append(
            measure.bar("mlhost, MB for every further host", (peak(many) - peak(few)) / (many["hosts"] - few["hosts"]), at_most=0.5)
        )
    return found


def show(result: Mapping[str, Any]) -> str:
    rows = [
        [
            name,
            *(f"{part['wall'][key]:.2f}" for key in ("median", "min", "max")),
            f"{result['cpu_ms_a_host'][name]['median']:.1f}",
            f"{result['hosts_cpu_ms_a_host'][name]['median']:.1f}",
            f"{part['peak_mb']['max']:.0f}",
            f"{result['per_mlhost'][name]['median']:.2f}" if name != MLHOST else "1",
            f"{result['of_true'][name]['median']:.2f}" if name != BARE else "1",
        ]
        for name, part in result["cases"].items()
    ]
    head = ["case", "median s", "min s", "max s", "CPU ms a host", "and on the host", "peak MB", "in units of mlhost", "of true"]
    return f"{result['hosts']} hosts\n\n{measure.table(head, rows)}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--parallel", type=int, default=20, help="hosts at a time, for every program")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--no-peers", action="store_true", help="neither pyinfra nor Ansible, which take minutes")
    parser.add_argument("--real-time", action="store_true", help="measure with priority over all else on this machine")
    arguments = parser.parse_args()
    before = measure.machine()
    if not arguments.no_peers:
        peers_bin()
    with tempfile.TemporaryDirectory(prefix="mlhost-bench-") as name, converged_fleet(Path(name), max(arguments.hosts)) as fleet:
        if arguments.real_time:
            measure.real_time()
        results = [
            at(fleet, count, arguments.parallel, arguments.repeats, 0 if arguments.no_peers else 1, not arguments.real_time)
            for count in sorted(arguments.hosts)
        ]
    document = {
        "machine": before,
        "peers": versions(),
        "parallel": arguments.parallel,
        "repeats": arguments.repeats,
        "real_time": arguments.real_time,
        "results": results,
        "bars": bars(results),
    }
    return measure.publish("fleet", document, "\n".join([*map(show, results), measure.bars_table(document["bars"])]))


if __name__ == "__main__":
    raise SystemExit(main())
