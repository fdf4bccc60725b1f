# A JSON file of somebody else, with our keys merged in by the planner.

dockerd_accepts() { # FILE: true also where the engine is too old to say (before 23.0) or absent
    command -v dockerd >/dev/null 2>&1 && dockerd --help 2>&1 | grep -q -e --validate || return 0
    dockerd --validate --config-file "$1" >"$WORK/validate" 2>&1 && return 0
    cat "$WORK/validate"
    return 1
}

json_merge() { # PATH BASE MODE CONTENT: BASE is the sha256 of the file that the merge started from, empty for none
    json_merge_file=$(real "$ROOT$1")
    if [ -e "$json_merge_file" ] && [ ! -f "$json_merge_file" ]; then
        why "$1 is there and is no ordinary file"
        return 1
    fi
    if [ -e "$json_merge_file" ]; then
        if [ "$(sha256 "$json_merge_file")" != "$2" ]; then
            why "$1 has changed since the plan was made; plan again"
            return 1
        fi
        json_merge_mode=$(stat -c %a "$json_merge_file")
        json_merge_owner=$(stat -c %u:%g "$json_merge_file")
    else
        if [ -n "$2" ]; then
            why "$1 has gone since the plan was made; plan again"
            return 1
        fi
        json_merge_mode=$3
        json_merge_owner=0:0
    fi
    printf '%s' "$4" >"$WORK/new.json" || return 1
    if ! dockerd_accepts "$WORK/new.json"; then
        why "dockerd refuses the new $1, which was not written: $(tail -n 1 "$WORK/validate")"
        return 1
    fi
    put "$1" "$json_merge_mode" "$json_merge_owner" "$4" || return 1
    # with it a rollback finds our keys again in a file that somebody has changed since
    cp "$WORK/new.json" "$STATE/backup/$RUN${json_merge_file#"$ROOT"}.mlhost-written"
}
