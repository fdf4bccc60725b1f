# Waits beside a container of `mlhost run` for the word that all is over. Where that never comes, mlhost was killed: the container goes.
#   sh -c … sh NAME [wire]: behind a wire, an end without a word may be the wire's, and the container goes on
run_guard() {
    last=''
    trap '' HUP INT QUIT TERM TSTP
    while IFS= read -r word; do
        case $word in
            done) return 0 ;;
            lost) return 0 ;;
            over) # docker has ended: what it left behind, if anything, is there by now
                docker rm -f "$1" >/dev/null 2>&1
                return 0 ;;
            gone) last=gone && break ;;
            pid*) pid=${word#pid } ;;
        esac
    done
    if [ "${2:-}" = wire ] && [ "$last" != gone ]; then return 0; fi
    # first who would still create it
    if [ -n "${pid:-}" ]; then kill -s TERM "$pid" 2>/dev/null; fi
    tries=0
    while [ "$tries" -lt 10 ]; do
        if docker rm -f "$1" 2>/dev/null | grep -q .; then
            # what was being created just then may come up still
            [ -n "$(docker ps -aq --filter "name=^$1\$" 2>/dev/null)" ] || return 0
        fi
        sleep 0.5
        tries=$((tries + 1))
    done
}
pid=
run_guard "$@"
