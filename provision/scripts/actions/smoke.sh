# The proof: a container runs and sees what the host sees.

smoke_libraries() { # PROGRAM...: the files that these programs load, from ldd in its glibc and musl wordings
    ldd "$@" 2>/dev/null | sed -n -e 's/.*=> \(\/[^ ]*\) .*/\1/p' -e 's/^[[:space:]]*\(\/[^ ]*\) (0x.*/\1/p'
}

smoke_tree() { # DIRECTORY: this host's own shell, C library and ldconfig as a root file system of a few megabytes
    mkdir -p "$1/usr/bin" "$1/usr/sbin" "$1/usr/lib" "$1/etc" "$1/proc" "$1/sys" "$1/dev" "$1/run" "$1/tmp" "$1/root" || return 1
    chmod 1777 "$1/tmp"
    for smoke_dir in bin sbin lib lib32 lib64; do
        if [ -L "/$smoke_dir" ]; then
            smoke_link=$(readlink "/$smoke_dir")
            mkdir -p "$1/${smoke_link#/}" && ln -s "${smoke_link#/}" "$1/$smoke_dir" || return 1
        else
            mkdir -p "$1/$smoke_dir" || return 1
        fi
    done
    cp "$(readlink -f /bin/sh)" "$1/bin/sh" || return 1
    smoke_nvidia=$(command -v nvidia-smi)
    smoke_libraries /bin/sh "$(command -v cat)" ${smoke_nvidia:+"$smoke_nvidia"} >"$WORK/smoke.libraries"
    # the NVIDIA runtime brings nvidia-smi and its own libraries; these are what they link against
    smoke_libc=$(grep -m 1 '/libc\.so\.6$' "$WORK/smoke.libraries")
    for smoke_file in libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0; do
        if [ -n "$smoke_libc" ]; then printf '%s\n' "${smoke_libc%/*}/$smoke_file" >>"$WORK/smoke.libraries"; fi
    done
    printf '%s\n' /sbin/ldconfig /sbin/ldconfig.real >>"$WORK/smoke.libraries"
    while IFS= read -r smoke_file; do
        if [ ! -f "$smoke_file" ] || [ -e "$1$smoke_file" ]; then continue; fi
        [ -d "$1${smoke_file%/*}" ] || mkdir -p "$1${smoke_file%/*}" || return 1
        cp -L "$smoke_file" "$1$smoke_file" || return 1
    done <"$WORK/smoke.libraries"
    mkdir -p "$1/etc/ld.so.conf.d"
    printf 'include /etc/ld.so.conf.d/*.conf\n' >"$1/etc/ld.so.conf"
    cp /etc/ld.so.conf.d/*.conf "$1/etc/ld.so.conf.d/" 2>/dev/null
    printf 'root:x:0:0:root:/root:/bin/sh\n' >"$1/etc/passwd"
    printf 'root:x:0:\n' >"$1/etc/group"
}

smoke_embedded() { # sets SMOKE_IMAGE to an image made from this host's own files, which needs no registry
    rm -rf "$WORK/smoke"
    smoke_tree "$WORK/smoke" || { why "the smoke image cannot be made from this host's files"; return 1; }
    smoke_hash=$(cd "$WORK/smoke" && find . -type f -exec sha256sum {} + | sort -k 2 | sha256sum | cut -c1-12)
    SMOKE_IMAGE=mlhost/smoke:$smoke_hash
    docker images --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' mlhost/smoke >"$WORK/smoke.images" 2>/dev/null
    while read -r smoke_old smoke_id; do
        if [ "$smoke_old" = "$SMOKE_IMAGE" ]; then
            SMOKE_ID=$smoke_id
            return 0
        fi
    done <"$WORK/smoke.images"
    tar -C "$WORK/smoke" -cf "$WORK/smoke.tar" . || { why "the smoke image cannot be packed"; return 1; }
    # before the fact: a receipt too many does no harm, one too few would leave the image behind
    receipt image mlhost/smoke
    bounded 120 docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
        --change 'ENV NVIDIA_DRIVER_CAPABILITIES=utility,compute' --change 'LABEL mlhost.smoke=1' \
        "$WORK/smoke.tar" "$SMOKE_IMAGE" >"$WORK/smoke.out" 2>&1 || { smoke_why "docker import of the smoke image failed"; return 1; }
    SMOKE_ID=$(grep '^sha256:' "$WORK/smoke.out" | tail -n 1)
    rm -f "$WORK/smoke.tar"
    # those of an older C library have no use any more
    while read -r smoke_old smoke_id; do docker image rm "$smoke_old" </dev/null >/dev/null 2>&1; done <"$WORK/smoke.images"
}

smoke_why() { # TEXT: with Docker's own words, all of which go to the log
    cat "$WORK/smoke.out" >&2
    # nvidia-container-cli compares the image's NVIDIA_REQUIRE_* with the driver; old ones put blanks into the condition
    smoke_need=$(sed -n 's/.*unsatisfied condition: *\([^,\\]*\).*/\1/p' "$WORK/smoke.out" | head -n 1 | tr -d ' ')
    if [ -n "$smoke_need" ]; then
        why "$SMOKE_IMAGE asks for $smoke_need, which driver $(smoke_driver) does not give: name an image for an older CUDA (smoke.image) or embedded, or have a newer driver (driver.branch)"
        return 1
    fi
    smoke_words=$(grep -Ei 'error|fail|cannot|denied|unknown' "$WORK/smoke.out" | head -n 1)
    [ -n "$smoke_words" ] || smoke_words=$(tail -n 1 "$WORK/smoke.out")
    why "$1${smoke_words:+: $smoke_words}"
}

