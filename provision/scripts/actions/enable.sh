# Units that start at boot, in a system that does not run: systemctl writes the links itself and asks no manager.

starts_at_boot() { # UNIT
    systemctl --root=/ is-enabled -q "$1" 2>/dev/null
}

start_at_boot() { # UNIT
    intend enabled "$1" || return 1
    systemctl --root=/ enable "$1" || { why "cannot enable $1"; return 1; }
    receipt enabled "$1"
}
