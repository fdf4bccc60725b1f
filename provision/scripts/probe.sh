#!/bin/sh
# What this machine is, as raw text: read-only, POSIX sh (dash, bash, busybox ash), one round trip.
#
#   sh -s -- MARK [--root DIR | --image] [--arch ARCH] [--asked-at EPOCH] [--path P]... [--disk P]... [--package P]... [--packages] [--deep] [--no-metadata]
#
# Prints sections: a line `@@MARK name rc`, the raw text, a newline; the last is `@@MARK end 0`. Without `end` the answer was cut short.
# Nothing is interpreted here and nothing is written. rc is 0, what a command returned, or one of these (after errno):
#   2 absent   13 unreadable   22 not a regular file   27 too big   40 too many links   111 not running   124 timed out   127 no such program
# With --root only DIR is read and no command of the running system is asked; links in DIR never lead out of it.
# With --image it runs inside an unpacked system (chroot) that no kernel shows anything to: files are read as with --root, and the tree's own
# programs may be asked what needs no running system.

NL='
'
TAB='	'

# frame NAME RC: the head of a section. emit NAME RC TEXT: a whole one. Both gather, for every piece that is written is a packet of its own on its way;
# flush writes. What a subshell has gathered it must write itself, and before other programs write, the shell does.
frame() { OUT="$OUT@@$MARK $1 $2$NL"; }
emit() { OUT="$OUT@@$MARK $1 $2$NL$3$NL"; }
flush() { [ -z "$OUT" ] || printf '%s' "$OUT"; OUT=''; }

# at PATH: R becomes where PATH is found. Under --root every link on the way is followed inside the root.
at() {
    R=$1
    [ -z "$LIVE" ] || return 0
    rest=${1#/} done='' links=0
    while [ -n "$rest" ]; do
        part=${rest%%/*}
        case $rest in */*) rest=${rest#*/} ;; *) rest='' ;; esac
        case $part in
            '' | .) continue ;;
            ..) done=${done%/*}; continue ;;
        esac
        if [ -L "$ROOT$done/$part" ]; then
            links=$((links + 1))
            R=$ROOT/dev/null/too-many-links
            [ "$links" -le 40 ] || return 40
            to=$(readlink "$ROOT$done/$part") || return 40
            case $to in /*) done='' ;; esac
            rest=$to/$rest
        else
            done=$done/$part
        fi
    done
    R=$ROOT$done
}

# why_not: the rc for an R that is not there: 2 absent, or 13 where a folder on the way may not be entered.
why_not() {
    up=$R
    while [ -n "$up" ] && [ ! -e "$up" ]; do up=${up%/*}; done
    if [ -d "${up:-/}" ] && [ ! -x "${up:-/}" ]; then return 13; fi
    return 2
}

# state PATH: sets R and returns 0 for a readable regular file, else the rc that says why not.
state() {
    at "$1" || return 40
    if [ -f "$R" ]; then
        [ -r "$R" ] && return 0
        return 13
    fi
    [ -e "$R" ] && return 22
    why_not
}

# line PATH: V becomes the first line of a small file. The kernel's own files are read without a fork.
line() {
    V=''
    state "$1" || return
    if [ -n "$LIVE" ]; then
        IFS= read -r V <"$R" || :
    else
        V=$(dd if="$R" bs=4096 count=1 2>/dev/null)
        V=${V%%"$NL"*}
    fi
    return 0
}

# one NAME PATH: a section with the first line of a small file.
one() {
    line "$2"
    emit "$1" $? "$V"
}

# want KIND NAME PATH: one awk reads all of the list at the end of the quick part.
want() {
    state "$3"
    LIST="$LIST$1$TAB$?$TAB$2$TAB$R$NL"
}

# want_all KIND PREFIX FOLDER GLOB...: every file in a folder whose name is a plain one.
want_all() {
    kind=$1 prefix=$2 dir=$3
    shift 3
    at "$dir" || return 0
    folder=$R
    if [ ! -e "$folder" ]; then
        why_not
        [ $? != 2 ] || return 0
    fi
    if [ ! -d "$folder" ] || [ ! -r "$folder" ] || [ ! -x "$folder" ]; then
        LIST="${LIST}none${TAB}13${TAB}$prefix$dir/${TAB}$folder$NL"
        return 0
    fi
    for glob in "$@"; do
        for entry in "$folder"/$glob; do
            [ -e "$entry" ] || [ -L "$entry" ] || continue
            base=${entry##*/}
            case $base in *[!A-Za-z0-9_.+:@-]*) continue ;; esac
            want "$kind" "$prefix$dir/$base" "$dir/$base"
        done
    done
}

# bounded SECONDS COMMAND...: a command that might hang.
bounded() {
    seconds=$1
    shift
    if [ -n "$P_timeout" ]; then
        timeout "$seconds" "$@"
    else
        "$@"
    fi
}

# find_program NAME: P becomes its path ("" absent). Looks along PATH without a fork.
find_program() {
    P=''
    if [ -z "$LIVE" ]; then
        for dir in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin /snap/bin; do
            at "$dir/$1" && [ -f "$R" ] && { P=$dir/$1; return 0; }
        done
        return 1
    fi
    rest=$PATH:
    while [ -n "$rest" ]; do
        dir=${rest%%:*}
        rest=${rest#*:}
        if [ -f "$dir/$1" ] && [ -x "$dir/$1" ]; then P=$dir/$1; return 0; fi
    done
    return 1
}

programs() {
    TEXT=''
    for name in timeout docker dockerd podman nvidia-smi nvidia-ctk nvidia-container-runtime-hook nvidia-container-runtime nvidia-cdi-hook \
        apt-get dnf dnf5 yum tdnf microdnf zypper rpm snap sudo curl wget perl python3 gpg gpgv modinfo mokutil cloud-init systemctl \
        update-initramfs dracut mkinitrd; do
        find_program "$name" || continue
        TEXT="$TEXT$name $P$NL"
        case $name in
            timeout) P_timeout=$P ;;
            docker) P_docker=$P ;;
            podman) P_podman=$P ;;
            nvidia-smi) P_smi=$P ;;
            nvidia-ctk) P_ctk=$P ;;
            curl) P_curl=$P ;;
            wget) P_wget=$P ;;
            perl) P_perl=$P ;;
            modinfo) P_modinfo=$P ;;
            systemctl) P_systemctl=$P ;;
            rpm) P_rpm=$P ;;
        esac
    done
    emit programs 0 "$TEXT"
}

# present: which of these exist; a line `? path` where that cannot be known.
present() {
    TEXT=''
    for path in /run/systemd/system /run/ostree-booted /.dockerenv /run/.containerenv /dev/dxg /etc/nv_tegra_release /sys/firmware \
        /sys/firmware/efi /sys/firmware/efi/efivars /sys/bus/pci/devices /sys/devices /sys/module /sys/module/nvidia /sys/module/nouveau \
        /usr/bin/nvidia-uninstall /var/snap/docker /snap/bin/docker /etc/cloud/cloud-init.disabled /run/cloud-init/disabled \
        /run/cloud-init/enabled /var/lib/cloud/instance/boot-finished /run/reboot-required /var/lib/dpkg/status /var/lib/rpm \
        /usr/lib/sysimage/rpm /var/lib/rpm/rpmdb.sqlite /var/lib/rpm/Packages /var/lib/rpm/Packages.db /usr/lib/sysimage/rpm/rpmdb.sqlite \
        /usr/lib/sysimage/rpm/Packages.db /sys/fs/selinux /run/docker.pid /run/docker.sock /run/mlhost/docker.loaded /proc/driver/nvidia /var/lib/mlhost /dev/kvm; do
        at "$path" || continue
        if [ -e "$R" ]; then TEXT="$TEXT$path$NL"; else
            why_not
            [ $? = 2 ] || TEXT="$TEXT? $path$NL"
        fi
    done
    emit present 0 "$TEXT"
}

