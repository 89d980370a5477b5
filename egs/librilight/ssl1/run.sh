#!/usr/bin/env bash
# Libri-Light (60,000 h of audiobooks, arXiv 1912.07875): k2SSL's Large model and HuBERT Large. Give the folder
# that holds small/ medium/ large/ as --corpus_root. Units are k2SSL's: 500 clusters of HuBERT Base's layer 9,
# which s3prl fetches, learned from 100 h; all of it is labelled in --label_shards jobs, each with a GPU.
# Four nodes need cmd_backend=slurm or ssh in cmd.sh. The models are evaluated by LibriSpeech's recipe:
#   ../../librispeech/ssl1/run.sh --stages "asr superb report" --expdir ../../librilight/ssl1/exp \
#       --upstream "zipformer_large hubert_orig_large" --twins false
# First 'sslbench plan conf/pretrain_zipformer_large.yaml --gpus 32 --hours 60000': what it will cost.
set -euo pipefail
cd "$(dirname "$0")"
../../TEMPLATE/ssl1/ssl.sh \
    --corpus librilight --corpus_root "${PWD}/downloads" --corpus_opts "--jobs 16" \
    --train_set large --dev_set small \
    --upstream "zipformer_large hubert_orig_large" --twins false \
    --clusters 500 --units_source hubert_base:9 --units_opts "--limit_hours 100" --label_shards 32 \
    --stop_stage 5 --tier full \
    --ngpu 8 --num_nodes 4 "$@"
