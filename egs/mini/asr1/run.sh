#!/usr/bin/env bash
# ESPnet's asr_train and asr_inference on the embedded corpus: minutes on two CPU cores, nothing to download. The upstream
# has random weights; what ../ssl1 has pretrained: --upstream zipformer --ckptdir ../ssl1/exp
set -euo pipefail
cd "$(dirname "$0")"
../../TEMPLATE/asr1/asr.sh \
    --corpus mini --corpus_opts "--preset mini --jobs 2" \
    --train_set train-10min --valid_set dev-clean --test_set test-clean \
    --upstream "zipformer_tiny fbank" \
    --asr_config conf/train_ctc_blstm.yaml --decode_config conf/decode_ctc.yaml \
    --tier smoke "$@"
