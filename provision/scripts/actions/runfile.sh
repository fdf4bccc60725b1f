# NVIDIA's .run installer: fetched, compared, and only then run. It needs kernel_module.sh, and taking it back service.sh.

runfile_there() { # VERSION: NVIDIA's installer has put this driver here, and its module is there for the running kernel
    [ -x "$ROOT/usr/bin/nvidia-uninstall" ] && [ "$(modinfo -F version nvidia 2>/dev/null)" = "$1" ]
}

runfile_get() { # URL FILE: with what the machine has; what else came over the line, the checksum tells
    if command -v curl >/dev/null 2>&1; then
        bounded 3600 curl -fsSL --connect-timeout 30 --speed-limit 1024 --speed-time 60 -o "$2" -- "$1"
    elif command -v wget >/dev/null 2>&1; then
        bounded 3600 wget -nv -T 60 -O "$2" -- "$1"
    elif [ -x /usr/lib/apt/apt-helper ]; then
        bounded 3600 /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "$1" "$2"
    else
        printf 'this machine has no curl, wget or apt-helper\n'
        return 1
    fi
}

runfile_fetch() { # URL FILE
    for runfile_try in 1 2 3; do
        rm -f "$2"
        if runfile_get "$1" "$2" >"$WORK/runfile.get" 2>&1 && [ -s "$2" ]; then return 0; fi
        printf 'attempt %s to fetch %s: %s\n' "$runfile_try" "$1" "$(tail -n 1 "$WORK/runfile.get")" >&2
        pause
    done
    why "cannot fetch $1: $(tail -n 1 "$WORK/runfile.get")"
}

runfile_why() { # VERSION RC: with the installer's own first complaint; the end of its log goes to ours
    runfile_log=$ROOT/var/log/nvidia-installer.log
    [ -s "$runfile_log" ] || runfile_log=$WORK/runfile.out
    tail -n 40 "$runfile_log" >&2
    runfile_words=$(sed -n '/^ *ERROR: */{s///p;q;}' "$runfile_log")
    why "NVIDIA's installer of $1 failed (exit code $2)${runfile_words:+: $runfile_words}; its whole log is in /var/log/nvidia-installer.log"
}

runfile_install() { # VERSION URL SHA256 COMPILER(or nothing) OPTION...
    runfile_version=$1 runfile_url=$2 runfile_sum=$3 runfile_cc=$4
    shift 4
    # the installer refuses to go on beside nouveau; what is in use goes at a reboot, as the blacklist and the ramdisk are written already
    modules_unload nouveau || return $?
    # of root alone, gone at the end of the run, and not /tmp: that may be small, or forbid programs
    runfile_folder=$WORK/runfile
    (umask 077 && mkdir -p "$runfile_folder") || return 1
    runfile_file=$runfile_folder/NVIDIA-$runfile_version.run
    runfile_fetch "$runfile_url" "$runfile_file" || return 1
    runfile_got=$(sha256 "$runfile_file")
    if [ "$runfile_got" != "$runfile_sum" ]; then
        rm -rf "$runfile_folder"
        why "$runfile_url has the SHA-256 $runfile_got, pinned is $runfile_sum; nothing of it was run"
        return 1
    fi
    rm -f "$ROOT/var/log/nvidia-installer.log"
    runfile_rc=0
    set -- sh "$runfile_file" --silent --no-opengl-files "$@"
    # the installer takes the compiler from there; by itself it takes `cc`
    [ -z "$runfile_cc" ] || set -- env "CC=$runfile_cc" "$@"
    TMPDIR=$runfile_folder "$@" </dev/null >"$WORK/runfile.out" 2>&1 || runfile_rc=$?
    rm -rf "$runfile_folder"
    cat "$WORK/runfile.out"
    if [ "$runfile_rc" != 0 ]; then
        runfile_why "$runfile_version" "$runfile_rc"
        return 1
    fi
    receipt runfile "$runfile_version"
    runfile_there "$runfile_version" || runfile_why "$runfile_version" 0
}

# What a rollback needs.

back_runfile_done() { ! runfile_there "$1"; } # VERSION

back_runfile() { # VERSION
    # what is in use stays loaded: a container may be at work, and the files go all the same
    if service_active nvidia-persistenced.service; then service_do stop nvidia-persistenced.service; fi
    if ! "$ROOT/usr/bin/nvidia-uninstall" --silent --skip-module-unload </dev/null; then
        why "nvidia-uninstall failed; its log is /var/log/nvidia-uninstall.log"
        return 1
    fi
    if module_loaded nvidia; then note "the module nvidia stays loaded until the next reboot"; fi
}
