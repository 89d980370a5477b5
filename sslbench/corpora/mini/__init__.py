"""The embedded corpus: deterministic synthetic English, so that every recipe runs without a download.

Splits are named as in LibriSpeech and the audio lies in its layout, so official loaders read it. Speech
is made by eSpeak NG in a process of its own (extra `mini`); reports print "synthetic" beside every number.

Supervision labels (`custom`): `kind` (sentence, digits, word, intent, slots, carrier), `emotion`,
`session` (0 to 2), and by kind `keyword`; `action`, `object`, `location`; `slots` (IOB tags), `intent`.
The phone alignment tiles the cut, with SIL for silence.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench import io
from sslbench.corpora import PrepareOptions
from sslbench.errors import SslbenchError
from sslbench.progress import track

if TYPE_CHECKING:
    from lhotse import MonoCut

CORPUS = "mini"
LABEL_FILE = "mini.json"
TRAIN = "train-clean-100"
# name -> (seconds, share of the training split that it may take at most, so that subsets stay nested)
LABEL_SUBSETS = {"train-10min": (600.0, 0.25), "train-1h": (3600.0, 0.95)}


def prepare(root: Path, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Generate the audio under `root` (as far as it is missing) and its manifests in `out`.

    Args:
        root: holds `LibriSpeech/`, `lexicon.txt` and the truth files; one preset and seed per root.
        out: the manifest folder.
        options: preset `tiny`, `mini` (default) or `base`.

    Returns:
        The content of `corpus.json`.

    Raises:
        SslbenchError: synthesizer missing, unknown preset, or a root that holds another corpus.
    """
    from sslbench.corpora.mini.mixtures import SOURCES, mixture_rows
    from sslbench.corpora.mini.render import speaker_rows
    from sslbench.corpora.mini.speakers import DEFAULT_PRESET, GENERATOR_VERSION, preset, speakers

    name = options.preset or DEFAULT_PRESET
    cast = speakers(preset(name), options.seed)
    label = {"preset": name, "seed": options.seed, "generator_version": GENERATOR_VERSION}
    _claim(root, label)
    key = io.sha256_json([label, str(root.resolve()), options.limit, [speaker.key for speaker in cast]])
    with ThreadPoolExecutor(max(1, options.jobs)) as pool:
        results = pool.map(lambda speaker: speaker_rows(speaker, root), cast)
        rows = [row for rows in track(results, "mini: speakers", len(cast)) for row in rows]
    mixtures = {split: mixture_rows(rows, split, root, options.seed) for split in SOURCES}
    _write_lexicon(root / "lexicon.txt")
    done = _complete(out, key)
    if done is not None:
        print(f"mini: {len(rows)} utterances and their manifests are complete already")
        return done
    return _write(root, out, rows, mixtures, {**label, "key": key}, options)


def _claim(root: Path, label: dict[str, Any]) -> None:
    """One root holds one corpus: two presets in one LibriSpeech tree would mix in official loaders."""
    path = root / LABEL_FILE
    if path.is_file():
        held, wanted = (
            {key: value[key] for key in ("preset", "seed")} for value in (io.read_json(path), label)
        )
        if held != wanted:
            raise SslbenchError(f"{root}: holds the mini corpus {held}, not {wanted}; choose another --root")
    io.write_json(path, label)


def _complete(out: Path, key: str) -> dict[str, Any] | None:
    from sslbench.data.manifests import CORPUS_FILE, SUFFIX

    if not (out / CORPUS_FILE).is_file() or not (out / "lexicon.txt").is_file():
        return None
    facts: dict[str, Any] = io.read_json(out / CORPUS_FILE)
    whole = all((out / (split + SUFFIX)).is_file() for split in facts.get("splits", {}))
    return facts if facts.get("key") == key and whole else None


def _write_lexicon(path: Path) -> None:
    from sslbench.corpora.mini.grammar import all_words
    from sslbench.corpora.mini.render import lexicon

    if not path.is_file():
        entries = lexicon(tuple(all_words()))
        io.write_text(path, "".join(f"{word.upper()} {' '.join(entries[word])}\n" for word in entries))


def _write(
    root: Path,
    out: Path,
    rows: list[dict[str, Any]],
    mixtures: dict[str, list[dict[str, Any]]],
    facts: dict[str, Any],
    options: PrepareOptions,
) -> dict[str, Any]:
    from sslbench.corpora.mini.mixtures import mixture_cut
    from sslbench.corpora.mini.render import TRUTH_FOLDER
    from sslbench.data.manifests import write_corpus

    splits: dict[str, list[MonoCut]] = {}
    for row in rows:
        splits.setdefault(row["split"], []).append(_cut(root, row))
    splits.update(_label_subsets(splits[TRAIN]))
    for split, mixed in mixtures.items():
        splits[split] = [mixture_cut(root, row) for row in mixed]
    splits = {split: options.limited(cuts, lambda cut: cut.id) for split, cuts in splits.items()}
    io.write_text(out / "lexicon.txt", (root / "lexicon.txt").read_text(encoding="utf-8"))
    engine = io.read_json(root / TRUTH_FOLDER / f"{rows[0]['speaker']}.json")["engine"]
    facts = {**facts, "engine": engine, "pcm_sha256": pcm_hash(rows)}
    return write_corpus(out, CORPUS, splits, synthetic=True, facts=facts)


def pcm_hash(rows: Iterable[dict[str, Any]]) -> str:
    """One checksum over the decoded samples of a corpus.

    It is the same for the same preset, seed and synthesizer on Linux; other systems' C libraries have
    another `rand()`, which the synthesizer's noise uses.
    """
    lines = sorted(f"{row['id']} {row['pcm_sha256']}" for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _cut(root: Path, row: dict[str, Any]) -> MonoCut:
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment
    from lhotse.supervision import AlignmentItem

    rate = 16_000
    path = str((root / row["path"]).resolve())
    duration = row["samples"] / rate
    recording = Recording(row["id"], [AudioSource("file", [0], path)], rate, row["samples"], duration)
    phones = [AlignmentItem(p, round(a / rate, 6), round((b - a) / rate, 6)) for p, a, b in row["phones"]]
    supervision = SupervisionSegment(
        id=row["id"], recording_id=row["id"], start=0.0, duration=duration, channel=0, language="English",
        text=row["text"], speaker=row["speaker"], gender=row["gender"], custom=dict(row["labels"]),
        alignment={"phone": phones},
    )  # fmt: skip
    custom = {"pcm_sha256": row["pcm_sha256"]}
    return MonoCut(row["id"], 0.0, duration, 0, [supervision], recording=recording, custom=custom)


def _label_subsets(train: list[MonoCut]) -> dict[str, list[MonoCut]]:
    """Nested prefixes of one fixed order of the training cuts, spread over all speakers."""
    order = sorted(train, key=lambda cut: hashlib.sha256(cut.id.encode()).hexdigest())
    total_s = sum(cut.duration for cut in train)
    subsets: dict[str, list[MonoCut]] = {}
    for name, (budget_s, share) in LABEL_SUBSETS.items():
        taken: list[MonoCut] = []
        spent_s = 0.0
        for cut in order:
            if spent_s + cut.duration > min(budget_s, share * total_s):
                break
            taken.append(cut)
            spent_s += cut.duration
        subsets[name] = sorted(taken, key=lambda cut: cut.id)
    return subsets