# pci: NVIDIA's functions on the bus, one a line; GPU becomes 1 if one of them is a display device.
pci() {
    TEXT='' GPU=''
    at /sys/bus/pci/devices
    bus=$R
    if [ ! -d "$bus" ]; then why_not; emit pci $? ''; return; fi
    if [ ! -r "$bus" ] || [ ! -x "$bus" ]; then emit pci 13 ''; return; fi
    for entry in "$bus"/*; do
        address=${entry##*/}
        case $address in *[!0-9a-fA-F:.]*) continue ;; esac
        device=/sys/bus/pci/devices/$address
        line "$device/vendor"
        case $V in 0x10de | 0x10DE) ;; *) continue ;; esac
        TEXT="$TEXT$address vendor=$V"
        for key in device class subsystem_vendor subsystem_device; do
            line "$device/$key"
            TEXT="$TEXT $key=$V"
            [ "$key" != class ] || class=$V
        done
        driver=''
        if [ -z "$LIVE" ]; then
            at "$device/driver"
            driver=${R##*/}
            [ "$driver" != driver ] || driver=''
        elif cd -P "$device/driver"; then
            driver=${PWD##*/}
            cd /
        fi
        TEXT="$TEXT driver=$driver"
        at "$device/physfn"
        [ ! -e "$R" ] || TEXT="$TEXT vf=1"
        case $class in
            0x0300* | 0x0302*)
                GPU=1
                # Users get 64 bytes, which hold no capabilities; only root can tell a vGPU.
                if { [ "$ID" = 0 ] || [ -z "$LIVE" ]; } && state "$device/config"; then
                    # shellcheck disable=SC2046 # split on purpose: one word a byte
                    set -- $(od -An -v -tx1 -N256 "$R")
                    TEXT="$TEXT config=$*"
                fi
                ;;
        esac
        TEXT=$TEXT$NL
    done
    emit pci 0 "$TEXT"
}

container() {
    line /run/systemd/container && { emit container 0 "$V"; return; }
    line /run/host/container-manager && { emit container 0 "$V"; return; }
    # Its environment may hold secrets: only the one variable leaves this machine.
    if state /proc/1/environ; then
        IFS= read -r V <"$R" || :
        case $V in
            *container=*) V=$(tr '\0' '\n' <"$R" | sed -n 's/^container=//p' | head -n 1) ;;
            *) V='' ;;
        esac
        emit container 0 "$V"
    else
        emit container 13 ''
    fi
}

secure_boot() {
    at /sys/firmware/efi/efivars
    rc=2 TEXT=''
    for entry in "$R"/[!.]*; do
        # Other variables without this one: firmware that knows no Secure Boot.
        [ -e "$entry" ] || continue
        TEXT=none
        break
    done
    for entry in "$R"/SecureBoot-*; do
        [ -e "$entry" ] || continue
        state "/sys/firmware/efi/efivars/${entry##*/}"
        rc=$?
        [ "$rc" = 0 ] || continue
        TEXT=$(od -An -v -tu1 -N16 "$R") || rc=127
        break
    done
    emit secure_boot "$rc" "$TEXT"
}

dmi() {
    TEXT='' CLOUD=''
    for key in sys_vendor product_name product_version board_vendor bios_vendor bios_version chassis_vendor chassis_asset_tag; do
        line "/sys/class/dmi/id/$key" || continue
        TEXT="$TEXT$key=$V$NL"
        case $key=$V in
            'sys_vendor=Amazon EC2') CLOUD=aws ;;
            'product_name=Google Compute Engine') CLOUD=gcp ;;
            'chassis_asset_tag=7783-7084-3265-9085-8269-3286-77') CLOUD=azure ;;
            'chassis_asset_tag=OracleCloud.com') CLOUD=oci ;;
        esac
    done
    emit dmi 0 "$TEXT"
}

# asked HEADER URL...: the answers, a line each. Nothing else may answer in the service's place, and it has a second.
asked() {
    header=$1
    shift
    if [ -n "$P_curl" ]; then
        # The header by a pipe: it may hold a token, which other users must not see among the arguments.
        printf 'header = "%s"\n' "$header" |
            bounded 2 curl -q -sS -f --noproxy '*' --connect-timeout 1 --max-time 1 -K - -w '\n' "$@" 2>/dev/null
        return
    fi
    for url in "$@"; do
        bounded 2 wget -q -O - -T 1 -t 1 --no-proxy --header="$header" "$url" 2>/dev/null || return
        echo
    done
}

# metadata: instance type, region and zone, where the firmware says whose machine this is.
metadata() {
    [ -n "$CLOUD" ] || return 0
    if [ -z "$P_curl$P_wget" ]; then emit metadata 127 ''; return; fi
    service=http://169.254.169.254
    case $CLOUD in
        aws)
            # Its header would stand among wget's arguments, and busybox's knows no PUT.
            if [ -z "$P_curl" ]; then emit metadata 127 ''; return; fi
            token=$(bounded 2 curl -q -sS -f --noproxy '*' --connect-timeout 1 --max-time 1 -X PUT \
                -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "$service/latest/api/token" 2>/dev/null)
            rc=$?
            case $token in '' | *[!A-Za-z0-9+/=_.-]*) [ "$rc" != 0 ] || rc=22; emit metadata "$rc" ''; return ;; esac
            TEXT=$(asked "X-aws-ec2-metadata-token: $token" "$service/latest/meta-data/instance-type" "$service/latest/meta-data/placement/region" \
                "$service/latest/meta-data/placement/availability-zone")
            ;;
        gcp) TEXT=$(asked 'Metadata-Flavor: Google' "$service/computeMetadata/v1/instance/machine-type" "$service/computeMetadata/v1/instance/zone") ;;
        azure)
            version='api-version=2021-02-01&format=text'
            TEXT=$(asked 'Metadata: true' "$service/metadata/instance/compute/vmSize?$version" "$service/metadata/instance/compute/location?$version" \
                "$service/metadata/instance/compute/zone?$version")
            ;;
        oci) TEXT=$(asked 'Authorization: Bearer Oracle' "$service/opc/v2/instance/shape" "$service/opc/v2/instance/region" "$service/opc/v2/instance/availabilityDomain") ;;
    esac
    rc=$?
    type='' region='' zone=''
    { IFS= read -r type; IFS= read -r region; IFS= read -r zone; } <<END
