# A room for work inside an unpacked system: its own mounts and processes, of which nothing is left when it ends, however it ends. It is process 1
# of a process namespace, in a mount namespace that tells nobody else; both go when the last process in them does, and all go when process 1 does.

MARK='# mlhost: here only while an image is made'

ours() { # FILE: left by a room that was killed
    [ -f "$1" ] && [ ! -L "$1" ] && IFS= read -r ours_line <"$1" && [ "$ours_line" = "$MARK" ]
}

mounted() { [ "$(stat -c %d "$1")" != "$(stat -c %d "$TREE")" ]; } # FOLDER of the tree: something else is mounted there

room_dev() { # only what every program may count on: neither this machine's devices nor its log are there
    mount -t tmpfs -o mode=755,nosuid mlhost "$TREE/dev" || return 1
    for room_node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
        room_name=${room_node%%:*} room_number=${room_node#*:}
        if mknod -m 666 "$TREE/dev/$room_name" c "${room_number%:*}" "${room_number#*:}" 2>/dev/null && (: <"$TREE/dev/$room_name") 2>/dev/null; then continue; fi
        # a container may hand its devices on and yet make none
        [ "$room_name" != tty ] || continue
        rm -f "$TREE/dev/$room_name"
        : >"$TREE/dev/$room_name" && mount --bind "/dev/$room_name" "$TREE/dev/$room_name" || return 1
    done
    for room_link in fd: stdin:/0 stdout:/1 stderr:/2; do ln -s "/proc/self/fd${room_link#*:}" "$TREE/dev/${room_link%%:*}"; done
    mkdir "$TREE/dev/shm" "$TREE/dev/pts"
    mount -t tmpfs -o mode=1777,nosuid mlhost "$TREE/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 mlhost "$TREE/dev/pts" 2>/dev/null && ln -s pts/ptmx "$TREE/dev/ptmx"
    return 0
}

room_bare() { # only to look: nothing of the running kernel is to be seen, also where the caller has mounted it
    for room_folder in proc sys run; do
        if [ -d "$TREE/$room_folder" ] && mounted "$TREE/$room_folder"; then
            mount -t tmpfs -o ro,mode=555 mlhost "$TREE/$room_folder" || return 1
        fi
    done
}

room_quiet() { # to ask and to fetch in
    # an empty sys: what it tells and what can be done by it (profiles, modules) is this machine's, not the image's
    for room_folder in proc sys run tmp; do [ -d "$TREE/$room_folder" ] || mkdir "$TREE/$room_folder" || return 1; done
    mount -t proc -o nosuid,nodev,noexec proc "$TREE/proc" && mount -t tmpfs -o ro,mode=555 mlhost "$TREE/sys" &&
        mount -t tmpfs -o mode=755,nosuid,nodev mlhost "$TREE/run" && mount -t tmpfs -o mode=1777,nosuid,nodev mlhost "$TREE/tmp" || return 1
    mkdir "$TREE/run/lock" && room_names
}

room_whole() { # to work in
    room_quiet && room_services
}

# Inside the tree, where its links lead to what they mean there: the real path of FILE, whose folder is made if need be.
# shellcheck disable=SC2016  # it is the tree's shell that reads it
REAL='f=$1
while [ -L "$f" ]; do
    l=$(readlink "$f")
    case $l in /*) f=$l ;; *) f=${f%/*}/$l ;; esac
done
mkdir -p "${f%/*}" && d=$(cd -P "${f%/*}" && pwd -P) && printf "%s" "${d%/}/${f##*/}"'

in_tree() { chroot "$TREE" /bin/sh -c "$@" </dev/null; } # TEXT NAME ARGUMENT...

lend() { # PATH FILE: in the tree there is this file at this path, as long as the room is there
    lend_real=$(in_tree "$REAL" lend "$1") && [ -n "$lend_real" ] || return 1
    lend_real=$TREE$lend_real
    if ours "$lend_real"; then rm -f "$lend_real"; fi
    case $lend_real in "$TREE/run/"*) cp -p "$2" "$lend_real"; return ;; esac
    if [ ! -e "$lend_real" ]; then
        (printf '%s\n' "$MARK" >"$lend_real") || return 1
        LENT="$LENT
$lend_real"
    fi
    mount --bind "$2" "$lend_real"
}

room_names() { # names are resolved as they are here, for the packages have to be fetched
    { cat /etc/resolv.conf >"$TREE/run/mlhost.resolv"; } 2>/dev/null
    lend /etc/resolv.conf "$TREE/run/mlhost.resolv"
}

room_services() { # what packages would start stays down, where systemd is not asked anyway
    [ -e "$TREE/usr/sbin/invoke-rc.d" ] || return 0
    printf '#!/bin/sh\nexit 101\n' >"$TREE/run/mlhost.policy" && chmod 755 "$TREE/run/mlhost.policy" && lend /usr/sbin/policy-rc.d "$TREE/run/mlhost.policy"
}

leave() { # what was lent and had no place of its own goes again
    printf '%s\n' "$LENT" | while IFS= read -r leave_file; do
        if [ -n "$leave_file" ]; then umount "$leave_file"; fi
        if ours "$leave_file"; then rm -f "$leave_file"; fi
    done
}

room() { # TREE bare|quiet|whole COMMAND...
    TREE=$1 LENT='' room_kind=$2
    shift 2
    mount --rbind "$TREE" "$TREE" || return 124
    # the bind lies over the folder; a path leads into it anew
    cd / || return 124
    if ! room_dev || ! "room_$room_kind"; then
        leave
        echo "mlhost: the tree's folders cannot be mounted" >&2
        return 124
    fi
    room_rc=0
    chroot "$TREE" "$@" || room_rc=$?
    leave 2>/dev/null
    return "$room_rc"
}

room "$@"
