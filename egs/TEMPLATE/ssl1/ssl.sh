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
label_shards=1          # parts of the training set that are labelled side by side, each on a GPU of its own
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
usage="usage: run.sh [--stage N] [--stop_stage N] [--stages \"profile report\"] [--upstream \"NAMES\"] [--name value]...
stages: 1 data, 2 units, 3 pretrain, 4 export, 5 profile, 6 asr, 7 superb, 8 report; finished steps are skipped."
options_of=${BASH_SOURCE[0]}
# shellcheck source=parse_options.sh
. "${here}/parse_options.sh"
# shellcheck disable=SC1091 # the recipe's own
cmd_backend=local launch_opts=() && . ./path.sh && . ./cmd.sh
trap 'for pid in $(jobs -p); do pkill -P "${pid}" || kill "${pid}" || true; done 2>/dev/null' INT TERM # leave nothing running

# --- helpers
names=(none data units pretrain export profile asr superb report)
# shellcheck source=steps.sh
. "${here}/steps.sh"
job() { # NUM_NODES NGPU OUTPUT sslbench VERB...: as step, by the backend of cmd.sh
    local nodes=$1 gpus=$2 output=$3 launch=(); shift 3
    if [ "${cmd_backend}" != local ] || [ "$((nodes * gpus))" -gt 1 ]; then
        launch=(sslbench launch --backend "${cmd_backend}" "${launch_opts[@]}" --num_nodes "${nodes}" --ngpu "${gpus}"
            --name "ssl.${output//\//-}" --log_dir "${expdir}/log" --)
    fi
    step "${output}" "${launch[@]}" "$@"
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
if [ "${num_nodes}" -gt 1 ] && [ "${cmd_backend}" = local ] && ! "${dry_run}" && wanted 3 >/dev/null; then
    echo "--num_nodes ${num_nodes}: stage 3 needs cmd_backend=slurm or ssh in cmd.sh; or give --num_nodes 1" >&2
    exit 2
fi
if wanted 1; then
    step "${data}/corpus.json" sslbench data prepare "${corpus}" --root "${corpus_root}" --out "${data}" ${corpus_opts}
fi
if ! "${dry_run}" && [ ! -e "${data}/${dev_set}.jsonl.gz" ] && [ -e "${data}/dev-heldout.jsonl.gz" ]; then
    echo "no ${dev_set} in ${corpus_root}: speakers held out of ${train_set} stand in for it"
    dev_set=dev-heldout test_set=test-heldout
fi

label() { # PART OUTPUT DEVICE [OPTION...]: with the variables of make_units
    local part=$1 output=$2 place=$3; shift 3
    job 1 "${one}" "${output}" sslbench units apply --units "${out}" --device "${place}" "${opts[@]}" \
        --manifest "${data}/${part}.jsonl.gz" --out "${out}/${part}.jsonl.gz" "$@"
}
label_shard() { # NUMBER
    local place=${device}
    if [ "${device}" = cuda ] && [ "${cmd_backend}" = local ]; then place=cuda:$(($1 % ngpu)); fi
    label "${train_set}" "${out}/${train_set}.$(printf %04d-of-%04d "$1" "${label_shards}").jsonl.gz" "${place}" \
        --num_shards "${label_shards}" --shard "$1"
}
ready() { # FILE STAGE THEN: is the input of this iteration there? A dry run expects it of a wanted stage
    if [ "${iteration}" -eq 1 ] || [ -s "$1" ] || { "${dry_run}" && wanted "$2" >/dev/null; }; then return; fi
    echo "  iteration ${iteration} waits for $1: run stage $2, then stage $3 again"
    return 1
}
make_units() { # FAMILY ITERATION
    local family=$1 it=$2 source=${units_source} out=${expdir}/units_it1 opts=()
    if [ "${it}" -gt 1 ]; then
        source=${family}:${units_layer}
        out=${expdir}/${family}/units_it${it}
        opts=(--ckpt "${expdir}/${family}/upstream_it$((it - 1))")
    fi
    job 1 "${one}" "${out}/units.yaml" sslbench units fit --manifest "${data}/${train_set}.jsonl.gz" \
        --feature "${source}" --clusters "${clusters}" --seed "${seed}" --device "${device}" --out "${out}" "${opts[@]}" ${units_opts}
    if [ "${label_shards}" -gt 1 ] && [ ! -s "${out}/${train_set}.jsonl.gz" ]; then
        nj=${label_shards} each label_shard $(seq 0 $((label_shards - 1)))
        step "${out}/${train_set}.jsonl.gz" sslbench units merge --out "${out}/${train_set}.jsonl.gz" --num_shards "${label_shards}"
    else
        label "${train_set}" "${out}/${train_set}.jsonl.gz" "${device}"
    fi
    label "${dev_set}" "${out}/${dev_set}.jsonl.gz" "${device}"
    step "${out}/report.json" sslbench units report --manifest "${out}/${dev_set}.jsonl.gz" --out "${out}/report.json"
}
pretrain() { # FAMILY
    local family=$1 it=${iteration} exp=${expdir}/$1/pretrain_it${iteration} units=${expdir}/units_it1
    if [ "${it}" -gt 1 ]; then units=${expdir}/${family}/units_it${it}; fi
    if ! ready "${units}/${dev_set}.jsonl.gz" 2 3; then return; fi
    job "${num_nodes}" "${ngpu}" "${exp}/DONE" sslbench pretrain --config "conf/pretrain_${family}.yaml" --exp_dir "${exp}" --seed "${seed}" \
        --train_manifest "${units}/${train_set}.jsonl.gz" --dev_manifest "${units}/${dev_set}.jsonl.gz" ${pretrain_opts}
    if [ "${it}" -lt "${iterations}" ]; then # the next one clusters it
        step "${expdir}/${family}/upstream_it${it}/card.yaml" sslbench export "${exp}" --out "${expdir}/${family}/upstream_it${it}"
    fi
}
for ((iteration = 1; iteration <= iterations; iteration++)); do
    if wanted 2; then
        for family in "${families[@]}"; do
            if ready "${expdir}/${family}/upstream_it$((iteration - 1))/card.yaml" 3 2; then make_units "${family}" "${iteration}"; fi
            if [ "${iteration}" -eq 1 ]; then break; fi # these units serve every family
        done
    fi
    if wanted 3; then each pretrain "${families[@]}"; fi
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
