"""`python3 -m provision`: the command `mlhost` from a checkout; sets up what it needs itself the first time."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the CLI, after `provision.bootstrap` where this Python lacks what it needs."""
    if sys.version_info < (3, 9):  # noqa: UP036 - the one place an older Python gets to
        raise SystemExit(
            f"mlhost needs Python 3.9 or newer to run; this is {sys.version.split()[0]}. Run it from another machine: mlhost setup user@host"
        )
    from provision import bootstrap

    lacking = bootstrap.missing()
    if lacking and not os.environ.get("MLHOST_BOOTSTRAPPED"):
        bootstrap.rerun()
    if lacking:
        raise SystemExit(
            f"mlhost: its own environment lacks {', '.join(lacking)}. Remove {bootstrap.environment()} and try again."
        )
    from provision.cli import entrypoint

    if sys.argv[1:2] == ["--continue-after-reboot"] and len(sys.argv) == 3:
        # Not among the process's own arguments, which everybody can read.
        from provision.errors import Error
        from provision.reboot import take_record

        try:
            sys.argv[1:] = take_record(sys.argv[2])
        except Error as error:
            raise SystemExit(f"mlhost: {error}") from None
    entrypoint()


if __name__ == "__main__":
    main()
