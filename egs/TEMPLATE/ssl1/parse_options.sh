# shellcheck shell=bash
# Sourced. Sets a bash variable for each `--name value` (or `--name=value`) whose variable already exists;
# dashes and underscores are the same. Uses: usage (how it is called), options_of (the file that explains its options).
show_options() { # what holds now: the recipe's values, and what was said before --help
    local line name value
    while IFS= read -r line; do
        name=${line%%=*}
        value=${!name}
        if [[ "${value}" == *" "* ]]; then value="\"${value}\""; fi
        if [[ "${line}" == *" # "* ]]; then line="# ${line#* # }"; else line=; fi
        printf '  --%-23s %s\n' "${name}=${value}" "${line}"
    done < <(sed -n '/^# --- what/,/^$/p' "${options_of:?}" | grep -E '^[a-z_]+=')
}
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            echo "${usage:?}"
            echo "options, and their values here:"
            show_options
            exit 0
            ;;
        --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;;
        --*)
            option=${1#--}
            option=${option//-/_}
            if [ -z "${!option+set}" ]; then
                echo "$0: no option $1; see $0 --help" >&2
                exit 2
            fi
            if [ $# -lt 2 ]; then
                echo "$0: option $1 needs a value" >&2
                exit 2
            fi
            if [ "${option}" = corpus_root ] && [[ "$2" != /* ]]; then
                corpus_root=${OLDPWD:-${PWD}}/$2 # run.sh has gone to its own folder; this path is the caller's
            else
                printf -v "${option}" '%s' "$2"
            fi
            shift 2
            ;;
        *)
            echo "$0: unexpected argument '$1'; options are --name value" >&2
            exit 2
            ;;
    esac
done
