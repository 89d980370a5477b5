#!/usr/bin/env bash
# LibriSpeech (OpenSLR 12, 960 h, CC BY 4.0): k2SSL's and HuBERT's Base models as published. Get the archives with
#   lhotse download librispeech DIR
# and give DIR (the folder that holds LibriSpeech/) as --corpus_root. One model: --upstream zipformer_base.
# Other amounts of labels (1 h and 10 h are Libri-Light's limited sets, arXiv 1912.07875), and k2SSL's transducer:
#   --stages asr --label_set train-10h --asr_config conf/asr_10h.yaml
#   --stages asr --asr_config conf/asr_100h_transducer.yaml   (on one GPU: --asr_config conf/asr.yaml --ngpu 1)
# Batches are as published with --ngpu 8; with fewer, accum times as many: --asr_opts "--accum 8" on one.
# More of SUPERB: --tasks "superb_asr pr" with s3prl's two lexica (its downstream/ctc/lexicon/*-g2p.txt) in DIR when stage
# 1 runs; --tasks sid --superb_opts "--roots sid=VOXCELEB1"; what each task needs is in downstream/TASK/README.md.
# First 'sslbench plan conf/pretrain_zipformer_base.yaml --gpus 8 --hours 960': what it will cost.
set -euo pipefail
cd "$(dirname "$0")"
../../TEMPLATE/ssl1/ssl.sh \
    --corpus librispeech --corpus_root "${PWD}/downloads" --corpus_opts "--jobs 8" \
    --train_set train-960 --dev_set dev-clean \
    --label_set train-clean-100 --test_set "test-clean test-other" --asr_config conf/asr_100h.yaml \
    --upstream "zipformer_base hubert_k2ssl_base fast_hubert_base hubert_orig_base" --baselines fbank \
    --iterations 2 --clusters 500 --units_layer 6 \
    --tasks superb_asr --tier full \
    --ngpu 8 "$@"
