# rpm with dnf 4 and 5, yum, tdnf or zypper: one repository's key and index, one transaction. It needs others.sh.

RPM_KIND='' RPM_TOOL='' RPM_STALE='' RPM_IN_TIME=''

rpm_manager() { # sets RPM_KIND (dnf, dnf5, yum, tdnf, zypper: whose options it takes) and RPM_TOOL (its path)
    [ -z "$RPM_KIND" ] || return 0
    rpm_manager_order='dnf dnf5 yum tdnf zypper'
    # several may be installed; the system's own one knows its locks
    if grep -Eqs '^ID(_LIKE)?=.*suse' "$ROOT/etc/os-release"; then
        rpm_manager_order='zypper dnf dnf5'
    elif grep -Eqs '^ID="?(azurelinux|mariner|photon)' "$ROOT/etc/os-release"; then
        rpm_manager_order='tdnf dnf dnf5'
    fi
    for rpm_manager_name in $rpm_manager_order; do
        RPM_TOOL=$(command -v "$rpm_manager_name") || continue
        RPM_KIND=$rpm_manager_name
        # dnf is a link to dnf5, or yum one to dnf
        case $(readlink -f "$RPM_TOOL") in
            */dnf5) RPM_KIND=dnf5 ;;
            */dnf-3 | */dnf-2 | */dnf) RPM_KIND=dnf ;;
        esac
        return 0
    done
    why "there is none of $rpm_manager_order on this host"
}

rpm_busy() { # who is in the way and with what; fails if nobody is
    if cloud_init_busy; then
        printf 'cloud-init is still setting up this machine'
        return 0
    fi
    for rpm_busy_file in /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock /run/dnf/rpmtransaction.lock /run/zypp.pid \
        /run/.tdnf-instance-lockfile; do
        if rpm_busy_name=$(lock_holder "$ROOT$rpm_busy_file"); then
            printf '%s holds %s' "$rpm_busy_name" "$rpm_busy_file"
            return 0
        fi
    done
    for rpm_busy_file in /var/lib/dnf/rpmdb_lock.pid /var/cache/dnf/metadata_lock.pid /var/cache/dnf/download_lock.pid /run/yum.pid /run/zypp.pid; do
        rpm_busy_pid=''
        IFS= read -r rpm_busy_pid <"$ROOT$rpm_busy_file" || [ -n "$rpm_busy_pid" ] || continue
        case $rpm_busy_pid in '' | *[!0-9]*) continue ;; esac
        if rpm_busy_name=$(cat "/proc/$rpm_busy_pid/comm"); then
            printf '%s (%s) holds %s' "$rpm_busy_name" "$rpm_busy_pid" "$rpm_busy_file"
            return 0
        fi
    done
    return 1
} 2>/dev/null

rpm_said() { # COMMAND...: run it, its words go to the log and to a file
    {
        rpm_said_rc=0
        "$@" 2>&1 </dev/null || rpm_said_rc=$?
        printf '%s\n' "$rpm_said_rc" >"$WORK/rpm.rc"
    } | tee "$WORK/rpm.out"
    return "$(cat "$WORK/rpm.rc")"
}

rpm_lock_lost() { # RC
    [ "$RPM_KIND" != dnf ] || [ "$1" != 200 ] || return 0
    [ "$RPM_KIND" != zypper ] || [ "$1" != 7 ] || return 0
    grep -Eiq 'transaction lock|Failed to obtain .*lock|System management is locked|holding the yum lock' "$WORK/rpm.out"
}

rpm_try() { # COMMAND...: with a wait before it, again when somebody was faster
    while :; do
        wait_for_others rpm_busy || return 1
        rpm_try_rc=0
        rpm_said "$@" || rpm_try_rc=$?
        [ "$rpm_try_rc" != 0 ] && rpm_lock_lost "$rpm_try_rc" && [ "$WAITED" -lt "$LOCK_WAIT" ] || return "$rpm_try_rc"
        WAITED=$((WAITED + 1))
        pause
    done
}

