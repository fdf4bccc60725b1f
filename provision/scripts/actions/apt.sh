# apt and dpkg: refreshing one source, one transaction. It needs others.sh.

apt_busy() { # who is in the way and with what; fails if nobody is
    if cloud_init_busy; then
        printf 'cloud-init is still setting up this machine'
        return 0
    fi
    set -- /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock
    # nearly always nobody is, and one look at all of them says so
    apt_busy_inodes=$(stat -c '-e :%i' "$ROOT$1" "$ROOT$2" "$ROOT$3" "$ROOT$4" 2>/dev/null)
    # shellcheck disable=SC2086  # an option and a number in each line
    [ -n "$apt_busy_inodes" ] && grep -q $apt_busy_inodes "${MLHOST_PROC_LOCKS:-/proc/locks}" 2>/dev/null || return 1
    for apt_busy_file in "$@"; do
        if apt_busy_name=$(lock_holder "$ROOT$apt_busy_file"); then
            printf '%s holds %s' "$apt_busy_name" "$apt_busy_file"
            return 0
        fi
    done
    return 1
}

apt_wait() { wait_for_others apt_busy; }

APT_STALE='' APT_DOWNGRADES='' APT_PINS=''

apt_said() { # COMMAND...: run it, its words go to the log and to a file
    {
        apt_said_rc=0
        "$@" 2>&1 || apt_said_rc=$?
        printf '%s\n' "$apt_said_rc" >"$WORK/apt.rc"
    } | tee "$WORK/apt.out"
    return "$(cat "$WORK/apt.rc")"
}

apt_lock_lost() { grep -Eq 'Could not get lock|Unable to (acquire|lock) ' "$WORK/apt.out"; }

apt_try() { # COMMAND...: with a wait before it, again when somebody was faster
    while :; do
        apt_wait || return 1
        apt_try_rc=0
        apt_said "$@" || apt_try_rc=$?
        [ "$apt_try_rc" != 0 ] && apt_lock_lost && [ "$WAITED" -lt "$LOCK_WAIT" ] || return "$apt_try_rc"
        WAITED=$((WAITED + 1))
        pause
    done
}

apt_why() { # TEXT: with apt's own first complaint
    # who was in the way has been told already
    case $(reason) in waited*) return 1 ;; esac
    # whatever else it says, it comes of that
    apt_why_line=$(grep -E 'No space left on device|Read-only file system|enough free space' "$WORK/apt.out" | head -n 1 | sed 's/^ *//')
    [ -n "$apt_why_line" ] || apt_why_line=$(grep -E '^E: ' "$WORK/apt.out" | grep -Ev 'Some index files failed|^E: Sub-process' | head -n 1)
    case $apt_why_line in
        *'held broken packages'* | *'unmet dependencies'* | '')
            # which package, and what it lacks, says more than that there is something
            apt_why_depends=$(grep -E '^ *[^ ]+ : (Pre-)?Depends: ' "$WORK/apt.out" | head -n 1 | sed 's/^ *//')
            [ -z "$apt_why_depends" ] || apt_why_line="E: $apt_why_depends"
            ;;
    esac
    [ -n "$apt_why_line" ] || apt_why_line=$(grep -E '^W: (GPG error|OpenPGP|Failed to fetch|An error occurred)' "$WORK/apt.out" | head -n 1)
    # the line after it says what the error was
    [ -n "$apt_why_line" ] || apt_why_line=$(grep -E -A 1 '^Err:[0-9]+ ' "$WORK/apt.out" | head -n 2 | tr -s '\n ' ' ')
    [ -n "$apt_why_line" ] || apt_why_line=$(grep -E '^E: |^dpkg: error' "$WORK/apt.out" | head -n 1)
    # that it is not signed is only half of it: by whom not, or that the key has expired, is said elsewhere
    case $apt_why_line in *'is not signed'*) apt_why_line="$apt_why_line $(grep -E '^[EW]: (GPG error|OpenPGP)' "$WORK/apt.out" | head -n 1)" ;; esac
    case $apt_why_line in *'came within'*) apt_why_line="$apt_why_line; the last was $(grep -E '^(Get|Hit|Ign):' "$WORK/apt.out" | tail -n 1)" ;; esac
    why "$1${apt_why_line:+: $apt_why_line}${APT_STALE:+ (and the package lists could not be refreshed: $APT_STALE)}"
}

