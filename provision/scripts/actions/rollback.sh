# Takes back single things that runs of mlhost have changed. What is to be taken back has been decided by the planner; here each thing is looked
# at once more, so that nothing is overwritten which somebody has changed in the meantime.

rollback_begin() { # what is taken back is no addition of ours
    packages_settle
    OWN_RECEIPTS=$RECEIPTS
    RECEIPTS=/dev/null
}

# ---- a step of the user's own

back_undo_done() { [ -e "$STATE/backup/$1.undo/$2.done" ]; } # RUN NAME

back_undo() { # RUN NAME
    back_undo_file=$STATE/backup/$1.undo/$2
    [ -f "$back_undo_file" ] || { why "its undo, $back_undo_file, is gone"; return 1; }
    sh "$back_undo_file" undo </dev/null || { why "its undo failed with exit code $?"; return 1; }
    if sh "$back_undo_file" check </dev/null; then
        why "its undo ran, but its check still finds what it had done"
        return 1
    fi
    : >"$back_undo_file.done"
}

# ---- packages

back_split() { # INSTALL... -- REMOVE... -- PURGE... -- ENGINE...: one file each
    for back_list in install remove purge engine; do : >"$WORK/back.$back_list"; done
    back_list=install
    for back_word in "$@"; do
        case $back_word in
            --) case $back_list in install) back_list=remove ;; remove) back_list=purge ;; *) back_list=engine ;; esac ;;
            *) printf '%s\n' "$back_word" >>"$WORK/back.$back_list" ;;
        esac
    done
}

