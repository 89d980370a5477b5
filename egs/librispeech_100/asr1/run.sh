#!/usr/bin/env bash
# LibriSpeech, 100 h of labels, by ESPnet: frozen upstreams below a Conformer with CTC and attention, no language model.
# Get the archives with 'lhotse download librispeech DIR' and give DIR as --corpus_root. Weights: --ckptdir holds
# UPSTREAM/upstream for each upstream (the exp folder of ../../librispeech/ssl1); s3prl's own names fetch theirs.
# Settings are those of ESPnet's egs2/librispeech_100/asr1/run.sh: 5,000 word pieces, speeds 0.9, 1 and 1.1.
set -euo pipefail
cd "$(dirname "$0")"
../../TEMPLATE/asr1/asr.sh \
    --corpus librispeech --corpus_root "${PWD}/downloads" --corpus_opts "--jobs 8" \
    --train_set train-clean-100 --valid_set dev-clean --test_set test-clean --speeds "0.9 1.1" \
    --upstream "zipformer_base hubert_k2ssl_base" --ckptdir ../../librispeech/ssl1/exp \
    --asr_config conf/train_conformer_frozen_s3prl.yaml --decode_config conf/decode_nolm.yaml \
    --units bpe --nbpe 5000 --tier full --ngpu 1 "$@"
