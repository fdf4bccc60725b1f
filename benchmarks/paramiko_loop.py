"""What the fleet benchmark holds mlhost to: the least that a program in Python can do on many hosts over SSH. Not part of mlhost.

    python benchmarks/paramiko_loop.py KEY KNOWN_HOSTS THREADS SCRIPT ARGUMENT ADDRESS...

On each address, in a pool of threads: paramiko's own client connects, runs `true` (where SCRIPT is -) or
`sh -s ARGUMENT` with a script, waits, hangs up. Exits with the worst exit code.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko


def main() -> int:
    key_file, known_hosts, threads, script, argument, *addresses = sys.argv[1:]
    key = paramiko.Ed25519Key.from_private_key_file(key_file)
    text = b"" if script == "-" else Path(script).read_bytes()
    known = paramiko.HostKeys(known_hosts)

    def one(address: str) -> int:
        client = paramiko.SSHClient()
        client._host_keys = known  # type: ignore[attr-defined] # read once for all, which is the fastest there is
        client.connect(address, username="root", pkey=key, allow_agent=False, look_for_keys=False)
        try:
            stdin, out, _ = client.exec_command(f"sh -s -- {argument}" if text else "true")
            stdin.write(text)
            stdin.channel.shutdown_write()
            out.read()
            return out.channel.recv_exit_status()
        finally:
            client.close()

    with ThreadPoolExecutor(int(threads)) as pool:
        return max(pool.map(one, addresses))


if __name__ == "__main__":
    raise SystemExit(main())
