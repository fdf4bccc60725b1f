#!/bin/sh
# Can this machine fetch these files? Asked with what the machine has (apt's own downloader first, as it uses apt's proxy and trust).
#
#   sh -s -- MARK (head|get) URL ...
#
# Prints one section for each URL, named reach:N, with the downloader's exit code and words; for `get` a second one, body:N, in base64.
# Writes only into a private folder under /tmp, which is gone at the end.

say() { printf '@@%s %s %s\n' "$MARK" "$1" "$2"; cat; printf '\n'; }

fetch() { # URL FILE: 127 where the machine has no program that can
    if [ -x /usr/lib/apt/apt-helper ]; then
        # shellcheck disable=SC2086  # two words or none
        limited /usr/lib/apt/apt-helper $CONF -o Acquire::Retries=1 -o Acquire::http::Timeout=15 -o Acquire::https::Timeout=15 \
            -o APT::Sandbox::User=root download-file "$1" "$2"
    elif command -v curl >/dev/null 2>&1; then
        limited curl -fsSL --connect-timeout 15 -o "$2" -- "$1"
    elif command -v wget >/dev/null 2>&1; then
        limited wget -nv -T 15 -t 1 -O "$2" -- "$1"
    else
        return 127
    fi
}

limited() {
    if command -v timeout >/dev/null 2>&1; then timeout 40 "$@"; else "$@"; fi
}

ask() { # N HOW URL: into files, so that all can be asked at once
    name=${3#*://}
    name=${name%%[/:]*}
    fetch "$3" "$DIR/$1.file" >"$DIR/$1.text" 2>&1
    rc=$?
    if [ "$rc" != 0 ]; then
        # An old repository has Release and Release.gpg, but no InRelease.
        case $3 in
            */InRelease)
                if fetch "${3%InRelease}Release" "$DIR/$1.file" >"$DIR/$1.second" 2>&1; then echo 0 >"$DIR/$1.rc"; return; fi
                ;;
        esac
        if command -v getent >/dev/null 2>&1 && [ -z "${http_proxy:-}" ] && ! getent ahosts "$name" >/dev/null 2>&1; then
            echo "Could not resolve $name" >>"$DIR/$1.text"
        fi
        echo "$rc" >"$DIR/$1.rc"
        return
    fi
    echo 0 >"$DIR/$1.rc"
}

main() {
    export LC_ALL=C PATH="$PATH:/usr/sbin:/sbin:/usr/bin:/bin"
    umask 077
    MARK=$1
    shift
    DIR=$(mktemp -d) || exit 1
    trap 'rm -rf "$DIR"' EXIT
    trap 'exit 129' HUP INT TERM
    # apt's own settings win over the environment, so the playbook's proxy must come as a setting, in a file: it may hold a password.
    CONF=''
    if [ -n "${http_proxy:-}" ]; then
        printf 'Acquire::http::Proxy "%s";\nAcquire::https::Proxy "%s";\n' "$http_proxy" "${https_proxy:-$http_proxy}" >"$DIR/apt.conf"
        for name in $(printf '%s' "${no_proxy:-}" | tr ',' ' '); do
            case $name in *[!A-Za-z0-9.-]*) continue ;; esac
            printf 'Acquire::http::Proxy::%s "DIRECT";\nAcquire::https::Proxy::%s "DIRECT";\n' "$name" "$name" >>"$DIR/apt.conf"
        done
        CONF="-c $DIR/apt.conf"
    fi
    : | say probe 0
    n=0
    while [ $# -ge 2 ]; do
        n=$((n + 1))
        printf '%s\n' "$1" >"$DIR/$n.how"
        ask "$n" "$1" "$2" &
        shift 2
    done
    wait
    i=0
    while [ "$i" -lt "$n" ]; do
        i=$((i + 1))
        read -r rc <"$DIR/$i.rc" || rc=1
        head -c 4096 "$DIR/$i.text" | say "reach:$i" "$rc"
        if [ "$rc" = 0 ] && [ "$(cat "$DIR/$i.how")" = get ] && [ "$(wc -c <"$DIR/$i.file")" -le 262144 ]; then
            base64 "$DIR/$i.file" | say "body:$i" 0
        fi
    done
    : | say end 0
}

main "$@" </dev/null
