#!/bin/sh
# bootstrap.sh PROGRAM [ARGUMENT...]: starts execd beside the container's program and lives as long as
# that program does. It needs a POSIX shell and nothing else; `sleep` is used where there is one.

log() { echo "bootstrap: $*" >&2; }

# Where execd is: as named, at its usual place, or beside this script.
here=${0%/*}
[ "$here" != "$0" ] || here=.
if [ -z "${EXECD:-}" ]; then
    EXECD=/opt/opensandbox/execd
    [ -x "$EXECD" ] || EXECD=$here/execd
fi

# The file of variables for later commands: made here so that they can append to it. A place that
# cannot be written (the directory is often mounted read-only) is replaced by one that can.
if [ -z "${EXECD_ENVS:-}" ]; then
    for file in /opt/opensandbox/.env "${TMPDIR:-/tmp}/.opensandbox.env"; do
        dir=${file%/*}
        [ -d "$dir" ] || mkdir -p "$dir" 2>/dev/null
        if ( : >>"$file" ) 2>/dev/null; then
            EXECD_ENVS=$file
            break
        fi
    done
elif ! ( mkdir -p "$(dirname "$EXECD_ENVS")" && : >>"$EXECD_ENVS" ) 2>/dev/null; then
    log "cannot write $EXECD_ENVS"
fi
[ -z "${EXECD_ENVS:-}" ] || export EXECD_ENVS

# What an image wants to prepare: sourced, so that what it exports reaches execd and the program.
if [ -n "${EXECD_BOOTSTRAP_PRE_SCRIPT:-}" ]; then
    case $EXECD_BOOTSTRAP_PRE_SCRIPT in
        */*) pre=$EXECD_BOOTSTRAP_PRE_SCRIPT ;;
        *) pre=./$EXECD_BOOTSTRAP_PRE_SCRIPT ;;
    esac
    if [ -r "$pre" ]; then . "$pre"; else log "cannot read $pre"; fi
fi

# What to run: BOOTSTRAP_CMD, or the text after -c, or the arguments as they are; a shell if nothing.
shell=${BOOTSTRAP_SHELL:-$(command -v bash || command -v sh || :)}
if [ -n "${BOOTSTRAP_CMD:-}" ]; then
    set -- "$shell" -c "$BOOTSTRAP_CMD"
elif [ "${1:-}" = -c ]; then
    shift
    set -- "$shell" -c "$*"
elif [ $# -eq 0 ]; then
    set -- "$shell"
fi
if [ -z "$1" ]; then
    log "there is no shell to run the command; set BOOTSTRAP_SHELL"
    exit 1
fi

# In a container where execd serves already this is only a program to run.
if "$EXECD" alive 2>/dev/null; then
    exec "$@"
fi

# The hook that comes before the program. One that fails ends the container.
if [ -n "${OPENSANDBOX_LIFECYCLE:-}" ]; then
    "$EXECD" pre-start || exit 1
fi

# execd is started again when it dies, after 1, 2, 4 ... 30 seconds; it finds its claim again. One that
# does not stay up ten times in a row ends the container, so that the pod shows it.
supervise() {
    trap 'stopping=1; [ -z "$daemon" ] || kill -TERM "$daemon" 2>/dev/null' TERM
    daemon= stopping= failures=0 pause=1
    while [ -z "$stopping" ]; do
        began=$(date +%s 2>/dev/null || echo 0)
        "$EXECD" &
        daemon=$!
        # Told to stop just before it was started.
        [ -z "$stopping" ] || kill -TERM "$daemon" 2>/dev/null
        wait "$daemon"
        status=$?
        [ -z "$stopping" ] || return 0
        ended=$(date +%s 2>/dev/null || echo 0)
        if [ $((ended - began)) -ge 60 ]; then failures=0 pause=1; fi
        failures=$((failures + 1))
        log "execd ended with $status"
        if [ "$failures" -ge 10 ]; then
            log "execd does not stay up; the container ends"
            kill -TERM "$1" 2>/dev/null
            return 1
        fi
        # Waited for, not run: a shell hears signals only while it waits.
        sleep "$pause" 2>/dev/null &
        wait $!
        pause=$((pause * 2))
        [ "$pause" -le 30 ] || pause=30
    done
}

# Its own input, not the /dev/null that a shell gives to what runs in the background.
"$@" <&0 &
program=$!
supervise "$program" &
supervisor=$!

terminated=
trap 'terminated=1; kill -TERM "$program" 2>/dev/null' TERM
for name in HUP INT QUIT USR1 USR2; do
    trap "kill -$name $program 2>/dev/null" "$name"
done

# `wait` comes back early for every signal that is forwarded; the program's own status is the last.
while :; do
    wait "$program"
    status=$?
    kill -0 "$program" 2>/dev/null || break
done
wait "$program" 2>/dev/null
again=$?
[ "$again" -eq 127 ] || status=$again
kill -TERM "$supervisor" 2>/dev/null
wait "$supervisor" 2>/dev/null
[ -z "$terminated" ] || exit 0
exit "$status"
