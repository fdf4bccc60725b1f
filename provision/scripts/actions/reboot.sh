# The stage ends here. Whoever follows the script reboots; it never does so itself.

boot_id() { cat "$ROOT/proc/sys/kernel/random/boot_id" 2>/dev/null; }

rebooted() { # MARK: since a script with this mark asked for it
    [ -s "$STATE/reboot.$1" ] && [ "$(cat "$STATE/reboot.$1")" != "$(boot_id)" ]
}

reboot_wanted() { # MARK REASON
    rm -f "$STATE"/reboot.*
    boot_id >"$STATE/reboot.$1"
    why "$2"
    return 75
}
