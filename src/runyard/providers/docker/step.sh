# PID 1 of a job's container, run by our own busybox: the attempt's steps FIRST to LAST one after the other, their
# time-outs, and how each of them ended, whatever becomes of the service.
#
#   step.sh run FIRST LAST [fed]   the container's command, without an environment
#   step.sh stop GRACE             run beside it, by exec: TERM to all, KILL after GRACE (hundredths of seconds)
#
# The first container of an attempt, and each whose steps have secrets, is fed through its standard input: a line
# `PLAN-BYTES SECRET-BYTES TAR-BYTES`, the plan (shell, made by plan.py), what gives its steps their secrets (shell, made by
# feeding.py), a tar of the workspace where there is one, and a line `complete`. The first one leaves the plan for the
# others; secrets stay in the shell's memory, and what their steps run is in no file that other steps could write. What
# it has to say it prints among what the steps print, as a marker: \036MARK words…\036 and a newline.
#
# The job runs as the same user and could lie to us; it would lie about itself. It cannot end PID 1: the kernel gives
# no signal without a handler to the first process of a namespace that comes from within.

bin=/.runyard/bin/busybox
state=/.runyard/state
secrets=/run/secrets

now() { # -> t, hundredths of seconds since the boot
    read -r up rest </proc/uptime
    t=$((${up%.*} * 100 + 1${up#*.} - 100))
}

sleep_until() {
    while now; [ "$t" -lt "$1" ]; do # a signal to all may end a sleep early
        left=$(($1 - t))
        $bin sleep "$((left / 100)).$((left / 10 % 10))$((left % 10))"
    done
}

end_all() { # GRACE: everything but PID 1 and ourselves
    kill -TERM -1 2>/dev/null
    now
    sleep_until "$((t + $1))"
    kill -KILL -1 2>/dev/null
}

keep_time() { # UNTIL WHY
    trap '' TERM
    sleep_until "$1"
    echo "$2" >"$state/$i.why"
    end_all "$grace"
}

read_count() { # FILE KEY -> count
    count=0
    [ -r "$1" ] || return 0
    while read -r key value rest; do
        if [ "$key" = "$2" ]; then count=$value; fi
    done <"$1"
}

read_counters() { # -> oom, pids: how often the kernel killed for memory and refused a process
    cgroup=/sys/fs/cgroup
    if [ -e $cgroup/memory.events ]; then
        read_count $cgroup/memory.events oom_kill; oom=$count
        read_count $cgroup/pids.events max; pids=$count
    else
        read_count $cgroup/memory/memory.oom_control oom_kill; oom=$count
        read_count $cgroup/pids/pids.events max; pids=$count
    fi
}

read_usage() { # -> cpu_us, memory
    cpu_us=- memory=-
    if [ -r $cgroup/cpu.stat ]; then
        read_count $cgroup/cpu.stat usage_usec; cpu_us=$count
        [ ! -r $cgroup/memory.peak ] || read -r memory <$cgroup/memory.peak
    elif [ -r $cgroup/cpuacct/cpuacct.usage ]; then
        read -r cpu_us <$cgroup/cpuacct/cpuacct.usage; cpu_us=$((cpu_us / 1000))
        [ ! -r $cgroup/memory/memory.max_usage_in_bytes ] || read -r memory <$cgroup/memory/memory.max_usage_in_bytes
    fi
}

is_there() { # COMMAND PATH
    case $1 in
    */*) [ -f "$1" ] && [ -x "$1" ]; return ;;
    esac
    found=1 ifs=$IFS IFS=:
    for folder in $2; do
        if [ -f "$folder/$1" ] && [ -x "$folder/$1" ]; then found=0; break; fi
    done
    IFS=$ifs
    return $found
}

say() { # WORDS
    printf '\036%s %s\036\n' "$mark" "$1"
}

has_files=
give_variables() { :; } # as the container is fed: in the shell that becomes the step
give_files() { :; } # right before a step

give_file() { # PATH BASE64: only builtins have a secret among their arguments
    case $1 in
    */*) $bin mkdir -p "$secrets/${1%/*}" || return 1 ;;
    esac
    (umask 377 && printf %s "$2" | $bin base64 -d >"$secrets/$1")
}

take_files() {
    $bin chmod -R u+rwX "$secrets"
    $bin find "$secrets" -mindepth 1 -maxdepth 1 -exec $bin rm -rf {} +
}

run_step() { # -> code, and a marker before and after it
    now
    begun=$t
    [ -e "$state/started" ] || echo "$t" >"$state/started"
    read -r started <"$state/started"
    until=$((started + run_limit)) why_over=run_timeout
    if [ "$timeout" -gt 0 ] && [ "$((begun + timeout))" -lt "$until" ]; then
        until=$((begun + timeout)) why_over=step_timeout
    fi
    say "begin $i"
    say "begin $i" >&2
    read_counters
    oom_before=$oom pids_before=$pids
    keep_time "$until" $why_over </dev/null >/dev/null 2>&1 &
    code=0 why=-
    if ! give_files 2>/dev/null; then
        code=126 why=secrets
    elif ! cd "$dir" 2>/dev/null; then
        code=126 why=directory
    elif ! is_there "$command" "$path"; then
        code=127 why=command
    else
        ("launch_$i") </dev/null # in the foreground: what runs in the background of a shell ignores INT
        code=$?
    fi
    cd /
    kill -KILL -1 2>/dev/null # what it left behind, and the keeper of its time
    wait
    [ -z "$has_files" ] || take_files 2>/dev/null
    now
    read_counters
    if [ -e "$state/$i.why" ]; then read -r why <"$state/$i.why"; fi
    if [ -e "$state/stop" ]; then why=stop; fi
    read_usage
    say "end $i $code $((t - begun)) $((oom - oom_before)) $((pids - pids_before)) $cpu_us $memory $why"
    say "end $i" >&2
    case $why in stop | run_timeout) : >"$state/over" ;; esac
    if [ "$code" != 0 ] || [ "$why" != - ]; then : >"$state/failed"; fi
}

name_step() { # -> i
    i=00$n
    i=${i#"${i%???}"}
}

tell_output() { # NAME FILE
    if [ ! -f "$2" ]; then
        say "missing $1"
    elif [ "$($bin stat -L -c %s "$2")" -gt "$output_max" ]; then
        say "large $1"
    else
        say "output $1 $($bin base64 -w 0 "$2")"
    fi
}

tell_outputs() {
    named_outputs # of the plan
    told=0
    for file in "$state"/outputs/*; do
        [ -e "$file" ] && [ "$told" -lt "$outputs_max" ] || continue
        name=${file##*/}
        case $name in
        *[!A-Za-z0-9_.-]* | .* | -* | ?????????????????????????????????????????????????????????????????*) say "misnamed" ;;
        *) tell_output "$name" "$file" ;;
        esac
        told=$((told + 1))
    done
}

