# shellcheck disable=SC2034
# The smoke container on its own: one line per check on stdout, everything else on stderr.

check_line() { # ID ok|failed EVIDENCE
    printf 'check\t%s\t%s\t%s\n' "$1" "$2" "$(printf '%s' "$3" | tr '\001-\037\177' ' ')" >&3
}

verify() { # WRITE-PROOF(yes|no) IMAGE GPUS REQUEST
    verify_proof=$1
    shift
    exec 3>&1 1>&2
    LC_ALL=C PATH=${PATH:+$PATH:}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    HOME=${HOME:-/root} DOCKER_HOST=unix:///var/run/docker.sock
    export LC_ALL PATH HOME DOCKER_HOST
    unset DOCKER_CONTEXT
    RUN=verify ITEM=verify
    MLHOST_EVENTS=${MLHOST_EVENTS:-/dev/null}
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/mlhost.XXXXXX") || return 1
    trap 'rm -rf "$WORK"' EXIT
    : >"$WORK/why"
    smoke "$@" || RC=1
    if ! smoke_engine; then
        check_line docker failed "$(reason)"
        return 1
    fi
    check_line docker ok "Docker Engine $SMOKE_ENGINE answers"
    if [ "$2" -gt 0 ] && [ -n "$SMOKE_COUNTED" ]; then
        if [ "$SMOKE_COUNTED" = "$2" ]; then
            check_line driver ok "driver $(smoke_driver) sees all $2 GPUs of the PCI bus"
        else
            check_line driver failed "$(reason)"
            return 1
        fi
    fi
    if [ "$RC" != 0 ]; then
        check_line container failed "$(reason)"
        return 1
    fi
    if [ "$2" -gt 0 ]; then
        check_line container ok "nvidia-smi in a container of $SMOKE_IMAGE sees the same $(grep -c '^GPU-' "$WORK/smoke.inside") GPUs${SMOKE_MIG:+ and $SMOKE_MIG MIG devices} as the host: $SMOKE_UUIDS"
    else
        check_line container ok "a container of $SMOKE_IMAGE ran"
    fi
    [ "$verify_proof" = no ] || smoke_write_proof "$@" || { check_line proof failed "$(reason)"; return 1; }
}