$TEXT
END
    # Google's are paths that begin with the project's number.
    if [ "$CLOUD" = gcp ]; then type=${type##*/} zone=${region##*/} region=${region##*/} region=${region%-*}; fi
    TEXT=''
    for V in "type=$type" "region=$region" "zone=$zone"; do
        case ${V#*=} in '' | *[!A-Za-z0-9._:-]*) ;; *) TEXT="$TEXT$V$NL" ;; esac
    done
    emit metadata "$rc" "$TEXT"
}

nodes() {
    TEXT=''
    for path in /dev/nvidia*; do
        [ ! -e "$path" ] || TEXT="$TEXT$path$NL"
    done
    emit device_nodes 0 "$TEXT"
}

# kernels: every kernel that could be booted, and `nvidia` where its modules have NVIDIA's. One grep for all of them, only where there is a GPU.
kernels() {
    TEXT='' lists=''
    at /lib/modules || return 0
    folder=$R
    for entry in "$folder"/*/modules.dep; do
        [ -f "$entry" ] || continue
        V=${entry%/modules.dep} V=${V##*/}
        at "/boot/vmlinuz-$V" || continue
        if [ -e "$R" ] || [ -e "$folder/$V/vmlinuz" ]; then lists="$lists$entry$NL"; fi
    done
    [ -n "$lists" ] || return 0
    IFS=$NL
    # shellcheck disable=SC2086 # split on purpose: one path a line
    with=$(grep -l -E '(^|/)nvidia(-current)?[.]ko' $lists)
    for entry in $lists; do
        V=${entry%/modules.dep} V=${V##*/}
        case $NL$with$NL in *"$NL$entry$NL"*) TEXT="$TEXT$V nvidia$NL" ;; *) TEXT="$TEXT$V$NL" ;; esac
    done
    IFS=' '"$TAB$NL"
    emit kernels 0 "$TEXT"
}

libraries() {
    TEXT=''
    for folder in /usr/lib/x86_64-linux-gnu /usr/lib/aarch64-linux-gnu /usr/lib64 /usr/lib/x86_64-linux-gnu/nvidia/current \
        /usr/lib/aarch64-linux-gnu/nvidia/current /usr/lib/wsl/lib; do
        at "$folder" || continue
        for entry in "$R"/libnvidia-ml.so.[0-9]*.[0-9]*; do
            [ ! -e "$entry" ] || TEXT="$TEXT$folder/${entry##*/}$NL"
        done
    done
    emit libraries 0 "$TEXT"
}

# keys: armoured signing keys as they are (section keytext:PATH), which takes no program; others as base64 (key64:PATH) or, without that, hex (keyhex:PATH).
keys() {
    for folder in /etc/apt/keyrings /usr/share/keyrings /etc/apt/trusted.gpg.d /etc/pki/rpm-gpg; do
        at "$folder" || continue
        found=$R
        for entry in "$found"/*; do
            [ -e "$entry" ] || [ -L "$entry" ] || continue
            base=${entry##*/}
            case $base in *[!A-Za-z0-9_.+:@-]*) continue ;; esac
            case $folder/$base in
                /etc/apt/keyrings/*) ;;
                */docker* | */nvidia* | */cuda* | */libnvidia* | */mlhost*) ;;
                /etc/pki/rpm-gpg/*[Dd]ocker* | /etc/pki/rpm-gpg/*[Nn][Vv][Ii][Dd][Ii][Aa]* | /etc/pki/rpm-gpg/*[Cc][Uu][Dd][Aa]*) ;;
                /etc/pki/rpm-gpg/*mlhost* | /etc/pki/rpm-gpg/*EPEL*) ;;
                *) [ -n "$RECORD" ] || continue ;;
            esac
            case $folder/$base in
                # apt takes a key of this name for armoured, and rpm's are always.
                *.asc | /etc/pki/rpm-gpg/*) want file "keytext:$folder/$base" "$folder/$base"; continue ;;
            esac
            state "$folder/$base"
            rc=$?
            [ "$rc" = 0 ] || { emit "key64:$folder/$base" "$rc" ''; continue; }
            if TEXT=$(head -c 65537 "$R" | base64) && [ -n "$TEXT" ]; then name=key64; else
                name=keyhex
                TEXT=$(od -An -v -tx1 -N65537 "$R") || rc=127
            fi
            # 65536 bytes are 87384 characters of base64 in 1150 lines, or 3 characters each in hex.
            case $name in key64) most=88550 ;; *) most=200704 ;; esac
            [ ${#TEXT} -le $most ] || { rc=27 TEXT=''; }
            emit "$name:$folder/$base" "$rc" "$TEXT"
        done
    done
}

# holders FILE...: the processes that these files of the journal name, each as the kernel's line about it.
holders() {
    for holder in "$@"; do
        state "$holder" || continue
        pid=''
        while IFS='=' read -r key V; do
            [ "$key" != pid ] || pid=$V
        done <"$R"
        case $pid in '' | *[!0-9]*) continue ;; esac
        case $seen in *" $pid "*) continue ;; esac
        seen="$seen$pid "
        one "proc:$pid" "/proc/$pid/stat"
    done
}

# journal: what mlhost left on this machine. Most of it is root's.
journal() {
    top=/var/lib/mlhost
    at "$top"
    if [ ! -e "$R" ]; then why_not; emit journal $? ''; return; fi
    if [ ! -r "$R" ] || [ ! -x "$R" ]; then emit journal 13 ''; return; fi
    emit journal 0 ''
    want file journal_lock "$top/lock"
    want file proof "$top/proof"
    newest='' run='' seen=' '
    at "$top/runs"
    if [ -d "$R" ] && { [ ! -r "$R" ] || [ ! -x "$R" ]; }; then emit journal_runs 13 ''; fi
    # The names begin with the time.
    for entry in "$R"/*; do
        base=${entry##*/}
        case $base in *[!A-Za-z0-9_.-]* | *.new) continue ;; esac
        [ ! -d "$entry" ] || newest=$base
    done
    if [ -n "$LIVE" ] && state "$top/lock"; then
        while IFS='=' read -r key V; do
            [ "$key" != run ] || run=$V
        done <"$R"
        holders "$top/lock"
    fi
    for base in "$newest" "$run"; do
        case $base in '' | *[!A-Za-z0-9_.-]* | .*) continue ;; esac
        for name in meta result runner script; do
            want file "run:$base:$name" "$top/runs/$base/$name"
        done
        [ -z "$LIVE" ] || holders "$top/runs/$base/runner" "$top/runs/$base/script"
        # A script that came to its end without its runner has said so itself.
        at "$top/runs/$base"
        if [ ! -e "$R/result" ] && state "$top/runs/$base/events"; then
            TEXT=$(tail -n 1 "$R")
            emit "run:$base:end" $? "$TEXT"
        fi
        [ "$newest" != "$run" ] || break
    done
}