apt_source() { # PATH ARGUMENT...: apt-get that knows this one source file only
    apt_source_path=$ROOT$1
    shift
    in_time apt-get -q -o "Dir::Etc::sourcelist=$apt_source_path" -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 "$@"
}

apt_refreshed() { # PATH: every part of this source has been fetched
    # shellcheck disable=SC2016  # apt's own placeholder
    [ -n "$(apt_source "$1" indextargets --format '$(FILENAME)' 'Created-By: Packages' 2>/dev/null)" ]
}

apt_lists() { find "$ROOT/var/lib/apt/lists" -maxdepth 1 -type f ! -name lock -exec basename {} \; 2>/dev/null | sort; }

apt_refresh() { # PATH: fetch this source's index; apt itself would only warn and exit 0 where it has an older one
    apt_lists >"$WORK/apt.lists"
    # Error-Mode exists since apt 2.1; older ones ignore it, so their words are read too
    apt_try apt_source "$1" update -o APT::Update::Error-Mode=any -o Acquire::Retries=3 || {
        apt_why "the package index of $1 cannot be fetched"
        return 1
    }
    if grep -Eq '^(E: |Err:|W: (GPG error|Failed to fetch|An error occurred|Some index files|The repository ))' "$WORK/apt.out"; then
        apt_why "the package index of $1 cannot be fetched"
        return 1
    fi
    # one source that contradicts another stops apt altogether
    if apt-get -q indextargets >/dev/null 2>"$WORK/apt.out"; then
        apt_lists | grep -Fvx -f "$WORK/apt.lists" | while IFS= read -r apt_refresh_file; do receipt cache "/var/lib/apt/lists/$apt_refresh_file"; done
        return 0
    fi
    cat "$WORK/apt.out"
    apt_why "apt cannot read its sources together with $1"
}

package_state() { # NAME: "installed VERSION", or other words, or nothing
    # shellcheck disable=SC2016  # dpkg's own placeholder
    dpkg-query -W -f '${db:Status-Status} ${Version}\n' "$1" 2>/dev/null
}

has_package() { # NAME [VERSION, or its beginning and *]
    has_package_state=$(package_state "$1")
    case $has_package_state in "installed "*) ;; *) return 1 ;; esac
    case ${2:-} in
        '') ;;
        *\*) case $has_package_state in "installed ${2%\*}"*) ;; *) return 1 ;; esac ;;
        *) [ "$has_package_state" = "installed $2" ] ;;
    esac
}

has_no_package() { # NAME...
    for has_no_name in "$@"; do
        case $(package_state "$has_no_name") in '' | not-installed* | config-files*) ;; *) return 1 ;; esac
    done
}

# shellcheck disable=SC2016  # dpkg's own placeholder
dpkg_sound() { # no package is half done. `dpkg --audit` would also name those that merely lack checksums, which no repair gives them
    [ -z "$(find "$ROOT/var/lib/dpkg/updates" -type f -name '[0-9]*' 2>/dev/null | head -n 1)" ] &&
        ! dpkg-query -W -f '${db:Status-Abbrev}\n' 2>/dev/null | grep -Eq '^.[UFHWt]|^..R'
}

# shellcheck disable=SC2016
dpkg_repair() { # finish what a killed dpkg left behind; it does nothing where nothing was
    apt_wait || return 1
    if dpkg_sound; then return 0; fi
    note "dpkg was interrupted before; running dpkg --configure -a"
    dpkg_repair_rc=0
    apt_try dpkg --force-confdef --force-confold --configure -a || dpkg_repair_rc=$?
    if [ "$dpkg_repair_rc" != 0 ] || ! dpkg_sound; then dpkg_again || return 1; fi
    # only now is it known what the transaction that was cut off has brought
    packages_settle
}

dpkg_again() { # install what is half installed
    # what was cut off while it was unpacked can only be unpacked again
    dpkg-query -W -f '${db:Status-Abbrev} ${binary:Package}\n' 2>/dev/null | sed -n 's/^..R *//p' >"$WORK/apt.half"
    note "cut off while they were unpacked, so they are installed again: $(tr '\n' ' ' <"$WORK/apt.half")"
    dpkg_reinstall || { apt_update_all && dpkg_reinstall; } || apt_why "what was left half installed cannot be installed again"
}

dpkg_reinstall() {
    # shellcheck disable=SC2046  # package names hold no blanks
    [ ! -s "$WORK/apt.half" ] || apt_try apt_transaction --no-remove --reinstall install $(cat "$WORK/apt.half") || return 1
    dpkg_sound || apt_try apt_transaction --no-remove --fix-broken install
}

