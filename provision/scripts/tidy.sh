# shellcheck disable=SC2034
# Removes mlhost's own state from a host.

tidy() { # KEEP-BACKUPS(yes|no) PATH...: the state folder first
    LC_ALL=C PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    export LC_ALL PATH
    tidy_keep=$1 STATE=$2
    shift
    if [ -L "$STATE" ]; then
        printf '%s is a symbolic link; it must be a directory of root\n' "$STATE" >&2
        return 1
    fi
    # nobody starts a run between the look and the removal
    RUN=tidy OWNER=uninstall
    if [ -d "$STATE" ]; then
        tidy_rc=0
        guarded lock_take $$ || tidy_rc=$?
        if [ "$tidy_rc" != 0 ]; then
            printf 'a run of mlhost is under way here: %s\n' "$(tr '\n' ' ' <"$STATE/lock")" >&2
            return 73
        fi
    fi
    tidy_rc=0
    for tidy_path in "$@"; do
        if [ "$tidy_path" = /etc/systemd/system/mlhost-continue.service ] && [ -e "$tidy_path" ]; then systemctl disable -q mlhost-continue.service; fi
        case $tidy_path in
            "$STATE") ;;
            # what somebody has put there is not ours
            /etc/mlhost | /usr/local/lib/mlhost) rmdir "$tidy_path" 2>/dev/null ;;
            *) rm -rf "$tidy_path" || tidy_rc=1 ;;
        esac
    done
    if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
    if [ -d "$STATE" ]; then
        # the lock goes last
        tidy_kept='lock*'
        [ "$tidy_keep" = no ] || tidy_kept=backup
        find "$STATE" -mindepth 1 -maxdepth 1 ! -name 'lock*' ! -name "$tidy_kept" -exec rm -rf {} + || tidy_rc=1
        rm -f "$STATE/lock" "$STATE/lock.guard"
        rmdir "$STATE" 2>/dev/null || [ "$tidy_keep" = yes ] || tidy_rc=1
    fi
    return "$tidy_rc"
}