# rootless: daemons that users run for themselves or, where its programs are installed, have set up.
rootless() {
    unit=.config/systemd/user/docker.service
    TEXT=''
    if [ -n "$LIVE" ]; then
        for entry in /run/user/*/docker.sock; do
            [ ! -S "$entry" ] || TEXT="$TEXT$entry$NL"
        done
        if find_program dockerd-rootless.sh; then
            # Homes may be on a file server that is gone.
            TEXT=$TEXT$(bounded 5 sh -c "ls -d /home/*/$unit")
        fi
        emit rootless 0 "$TEXT"
        return
    fi
    at /home
    for entry in "$R"/*/"$unit"; do
        [ -e "$entry" ] || continue
        TEXT="$TEXT/home${entry#"$R"}$NL"
    done
    emit rootless 0 "$TEXT"
}

# paths P...: kind, mode, owner and sha256. One stat and one sha256sum for all of them.
paths() {
    TEXT=''
    for path in "$@"; do
        at "${path%/*}/" && { base=${path##*/}; R=$R/$base; }
        [ -n "$LIVE" ] && R=$path
        if [ -e "$R" ] || [ -L "$R" ]; then TEXT="$TEXT$R$NL"; rc=0; else why_not; rc=$?; fi
        emit "path:$path" "$rc" "$R"
    done
    set --
    IFS=$NL
    # shellcheck disable=SC2086 # split on purpose: one path a line
    set -- $TEXT
    IFS=' '
    [ $# -gt 0 ] || return 0
    owner=%U:%G
    [ -n "$LIVE" ] || owner=%u:%g
    TEXT=$(stat -c "%a|$owner|%F|%n" "$@")
    emit stat $? "$TEXT"
    for path in "$@"; do
        shift
        [ -z "$LIVE" ] && [ -L "$path" ] && continue
        [ ! -f "$path" ] || [ ! -r "$path" ] || set -- "$@" "$path"
    done
    [ $# -gt 0 ] || return 0
    TEXT=$(sha256sum "$@")
    emit sha256 $? "$TEXT"
}

# disks P...: free space where each path is, or will be.
disks() {
    set -- / /var/lib/docker "$@"
    TEXT=''
    count=$#
    while [ "$count" -gt 0 ]; do
        path=$1
        shift
        count=$((count - 1))
        case $NL$TEXT in *"$NL$path$NL"*) continue ;; esac
        up=$path
        while [ ! -e "$up" ] && [ -n "$up" ]; do up=${up%/*}; done
        set -- "$@" "${up:-/}"
        TEXT="$TEXT$path$NL"
    done
    emit disk_paths 0 "$TEXT"
    # Only a path that somebody named may be on a file server that is gone.
    [ $# -gt 2 ] || P_timeout=''
    # GNU's tells both at once.
    if TEXT=$(bounded 10 df -k --output=source,size,used,avail,pcent,itotal,iused,iavail,ipcent,target "$@"); then
        emit df_both 0 "$TEXT"
        return
    fi
    TEXT=$(bounded 10 df -Pk "$@")
    emit df $? "$TEXT"
    TEXT=$(bounded 10 df -Pi "$@")
    emit df_inodes $? "$TEXT"
}

# lock_pids: package managers that say in a file who they are, and are still there.
lock_pids() {
    TEXT=''
    for path in /var/lib/dnf/rpmdb_lock.pid /var/cache/dnf/metadata_lock.pid /var/cache/dnf/download_lock.pid /run/yum.pid /run/zypp.pid; do
        line "$path" || continue
        case $V in '' | *[!0-9]*) continue ;; esac
        pid=$V
        line "/proc/$pid/comm" || continue
        TEXT="$TEXT$path $pid $V$NL"
    done
    emit lock_pids 0 "$TEXT"
}

# blocks: whole disks. What is on one is asked only of those that look unused.
blocks() {
    TEXT=''
    [ -d /sys/block ] || { emit blocks 2 ''; return; }
    for entry in /sys/block/*; do
        base=${entry##*/}
        case $base in loop* | ram* | sr* | fd* | dm-* | zram* | md* | nbd* | mtd* | *[!A-Za-z0-9_!-]*) continue ;; esac
        line "$entry/size" || continue
        TEXT="$TEXT$base sectors=$V"
        line "$entry/queue/rotational"
        TEXT="$TEXT rotational=$V"
        line "$entry/ro"
        TEXT="$TEXT ro=$V parts="
        parts=''
        for part in "$entry/$base"*/partition; do
            [ -e "$part" ] || continue
            part=${part%/partition}
            parts="$parts${part##*/},"
        done
        TEXT="$TEXT$parts holders="
        held=''
        for part in "$entry"/holders/* "$entry/$base"*/holders/*; do
            [ -e "$part" ] || continue
            held="$held${part##*/},"
        done
        TEXT="$TEXT$held"
        if [ -z "$parts$held" ]; then
            if [ "$ID" = 0 ] && [ -b "/dev/$base" ]; then
                # blkid exits 2 where it recognises nothing.
                found=$(bounded 10 blkid -p -o value -s TYPE -s PTTYPE "/dev/$base")
                rc=$?
                found=${found%%"$NL"*}
                TEXT="$TEXT blkid=$rc type=$found"
            else
                TEXT="$TEXT blkid=13 type="
            fi
        fi
        line "$entry/device/model"
        TEXT="$TEXT model=$V$NL"
    done
    emit blocks 0 "$TEXT"
}

