# Takes back what the receipts say that runs of mlhost have changed, and nothing else. What somebody changed since then stays as it is.

receipts_chosen() { # RUN...: the receipts of these runs, of all without any; the newest first
    [ -f "$STATE/receipts" ] || return 0
    if [ $# -eq 0 ]; then
        cat "$STATE/receipts"
    else
        for receipts_run in "$@"; do
            while IFS= read -r receipts_line; do
                case $receipts_line in "$receipts_run	"*) printf '%s\n' "$receipts_line" ;; esac
            done <"$STATE/receipts"
        done
    fi | sed '1!G;h;$!d'
}

receipts_of() { # KIND: what follows the kind in the chosen receipts, one line each
    sed -n "s/^[^	]*	$1	//p" "$WORK/receipts"
}

lines_of() { tr '\t' '\n' | sort -u; }

rollback_begin() { # RUN...
    receipts_chosen "$@" >"$WORK/receipts"
    # what is taken back is no addition of ours
    RECEIPTS=/dev/null
}

held_by_us() {
    holds_now | sort -u >"$WORK/rollback.held"
    receipts_of hold | lines_of | while IFS= read -r held_by_us_name; do
        if grep -Fxq -e "$held_by_us_name" "$WORK/rollback.held"; then printf '%s\n' "$held_by_us_name"; fi
    done
}

no_holds() { [ -z "$(held_by_us)" ]; }

take_back_holds() {
    held_by_us >"$WORK/rollback.holds"
    while IFS= read -r take_back_name; do
        hold_release "$take_back_name" || return 1
    done <"$WORK/rollback.holds"
}

package_before() { # NAME: "there" or "absent", as it was before the oldest of these runs
    package_before_line=$(grep -E "^[^	]*	(package|removed)	$(quoted_for_grep "$1")(	|\$)" "$WORK/receipts" | tail -n 1 | cut -f2,5)
    case $package_before_line in
        "package" | "package	") printf 'absent' ;;
        *) printf 'there' ;;
    esac
}

packages_added() { # installed now, and absent before
    receipts_of package | cut -f1 | sort -u | while IFS= read -r packages_added_name; do
        if [ "$(package_before "$packages_added_name")" = absent ] && ! has_no_package "$packages_added_name"; then
            printf '%s\n' "${packages_added_name%%:*}"
        fi
    done
}

packages_missing() { # removed by us, and still not there
    receipts_of removed | sort -u | while IFS= read -r packages_missing_name; do
        if [ "$(package_before "$packages_missing_name")" = there ] && has_no_package "$packages_missing_name"; then
            printf '%s\n' "$packages_missing_name"
        fi
    done
}

no_packages() { [ -z "$(packages_added)$(packages_missing)" ]; }

take_back_packages() {
    docker image ls --format '{{.Repository}}:{{.Tag}}' mlhost/smoke 2>/dev/null | while IFS= read -r take_back_image; do
        docker image rm "$take_back_image" >/dev/null 2>&1
    done
    receipts_of package | while IFS='	' read -r take_back_name take_back_version take_back_old; do
        if [ -n "$take_back_old" ]; then note "$take_back_name was $take_back_old before $take_back_version; it stays"; fi
    done
    # shellcheck disable=SC2046  # package names hold no blanks
    packages_change $(packages_missing) -- $(packages_added)
}

file_backup() { # RUN PATH: where the file as it was before that run is kept
    printf '%s' "$STATE/backup/$1$2"
}

file_is_old() { # RUN PATH
    file_is_backup=$(file_backup "$1" "$2")
    if [ -e "$file_is_backup.mlhost-absent" ]; then
        has_no_file "$2"
    else
        [ -e "$file_is_backup" ] && [ "$(sha256 "$ROOT$2")" = "$(sha256 "$file_is_backup")" ]
    fi
}

