# Every target makes its own environment when needed; nothing else has to be installed first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.sslbench-installed

.PHONY: help demo test lint typecheck bench bench-models clean
help:
	@echo "make demo       embedded corpus -> pretraining -> evaluation -> HTML report (minutes, two CPU cores)"
	@echo "make test       the test suite"
	@echo "make lint       ruff and shellcheck"
	@echo "make typecheck  strict mypy"
	@echo "make bench      cost of every tiny upstream, one run, interleaved"
	@echo "make bench-models  Base models against torchaudio's and transformers' HuBERT: speed, memory, share of the limit"
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

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck $$(git ls-files '*.sh' .ci/run)

typecheck: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/sslbench profile zipformer_tiny hubert_k2ssl_tiny

# for example: make bench-models ARGS="--models zipformer_base torchaudio --batches 4x5 --rounds 2"
bench-models: $(STAMP)
	$(BIN)/python benchmarks/models.py $(ARGS)

clean:
	rm -rf egs/*/*/data egs/*/*/exp egs/*/*/results egs/*/*/report build *.egg-info