apt_transaction() { # ARGUMENT...: apt-get install with the options of every transaction
    apt-get -y -q -o "DPkg::Lock::Timeout=$LOCK_WAIT" -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold ${APT_PINS:+-o "Dir::Etc::preferences=$APT_PINS"} "$@"
}

apt_locked() { # NAME VERSION SHA256...: of these packages only these versions, and of those only these files
    : >"$WORK/apt.locked"
    while [ $# -ge 3 ]; do
        printf '%s %s %s\n' "$1" "$2" "$3"
        shift 3
    done >"$WORK/apt.all"
    while read -r apt_locked_name apt_locked_version apt_locked_sum; do
        has_package "$apt_locked_name" "$apt_locked_version" || printf '%s %s %s\n' "$apt_locked_name" "$apt_locked_version" "$apt_locked_sum" >>"$WORK/apt.locked"
    done <"$WORK/apt.all"
    apt_wait || return 1
    apt_listed && [ -z "$(apt_locked_wrong)" ] || apt_update_all || return 1
    apt_locked_said=$(apt_locked_wrong)
    if [ -n "$apt_locked_said" ]; then
        why "not as locked: $apt_locked_said"
        return 1
    fi
    # below 1000, so that nothing is taken back to an older version for it
    { cat "$ROOT/etc/apt/preferences" 2>/dev/null && echo; awk '{ printf "Package: %s\nPin: version %s\nPin-Priority: 999\n\n", $1, $2 }' "$WORK/apt.all"; } >"$WORK/apt.pins"
    APT_PINS=$WORK/apt.pins
}

apt_locked_wrong() { # the first package that is wanted and is not to be had as it is locked, in words
    [ -s "$WORK/apt.locked" ] || return 0
    # shellcheck disable=SC2046  # package names hold no blanks
    apt-cache show $(cut -d' ' -f1 "$WORK/apt.locked") 2>/dev/null | awk '
        NR == FNR { version[$1] = $2; sum[$1] = $3; next }
        $1 == "Package:" { name = $2; at = "" }
        $1 == "Version:" { at = $2 }
        $1 == "SHA256:" && (name in version) && at == version[name] { if ($2 == sum[name]) same[name] = 1; else other[name] = $2 }
        END {
            for (name in version) {
                if (name in same) continue
                if (name in other) print name " " version[name] " is another file (" other[name] ") than the locked one"
                else print name " " version[name] " is in no package source"
            }
        }' "$WORK/apt.locked" - | sort | head -n 1
}

# What names and describes packages in other words, and their source code, is of no use to an installation, and it is a third of all there is to fetch and
# to unpack. What there is of it already stays as it is.
apt_update_all() {
    APT_STALE=''
    apt_try in_time apt-get -q update -o Acquire::Retries=3 -o Acquire::Languages=none -o APT::Get::List-Cleanup=0 \
        -o Acquire::IndexTargets::deb-src::Sources::DefaultEnabled=false && ! grep -Eq '^(Err:|W: Failed to fetch)' "$WORK/apt.out" && return 0
    # not an end in itself: what is to be installed may be there all the same
    APT_STALE=$(grep -E '^(E|W): ' "$WORK/apt.out" | head -n 1)
    note "some package indexes could not be refreshed${APT_STALE:+: $APT_STALE}"
}

apt_possible() { # ARGUMENT...: would it work?
    apt_transaction -s "$@" >"$WORK/apt.out" 2>&1
}

apt_listed() { # apt has the list of at least one source
    for apt_listed_file in "$ROOT"/var/lib/apt/lists/*Packages*; do
        [ ! -e "$apt_listed_file" ] || return 0
    done
    return 1
}

apt_outdated() { # that is what the last transaction failed of
    grep -Eq '404 +Not Found|Unable to fetch some archives|Hash Sum mismatch' "$WORK/apt.out"
}

apt_planned() { # the last transaction failed after apt knew what to do
    grep -q '^[0-9][0-9]* upgraded, ' "$WORK/apt.out"
}

apt_install() { # RECOMMENDS(yes|no) INSTALL... -- REMOVE...: one transaction that removes nothing that is not named
    apt_install_recommends=--no-install-recommends
    [ "$1" = no ] || apt_install_recommends=--install-recommends
    shift
    : >"$WORK/apt.args"
    : >"$WORK/apt.remove"
    apt_install_list=args
    for apt_install_word in "$@"; do
        if [ "$apt_install_word" = -- ]; then
            apt_install_list=remove
        elif [ "$apt_install_list" = args ]; then
            printf '%s\n' "$apt_install_word" >>"$WORK/apt.args"
        elif ! has_no_package "$apt_install_word"; then
            printf '%s\n' "$apt_install_word" >>"$WORK/apt.remove"
        fi
    done
    # a trailing minus is apt's word for "and remove this one", so that all happens in one transaction
    sed 's/$/-/' "$WORK/apt.remove" >>"$WORK/apt.args"
    set -f
    # shellcheck disable=SC2046  # package names and versions hold no blanks; the renderer refuses others
    set -- install ${APT_DOWNGRADES:+"$APT_DOWNGRADES"} "$apt_install_recommends" $(cat "$WORK/apt.args")
    set +f
    dpkg_repair || return 1
    : >"$WORK/apt.holds"
    if grep -q '	hold	' "$STATE/receipts" 2>/dev/null; then own_holds >"$WORK/apt.holds"; fi
    own_holds_set unhold || return 1
    apt_install_rc=0
    packages_begin
    apt_carry_out "$@" || apt_install_rc=$?
    packages_settle
    own_holds_set hold || return 1
    return "$apt_install_rc"
}

own_holds() { # the holds on packages of this transaction that an earlier run of ours has set
    apt-mark showhold 2>/dev/null | while IFS= read -r own_holds_name; do
        grep -Eq "^$(quoted_for_grep "$own_holds_name")(=.*)?-?\$" "$WORK/apt.args" || continue
        if grep -Eq "^[^	]*	hold	(.*	)?$(quoted_for_grep "$own_holds_name")(	|\$)" "$STATE/receipts" 2>/dev/null; then
            printf '%s\n' "$own_holds_name"
        fi
    done
}

own_holds_set() { # hold|unhold
    while IFS= read -r own_holds_name; do
        apt-mark "$1" "$own_holds_name" || { why "apt-mark $1 $own_holds_name failed"; return 1; }
    done <"$WORK/apt.holds"
}

apt_carry_out() { # ARGUMENT...
    apt_fresh=no
    if [ ! -s "$WORK/apt.remove" ]; then
        # a fresh cloud image has no package lists at all
        apt_listed || { apt_update_all && apt_fresh=yes; } || return 1
        # apt itself refuses to remove anything, before it changes anything; to ask it first what it would do costs as much again
        while :; do
            if apt_try apt_transaction --no-remove "$@"; then
                return 0
            elif grep -q 'remove is disabled' "$WORK/apt.out"; then
                break
            elif apt_outdated && [ "$apt_fresh" = no ]; then
                note "the package lists were out of date; refreshing them"
            elif apt_planned; then
                apt_why "apt failed"
                return 1
            elif [ "$apt_fresh" = yes ]; then
                break
            fi
            # an old image has old lists
            apt_update_all || return 1
            apt_fresh=yes
        done
        # nothing has been changed: what is in the way is found out below
    fi
    if ! apt_possible "$@"; then
        if [ "$apt_fresh" = yes ] || ! apt_update_all || ! apt_possible "$@"; then
            cat "$WORK/apt.out"
            apt_why "apt cannot install this"
            return 1
        fi
    fi
    apt_install_lost=$(sed -n 's/^Remv \([^ ]*\) .*/\1/p' "$WORK/apt.out" | while IFS= read -r apt_install_name; do
        grep -Fxq -e "$apt_install_name" -e "${apt_install_name%%:*}" "$WORK/apt.remove" || printf '%s ' "$apt_install_name"
    done)
    if [ -n "$apt_install_lost" ]; then
        why "refused: apt would also remove ${apt_install_lost% }"
        return 1
    fi
    if ! apt_try apt_transaction "$@"; then
        if ! apt_outdated; then
            apt_why "apt failed"
            return 1
        fi
        note "the package lists were out of date; refreshing them"
        apt_update_all || return 1
        apt_try apt_transaction "$@" || { apt_why "apt failed"; return 1; }
    fi
}

