"""Test doubles of the NVIDIA container toolkit: its names, versions, commands and units, with no NVIDIA code."""

from __future__ import annotations

from tests.lab.debs import DOUBLE, Deb

TOOLKIT = ("1.18.2", "1.19.1", "1.20.0")

# Answers as the real one: github.com/NVIDIA/nvidia-container-toolkit, cmd/nvidia-ctk.
CTK = """#!/bin/sh
# {double}
spec=/var/run/cdi/nvidia.yaml
generate() {{
    out=
    while [ $# -gt 0 ]; do
        case "$1" in
        --output=*) out=${{1#*=}} ;;
        --output) shift; out=$1 ;;
        --*) : ;;
        esac
        shift
    done
    list=$(nvidia-smi -L) || {{
        echo 'time="now" level=error msg="failed to generate CDI spec: failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND"' >&2
        exit 1
    }}
    if [ -n "$out" ]; then
        mkdir -p "$(dirname "$out")"
        devices "$list" > "$out.new" && mv "$out.new" "$out"
    else
        devices "$list"
    fi
}}
devices() {{
    echo '# {double}'
    printf 'cdiVersion: "0.5.0"\\nkind: nvidia.com/gpu\\ndevices:\\n'
    printf '%s\\n' "$1" | while read -r _ index rest; do
        uuid=${{rest##*UUID: }}
        for name in "${{index%:}}" "${{uuid%)}}"; do
            printf '  - name: "%s"\\n    containerEdits:\\n      env: ["MLHOST_TEST_DOUBLE=%s"]\\n' "$name" "$name"
        done
    done
    printf '  - name: all\\n    containerEdits:\\n      env: ["MLHOST_TEST_DOUBLE=all"]\\n'
    printf 'containerEdits:\\n  env: ["NVIDIA_VISIBLE_DEVICES=void"]\\n  mounts:\\n'
    printf '    - hostPath: /usr/bin/nvidia-smi\\n      containerPath: /usr/bin/nvidia-smi\\n'
    printf '      options: [ro, nosuid, nodev, bind]\\n'
    for node in /dev/nvidiactl /dev/nvidia-uvm /dev/nvidia[0-9]*; do
        [ -c "$node" ] || continue
        [ "$node" != /dev/nvidiactl ] || printf '  deviceNodes:\\n'
        printf '    - path: %s\\n' "$node"
    done
}}
nodes() {{ # character device 1:11, which is no GPU and which no container may open unless it is told so
    for node in nvidiactl nvidia-uvm $(nvidia-smi -L | sed -n 's/^GPU \\([0-9]*\\):.*/nvidia\\1/p'); do
        [ -e "/dev/$node" ] || mknod -m 666 "/dev/$node" c 1 11 || exit 1
    done
}}
listing() {{
    names=$(sed -n 's/^  - name: *"*\\([^"]*\\)"*$/nvidia.com\\/gpu=\\1/p' /etc/cdi/nvidia.yaml "$spec" 2>/dev/null)
    count=$(printf '%s' "$names" | grep -c . || :)
    echo "time=\\"now\\" level=info msg=\\"Found $count CDI devices\\"" >&2
    [ -z "$names" ] || printf '%s\\n' "$names"
}}
configure() {{
    config=/etc/docker/daemon.json
    for word in "$@"; do
        case "$word" in --config=*) config=${{word#*=}} ;; esac
    done
    if [ -s "$config" ]; then
        echo "nvidia-ctk: this test double merges nothing into an existing $config" >&2
        exit 1
    fi
    mkdir -p "$(dirname "$config")"
    printf '%s\\n' '{{' '    "runtimes": {{' '        "nvidia": {{' '            "args": [],' \\
        '            "path": "nvidia-container-runtime"' '        }}' '    }}' '}}' > "$config"
    echo 'time="now" level=info msg="It is recommended that docker daemon be restarted."' >&2
}}
case "$1 $2" in
"--version "*|"-v "*) printf 'NVIDIA Container Toolkit CLI version {version}\\ncommit: 0000000 (test double)\\n' ;;
"cdi generate") shift 2; generate "$@" ;;
"cdi list") listing ;;
"system create-device-nodes") nodes ;;
"system create-dev-char-symlinks") : ;;
"runtime configure") shift 2; configure "$@" ;;
"config "*|"--quiet config") : ;;
*) echo "nvidia-ctk: the test double does not know: $*" >&2; exit 1 ;;
esac
"""
# Mounts nvidia-smi where the real one injects a driver, and leaves the rest to runc.
RUNTIME = """#!/bin/sh
# {double}
case "${{1-}}" in
--version|-v) echo 'NVIDIA Container Runtime version {version} (test double)' ;;
esac
bundle=.
create=
before=
for word in "$@"; do
    case "$word" in create|run) create=yes ;; esac
    case "$before" in --bundle|-b) bundle=$word ;; esac
    case "$word" in --bundle=*) bundle=${{word#*=}} ;; esac
    before=$word
done
if [ -n "$create" ] && [ -x /usr/bin/nvidia-smi ] && [ -f "$bundle/config.json" ] &&
    grep -q '"NVIDIA_VISIBLE_DEVICES=[^"]' "$bundle/config.json" &&
    ! grep -q '"NVIDIA_VISIBLE_DEVICES=void"\\|"NVIDIA_VISIBLE_DEVICES=none"\\|"destination":"/usr/bin/nvidia-smi"' "$bundle/config.json"; then
    mount='{{"destination":"/usr/bin/nvidia-smi","type":"bind","source":"/usr/bin/nvidia-smi","options":["rbind","ro","nosuid","nodev"]}}'
    sed "s|\\"mounts\\":\\[|&$mount,|" "$bundle/config.json" > "$bundle/config.json.new"
    cat "$bundle/config.json.new" > "$bundle/config.json"
    rm -f "$bundle/config.json.new"
fi
exec runc "$@"
"""
# What `docker run --gpus` calls before a container starts, while its mount namespace still shows the host.
HOOK = """#!/bin/sh
# {double}
[ "${{1-}}" = prestart ] || exit 0
state=$(cat)
pid=$(printf '%s' "$state" | sed 's/.*"pid":\\([0-9]*\\).*/\\1/')
bundle=$(printf '%s' "$state" | sed 's/.*"bundle":"\\([^"]*\\)".*/\\1/')
root=$(sed 's/.*"root":{{"path":"\\([^"]*\\)".*/\\1/' "$bundle/config.json")
case "$root" in /*) : ;; *) root=$bundle/$root ;; esac
exec nsenter --mount="/proc/$pid/ns/mnt" sh -c '
    mkdir -p "$1/usr/bin"
    [ -e "$1/usr/bin/nvidia-smi" ] || : > "$1/usr/bin/nvidia-smi"
    mount --bind /usr/bin/nvidia-smi "$1/usr/bin/nvidia-smi"' sh "$root"
"""
REFRESH_SERVICE = """# {double}
[Unit]
Description=test double: refresh NVIDIA CDI specification file
ConditionPathExists=|/usr/bin/nvidia-smi
ConditionPathExists=|/usr/sbin/nvidia-smi
[Service]
Type=oneshot
ExecCondition=/usr/bin/nvidia-smi -L
ExecStart=/usr/bin/nvidia-ctk cdi generate --output=/var/run/cdi/nvidia.yaml
[Install]
WantedBy=multi-user.target
"""
REFRESH_PATH = """# {double}
[Unit]
Description=test double: watch for changes of the NVIDIA driver
[Path]
PathChanged=/lib/modules/%v/modules.dep
PathChanged=/usr/bin/nvidia-ctk
[Install]
WantedBy=multi-user.target
"""
ENABLE = """if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable --now nvidia-cdi-refresh.path
    systemctl enable nvidia-cdi-refresh.service
    systemctl start nvidia-cdi-refresh.service || :
fi"""
CONFIG = """# {double}
#accept-nvidia-visible-devices-envvar-when-unprivileged = true
[nvidia-container-cli]
#no-cgroups = false
[nvidia-container-runtime]
mode = "auto"
runtimes = ["runc", "crun"]
"""
CLI = """#!/bin/sh
# {double}
case "${{1-}}" in
-V|--version) printf 'cli-version: {version}\\nlib-version: {version}\\n(test double)\\n' ;;
*) echo "nvidia-container-cli: this is a test double" >&2; exit 1 ;;
esac
"""


