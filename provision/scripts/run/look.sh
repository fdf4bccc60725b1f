# What `mlhost run` must know of a machine: the caller, Docker, the GPUs, the image. Read-only; sections as the probe's.
#   sh -s -- MARK IMAGE
run_look() {
    mark=$1 image=$2
    dir=$(mktemp -d "${TMPDIR:-/tmp}/mlhost-run.XXXXXX") || return 1
    trap 'rm -rf "$dir"' EXIT
    # side by side: each of them is a process that mostly waits
    ask() { # NAME COMMAND...
        name=$1
        shift
        if command -v "$1" >/dev/null 2>&1; then
            { "$@" </dev/null >"$dir/$name" 2>"$dir/$name.err"; echo $? >"$dir/$name.rc"; } &
        else
            echo 127 >"$dir/$name.rc"
        fi
    }
    ask info docker info --format '{{json .}}'
    ask image docker image inspect --format '{{json .}}' -- "$image"
    ask smi nvidia-smi -L
    frame() { printf '@@%s %s %s\n' "$mark" "$1" "$2"; }
    frame probe 0
    echo
    frame who 0
    who
    echo
    frame driver 0
    cat /proc/driver/nvidia/version 2>/dev/null
    echo
    frame hook 0
    if command -v nvidia-container-runtime-hook >/dev/null 2>&1; then echo yes; fi
    echo
    frame cdi 0
    for spec in /etc/cdi/* /var/run/cdi/*; do
        if [ -r "$spec" ] && grep -q 'nvidia.com/gpu' "$spec" 2>/dev/null; then cat "$spec"; echo; fi
    done
    echo
    if [ -d /sys/bus/pci/devices ]; then
        frame pci 0
        gpus=0
        for device in /sys/bus/pci/devices/*; do
            if IFS= read -r vendor 2>/dev/null <"$device/vendor" && [ "$vendor" = 0x10de ] && IFS= read -r class <"$device/class"; then
                case $class in 0x03*) gpus=$((gpus + 1)) ;; esac
            fi
        done
        printf '%s\n\n' "$gpus"
    fi
    wait
    for name in info image smi; do
        read -r rc <"$dir/$name.rc"
        frame "$name" "$rc"
        if [ -s "$dir/$name" ]; then cat "$dir/$name"; fi
        if [ "$rc" != 0 ] && [ -s "$dir/$name.err" ]; then cat "$dir/$name.err"; fi
        echo
    done
    frame end 0
}

who() { # behind sudo, the caller is who called sudo: outputs are to be theirs
    user=$(id -un 2>/dev/null) uid=$(id -u) gid=$(id -g) groups=$(id -G) home=${HOME:-/}
    cache=${XDG_CACHE_HOME:-$home/.cache}
    case ${SUDO_UID:-}:${SUDO_GID:-} in
        *[!0-9:]* | :*) : ;;
        *)
            if [ "$uid" = 0 ] && [ "$SUDO_UID" != 0 ] && [ -n "${SUDO_USER:-}" ]; then
                user=$SUDO_USER uid=$SUDO_UID gid=$SUDO_GID groups=$(id -G -- "$SUDO_USER" 2>/dev/null)
                home=$(getent passwd "$SUDO_USER" 2>/dev/null | cut -d : -f 6)
                home=${home:-/} cache=${home%/}/.cache
            fi ;;
    esac
    printf 'system=%s\narch=%s\nuser=%s\nuid=%s\ngid=%s\ngroups=%s\nhome=%s\ncache=%s\n' \
        "$(uname -s)" "$(uname -m)" "$user" "$uid" "$gid" "$groups" "$home" "${cache%/}/mlhost/run"
}

run_look "$@"
