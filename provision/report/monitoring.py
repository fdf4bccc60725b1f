"""Reports for monitors: one line as a Nagios plugin prints it, and Prometheus text for node_exporter's textfile collector.

Sources: nagios-plugins.org development guidelines (status line, exit codes 0 to 3); prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

from collections.abc import Sequence

from provision.model import HostReport
from provision.report.sanitize import line
from provision.report.verdict import fleet_exit_code

OK, CRITICAL, UNKNOWN = 0, 2, 3
_WORDS = {OK: "OK", CRITICAL: "CRITICAL", UNKNOWN: "UNKNOWN"}


def nagios_code(exit_code: int) -> int:
    """The plugin's exit code for a command's: 0 as it is, 7 (a layer is broken) is critical, everything else could not be judged."""
    return {0: OK, 7: CRITICAL}.get(exit_code, UNKNOWN)


def nagios(reports: Sequence[HostReport]) -> str:
    """`MLHOST CRITICAL - gpu-7: cdi: no CDI spec … | broken=1 hosts=2`, then a line for each host that is not fine."""
    worst = nagios_code(fleet_exit_code(reports)) if reports else UNKNOWN
    bad = [report for report in reports if report.exit_code]
    said = [f"{line(report.target)}: {line(report.message or report.status)}".replace("|", "/") for report in bad]
    good = f"{len(reports)} host{'s' if len(reports) != 1 else ''} proved"
    head = f"MLHOST {_WORDS[worst]} - {said[0] if said else good} | broken={len(bad)};;0 hosts={len(reports)}"
    return "\n".join([head, *said[1:]])


def prometheus(reports: Sequence[HostReport]) -> str:
    """Gauges: `mlhost_up` per host, `mlhost_check` per check that was made (1 ok, 0 failed), `mlhost_gpus`, and seconds per part."""
    up = [f'mlhost_up{{target="{_label(r.target)}"}} {int(r.exit_code == 0)}' for r in reports]
    checks = [
        f'mlhost_check{{target="{_label(r.target)}",check="{_label(c.id)}"}} {int(c.state == "ok")}'
        for r in reports
        for c in r.checks
        if c.state in ("ok", "failed")
    ]
    gpus = [f'mlhost_gpus{{target="{_label(r.target)}"}} {len(r.before.gpus)}' for r in reports if r.before]
    seconds = [f'mlhost_seconds{{target="{_label(r.target)}",part="{_label(t.name)}"}} {t.seconds:.3f}' for r in reports for t in r.timings]
    groups = (
        ("mlhost_up", "Whether the host is proved to be what its playbook says.", up),
        ("mlhost_check", "Whether a layer is right.", checks),
        ("mlhost_gpus", "NVIDIA GPUs on the PCI bus.", gpus),
        ("mlhost_seconds", "How long a part of the check took.", seconds),
    )
    return "".join(f"# HELP {name} {text}\n# TYPE {name} gauge\n" + "".join(f"{row}\n" for row in rows) for name, text, rows in groups if rows)


def _label(value: str) -> str:
    return line(value).replace("\\", "\\\\").replace('"', '\\"')
