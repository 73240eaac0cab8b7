#!/bin/sh
# One step of a pod: waits for the steps before it, runs the command, keeps its limits, says how it ended.
#
#     busybox sh step.sh ROOT MESSAGE
#
# Runs as the first process of a container in the user's image, by a static busybox that `prepare` laid into ROOT/bin, so
# it uses builtins and that busybox alone. Every step has it from the pod's start; one waits for the other's result:
#
#     ROOT/results/000/   pending, then one of: success failure skipped over   (over: nothing runs after it)
#                         started   made before the command starts
#                         life      a FIFO that this process holds open: the kernel lets go of it, however we die
#
# A container writes to its own folder only (ROOT/result). Marks are folders: making one can neither wait nor follow a
# link, whatever the step left there; renaming one needs no room on a full disk. What a step writes there itself can
# deceive the steps after it at most; the service believes the containers' ends. Times are hundredths of a second of
# /proc/uptime.

root=$1 message=$2 mode=${3-}
busybox=$root/bin/busybox results=$root/results result=$root/result
. "$root/step"

now() {
    read -r clock _ </proc/uptime
    clock=${clock%.*}${clock#*.}
}

# Waits so many hundredths, or until a word comes. A signal that we trap ends it too.
pause() {
    part=$(($1 % 100))
    [ $part -ge 10 ] || part=0$part
    read -r -t "$(($1 / 100)).$part" word <&3
}

kill_all() { # SIGNAL: all that the step started; in a container that is everybody but us
    if [ $$ = 1 ]; then kill "-$1" -1; elif [ -n "$child" ]; then kill "-$1" -- "-$child"; fi 2>/dev/null
}

finish() { # END MARK CODE
    kill_all KILL
    printf '{"end":"%s"}' "$1" >"$message"
    "$busybox" mv "$result/pending" "$result/$2" || "$busybox" mkdir "$result/$2"
    exit "$3"
} 2>/dev/null

is_over() { # STEP
    [ -e "$results/$1/success" ] || [ -e "$results/$1/failure" ] ||
        [ -e "$results/$1/skipped" ] || [ -e "$results/$1/over" ]
}

# Nobody holds its FIFO: opening it for writing, without waiting, says so. (`truncate` is who opens it that way.)
is_dead() { # STEP
    case $("$busybox" truncate -c -s 0 "$results/$1/life" 2>&1) in
    *"No such device or address"*) ! is_over "$1" ;;
    *) return 1 ;;
    esac
}

# The run limit counts from the first step's start. We saw it, or came late and its mark's age tells.
note_first_start() {
    [ -z "$first" ] || return
    for each in $earlier; do
        [ -e "$results/$each/started" ] || continue
        now
        first=$clock
        age=$((($("$busybox" date +%s) - $("$busybox" stat -c %Y "$results/$each/started")) * 100))
        [ $age -lt 200 ] || first=$((clock - age))
        return
    done
}

await_previous() {
    previous=${earlier##* } looks=0
    [ -n "$previous" ] || return
    until is_over "$previous"; do
        [ -z "$stop" ] || finish unstarted over 143
        note_first_start
        if [ -e "$results/$previous/started" ]; then pause 2; else pause 10; fi
        looks=$((looks + 1))
        if [ $((looks % 50)) = 0 ] && [ -e "$results/$previous/started" ] && is_dead "$previous"; then break; fi
    done
    note_first_start
}

decide() { # skips what is not to run
    failed='' over=''
    for each in $earlier; do
        [ ! -e "$results/$each/over" ] || over=yes
        [ -e "$results/$each/success" ] || [ -e "$results/$each/skipped" ] || failed=yes
    done
    [ "$condition" != collect ] || return
    [ -z "$over" ] || finish skipped skipped 0
    case $condition$failed in successyes | failure) finish skipped skipped 0 ;; esac
}

set_deadlines() {
    now
    if [ -z "$first" ] || [ "$condition" = collect ]; then first=$clock; fi
    run_at=$((first + run_limit)) step_at=''
    [ -z "$timeout" ] || step_at=$((clock + timeout))
    [ $run_at -gt "$clock" ] || finish run_timeout over 124
}