def toolkit_debs() -> list[Deb]:
    """Return the four packages in all versions; since 1.18 each depends on the others at exactly its own version."""
    debs: list[Deb] = []
    for number in TOOLKIT:
        version = f"{number}-1"
        texts = {"double": DOUBLE, "version": number}
        equal = f"(= {version})"
        base = {
            "usr/bin/nvidia-ctk": CTK.format(**texts),
            "usr/bin/nvidia-cdi-hook": CLI.format(**texts).replace("nvidia-container-cli", "nvidia-cdi-hook"),
            "usr/bin/nvidia-container-runtime": RUNTIME.format(**texts),
            "etc/nvidia-container-runtime/config.toml": CONFIG.format(**texts),
            "usr/lib/systemd/system/nvidia-cdi-refresh.service": REFRESH_SERVICE.format(**texts),
            "usr/lib/systemd/system/nvidia-cdi-refresh.path": REFRESH_PATH.format(**texts),
        }
        debs += [
            Deb("libnvidia-container1", version),
            Deb(
                "libnvidia-container-tools",
                version,
                depends=f"libnvidia-container1 {equal}",
                files={"usr/bin/nvidia-container-cli": CLI.format(**texts)},
            ),
            Deb(
                "nvidia-container-toolkit-base",
                version,
                files=base,
                postinst=ENABLE,
                conffiles="/etc/nvidia-container-runtime/config.toml\n",
            ),
            Deb(
                "nvidia-container-toolkit",
                version,
                depends=f"nvidia-container-toolkit-base {equal}, libnvidia-container-tools {equal}",
                files={"usr/bin/nvidia-container-runtime-hook": HOOK.format(**texts)},
            ),
        ]
    return debs
