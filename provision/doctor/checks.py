"""Every predicate by the name that the data uses (the function's, with hyphens)."""

from __future__ import annotations

from provision.doctor import checks_docker, checks_gpu, checks_host

CHECKS = {**checks_host.CHECKS, **checks_gpu.CHECKS, **checks_docker.CHECKS}