rpm_why() { # TEXT: with the package manager's own first complaint, the most telling kind of it
    rpm_why_line=''
    for rpm_why_pattern in \
        'came within|No space left on device|Read-only file ?system|needs [0-9.]+[KMGT]?B? more space' \
        'Error message: ' \
        "checksum doesn't match|wrong checksum|Timeout exceeded|doesn't contain public key data" \
        'Status code: [45]|Curl error|Connection failed|Usable URL not found|Valid metadata not found|HTTP Error|File .* not found on medium' \
        'OpenPGP check|does not verify|match with known keys|is not signed|is not correctly signed|Public key for|BADSIG|digest does not match|unknown key' \
        '[Ss]ignature verification|GPG (check|verification)' \
        'filtered out|excluded by versionlock|matches only (packages )?excluded|remove lock to allow' \
        'package not found or not installed|No match for argument|No provider of|nothing provides|No package .* available|No matching' \
        'Problem: |^[0-9]+[.] ' \
        '^Error: .|^error: .|^Error|can.t be determined|No space left'; do
        # what is wrong may stand in the line after
        rpm_why_line=$(awk -v want="$rpm_why_pattern" '
            found { if ($0 ~ /^ +- /) { sub(/^ +- /, ""); print first "; " $0 } else print first; exit }
            $0 ~ want { sub(/^[ \t>*-]+/, ""); first = $0; found = 1; if ($0 !~ /^Problem/) { print; exit } }
            END { if (NR && found && $0 == first) print first }' "$WORK/rpm.out" | head -n 1)
        [ -z "$rpm_why_line" ] || break
    done
    [ -n "$rpm_why_line" ] || rpm_why_line=$(grep -v '^[[:space:]]*$' "$WORK/rpm.out" | tail -n 1)
    if [ "$RPM_KIND" = tdnf ]; then
        # all it says of a lock is that requests conflict
        rpm_why_held=$(holds_now | grep -Fx -f "$WORK/rpm.wanted" 2>/dev/null | tr '\n' ' ')
        [ -z "$rpm_why_held" ] || rpm_why_line="$rpm_why_line ($(hold_file) holds ${rpm_why_held% })"
    fi
    why "$1${rpm_why_line:+: $rpm_why_line}${RPM_STALE:+ (and the package lists could not be refreshed)}"
}

# ---- keys

keys_known() { # every key that rpm trusts: the last 8 digits of its fingerprint (before rpm 6) or all of them, in lower case
    {
        # since rpm 4.20, whatever kind of key store there is
        rpmkeys --list 2>/dev/null | sed 's/[-: ].*//'
        rpm -q gpg-pubkey --qf '%{VERSION}\n' 2>/dev/null
    } | grep -E '^[0-9a-f]{8,}$'
}

has_key() { # FINGERPRINT...: rpm trusts all of them
    keys_known >"$WORK/rpm.keys"
    for has_key_print in "$@"; do
        has_key_print=$(printf '%s' "$has_key_print" | tr 'A-F' 'a-f')
        has_key_found=''
        while IFS= read -r has_key_known; do
            case $has_key_print in *"$has_key_known") has_key_found=yes ;; esac
        done <"$WORK/rpm.keys"
        [ -n "$has_key_found" ] || return 1
    done
}

key_import() { # FILE FINGERPRINT...
    key_import_file=$1
    shift
    for key_import_print in "$@"; do
        has_key "$key_import_print" || printf '%s\n' "$key_import_print" >>"$WORK/rpm.imported"
    done
    has_key "$@" && return 0
    wait_for_others rpm_busy || return 1
    rpm --import "$ROOT$key_import_file" >"$WORK/rpm.out" 2>&1 && return 0
    cat "$WORK/rpm.out"
    rpm_why "rpm does not take the key $key_import_file"
}

key_delete() { # FINGERPRINT
    key_delete_print=$(printf '%s' "$1" | tr 'A-F' 'a-f')
    rpmkeys --delete "$key_delete_print" >/dev/null 2>&1
    has_key "$key_delete_print" || return 0
    rpm -q gpg-pubkey --qf '%{VERSION} %{VERSION}-%{RELEASE}\n' 2>/dev/null | while read -r key_delete_known key_delete_name; do
        case $key_delete_print in *"$key_delete_known") rpm -e "gpg-pubkey-$key_delete_name" ;; esac
    done
    ! has_key "$key_delete_print"
}

# ---- one repository

rpm_mark() { printf '%s' "$STATE/refreshed.$1"; }

rpm_refreshed() { # ID PATH: this text of the repository has been fetched with
    [ -n "$(sha256 "$ROOT$2")" ] && [ "$(cat "$(rpm_mark "$1")" 2>/dev/null)" = "$(sha256 "$ROOT$2")" ]
}

rpm_forget() { # ID: what was cached of the repository is no proof of its new text
    for rpm_forget_dir in "$ROOT/var/cache/dnf/$1"-???????????????? "$ROOT/var/cache/libdnf5/$1"-???????????????? \
        "$ROOT/var/cache/tdnf/$1" "$ROOT/var/cache/tdnf/$1"-???????? "$ROOT/var/cache/zypp/raw/$1" "$ROOT/var/cache/zypp/solv/$1"; do
        [ ! -d "$rpm_forget_dir" ] || rm -rf "$rpm_forget_dir"
    done
    rm -f "$ROOT/var/cache/dnf/$1.solv" "$ROOT/var/cache/dnf/$1-filenames.solvx" "$(rpm_mark "$1")"
}

