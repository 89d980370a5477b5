# shellcheck shell=bash
# Sourced. Sets a bash variable for each `--name value` (or `--name=value`) whose variable already exists;
# dashes and underscores are the same. Uses: help_message.
while [ $# -gt 0 ]; do
    case "$1" in
        -h | --help)
            echo "${help_message:?}"
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
            printf -v "${option}" '%s' "$2"
            shift 2
            ;;
        *)
            echo "$0: unexpected argument '$1'; options are --name value" >&2
            exit 2
            ;;
    esac
done
