"""Doubles of yum 3 and tdnf, which no Debian has: strict about the command line as the real ones are, with dnf 4 (as /usr/bin/dnf-3) doing the work.

An option that the real program does not know ends the double with the real one's complaint. What they know was read from `yum --help` of yum 3.4.3
(rpm-software-management/yum, cli.py) and from `tdnf --help` and tools/cli/lib/parseargs.c of tdnf 3.5 and 3.6 (vmware/tdnf). What they print is put
into the layout of the real ones as far as a script may read it. They show the command lines and the reading of answers, not a package manager.
"""

from __future__ import annotations

from tests.lab.debs import DOUBLE

YUM = f"""#!/bin/sh
# {DOUBLE} yum 3
list=/etc/yum/pluginconf.d/versionlock.list
answer='' verb='' options='' words=''
for word in "$@"; do
    case $word in
        -y | --assumeyes) answer=-y ;;
        --assumeno) answer=--assumeno ;;
        -q | -C | --showduplicates) ;;
        --setopt=exit_on_lock=* | --setopt=clean_requirements_on_remove=* | --setopt=*.skip_if_unavailable=* | --disablerepo=* | --enablerepo=*)
            options="$options $word" ;;
        -*) echo "Command line error: no such option: $word"; exit 1 ;;
        *) if [ -z "$verb" ]; then verb=$word; else words="$words $word"; fi ;;
    esac
done
set -f
case $verb in
    makecache) [ "$words" = " fast" ] || [ -z "$words" ] || {{ echo "Error: makecache takes fast"; exit 1; }}; exec /usr/bin/dnf-3 $options makecache ;;
    clean) [ "$words" = " expire-cache" ] || exit 1; exec /usr/bin/dnf-3 $options clean expire-cache ;;
    install | remove) ;;
    list) exec /usr/bin/dnf-3 -q -C --showduplicates list $words ;;
    versionlock)
        mkdir -p "${{list%/*}}"; touch "$list"
        set -- $words
        case $1 in
            add) rpm -q --qf '%{{EPOCHNUM}}:%{{NAME}}-%{{VERSION}}-%{{RELEASE}}.*\\n' "$2" >>"$list" ;;
            delete) grep -v "^[0-9]*:$2-[^-]*-[^-]*$" "$list" >"$list.new"; mv "$list.new" "$list" ;;
            *) exit 1 ;;
        esac
        exit ;;
    *) echo "No such command: $verb. Please use /usr/bin/yum --help"; exit 1 ;;
esac
# what is locked may not become anything else
if [ -s "$list" ]; then
    while IFS= read -r row; do name=${{row#*:}}; name=${{name%-*}}; name=${{name%-*}}; locked="$locked$name,"; done <"$list"
    [ "$verb" != install ] || options="$options --setopt=excludepkgs=$locked"
fi
/usr/bin/dnf-3 $answer --setopt=install_weak_deps=0 $options "$verb" $words >/tmp/yum.double 2>&1
rc=$?
sed -e 's/^Operation aborted\\.$/Exiting on user command/' -e 's/^All matches were filtered out by.*/Error: Nothing to do/' /tmp/yum.double
exit "$rc"
"""

TDNF = f"""#!/bin/sh
# {DOUBLE} tdnf
answer='' verb='' options='' words='' take=''
for word in "$@"; do
    if [ -n "$take" ]; then take=''; continue; fi
    case $word in
        -y | --assumeyes) answer=-y ;;
        --assumeno) answer=--assumeno ;;
        # tdnf hands it to rpm, and so does this: an unsigned package is rpm's to refuse
        --rpmdefine) take=1; options="$options --setopt=gpgcheck=1" ;;
        --refresh | --allowerasing | --disablerepo=* | --enablerepo=*) options="$options $word" ;;
        --setopt=*) ;;
        -*) echo "No such option: $word. Please use /usr/bin/tdnf --help"; echo 'Error(908) : Command line error: option is invalid.'; exit 140 ;;
        *) if [ -z "$verb" ]; then verb=$word; else words="$words $word"; fi ;;
    esac
done
set -f
case $verb in
    makecache) exec /usr/bin/dnf-3 $options makecache ;;
    list)
        /usr/bin/dnf-3 -q list --showduplicates $words 2>/dev/null | awk 'NF == 3 {{ printf "%-44s %-20s %s\\n", $1, $2, substr($3, 1, 1) == "@" ? "@System" : $3 }}'
        exit ;;
    install | remove) ;;
    *) echo "Error(902) : Command line error: no such command"; exit 134 ;;
esac
held_now=$(set +f; cat /etc/tdnf/locks.d/*.conf 2>/dev/null)
asked=''
for word in $words; do
    case $word in
        *[*]*) echo 'Error(1011) : No matching packages'; exit 243 ;;
        # a whole version only: NAME=[EPOCH:]VERSION-RELEASE
        *=*-*) asked="$asked ${{word%%=*}}-${{word#*=}}" ;;
        *=*) echo "$word package not found or not installed"; echo 'Error(1011) : No matching packages'; exit 243 ;;
        *) asked="$asked $word" ;;
    esac
done
for held in $held_now; do
    for word in $asked; do
        case $word in
            "$held" | "$held"-[0-9]*)
                printf '1. conflicting requests\\nFound 1 problem(s) while resolving\\nError(1301) : Solv general runtime error\\n'
                exit 21 ;;
        esac
    done
done
/usr/bin/dnf-3 $answer --setopt=install_weak_deps=1 --setopt=clean_requirements_on_remove=0 $options "$verb" $asked >/tmp/tdnf.double 2>&1
rc=$?
awk '
    /^Error: *$/ || /^Last metadata/ || /^Dependencies resolved/ || /^=+$/ || /^ Package / || /^Transaction Summary/ || /^(Install|Remove|Upgrade|Downgrade)  / {{ next }}
    /^Operation aborted/ {{ aborted = 1; next }}
    /^ +replacing / {{ name = $2; sub(/\\.[a-z0-9_]+$/, "", name); gone = gone name " x86_64 " $3 " @System 0.00b 0.00b\\n"; next }}
    /^ Problem: / {{ sub(/^ Problem: /, "1. "); print; next }}
    /^(Installing|Removing|Upgrading|Downgrading|Reinstalling)/ {{ sub(/ .*/, ""); sub(/:?$/, ":"); print ""; print; next }}
    /^ [^ ]/ && NF >= 5 {{ sub(/^ /, ""); print; next }}
    {{ print }}
    END {{
        if (gone != "") printf "\\nObsoleting:\\n%s\\nTotal installed size:   0.00b\\n", gone
        if (aborted) print "Error(1032) : Operation aborted."
    }}' /tmp/tdnf.double
[ "$rc" = 0 ] || grep -q '^Operation aborted' /tmp/tdnf.double && [ -n "$rc" ] && exit $((rc ? 8 : 0))
exit "$rc"
"""
