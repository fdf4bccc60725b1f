# Kernel modules now; 76 says that only a reboot can do it.

module_loaded() { # NAME...
    for module_name in "$@"; do [ -d "$ROOT/sys/module/$(printf '%s' "$module_name" | tr - _)" ] || return 1; done
}

module_gone() { # NAME...
    for module_name in "$@"; do ! module_loaded "$module_name" || return 1; done
}

modules_unload() { # NAME...
    for module_name in "$@"; do
        module_loaded "$module_name" || continue
        modprobe -r "$module_name" || { why "$module_name is loaded and in use; a reboot is needed"; return 76; }
    done
}

modules_load() { # NAME...
    for module_name in "$@"; do
        module_loaded "$module_name" && continue
        intend module "$module_name" || return 1
        if modprobe "$module_name" >"$WORK/modprobe" 2>&1; then
            receipt module "$module_name"
            continue
        fi
        cat "$WORK/modprobe" >&2
        module_words=$(tail -n 1 "$WORK/modprobe")
        case $module_words in
            *"Key was rejected"* | *"Required key not available"*)
                why "Secure Boot does not accept the module $module_name: $module_words"
                return 1
                ;;
            *"not found in directory"*)
                # it may have been built for a newer kernel, which only needs to be booted
                if [ -z "$(find "$ROOT/lib/modules" -name "$module_name.ko*" 2>/dev/null | head -n 1)" ]; then
                    why "there is no module $module_name for any installed kernel"
                    return 1
                fi
                ;;
        esac
        why "$module_name cannot be loaded into the running kernel; a reboot is needed${module_words:+: $module_words}"
        return 76
    done
}
