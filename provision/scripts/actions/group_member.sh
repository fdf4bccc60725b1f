# Membership of a group.

group_has() { # GROUP USER
    case " $(id -nG "$2" 2>/dev/null) " in *" $1 "*) ;; *) return 1 ;; esac
}

group_add() { # GROUP USER
    id "$2" >/dev/null 2>&1 || { why "there is no user $2"; return 1; }
    if ! getent group "$1" >/dev/null 2>&1; then
        intend made-group "$1" || return 1
        if command -v groupadd >/dev/null 2>&1; then groupadd -r "$1"; else addgroup -S "$1"; fi || { why "cannot make the group $1"; return 1; }
        receipt made-group "$1"
    fi
    intend group "$1" "$2" || return 1
    if command -v usermod >/dev/null 2>&1; then
        usermod -aG "$1" "$2"
    elif command -v gpasswd >/dev/null 2>&1; then
        gpasswd -a "$2" "$1"
    else
        addgroup "$2" "$1"
    fi || { why "cannot add $2 to the group $1"; return 1; }
    receipt group "$1" "$2"
}
