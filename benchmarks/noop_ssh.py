"""`python -m benchmarks.noop_ssh`: a run that finds nothing to do, over SSH, in mlhost, pyinfra and Ansible, and bare `ssh host true`.

The host is real (sshd, systemd, Docker in namespaces of this machine; needs root). mlhost looks at everything its docker-host playbook
wants there; the others check seven resources of the same kind. Ansible runs with pipelining, without gathering facts and with a
ControlPersist connection within the run, none of which is its default in every respect: that is as fast as it goes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.host import Line, converged_host, delayed, direct, mlhost_env
from benchmarks.measure import Case, Sample
from benchmarks.peers import peers_bin, versions
from tests.lab.nshost import NsHost

JOB = Path(__file__).resolve().parent / "job"
SSH, PYTHON, MLHOST, PYINFRA, ANSIBLE = "ssh host true", "python -c pass", "mlhost setup", "pyinfra", "Ansible"
ROUND_TRIPS = (0.0, 0.05)


def cases(line: Line, wanted_file: Path, folder: Path) -> list[Case]:
    """The five programs against one line."""
    bench = {"BENCH_FILE": str(wanted_file), "SSH_AUTH_SOCK": "", "NO_COLOR": "1"}
    inventory = folder / f"inventory-{line.port}.py"
    inventory.write_text(
        f"hosts = [({line.address!r}, {{'ssh_port': {line.port}, 'ssh_user': 'root', 'ssh_key': {str(line.key)!r}, "
        f"'ssh_known_hosts_file': {str(line.known_hosts)!r}, 'ssh_config_file': '/dev/null'}})]\n"
    )
    ansible_inventory = folder / f"inventory-{line.port}.ini"
    options = f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={line.known_hosts} -o GlobalKnownHostsFile=/dev/null"
    ansible_inventory.write_text(
        f"{line.address} ansible_port={line.port} ansible_user=root ansible_ssh_private_key_file={line.key} "
        f"ansible_python_interpreter=/usr/bin/python3 ansible_ssh_common_args='{options}'\n"
    )
    ansible = {
        **bench,
        "ANSIBLE_PIPELINING": "1",
        "ANSIBLE_HOME": str(folder / "ansible"),
        "ANSIBLE_LOCALHOST_WARNING": "0",
        "LC_ALL": "C.UTF-8",
    }

    def own_connection() -> Mapping[str, str]:
        # One connection for the whole run, but none that an earlier run left open.
        return {"ANSIBLE_SSH_CONTROL_PATH_DIR": tempfile.mkdtemp(prefix="cp-", dir="/tmp")}

    return [
        Case(PYTHON, (sys.executable, "-c", "pass")),
        Case(SSH, line.ssh("true")),
        Case(MLHOST, line.mlhost("setup"), mlhost_env()),
        Case(PYINFRA, (str(peers_bin() / "pyinfra"), "-y", str(inventory), str(JOB / "pyinfra_deploy.py")), bench),
        Case(
            ANSIBLE,
            (str(peers_bin() / "ansible-playbook"), "-i", str(ansible_inventory), str(JOB / "playbook.yml")),
            ansible,
            fresh=own_connection,
        ),
    ]


def at(line: Line, wanted_file: Path, folder: Path, repeats: int, quiet: bool) -> dict[str, Any]:
    """Measure one line; returns the summary, the ratios and the bars."""
    samples = measure.rounds(cases(line, wanted_file, folder), repeats, quiet=quiet)
    milliseconds = f"{line.round_trip * 1000:.0f} ms"

    def limit(now: Mapping[str, Sample]) -> float:
        return 1.5 * now[SSH].wall + now[PYTHON].wall

    share = measure.limit_ratio(samples, MLHOST, limit)
    against = {name: measure.ratio(samples, name, MLHOST) for name in (PYINFRA, ANSIBLE, SSH)}
    bars = [measure.bar(f"{milliseconds}: mlhost in units of 1.5 x bare ssh + Python's start", share["median"], at_most=1.0)]
    if line.round_trip:
        bars.append(measure.bar(f"{milliseconds}: pyinfra in units of mlhost", against[PYINFRA]["median"], at_least=4.0))
    return {
        "round_trip": line.round_trip,
        "cases": measure.summary(samples),
        "share_of_limit": share,
        "others_per_mlhost": against,
        "bars": bars,
    }


def show(result: Mapping[str, Any]) -> str:
    lines = [f"Round trip {result['round_trip'] * 1000:.0f} ms", "", measure.seconds_table(result["cases"]), ""]
    others = [
        [name, *(f"{ratio[key]:.2f}" for key in ("median", "min", "max"))] for name, ratio in result["others_per_mlhost"].items()
    ]
    share = result["share_of_limit"]
    others.append(["mlhost / (1.5 x ssh + python)", *(f"{share[key]:.2f}" for key in ("median", "min", "max"))])
    return "\n".join([*lines, measure.table(["in units of mlhost, same round", "median", "min", "max"], others), ""])


def prepared(host: NsHost, folder: Path) -> Path:
    """The file whose content the others check: what mlhost made of daemon.json."""
    path = folder / "daemon.json"
    path.write_text(host.run("cat /etc/docker/daemon.json 2>/dev/null || true", user="root").out)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--real-time", action="store_true", help="measure with priority over all else on this machine")
    arguments = parser.parse_args()
    repeats, quiet = arguments.repeats, not arguments.real_time
    before = measure.machine()
    results = []
    with tempfile.TemporaryDirectory(prefix="mlhost-bench-") as name:
        folder = Path(name)
        peers_bin()
        with converged_host(folder) as host:
            wanted_file = prepared(host, folder)
            if arguments.real_time:
                measure.real_time()
            for round_trip in ROUND_TRIPS:
                measure.progress(f"round trip {round_trip * 1000:.0f} ms")
                if round_trip:
                    with delayed(host, round_trip, folder) as line:
                        results.append(at(line, wanted_file, folder, repeats, quiet))
                else:
                    results.append(at(direct(host, folder), wanted_file, folder, repeats, quiet))
    bars = [one for result in results for one in result["bars"]]
    document = {
        "machine": before,
        "peers": versions(),
        "repeats": repeats,
        "real_time": arguments.real_time,
        "results": results,
        "bars": bars,
    }
    return measure.publish("noop_ssh", document, "\n".join([*map(show, results), measure.bars_table(bars)]))


if __name__ == "__main__":
    raise SystemExit(main())