take_text() { # BYTES -> text, without the newlines at its end
    text=
    [ "$1" = 0 ] || text=$($bin dd bs="$1" count=1 iflag=fullblock 2>/dev/null)
}

receive() { # what the service feeds; fails where it was cut off
    read -r plan_bytes secret_bytes tar_bytes || return 1
    take_text "$plan_bytes"; plan=$text
    take_text "$secret_bytes"; given=$text
    if [ "$tar_bytes" -gt 0 ]; then
        { # tar would read on to the end of its input: it gets what is its own, and no byte more
            $bin dd bs=65536 count="$((tar_bytes / 65536))" iflag=fullblock
            $bin dd bs=512 count="$((tar_bytes % 65536 / 512))" iflag=fullblock
        } 2>/dev/null | $bin tar -x -f - -C /workspace || return 1
    fi
    read -r complete && [ "$complete" = complete ]
}

read_plan() { # mark, grace, run_limit, steps, output_max, outputs_max, and a function or two for each step
    if [ -z "$fed" ]; then
        [ -e "$state/plan.sh" ] || exit 75
        . "$state/plan.sh"
        return
    fi
    eval "$plan"
    eval "$given"
    [ "$n" = 0 ] || return 0
    printf '%s\n' "$plan" >"$state/plan.new"
    $bin mv "$state/plan.new" "$state/plan.sh"
}

run() {
    n=$1 last=$2 fed=${3-} code=0
    umask 022
    $bin mkdir -p /tmp/home "$state/outputs"
    [ -z "$fed" ] || receive || exit 75
    if [ "$n" != 0 ]; then # another container's turn comes first
        until [ -e "$state/plan.sh" ] || [ -e "$state/stop" ]; do $bin sleep 0.1; done
        n=$((n - 1)); name_step; n=$((n + 1))
        until [ -e "$state/$i.done" ] || [ -e "$state/over" ] || [ -e "$state/stop" ]; do $bin sleep 0.1; done
    fi
    read_plan
    while [ "$n" -le "$last" ]; do
        [ ! -e "$state/stop" ] || : >"$state/over"
        [ ! -e "$state/over" ] || break
        name_step
        "step_$i" # -> condition, timeout, dir, path, command
        case $condition-$([ -e "$state/failed" ] && echo failed) in
        success-failed | failure-) ;;
        *) run_step ;;
        esac
        : >"$state/$i.done"
        n=$((n + 1))
    done
    [ "$last" != "$((steps - 1))" ] || [ ! -e "$state/started" ] || tell_outputs
    exit "$code"
}

stop() {
    trap '' TERM
    if [ -e "$state/stop" ]; then # asked before; the shorter grace counts
        now
        sleep_until "$((t + $1))"
        kill -KILL -1 2>/dev/null
    else
        : >"$state/stop"
        end_all "$1"
    fi
}

"$@"