files_changed() { # RUN, KIND, PATH and HASH of each file that is still as we made it
    sed -n 's/^\([^	]*\)	\(file\|aside\)	\(.*\)$/\1	\2	\3/p' "$WORK/receipts" |
        while IFS='	' read -r files_run files_kind files_path files_hash; do
            if file_is_old "$files_run" "$files_path"; then continue; fi
            if [ "$files_kind" = aside ]; then
                has_no_file "$files_path" || continue
            else
                [ "$(sha256 "$ROOT$files_path")" = "$files_hash" ] || continue
            fi
            printf '%s\t%s\n' "$files_run" "$files_path"
        done
}

no_files() { [ -z "$(files_changed)$(keys_left)" ]; }

take_back_files() {
    keys_take_back || return 1
    # a file that two runs have written is put back in two steps, from the newer run to the older one
    while files_changed >"$WORK/rollback.files" && [ -s "$WORK/rollback.files" ]; do
        IFS='	' read -r take_back_run take_back_path <"$WORK/rollback.files"
        take_back_from=$(file_backup "$take_back_run" "$take_back_path")
        take_back_file=$(real "$ROOT$take_back_path")
        if [ -e "$take_back_from" ]; then
            cp -pP "$take_back_from" "$take_back_file.mlhost" && mv -f "$take_back_file.mlhost" "$take_back_file" && relabel "$take_back_file"
        elif [ -e "$take_back_from.mlhost-absent" ]; then
            rm -f "$take_back_file"
        else
            why "the backup of $take_back_path is gone"
            return 1
        fi || { why "cannot put back $take_back_path"; return 1; }
        unit_files_changed "$take_back_path" || return 1
        if [ "$take_back_path" = /etc/docker/daemon.json ] && service_active docker.service; then
            service_do restart docker.service || { why "Docker does not come up with its old settings"; return 1; }
        fi
    done
    receipts_of file | cut -f1 | sort -u | while IFS= read -r take_back_path; do
        take_back_run=$(grep -F "	file	$take_back_path	" "$WORK/receipts" | tail -n 1 | cut -f1)
        file_is_old "$take_back_run" "$take_back_path" || note "$take_back_path has been changed since; it stays"
    done
}

services_enabled() {
    receipts_of enabled | sort -u | while IFS= read -r services_name; do
        if ! service_absent "$services_name" && service_enabled "$services_name"; then printf '%s\n' "$services_name"; fi
    done
}

no_services() { [ -z "$(services_enabled)" ]; }

take_back_services() {
    services_enabled >"$WORK/rollback.services"
    while IFS= read -r take_back_name; do
        service_do disable "$take_back_name" || { why "cannot disable $take_back_name"; return 1; }
    done <"$WORK/rollback.services"
}

members_added() { # GROUP and USER of each membership that is ours and still there
    receipts_of group | while IFS='	' read -r members_group members_user; do
        if group_has "$members_group" "$members_user"; then printf '%s\t%s\n' "$members_group" "$members_user"; fi
    done
}

no_members() { [ -z "$(members_added)" ]; }

take_back_members() {
    members_added >"$WORK/rollback.members"
    while IFS='	' read -r take_back_group take_back_user; do
        if command -v gpasswd >/dev/null 2>&1; then gpasswd -d "$take_back_user" "$take_back_group"; else deluser "$take_back_user" "$take_back_group"; fi ||
            { why "cannot take $take_back_user out of the group $take_back_group"; return 1; }
    done <"$WORK/rollback.members"
}

no_receipts() { [ ! -s "$WORK/receipts" ]; }

take_back_receipts() { # what was taken back is not taken back again
    sed '1!G;h;$!d' "$WORK/receipts" >>"$STATE/receipts.undone"
    while IFS= read -r take_back_line; do
        grep -Fxq -e "$take_back_line" "$WORK/receipts" || printf '%s\n' "$take_back_line"
    done <"$STATE/receipts" >"$STATE/receipts.new"
    chmod 0600 "$STATE/receipts.new" "$STATE/receipts.undone"
    mv -f "$STATE/receipts.new" "$STATE/receipts"
    rm -f "$STATE/proof"
    : >"$WORK/receipts"
}
