# A whole file of ours.

unit_files_changed() { # PATH: systemd must read its units again, and only then: it can cost running containers their GPUs
    case $1 in */systemd/system/*) ;; *) return 0 ;; esac
    ! has_systemd || systemctl daemon-reload || { why "systemctl daemon-reload failed"; return 1; }
}
