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

FETCH_WAIT=${MLHOST_FETCH_WAIT:-900}

in_time() { # COMMAND...: it fetches indexes and changes nothing else. A mirror that sends a byte now and then would keep apt and zypper for ever
    in_time_rc=0
    # in this process group, so that whoever ends the script ends the command
    if timeout --foreground 9 true 2>/dev/null; then
        timeout --foreground -k 10 "$FETCH_WAIT" "$@" || in_time_rc=$?
    else
        "$@" || in_time_rc=$?
    fi
    case $in_time_rc in 124 | 137) printf 'E: not all of it came within %s s\n' "$FETCH_WAIT" ;; esac
    return "$in_time_rc"
}

# ---- what package work changes, written down even if it is cut off half way

packages_begin() { # before a transaction: what is there. It is kept until the receipts are written, be it by another run
    [ "$RECEIPTS" != /dev/null ] || return 0
    packages_settle
    rm -rf "$STATE/pending.new"
    (umask 077 && mkdir "$STATE/pending.new") && packages_everything >"$STATE/pending.new/packages"
    accounts_now >"$STATE/pending.new/accounts"
    # a program may make its directory only when it runs
    for packages_dir in /etc/cni /etc/cni/net.d /etc/cdi /etc/docker /etc/containerd /opt/cni /opt/containerd /opt/containerd/bin /opt/containerd/lib; do
        [ -d "$ROOT$packages_dir" ] || printf '%s\n' "$packages_dir"
    done >"$STATE/pending.new/no-directory"
    printf '%s\n' "$RUN" >"$STATE/pending.new/run"
    for packages_file in packages accounts no-directory run; do durable "$STATE/pending.new/$packages_file"; done
    mv "$STATE/pending.new" "$STATE/pending"
}

packages_settle() { # write down what has changed since packages_begin
    [ -d "$STATE/pending" ] || return 0
    pending_lines >"$WORK/pending.lines"
    (umask 077 && cat "$WORK/pending.lines" >>"$RECEIPTS")
    durable "$RECEIPTS"
    rm -rf "$STATE/pending"
}

pending_lines() { # the receipts of package work that has begun and is not written down yet
    [ -s "$STATE/pending/run" ] || return 0
    IFS= read -r pending_run <"$STATE/pending/run"
    packages_everything >"$WORK/pending.packages"
    awk -v run="$pending_run" '
        function there() { return $3 != "config-files" && $3 != "not-installed" }
        FILENAME == ARGV[1] { if (there()) { old[$1] = $2; had[$1 " " $2] = 1 } else settings[$1] = "\tsettings"; next }
        there() { now[$1] = 1; if (!(($1 " " $2) in had)) print run "\tpackage\t" $1 "\t" $2 "\t" old[$1] settings[$1] }
        END { for (name in old) if (!(name in now)) print run "\tremoved\t" name "\t" old[name] }' "$STATE/pending/packages" "$WORK/pending.packages"
    accounts_now | grep -Fvx -f "$STATE/pending/accounts" | while read -r pending_kind pending_name; do
        printf '%s\tmade-%s\t%s\n' "$pending_run" "$pending_kind" "$pending_name"
    done
    while IFS= read -r pending_dir; do printf '%s\tdirectory\t%s\n' "$pending_run" "$pending_dir"; done <"$STATE/pending/no-directory"
}

accounts_now() { # one line for each group and each user of this machine's own files
    for accounts_kind in group passwd; do
        sed -n "s/^\([^:+-][^:]*\):.*/$accounts_kind \1/p" "$ROOT/etc/$accounts_kind" 2>/dev/null
    done | sort
}