rpm_refresh() { # ID PATH: fetch this repository's index, and no other
    rpm_manager || return 1
    rpm_forget "$1"
    case $RPM_KIND in
        zypper) set -- "$@" refresh --force "$1" ;;
        yum) set -- "$@" "--disablerepo=*" "--enablerepo=$1" "--setopt=$1.skip_if_unavailable=0" makecache fast ;;
        tdnf) set -- "$@" "--disablerepo=*" "--enablerepo=$1" --refresh makecache ;;
        # where it may skip a repository it says that all is well
        *) set -- "$@" "--disablerepo=*" "--enablerepo=$1" "--setopt=$1.skip_if_unavailable=0" makecache ;;
    esac
    rpm_refresh_id=$1 rpm_refresh_path=$2
    shift 2
    rpm_refresh_rc=0
    RPM_IN_TIME=in_time
    rpm_try rpm_tool "$@" || rpm_refresh_rc=$?
    RPM_IN_TIME=''
    if [ "$rpm_refresh_rc" != 0 ] || grep -Eq 'Usable URL not found|Failed to synchronize cache|Ignoring repositories' "$WORK/rpm.out"; then
        rpm_forget "$rpm_refresh_id"
        rpm_why "the package index of $rpm_refresh_path cannot be fetched"
        return 1
    fi
    sha256 "$ROOT$rpm_refresh_path" >"$(rpm_mark "$rpm_refresh_id")"
    receipt index "$rpm_refresh_id"
    while IFS= read -r rpm_refresh_key; do receipt key "$rpm_refresh_key"; done <"$WORK/rpm.imported"
}

rpm_undo() { # ID: the repository is as it was, and so are the keys
    while IFS= read -r rpm_undo_key; do
        key_delete "$rpm_undo_key" || note "the key $rpm_undo_key could not be removed from rpm's own"
    done <"$WORK/rpm.imported"
    rm -f "$(rpm_mark "$1")"
    put_back || note "the old package sources could not all be put back"
}

rpm_repository() { : >"$WORK/rpm.imported"; }

rpm_tool() { # ARGUMENT...: the package manager, without questions
    case $RPM_KIND in
        zypper) $RPM_IN_TIME "$RPM_TOOL" --non-interactive "$@" ;;
        # tdnf installs a package that has no signature at all, whatever gpgcheck says; rpm itself does not
        tdnf) $RPM_IN_TIME "$RPM_TOOL" -y --rpmdefine '_pkgverify_level all' "$@" ;;
        dnf | yum) $RPM_IN_TIME "$RPM_TOOL" -y --setopt=exit_on_lock=1 "$@" ;;
        *) $RPM_IN_TIME "$RPM_TOOL" -y "$@" ;;
    esac
}

# ---- what is installed

package_versions() { # NAME: EPOCH:VERSION-RELEASE of each version of it
    package_versions_text=$(rpm -q --qf '%{EPOCHNUM}:%{VERSION}-%{RELEASE}\n' "$1" 2>/dev/null) && printf '%s\n' "$package_versions_text"
}

version_is() { # EPOCH:VERSION-RELEASE WANTED: the same, with or without epoch and release, or beginning like WANTED without its last *
    case $2 in
        '') return 0 ;;
        *\*) case $1 in "${2%\*}"*) return 0 ;; *) case ${1#*:} in "${2%\*}"*) return 0 ;; esac ;; esac ;;
        "$1" | "${1#*:}" | "${1%-*}") return 0 ;;
        *) version_is_bare=${1#*:}; [ "$2" = "${version_is_bare%-*}" ]; return ;;
    esac
    return 1
}

version_wanted() { # VERSION, or @PACKAGE for the version that this one is made for: 580.95.05 of 580.95.05_k6.4.0-1
    case $1 in
        @*) package_versions "${1#@}" | tail -n 1 | sed -e 's/^[0-9]*://' -e 's/[_-].*//' | grep . ;;
        *) printf '%s\n' "$1" ;;
    esac
}

has_package() { # NAME [VERSION, or its beginning and *, or @PACKAGE]
    has_package_found=$(package_versions "$1") || return 1
    has_package_wanted=$(version_wanted "${2:-}") || return 1
    for has_package_version in $has_package_found; do
        ! version_is "$has_package_version" "$has_package_wanted" || return 0
    done
    return 1
}

has_no_package() { # NAME...
    for has_no_name in "$@"; do ! package_versions "$has_no_name" >/dev/null || return 1; done
}

# ---- module streams (dnf)