smoke_image() { # IMAGE: sets SMOKE_IMAGE, fetched if it is not there
    if [ "$1" = embedded ]; then
        smoke_embedded
        return
    fi
    SMOKE_IMAGE=$1
    docker image inspect "$1" >/dev/null 2>&1 && return 0
    bounded 1800 docker pull -q "$1" >"$WORK/smoke.out" 2>&1 || smoke_why "the image $1 cannot be pulled"
}

smoke_arguments() { # REQUEST(cdi|gpus|runtime|""): sets SMOKE_ARGUMENTS to how docker run asks for all GPUs this way
    case $1 in
        cdi) SMOKE_ARGUMENTS='--device nvidia.com/gpu=all' ;;
        gpus) SMOKE_ARGUMENTS='--gpus all' ;;
        runtime) SMOKE_ARGUMENTS='--runtime=nvidia -e NVIDIA_VISIBLE_DEVICES=all' ;;
        *) SMOKE_ARGUMENTS='' ;;
    esac
}

smoke_container() { # REQUEST COMMAND...: what it printed is in smoke.out
    smoke_arguments "$1"
    shift
    set -- "$SMOKE_IMAGE" "$@"
    # shellcheck disable=SC2086 # the arguments are ours and hold no blanks
    set -- $SMOKE_ARGUMENTS "$@"
    bounded 180 docker run --rm --network=none --pull=never --name "mlhost-smoke-$$" "$@" >"$WORK/smoke.out" 2>"$WORK/smoke.err" && return 0
    smoke_rc=$?
    cat "$WORK/smoke.err" >>"$WORK/smoke.out"
    if [ "$smoke_rc" = 124 ]; then
        docker rm -f "mlhost-smoke-$$" >/dev/null 2>&1
        printf 'error: the container did not end within 180 s\n' >>"$WORK/smoke.out"
    fi
    return 1
}

smoke_uuids() { # of the GPUs that the host's driver sees, each with its MIG mode (`GPU-...,Enabled`) where the driver knows such a thing
    bounded 120 nvidia-smi --query-gpu=uuid,mig.mode.current --format=csv,noheader >"$WORK/smoke.smi" 2>/dev/null ||
        bounded 120 nvidia-smi --query-gpu=uuid --format=csv,noheader >"$WORK/smoke.smi" 2>/dev/null
    tr -d ' \r' <"$WORK/smoke.smi" | grep '^GPU-' | sort
}

smoke_listed() { # the UUIDs of GPUs and of the MIG devices on them, from `nvidia-smi -L`
    sed -n 's/.*(UUID: \(GPU-[^)]*\)).*/\1/p; s/.*(UUID: \(MIG-[^)]*\)).*/\1/p'
}

