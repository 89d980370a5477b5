#!/usr/bin/env bash
# Mini LibriSpeech (OpenSLR 31, 5 h, CC BY 4.0). Get the archives with
#   lhotse download librispeech --mini DIR
# and give DIR (the folder that holds LibriSpeech/) as --corpus_root. It has no test set: speakers of the training
# set are held out. Phone recognition (--tasks "pr sid") needs a lexicon in DIR when stage 1 runs: s3prl's two
# downstream/ctc/lexicon/*-g2p.txt, or OpenSLR 11's librispeech-lexicon.txt.
set -euo pipefail
cd "$(dirname "$0")"
../../TEMPLATE/ssl1/ssl.sh \
    --corpus mini_librispeech --corpus_root "${PWD}/downloads" --corpus_opts "--jobs 2" \
    --train_set train-clean-5 --dev_set dev-clean-2 \
    --label_set train-clean-5 --test_set test-heldout \
    --upstream "zipformer hubert_k2ssl" --baselines fbank \
    --clusters 100 --units_opts "--normalize utterance" \
    --tasks sid --tier short \
    "$@"
