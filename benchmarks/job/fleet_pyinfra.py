"""The job in pyinfra on hosts without systemd: seven resources that are as wanted already. Values come from the environment (BENCH_*)."""

# pyinfra imports this file itself; it is no part of the package.
import os

from pyinfra import host
from pyinfra.facts.server import Command
from pyinfra.operations import apt, files, server

apt.packages(name="packages", packages=["docker-ce"], present=True)
files.put(name="file content", src=os.environ["BENCH_FILE"], dest="/etc/docker/README", mode="644")
files.directory(name="directory", path="/etc/docker", mode="755")
# Asked directly: pyinfra's own way runs the status command of every init script there is.
assert not host.get_fact(Command, command="/etc/init.d/docker status; echo $?").strip("0\n ")
server.user(name="user in group", user="admin", groups=["docker"], append=True)
files.line(name="line in file", path="/etc/environment", line="BENCH=1")
assert host.get_fact(Command, command="docker version --format '{{.Server.Version}}'")