# newer: which of the files that Docker reads at its start were changed since, and since its last reload.
# The change time counts, not the modification time: packages carry the latter with them.
newer() {
    [ -e /run/docker.pid ] || { emit newer 2 ''; return; }
    set --
    for path in /etc/docker/daemon.json /usr/bin/nvidia-cdi-hook /usr/bin/nvidia-container-runtime-hook \
        /usr/bin/nvidia-container-runtime /etc/mlhost/docker-proxy.env /etc/systemd/system/docker.service.d/*.conf; do
        [ ! -e "$path" ] || set -- "$@" "$path"
    done
    [ $# -gt 0 ] || { emit newer 0 ''; return; }
    test=-cnewer
    # busybox's find knows only -newer.
    find / -prune -cnewer / >/dev/null 2>&1 || test=-newer
    if [ -e /run/mlhost/docker.loaded ]; then
        TEXT=$(find "$@" -prune "$test" /run/docker.pid "$test" /run/mlhost/docker.loaded)
    else
        TEXT=$(find "$@" -prune "$test" /run/docker.pid)
    fi
    emit newer $? "$TEXT"
}

# docker_info: what the daemon says of itself, asked only if it runs: a connection to the socket would start it.
docker_info() {
    [ -n "$P_docker" ] || [ -S /run/docker.sock ] || return 0
    if [ -n "$P_podman" ] && [ -n "$P_docker" ]; then
        IFS= read -r V <"$P_docker"
        case $V in '#!'*) emit docker_info 22 "$P_docker is a script of podman's"; return ;; esac
    fi
    runs=''
    if [ ! -d /run/systemd/system ] || [ -d /var/snap/docker ]; then
        runs=maybe
    elif line /run/docker.pid; then
        case $V in '' | *[!0-9]*) ;; *)
            # A user may be kept from seeing other users' processes.
            if [ -d "/proc/$V" ] || [ "$ID" != 0 ]; then runs=yes; fi
            ;;
        esac
    elif line /etc/docker/daemon.json && [ -S /run/docker.sock ]; then
        while IFS= read -r V; do
            case $V in *'"pidfile"'*) runs=maybe ;; esac
        done <"$R"
    fi
    if [ -z "$runs" ]; then emit docker_info 111 'dockerd does not run'; return; fi
    if [ ! -S /run/docker.sock ]; then emit docker_info 111 'there is no socket /run/docker.sock'; return; fi
    if [ ! -w /run/docker.sock ]; then emit docker_info 13 'permission denied: /run/docker.sock'; return; fi
    # The same answer as from `docker info`, which runs every plugin of the client first.
    if [ -n "$P_curl" ]; then
        TEXT=$(curl -q -sS -f --noproxy '*' --max-time 20 --unix-socket /run/docker.sock http://localhost/info 2>&1)
        rc=$?
        [ "$rc" != 0 ] || { emit docker_info 0 "$TEXT"; return; }
    elif [ -n "$P_perl" ]; then
        # Debian's minimal systems lack curl and always have perl. AF_UNIX and SOCK_STREAM are 1 on Linux.
        # shellcheck disable=SC2016 # they are perl's variables
        TEXT=$(perl -e 'alarm 25; socket(S, 1, 1, 0) && connect(S, pack("SZ*", 1, "/run/docker.sock")) || exit 7;
            syswrite(S, "GET /info HTTP/1.0\r\nHost: localhost\r\n\r\n"); local $/; exit(<S> =~ /^HTTP\S+ 200 .*?\r\n\r\n(.+)/s && print($1) ? 0 : 22)' 2>&1)
        rc=$?
        [ "$rc" != 0 ] || { emit docker_info 0 "$TEXT"; return; }
    fi
    TEXT=$(bounded 25 docker --host unix:///run/docker.sock info --format '{{json .}}' 2>&1)
    emit docker_info $? "$TEXT"
}

# units: systemd's view of the units that matter. It is asked only for those that have a file or processes: for each of the others it would
# search all its folders anew, to say that there is none.
units() {
    if [ -z "$P_systemctl" ] || [ ! -d /run/systemd/system ]; then emit units 127 ''; return; fi
    TEXT=''
    set --
    for unit in docker.service docker.socket containerd.service nvidia-persistenced.service nvidia-cdi-refresh.service nvidia-cdi-refresh.path \
        nvidia-fabricmanager.service apt-daily.service apt-daily-upgrade.service firewalld.service packagekit.service dnf-automatic.service \
        snap.docker.dockerd.service mlhost-continue.service; do
        there=''
        # All of systemd.unit(5)'s folders, and the control groups (version 2 and 1) of what still runs though its file is gone.
        for folder in /etc/systemd/system /run/systemd/system /usr/lib/systemd/system /lib/systemd/system /usr/local/lib/systemd/system \
            /etc/systemd/system.control /run/systemd/system.control /run/systemd/transient /run/systemd/generator /run/systemd/generator.early \
            /run/systemd/generator.late /etc/systemd/system.attached /run/systemd/system.attached \
            /sys/fs/cgroup/system.slice /sys/fs/cgroup/systemd/system.slice; do
            if [ -e "$folder/$unit" ] || [ -L "$folder/$unit" ]; then there=1; break; fi
        done
        if [ -n "$there" ]; then set -- "$@" "$unit"; else
            TEXT="$TEXT${NL}Id=$unit${NL}LoadState=not-found${NL}ActiveState=inactive${NL}SubState=dead${NL}UnitFileState=$NL"
        fi
    done
    rc=0
    if [ $# -gt 0 ]; then
        FOUND=$(bounded 20 systemctl show --no-pager -p Id,LoadState,ActiveState,SubState,UnitFileState "$@")
        rc=$?
        TEXT=$FOUND$NL$TEXT
    fi
    emit units "$rc" "$TEXT"
}

# image_units: which of the units that matter would start at boot; nothing runs here.
image_units() {
    if [ -z "$P_systemctl" ]; then emit units 127 ''; return; fi
    TEXT=''
    for unit in docker.service docker.socket containerd.service nvidia-persistenced.service nvidia-fabricmanager.service mlhost-first-boot.service; do
        V=$(systemctl --root=/ is-enabled "$unit")
        load=loaded
        case $V in '' | not-found) load=not-found V='' ;; masked*) load=masked ;; esac
        TEXT="$TEXT${NL}Id=$unit${NL}LoadState=$load${NL}ActiveState=${NL}SubState=${NL}UnitFileState=$V$NL"
    done
    emit units 0 "$TEXT"
}

# driver: the NVIDIA driver's own tools, asked only where there is a GPU.
driver() {
    if [ -n "$GPU" ]; then
        if [ -n "$P_modinfo" ]; then
            TEXT=$(modinfo nvidia 2>&1) || TEXT=$(modinfo nvidia-current 2>&1)
            rc=$?
            TEXT=$(printf '%s\n' "$TEXT" | sed -n -e '/^alias:/d' -e '/^parm:/d' -e '/^firmware:/d' -e '/^[a-z_]*:/p')
            emit modinfo "$rc" "$TEXT"
        else
            emit modinfo 127 ''
        fi
        if [ -n "$P_smi" ] && [ -e /proc/driver/nvidia/version ]; then
            fields=index,uuid,name,pci.bus_id,driver_version
            TEXT=$(bounded 60 nvidia-smi "--query-gpu=$fields,mig.mode.current" --format=csv,noheader 2>&1)
            rc=$?
            case $TEXT in
                # Drivers before 450.
                *'is not a valid field'*)
                    TEXT=$(bounded 60 nvidia-smi "--query-gpu=$fields" --format=csv,noheader 2>&1)
                    rc=$?
                    ;;
            esac
            emit nvidia_smi "$rc" "$TEXT"
            case $TEXT in
                *', Enabled'*)
                    TEXT=$(bounded 60 nvidia-smi -L 2>&1)
                    emit nvidia_mig $? "$TEXT"
                    ;;
            esac
        fi
    fi
    if [ -n "$P_ctk" ]; then
        TEXT=$(bounded 10 nvidia-ctk --version 2>&1)
        emit toolkit_version $? "$TEXT"
    fi
}

# record: what dpkg knows of every package, as far as another machine's apt needs it to tell what is missing here.
record() {
    TEXT=$(awk '
        /^[^ ]/ { keep = /^(Package|Status|Essential|Important|Protected|Priority|Section|Architecture|Multi-Arch|Version|Provides|Depends|Pre-Depends|Recommends|Conflicts|Breaks|Replaces):/ }
        keep || /^$/' "$R")
    emit dpkg_status $? "$TEXT"
}

# has_dpkg: whether dpkg keeps the packages here. An rpm system may have it as a mere program, with a file of its own that is empty.
has_dpkg() { state /var/lib/dpkg/status && { [ -s "$R" ] || [ -z "$P_rpm" ]; }; }

# packages NAMES: the packages that matter and those that are in a bad state. What dpkg knows is read with the other files, by `quick`.
packages() {
    if has_dpkg; then
        [ -z "$RECORD" ] || record
    else
        state /var/lib/dpkg/status
        rc=$?
        [ "$rc" != 0 ] || rc=2
        emit dpkg "$rc" ''
        if [ -n "$P_rpm" ] && [ -n "$LIVE$IMAGE" ]; then
            TEXT=$({ bounded 60 rpm -qa --qf '%{NAME} %{ARCH} %{EPOCH}:%{VERSION}-%{RELEASE}\n'; echo "! $?"; } | awk -v more=" $1 " '
                $1 == "!" { rc = $2; next }
                /^(docker|containerd|moby-|podman|buildah|runc|crun|nvidia|libnvidia|libcuda|cuda|datacenter-gpu|dcgm|[ak]?kmods?-nvidia|gpg-pubkey )/ ||
                /^(kernel|dkms|dnf|libdnf|python3-dnf-plugin|yum|tdnf|zypper|rpm |epel-release|elrepo-release|rpmfusion|xorg-x11-drv-nvidia)/ ||
                /^(ca-certificates|container-selinux|iptables|nftables|curl|wget|gnupg2|kmod|mokutil|cloud-init|python3|dracut|libcgroup|PackageKit) / ||
                index(more, " " $1 " ") { if (count++ < 3000) print }
                END { exit rc }')
            emit rpm $? "$TEXT"
        fi
    fi
    at /var/lib/dpkg/updates
    TEXT=''
    if [ -d "$R" ]; then
        for entry in "$R"/[0-9]*; do
            [ ! -e "$entry" ] || TEXT="$TEXT${entry##*/}$NL"
        done
        [ -r "$R" ] && emit dpkg_updates 0 "$TEXT"
    fi
}

# tell NAME LINES COMMAND...: the last so many lines of what a command prints, none longer than 500 characters.
tell() {
    name=$1 most=$2
    shift 2
    TEXT=$("$@" 2>&1 | tail -n "$most" | cut -c 1-500)
    emit "$name" $? "$TEXT"
    flush
}