smoke_mig() { # with MIG on: smoke.expected becomes what a container sees, SMOKE_MIG how many MIG devices; smoke.empty are GPUs without one
    bounded 120 nvidia-smi -L 2>/dev/null | smoke_listed >"$WORK/smoke.list"
    awk -F, 'FILENAME ~ /host$/ { if ($2 == "Enabled") on[$1] = 1; next }
        /^GPU-/ { gpu = $1 }
        /^MIG-/ { has[gpu] = 1 }
        END { for (gpu in on) if (!(gpu in has)) print gpu }' "$WORK/smoke.host" "$WORK/smoke.list" | sort >"$WORK/smoke.empty"
    smoke_without_empty <"$WORK/smoke.list" >"$WORK/smoke.expected"
    SMOKE_MIG=$(grep -c '^MIG-' "$WORK/smoke.list")
    [ -s "$WORK/smoke.empty" ] || return 0
    smoke_words="MIG is on, but there is no MIG device, on $(tr '\n' ' ' <"$WORK/smoke.empty" | sed 's/ $//'): CUDA finds nothing there"
    smoke_words="$smoke_words (make some: nvidia-smi mig -cgi PROFILE -C, or turn MIG off: nvidia-smi -i GPU -mig 0)"
    if [ -s "$WORK/smoke.expected" ]; then note "$smoke_words"; else why "$smoke_words"; fi
}

smoke_without_empty() { # from what it reads, the GPUs in smoke.empty are taken away
    awk -v file="$WORK/smoke.empty" 'BEGIN { while ((getline line <file) > 0) gone[line] = 1 } !($0 in gone)' | sort
}

smoke_driver() { bounded 120 nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1; }

smoke_toolkit() { nvidia-ctk --version 2>/dev/null | sed -n '1s/.*version \([0-9][^ ,]*\).*/\1/p'; }

SMOKE_ENGINE='' SMOKE_ID=''

smoke_engine() { # its version in SMOKE_ENGINE; asked once, for a Docker client takes its time to start
    [ -n "$SMOKE_ENGINE" ] || SMOKE_ENGINE=$(bounded 30 docker version --format '{{.Server.Version}}' 2>/dev/null)
    [ -n "$SMOKE_ENGINE" ]
}

smoke_now() { # IMAGE GPUS REQUEST: everything the proof depends on, as key=value lines
    smoke_now_boot=$(cat "$ROOT/proc/sys/kernel/random/boot_id" 2>/dev/null)
    smoke_now_driver='' smoke_now_toolkit='' smoke_now_mig=''
    smoke_engine
    if [ "$2" -gt 0 ]; then
        smoke_now_toolkit=$(smoke_toolkit)
        smoke_now_driver=$(bounded 120 nvidia-smi --query-gpu=driver_version,mig.mode.current --format=csv,noheader 2>/dev/null) ||
            smoke_now_driver=$(smoke_driver)
        case $smoke_now_driver in *Enabled*) smoke_now_mig=$(bounded 120 nvidia-smi -L 2>/dev/null | grep -c '(UUID: MIG-') ;; esac
        smoke_now_driver=${smoke_now_driver%%[!0-9.]*}
    fi
    printf '%s\n' "image=$1" "gpus=$2" "request=$3" "boot_id=$smoke_now_boot" "kernel=$(uname -r)" "docker=$SMOKE_ENGINE" \
        "driver=$smoke_now_driver" "toolkit=$smoke_now_toolkit" "daemon_json=$(sha256 "$ROOT/etc/docker/daemon.json")"
    case $smoke_now_mig in '' | 0) ;; *) printf 'mig=%s\n' "$smoke_now_mig" ;; esac
}

smoke_on_bus() { # how many GPUs of its own the machine has, as the planner counts them: no virtual functions, and none that is handed on as long as one is left
    smoke_own=0 smoke_all=0
    for smoke_device in "$ROOT"/sys/bus/pci/devices/*; do
        [ "$(cat "$smoke_device/vendor" 2>/dev/null)" = 0x10de ] || continue
        case $(cat "$smoke_device/class" 2>/dev/null) in 0x0300* | 0x0302*) ;; *) continue ;; esac
        [ ! -e "$smoke_device/physfn" ] || continue
        smoke_all=$((smoke_all + 1))
        case $(readlink "$smoke_device/driver" 2>/dev/null) in */vfio-pci | */pci-stub | */xen-pciback) ;; *) smoke_own=$((smoke_own + 1)) ;; esac
    done
    if [ "$smoke_own" -gt 0 ]; then printf '%s' "$smoke_own"; else printf '%s' "$smoke_all"; fi
}

smoke_proved() { # IMAGE GPUS REQUEST: the proof on record is of this very host state
    if [ "$2" = -1 ]; then
        set -- "$1" "$(smoke_on_bus)" "$3"
        if [ "$2" = 0 ]; then set -- "$1" 0 ''; fi
    fi
    [ -f "$STATE/proof" ] && [ ! -e "$WORK/smoke.again" ] || return 1
    smoke_now "$@" >"$WORK/smoke.now"
    while IFS= read -r smoke_line; do
        grep -Fxq -e "$smoke_line" "$STATE/proof" || return 1
    done <"$WORK/smoke.now"
}

