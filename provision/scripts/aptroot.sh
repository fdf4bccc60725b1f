# A private apt: sources, keys, package status and lists of its own in a folder of their own. It answers what apt would do on a system, here or
# elsewhere, and changes nothing; of this machine it reads only how apt reaches the network. Answers are framed as the probe's are.

aptroot_frame() { # NAME RC FILE
    printf '@@%s %s %s\n' "$APTROOT_MARK" "$1" "$2"
    cat "$3"
    printf '\n'
}

aptroot_end() { # the last frame: without it the answer was cut short
    printf '@@%s end 0\n\n' "$APTROOT_MARK"
}

aptroot_file() { # PATH CONTENT [base64]
    mkdir -p "$(dirname "$APTROOT/$1")" || return 1
    if [ "${3:-}" = base64 ]; then printf '%s' "$2" | base64 -d >"$APTROOT/$1"; else printf '%s' "$2" >"$APTROOT/$1"; fi
}

aptroot_begin() { # MARK FOLDER ARCHITECTURE STATUS: FOLDER "" is a new one, which goes at the end; STATUS is a file, "" for one of aptroot_file
    APTROOT_MARK=$1
    umask 022
    LC_ALL=C PATH=${PATH:+$PATH:}/usr/sbin:/usr/bin:/sbin:/bin
    export LC_ALL PATH
    unset APT_CONFIG
    printf '@@%s probe 0\n\n' "$APTROOT_MARK"
    if ! command -v apt-get >/dev/null 2>&1; then
        aptroot_frame apt 127 /dev/null
        aptroot_end
        return 1
    fi
    APTROOT=$2
    if [ -z "$APTROOT" ]; then
        APTROOT=$(mktemp -d "${TMPDIR:-/tmp}/mlhost-apt.XXXXXX") || return 1
        trap 'rm -rf "$APTROOT"' EXIT
    fi
    for aptroot_folder in etc/apt/apt.conf.d etc/apt/preferences.d etc/apt/sources.list.d etc/apt/trusted.gpg.d var/lib/apt/lists/partial \
        var/cache/apt/archives/partial var/log/apt var/cache/debs/partial keys; do
        mkdir -p "$APTROOT/$aptroot_folder" || return 1
    done
    # a proxy's address may hold a password
    (umask 077 && {
        # the system's own settings of the download methods, and nothing else of it
        apt-config dump | grep '^Acquire::'
        cat <<CONF
Dir "$APTROOT/";
Dir::State::status "${4:-$APTROOT/status}";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::Cache::archives "$APTROOT/var/cache/debs/";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
APT::Architecture "$3";
APT::Architectures { "$3"; };
APT::Sandbox::User "root";
APT::Get::List-Cleanup "0";
Acquire::ForceHash "SHA256";
Acquire::Languages "none";
Acquire::Retries "3";
CONF
    } >"$APTROOT/apt.conf") || return 1
    APT_CONFIG=$APTROOT/apt.conf
    export APT_CONFIG
    : >"$APTROOT/none"
}

aptroot_update() { # the lists of all its sources; whatever cannot be fetched is an error
    aptroot_rc=0
    timeout -k 10 900 apt-get -q update >"$APTROOT/out" 2>&1 || aptroot_rc=$?
    if [ "$aptroot_rc" = 0 ] && grep -Eq '^(E: |Err:|W: (GPG error|Failed to fetch|An error occurred|Some index files|The repository ))' "$APTROOT/out"; then aptroot_rc=100; fi
    aptroot_frame update "$aptroot_rc" "$APTROOT/out"
    return "$aptroot_rc"
}

aptroot_transaction() { # NAME RECOMMENDS(yes|no) WORD...: what apt would fetch to install this
    aptroot_name=$1 aptroot_recommends=--no-install-recommends aptroot_rc=0
    [ "$2" = no ] || aptroot_recommends=--install-recommends
    shift 2
    apt-get -y -q "$aptroot_recommends" --print-uris install "$@" >"$APTROOT/out" 2>&1 || aptroot_rc=$?
    aptroot_frame "$aptroot_name" "$aptroot_rc" "$APTROOT/out"
}

aptroot_show() { # NAME...: every version of these that the sources offer
    apt-cache show "$@" 2>/dev/null >"$APTROOT/out"
    awk '
        /^[^ ]/ { keep = $1 ~ /^(Package|Source|Version|Architecture|Multi-Arch|Essential|Important|Protected|Priority|Section|Installed-Size|Maintainer|Depends|Pre-Depends|Recommends|Suggests|Conflicts|Breaks|Replaces|Provides|Enhances|Filename|Size|SHA256):$/ }
        keep || /^$/' "$APTROOT/out" >"$APTROOT/shown"
    aptroot_frame show 0 "$APTROOT/shown"
}