left() { # until the next deadline, a second at most: a step may have killed who would wake us
    next=$((clock + 100))
    if [ -n "$why" ]; then
        [ -z "$kill_at" ] || [ "$kill_at" -gt $next ] || next=$kill_at
    else
        [ $run_at -gt $next ] || next=$run_at
        [ -z "$step_at" ] || [ "$step_at" -gt $next ] || next=$step_at
    fi
    next=$((next - clock))
    [ $next -gt 0 ] || next=1
}

end_it() { # WHY; a stop's KILL is the kubelet's, after the grace of whoever asked
    why=$1
    [ "$1" = stopped ] || kill_at=$((clock + grace))
    kill_all TERM
}

enforce() {
    now
    if [ -z "$why" ]; then
        if [ -n "$stop" ]; then end_it stopped
        elif [ "$clock" -ge $run_at ]; then end_it run_timeout
        elif [ -n "$step_at" ] && [ "$clock" -ge "$step_at" ]; then end_it step_timeout
        fi
    fi
    if [ -n "$kill_at" ] && [ "$clock" -ge "$kill_at" ]; then kill_all KILL; fi
}

has_ended() { # by the kernel's word: `wait` would wait for a child that only said so
    read -r state 2>/dev/null <"/proc/$child/stat" || return 0
    state=${state##*) }
    [ "${state%% *}" = Z ]
}

follow() {
    why='' kill_at='' said='' soon=0
    while :; do
        enforce
        left
        if [ $soon -gt 0 ]; then next=1 soon=$((soon - 1)); fi
        word=''
        pause $next
        case $word in
        '') ;;
        ended) soon=50 ;; # just before it exits
        *) said=$word soon=50 ;;
        esac
        ! has_ended || break
        # A command in the foreground reaps orphans too; `jobs` would as well, and forget how the child ended.
        [ -n "$word" ] || [ $soon -gt 0 ] || [ $$ != 1 ] || "$busybox" true
    done
    wait "$child"
    code=$?
}

conclude() {
    case $why in
    step_timeout) finish step_timeout failure 124 ;;
    run_timeout) finish run_timeout over 124 ;;
    stopped) [ $code != 0 ] || code=143; finish stopped over $code ;;
    esac
    case $code$said in
    0 | 0[!0-9]*) finish exit success 0 ;;
    127not_found | 126not_executable | 126no_directory) finish "$said" failure $code ;;
    *) finish exit failure $code ;;
    esac
}

# --- in the command's session: becomes the command, and says when it ended --------------------------------------------

find_command() { # by the step's own PATH, as execvp does
    case $command in */*) found=$command; [ -e "$found" ]; return ;; esac
    found=''
    IFS=:
    for each in $search; do
        each=${each:-.}/$command
        [ -f "$each" ] || continue
        if [ -x "$each" ]; then found=$each; return 0; fi
        found=${found:-$each}
    done
    [ -n "$found" ]
}

run_command() {
    trap : TERM
    for each in $(export -p | "$busybox" sed -n 's/^export \(KUBERNETES_[A-Z0-9_]*\).*/\1/p'); do unset "$each"; done
    search=${search:-${PATH:-$default_search}}
    if ! cd -- "$directory" 2>/dev/null; then echo no_directory >&3; exit 126; fi
    unset HOSTNAME SHLVL OLDPWD
    exec 5>&2 2>/dev/null # what this shell says of a killed command is no output of the step
    (
        find_command || { echo not_found >&3; exit 127; }
        [ -x "$found" ] && [ ! -d "$found" ] || { echo not_executable >&3; exit 126; }
        trap - TERM
        unset IFS
        become "$found" 2>&5 3>&- 5>&-
    )
    code=$?
    echo ended >&3
    exit $code
}

if [ "$mode" = command ]; then run_command; fi

child='' stop='' first=''
trap 'stop=yes' TERM
cd /
"$busybox" mkdir "$result/pending"
"$busybox" mkfifo "$result/life" "$result/events"
exec 3<>"$result/events" 4<>"$result/life"
"$busybox" rm "$result/events"
await_previous
decide
[ -z "$stop" ] || finish unstarted over 143
set_deadlines
"$busybox" mkdir "$result/started"
"$busybox" setsid "$busybox" sh "$0" "$root" "$message" command 4>&- </dev/null &
child=$!
follow
conclude
