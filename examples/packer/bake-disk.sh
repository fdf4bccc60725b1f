#!/bin/sh
# Makes a raw disk image an image of what mlhost sets up: bake-disk.sh DISK PARTITION [OPTION of `mlhost setup`]...
# PARTITION is the number of the one with the root file system, or empty where the whole disk is one. Run it as root.
set -eu

[ $# -ge 2 ] || { echo "usage: bake-disk.sh DISK PARTITION [OPTION]..." >&2; exit 2; }
disk=$1 partition=$2
shift 2
root=$(mktemp -d) device=''

leave() {
    ! mountpoint -q "$root" || umount "$root"
    [ -z "$device" ] || losetup --detach "$device"
    rmdir "$root"
}
trap leave EXIT
trap 'exit 1' HUP INT TERM

device=$(losetup --find --show --partscan "$disk")
mount "$device${partition:+p$partition}" "$root"
"${MLHOST:-mlhost}" setup --root "$root" "$@"
