# Common to every stage: events, the item loop, files written atomically and put back. No function here calls a package manager or a service.
# Without `local`, variables are prefixed with the function's name, or the function's body is a subshell.

ROOT=${MLHOST_ROOT:-}
STATE=${MLHOST_STATE:-$ROOT/var/lib/mlhost}
RECEIPTS=$STATE/receipts
RC=0 ITEM=- STOPPED='' TOGETHER='' WORK='' WHY=''

now() {
    # busybox's date may know no fraction of a second and then says %N
    now_text=$(date +%s.%N)
    case $now_text in *[!0-9.]* | *.) now_text=${now_text%%.*} ;; esac
    printf '%s' "$now_text"
}

event() { # KIND ITEM [DETAIL]: one line for the journal, or for a person when nobody keeps one
    event_detail=${3:-} event_odd=no
    case $event_detail in *[!\ -~]*) event_odd=yes ;; esac
    if [ "$event_odd" = yes ] || [ "${#event_detail}" -gt 1000 ]; then
        event_detail=$(printf '%s' "$event_detail" | tr '\001-\037\177' ' ' | cut -c1-1000)
    fi
    if [ -n "${MLHOST_EVENTS:-}" ]; then
        printf '%s\t%s\t%s\t%s\n' "$(now)" "$1" "$2" "$event_detail" >>"$MLHOST_EVENTS"
    else
        case $1 in
            start) printf '\n== %s: %s\n' "$2" "$event_detail" ;;
            begin | end) printf -- '-- %s %s\n' "$1" "$event_detail" ;;
            *) printf -- '-> %s %s%s\n' "$1" "$2" "${event_detail:+: $event_detail}" ;;
        esac
    fi
}

note() { event note "$ITEM" "$1"; }

why() { # TEXT: the reason of the failure that is about to be returned
    # the file outlives a subshell, the variable a full disk
    WHY=$1
    { printf '%s\n' "$1" >"$WORK/why"; } 2>/dev/null
    printf 'mlhost: %s: %s\n' "$ITEM" "$1" >&2
    return 1
}

reason() { # the reason given last, or where to look
    if [ -s "$WORK/why" ]; then
        tail -n 1 "$WORK/why"
    elif [ -n "$WHY" ]; then
        printf '%s' "$WHY"
    else
        printf 'a command failed, its last words are in the log'
    fi
}

receipt() { # WORD...: what was changed, for a later rollback
    receipt_line=$RUN
    for receipt_word in "$@"; do receipt_line="$receipt_line	$receipt_word"; done
    (umask 077 && printf '%s\n' "$receipt_line" >>"$RECEIPTS")
}

# A script that is killed, or whose machine loses its power, writes no receipt. So what it is about to do is on the disk before it is done; whoever
# comes next (`begin`, also a rollback's) asks whether it came to it: happened_KIND, in happened.sh.

disk_says() { # DIRECTORY: why nothing can be written there, in the system's own words; nothing if something can
    disk_says_at=$1
    until [ -d "$disk_says_at" ]; do disk_says_at=$(dirname "$disk_says_at"); done
    disk_says_text=$({ head -c 65536 /dev/zero >"$disk_says_at/.mlhost.try"; } 2>&1)
    rm -f "$disk_says_at/.mlhost.try"
    [ -z "$disk_says_text" ] || printf ': %s' "${disk_says_text##*: }"
}

durable() { sync "$1" 2>/dev/null || sync; } # FILE: on the disk itself; old versions of sync know only all files

intend() { # WORD...: what is about to be changed, in the words of its receipt
    intend_line=$1
    shift
    for intend_word in "$@"; do intend_line="$intend_line	$intend_word"; done
    printf '%s\n' "$intend_line" | intend_lines
}

intend_lines() { # the same for many receipts at once, from stdin
    [ "$RECEIPTS" != /dev/null ] || { cat >/dev/null; return 0; }
    if (umask 077 && sed "s/^/$RUN	/" >>"$STATE/intended") && durable "$STATE/intended"; then return 0; fi
    why "cannot write $STATE/intended"
}

half_written() { # what a killed script was about to put in its place goes
    sed -n 's/^[^	]*	file	\([^	]*\)	.*/\1/p' "$STATE/intended" 2>/dev/null | while IFS= read -r half_written_path; do
        rm -f "$(dirname "$(real "$ROOT$half_written_path")")"/.mlhost.*
    done
}

settle() { # what was intended and has happened gets its receipt, if it has none
    [ -s "$STATE/intended" ] || return 0
    intended_lines >"$WORK/intended"
    if [ -s "$WORK/intended" ]; then
        (umask 077 && cat "$WORK/intended" >>"$RECEIPTS")
    fi
    [ ! -f "$RECEIPTS" ] || durable "$RECEIPTS"
    rm -f "$STATE/intended"
}

