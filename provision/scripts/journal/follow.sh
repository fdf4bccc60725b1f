# Tells the controller what the run $DIR writes: frames of one line each, on stdout. A frame that says "up to here" (O) follows every batch.

frame() { printf '%s\n' "$1" || exit 1; }

batch() { # LETTER FILE OFFSET SIZE ENDED(no, or how): sends whole lines from OFFSET; sets SENT to the new offset
    SENT=$3
    [ "$4" -gt "$3" ] || return 0
    tail -c "+$(($3 + 1))" "$2" 2>/dev/null | head -c 65536 >"$PART"
    batch_bytes=$(wc -c <"$PART")
    batch_bytes=$((batch_bytes + 0))
    [ "$batch_bytes" -gt 0 ] || return 0
    batch_open=no
    if [ "$(tail -c 1 "$PART" | wc -l)" -eq 0 ]; then
        batch_last=$(tail -n 1 "$PART" | wc -c)
        if [ "$batch_last" -lt "$batch_bytes" ]; then
            batch_bytes=$((batch_bytes - batch_last))
            head -c "$batch_bytes" "$PART" >"$PART.whole" && mv -f "$PART.whole" "$PART"
        elif [ "$batch_bytes" -lt 65536 ] && [ "$5" = no ]; then
            # this line is still being written
            return 0
        else
            batch_open=yes
        fi
    fi
    sed -e "s/^/$1	/" "$PART" || exit 1
    [ "$batch_open" = no ] || frame ''
    SENT=$(($3 + batch_bytes))
}

size_of() { # FILE: in SIZE
    SIZE=$(stat -c %s "$1" 2>/dev/null) || SIZE=0
}

# FILE: may it have been written to since $PART.seen was? A file's time is as coarse as the kernel's clock tick: once too often rather than
# once too few. The shell itself can tell, so that looking for news, several times a second, starts no program beside the package manager's.
# shellcheck disable=SC3013  # POSIX has it since 2024, dash, bash and busybox for long
written() { ! [ "$PART.seen" -nt "$1" ]; }

follow() { # EVENTS-OFFSET LOG-OFFSET: until the run has ended and everything is told; its exit code is in the R frame
    PART=$(mktemp "$DIR/follow.XXXXXX") || { frame "F	cannot write into $DIR; is the disk full?"; return 1; }
    trap 'rm -f "$PART" "$PART.whole" "$PART.seen"' EXIT
    trap 'exit 1' HUP INT TERM PIPE
    follow_events=$1 follow_log=$2 follow_quiet=0 follow_look=0 follow_ask=0 follow_fine=yes
    sleep 0.01 2>/dev/null || follow_fine=no
    while :; do
        # asked before reading on, so that nothing written before the end is missed
        follow_end=no
        if [ -e "$DIR/result" ]; then
            follow_end=yes
        elif [ "$follow_ask" = 0 ]; then
            # not asked every time: a shell reads byte by byte
            follow_ask=4
            if ! working "$DIR" && [ ! -e "$DIR/result" ]; then follow_end=lost; fi
        fi
        follow_ask=$((follow_ask - 1))
        follow_told=$follow_events:$follow_log follow_more=no
        # a clock that is set back makes a file's time worthless, so the sizes are asked for now and then all the same
        if [ "$follow_end" != no ] || [ "$follow_look" = 0 ] || written "$DIR/events" || written "$DIR/log"; then
            follow_look=4
            # no special builtin: a full disk must not end this shell
            printf '' >"$PART.seen"
            size_of "$DIR/events"
            batch E "$DIR/events" "$follow_events" "$SIZE" no
            follow_events=$SENT
            if [ "$follow_events" -lt "$SIZE" ]; then follow_more=yes; fi
            size_of "$DIR/log"
            # the log was cut because it had grown too long
            if [ "$SIZE" -lt "$follow_log" ]; then follow_log=0; fi
            batch L "$DIR/log" "$follow_log" "$SIZE" "$follow_end"
            follow_log=$SENT
            if [ "$follow_log" -lt "$SIZE" ]; then follow_more=yes; fi
        fi
        follow_look=$((follow_look - 1))
        if [ "$follow_told" != "$follow_events:$follow_log" ]; then
            frame "O	$follow_events	$follow_log"
            follow_quiet=0
            # there may be more of what has piled up, or the end to be told
            if [ "$follow_end" != no ] || [ "$follow_more" = yes ]; then continue; fi
        fi
        case $follow_end in
            yes)
                frame "R	$(cat "$DIR/result")"
                return 0
                ;;
            lost)
                # a script that came to its end without its runner has said so itself
                follow_rc=$(sed -n '$s/^[^	]*	end	[^	]*	\([0-9]*\)$/\1/p' "$DIR/events")
                frame "R	${follow_rc:-lost}"
                return 0
                ;;
        esac
        # in quarters of a second; who has been quiet for a while is not asked so often
        if [ "$follow_fine" = no ]; then
            follow_sleep=1 follow_quiet=$((follow_quiet + 4))
        elif [ "$follow_quiet" -lt 12 ]; then
            follow_sleep=0.5 follow_quiet=$((follow_quiet + 2))
        else
            follow_sleep=1 follow_quiet=$((follow_quiet + 4))
        fi
        if [ "$follow_quiet" -ge 40 ]; then
            frame H
            follow_quiet=12
        fi
        sleep "$follow_sleep"
    done
}

follow_by_hand() { # a script that somebody runs by hand keeps no journal: all there is to tell is when it is over
    follow_quiet=0
    while [ "$(value_of run "$STATE/lock")" = "$RUN" ] && lock_live; do
        if [ "$((follow_quiet % 10))" = 0 ]; then frame H; fi
        follow_quiet=$((follow_quiet + 1))
        sleep 1
    done
    frame "R	0"
}
