# systemd units, and Docker put back on its feet if it does not come up with its new settings.

unit_show() { # NAME PROPERTY
    systemctl show -p "$2" "$1" 2>/dev/null | sed -n "s/^$2=//p"
}

service_absent() { # NAME
    if has_systemd; then
        case $(unit_show "$1" LoadState) in not-found | '') return 0 ;; *) return 1 ;; esac
    fi
    [ ! -x "$ROOT/etc/init.d/${1%.service}" ]
}

service_active() { # NAME
    if has_systemd; then systemctl is-active -q "$1"; else service "${1%.service}" status >/dev/null 2>&1; fi
}

service_enabled() { # NAME; without systemd there is nothing to ask
    ! has_systemd || systemctl is-enabled -q "$1" 2>/dev/null
}

service_loaded() { printf '%s' "$ROOT/run/mlhost/${1%.service}.loaded"; }

# NAME ENABLED(yes|no|-) RUNNING(yes|no|-) OPTIONAL(yes|no)
service_is() {
    if service_absent "$1"; then
        [ "$4" = yes ] && return 0
        why "there is no service $1"
        return 1
    fi
    case $2 in
        yes) service_enabled "$1" || return 1 ;;
        no) ! has_systemd || ! systemctl is-enabled -q "$1" 2>/dev/null || return 1 ;;
    esac
    case $3 in
        yes) service_active "$1" || return 1 ;;
        no) ! service_active "$1" || return 1 ;;
    esac
}

# NAME FILE... -- STAMP...: true unless a file is newer than all of the service's stamps (its start, its last reload).
# What this run has started or reloaded itself is fresh, whatever the clock says.
service_fresh() {
    [ ! -e "$WORK/acted.$1" ] || return 0
    service_fresh_own=/run/mlhost/${1%.service}.loaded
    service_fresh_list=files
    shift
    # by change time: dpkg gives files the time of their build. busybox knows only the other
    service_fresh_test=-cnewer
    find / -prune -cnewer / >/dev/null 2>&1 || service_fresh_test=-newer
    : >"$WORK/newer"
    for service_fresh_word in "$@" "$service_fresh_own"; do
        if [ "$service_fresh_word" = -- ]; then
            service_fresh_list=stamps
        elif [ ! -e "$ROOT$service_fresh_word" ]; then
            continue
        elif [ "$service_fresh_list" = files ]; then
            printf '%s\n' "$ROOT$service_fresh_word" >>"$WORK/newer"
        else
            mv "$WORK/newer" "$WORK/newer.before"
            while IFS= read -r service_fresh_file; do
                find "$service_fresh_file" -prune "$service_fresh_test" "$ROOT$service_fresh_word"
            done <"$WORK/newer.before" >"$WORK/newer"
        fi
    done
    [ ! -s "$WORK/newer" ]
}

service_says() { bounded 20 sh -c "$1" >/dev/null 2>&1; } # PROBE: it answers now

service_answers() { # NAME PROBE: within a minute
    [ -n "$2" ] || return 0
    service_answers_left=${MLHOST_PATIENCE:-60}
    until bounded 20 sh -c "$2" >"$WORK/probe" 2>&1; do
        if has_systemd && [ "$(unit_show "$1" ActiveState)" = failed ]; then return 1; fi
        service_answers_left=$((service_answers_left - 1))
        [ "$service_answers_left" -gt 0 ] || return 1
        pause
    done
}

service_do() { # VERB NAME
    if has_systemd; then
        systemctl reset-failed "$2" 2>/dev/null
        systemctl "$1" "$2"
    else
        case $1 in enable | disable) return 0 ;; esac
        service "${2%.service}" "$1"
    fi
}

service_last_words() { # NAME: into the log, and the most telling line on its own
    has_systemd && command -v journalctl >/dev/null 2>&1 || return 0
    journalctl -u "$1" -n 40 --no-pager -o cat >"$WORK/journal" 2>/dev/null
    cat "$WORK/journal" >&2
    {
        grep -Ei 'failed to start daemon|unable to configure|error|fatal' "$WORK/journal" | tail -n 1
        tail -n 1 "$WORK/journal"
    } | head -n 1
}

service_put_back() { # FILE: its newest backup takes its place again
    service_backup=$STATE/backup/$RUN$1
    if [ ! -e "$service_backup" ] && [ ! -e "$service_backup.mlhost-absent" ]; then
        service_backup=$(find "$STATE/backup" \( -path "*$1" -o -path "*$1.mlhost-absent" \) -exec ls -1td {} + 2>/dev/null | head -n 1)
        service_backup=${service_backup%.mlhost-absent}
    fi
    if [ -e "$service_backup" ]; then
        service_target=$(real "$ROOT$1")
        cp -p "$service_backup" "$service_target.mlhost" && durable "$service_target.mlhost" && mv -f "$service_target.mlhost" "$service_target" && relabel "$service_target"
    elif [ -n "$service_backup" ] && [ -e "$service_backup.mlhost-absent" ]; then
        rm -f "$ROOT$1"
    else
        return 1
    fi
    receipt put-back "$1"
}

# NAME ENABLED RUNNING OPTIONAL ACT(start|restart|reload) RESTORE PROBE
service_change() {
    if service_absent "$1"; then
        [ "$4" = yes ] && return 0
        why "there is no service $1"
        return 1
    fi
    case $2 in
        yes)
            if ! service_enabled "$1"; then
                intend enabled "$1" || return 1
                service_do enable "$1" || { why "cannot enable $1"; return 1; }
                receipt enabled "$1"
            fi
            ;;
        no)
            intend disabled "$1" || return 1
            service_do disable "$1" || { why "cannot disable $1"; return 1; }
            receipt disabled "$1"
            ;;
    esac
    service_verb=$5
    if [ "$3" = no ]; then
        service_verb=stop
    elif ! service_active "$1"; then
        if [ "$3" = - ]; then return 0; fi
        service_verb=start
    fi
    intend service "$1" "$service_verb" || return 1
    if service_do "$service_verb" "$1" && service_answers "$1" "$7"; then
        mkdir -p "$ROOT/run/mlhost" && touch "$(service_loaded "$1")" "$WORK/acted.$1"
        receipt "service" "$1" "$service_verb"
        return 0
    fi
    cat "$WORK/probe" 2>/dev/null
    service_words=$(service_last_words "$1")
    if [ -n "$6" ] && service_put_back "$6"; then
        if service_do restart "$1" && service_answers "$1" "$7"; then
            mkdir -p "$ROOT/run/mlhost" && touch "$(service_loaded "$1")"
            why "$1 did not come up with the new $6; the old one is back and $1 runs again${service_words:+: $service_words}"
        else
            why "$1 did not come up with the new $6, nor with the old one, which is back${service_words:+: $service_words}"
        fi
        return 1
    fi
    why "$1 cannot be brought to $service_verb${service_words:+: $service_words}"
}
