# The folders and account files that a container of `mlhost run` gets: the caches, and the image's own accounts with the caller's added.
#   sh -s -- CACHE IMAGE-ID UID GID USER STEM
run_prepare() {
    cache=$1 image=$2 uid=$3 gid=$4 user=$5 stem=$6
    umask 077
    mkdir -p "$cache/home" "$cache/cuda" "$cache/accounts" || return 1
    # behind sudo they are to be the caller's
    if [ "$(id -u)" = 0 ] && [ "$uid" != 0 ]; then chown "$uid:$gid" "$cache" "$cache/home" "$cache/cuda" "$cache/accounts" || return 1; fi
    [ "$uid" != 0 ] || return 0
    if [ -s "$stem.passwd" ] && [ -s "$stem.group" ]; then return 0; fi
    # a container that never starts, to read two files from
    made=$(docker create --entrypoint /mlhost/none "$image" none) || return 1
    trap 'docker rm -f "$made" >/dev/null 2>&1' EXIT
    for file in passwd group; do
        docker cp "$made:/etc/$file" - 2>/dev/null | tar -xOf - >"$stem.$$" 2>/dev/null
        if [ ! -s "$stem.$$" ]; then
            case $file in
                passwd) printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n' ;;
                group) printf 'root:x:0:\nnogroup:x:65534:\n' ;;
            esac >"$stem.$$"
        fi
        # a last line without its end would swallow ours
        if [ -n "$(tail -c 1 "$stem.$$")" ]; then echo >>"$stem.$$"; fi
        case $file in
            passwd) awk -F : -v id="$uid" '$3 == id { found = 1 } END { exit !found }' "$stem.$$" ||
                printf '%s:x:%s:%s:%s:/mlhost/home:/bin/sh\n' "$user" "$uid" "$gid" "$user" >>"$stem.$$" ;;
            group) awk -F : -v id="$gid" '$3 == id { found = 1 } END { exit !found }' "$stem.$$" || printf '%s:x:%s:\n' "$user" "$gid" >>"$stem.$$" ;;
        esac
        chmod 644 "$stem.$$" && mv -f "$stem.$$" "$stem.$file" || return 1
    done
}

run_prepare "$@"