kernel_log() {
    { bounded 20 journalctl -q -k -b --no-pager -n 20000 || dmesg; } | grep -v -i -e 'audit.*apparmor="STATUS"' | grep -i -E "nvrm|nvidia|nouveau|nova_core|\
secure boot|lockdown|module verification|key was rejected|oom-kill|out of memory|apparmor=\"DENIED\".*docker|blk_update_request|I/O error|EXT4-fs error|\
EXT4-fs.*remount|XFS.*(corrupt|error|shutdown)|PCIe Bus Error|segfault.*(cuda|nvidia|dockerd|containerd)"
}

# deep_kernels: every kernel on disk, and whether its modules, NVIDIA's module and what modules are built with are there.
deep_kernels() {
    for entry in /lib/modules/*; do
        [ -d "$entry" ] || continue
        modules=0 nvidia=0 build=0
        [ ! -e "$entry/modules.dep" ] || modules=1
        ! grep -q -E '(^|/)nvidia(-current)?\.ko' "$entry/modules.dep" || nvidia=1
        [ ! -e "$entry/build/Makefile" ] || build=1
        image=0
        for file in /boot/vmlinuz-"${entry##*/}" /boot/Image-"${entry##*/}" "$entry/vmlinuz"; do
            [ ! -e "$file" ] || image=1
        done
        echo "${entry##*/} modules=$modules nvidia=$nvidia build=$build image=$image"
    done
}

