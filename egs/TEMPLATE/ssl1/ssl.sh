#!/usr/bin/env bash
# The eight stages of an SSL recipe, one sslbench verb each. Called by a recipe's run.sh, in its folder.
# shellcheck disable=SC2046,SC2086 # *_opts and model_of are several words
set -euo pipefail

# --- what a recipe sets (every variable is an option: --name value)
stage=1                 # first stage to run
stop_stage=8            # last stage to run
stages=                 # or by name: "data units pretrain export profile asr superb report"
dry_run=false           # print the commands instead of running them
corpus=                 # sslbench list corpora
corpus_root=data/corpus # where its audio is (or is made)
corpus_opts=            # more options for 'sslbench data prepare'
train_set=              # unlabelled audio for pretraining
dev_set=                # held-out audio
label_set=              # transcribed audio for fine-tuning
test_set=               # transcribed audio for scoring; rows of a second set A-B are asr_B, and so on
upstream=               # families to train; each has conf/pretrain_FAMILY.yaml
twins=true              # also evaluate each architecture with its initial, untrained weights
baselines=              # s3prl upstreams to stand beside them
iterations=1            # 2: cluster a layer of iteration 1 and train again
clusters=100            # k-means units of each iteration
units_source=mfcc       # what iteration 1 clusters: mfcc, or UPSTREAM:LAYER of any s3prl upstream
units_layer=2           # layer to cluster from iteration 2 on
units_opts=             # more options for 'sslbench units fit', e.g. "--normalize utterance"
pretrain_opts=          # more options for 'sslbench pretrain', e.g. "--max_steps 20"
asr_opts=               # more options for 'sslbench finetune'
asr_config=conf/asr.yaml # its name is that of the rows and of the experiments' folders
tasks=                  # SUPERB tasks of stage 7
superb_opts=            # more options for 'sslbench superb run'
espnet_opts=            # set to also fine-tune through ESPnet's trainer in stage 6
tier=smoke              # smoke, short or full: how much of the official protocol is run
seed=0
ngpu=0                  # GPUs per node; above 1, torchrun starts one process each
num_nodes=1
nj=1                    # systems handled at the same time (stages 3, 6, 7)
expdir=exp
resultsdir=results
reportdir=report

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
help_message="usage: run.sh [--stage N] [--stop_stage N] [--stages \"profile report\"] [--upstream \"NAMES\"] [--name value]...
stages: 1 data, 2 units, 3 pretrain, 4 export, 5 profile, 6 asr, 7 superb, 8 report; finished steps are skipped.
options and their defaults:
$(sed -n '/^# --- what/,/^here=/p' "${BASH_SOURCE[0]}" | grep -E '^[a-z_]+=' | sed 's/^/  --/')"
# shellcheck source=parse_options.sh
. "${here}/parse_options.sh"
# shellcheck disable=SC1091 # the recipe's own
cmd_backend=local launch_opts=() && . ./path.sh && . ./cmd.sh
trap 'for pid in $(jobs -p); do pkill -P "${pid}" || kill "${pid}" || true; done 2>/dev/null' INT TERM # leave nothing running

