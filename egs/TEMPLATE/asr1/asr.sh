#!/usr/bin/env bash
# ESPnet's own ASR on frozen upstreams, from audio to a result row. Called by a recipe's run.sh, in its folder.
set -euo pipefail

# --- what a recipe sets (every variable is an option: --name value)
stage=1                 # first stage to run
stop_stage=6            # last stage to run
stages=                 # or by name: "data export train decode score report"
dry_run=false           # print the commands instead of running them
corpus=                 # sslbench list corpora
corpus_root=data/corpus # where its audio is (or is made)
corpus_opts=            # more options for 'sslbench data prepare'
train_set=              # transcribed audio to learn from
valid_set=              # picks the epoch
test_set=               # transcribed audio for scoring
speeds=                 # also learn from copies at these speeds, e.g. "0.9 1.1"
upstream=               # names of sslbench or of s3prl; each becomes ESPnet's `frontend: s3prl`
ckptdir=                # CKPTDIR/UPSTREAM/upstream holds its weights; without them they are random, which tier full refuses
asr_config=conf/train.yaml    # ESPnet's; the front end is filled in
decode_config=conf/decode.yaml
units=char              # char, or bpe
nbpe=5000               # word pieces, with bpe
asr_opts=               # more options for 'sslbench espnet asr', e.g. "--epochs 2"
tier=smoke              # smoke, short or full
seed=0
ngpu=0
expdir=exp
resultsdir=results
reportdir=report

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
usage="usage: run.sh [--stage N] [--stop_stage N] [--stages \"decode score\"] [--upstream \"NAMES\"] [--ngpu N] [--name value]...
stages: 1 data, 2 export, 3 train, 4 decode, 5 score, 6 report; finished steps are skipped."
options_of=${BASH_SOURCE[0]}
# shellcheck source=../ssl1/parse_options.sh
. "${here}/../ssl1/parse_options.sh"
# shellcheck disable=SC1091 # the recipe's own
cmd_backend=local launch_opts=() && . ./path.sh && . ./cmd.sh

# --- helpers
names=(none data export train decode score report)
# shellcheck source=../ssl1/steps.sh
. "${here}/../ssl1/steps.sh"

data=data/manifests
asr() { # UPSTREAM STAGE OUTPUT: ESPnet's programs so far; what is complete is skipped
    local out=${expdir}/$1/asr_espnet launch=() ckpt=()
    if [ "${cmd_backend}" != local ]; then # ESPnet itself spreads over the GPUs
        launch=(sslbench launch --backend "${cmd_backend}" "${launch_opts[@]}" --ngpu "${ngpu}" --one_process
            --name "asr.$1.$2" --log_dir "${expdir}/log" --)
    fi
    if [ -n "${ckptdir}" ]; then
        if [ -e "${ckptdir}/$1/upstream" ]; then ckpt=(--ckpt "${ckptdir}/$1/upstream")
        else echo "  $1: there is no ${ckptdir}/$1/upstream (--ckptdir is the exp folder of a recipe ssl1): no --ckpt is given"; fi
    fi
    # shellcheck disable=SC2086
    step "${3/OUT/${out}}" "${launch[@]}" sslbench espnet asr --stop_after "$2" --upstream "$1" "${ckpt[@]}" --system "$1" \
        --train "${data}/${train_set}.jsonl.gz" --dev "${data}/${valid_set}.jsonl.gz" --test "${data}/${test_set}.jsonl.gz" \
        --out "${out}" --config "${asr_config}" --decode_config "${decode_config}" --units "${units}" --bpe_size "${nbpe}" \
        --speeds ${speeds} --results "${resultsdir}" --tier "${tier}" --seed "${seed}" --ngpu "${ngpu}" ${asr_opts}
}
every() { # STAGE OUTPUT
    for name in ${upstream}; do asr "${name}" "$1" "${2/SYSTEM/${name}}"; done
}

# --- stages
if wanted 1; then
    # shellcheck disable=SC2086
    step "${data}/corpus.json" sslbench data prepare "${corpus}" --root "${corpus_root}" --out "${data}" ${corpus_opts}
fi
if wanted 2; then every export OUT/tokens.txt; fi
if wanted 3; then every train OUT/DONE.train; fi
if wanted 4; then every decode OUT/DONE.decode; fi
if wanted 5; then every score "${resultsdir}/SYSTEM/asr_espnet.json"; fi
if wanted 6; then # never skipped: rows may have been added since
    step always sslbench report "${resultsdir}" --runs "${expdir}" --out "${reportdir}" --results_md RESULTS.md
fi