has_module() { # NAME:STREAM...
    for has_module_word in "$@"; do
        # dnf 5 keeps all modules in one file of TOML, dnf 4 has a file for each
        awk -v name="${has_module_word%%:*}" -v stream="${has_module_word#*:}" '
            { gsub(/[ "]/, "") }
            /^\[/ { here = ($0 == "[modules." name "]" || $0 == "[" name "]"); next }
            here && ($0 == "enabled_stream=" stream || $0 == "stream=" stream) { right = 1 }
            here && tolower($0) == "state=enabled" { enabled = 1 }
            END { exit !(right && enabled) }' "$(module_file "${has_module_word%%:*}")" 2>/dev/null || return 1
    done
}

module_file() { # NAME: where its state is kept
    if [ "$RPM_KIND" = dnf5 ]; then printf '%s' "$ROOT/usr/lib/sysimage/libdnf5/modules.toml"; else printf '%s' "$ROOT/etc/dnf/modules.d/$1.module"; fi
}

modules_are() { rpm_manager && has_module "$@"; }

modules_enable() { # NAME:STREAM...
    for modules_word in "$@"; do
        has_module "$modules_word" && continue
        modules_file=$(module_file "${modules_word%%:*}")
        case $RPM_KIND in dnf | dnf5) ;; *) why "$RPM_KIND knows no module streams, and ${modules_word} is wanted"; return 1 ;; esac
        keep "${modules_file#"$ROOT"}" || return 1
        # a stream is left by a reset, never switched
        if ! rpm_try rpm_tool module reset "${modules_word%%:*}" || ! rpm_try rpm_tool module enable "$modules_word"; then
            rpm_why "the module stream $modules_word cannot be enabled"
            return 1
        fi
        receipt file "${modules_file#"$ROOT"}" "$(sha256 "$modules_file")"
    done
}

# ---- one transaction

# WEAK(yes|no) ERASING(yes|no) MODULE... -- DISABLED-REPOSITORY... -- NAME[=VERSION]... -- REMOVE...
rpm_install() {
    rpm_manager || return 1
    rpm_weak=$1 rpm_erasing=$2
    shift 2
    for rpm_list in modules disabled install remove; do : >"$WORK/rpm.$rpm_list"; done
    rpm_list=modules
    for rpm_word in "$@"; do
        if [ "$rpm_word" = -- ]; then
            case $rpm_list in modules) rpm_list=disabled ;; disabled) rpm_list=install ;; *) rpm_list=remove ;; esac
        elif [ "$rpm_list" = install ]; then
            rpm_version=${rpm_word#*=}
            [ "$rpm_version" != "$rpm_word" ] || rpm_version=''
            rpm_version=$(version_wanted "$rpm_version") || { why "${rpm_word#*=@} is not installed, whose version ${rpm_word%%=*} must have"; return 1; }
            # what is as wanted is left alone: dnf and zypper would take it for the newest
            has_package "${rpm_word%%=*}" "$rpm_version" || printf '%s %s\n' "${rpm_word%%=*}" "$rpm_version" >>"$WORK/rpm.install"
        elif [ "$rpm_list" != remove ] || ! has_no_package "$rpm_word"; then
            printf '%s\n' "$rpm_word" >>"$WORK/rpm.$rpm_list"
        fi
    done
    [ ! -s "$WORK/rpm.remove" ] || rpm_erasing=yes
    { sed 's/ .*//' "$WORK/rpm.install"; cat "$WORK/rpm.remove"; } >"$WORK/rpm.wanted"
    wait_for_others rpm_busy || return 1
    own_holds >"$WORK/rpm.holds"
    while IFS= read -r rpm_word; do hold_release "$rpm_word" || return 1; done <"$WORK/rpm.holds"
    packages_begin
    rpm_install_rc=0
    set -f
    # shellcheck disable=SC2046  # names and streams hold no blanks; the renderer refuses others
    { modules_enable $(cat "$WORK/rpm.modules") && rpm_carry_out; } || rpm_install_rc=$?
    set +f
    [ "$rpm_install_rc" = 0 ] || put_back
    packages_settle
    while IFS= read -r rpm_word; do
        has_no_package "$rpm_word" || hold_set "$rpm_word" || return 1
    done <"$WORK/rpm.holds"
    return "$rpm_install_rc"
}

packages_everything() { # NAME EPOCH:VERSION-RELEASE of all that is installed
    rpm -qa --qf '%{NAME} %{EPOCHNUM}:%{VERSION}-%{RELEASE}\n' | grep -v '^gpg-pubkey ' | sort
}

