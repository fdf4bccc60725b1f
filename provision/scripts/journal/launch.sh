# Starts a run that lives on without its connection, unless one is under way.

fail() { # TEXT
    printf 'F\t%s\n' "$1"
    exit 1
}

safe_directory() { # PATH MODE: ours alone to write in
    [ ! -L "$1" ] || fail "$1 is a symbolic link; it must be a directory of root"
    # another launch may be making it at this moment
    [ -d "$1" ] || mkdir "$1" 2>/dev/null || [ -d "$1" ] || fail "cannot make the directory $1; is the disk full or read-only?"
    [ "$(stat -c %u "$1")" = "$(id -u)" ] || fail "$1 belongs to user $(stat -c %u "$1"); it must belong to root"
    chmod "$2" "$1" || fail "cannot set the mode of $1; is the disk read-only?"
}

started_by_cloud_init() { # somewhere above this process
    above=$$
    while [ "${above:-0}" -gt 1 ]; do
        case $(tr '\0' ' ' <"/proc/$above/cmdline" 2>/dev/null) in *cloud-init* | */var/lib/cloud/instance*) return 0 ;; esac
        above=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$above/status" 2>/dev/null)
    done
    return 1
}

detach() { # FILE: run it in a control group or at least in a session of its own
    if started_by_cloud_init; then
        MLHOST_IN_CLOUD_INIT=1
        export MLHOST_IN_CLOUD_INIT
    fi
    if [ -d /run/systemd/system ] && command -v systemd-run >/dev/null 2>&1 && [ -z "${MLHOST_NO_SYSTEMD:-}" ]; then
        systemd-run --unit="mlhost-$RUN" --collect --quiet --description="mlhost run $RUN" --property=KillMode=mixed --property=TimeoutStopSec=180 \
            --setenv=MLHOST_IN_CLOUD_INIT="${MLHOST_IN_CLOUD_INIT:-}" --setenv=MLHOST_ROOT="${MLHOST_ROOT:-}" --setenv=PATH="$PATH" \
            /bin/sh "$1" </dev/null >/dev/null 2>&1 && return 0
    fi
    if command -v setsid >/dev/null 2>&1; then
        setsid sh "$1" </dev/null >/dev/null 2>&1 &
    else
        nohup sh "$1" </dev/null >/dev/null 2>&1 &
    fi
}

prune() { # the last 20 runs stay
    find "$STATE/runs" -mindepth 1 -maxdepth 1 -type d -exec ls -1td {} + 2>/dev/null | tail -n +21 | while IFS= read -r prune_run; do
        if [ "$prune_run" != "$DIR" ]; then rm -rf "$prune_run"; fi
    done
}

locked() { # FOLLOWED: tell who has the lock; follow it if that is the run which the caller knows
    sed -n 's/^\([a-z]*=.*\)/K	\1/p' "$STATE/lock" 2>/dev/null
    locked_run=$(value_of run "$STATE/lock")
    frame "K"
    if [ -n "$1" ] && [ "$locked_run" = "$1" ]; then
        DIR=$STATE/runs/$1
        follow 0 0
    fi
    exit 73
}

launch() { # FOLLOWED: the run that the caller knows of and would rather follow than be refused
    umask 077
    safe_directory "$STATE" 755
    safe_directory "$STATE/runs" 700
    if [ ! -e "$DIR/runner" ] && [ ! -e "$DIR/result" ]; then
        launch_rc=0
        guarded lock_take $$ || launch_rc=$?
        case $launch_rc in
            0) launch_new ;;
            73)
                # the same launch over a connection that has broken since may still be at it
                [ "$(value_of run "$STATE/lock")" = "$RUN" ] || locked "$1"
                ;;
            *) fail "cannot take the lock $STATE/lock; is the disk full or read-only?" ;;
        esac
        launch_left=300
        until [ -e "$DIR/runner" ] || [ -e "$DIR/result" ]; do
            launch_left=$((launch_left - 1))
            if [ "$launch_left" = 0 ]; then
                lock_drop
                fail "the run did not start within 30 s"
            fi
            sleep 0.1 2>/dev/null || sleep 1
        done
    fi
    frame "S	$RUN"
}

launch_new() {
    rm -rf "$DIR.new" "$DIR"
    if ! mkdir "$DIR.new" || ! write_files "$DIR.new" || ! mv "$DIR.new" "$DIR"; then
        rm -rf "$DIR.new"
        lock_drop
        fail "cannot write into $STATE/runs; is the disk full or read-only?"
    fi
    prune
    detach "$DIR/runner.sh"
}
