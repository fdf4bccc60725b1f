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
    RUN=verify ITEM=verify RECEIPTS=/dev/null
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

verify_asked() { # REQUEST: how a user asks for it
    case $1 in
        cdi) printf '%s' '--device nvidia.com/gpu=all' ;;
        gpus) printf '%s' '--gpus all' ;;
        runtime) printf '%s' '--runtime=nvidia' ;;
    esac
}

verify_same() { # FILE: the GPUs and MIG devices that `nvidia-smi -L` has listed there are the host's
    smoke_listed <"$1" | smoke_without_empty >"$WORK/verify.inside"
    [ -s "$WORK/verify.inside" ] && [ "$(sha256 "$WORK/smoke.expected")" = "$(sha256 "$WORK/verify.inside")" ]
}

verify_paths() { # REQUEST...: a container that asks for the GPUs in each of these ways sees all of them
    verify_paths_rc=0
    for verify_path in "$@"; do
        if smoke_container "$verify_path" nvidia-smi -L && verify_same "$WORK/smoke.out"; then
            check_line "container-$verify_path" ok "with $(verify_asked "$verify_path") a container sees the same GPUs"
        else
            smoke_why "with $(verify_asked "$verify_path") a container does not see the GPUs"
            check_line "container-$verify_path" failed "$(reason)"
            verify_paths_rc=1
        fi
    done
    return "$verify_paths_rc"
}

verify_reload() { # REQUEST...: containers that run already still see the GPUs once systemd has read its units anew
    verify_reload_rc=0
    for verify_path in "$@"; do
        smoke_arguments "$verify_path"
        verify_name=mlhost-reload-$$-$verify_path
        # a shell that reads from an open standard input waits without any program's help
        # shellcheck disable=SC2086 # the arguments are ours and hold no blanks
        bounded 180 docker run -d -i --rm --network=none --pull=never --name "$verify_name" $SMOKE_ARGUMENTS "$SMOKE_IMAGE" sh >"$WORK/smoke.out" 2>&1 ||
            { smoke_why "with $(verify_asked "$verify_path") no container starts"; check_line "reload-$verify_path" failed "$(reason)"; verify_reload_rc=1; continue; }
        bounded 120 docker exec "$verify_name" nvidia-smi -L >"$WORK/smoke.out" 2>&1
        if ! verify_same "$WORK/smoke.out"; then
            smoke_why "with $(verify_asked "$verify_path") a running container does not see the GPUs even before"
            check_line "reload-$verify_path" failed "$(reason)"
            verify_reload_rc=1
        elif ! systemctl daemon-reload >"$WORK/smoke.out" 2>&1; then
            smoke_why "systemctl daemon-reload fails"
            check_line "reload-$verify_path" failed "$(reason)"
            verify_reload_rc=1
        else
            bounded 120 docker exec "$verify_name" nvidia-smi -L >"$WORK/smoke.out" 2>&1
            if verify_same "$WORK/smoke.out"; then
                check_line "reload-$verify_path" ok "with $(verify_asked "$verify_path") a running container still sees its GPUs after systemctl daemon-reload"
            else
                smoke_why "with $(verify_asked "$verify_path") a running container has lost its GPUs after systemctl daemon-reload"
                check_line "reload-$verify_path" failed "$(reason)"
                verify_reload_rc=1
            fi
        fi
        docker rm -f "$verify_name" >/dev/null 2>&1
    done
    return "$verify_reload_rc"
}

verify_workload() { # IMAGE REQUEST: a program that computes something on a GPU ends well
    docker image inspect "$1" >/dev/null 2>&1 || bounded 1800 docker pull -q "$1" >"$WORK/smoke.out" 2>&1 ||
        { smoke_why "the image $1 cannot be pulled"; check_line workload failed "$(reason)"; return 1; }
    smoke_arguments "$2"
    # shellcheck disable=SC2086 # the arguments are ours and hold no blanks
    if bounded 600 docker run --rm --network=none --pull=never --name "mlhost-workload-$$" $SMOKE_ARGUMENTS "$1" >"$WORK/smoke.out" 2>&1; then
        check_line workload ok "$1 ran on a GPU: $(grep -v '^ *$' "$WORK/smoke.out" | tail -n 2 | tr '\n' ' ')"
        return 0
    fi
    docker rm -f "mlhost-workload-$$" >/dev/null 2>&1
    smoke_why "$1 failed on the GPU"
    check_line workload failed "$(reason)"
    return 1
}
