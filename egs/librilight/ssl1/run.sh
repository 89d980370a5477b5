#!/usr/bin/env bash
# Libri-Light (60,000 h of audiobooks, arXiv 1912.07875): k2SSL's Large model and HuBERT Large. Give the folder
# that holds small/ medium/ large/ as --corpus_root. Units are k2SSL's: 500 clusters of HuBERT Base's layer 9,
# which s3prl fetches.
# First 'sslbench plan conf/pretrain_zipformer_large.yaml --gpus 32 --hours 60000': what it will cost.
set -euo pipefail
cd "$(dirname "$0")"
../../TEMPLATE/ssl1/ssl.sh \
    --corpus librilight --corpus_root downloads --corpus_opts "--jobs 16" \
    --train_set large --dev_set small \
    --upstream "zipformer_large hubert_orig_large" --twins false \
    --clusters 500 --units_source hubert_base:9 \
    --stop_stage 5 --tier full \
    --ngpu 8 --num_nodes 4 "$@"
