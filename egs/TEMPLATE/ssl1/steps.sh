# shellcheck shell=bash disable=SC2154 # names and options are set by the script that sources this
# Sourced. Which stages run, and how their commands do. Uses: names (of the stages), stage, stop_stage, stages, dry_run, nj.
wanted() { # NUMBER: is this stage asked for, by number or by name?
    if [ -n "${stages}" ]; then
        [[ " ${stages} " == *" ${names[$1]} "* ]] || return 1
    elif [ "${stage}" -gt "$1" ] || [ "${stop_stage}" -lt "$1" ]; then
        return 1
    fi
    echo "stage $1 ${names[$1]}"
}
step() { # OUTPUT COMMAND...: run unless the output is there; sslbench writes outputs whole or not at all
    local output=$1; shift
    if [ -s "${output}" ]; then echo "  skip: ${output} is complete"; return; fi
    echo "  \$ $*"
    if ! "${dry_run}"; then "$@"; fi
}
each() { # FUNCTION NAME...: call FUNCTION for every NAME, nj at a time; fail when one fails
    local function=$1 pids=() failed=0; shift
    for name in "$@"; do
        if [ "${nj}" -gt 1 ]; then
            while [ "$(jobs -rp | wc -l)" -ge "${nj}" ]; do sleep 0.2; done
            OMP_NUM_THREADS=1 "${function}" "${name}" &
            pids+=($!)
        else
            "${function}" "${name}"
        fi
    done
    for pid in "${pids[@]}"; do wait "${pid}" || failed=1; done
    return "${failed}"
}
