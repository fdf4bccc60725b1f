# Packages and images that were brought along in a bundle. The repository needs others.sh and apt.sh.

bundle_used() { # FOLDER
    [ "${APT_CONFIG:-}" = "$WORK/bundle/apt.conf" ]
}

bundle_same() { # FOLDER, and "SHA256  PATH" lines on stdin: every file is there and has its hash
    cat >"$WORK/bundle.sums"
    (cd "$1" && sha256sum -c "$WORK/bundle.sums") >"$WORK/bundle.out" 2>&1 && return 0
    bundle_wrong=$(grep -v ': OK$' "$WORK/bundle.out" | head -n 1)
    why "the bundle's files in $1 are not those of its manifest: ${bundle_wrong:-there are none}"
}

bundle_use() { # FOLDER PATH SHA256...: apt and its relatives know this repository and no other, until the end of this script
    bundle_folder=$1
    shift
    while [ $# -ge 2 ]; do
        printf '%s  %s\n' "$2" "$1"
        shift 2
    done | bundle_same "$bundle_folder" || return 1
    mkdir -p "$WORK/bundle/none" "$WORK/bundle/lists/partial" || return 1
    printf 'deb [signed-by=%s/key.asc] file:%s/repository ./\n' "$bundle_folder" "$bundle_folder" >"$WORK/bundle/sources.list"
    cat >"$WORK/bundle/apt.conf" <<CONF
Dir::Etc::sourcelist "$WORK/bundle/sources.list";
Dir::Etc::sourceparts "$WORK/bundle/none";
Dir::Etc::preferences "$WORK/bundle/none/preferences";
Dir::Etc::preferencesparts "$WORK/bundle/none";
Dir::State::lists "$WORK/bundle/lists/";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
Acquire::Languages "none";
APT::Sandbox::User "root";
CONF
    APT_CONFIG=$WORK/bundle/apt.conf
    export APT_CONFIG
    if apt_try in_time apt-get -q update -o APT::Update::Error-Mode=any && ! grep -Eq '^(E: |Err:|W: )' "$WORK/apt.out"; then return 0; fi
    unset APT_CONFIG
    apt_why "apt does not take the bundle's repository"
}

image_there() { bounded 60 docker image inspect "$1" >/dev/null 2>&1; } # REFERENCE

image_load() { # FILE REFERENCE SHA256
    if image_there "$2"; then return 0; fi
    if [ "$(sha256 "$1")" != "$3" ]; then
        why "$1 is not the file of the bundle's manifest"
        return 1
    fi
    receipt image "$2"
    bounded 1800 docker load -i "$1" || why "docker load of $2 failed"
}
