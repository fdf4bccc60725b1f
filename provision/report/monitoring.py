"""Reports for monitors: one line as a Nagios plugin prints it, and Prometheus text for node_exporter's textfile collector.

Sources: nagios-plugins.org development guidelines (status line, exit codes 0 to 3); prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone

from provision.model import HostReport
from provision.report.grid import plan_of
from provision.report.sanitize import line
from provision.report.verdict import fleet_exit_code
from provision.versions import COMPONENTS

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
    """Gauges per host: `mlhost_up` (1 fine), `mlhost_exit_code`, `mlhost_check` per check that was made (1 ok, 0 failed), `mlhost_items` by state,
    `mlhost_drift`, `mlhost_gpus`, `mlhost_info` with the versions as labels, when the last run began (Unix time), and seconds per part."""
    plans = [(report, plan_of(report)) for report in reports]
    groups: tuple[tuple[str, str, Iterable[tuple[str, float]]], ...] = (
        ("mlhost_up", "Whether the host is proved to be what its playbook says.", (_row(r, int(r.exit_code == 0)) for r in reports)),
        ("mlhost_exit_code", "The exit code of the command for this host alone.", (_row(r, r.exit_code) for r in reports)),
        (
            "mlhost_check",
            "Whether a layer is right.",
            (_row(r, int(c.state == "ok"), check=c.id) for r in reports for c in r.checks if c.state in ("ok", "failed")),
        ),
        (
            "mlhost_items",
            "How many things of the playbook's are in this state.",
            (_row(r, sum(i.state == state for i in p.items), state=state) for r, p in plans if p for state in ("ok", "change", "later", "refused")),
        ),
        ("mlhost_drift", "How many things were right after the last run and are not now.", (_row(r, len(r.drift)) for r in reports if r.last_run)),
        ("mlhost_gpus", "NVIDIA GPUs on the PCI bus.", (_row(r, len(p.gpus)) for r, p in plans if p)),
        ("mlhost_info", "The versions that were seen.", (_row(r, 1, **_versions(r)) for r in reports if r.versions)),
        ("mlhost_last_run_timestamp_seconds", "When mlhost's last run on the host began.", _last_runs(reports)),
        ("mlhost_seconds", "How long a part of the work took.", (_row(r, float(t.seconds), part=t.name) for r in reports for t in r.timings)),
    )
    parts = []
    for name, text, made in groups:
        found: dict[str, float] = {}
        for labels, value in made:
            # A series may be there once only: of what was looked at twice, the worse.
            found[labels] = min(value, found.get(labels, value))
        rows = "".join(f"{name}{labels} {value if isinstance(value, int) else f'{value:.3f}'}\n" for labels, value in found.items())
        parts.append(f"# HELP {name} {text}\n# TYPE {name} gauge\n{rows}" if rows else "")
    return "".join(parts)


def _row(report: HostReport, value: float, **labels: str) -> tuple[str, float]:
    shown = ",".join(f'{key}="{_label(text)}"' for key, text in {"target": report.target, **labels}.items())
    return f"{{{shown}}}", value


def _versions(report: HostReport) -> dict[str, str]:
    return {key: report.versions[key] for key in COMPONENTS if key in report.versions}


def _last_runs(reports: Sequence[HostReport]) -> Iterable[tuple[str, float]]:
    for report in reports:
        try:
            began = datetime.strptime(report.last_run.since if report.last_run else "", "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:  # the host said something else
            continue
        yield _row(report, int(began.replace(tzinfo=timezone.utc).timestamp()))


def _label(value: str) -> str:
    return line(value).replace("\\", "\\\\").replace('"', '\\"')
