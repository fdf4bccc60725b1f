# Reads what runs of mlhost have left behind, and how each of these things stands now. It changes nothing; the functions it calls are those that
# take things back, so that both have the same idea of what is there.

emit() { printf '@@%s %s %s\n%s\n' "$MARK" "$1" "$2" "${3:-}"; } # NAME RC [TEXT]

receipts_of() { # KIND: the words after it, one receipt a line
    awk -F '\t' -v kind="$1" '$2 == kind { sub(/^[^\t]*\t[^\t]*\t/, ""); print }' "$WORK/receipts" | sort -u
}

look_files() {
    awk -F '\t' '$2 == "file" || $2 == "aside" { print $1 "\t" $3 }' "$WORK/receipts" | sort -u | while IFS='	' read -r look_run look_path; do
        printf 'saved\t%s\t%s\t%s\n' "$look_run" "$look_path" "$(back_saved_id "$look_run" "$look_path")"
    done
    awk -F '\t' '$2 == "file" || $2 == "aside" { print $3 }' "$WORK/receipts" | sort -u | while IFS= read -r look_path; do
        printf 'now\t%s\t%s\n' "$look_path" "$(back_id "$(real "$ROOT$look_path")")"
    done
    receipts_of cache | while IFS= read -r look_path; do has_no_file "$look_path" || printf 'cache\t%s\n' "$look_path"; done
    receipts_of directory | while IFS= read -r look_path; do [ ! -d "$ROOT$look_path" ] || printf 'directory\t%s\n' "$look_path"; done
}

look_json() { # of each merged file: as it is, and for each run as it was and as we left it
    awk -F '\t' '$2 == "file" { print $1 "\t" $3 }' "$WORK/receipts" | sort -u | while IFS='	' read -r look_run look_path; do
        look_saved=$(back_saved "$look_run" "$look_path")
        [ -f "$look_saved.mlhost-written" ] || continue
        emit "written:$look_run:$look_path" 0 "$(head -c 65536 "$look_saved.mlhost-written")"
        [ ! -f "$look_saved" ] || emit "saved:$look_run:$look_path" 0 "$(head -c 65536 "$look_saved")"
        if [ "$look_path" != "${look_told:-}" ] && [ -f "$ROOT$look_path" ]; then emit "now:$look_path" 0 "$(head -c 65536 "$ROOT$look_path")"; fi
        look_told=$look_path
    done
}

look_packages() { # NAME STATE VERSION CONFFILES(clean|changed|keep)
    { receipts_of package; receipts_of removed; } | cut -f1 | sort -u | while IFS= read -r look_name; do
        package_told "$look_name"
    done
}

look_offers() { # NAME VERSION of what could come back
    {
        receipts_of package | awk -F '\t' '$3 != "" { print $1 }'
        receipts_of removed | cut -f1
    } | sort -u >"$WORK/offers"
    [ ! -s "$WORK/offers" ] || packages_offered "$WORK/offers"
}

look_units() { # NAME LOAD ACTIVE ENABLED
    { receipts_of enabled; receipts_of disabled; receipts_of service; receipts_of mounted; } | cut -f1 | sort -u | while IFS= read -r look_name; do
        if has_systemd; then
            printf '%s\t%s\t%s\t%s\n' "$look_name" "$(unit_show "$look_name" LoadState)" "$(unit_show "$look_name" ActiveState)" "$(unit_show "$look_name" UnitFileState)"
        elif ! service_absent "$look_name"; then
            printf '%s\tloaded\t%s\t\n' "$look_name" "$(if service_active "$look_name"; then echo active; else echo inactive; fi)"
        fi
    done
}

look_people() {
    receipts_of group | while IFS='	' read -r look_group look_user; do
        if group_has "$look_group" "$look_user"; then printf 'member\t%s\t%s\n' "$look_group" "$look_user"; fi
    done
    for look_kind in group passwd; do
        receipts_of "made-$look_kind" | while IFS= read -r look_name; do
            back_account_done "$look_kind" "$look_name" || printf '%s\t%s\t%s\n' "$look_kind" "$look_name" "$(account_members "$look_kind" "$look_name")"
        done
    done
}

