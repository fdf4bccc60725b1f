# shellcheck disable=SC2034
# Runs one script in a process of its own that no connection can end, and writes down how it went.

runner() { # STATE RUN OWNER
    STATE=$1 RUN=$2 OWNER=$3 DIR=$1/runs/$2
    cd / || exit 1
    umask 077
    trap '' HUP
    # two launches of the same run over a connection that broke may both have got this far
    mkdir "$DIR/claimed" || exit 73
    if ! guarded lock_pass $$; then
        printf '73\n' >"$DIR/result.new" && mv -f "$DIR/result.new" "$DIR/result"
        exit 73
    fi
    write_owner $$ "$DIR/runner.new" && mv -f "$DIR/runner.new" "$DIR/runner"
    # asked to stop (at shutdown): the script ends after the item it is in, half an item is nobody's friend
    trap ': >"$DIR/stop"' TERM INT
    MLHOST_STATE=$STATE MLHOST_RUN=$RUN MLHOST_EVENTS=$DIR/events MLHOST_STOP=$DIR/stop sh "$DIR/script.sh" </dev/null >>"$DIR/log" 2>&1 &
    runner_child=$!
    write_owner "$runner_child" "$DIR/script.new" && mv -f "$DIR/script.new" "$DIR/script"
    limit_log "$runner_child" >/dev/null 2>&1 </dev/null &
    runner_rc=0
    wait "$runner_child" || runner_rc=$?
    while kill -0 "$runner_child" 2>/dev/null; do
        # a signal ended the wait, not the script
        runner_rc=0
        wait "$runner_child" || runner_rc=$?
    done
    printf '%s\n' "$runner_rc" >"$DIR/result.new"
    sync "$DIR/events" "$DIR/log" "$DIR/result.new" 2>/dev/null || sync
    # the lock first: whoever sees the result may start the next stage at once
    guarded lock_drop
    mv -f "$DIR/result.new" "$DIR/result"
}

limit_log() { # PID: while it lives, a log that has grown beyond 20 MB starts again
    while kill -0 "$1" 2>/dev/null; do
        if [ "$(stat -c %s "$DIR/log" 2>/dev/null || echo 0)" -gt "${MLHOST_LOG_LIMIT:-20000000}" ]; then
            printf 'mlhost: the log was over 20 MB; what came before this line is gone\n' >"$DIR/log"
        fi
        sleep 5
    done
}