held() { # NAME...
    apt-mark showhold >"$WORK/apt.held" 2>/dev/null || return 1
    for held_name in "$@"; do grep -Fxq -e "$held_name" "$WORK/apt.held" || return 1; done
}

hold() { # NAME...
    intend hold "$@" || return 1
    apt-mark hold "$@" || { why "apt-mark hold failed"; return 1; }
    receipt hold "$@"
}

packages_everything() { # NAME VERSION STATE of all that dpkg knows of
    # shellcheck disable=SC2016  # dpkg's own placeholder
    # one that was cut off while it was unpacked has no version yet
    dpkg-query -W -f '${binary:Package} ${Version} ${db:Status-Status}\n' 2>/dev/null | sed 's/^\([^ ]*\)  /\1 - /'
}

# What a rollback needs of a package manager; rpm.sh has the same.

holds_now() { apt-mark showhold 2>/dev/null; }

hold_release() { apt-mark unhold "$1" || why "apt-mark unhold $1 failed"; }

packages_change() { # INSTALL... -- REMOVE...
    APT_DOWNGRADES=--allow-downgrades
    apt_install no "$@"
}

package_purged() { case $(package_state "$1") in '' | not-installed*) ;; *) return 1 ;; esac; } # NAME

packages_purge() { # NAME...: only what is removed already; its unchanged settings, and what its scripts remember
    for packages_purge_name in "$@"; do
        case $(package_state "$packages_purge_name") in config-files*) ;; *) continue ;; esac
        # Debian's docker.io deletes all of Docker's data when it is purged, by this script that its removal has put there
        rm -f "$ROOT/var/lib/docker/nuke-graph-directory.sh" || { why "cannot protect Docker's data from a purge"; return 1; }
        apt_try dpkg --purge "$packages_purge_name" || { apt_why "the settings of $packages_purge_name could not be removed"; return 1; }
    done
}