smoke_write_proof() { # IMAGE GPUS REQUEST
    smoke_now "$@" >"$WORK/proof"
    [ "$1" = embedded ] || SMOKE_ID=$(docker image inspect --format '{{if .RepoDigests}}{{index .RepoDigests 0}}{{else}}{{.Id}}{{end}}' "$1" 2>/dev/null)
    printf '%s\n' "time=$(date -u +%Y-%m-%dT%H:%M:%SZ)" "uuids=$SMOKE_UUIDS" "reference=$SMOKE_IMAGE" "digest=$SMOKE_ID" >>"$WORK/proof"
    cp "$WORK/proof" "$STATE/proof.new" && chmod 0644 "$STATE/proof.new" && durable "$STATE/proof.new" && mv -f "$STATE/proof.new" "$STATE/proof" && return 0
    why "cannot write $STATE/proof"
}

smoke() { # IMAGE GPUS REQUEST
    SMOKE_UUIDS='' SMOKE_COUNTED='' SMOKE_MIG='' SMOKE_ENGINE=''
    if ! smoke_engine; then
        docker version >"$WORK/smoke.out" 2>&1
        smoke_why "Docker does not answer"
        return 1
    fi
    smoke_image "$1" || return 1
    if [ "$2" = 0 ]; then
        smoke_container "" sh -c 'echo mlhost-smoke' || { smoke_why "a container of $SMOKE_IMAGE does not run"; return 1; }
        grep -q '^mlhost-smoke' "$WORK/smoke.out" || { smoke_why "the container ran but did not say what it should"; return 1; }
        return 0
    fi
    if ! command -v nvidia-smi >/dev/null 2>&1; then
        why "there is no nvidia-smi on the host: the driver's programs are not installed"
        return 1
    fi
    smoke_uuids >"$WORK/smoke.host"
    SMOKE_COUNTED=$(wc -l <"$WORK/smoke.host")
    SMOKE_COUNTED=$((SMOKE_COUNTED + 0))
    if [ "$SMOKE_COUNTED" != "$2" ]; then
        nvidia-smi -L >"$WORK/smoke.out" 2>&1
        smoke_why "there are $2 GPUs on the PCI bus and the driver sees $SMOKE_COUNTED"
        return 1
    fi
    if grep -q ',Enabled$' "$WORK/smoke.host"; then
        smoke_mig || return 1
        set -- "$3" nvidia-smi -L
    else
        sed 's/,.*//' "$WORK/smoke.host" >"$WORK/smoke.expected"
        set -- "$3" nvidia-smi --query-gpu=uuid --format=csv,noheader
    fi
    smoke_container "$@" || { smoke_why "nvidia-smi does not run in a container of $SMOKE_IMAGE"; return 1; }
    if [ -n "$SMOKE_MIG" ]; then
        smoke_listed <"$WORK/smoke.out" | smoke_without_empty >"$WORK/smoke.inside"
    else
        tr -d ' \r' <"$WORK/smoke.out" | grep '^GPU-' | sort >"$WORK/smoke.inside"
    fi
    if [ "$(sha256 "$WORK/smoke.expected")" != "$(sha256 "$WORK/smoke.inside")" ]; then
        cat "$WORK/smoke.out" >&2
        smoke_words="the container sees $(grep -c '^GPU-' "$WORK/smoke.inside") of the host's $SMOKE_COUNTED GPUs"
        [ -z "$SMOKE_MIG" ] || smoke_words="$smoke_words and $(grep -c '^MIG-' "$WORK/smoke.inside") of its $SMOKE_MIG MIG devices (where the CDI spec is older than these: systemctl restart nvidia-cdi-refresh.service)"
        why "$smoke_words"
        return 1
    fi
    SMOKE_UUIDS=$(tr '\n' ',' <"$WORK/smoke.inside")
    SMOKE_UUIDS=${SMOKE_UUIDS%,}
}

smoke_prove() { # IMAGE GPUS REQUEST
    if [ "$2" = -1 ]; then
        set -- "$1" "$(smoke_on_bus)" "$3"
        if [ "$2" = 0 ]; then set -- "$1" 0 ''; fi
    fi
    smoke "$@" && smoke_write_proof "$@"
}
