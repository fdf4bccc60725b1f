# Tells the controller what the run $DIR writes: frames of one line each, on stdout. A frame that says "up to here" (O) follows every batch.

frame() { printf '%s\n' "$1" || exit 1; }

batch() { # LETTER FILE OFFSET SIZE ENDED(no|yes): sends whole lines from OFFSET; sets SENT to the new offset
    SENT=$3
    [ "$4" -gt "$3" ] || return 0
    tail -c "+$(($3 + 1))" "$2" 2>/dev/null | head -c 65536 >"$PART"
    batch_bytes=$(wc -c <"$PART")
    batch_bytes=$((batch_bytes + 0))
    [ "$batch_bytes" -gt 0 ] || return 0
    if [ "$(tail -c 1 "$PART" | wc -l)" -eq 0 ]; then
        batch_last=$(tail -n 1 "$PART" | wc -c)
        if [ "$batch_last" -lt "$batch_bytes" ]; then
            batch_bytes=$((batch_bytes - batch_last))
            head -c "$batch_bytes" "$PART" >"$PART.whole" && mv -f "$PART.whole" "$PART"
        elif [ "$batch_bytes" -lt 65536 ] && [ "$5" = no ]; then
            # this line is still being written
            return 0
        fi
    fi
    sed -e "s/^/$1	/" "$PART" || exit 1
    [ "$(tail -c 1 "$PART" | wc -l)" -eq 1 ] || frame ''
    SENT=$(($3 + batch_bytes))
}

size_of() { # FILE
    size_of_text=$(stat -c %s "$1" 2>/dev/null) || size_of_text=0
    printf '%s' "$size_of_text"
}

follow() { # EVENTS-OFFSET LOG-OFFSET: until the run has ended and everything is told; its exit code is in the R frame
    PART=$(mktemp "$DIR/follow.XXXXXX") || { frame "F	cannot write into $DIR; is the disk full?"; return 1; }
    trap 'rm -f "$PART" "$PART.whole"' EXIT
    trap 'exit 1' HUP INT TERM PIPE
    follow_events=$1 follow_log=$2 follow_quiet=0 follow_sleep=0.2 follow_beat=50
    sleep 0.01 2>/dev/null || follow_sleep=1 follow_beat=10
    while :; do
        # asked before reading on, so that nothing written before the end is missed
        follow_end=no
        if [ -e "$DIR/result" ]; then
            follow_end=yes
        elif ! working "$DIR" && [ ! -e "$DIR/result" ]; then
            follow_end=lost
        fi
        follow_told=$follow_events:$follow_log
        batch E "$DIR/events" "$follow_events" "$(size_of "$DIR/events")" no
        follow_events=$SENT
        follow_size=$(size_of "$DIR/log")
        # the log was cut because it had grown too long
        if [ "$follow_size" -lt "$follow_log" ]; then follow_log=0; fi
        batch L "$DIR/log" "$follow_log" "$follow_size" "$([ "$follow_end" = no ] && echo no || echo yes)"
        follow_log=$SENT
        if [ "$follow_told" != "$follow_events:$follow_log" ]; then
            frame "O	$follow_events	$follow_log"
            follow_quiet=0
            continue
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
        follow_quiet=$((follow_quiet + 1))
        if [ "$follow_quiet" -ge "$follow_beat" ]; then
            frame H
            follow_quiet=0
        fi
        sleep "$follow_sleep"
    done
}