rpm_words() { # install|remove FLAG: the arguments of that transaction, one a line
    while read -r rpm_name rpm_version; do
        case $RPM_KIND/$rpm_version in
            */ | */\*) printf '%s\n' "$rpm_name" ;;
            zypper/*) printf '%s=%s\n' "$rpm_name" "$(rpm_zypper_version "$rpm_name" "$rpm_version")" ;;
            tdnf/*) printf '%s=%s\n' "$rpm_name" "$(rpm_tdnf_version "$rpm_name" "$rpm_version")" ;;
            *) printf '%s-%s\n' "$rpm_name" "$rpm_version" ;;
        esac
    done <"$WORK/rpm.install"
    [ "$RPM_KIND" != zypper ] || sed 's/^/!/' "$WORK/rpm.remove"
}

rpm_zypper_version() { # NAME WANTED: the newest version that is offered and fits; zypper has no patterns of its own
    "$RPM_TOOL" --non-interactive --xmlout search -s --match-exact --type package "$1" 2>/dev/null |
        sed -n 's/.*<solvable .*edition="\([^"]*\)".*/\1/p' >"$WORK/rpm.offered"
    while IFS= read -r rpm_offered; do
        case $rpm_offered in *:*) rpm_full=$rpm_offered ;; *) rpm_full=0:$rpm_offered ;; esac
        if version_is "$rpm_full" "$2"; then
            printf '%s' "$rpm_offered"
            return 0
        fi
    done <"$WORK/rpm.offered"
    printf '%s' "$2"
}

rpm_tdnf_version() { # NAME WANTED: as for zypper; tdnf wants all of an exact version, with its epoch
    "$RPM_TOOL" list "$1" 2>/dev/null | awk -v name="$1." 'index($1, name) == 1 && $3 != "@System" { print $2 }' | sort -V >"$WORK/rpm.offered"
    rpm_full=''
    while IFS= read -r rpm_offered; do
        case $rpm_offered in *:*) ;; *) rpm_offered=0:$rpm_offered ;; esac
        if version_is "$rpm_offered" "$2"; then rpm_full=${rpm_offered#0:}; fi
    done <"$WORK/rpm.offered"
    printf '%s' "${rpm_full:-${2%\*}}"
}

rpm_options() { # one a line
    case $RPM_KIND in
        zypper)
            if [ "$rpm_weak" = yes ]; then printf '%s\n' --recommends; else printf '%s\n' --no-recommends; fi
            printf '%s\n' --oldpackage --auto-agree-with-licenses
            ;;
        dnf | dnf5)
            printf '%s\n' --setopt=clean_requirements_on_remove=0
            if [ "$rpm_weak" = yes ]; then printf '%s\n' --setopt=install_weak_deps=1; else printf '%s\n' --setopt=install_weak_deps=0; fi
            [ "$rpm_erasing" = no ] || printf '%s\n' --allowerasing
            ;;
        tdnf) [ "$rpm_erasing" = no ] || printf '%s\n' --allowerasing ;;
        yum) printf '%s\n' --setopt=clean_requirements_on_remove=0 ;;
    esac
    [ "$RPM_KIND" = zypper ] || sed 's/^/--disablerepo=/' "$WORK/rpm.disabled"
}

rpm_possible() { # VERB OPTION-OR-WORD...: would it work? What it would remove is in rpm.lost
    rpm_possible_verb=$1
    shift
    rpm_possible_rc=0
    if [ "$RPM_KIND" = zypper ]; then
        "$RPM_TOOL" --non-interactive --xmlout "$rpm_possible_verb" --dry-run "$@" >"$WORK/rpm.out" 2>&1 || rpm_possible_rc=$?
        sed -n '/<to-remove>/,/<\/to-remove>/s/.*<solvable type="[a-z]*" name="\([^"]*\)".*/\1/p' "$WORK/rpm.out" >"$WORK/rpm.lost"
        if rpm_zypper_fine "$rpm_possible_rc"; then return 0; fi
        # the same in words that a person reads
        "$RPM_TOOL" --non-interactive "$rpm_possible_verb" --dry-run "$@" >"$WORK/rpm.out" 2>&1
        return 1
    fi
    "$RPM_TOOL" --assumeno "$rpm_possible_verb" "$@" >"$WORK/rpm.out" 2>&1 || rpm_possible_rc=$?
    if [ "$RPM_KIND" = tdnf ]; then
        awk '/^[A-Z][a-z]*:$/ { removing = /^(Removing|Obsoleting):/; next }
            NF < 5 { removing = 0 }
            removing { print $1 }' "$WORK/rpm.out" | sort -u >"$WORK/rpm.lost"
        [ "$rpm_possible_rc" = 0 ] || grep -q 'Operation aborted' "$WORK/rpm.out"
        return
    fi
    awk '
        /^Removing|^Erasing/ { removing = 1; next }
        /^[A-Z]/ { removing = 0 }
        /^ [^ ]/ { last = $1; if (removing) print $1; else stays[$1] = 1 }
        /^ +replacing / { name = $2; sub(/\.(x86_64|aarch64|noarch|i[3-6]86)$/, "", name); if (name != last) lost[name] = 1 }
        END { for (name in lost) if (!(name in stays)) print name }' "$WORK/rpm.out" | sort -u >"$WORK/rpm.lost"
    [ "$rpm_possible_rc" = 0 ] || grep -Eq '^Operation aborted|Exiting on user command' "$WORK/rpm.out"
}