bounded() { # SECONDS COMMAND...
    if command -v timeout >/dev/null 2>&1; then
        timeout "$@"
    else
        shift
        "$@"
    fi
}

pause() { sleep "${MLHOST_PAUSE:-1}"; }

has_systemd() { [ -d "$ROOT/run/systemd/system" ]; }

sha256() { # FILE: its hash, nothing if there is no such file
    sha256_line=$({ sha256sum <"$1"; } 2>/dev/null) || return 1
    printf '%s' "${sha256_line%% *}"
}

# PATH under the root: the file that writing to it must replace, which for a link is the link's target; but somebody else's link is only a name of
# theirs for any file of root's, and is replaced itself.
real() {
    if [ -L "$1" ] && [ -f "$1" ] && [ "$(stat -c %u "$1")" = "$(id -u)" ]; then readlink -f "$1"; else printf '%s' "$1"; fi
}

has_file() { # PATH SHA256 [MODE] [OWNER]
    [ -f "$ROOT$1" ] && [ "$(sha256 "$ROOT$1")" = "$2" ] || return 1
    has_file_real=$(real "$ROOT$1")
    if [ -n "${3:-}" ]; then
        has_file_mode=$(stat -c %a "$has_file_real")
        [ "0${has_file_mode#0}" = "0${3#0}" ] || return 1
    fi
    if [ -n "${4:-}" ] && [ "$(id -u)" = 0 ]; then
        [ "$(stat -c %U:%G "$has_file_real")" = "$4" ] || [ "$(stat -c %u:%g "$has_file_real")" = "$4" ] || return 1
    fi
}

has_no_file() { # PATH...
    for has_no_path in "$@"; do
        if [ -e "$ROOT$has_no_path" ] || [ -L "$ROOT$has_no_path" ]; then return 1; fi
    done
}

relabel() { # FILE...: the labels that SELinux's own rules give them, where it is on: a copy or a moved file may bring another one along
    if [ ! -e "$ROOT/sys/fs/selinux/enforce" ] || ! command -v restorecon >/dev/null 2>&1; then return 0; fi
    restorecon "$@" || printf 'restorecon failed for %s\n' "$*" >&2
}