look_rest() {
    if command -v rpmkeys >/dev/null 2>&1; then
        receipts_of key | while IFS= read -r look_name; do ! has_key "$look_name" 2>/dev/null || printf 'key\t%s\n' "$look_name"; done
    fi
    receipts_of module | while IFS= read -r look_name; do
        [ ! -d "$ROOT/sys/module/$(printf '%s' "$look_name" | tr - _)" ] || printf 'module\t%s\n' "$look_name"
    done
    receipts_of mounted | while IFS='	' read -r look_name look_path; do
        ! grep -q "^[^ ]* $look_path " "${MLHOST_PROC_MOUNTS:-/proc/mounts}" || printf 'mount\t%s\n' "$look_path"
    done
    awk -F '\t' '$2 == "undo" { print $1 "\t" $4 }' "$WORK/receipts" | while IFS='	' read -r look_run look_name; do
        if [ -e "$STATE/backup/$look_run.undo/$look_name.done" ]; then
            look_state='done'
        elif [ -f "$STATE/backup/$look_run.undo/$look_name" ]; then
            look_state=there
        else
            look_state=gone
        fi
        printf 'undo\t%s\t%s\t%s\n' "$look_run" "$look_name" "$look_state"
    done
    receipts_of runfile | while IFS= read -r look_name; do
        if runfile_there "$look_name"; then printf 'runfile\t%s\n' "$look_name"; fi
    done
    receipts_of image | while IFS= read -r look_name; do
        [ -z "$(bounded 20 docker image ls -q "$look_name" 2>/dev/null)" ] || printf 'image\t%s\n' "$look_name"
    done
    receipts_of index | while IFS= read -r look_name; do
        [ ! -e "$STATE/refreshed.$look_name" ] || printf 'index\t%s\n' "$look_name"
    done
    for look_path in /var/lib/docker /var/lib/containerd "$LOOK_DATA"; do
        if [ -n "$look_path" ] && [ -n "$(data_entries "$look_path" | head -n 1)" ]; then printf 'data\t%s\n' "$look_path"; fi
    done
    printf 'own\t%s\n' "$(find "$STATE" -maxdepth 1 -mindepth 1 2>/dev/null | wc -l)"
    for look_path in /etc/systemd/system/mlhost-continue.service /etc/systemd/system/mlhost-pull.service /etc/mlhost /usr/local/lib/mlhost /run/mlhost; do
        has_no_file "$look_path" || printf 'left\t%s\n' "$look_path"
    done
}

look_data() { # the data directory that Docker's settings name
    sed -n 's/.*"data-root"[[:space:]]*:[[:space:]]*"\(\/[^"]*\)".*/\1/p' "$ROOT/etc/docker/daemon.json" 2>/dev/null | head -n 1
}

look_begin() {
    LC_ALL=C PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    HOME=${HOME:-/root} DOCKER_HOST=unix:///var/run/docker.sock MLHOST_EVENTS=/dev/null DEBIAN_FRONTEND=noninteractive
    export LC_ALL PATH HOME DOCKER_HOST DEBIAN_FRONTEND
    unset DOCKER_CONTEXT
    emit probe 0 schema=1
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/mlhost.XXXXXX") || { emit receipts 1 'there is no place for temporary files'; emit end 0; return 1; }
    trap 'rm -rf "$WORK"' EXIT
}

look_in_the_way() { # MARK INSTALL... -- REMOVE...
    MARK=$1 RUN=look ITEM=look RECEIPTS=/dev/null
    shift
    look_begin || return 1
    emit in-the-way 0 "$(packages_in_the_way "$@")"
    emit end 0
}

lookback() { # MARK [INSTALL... -- REMOVE...]: with packages only what would be in the way of changing them
    if [ $# -gt 1 ]; then
        look_in_the_way "$@"
        return
    fi
    MARK=$1 RUN=look ITEM=look RECEIPTS=/dev/null
    look_begin || return 1
    if [ ! -e "$STATE/receipts" ]; then
        emit receipts 2
        : >"$WORK/receipts"
    elif cat "$STATE/receipts" >"$WORK/receipts" 2>/dev/null; then
        emit receipts 0 "$(cat "$WORK/receipts")"
    else
        emit receipts 13
        emit end 0
        return 0
    fi
    # package work that was cut off has no receipts yet; what it has changed is told all the same
    look_pending=$(
        intended_lines
        pending_lines 2>/dev/null
    )
    if [ -n "$look_pending" ]; then
        printf '%s\n' "$look_pending" >>"$WORK/receipts"
        emit pending 0 "$look_pending"
    fi
    LOOK_DATA=$(look_data)
    emit manager 0 "$(manager_name)"
    for look_part in files packages offers units people rest; do
        emit "$look_part" 0 "$("look_$look_part")"
    done
    emit holds 0 "$(holds_now 2>/dev/null)"
    look_json
    emit end 0
}