back_packages_done() { # INSTALL[=VERSION]... -- REMOVE... -- PURGE... -- ENGINE...
    back_split "$@"
    while IFS= read -r back_word; do
        back_version=${back_word#*=}
        [ "$back_version" != "$back_word" ] || back_version=''
        has_package "${back_word%%=*}" "$back_version" || return 1
    done <"$WORK/back.install"
    while IFS= read -r back_word; do has_no_package "$back_word" || return 1; done <"$WORK/back.remove"
    while IFS= read -r back_word; do package_purged "$back_word" || return 1; done <"$WORK/back.purge"
}

back_packages() { # INSTALL[=VERSION]... -- REMOVE... -- PURGE... -- ENGINE...: PURGE is done after the removal, ENGINE are services that go
    back_split "$@"
    if [ -s "$WORK/back.engine" ]; then back_containers_stop; fi
    unit_links >"$WORK/back.links"
    # shellcheck disable=SC2046  # names and versions hold no blanks; the renderer refuses others
    packages_change $(cat "$WORK/back.install") -- $(cat "$WORK/back.remove") || return 1
    # shellcheck disable=SC2046
    [ ! -s "$WORK/back.purge" ] || packages_purge $(cat "$WORK/back.purge") || return 1
    # a package may leave the links by which its units were enabled
    while IFS= read -r back_word; do
        if [ -L "$back_word" ] && [ ! -e "$back_word" ]; then
            rm -f "$back_word"
            rmdir "$(dirname "$back_word")" 2>/dev/null
        fi
    done <"$WORK/back.links"
    return 0
}

unit_links() { # the links that enable units which are there
    for unit_link in "$ROOT"/etc/systemd/system/*.wants/* "$ROOT"/etc/systemd/system/*.requires/* "$ROOT"/etc/systemd/system/*.service; do
        if [ -L "$unit_link" ] && [ -e "$unit_link" ]; then printf '%s\n' "$unit_link"; fi
    done
}

back_containers_stop() { # the engine goes: its containers end in order, and stay where they are
    command -v docker >/dev/null 2>&1 && bounded 20 docker info >/dev/null 2>&1 || return 0
    bounded 60 docker ps -q 2>/dev/null | while IFS= read -r back_container; do
        bounded 60 docker stop "$back_container" >/dev/null 2>&1 || note "the container $back_container did not stop in time"
    done
}

back_images_done() { [ -e "$WORK/back.images" ] || [ -z "$(bounded 60 docker image ls -q mlhost/smoke 2>/dev/null)" ]; }

back_images() { # the images that the proof was made with are ours
    bounded 60 docker image ls --format '{{.Repository}}:{{.Tag}}' mlhost/smoke 2>/dev/null | while IFS= read -r back_image; do
        bounded 60 docker image rm "$back_image" >/dev/null 2>&1
    done
    back_images_done || note "the image mlhost/smoke stays: a container is made of it"
    : >"$WORK/back.images"
}

back_holds_done() { # NAME...
    holds_now | sort -u >"$WORK/back.held"
    for back_word in "$@"; do ! grep -Fxq -e "$back_word" "$WORK/back.held" || return 1; done
}

back_holds() { # NAME...
    holds_now | sort -u >"$WORK/back.held"
    for back_word in "$@"; do
        if grep -Fxq -e "$back_word" "$WORK/back.held"; then hold_release "$back_word" || return 1; fi
    done
}

back_key_done() { ! has_key "$1"; } # FINGERPRINT

back_key() { key_delete "$1" || why "the key $1 cannot be removed from rpm's own"; } # FINGERPRINT

# ---- files

back_id() { # FILE: what there is at a path: a hash, link:TARGET, absent or other
    if [ -L "$1" ]; then
        printf 'link:%s' "$(readlink "$1")"
    elif [ -f "$1" ]; then
        sha256 "$1"
    elif [ -e "$1" ]; then
        printf 'other'
    else
        printf 'absent'
    fi
}

back_saved() { # RUN PATH: where the file as it was before that run is kept
    back_saved_real=$(real "$ROOT$2")
    back_saved_file=$STATE/backup/$1${back_saved_real#"$ROOT"}
    if [ ! -e "$back_saved_file" ] && [ ! -L "$back_saved_file" ] && [ ! -e "$back_saved_file.mlhost-absent" ]; then back_saved_file=$STATE/backup/$1$2; fi
    printf '%s' "$back_saved_file"
}

back_saved_id() { # RUN PATH
    back_saved_at=$(back_saved "$1" "$2")
    if [ -e "$back_saved_at.mlhost-absent" ]; then
        printf 'absent'
    elif [ -e "$back_saved_at" ] || [ -L "$back_saved_at" ]; then
        back_id "$back_saved_at"
    else
        printf 'gone'
    fi
}

back_file_done() { # RUN PATH
    [ "$(back_id "$(real "$ROOT$2")")" = "$(back_saved_id "$1" "$2")" ]
}

back_file() { # RUN PATH FOUND: as it was before RUN, if it still is what the planner found
    back_target=$(real "$ROOT$2")
    if [ "$(back_id "$back_target")" != "$3" ]; then
        why "$2 has changed since the plan was made; plan again"
        return 1
    fi
    back_from=$(back_saved "$1" "$2")
    keep_file "$back_target" || return 1
    if [ -e "$back_from.mlhost-absent" ]; then
        rm -f "$back_target"
    elif [ -e "$back_from" ] || [ -L "$back_from" ]; then
        mkdir -p "$(dirname "$back_target")" && cp -pP "$back_from" "$back_target.mlhost" &&
            { sync "$back_target.mlhost" 2>/dev/null || sync; } && mv -f "$back_target.mlhost" "$back_target" && relabel "$back_target"
    else
        why "the backup of $2 is gone"
        return 1
    fi || { why "cannot put back $2"; return 1; }
    unit_files_changed "$2"
}

back_cache_done() { has_no_file "$@"; } # PATH...

back_cache() { # PATH...
    for back_word in "$@"; do rm -f "$ROOT$back_word" || { why "cannot remove $back_word"; return 1; }; done
}

back_index_done() { [ ! -e "$(rpm_mark "$1")" ]; } # ID of a repository

back_index() { rpm_forget "$1"; } # ID

back_directories_done() { # PATH...: gone, unless somebody has put something there
    for back_word in "$@"; do
        if [ -d "$ROOT$back_word" ] && [ -z "$(find "$ROOT$back_word" -mindepth 1 -print 2>/dev/null | head -n 1)" ]; then return 1; fi
    done
}

back_directories() { # PATH...: the deepest ones first
    for back_word in "$@"; do rmdir "$ROOT$back_word" 2>/dev/null; done
    return 0
}

# ---- services, disks, people

back_service_done() { # NAME ENABLED(yes|no|-) RUNNING(yes|no|-)
    service_is "$1" "$2" "$3" yes
}

back_service() { # NAME ENABLED(yes|no|-) RUNNING(yes|no|-)
    case $2 in yes) service_do enable "$1" ;; no) service_do disable "$1" ;; esac || { why "cannot change whether $1 starts at boot"; return 1; }
    case $3 in yes) service_do start "$1" ;; no) service_do stop "$1" ;; esac || { why "cannot start or stop $1: $(service_last_words "$1")"; return 1; }
}

back_mount_done() { # UNIT PATH
    ! grep -q "^[^ ]* $2 " "${MLHOST_PROC_MOUNTS:-/proc/mounts}" && ! systemctl is-enabled -q "$1" 2>/dev/null
}

back_mount() { # UNIT PATH
    systemctl disable "$1" || { why "cannot disable $1"; return 1; }
    systemctl stop "$1"
    ! grep -q "^[^ ]* $2 " "${MLHOST_PROC_MOUNTS:-/proc/mounts}" || umount "$2" || why "$2 is in use and cannot be unmounted"
}

back_member_done() { ! group_has "$1" "$2"; } # GROUP USER

back_member() { # GROUP USER
    if command -v gpasswd >/dev/null 2>&1; then gpasswd -d "$2" "$1"; else deluser "$2" "$1"; fi || why "cannot take $2 out of the group $1"
}

account_line() { grep "^$(quoted_for_grep "$2"):" "$ROOT/etc/$1" 2>/dev/null; } # group|passwd NAME

account_members() { # group|passwd NAME: of a group, with commas
    [ "$1" != group ] || account_line "$1" "$2" | cut -d: -f4
}

account_use() { # group|passwd NAME: what still needs it, nothing if nothing does
    account_use_members=$(account_members "$1" "$2")
    if [ -n "$account_use_members" ]; then
        printf '%s belongs to it' "$account_use_members"
        return
    fi
    account_use_number=$(account_line "$1" "$2" | cut -d: -f3)
    if [ "$1" = group ]; then account_use_test=-gid; else account_use_test=-uid; fi
    for account_use_dir in /etc /opt /srv /home /usr/local /var/lib /var/log /var/cache /var/spool; do
        [ -d "$ROOT$account_use_dir" ] || continue
        # Docker's own data may be endless
        account_use_found=$(bounded 60 find "$ROOT$account_use_dir" -xdev \( -path "$ROOT/var/lib/docker" -o -path "$ROOT/var/lib/containerd" \) -prune -o \
            "$account_use_test" "$account_use_number" -print 2>/dev/null | head -n 1)
        if [ -n "$account_use_found" ]; then
            printf '%s belongs to it' "$account_use_found"
            return
        fi
    done
}

back_account_done() { # group|passwd NAME
    [ -e "$WORK/back.$1.$2" ] || ! account_line "$1" "$2" >/dev/null
}

back_account() { # group|passwd NAME: unless something still needs it
    back_use=$(account_use "$1" "$2")
    if [ -z "$back_use" ]; then
        case $1 in
            group) if command -v groupdel >/dev/null 2>&1; then groupdel "$2"; else delgroup "$2"; fi ;;
            passwd) if command -v userdel >/dev/null 2>&1; then userdel "$2"; else deluser "$2"; fi ;;
        esac && return 0
        back_use='it is in use'
    fi
    note "$2 stays in /etc/$1: $back_use"
    : >"$WORK/back.$1.$2"
}

# ---- Docker's data, and our own

data_entries() { # PATH: what of it is Docker's; elsewhere than in its usual places others may keep their things beside it
    case $1 in
        /var/lib/docker | /var/lib/containerd) find "$ROOT$1" -mindepth 1 -maxdepth 1 2>/dev/null ;;
        *)
            for data_name in btrfs buildkit containerd containers engine-id fuse-overlayfs image network overlay2 plugins runtimes rootfs swarm tmp trust \
                vfs volumes zfs nuke-graph-directory.sh; do
                # these two alone say that Docker has been here
                if [ -d "$ROOT$1/containers" ] && [ -d "$ROOT$1/volumes" ] && [ -e "$ROOT$1/$data_name" ]; then printf '%s\n' "$ROOT$1/$data_name"; fi
            done
            ;;
    esac
}

back_data_done() { # PATH...
    for back_word in "$@"; do
        [ -z "$(data_entries "$back_word" | head -n 1)" ] || return 1
    done
}

mounted_in() { # PATH: what is mounted there or below
    awk -v top="$1" '$2 == top || index($2, top "/") == 1 { print $2 }' "${MLHOST_PROC_MOUNTS:-/proc/mounts}" 2>/dev/null
}

back_data() { # PATH...: only with the user's consent
    for back_word in "$@"; do
        data_entries "$back_word" >"$WORK/data"
        # the two by which the others are known as Docker's go last
        { grep -Ev '/(containers|volumes)$' "$WORK/data"; grep -E '/(containers|volumes)$' "$WORK/data"; } | while IFS= read -r back_entry; do
            back_real=$(readlink -f "$back_entry")
            mounted_in "$back_real" | sort -r | while IFS= read -r back_mounted; do umount -l "$(printf '%b' "$back_mounted")"; done
            # never into what is still mounted
            [ -z "$(mounted_in "$back_real")" ] && rm -rf "$back_entry" || exit 1
        done || { why "cannot delete all of Docker's data in $back_word"; return 1; }
        rmdir "$ROOT$back_word" 2>/dev/null
    done
    return 0
}

back_forget_done() { # RUN...: nothing of these runs is left to be taken back
    for back_word in "$@"; do
        ! awk -F '\t' -v run="$back_word" '$1 == run && $2 != "undone" { found = 1 } END { exit !found }' "$OWN_RECEIPTS" 2>/dev/null || return 1
    done
}

back_forget() { # RUN...
    [ -f "$OWN_RECEIPTS" ] || return 0
    printf '%s\n' "$@" >"$WORK/back.runs"
    cp -p "$OWN_RECEIPTS" "$OWN_RECEIPTS.new" || return 1
    awk -F '\t' 'NR == FNR { gone[$1] = 1; next } !($1 in gone) || $2 == "undone"' "$WORK/back.runs" "$OWN_RECEIPTS" >"$OWN_RECEIPTS.new" || return 1
    for back_word in "$@"; do printf '%s\tundone\t%s\n' "$RUN" "$back_word" >>"$OWN_RECEIPTS.new"; done
    sync "$OWN_RECEIPTS.new" 2>/dev/null || sync
    mv -f "$OWN_RECEIPTS.new" "$OWN_RECEIPTS" || return 1
    rm -f "$STATE/proof"
}