rpm_zypper_fine() { # RC: done; also with a reboot, a restart of zypper or skipped repositories to tell of
    case $1 in 0 | 100 | 101 | 102 | 103 | 106) ;; *) return 1 ;; esac
}

rpm_nothing_else() { # what would go is named
    rpm_lost=$(grep -Fvx -f "$WORK/rpm.remove" "$WORK/rpm.lost" | tr '\n' ' ')
    [ -n "$rpm_lost" ] || return 0
    why "refused: ${RPM_TOOL##*/} would also remove ${rpm_lost% }"
}

rpm_do() { # VERB WORD...
    rpm_do_rc=0
    rpm_try rpm_tool "$@" || rpm_do_rc=$?
    if [ "$RPM_KIND" = zypper ]; then rpm_zypper_fine "$rpm_do_rc"; else return "$rpm_do_rc"; fi
}

rpm_refresh_all() {
    RPM_IN_TIME=in_time
    rpm_refresh_every
    rpm_refresh_all_rc=$?
    RPM_IN_TIME=''
    return "$rpm_refresh_all_rc"
}

rpm_refresh_every() {
    RPM_STALE=''
    case $RPM_KIND in
        zypper) rpm_try rpm_tool refresh ;;
        yum) rpm_try rpm_tool clean expire-cache && rpm_try rpm_tool makecache fast ;;
        *) rpm_try rpm_tool --refresh makecache ;;
    esac && return 0
    # not an end in itself: what is to be installed may be there all the same
    RPM_STALE=yes
    note "some package indexes could not be refreshed"
}

rpm_carry_out() {
    if [ "$RPM_KIND" = zypper ] && [ -s "$WORK/rpm.disabled" ]; then
        why "zypper cannot leave out the repository $(head -n 1 "$WORK/rpm.disabled") for one transaction"
        return 1
    fi
    # shellcheck disable=SC2046  # the renderer refuses names and versions with blanks
    set -- $(rpm_options)
    rpm_first=''
    if [ "$RPM_KIND" = yum ] && [ -s "$WORK/rpm.remove" ]; then
        # it has no option to do both in one transaction, so what is in the way goes first
        rpm_left=$(cat "$WORK/rpm.remove")
        # shellcheck disable=SC2086
        rpm_possible remove --setopt=clean_requirements_on_remove=0 $rpm_left || { cat "$WORK/rpm.out"; rpm_why "yum cannot remove this"; return 1; }
        rpm_nothing_else && rpm_remove "$rpm_left" || return 1
        : >"$WORK/rpm.remove"
    fi
    # an index that is there is good enough for a first try, whatever its age
    case $RPM_KIND in dnf | dnf5) rpm_first='--setopt=*.metadata_expire=-1' ;; esac
    if [ -s "$WORK/rpm.install" ] || { [ "$RPM_KIND" = zypper ] && [ -s "$WORK/rpm.remove" ]; }; then
        # shellcheck disable=SC2046
        if ! rpm_possible install ${rpm_first:+"$rpm_first"} "$@" $(rpm_words); then
            cat "$WORK/rpm.out"
            rpm_first=''
            rpm_refresh_all || return 1
            rpm_possible install "$@" $(rpm_words) || { cat "$WORK/rpm.out"; rpm_why "${RPM_TOOL##*/} cannot install this"; return 1; }
        fi
        rpm_nothing_else || return 1
        cp "$WORK/rpm.lost" "$WORK/rpm.gone"
    else
        : >"$WORK/rpm.gone"
    fi
    # what is to go and is in nobody's way goes by itself, once that is known to take nothing else along
    rpm_left=''
    if [ "$RPM_KIND" != zypper ]; then rpm_left=$(grep -Fvx -f "$WORK/rpm.gone" "$WORK/rpm.remove"); fi
    if [ -n "$rpm_left" ]; then
        # shellcheck disable=SC2086
        rpm_possible remove --setopt=clean_requirements_on_remove=0 $rpm_left || { cat "$WORK/rpm.out"; rpm_why "${RPM_TOOL##*/} cannot remove this"; return 1; }
        rpm_nothing_else || return 1
    fi
    if [ -s "$WORK/rpm.install" ] || { [ "$RPM_KIND" = zypper ] && [ -s "$WORK/rpm.remove" ]; }; then
        # shellcheck disable=SC2046
        if ! rpm_do install ${rpm_first:+"$rpm_first"} "$@" $(rpm_words); then
            grep -Eq 'Status code: 404|HTTP Error 404|not found on medium|hecksum|Usable URL not found' "$WORK/rpm.out" || { rpm_why "${RPM_TOOL##*/} failed"; return 1; }
            note "the package lists were out of date; refreshing them"
            rpm_refresh_all || return 1
            rpm_do install "$@" $(rpm_words) || { rpm_why "${RPM_TOOL##*/} failed"; return 1; }
        fi
    fi
    [ -z "$rpm_left" ] || rpm_remove "$rpm_left"
}

