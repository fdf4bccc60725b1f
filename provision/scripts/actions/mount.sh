# A disk formatted only while it is blank, mounted at every boot before Docker. An instance store is blank again after each stop.

MOUNT_PROGRAM=/usr/local/lib/mlhost/mount-disk

mount_program() {
    cat <<'END'
#!/bin/sh
# mlhost: mounts DEVICE at PATH; formats it before that if, and only if, nothing at all is on it.
device=$1 path=$2 filesystem=$3
fail() {
    printf 'mount-disk: %s\n' "$1" >&2
    exit 1
}
main() {
    grep -q "^[^ ]* $path " /proc/mounts && exit 0
    left=60
    until [ -b "$device" ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "there is no disk $device"
        sleep 1
    done
    grep -q "^$(readlink -f "$device")p\{0,1\}[0-9]* " /proc/mounts && fail "$device is mounted elsewhere"
    found=$(blkid -p -o export "$device")
    case $? in
        0)
            type=$(printf '%s\n' "$found" | sed -n 's/^TYPE=//p')
            [ "$type" = "$filesystem" ] || fail "$device is not blank: $(printf '%s' "$found" | tr '\n' ' ')"
            ;;
        2)
            [ "$(head -c 1048576 "$device" | tr -d '\0' | wc -c)" -eq 0 ] || fail "$device is not blank: there are data on it that no file system explains"
            case $filesystem in
                ext*) mkfs -t "$filesystem" -q -F "$device" ;;
                *) mkfs -t "$filesystem" "$device" ;;
            esac || fail "mkfs failed on $device"
            ;;
        *) fail "blkid cannot tell what is on $device" ;;
    esac
    if ! mkdir -p "$path" || ! mount -t "$filesystem" "$device" "$path"; then fail "cannot mount $device at $path"; fi
}
main </dev/null
END
}

mount_unit() { # DEVICE PATH FILESYSTEM
    cat <<END
[Unit]
Description=mlhost: $1 at $2
Before=containerd.service docker.service
After=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh $MOUNT_PROGRAM $1 $2 $3

[Install]
WantedBy=multi-user.target
END
}

mount_unit_name() { printf 'mlhost-mount%s.service' "$(printf '%s' "$1" | tr / -)"; }

mount_done() { # DEVICE PATH FILESYSTEM
    mount_program >"$WORK/mount.program"
    mount_unit "$@" >"$WORK/mount.unit"
    mount_name=$(mount_unit_name "$2")
    has_file "$MOUNT_PROGRAM" "$(sha256 "$WORK/mount.program")" 0755 root:root &&
        has_file "/etc/systemd/system/$mount_name" "$(sha256 "$WORK/mount.unit")" 0644 root:root &&
        systemctl is-enabled -q "$mount_name" &&
        grep -q "^[^ ]* $2 " "${MLHOST_PROC_MOUNTS:-/proc/mounts}"
}

mount_make() { # DEVICE PATH FILESYSTEM
    if ! has_systemd; then
        why "mounting a disk at every boot needs systemd"
        return 1
    fi
    mount_name=$(mount_unit_name "$2")
    put "$MOUNT_PROGRAM" 0755 root:root "$(mount_program)
" && put "/etc/systemd/system/$mount_name" 0644 root:root "$(mount_unit "$@")
" && unit_files_changed "/etc/systemd/system/$mount_name" || return 1
    if ! systemctl is-enabled -q "$mount_name"; then receipt mounted "$mount_name" "$2" && durable "$RECEIPTS"; fi
    systemctl enable "$mount_name" && systemctl restart "$mount_name" && return 0
    why "$1 cannot be mounted at $2: $(journalctl -u "$mount_name" -n 5 -o cat --no-pager 2>/dev/null | grep mount-disk: | tail -n 1)"
}
