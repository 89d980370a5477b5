#!/usr/bin/env bash
# The embedded synthetic corpus through every stage: minutes on two CPU cores, nothing to download.
set -euo pipefail
cd "$(dirname "$0")"
../../TEMPLATE/ssl1/ssl.sh \
    --corpus mini --corpus_opts "--preset mini --jobs 2" \
    --train_set train-clean-100 --dev_set dev-clean \
    --label_set train-10min --test_set test-clean \
    --upstream "zipformer hubert_k2ssl" --baselines fbank \
    --clusters 100 \
    --tasks "pr sid" --tier smoke \
    --espnet_opts "--config ../asr1/conf/train_ctc_blstm.yaml" \
    --nj 2 "$@"