keep_file() { # FILE: remember it as it is now, so that put_back can restore it; keep the first state of this run as a backup
    keep_count=$(wc -l <"$WORK/kept")
    keep_copy=$WORK/kept.$((keep_count + 0))
    keep_backup=$STATE/backup/$RUN${1#"$ROOT"}
    keep_state=absent
    if [ -e "$1" ] && [ ! -f "$1" ] && [ ! -L "$1" ]; then
        # a pipe would be waited for as long as nobody writes into it
        why "$1 is there and is no ordinary file"
        return 1
    fi
    if [ -e "$1" ] || [ -L "$1" ]; then
        keep_state=present
        cp -pP "$1" "$keep_copy" || return 1
    fi
    printf '%s\t%s\t%s\n' "$keep_state" "$keep_copy" "$1" >>"$WORK/kept"
    if [ -e "$keep_backup" ] || [ -L "$keep_backup" ] || [ -e "$keep_backup.mlhost-absent" ]; then return 0; fi
    (umask 077 && mkdir -p "$(dirname "$keep_backup")") || return 1
    if [ "$keep_state" = absent ]; then
        : >"$keep_backup.mlhost-absent"
    else
        cp -pP "$1" "$keep_backup.new" && { [ -L "$1" ] || durable "$keep_backup.new"; } && mv -f "$keep_backup.new" "$keep_backup"
    fi
}

keep() { keep_file "$(real "$ROOT$1")"; }

kept_none() { : >"$WORK/kept"; }

put_back() { # everything kept since kept_none is as it was
    # each path's first state is the one to restore, and the lines are read in order: restore the last one first
    put_back_rc=0
    sed '1!G;h;$!d' "$WORK/kept" >"$WORK/kept.reversed"
    while IFS='	' read -r put_back_state put_back_copy put_back_file; do
        if [ "$put_back_state" = absent ]; then
            rm -f "$put_back_file" || put_back_rc=1
        else
            put_back_temp=$(dirname "$put_back_file")/.mlhost.back.$$
            cp -pP "$put_back_copy" "$put_back_temp" && durable "$put_back_temp" && mv -f "$put_back_temp" "$put_back_file" && relabel "$put_back_file" || put_back_rc=1
        fi
    done <"$WORK/kept.reversed"
    kept_none
    return "$put_back_rc"
}

decoded() { # TEXT [base64]
    if [ "${2:-}" = base64 ]; then printf '%s' "$1" | base64 -d; else printf '%s' "$1"; fi
}

make_directory() { # PATH under the root: with what is missing above it, each of them written down
    make_directory_new=''
    make_directory_at=$1
    until [ -d "$make_directory_at" ]; do
        make_directory_new="$make_directory_at
$make_directory_new"
        make_directory_at=$(dirname "$make_directory_at")
    done
    [ -z "$make_directory_new" ] || printf '%s' "$make_directory_new" | sed "s,^$ROOT,directory	," | intend_lines || return 1
    mkdir -p "$1" || return 1
    [ -z "$make_directory_new" ] || printf '%s' "$make_directory_new" | while IFS= read -r make_directory_at; do
        receipt directory "${make_directory_at#"$ROOT"}"
    done
}

put() { # PATH MODE OWNER CONTENT [base64]: the file has this content, at once or not at all
    put_file=$(real "$ROOT$1")
    put_dir=$(dirname "$put_file")
    put_sum=$(decoded "$4" "${5:-}" | sha256sum)
    if ! make_directory "$put_dir" || ! keep "$1" || ! intend file "$1" "${put_sum%% *}" || ! put_temp=$(mktemp "$put_dir/.mlhost.XXXXXX"); then
        [ -n "$(disk_says "$put_dir")" ] || put_dir=$STATE
        if [ ! -s "$WORK/why" ] || [ -n "$(disk_says "$put_dir")" ]; then why "cannot write $1$(disk_says "$put_dir")"; fi
        return 1
    fi
    if decoded "$4" "${5:-}" >"$put_temp" && own "$3" "$put_temp" && chmod "$2" "$put_temp" && durable "$put_temp" && mv -f "$put_temp" "$put_file"; then
        relabel "$put_dir" "$put_file"
        receipt file "$1" "${put_sum%% *}"
        return 0
    fi
    rm -f "$put_temp"
    why "cannot write $1$(disk_says "$put_dir")"
}

undo_keep() { # TEXT: how to take back what this item has done, for a rollback; its owner alone may read it. Nothing: it cannot be
    if [ -z "$1" ]; then
        receipt undo "$ITEM" ''
        return 0
    fi
    undo_keep_name=$(printf '%s' "$ITEM" | sed 's/[^A-Za-z0-9._-]/_/g')
    undo_keep_file=$STATE/backup/$RUN.undo/$undo_keep_name
    (umask 077 && mkdir -p "$STATE/backup/$RUN.undo" && printf '%s' "$1" >"$undo_keep_file") || return 1
    receipt undo "$ITEM" "$undo_keep_name"
}

own() { # OWNER FILE; only root can, and an image is also baked without being root
    [ "$(id -u)" != 0 ] || chown "$1" "$2"
}

aside() { # PATH...: moved into the run's backup
    for aside_path in "$@"; do
        if has_no_file "$aside_path"; then continue; fi
        if ! keep_file "$ROOT$aside_path" || ! intend aside "$aside_path" || ! rm -f "$ROOT$aside_path"; then
            [ -s "$WORK/why" ] || why "cannot move $aside_path aside$(disk_says "$(dirname "$ROOT$aside_path")")"
            return 1
        fi
        receipt aside "$aside_path"
        printf 'moved %s to %s\n' "$aside_path" "$STATE/backup/$RUN$aside_path"
    done
}

process_start() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; } # PID: in the kernel's ticks; a pid alone may be somebody else's by now

by_hand() { # nobody has taken the host's lock for this script, so it does that itself
    by_hand_boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)
    by_hand_temp=$STATE/lock.$RUN.$$
    printf '%s\n' "run=$RUN" "pid=$$" "start=$(process_start $$)" "boot=$by_hand_boot" "owner=$(id -un) (by hand)" "since=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
        "host=$(uname -n)" >"$by_hand_temp" || return 1
    until ln "$by_hand_temp" "$STATE/lock" 2>/dev/null; do
        by_hand_pid=$(sed -n 's/^pid=//p' "$STATE/lock" 2>/dev/null)
        if [ -n "$by_hand_pid" ] && grep -Fxq "boot=$by_hand_boot" "$STATE/lock" && grep -Fxq "start=$(process_start "$by_hand_pid")" "$STATE/lock"; then
            printf 'A run of mlhost is under way here (%s).\nWait for it, or see it with: mlhost status --follow. Then run this again.\n' \
                "$(tr '\n' ' ' <"$STATE/lock")" >&2
            rm -f "$by_hand_temp"
            return 1
        fi
        # whoever held it is gone
        mv "$STATE/lock" "$by_hand_temp.old" 2>/dev/null || [ ! -e "$STATE/lock" ] || { rm -f "$by_hand_temp"; return 1; }
        rm -f "$by_hand_temp.old"
    done
    rm -f "$by_hand_temp"
}

