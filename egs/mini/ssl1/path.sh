# shellcheck shell=bash
# Sourced by run.sh: where sslbench and its environment are. An active environment wins.
if ! command -v sslbench >/dev/null; then
    PATH=$(cd ../../.. && pwd)/.venv/bin:${PATH}
fi
command -v sslbench >/dev/null || { echo "sslbench is not installed; run 'make demo' in the repository" >&2; exit 1; }
export PATH PYTHONUNBUFFERED=1