rpm_remove() { # NAMES
    # shellcheck disable=SC2086
    rpm_do remove --setopt=clean_requirements_on_remove=0 $1 || { rpm_why "${RPM_TOOL##*/} failed to remove $(printf '%s' "$1" | tr '\n' ' ')"; return 1; }
}

# ---- a transaction that was cut off

# rpm writes a package down before it runs the package's own script, and takes an older version away after that; nothing says how far it came.
rpm_mend() { # what a killed run's transaction had brought is done again, as long as that run's note of what was there before is
    [ -s "$STATE/pending/run" ] && [ -e "$STATE/pending/packages" ] || return 0
    rpm_manager && wait_for_others rpm_busy || return 1
    if ! rpm -qa >/dev/null 2>&1; then
        note "the database of rpm is damaged; running rpm --rebuilddb"
        rpm --rebuilddb || { why "the database of rpm is damaged, and rpm --rebuilddb fails"; return 1; }
    fi
    packages_everything >"$WORK/rpm.now"
    grep -Fvx -f "$STATE/pending/packages" "$WORK/rpm.now" >"$WORK/rpm.came"
    if [ -s "$WORK/rpm.came" ]; then
        note "package work was cut off before; doing again what it brought: $(sed 's/ .*//' "$WORK/rpm.came" | sort -u | tr '\n' ' ')"
        while read -r rpm_mend_name rpm_mend_version; do
            # kernels and their kind are there several times on purpose
            rpm -q --provides "$rpm_mend_name" 2>/dev/null | grep -Eq '^(installonlypkg|multiversion)\(' && continue
            case $rpm_mend_name in kernel*) continue ;; esac
            rpm_reinstall "$rpm_mend_name" "$rpm_mend_version" ||
                note "$rpm_mend_name cannot be installed again, so what its own scripts do when it is installed may be missing"
            package_versions "$rpm_mend_name" | grep -Fvx -e "$rpm_mend_version" | while IFS= read -r rpm_mend_old; do
                rpm -e --nodeps "$rpm_mend_name-${rpm_mend_old#*:}" </dev/null || note "the older $rpm_mend_name could not be taken away"
            done
        done <"$WORK/rpm.came"
    fi
    packages_settle
}

rpm_reinstall() { # NAME EPOCH:VERSION-RELEASE
    case $RPM_KIND in
        zypper) rpm_do install --force --no-recommends --oldpackage "$1=${2#0:}" ;;
        *) rpm_do reinstall "$1-${2#*:}" ;;
    esac
}

# ---- holds

hold_file() { # where the package manager keeps what it must not change
    case $RPM_KIND in
        dnf) hold_path=/etc/dnf/plugins/versionlock.list hold_conf=/etc/dnf/plugins/versionlock.conf ;;
        yum) hold_path=/etc/yum/pluginconf.d/versionlock.list hold_conf=/etc/yum/pluginconf.d/versionlock.conf ;;
        dnf5) hold_path=/etc/dnf/versionlock.toml hold_conf='' ;;
        zypper) hold_path=/etc/zypp/locks hold_conf='' ;;
        tdnf) hold_path=/etc/tdnf/locks.d/mlhost.conf hold_conf='' ;;
    esac
    hold_said=$(sed -n 's/^[[:space:]]*locklist[[:space:]]*=[[:space:]]*//p' "$ROOT$hold_conf" 2>/dev/null | tail -n 1)
    case $hold_said in /*) hold_path=$hold_said ;; esac
    printf '%s' "$hold_path"
}

holds_now() { # the names of the packages that are held
    rpm_manager || return 1
    holds_now_file=$ROOT$(hold_file)
    [ -f "$holds_now_file" ] || return 0
    case $RPM_KIND in
        dnf) sed -n -e '/^[#!]/d' -e 's/^\(.*\)-[0-9]*:[^-]*-[^-]*$/\1/p' "$holds_now_file" ;;
        yum) sed -n -e '/^[#!]/d' -e 's/^[0-9]*:\(.*\)-[^-]*-[^-]*$/\1/p' "$holds_now_file" ;;
        dnf5) sed -n 's/^name *= *"\(.*\)"$/\1/p' "$holds_now_file" ;;
        zypper) sed -n 's/^solvable_name: *//p' "$holds_now_file" ;;
        tdnf) grep -v '^#' "$holds_now_file" ;;
    esac
    return 0
}

held() { # NAME...
    holds_now >"$WORK/rpm.held" || return 1
    for held_name in "$@"; do grep -Fxq -e "$held_name" "$WORK/rpm.held" || return 1; done
}

