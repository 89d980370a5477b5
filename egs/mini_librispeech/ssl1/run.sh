#!/usr/bin/env bash
# Mini LibriSpeech (OpenSLR 31, 5 h, CC BY 4.0). Get the archives with
#   lhotse download mini-librispeech DIR
# and give DIR (the folder that holds LibriSpeech/) as --corpus_root.
set -euo pipefail
cd "$(dirname "$0")"
../../TEMPLATE/ssl1/ssl.sh \
    --corpus mini_librispeech --corpus_root downloads --corpus_opts "--jobs 2" \
    --train_set train-clean-5 --dev_set dev-clean-2 \
    --label_set train-clean-5 --test_set dev-clean-2 \
    --upstream "zipformer hubert_k2ssl" --baselines fbank \
    --clusters 100 --units_opts "--normalize utterance" \
    --tasks "pr sid" --tier short \
    "$@"
