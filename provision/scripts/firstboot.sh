# Finishing an image at its first boot. It needs journal/lock.sh and journal/runner.sh.

say() { printf 'mlhost: first boot: %s\n' "$1"; }

gpu_there() { # a GPU of NVIDIA's is on the PCI bus
    for gpu_there_device in /sys/bus/pci/devices/*; do
        [ "$(cat "$gpu_there_device/vendor" 2>/dev/null)" = 0x10de ] || continue
        case $(cat "$gpu_there_device/class" 2>/dev/null) in 0x0300* | 0x0302*) [ -e "$gpu_there_device/physfn" ] || return 0 ;; esac
    done
    return 1
}

take_turn() { # until nobody else of us is at work here
    take_turn_left=1800
    while :; do
        take_turn_rc=0
        guarded lock_take $$ || take_turn_rc=$?
        case $take_turn_rc in
            0) return 0 ;;
            73) ;;
            *) say "cannot take the lock $STATE/lock; is the disk full or read-only?"; return 1 ;;
        esac
        if [ "$take_turn_left" = 1800 ]; then say "waits for the run $(value_of run "$STATE/lock")"; fi
        take_turn_left=$((take_turn_left - 1))
        [ "$take_turn_left" -gt 0 ] || return 1
        sleep 2
    done
}

first_boot() { # SKIP REBOOT(yes|no) PROGRAM UNIT UNIT-PATH: skip these items where there is no GPU
    umask 077
    mkdir -p "$STATE/runs" || return 1
    chmod 755 "$STATE"
    RUN=$(date -u +%Y%m%dT%H%M%S)-first-boot OWNER="first boot"
    DIR=$STATE/runs/$RUN
    take_turn || return 1
    # of an earlier attempt
    rm -rf "$STATE"/runs/*-first-boot
    if ! mkdir "$DIR" || ! write_script "$DIR/script.sh"; then
        say "cannot write into $STATE/runs; is the disk full or read-only?"
        guarded lock_drop
        return 1
    fi
    printf '%s\n' "run=$RUN" "owner=$OWNER" "since=$(date -u +%Y-%m-%dT%H:%M:%SZ)" "boot=$(boot_id)" >"$DIR/meta"
    : >"$DIR/events" && : >"$DIR/log"
    MLHOST_SKIP=''
    gpu_there || MLHOST_SKIP=$1
    export MLHOST_SKIP
    say "run $RUN begins"
    runner "$STATE" "$RUN" "$OWNER"
    awk -F '\t' '$2 == "changed" || $2 == "failed" || $2 == "reboot" || $2 == "skipped" { print "mlhost: first boot: " $2 " " $3 ($4 == "" ? "" : ": " $4) }' "$DIR/events"
    case $(cat "$DIR/result") in
        0)
            # no daemon-reload, which can cost containers their GPUs: a unit without a file is forgotten at the next boot
            rm -f "/etc/systemd/system/multi-user.target.wants/$4" "$5" "$3" "$STATE/first-boot.rebooted"
            rmdir "${3%/*}" 2>/dev/null
            say "done"
            return 0
            ;;
        75 | 76)
            if [ "$2" = yes ] && [ ! -e "$STATE/first-boot.rebooted" ]; then
                : >"$STATE/first-boot.rebooted"
                say "reboots once, and goes on after it"
                systemctl reboot
                return 0
            fi
            say "a reboot is needed; it goes on after the next one"
            ;;
        *) say "not done; it is tried again. The whole story: $DIR/log" ;;
    esac
    return 1
}
