# Every target makes its own environment when needed; nothing else has to be installed first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.sslbench-installed

.PHONY: help demo test test-kill test-k2 lint typecheck clean bench bench-models bench-base bench-quirks bench-superb bench-peft \
	bench-espnet bench-manifests bench-loader bench-bf16 bench-report
help:
	@echo "make demo       embedded corpus -> pretraining -> evaluation -> HTML report (minutes, two CPU cores)"
	@echo "make test       the test suite"
	@echo "make test-kill kills, interrupts and starves training and probe runs eighty times (some minutes)"
	@echo "make lint       ruff and shellcheck"
	@echo "make typecheck  strict mypy"
	@echo "make bench      cost of every tiny upstream, one run, interleaved"
	@echo "make bench-superb lr grids of SUPERB tasks against s3prl's runner, one run, by turns"
	@echo "make bench-models  Base models against torchaudio's and transformers' HuBERT: speed, memory, share of the limit"
	@echo "make bench-base  eight Base upstreams in one run: speed, memory, growth, longest batch -> docs/benchmarks/base.md"
	@echo "make bench-quirks  what each behaviour of the published code changes, on random weights"
	@echo "make bench-espnet  ESPnet's asr_train and asr_inference against ours: training and decoding time (minutes)"
	@echo "make bench-peft ways of tuning one upstream: WER, parameters, step time, memory (embedded corpus, minutes)"
	@echo "make bench-manifests  opening, first batch, resume and memory of 1k, 100k and 1M cuts"
	@echo "make bench-loader  audio-hours per second against a plain DataLoader and ESPnet's iterator, by turns"
	@echo "make bench-bf16 whether bf16 trains as fp32 does"
	@echo "make bench-report  how long a report of 200 rows takes"
	@echo "make test-k2    our activations and transducer losses against the real k2, in an environment of its own"
	@echo "make clean      remove what the demo made (the environment stays; 'rm -r $(VENV)' removes it)"

$(STAMP): setup.cfg setup.py constraints.txt
	@echo "installing into $(VENV): about 3 minutes and 7 GB (torch, s3prl, ESPnet)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[all,dev]' --constraint constraints.txt
	@touch $@

demo: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" egs/mini/ssl1/run.sh

test: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest

test-kill: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest tests/faults tests/probe/test_kill.py -m kill

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck $$(git ls-files '*.sh' .ci/run)

typecheck: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/sslbench profile zipformer_tiny hubert_k2ssl_tiny

# for example: make bench-superb ARGS="--s3prl_root s3prl --out /tmp/bench-superb --tasks ks,ic,er,sid,pr"
bench-superb: $(STAMP)
	$(BIN)/python benchmarks/superb.py $(ARGS)

bench-manifests: $(STAMP)
	$(BIN)/python benchmarks/manifests.py $(ARGS)

# for example: make bench-loader ARGS="--librispeech /corpora/LibriSpeech --max_duration_s 200 --workers 0 4"
bench-loader: $(STAMP)
	$(BIN)/python benchmarks/loader.py $(ARGS)

# for example: make bench-models ARGS="--models zipformer_base torchaudio --batches 4x5 --rounds 2"
bench-models: $(STAMP)
	$(BIN)/python benchmarks/models.py $(ARGS)

# for example: make bench-base ARGS="--models zipformer_base fast_hubert_base --memory_gib 8"
bench-base: $(STAMP)
	$(BIN)/python benchmarks/base.py $(ARGS)

# with an upstream pretrained by the mini recipe; for example: make bench-espnet ARGS="--threads 1 --rounds 3"
bench-espnet: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" egs/mini/ssl1/run.sh --stop_stage 4 --upstream zipformer --baselines ""
	rm -rf build/bench-espnet
	$(BIN)/python benchmarks/espnet_asr.py --upstream zipformer_tiny --ckpt egs/mini/ssl1/exp/zipformer/upstream \
		--data egs/mini/ssl1/data/manifests --out build/bench-espnet $(ARGS)

# with an upstream pretrained by the mini recipe, which is made first where it is not there
bench-peft: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" egs/mini/ssl1/run.sh --stop_stage 4 --upstream hubert_k2ssl --baselines ""
	rm -rf build/bench-peft
	$(BIN)/python benchmarks/tuning.py --upstream hubert_k2ssl_tiny --ckpt egs/mini/ssl1/exp/hubert_k2ssl/upstream \
		--data egs/mini/ssl1/data/manifests --out build/bench-peft $(ARGS)

bench-quirks: $(STAMP)
	$(BIN)/python benchmarks/quirks.py $(ARGS)

# 200 steps of tiny models: does bf16 end within the spread of five fp32 seeds?
bench-bf16: $(STAMP)
	$(BIN)/python benchmarks/bf16.py $(ARGS)

bench-report: $(STAMP)
	$(BIN)/python benchmarks/report.py $(ARGS)

# k2's newest release on PyPI is for Python 3.10 and torch 1.13.1. The code under test runs from the checkout.
PYTHON310 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10) $(shell command -v python3.10) python3.10)
VENV_K2 ?= .venv-k2
$(VENV_K2)/.installed: requirements-k2.txt
	@echo "installing k2 into $(VENV_K2): about 2 minutes and 3.5 GB (torch 1.13.1 with CUDA libraries)"
	@"$(PYTHON310)" -c 'import sys; assert sys.version_info[:2] == (3, 10)' || \
		{ echo "test-k2: needs Python 3.10; name one with PYTHON310=/path/to/python3.10"; exit 2; }
	"$(PYTHON310)" -m venv $(VENV_K2)
	$(VENV_K2)/bin/pip install --quiet --disable-pip-version-check --requirement requirements-k2.txt
	@touch $@

# the import fails aloud; the tests would only be skipped
test-k2: $(VENV_K2)/.installed
	$(VENV_K2)/bin/python -c 'import k2'
	PYTHONPATH=. $(VENV_K2)/bin/python -m pytest -p no:cacheprovider tests/with_k2 tests/parity/test_rnnt_loss.py

clean:
	rm -rf egs/mini/*/data egs/mini/*/exp egs/mini/*/results egs/mini/*/report build