# --- helpers
names=(none data units pretrain export profile asr superb report)
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
job() { # NUM_NODES NGPU OUTPUT sslbench VERB...: as step, by the backend of cmd.sh
    local nodes=$1 gpus=$2 output=$3 launch=(); shift 3
    if [ "${cmd_backend}" != local ] || [ "$((nodes * gpus))" -gt 1 ]; then
        launch=(sslbench launch --backend "${cmd_backend}" "${launch_opts[@]}" --num_nodes "${nodes}" --ngpu "${gpus}"
            --name "ssl.${output//\//-}" --log_dir "${expdir}/log" --)
    fi
    step "${output}" "${launch[@]}" "$@"
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

data=data/manifests
one=$((ngpu > 0 ? 1 : 0)) device=$([ "${ngpu}" -gt 0 ] && echo cuda || echo cpu) # of everything but pretraining
read -ra families <<<"${upstream}"; read -ra plain <<<"${baselines}"
systems=() # every system that is evaluated: a trained model, its untrained twin, a baseline
for family in "${families[@]}"; do
    systems+=("${family}")
    if "${twins}"; then systems+=("${family}_random"); fi
done
systems+=("${plain[@]}")
model_of() { # SYSTEM: the options that name its upstream
    echo "--upstream ${1%_random} --system $1"
    if [[ " ${baselines} " != *" $1 "* ]]; then echo "--ckpt ${expdir}/$1/upstream"; fi
}

# --- stages
if wanted 1; then
    step "${data}/corpus.json" sslbench data prepare "${corpus}" --root "${corpus_root}" --out "${data}" ${corpus_opts}
fi
if ! "${dry_run}" && [ ! -e "${data}/${dev_set}.jsonl.gz" ] && [ -e "${data}/dev-heldout.jsonl.gz" ]; then
    echo "no ${dev_set} in ${corpus_root}: speakers held out of ${train_set} stand in for it"
    dev_set=dev-heldout test_set=test-heldout
fi

make_units() { # FAMILY ITERATION
    local family=$1 it=$2 source=${units_source} out=${expdir}/units_it1 opts=()
    if [ "${it}" -gt 1 ]; then
        source=${family}:${units_layer}
        out=${expdir}/${family}/units_it${it}
        opts=(--ckpt "${expdir}/${family}/upstream_it$((it - 1))")
    fi
    job 1 "${one}" "${out}/units.yaml" sslbench units fit --manifest "${data}/${train_set}.jsonl.gz" \
        --feature "${source}" --clusters "${clusters}" --seed "${seed}" --device "${device}" --out "${out}" "${opts[@]}" ${units_opts}
    for part in "${train_set}" "${dev_set}"; do
        job 1 "${one}" "${out}/${part}.jsonl.gz" sslbench units apply --units "${out}" --device "${device}" "${opts[@]}" \
            --manifest "${data}/${part}.jsonl.gz" --out "${out}/${part}.jsonl.gz"
    done
    step "${out}/report.json" sslbench units report --manifest "${out}/${dev_set}.jsonl.gz" --out "${out}/report.json"
}
pretrain() { # FAMILY
    local family=$1 it=${iteration} exp=${expdir}/$1/pretrain_it${iteration} units=${expdir}/units_it1
    if [ "${it}" -gt 1 ]; then units=${expdir}/${family}/units_it${it}; fi
    job "${num_nodes}" "${ngpu}" "${exp}/DONE" sslbench pretrain --config "conf/pretrain_${family}.yaml" --exp_dir "${exp}" --seed "${seed}" \
        --train_manifest "${units}/${train_set}.jsonl.gz" --dev_manifest "${units}/${dev_set}.jsonl.gz" ${pretrain_opts}
}
for ((iteration = 1; iteration <= iterations; iteration++)); do
    if wanted 2; then
        for family in "${families[@]}"; do
            make_units "${family}" "${iteration}"
            if [ "${iteration}" -eq 1 ]; then break; fi # these units serve every family
        done
    fi
    if wanted 3; then each pretrain "${families[@]}"; fi
    if [ "${iteration}" -lt "${iterations}" ] && wanted 3 >/dev/null; then
        for exp in "${families[@]/#/${expdir}/}"; do
            step "${exp}/upstream_it${iteration}/card.yaml" \
                sslbench export "${exp}/pretrain_it${iteration}" --out "${exp}/upstream_it${iteration}"
        done
    fi
done

if wanted 4; then
    for family in "${families[@]}"; do
        exp=${expdir}/${family}
        step "${resultsdir}/${family}/pretrain.json" sslbench export "${exp}/pretrain_it${iterations}" \
            --out "${exp}/upstream" --results "${resultsdir}" --system "${family}" --tier "${tier}"
        step "${exp}/check.json" sslbench check "${family}" --ckpt "${exp}/upstream" --out "${exp}/check.json"
        if "${twins}"; then
            step "${exp}_random/upstream/card.yaml" \
                sslbench export "${exp}/pretrain_it${iterations}" --initial --out "${exp}_random/upstream"
        fi
    done
fi

if wanted 5; then # one command for all: systems are timed by turns, so that a busy moment hits each alike
    for system in "${systems[@]}"; do # the first row that is missing, if any
        row=${resultsdir}/${system}/profile.json
        if [ ! -s "${row}" ]; then break; fi
    done
    job 1 "${one}" "${row}" sslbench profile $(for system in "${systems[@]}"; do model_of "${system}"; done) \
        --results "${resultsdir}" --tier "${tier}"
fi

asr() { # SYSTEM: the first test set trains, on all GPUs; the others find it trained
    local name=${asr_config##*/} test gpus=${ngpu} && name=${name%.yaml} && local row=${name}
    for test in ${test_set}; do [ "${test}" = "${test_set%% *}" ] || row=${name}_${test##*-} gpus=${one}
        job 1 "${gpus}" "${resultsdir}/$1/${row}.json" sslbench finetune --config "${asr_config}" $(model_of "$1") \
            --exp_dir "${expdir}/$1/${name}" --evaluation "${row}" --train_manifest "${data}/${label_set}.jsonl.gz" \
            --dev_manifest "${data}/${dev_set}.jsonl.gz" --test_manifest "${data}/${test}.jsonl.gz" --results "${resultsdir}" \
            --tier "${tier}" --seed "${seed}" ${asr_opts}
    done
}
asr_espnet() { # SYSTEM: through ESPnet's own trainer
    job 1 "${one}" "${resultsdir}/$1/asr_espnet.json" sslbench espnet asr $(model_of "$1") --out "${expdir}/$1/asr_espnet" \
        --train "${data}/${label_set}.jsonl.gz" --dev "${data}/${dev_set}.jsonl.gz" --test "${data}/${test_set%% *}.jsonl.gz" \
        --results "${resultsdir}" --tier "${tier}" ${espnet_opts}
}
recognizer() { if [ "$1" = espnet ]; then asr_espnet "${families[0]}"; else asr "$1"; fi; }
if wanted 6; then each recognizer "${systems[@]}" ${espnet_opts:+espnet}; fi

superb() { # SYSTEM
    for task in ${tasks//,/ }; do
        job 1 "${one}" "${resultsdir}/$1/${task}.json" sslbench superb run $(model_of "$1") --tasks "${task}" --data "${data}" \
            --out "${expdir}/$1/superb" --results "${resultsdir}" --tier "${tier}" --seed "${seed}" --device "${device}" $([[ $1 != *_random ]] || echo --random_weights) ${superb_opts}
    done
}
if wanted 7; then each superb "${systems[@]}"; fi

if wanted 8; then # never skipped: rows may have been added since
    step always sslbench report "${resultsdir}" --runs "${expdir}" --out "${reportdir}" --results_md RESULTS.md
fi