package_told() { # NAME: NAME STATE VERSION CONFFILES; "keep" where purging would delete containers' data in a way that packages_purge does not know
    package_told_state=$(package_state "$1")
    [ -n "$package_told_state" ] || return 0
    package_told_info=$ROOT/var/lib/dpkg/info/$1
    [ -e "$package_told_info.list" ] || package_told_info=$package_told_info:$(dpkg --print-architecture)
    if grep -Es '/var/lib/(docker|containerd)' "$package_told_info.postrm" | grep -qv '/var/lib/docker/nuke-graph-directory[.]sh'; then
        package_told_files=keep
    elif package_settings_changed "$1"; then
        package_told_files=changed
    else
        package_told_files=clean
    fi
    printf '%s\t%s\t%s\t%s\n' "$1" "${package_told_state%% *}" "${package_told_state#* }" "$package_told_files"
}

package_settings_changed() { # NAME: a settings file of it is no more as it was shipped
    # shellcheck disable=SC2016  # dpkg's own placeholder
    dpkg-query -W -f '${Conffiles}\n' "$1" 2>/dev/null | while read -r package_file package_md5 package_more; do
        if [ -z "$package_md5" ] || [ ! -f "$ROOT$package_file" ] || [ "$package_more" = remove-on-upgrade ]; then continue; fi
        [ "$(md5sum <"$ROOT$package_file" | cut -d' ' -f1)" = "$package_md5" ] || printf 'changed\n'
    done | grep -q changed
}

packages_offered() { # FILE of names: NAME VERSION of what the sources have
    while IFS= read -r packages_offered_name; do
        apt-cache madison "$packages_offered_name" 2>/dev/null | awk -F ' *[|] *' -v name="$packages_offered_name" '{ print name "\t" $2 }'
    done <"$1" | sort -u
}

packages_in_the_way() { # INSTALL... -- REMOVE...: what would go besides, or "! " and why it cannot be done at all
    packages_way=install : >"$WORK/back.remove"
    for packages_word in "$@"; do
        shift
        if [ "$packages_word" = -- ]; then
            packages_way=remove
        elif [ "$packages_way" = install ]; then
            set -- "$@" "$packages_word"
        elif ! has_no_package "$packages_word"; then
            set -- "$@" "$packages_word-"
            printf '%s\n' "$packages_word" >>"$WORK/back.remove"
        fi
    done
    [ $# -gt 0 ] || return 0
    if apt_possible install --allow-downgrades --allow-change-held-packages --no-install-recommends "$@"; then
        sed -n 's/^Remv \([^ ]*\) .*/\1/p' "$WORK/apt.out" | sed 's/:.*//' | sort -u | grep -Fvx -f "$WORK/back.remove"
    elif [ -z "$(dpkg --audit 2>/dev/null)" ]; then
        printf '! %s\n' "$(grep -E '^E: |Depends: ' "$WORK/apt.out" | head -n 1)"
    fi
    return 0
}

manager_name() { printf 'apt %s' "$(dpkg --print-architecture 2>/dev/null)"; }
