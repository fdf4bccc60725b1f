# Who else is at work on this machine's packages, and waiting for them.

WAITED=0

quoted_for_grep() { printf '%s' "$1" | sed 's/[.+]/\\&/g'; } # a package's name as a pattern

cloud_init_busy() { # true while cloud-init is still setting this machine up and is not who started this script
    [ -e "$ROOT/run/cloud-init/status.json" ] && [ ! -e "$ROOT/run/cloud-init/result.json" ] || return 1
    [ ! -e "$ROOT/etc/cloud/cloud-init.disabled" ] && [ ! -e "$ROOT/run/cloud-init/disabled" ] || return 1
    [ -z "${MLHOST_IN_CLOUD_INIT:-}" ] || return 1
    cloud_init_pid=$$
    while [ "${cloud_init_pid:-0}" -gt 1 ]; do
        case $(tr '\0' ' ' <"/proc/$cloud_init_pid/cmdline" 2>/dev/null) in *cloud-init* | */var/lib/cloud/instance*) return 1 ;; esac
        cloud_init_pid=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$cloud_init_pid/status" 2>/dev/null)
    done
}

lock_holder() { # FILE: "NAME (PID)" of the process that holds a lock on it; fails if nobody does
    lock_holder_inode=$(stat -c %i "$1" 2>/dev/null) || return 1
    lock_holder_pids=$(sed -n "s/^[0-9]*: [A-Z]* *[A-Z]* *WRITE *\\([0-9][0-9]*\\) [0-9a-f]*:[0-9a-f]*:$lock_holder_inode .*/\\1/p" \
        "${MLHOST_PROC_LOCKS:-/proc/locks}" 2>/dev/null)
    for lock_holder_pid in $lock_holder_pids; do
        # an inode number alone may be a file of another file system
        for lock_holder_fd in "/proc/$lock_holder_pid/fd"/*; do
            [ "$(readlink "$lock_holder_fd" 2>/dev/null)" = "$1" ] || continue
            # a process without a name has ended since, and its lock with it
            lock_holder_name=$(cat "/proc/$lock_holder_pid/comm" 2>/dev/null) || break
            printf '%s (%s)' "$lock_holder_name" "$lock_holder_pid"
            return 0
        done
    done
    return 1
}

wait_for_others() { # WHO: until that function finds nobody at work, at most LOCK_WAIT seconds in all; nobody is ever killed
    others_told=''
    while others_now=$("$1"); do
        if [ "$others_now" != "$others_told" ]; then
            event wait "$ITEM" "$others_now"
            others_told=$others_now
        fi
        if [ "$WAITED" -ge "$LOCK_WAIT" ]; then
            case $others_now in cloud-init*)
                note "cloud-init was not done after $LOCK_WAIT s; going on without it"
                MLHOST_IN_CLOUD_INIT=1
                continue
                ;;
            esac
            why "waited $LOCK_WAIT s for other package work: $others_now"
            return 1
        fi
        WAITED=$((WAITED + 1))
        pause
    done
}
