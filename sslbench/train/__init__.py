"""One engine for every training here: pretraining and ASR fine-tuning are two jobs for it.

`job.py` says what a job brings; `loop.py` is the loop; `update.py` one update of it. Whatever holds for one
job holds for all: exact resume, stops that save, several processes, checks before every update, one log.
"""
