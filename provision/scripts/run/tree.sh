# The copy of a tree on a host: what is in it, what of it is wanted, what comes into it. Names are below the copy's folder.
#   sh -c … sh list FOLDER               its files and links with their marks: mark TAB name
#   sh -c … sh put FOLDER                unpacks the tar on standard input into it, then lists
#   sh -c … sh get FOLDER                packs what the names on standard input name, as a tar on standard output
#   sh -c … sh remove FOLDER             removes what the names on standard input name
#   sh -c … sh keep FILE                 writes standard input to a file that only its owner reads
run_tree() {
    umask 077
    case $1 in
        keep) mkdir -p "${2%/*}" && cat >"$2"; return ;;
    esac
    mkdir -p "$2" && cd "$2" || return 1
    case $1 in
        list) tree_list ;;
        put) tar -xpf - && tree_list ;; # with their modes, whatever the mask is
        get) # GNU's would take a backslash in a name for an escape
            case $(tar --version 2>/dev/null) in
                *'GNU tar'*) tar --no-unquote -cf - -T - ;;
                *) tar -cf - -T - ;;
            esac ;;
        remove)
            while IFS= read -r name; do
                rm -f -- "./$name" || return 1
                # folders that are empty now; the first that is not ends it
                folder=$name
                while [ "$folder" != "${folder%/*}" ]; do
                    folder=${folder%/*}
                    rmdir -- "./$folder" 2>/dev/null || break
                done
            done ;;
    esac
}

tree_list() { # size, mode, modified, changed: a write shows in one of them even within a second
    find . \( -type f -o -type l \) -exec stat -c '%s %f %y %Z	%n' {} + | sed 's|	\./|	|'
}

run_tree "$@"
