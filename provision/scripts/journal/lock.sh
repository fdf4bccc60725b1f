# One run at a time on a host: $STATE/lock names the run, its process and the boot it belongs to.

boot_id() { cat /proc/sys/kernel/random/boot_id 2>/dev/null; }

started_at() { # PID: when the process started, in the kernel's ticks, in STARTED_AT; a pid alone may be somebody else's by now
    STARTED_AT=''
    { IFS= read -r started_at_line <"/proc/$1/stat"; } 2>/dev/null || return 1
    # the second field may hold blanks and brackets
    # shellcheck disable=SC2086
    set -- ${started_at_line##*) }
    STARTED_AT=${20:-}
}

value_of() { # KEY FILE
    sed -n "s/^$1=//p" "$2" 2>/dev/null | head -n 1
}

# FILE with pid=, start= and boot= lines: is that process still the same one? It is asked several times a second, so it starts no program.
alive() {
    alive_pid='' alive_start='' alive_boot='' alive_now=''
    [ -f "$1" ] || return 1
    {
        while IFS='=' read -r alive_key alive_value; do
            case $alive_key in
                pid) alive_pid=$alive_value ;;
                start) alive_start=$alive_value ;;
                boot) alive_boot=$alive_value ;;
            esac
        done <"$1"
        IFS= read -r alive_now </proc/sys/kernel/random/boot_id
    } 2>/dev/null
    [ -n "$alive_pid" ] && [ -n "$alive_start" ] && [ "$alive_boot" = "$alive_now" ] && started_at "$alive_pid" && [ "$STARTED_AT" = "$alive_start" ]
}

working() { # DIRECTORY of a run: its runner is there, or at least the script that it started
    alive "$1/runner" || alive "$1/script"
}

lock_live() {
    alive "$STATE/lock" && return 0
    lock_live_run=$(value_of run "$STATE/lock")
    [ -n "$lock_live_run" ] && alive "$STATE/runs/$lock_live_run/script"
}

write_owner() { # PID FILE: who holds the lock, for people and for `alive`
    started_at "$1"
    printf '%s\n' "run=$RUN" "pid=$1" "start=$STARTED_AT" "boot=$(boot_id)" "owner=$OWNER" "since=$(date -u +%Y-%m-%dT%H:%M:%SZ)" "host=$(uname -n)" >"$2"
}

guarded() { # COMMAND...: nobody else of us is between reading and replacing the lock
    if command -v flock >/dev/null 2>&1; then
        (
            flock -w 30 9 || exit 1
            "$@"
        ) 9>"$STATE/lock.guard"
    else
        "$@"
    fi
}

lock_take() { # PID: 0 taken, 73 somebody else has it
    lock_temp=$STATE/lock.$RUN.$1
    write_owner "$1" "$lock_temp" || return 1
    lock_tries=3
    while [ "$lock_tries" -gt 0 ]; do
        lock_tries=$((lock_tries - 1))
        if ln "$lock_temp" "$STATE/lock" 2>/dev/null; then
            rm -f "$lock_temp"
            return 0
        fi
        if lock_live; then break; fi
        # stale: take it out of the way, and give it back if it was another one by then
        lock_old=$STATE/lock.old.$1
        cp "$STATE/lock" "$lock_old.seen" 2>/dev/null || continue
        mv "$STATE/lock" "$lock_old" 2>/dev/null || continue
        [ "$(cat "$lock_old")" = "$(cat "$lock_old.seen")" ] || ln "$lock_old" "$STATE/lock" 2>/dev/null
        rm -f "$lock_old" "$lock_old.seen"
    done
    rm -f "$lock_temp"
    [ -e "$STATE/lock" ] && return 73
    return 1
}

lock_pass() { # PID: our run's lock now belongs to this process
    [ "$(value_of run "$STATE/lock")" = "$RUN" ] || return 1
    write_owner "$1" "$STATE/lock.$RUN.$1" && mv -f "$STATE/lock.$RUN.$1" "$STATE/lock"
}

lock_drop() {
    if [ "$(value_of run "$STATE/lock")" = "$RUN" ]; then rm -f "$STATE/lock"; fi
}