make_logs() {
    for file in /var/lib/dkms/nvidia*/*/build/make.log; do
        [ ! -f "$file" ] || { echo "$file"; grep -E 'error|Error|Killed|compiler' "$file" | tail -n 25; }
    done
}

settings() {
    for key in net/ipv4/ip_forward net/core/bpf_jit_harden net/bridge/bridge-nf-call-iptables kernel/unprivileged_userns_clone user/max_user_namespaces \
        kernel/apparmor_restrict_unprivileged_userns kernel/dmesg_restrict fs/inotify/max_user_instances vm/overcommit_memory; do
        line "/proc/sys/$key" && echo "$key=$V"
    done
    line /sys/module/apparmor/parameters/enabled && echo "apparmor=$V"
    find_program apparmor_parser && echo "apparmor_parser=$P"
    line /sys/kernel/security/lockdown && echo "lockdown=$V"
    find_program iptables && echo "iptables=$P"
    find_program nft && echo "nft=$P"
    for folder in "/lib/modules/$1/kernel/net/netfilter" /lib/firmware/nvidia; do
        [ ! -d "$folder" ] || echo "dir=$folder"
    done
    [ ! -e /run/reboot-required ] || echo reboot_required=1
    for user in "$SUDO_USER" root; do
        [ -n "$user" ] || continue
        echo "user=$user"
        echo "user_groups=$(id -nG "$user")"
        break
    done
    echo "memory_kb=$(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo)"
    [ ! -d /dev/shm ] || echo "shm_kb=$(df -Pk /dev/shm | awk 'NR == 2 { print $2 }')"
}

# resolve: whether this machine finds its own package sources by name. Only names that it uses anyway are looked up, and few.
resolve() {
    sed -n 's/^\(nameserver\|search\|options\)[[:space:]]/conf &/p' /etc/resolv.conf
    # shellcheck disable=SC2013 # a name is a word
    for name in $(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources /etc/yum.repos.d/*.repo 2>/dev/null |
        grep -v '^[[:space:]]*#' | grep -o -E 'https?://[A-Za-z0-9.-]+' | sed 's|.*//||' | sort -u | head -n 5); do
        case $name in *[!0-9.]*) ;; *) continue ;; esac
        bounded 5 getent ahosts "$name" >/dev/null
        echo "name $name $?"
    done
    for name in $(grep -h -i -E '^[^#/]*proxy' /etc/apt/apt.conf /etc/apt/apt.conf.d/* /etc/dnf/dnf.conf /etc/yum.conf /etc/environment 2>/dev/null | grep -o -E 'https?://([^@/" ]*@)?[A-Za-z0-9.-]+' |
        sed 's|.*[/@]||' | sort -u | head -n 2); do
        case $name in *[!0-9.]*) ;; *) echo "proxy $name 0"; continue ;; esac
        bounded 5 getent ahosts "$name" >/dev/null
        echo "proxy $name $?"
    done
}

# containers: how the last ones that ended badly ended. Of what they printed, only lines about GPUs.
containers() {
    ids=$(bounded 20 docker --host unix:///run/docker.sock ps -a -q --no-trunc --filter status=created --filter status=exited --filter status=dead -n 10)
    for id in $ids; do
        TEXT=$(bounded 10 docker --host unix:///run/docker.sock inspect --format '{{.State.Status}} {{.State.ExitCode}} {{.HostConfig.Runtime}} {{.State.Error}}' "$id")
        case $TEXT in 'exited 0 '*) continue ;; esac
        echo "$id $TEXT" | tr '\n' ' '
        echo
        bounded 10 docker --host unix:///run/docker.sock logs --tail 50 "$id" 2>&1 |
            grep -i -E 'nvml|nvidia|cuda|gpu|shared memory|bus error|exec format|no space left' | tail -n 10
    done
}

# deep: more for a diagnosis. Every part is bounded in time and size.
deep() {
    IFS=' '"$TAB$NL"
    line /proc/sys/kernel/osrelease
    running=$V
    tell deep_dmesg 300 kernel_log
    TEXT=$(grep -E '^(nvidia|nouveau|nova_core|overlay|br_netfilter|drm|vfio_pci|ib_umad|nf_tables|ip_tables|xt_addrtype|nf_nat)' /proc/modules)
    emit deep_modules $? "$TEXT"
    tell deep_kernels 100 deep_kernels
    tell deep_dkms 40 bounded 20 dkms status
    tell deep_make_log 60 make_logs
    TEXT=$(settings "$running")
    emit deep_settings $? "$TEXT"
    TEXT=$(resolve)
    emit deep_resolve $? "$TEXT"
    TEXT=$(stat -c '%a %U:%G %n' /dev/nvidia* /dev/nvidia-caps/* /dev/dri/render* 2>/dev/null | head -n 100)
    emit deep_nodes $? "$TEXT"
    TEXT=$(stat -L -c '%a %s %n' /etc/apt/keyrings /etc/apt/keyrings/* /usr/share/keyrings/*docker* /usr/share/keyrings/*nvidia* /usr/share/keyrings/*cuda* 2>/dev/null)
    emit deep_keyrings $? "$TEXT"
    if [ -n "$P_systemctl" ] && [ -d /run/systemd/system ]; then
        for unit in docker containerd nvidia-persistenced nvidia-cdi-refresh nvidia-fabricmanager; do
            tell "deep_journal:$unit" 60 bounded 20 journalctl -q --no-pager -b -n 60 -u "$unit.service"
        done
        tell deep_failed_units 50 bounded 20 systemctl --no-pager --failed --plain --no-legend
        tell deep_docker_unit 40 bounded 20 systemctl show --no-pager -p ExecStart,Result,NRestarts,DropInPaths,ActiveEnterTimestamp docker.service
    fi
    TEXT=$(ldconfig -p 2>/dev/null | grep -E 'lib(nvidia-ml|cuda)\.so')
    emit deep_libraries $? "$TEXT"
    if [ -n "$P_smi" ] && [ -e /proc/driver/nvidia/version ]; then
        TEXT=$(bounded 60 nvidia-smi -q 2>&1 | head -c 60000)
        emit deep_smi $? "$TEXT"
    fi
    if find_program dockerd && [ -e /etc/docker/daemon.json ]; then
        TEXT=$(bounded 20 dockerd --validate --config-file=/etc/docker/daemon.json 2>&1)
        rc=$?
        emit deep_validate "$rc" "$(printf '%s\n' "$TEXT" | tail -n 5 | cut -c 1-1000)"
    fi
    if [ -n "$P_docker" ] && [ -z "$P_podman" ] && [ -e /run/docker.pid ] && [ -w /run/docker.sock ]; then
        tell deep_containers 100 containers
    fi
    if [ -r /var/log/apt/term.log ]; then
        TEXT=$(tail -n 400 /var/log/apt/term.log | grep -i -E '^(E:|W:|Err:|dpkg:|Error!)|bad return status|cannot|failed|no space' | tail -n 40 | cut -c 1-500)
        emit deep_apt $? "$TEXT"
    fi
}

# quick: all that needs no program but this shell, and then one awk for the files.
quick() {
    LIST=''
    one kernel /proc/sys/kernel/osrelease
    one boot_id /proc/sys/kernel/random/boot_id
    if [ -n "$LIVE" ]; then one hostname /proc/sys/kernel/hostname; else one hostname /etc/hostname; fi
    one hypervisor_uuid /sys/hypervisor/uuid
    one nvidia_loaded /sys/module/nvidia/version
    container
    secure_boot
    [ -z "$GPU$IMAGE" ] || kernels
    # Their folder is one of the largest there are; a running machine without a GPU needs no look into it.
    if [ -z "$LIVE" ] || [ -n "$GPU" ] || [ -e /dev/dxg ]; then libraries; fi
    keys
    journal
    want file os_release /etc/os-release
    want file os_release_vendor /usr/lib/os-release
    want cmdline cmdline /proc/cmdline
    want file nvidia_proc /proc/driver/nvidia/version
    want file daemon_json /etc/docker/daemon.json
    want file toolkit_config /etc/nvidia-container-runtime/config.toml
    want file cloud_status /run/cloud-init/status.json
    want file cloud_result /run/cloud-init/result.json
    want file file:/etc/apt/sources.list /etc/apt/sources.list
    want_all file file: /etc/apt/sources.list.d '*.list' '*.sources'
    want_all file file: /etc/yum.repos.d '*.repo'
    want_all file file: /etc/zypp/repos.d '*.repo'
    one releasever /etc/dnf/vars/releasever
    one releasever_yum /etc/yum/vars/releasever
    one selinux /sys/fs/selinux/enforce
    want file selinux_config /etc/selinux/config
    want file ufw /etc/ufw/ufw.conf
    want file lock:/etc/dnf/plugins/versionlock.list /etc/dnf/plugins/versionlock.list
    want file lock:/etc/dnf/versionlock.toml /etc/dnf/versionlock.toml
    want file lock:/etc/yum/pluginconf.d/versionlock.list /etc/yum/pluginconf.d/versionlock.list
    want file lock:/etc/zypp/locks /etc/zypp/locks
    want_all file lock: /etc/tdnf/locks.d '*.conf'
    want_all file module: /etc/dnf/modules.d '*.module'
    want file module:/usr/lib/sysimage/libdnf5/modules.toml /usr/lib/sysimage/libdnf5/modules.toml
    want proxy proxy:/etc/apt/apt.conf /etc/apt/apt.conf
    want_all proxy proxy: /etc/apt/apt.conf.d '*'
    want_all cdi cdi: /etc/cdi '*'
    if [ -n "$LIVE" ] && [ -L /var/run ]; then
        want_all cdi cdi: /run/cdi '*'
    else
        want_all cdi cdi: /var/run/cdi '*'
    fi
    want group group /etc/group
    want passwd passwd /etc/passwd
    ! has_dpkg || want dpkg dpkg /var/lib/dpkg/status
    inodes=''
    if [ -n "$LIVE" ]; then
        nodes
        blocks
        lock_pids
        want mounts mounts /proc/mounts
        # shellcheck disable=SC2012 # the inode number is what is wanted
        inodes=$(ls -di /var/lib/dpkg/lock-frontend /var/lib/dpkg/lock /var/lib/apt/lists/lock /var/cache/apt/archives/lock \
            /var/lib/rpm/.rpm.lock /usr/lib/sysimage/rpm/.rpm.lock /run/dnf/rpmtransaction.lock /run/zypp.pid /run/.tdnf-instance-lockfile)
        want locks locks /proc/locks
    fi
    flush
    # By the environment: not every awk takes a newline in -v.
    printf '%s' "$LIST" | INODES=$inodes NAMED=" $NAMED " awk -v mark="$MARK" -v root="$ID" '
        function add(text) {
            size += length(text) + 1
            if (size > 65536) rc = 27
            else body = body text "\n"
        }
        function holders(l,    f, n, part, i, pid, comm, cmd, fd) {
            n = split(l, f, " ")
            if (n < 8 || f[2] == "->") return
            split(f[6], part, ":")
            if (!(part[3] in watched)) return
            pid = f[5]
            if (pid !~ /^[0-9]+$/) return
            comm = ""
            if ((getline comm < ("/proc/" pid "/comm")) < 0) comm = ""
            close("/proc/" pid "/comm")
            add("lock " part[3] " " pid " " comm)
            if (root != "0") return
            cmd = "ls -l /proc/" pid "/fd 2>/dev/null"
            i = 0
            while ((cmd | getline fd) > 0) {
                if (i++ == 0) add("fds " pid)
                if (match(fd, /-> .*\/(lock(-frontend)?|\.rpm\.lock|rpmtransaction\.lock|zypp\.pid|\.tdnf-instance-lockfile)$/)) add("fd " pid " " substr(fd, RSTART + 3))
            }
            close(cmd)
        }
        function package() {
            if (name != "" && count < 3000 && (name ~ /^(docker|containerd|moby-|podman|nvidia|libnvidia|libcuda|libnvcuda|cuda|datacenter-gpu|dcgm)/ ||
                name ~ /^linux-(image|headers|modules-nvidia|modules-extra|objects-nvidia|signatures-nvidia)/ ||
                name ~ /^(xserver-xorg-video-nvidia|firmware-nvidia|python3$|python3-minimal$)/ ||
                name ~ /^(runc|dkms|apt|dpkg|snapd|ca-certificates|needrestart|unattended-upgrades|iptables|nftables|curl|wget|gnupg|gpg|gpgv|sqv|kmod|mokutil|cloud-init)$/ ||
                index(named, " " name " ") || flag != "ok" || (was != "installed" && was != "config-files" && was != "not-installed"))) {
                count++
                print name, arch, version, desired, flag, was
            }
            name = ""
        }
        function dpkg(path,    text, got, f) {
            printf "@@%s dpkg 0\n", mark
            name = ""
            while ((got = (getline text < path)) > 0) {
                if (text !~ /^[PSVA][trae][acrt][hkst][aiu]/) continue
                split(text, f, " ")
                if (f[1] == "Package:") { package(); name = f[2]; version = "-"; arch = "-"; desired = "-"; flag = "-"; was = "-" }
                else if (f[1] == "Status:") { desired = f[2]; flag = f[3]; was = f[4] }
                else if (f[1] == "Version:") version = f[2]
                else if (f[1] == "Architecture:") arch = f[2]
            }
            package()
            # Whether all was read is known after the text: a half-read file must not pass for a whole one.
            printf "@@%s dpkg_read %d\n\n", mark, (got < 0) ? 5 : 0
            close(path)
        }
        BEGIN {
            FS = "\t"
            named = ENVIRON["NAMED"]
            files = split(ENVIRON["INODES"], ino, "\n")
            for (i = 1; i <= files; i++) { split(ino[i], f, " "); if (f[1] != "") watched[f[1]] = f[2] }
        }
        {
            kind = $1; rc = $2; title = $3; path = $4; body = ""; size = 0
            if (kind == "dpkg") { dpkg(path); next }
            if (rc == 0) {
                got = (getline text < path)
                if (got < 0) rc = 13
                if (kind == "locks") for (i = 1; i <= files; i++) { split(ino[i], f, " "); add("inode " f[1] " " f[2]) }
                while (got > 0 && rc == 0) {
                    if (kind == "file") add(text)
                    else if (kind == "proxy") { if (text ~ /[Pp][Rr][Oo][Xx][Yy]/) add(text) }
                    else if (kind == "cdi") {
                        if (match(text, /lib(cuda|nvidia-ml)\.so\.[0-9]+\.[0-9][0-9.]*/)) { add(substr(text, RSTART, RLENGTH)); break }
                    }
                    else if (kind == "mounts") {
                        split(text, f, " ")
                        if (f[1] ~ /^\/dev\// || f[2] == "/" || f[2] == "/usr" || f[2] ~ /^\/var(\/lib(\/(docker|containerd))?)?$/) add(text)
                    }
                    else if (kind == "cmdline") {
                        n = split(text, f, " ")
                        for (i = 1; i <= n; i++) if (f[i] ~ /^(cloud-init|nouveau|nvidia|modprobe|module_blacklist|systemd\.unified)/) add(f[i])
                    }
                    else if (kind == "group") { if (text ~ /^docker:/) add(text) }
                    else if (kind == "passwd") {
                        split(text, f, ":")
                        if (f[3] == "0" || (f[3] + 0 >= 1000 && f[3] + 0 != 65534)) add(f[1] ":" f[3])
                    }
                    else if (kind == "locks") holders(text)
                    got = (getline text < path)
                }
                close(path)
            }
            if (rc == 27) body = ""
            if (kind == "proxy" && rc != 13 && body == "") next
            printf "@@%s %s %s\n%s\n", mark, title, rc, body
        }'
    # $? is that of awk.
    rc=$?
    [ "$rc" = 0 ] || emit awk "$rc" ''
}