by_hand_over() {
    if [ -z "${MLHOST_EVENTS:-}" ] && grep -Fxq "pid=$$" "$STATE/lock" 2>/dev/null; then rm -f "$STATE/lock"; fi
}

begin() { # RUN HOST
    RUN=${MLHOST_RUN:-$1}
    umask 022
    PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    LC_ALL=C DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none
    # this machine's own engine, whatever the caller's environment or Docker context says
    HOME=${HOME:-/root} DOCKER_HOST=unix:///var/run/docker.sock
    export PATH LC_ALL DEBIAN_FRONTEND NEEDRESTART_SUSPEND APT_LISTCHANGES_FRONTEND HOME DOCKER_HOST
    unset IFS DOCKER_CONTEXT
    if [ -z "$ROOT" ] && [ "$(id -u)" != 0 ]; then
        printf 'This script sets up the whole machine: run it as root (sudo sh FILE).\n' >&2
        return 1
    fi
    if [ -L "$STATE" ]; then
        printf '%s is a symbolic link; it must be a directory of root.\n' "$STATE" >&2
        return 1
    fi
    mkdir -p "$STATE" || return 1
    if [ "$(stat -c %u "$STATE")" != "$(id -u)" ] || [ -n "$(find "$STATE" -prune \( -perm -0020 -o -perm -0002 \))" ]; then
        printf '%s must belong to root, and nobody else may write there.\n' "$STATE" >&2
        return 1
    fi
    # hashes of files with passwords are in them
    if [ -e "$RECEIPTS" ]; then chmod 0600 "$RECEIPTS"; fi
    if [ -z "${MLHOST_EVENTS:-}" ]; then by_hand || return 1; fi
    begin_boot=''
    { IFS= read -r begin_boot <"$ROOT/proc/sys/kernel/random/boot_id"; } 2>/dev/null
    begin_work=$STATE/work.${begin_boot%%-*}
    for begin_left in "$STATE"/work.*; do
        # left behind by a script that was killed: its process is gone, or of another boot
        begin_pid=${begin_left#"$begin_work."}
        if [ "$begin_pid" = "$begin_left" ] || ! kill -0 "${begin_pid%%.*}" 2>/dev/null; then rm -rf "$begin_left"; fi
    done
    WORK=$(mktemp -d "$begin_work.$$.XXXXXX") || return 1
    trap 'rm -rf "$WORK"; by_hand_over' EXIT
    trap '' HUP
    : >"$WORK/why"
    kept_none
    event begin - "$2, run $RUN"
    half_written
    settle
}

stop() { # ITEM REASON
    event failed "$1" "$2"
    RC=1 STOPPED="$1 failed"
}

item() { # NUMBER ITEM TITLE: check, change, the same check again
    if [ -z "$STOPPED" ] && [ -n "${MLHOST_STOP:-}" ] && [ -e "$MLHOST_STOP" ]; then
        RC=1 STOPPED="the run was asked to stop"
    fi
    if [ -n "$STOPPED" ]; then
        event skipped "$2" "$STOPPED"
        return 0
    fi
    case " ${MLHOST_SKIP:-} " in *" $2 "*)
        event skipped "$2" "there is no NVIDIA GPU on this machine"
        return 0
        ;;
    esac
    ITEM=$2
    : >"$WORK/why"
    WHY=''
    event start "$2" "$3"
    if "check_$1"; then
        case " $TOGETHER " in
            *" $1 "*) event changed "$2" "in the same transaction" ;;
            *) event ok "$2" ;;
        esac
        return 0
    fi
    : >"$WORK/why"
    kept_none
    item_rc=0
    "change_$1" || item_rc=$?
    settle
    case $item_rc in
        0) ;;
        75 | 76)
            RC=$item_rc STOPPED="after a reboot"
            event reboot "$2" "$(reason)"
            return 0
            ;;
        *)
            stop "$2" "$(reason)"
            return 0
            ;;
    esac
    if "check_$1"; then
        event changed "$2"
    elif [ -s "$WORK/why" ]; then
        stop "$2" "did not take effect: $(reason)"
    else
        stop "$2" "did not take effect: after the change it still is not as wanted"
    fi
}

finish() { # rc of the stage: 0 done, 1 failed, 75 reboot now, 76 a reboot is needed
    event end - "$RC"
    return "$RC"
}
