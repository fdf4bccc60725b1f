"""Test doubles of Docker's packages for hosts without systemd: an init script, a daemon that reads its settings and tells of itself,
a client.

There is no engine: `docker run` runs the command on the host. For tests that kill a set-up hundreds of times, where a real engine costs minutes.
"""

from __future__ import annotations

from tests.lab.debs import DOUBLE, Deb
from tests.lab.doubles_docker import BUILDX, COMPOSE, CONTAINERD, SUITES

VERSION = "29.7.2"
DAEMON = """#!/usr/bin/python3
# {double}
import json, os, socket, sys
if "--version" in sys.argv:
    print("Docker version {version}, build 0000000 (test double)")
    raise SystemExit
if "--help" in sys.argv:
    print("--validate")
    raise SystemExit
path = "/etc/docker/daemon.json"
if "--config-file" in sys.argv:
    path = sys.argv[sys.argv.index("--config-file") + 1]
try:
    json.load(open(path))
except FileNotFoundError:
    pass
except ValueError as error:
    raise SystemExit(f"unable to configure the Docker daemon with file {{path}}: {{error}}")
if "--validate" in sys.argv:
    print("configuration OK")
    raise SystemExit
if os.path.exists("/run/docker.sock"):
    os.unlink("/run/docker.sock")
listener = socket.socket(socket.AF_UNIX)
listener.bind("/run/docker.sock")
os.makedirs("/var/lib/docker", exist_ok=True)
listener.listen(8)
open("/run/docker.pid.new", "w").write(str(os.getpid()))
os.rename("/run/docker.pid.new", "/run/docker.pid")
info = b'{{"ServerVersion": "{version}", "DockerRootDir": "/var/lib/docker", "Runtimes": {{"runc": {{}}, "nvidia": {{}}}}}}'
while True:
    client, _ = listener.accept()
    client.settimeout(10)
    try:
        found = client.recv(65536).startswith(b"GET /info ")
        client.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\n" + info if found else b"HTTP/1.0 404 Not Found\\r\\n\\r\\n")
    except OSError:
        pass
    client.close()
"""
INIT = """#!/bin/sh
# {double}
runs() {{ [ -s /run/docker.pid ] && kill -0 "$(cat /run/docker.pid)" 2>/dev/null; }}
stop() {{ if runs; then kill -KILL "$(cat /run/docker.pid)"; fi; rm -f /run/docker.pid /run/docker.sock; }}
start() {{
    runs && exit 0
    setsid /usr/bin/dockerd </dev/null >/dev/null 2>&1 &
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do runs && exit 0; sleep 0.1; done
    exit 1
}}
case "$1" in
start) start ;;
stop) stop ;;
restart) stop; start ;;
reload) runs ;;
status) runs ;;
esac
"""
CLIENT = """#!/bin/sh
# {double}
case "$1" in --host|-H) shift 2 ;; esac
images=/var/lib/docker/images
runs() {{
    if [ -s /run/docker.pid ] && kill -0 "$(cat /run/docker.pid)" 2>/dev/null; then return 0; fi
    echo "Cannot connect to the Docker daemon (test double)" >&2
    exit 1
}}
file() {{ printf '%s/%s' "$images" "$(printf '%s' "$1" | tr / _)"; }}
case "$1" in
--version|-v) echo "Docker version {version}, build 0000000 (test double)" ;;
version) runs; echo {version} ;;
info) runs; echo '{{"ServerVersion": "{version}", "DockerRootDir": "/var/lib/docker", "Runtimes": {{"runc": {{}}, "nvidia": {{}}}}}}' ;;
pull|import)
    runs
    mkdir -p "$images"
    for word in "$@"; do last=$word; done
    echo half >"$images/.new" && sleep 0.05 && echo "$last" >"$images/.new" && mv "$images/.new" "$(file "$last")"
    ;;
image)
    runs
    for word in "$@"; do last=$word; done
    case "$2" in
    inspect) [ -f "$(file "$last")" ] || exit 1; echo "sha256:double" ;;
    rm) rm -f "$(file "$last")" ;;
    ls) ls "$images" 2>/dev/null | tr _ / ;;
    esac
    ;;
images) runs; ls "$images" 2>/dev/null | tr _ / ;;
run)
    runs
    shift
    while [ $# -gt 0 ]; do
        case "$1" in
        --name|--gpus|--device|-e) shift 2 ;;
        -*) shift ;;
        *) break ;;
        esac
    done
    [ -f "$(file "$1")" ] || {{ echo "Unable to find image '$1' locally (test double)" >&2; exit 125; }}
    shift
    exec "$@"
    ;;
rm) : ;;
*) echo "docker: the test double does not know: $*" >&2; exit 1 ;;
esac
"""
PLUGIN = "#!/bin/sh\n# {double}\necho '{{\"Version\":\"v{version}\"}}'\n"


def sysv_docker_debs(suite: str) -> list[Deb]:
    """One version of Docker's packages for a suite.."""
    tail = SUITES[suite]
    texts = {"double": DOUBLE, "version": VERSION}
    version = f"5:{VERSION}-1~{tail}"
    return [
        Deb("containerd.io", f"{CONTAINERD[-1]}-1~{tail}", conflicts="containerd, runc", provides="containerd, runc"),
        Deb("docker-buildx-plugin", f"{BUILDX[-1]}-1~{tail}", files={"usr/libexec/docker/cli-plugins/docker-buildx": PLUGIN.format(**texts)}),
        Deb("docker-compose-plugin", f"{COMPOSE[-1]}-1~{tail}", files={"usr/libexec/docker/cli-plugins/docker-compose": PLUGIN.format(**texts)}),
        Deb("docker-ce-cli", version, conflicts="docker.io, docker-cli", files={"usr/bin/docker": CLIENT.format(**texts)}),
        Deb(
            "docker-ce",
            version,
            depends="containerd.io (>= 1.7.27), docker-ce-cli",
            conflicts="docker.io, docker-engine",
            files={"usr/bin/dockerd": DAEMON.format(**texts), "etc/init.d/docker": INIT.format(**texts), "etc/docker/README": f"{DOUBLE}\n"},
            conffiles="/etc/init.d/docker\n",
            postinst="getent group docker >/dev/null || groupadd --system docker\n[ ! -e /run/lab-postinst ] || . /run/lab-postinst",
        ),
    ]
