#!/bin/sh
# What mlhost left on this machine, for a support bundle: read-only. `sh -s -- MARK`; prints sections as probe.sh does.
NL='
'
MARK=${1:-0}
top=/var/lib/mlhost

piece() {
    printf '@@%s %s 0\n' "$MARK" "$1"
    tail -c "$3" "$2" 2>/dev/null
    printf '\n'
}

main() {
    LC_ALL=C
    export LC_ALL
    printf '@@%s probe 0\nschema=1%s\n' "$MARK" "$NL"
    for name in proof receipts lock; do
        [ ! -f "$top/$name" ] || piece "state:$name" "$top/$name" 65536
    done
    # The names begin with the time: the last three.
    # shellcheck disable=SC2010 # names that are not plain are left out
    for run in $(ls "$top/runs" 2>/dev/null | grep -E '^[A-Za-z0-9][A-Za-z0-9._-]*$' | tail -n 3); do
        for name in meta events result log; do
            [ ! -f "$top/runs/$run/$name" ] || piece "run:$run/$name" "$top/runs/$run/$name" 300000
        done
    done
    for name in /var/log/nvidia-installer.log /var/log/dkms.log; do
        [ ! -f "$name" ] || piece "log:${name##*/}" "$name" 60000
    done
    printf '@@%s end 0\n\n' "$MARK"
}

main "$@" </dev/null