# The slow programs run side by side: each part writes into a pipe while the next one runs, without a file. A part that will ask no program has no
# pipe, which costs two processes and a third to empty it.
with_docker() {
    if [ -n "$P_docker$P_ctk$GPU" ] || [ -S /run/docker.sock ]; then
        { docker_info; driver; flush; } </dev/null | { with_units; cat; }
    else
        with_units
        docker_info
        driver
        flush
    fi
}

with_units() {
    if [ -n "$P_systemctl" ] && [ -d /run/systemd/system ]; then
        { units; rootless; flush; } </dev/null | { with_metadata; cat; }
    else
        with_metadata
        units
        rootless
        flush
    fi
}

with_metadata() {
    if [ -n "$CLOUD" ]; then
        { metadata; flush; } </dev/null | { with_packages; cat; }
    else
        with_packages
    fi
}

with_packages() {
    if has_dpkg; then
        packages "$NAMED"
        with_files
        flush
    else
        { packages "$NAMED"; flush; } </dev/null | { with_files; flush; cat; }
    fi
}

with_files() {
    quick
    newer
    set -f
    IFS=$NL
    # shellcheck disable=SC2086 # split on purpose: one path a line
    paths $PATHS
    IFS=$NL
    # shellcheck disable=SC2086 # the same
    disks $DISKS
}

# search_path: PATH with the folders of programs that it lacks, none twice: each is looked into for every program that may be there.
search_path() {
    set -f
    IFS=:
    found=''
    for dir in ${PATH:-/usr/bin:/bin} /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin /snap/bin; do
        case $dir in
            '') continue ;;
            # On most systems these are links to their likes in /usr.
            /sbin | /bin) [ ! -L "$dir" ] || continue ;;
        esac
        case :$found: in *":$dir:"*) ;; *) found=${found:+$found:}$dir ;; esac
    done
    set +f
    PATH=$found
}

main() {
    OUT=''
    look "$@"
    set -- $?
    flush
    return "$1"
}

look() {
    LC_ALL=C
    search_path
    export LC_ALL PATH
    unset DOCKER_HOST DOCKER_CONTEXT DOCKER_CONFIG CDPATH GREP_OPTIONS POSIXLY_CORRECT BLOCKSIZE DF_BLOCK_SIZE BLOCK_SIZE
    IFS=' '"$TAB$NL"
    MARK=${1:-0} LIVE=1 IMAGE='' ROOT='' ARCH='' ASKED='' DISKS='' NAMED='' PATHS=/etc/docker/daemon.json DEEP='' CLOUD='' ASK=1 RECORD=''
    P_timeout='' P_docker='' P_podman='' P_smi='' P_ctk='' P_curl='' P_wget='' P_perl='' P_modinfo='' P_systemctl='' P_rpm=''
    [ $# -eq 0 ] || shift
    while [ $# -gt 0 ]; do
        case $1 in
            --root) LIVE='' ROOT=$2; shift ;;
            --image) LIVE='' IMAGE=1 ROOT=/ ;;
            --arch) ARCH=$2; shift ;;
            --asked-at) ASKED=$2; shift ;;
            --path) PATHS=$PATHS$NL$2; shift ;;
            --disk) DISKS=$DISKS$2$NL; shift ;;
            --package) NAMED="$NAMED $2"; shift ;;
            --packages) RECORD=1 ;;
            --deep) DEEP=1 ;;
            --no-metadata) ASK='' ;;
            *) emit probe 22 "unknown argument $1"; return 2 ;;
        esac
        shift
    done
    if [ -n "$LIVE" ]; then
        emit probe 0 "schema=1${NL}mode=live"
        cd /
        ID=''
        while read -r key _ V _; do
            [ "$key" != Uid: ] || { ID=$V; break; }
        done </proc/self/status
        [ -n "$ID" ] || ID=$(id -u)
        emit uid $? "$ID"
        # Since Linux 6.1.
        line /proc/sys/kernel/arch || V=$(uname -m)
        emit arch $? "$V"
        TEXT=$(date +%s)
        emit time $? "$TEXT"
        [ -z "$ASKED" ] || emit asked_at 0 "$ASKED"
    else
        ID=''
        if ! ROOT=$(cd -P -- "$ROOT" && pwd -P); then emit probe 2 "schema=1${NL}mode=root"; emit end 0 ''; return 0; fi
        ROOT=${ROOT%/}
        case $ROOT in *"$NL"* | *"$TAB"*) emit probe 22 "schema=1${NL}mode=root"; emit end 0 ''; return 0 ;; esac
        if [ -z "$IMAGE" ]; then emit probe 0 "schema=1${NL}mode=root"; else
            emit probe 0 "schema=1${NL}mode=image"
            [ -n "$ARCH" ] || ARCH=$(uname -m)
        fi
        [ -z "$ARCH" ] || emit arch 0 "$ARCH"
    fi
    programs
    present
    pci
    dmi
    if [ -n "$LIVE" ]; then
        [ -n "$ASK" ] || CLOUD=''
        flush
        with_docker
        [ -z "$DEEP" ] || deep
    else
        quick
        rootless
        packages "$NAMED"
        [ -z "$IMAGE" ] || image_units
        set -f
        IFS=$NL
        # shellcheck disable=SC2086 # split on purpose: one path a line
        paths $PATHS
    fi
    emit end 0 ''
}

main "$@" </dev/null 2>/dev/null