hold_write() { # NAMES: the whole of tdnf's file. The holds have receipts of their own, so the file needs none
    if [ -z "$1" ]; then
        rm -f "$ROOT$(hold_file)"
        return
    fi
    hold_write_receipts=$RECEIPTS RECEIPTS=/dev/null hold_write_rc=0
    put "$(hold_file)" 0644 root:root "$1
" || hold_write_rc=$?
    RECEIPTS=$hold_write_receipts
    return "$hold_write_rc"
}

hold_set() { # NAME: at the version that is installed
    case $RPM_KIND in
        zypper) rpm_try rpm_tool addlock "$1" ;;
        tdnf) hold_write "$({ holds_now; printf '%s\n' "$1"; } | sort -u)" ;;
        *) rpm_try rpm_tool versionlock add "$1" ;;
    esac && return 0
    if grep -Eiq 'No such command|Unknown argument|Unknown command' "$WORK/rpm.out"; then
        why "${RPM_TOOL##*/} has no versionlock on this host: its plugin is to be installed first"
        return 1
    fi
    rpm_why "${RPM_TOOL##*/} cannot hold $1"
}

hold_release() { # NAME
    rpm_manager || return 1
    case $RPM_KIND in
        zypper) rpm_try rpm_tool removelock "$1" ;;
        tdnf) hold_write "$(holds_now | grep -Fvx -e "$1")" ;;
        *) rpm_try rpm_tool versionlock delete "$1" ;;
    esac || rpm_why "${RPM_TOOL##*/} cannot release $1"
}

hold() { # NAME...
    rpm_manager || return 1
    for hold_name in "$@"; do
        held "$hold_name" && continue
        has_package "$hold_name" || { why "$hold_name is not installed and cannot be held at its version"; return 1; }
        hold_set "$hold_name" || return 1
        receipt hold "$hold_name"
    done
}

own_holds() { # the holds on packages of this transaction that an earlier run of ours has set
    holds_now | sort -u | while IFS= read -r own_holds_name; do
        # kernel-devel-5.10.1-2.amzn2.x86_64 is a kernel-devel
        grep -Eq "^$(quoted_for_grep "$own_holds_name")(-[0-9][^ ]*)?( |\$)" "$WORK/rpm.install" || grep -Fxq -e "$own_holds_name" "$WORK/rpm.remove" || continue
        if grep -Eq "^[^	]*	hold	(.*	)?$(quoted_for_grep "$own_holds_name")(	|\$)" "$STATE/receipts" 2>/dev/null; then
            printf '%s\n' "$own_holds_name"
        fi
    done
}

# ---- what a rollback needs of a package manager; apt.sh has the same

packages_change() { rpm_install no no -- -- "$@"; } # INSTALL... -- REMOVE...

package_purged() { return 0; } # rpm knows no half removed packages

packages_purge() { :; }

package_told() { # NAME: NAME STATE VERSION CONFFILES
    package_told_version=$(package_versions "$1" | tail -n 1) || return 0
    [ -z "$package_told_version" ] || printf '%s\tinstalled\t%s\tclean\n' "$1" "$package_told_version"
}

rpm_listed() { # NAME: NAME EPOCH:VERSION-RELEASE of what is not installed, out of a list of NAME.ARCH, version and repository
    awk -v name="$1" 'index($1, name ".") == 1 && NF >= 3 && $3 !~ /^@/ { print name, (index($2, ":") ? $2 : "0:" $2) }'
}

packages_offered() { # FILE of names: NAME VERSION of what the sources have, as far as that is known without fetching anything
    rpm_manager || return 0
    while IFS= read -r packages_offered_name; do
        case $RPM_KIND in
            dnf | dnf5)
                # dnf 4 ends each line by itself, dnf 5 does as it is told
                "$RPM_TOOL" -q -C repoquery --qf '%{name} %{epoch}:%{version}-%{release}\n' "$packages_offered_name" 2>/dev/null </dev/null
                ;;
            zypper)
                "$RPM_TOOL" --no-refresh --non-interactive --xmlout search -s --match-exact --type package "$packages_offered_name" 2>/dev/null |
                    sed -n 's/.*<solvable .*edition="\([^"]*\)".*/\1/p' | sed -e '/:/!s/^/0:/' -e "s/^/$packages_offered_name /"
                ;;
            yum) "$RPM_TOOL" -q -C --showduplicates list available "$packages_offered_name" 2>/dev/null </dev/null | rpm_listed "$packages_offered_name" ;;
            tdnf) "$RPM_TOOL" list "$packages_offered_name" 2>/dev/null </dev/null | rpm_listed "$packages_offered_name" ;;
        esac | awk -v name="$packages_offered_name" '$1 == name { print name "\t" $2 }'
    done <"$1" | sort -u
}

packages_in_the_way() { :; } # the transaction itself says so before it begins

manager_name() { rpm_manager && printf '%s %s' "$RPM_KIND" "$(uname -m)"; }
