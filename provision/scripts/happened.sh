# Whether what a receipt would say is so. Every script can ask, whatever it is there for itself; what it does not know it takes for done, as a
# rollback looks before it takes anything back.

intended_lines() { # the receipts of what was intended and has happened, without those that are written
    [ -s "$STATE/intended" ] || return 0
    while IFS= read -r intended_line; do
        if grep -Fxq -e "$intended_line" "$STATE/receipts" 2>/dev/null; then continue; fi
        intended_words=${intended_line#*	}
        if happened "${intended_words%%	*}" "${intended_words#*	}"; then printf '%s\n' "$intended_line"; fi
    done <"$STATE/intended"
}

happened() ( # KIND WORDS: the words are parted by tabs
    happened_kind=$1 IFS='	'
    set -f
    # shellcheck disable=SC2086  # it is to be split
    set -- $2
    unset IFS
    case $happened_kind in
        file) [ "$(sha256 "$ROOT$1")" = "$2" ] ;;
        directory) [ -d "$ROOT$1" ] ;;
        aside) has_no_file "$1" ;;
        enabled) ! has_systemd || systemctl is-enabled -q "$1" 2>/dev/null ;;
        disabled) ! has_systemd || ! systemctl is-enabled -q "$1" 2>/dev/null ;;
        made-group) getent group "$1" >/dev/null 2>&1 ;;
        module) [ -d "$ROOT/sys/module/$(printf '%s' "$1" | tr - _)" ] ;;
        group) case " $(id -nG "$2" 2>/dev/null) " in *" $1 "*) ;; *) return 1 ;; esac ;;
    esac
)
