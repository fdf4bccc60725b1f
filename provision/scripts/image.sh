# Before and after work in a tree that becomes an image: what packages make for one machine alone is not to be in all machines made from it.

STATE=${MLHOST_STATE:-/var/lib/mlhost}
BEFORE=$STATE/image.before
CACHES='/var/lib/apt/lists /var/cache/apt /var/cache/dnf /var/cache/libdnf5 /var/cache/yum /var/cache/tdnf /var/cache/zypp'

own_files() { # what only one machine can have, as far as it is there
    for own_file in /etc/machine-id /var/lib/dbus/machine-id /etc/ssh/ssh_host_* /var/lib/dkms/mok.* /var/lib/shim-signed/mok/MOK.*; do
        if [ -e "$own_file" ] || [ -L "$own_file" ]; then printf '%s\n' "$own_file"; fi
    done
}

cached() { # shellcheck disable=SC2086  # a list of folders
    find $CACHES ! -type d 2>/dev/null | sort
}

image_begin() { # how it was, written down once: a second attempt after one that was cut off goes by the same
    [ ! -d "$BEFORE" ] || return 0
    if [ -L "$STATE" ]; then
        printf '%s is a symbolic link; it must be a directory of root.\n' "$STATE" >&2
        return 1
    fi
    rm -rf "$BEFORE.new"
    mkdir -p "$STATE" && (umask 077 && mkdir "$BEFORE.new") || return 1
    own_files >"$BEFORE.new/own" && cached >"$BEFORE.new/caches" || return 1
    if [ -f /etc/machine-id ]; then cp -p /etc/machine-id "$BEFORE.new/machine-id" || return 1; fi
    ls "$STATE/runs" >"$BEFORE.new/runs" 2>/dev/null
    mv "$BEFORE.new" "$BEFORE"
}

image_end() { # everything is done: what is of no use in an image goes. Tells what of a single machine was in the tree before
    [ -d "$BEFORE" ] || return 0
    own_files | grep -Fvx -f "$BEFORE/own" | while IFS= read -r image_file; do rm -f "$image_file"; done
    # in place: it may be somebody's link
    if [ -f "$BEFORE/machine-id" ] && [ "$(cat "$BEFORE/machine-id")" != "$(cat /etc/machine-id 2>/dev/null)" ]; then
        cat "$BEFORE/machine-id" >/etc/machine-id || return 1
    fi
    cached | grep -Fvx -f "$BEFORE/caches" | while IFS= read -r image_file; do rm -f "$image_file"; done
    # shellcheck disable=SC2086
    find $CACHES -depth -mindepth 1 -type d -empty ! -name partial -exec rmdir {} \; 2>/dev/null
    rm -f "$STATE"/refreshed.*
    if [ -f "$STATE/receipts" ]; then
        grep -Ev '^[^	]*	(cache	/var/lib/apt/lists/|index	)' "$STATE/receipts" >"$STATE/receipts.new"
        chmod 0600 "$STATE/receipts.new" && mv -f "$STATE/receipts.new" "$STATE/receipts" || return 1
    fi
    for image_run in "$STATE"/runs/*; do
        if [ -d "$image_run" ] && ! grep -Fxq -e "${image_run##*/}" "$BEFORE/runs"; then rm -rf "$image_run"; fi
    done
    rmdir "$STATE/runs" 2>/dev/null
    image_labels
    rm -rf "$STATE"/work.* "$STATE/lock" "$STATE/lock.guard" "$STATE"/lock.* "$STATE"/reboot.*
    if [ -s "$BEFORE/machine-id" ] && [ "$(cat "$BEFORE/machine-id")" != uninitialized ]; then echo machine-id; fi
    if grep -q '^/etc/ssh/ssh_host_' "$BEFORE/own"; then echo ssh-host-keys; fi
    rm -rf "$BEFORE"
}

image_labels() { # where SELinux will be on, the new files need their labels, which no kernel gives them here
    image_mode=$(sed -n 's/^SELINUX=//p' /etc/selinux/config 2>/dev/null | tail -n 1)
    image_type=$(sed -n 's/^SELINUXTYPE=//p' /etc/selinux/config 2>/dev/null | tail -n 1)
    image_contexts=/etc/selinux/$image_type/contexts/files/file_contexts
    case $image_mode in enforcing | permissive) [ -f "$image_contexts" ] || return 0 ;; *) return 0 ;; esac
    if command -v setfiles >/dev/null 2>&1 && setfiles -F -e /proc -e /sys -e /dev -e /run -e /tmp "$image_contexts" / >/dev/null 2>&1; then return 0; fi
    # the first boot does it then, and boots once more
    : >/.autorelabel
}

main() { # begin|end
    LC_ALL=C
    export LC_ALL
    "image_$1"
}

main "$@" </dev/null
