"""The job in pyinfra: seven resources that are as wanted already. Values come from the environment (BENCH_*), as in the other tools."""

# pyinfra imports this file itself; it is no part of the package.
import os

from pyinfra import host
from pyinfra.facts.server import Command
from pyinfra.operations import apt, files, server, systemd

apt.packages(name="packages", packages=["docker.io"], present=True)
files.put(name="file content", src=os.environ["BENCH_FILE"], dest="/etc/docker/daemon.json", mode="644")
files.directory(name="directory", path="/etc/docker", mode="755")
systemd.service(name="service", service="docker.service", running=True, enabled=True)
server.user(name="user in group", user="admin", groups=["docker"], append=True)
files.line(name="line in file", path="/etc/environment", line="BENCH=1")
assert host.get_fact(Command, command="docker version --format '{{.Server.Version}}'")
