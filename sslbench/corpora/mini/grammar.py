"""What the speakers of the embedded corpus say: a template grammar with labels for every task."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from dataclasses import dataclass, field

from sslbench.corpora.mini import vocabulary as words

KINDS = ("sentence", "digits", "word", "intent", "slots", "carrier")
# Sixty utterances hold 24 sentences, 6 digit strings, 12 words, 8 intents, 6 slot sentences, 4 carriers,
# and every ten hold some of each, so that short presets are balanced too.
_CYCLE = (
    "sentence",
    "word",
    "intent",
    "sentence",
    "digits",
    "sentence",
    "slots",
    "word",
    "sentence",
    "carrier",
)
_INTENT_INSTEAD = (19, 49)

# Texts are dealt to splits by their hash, so no split's text of these kinds is another's.
SPLIT_KINDS = ("sentence", "digits", "slots", "carrier")
_BUCKETS = {
    "test-clean": (0, 1),
    "test-other": (2, 3),
    "dev-clean": (4, 5),
    "train-clean-100": tuple(range(6, 20)),
}
EMOTIONS = ("neutral", "happy", "angry", "sad")

_SENTENCES = (
    "the {adj} {person} {moved} {adverb} {prep} the {place}",
    "the {adj} {person} {moved} {prep} the {place} and the {person} {moved} {adverb}",
    "the {person} {did} the {adj} {thing} {prep} the {place}",
    "{name} {did} some {food} and the {person} {did} the {adj} {thing}",
    "every {adj} {animal} {moved} {adverb} when the {person} {did} the {thing}",
    "there was a {adj} {thing} in the {place} when {name} {moved} {adverb}",
    "{time} the {person} will {will} the {adj} {animal}",
    "{name} and {name} will {will} the {thing} {time}",
    "my {person} {did} this {adj} {animal} {prep} the {place}",
    "nobody {did} the {food} because the {adj} {person} {moved} {adverb}",
    "she {did} your {adj} {thing} but he {did} our {animal}",
    "they {moved} {adverb} until the {adj} {animal} {did} the {food}",
)
_SLOTS = {
    "adj": words.ADJECTIVES, "person": words.PERSONS, "moved": words.MOVED, "adverb": words.ADVERBS,
    "prep": words.PREPOSITIONS, "place": words.PLACES, "did": words.DID, "thing": words.THINGS,
    "name": words.NAMES, "food": words.FOODS, "animal": words.ANIMALS, "will": words.WILL_DO,
    "time": words.TIMES,
}  # fmt: skip

_CARRIERS = (
    "please say the word {item} again",
    "the next word is {item}",
    "i heard {item} and then {item}",
    "did you say {item} or {item}",
)

# (action, object, location, wordings), after the label scheme of Fluent Speech Commands
_INTENTS: list[tuple[str, str, str, tuple[str, ...]]] = [
    ("activate", "music", "none", ("play some music", "start the music")),
    ("deactivate", "music", "none", ("stop the music", "turn the music off")),
    ("activate", "lamp", "none", ("turn on the lamp", "switch the lamp on")),
    ("deactivate", "lamp", "none", ("turn off the lamp", "switch the lamp off")),
    ("increase", "volume", "none", ("turn the volume up", "make it louder")),
    ("decrease", "volume", "none", ("turn the volume down", "make the music quieter")),
    ("bring", "newspaper", "none", ("bring me the newspaper", "get me my newspaper")),
    ("bring", "juice", "none", ("bring me some juice", "get me the juice")),
    ("bring", "shoes", "none", ("bring my shoes", "fetch my shoes")),
    ("change language", "english", "none", ("set the language to english", "switch to english")),
    ("change language", "german", "none", ("set the language to german", "switch to german")),
]
for _place in ("kitchen", "bedroom", "washroom"):
    _INTENTS += [
        ("activate", "lights", _place, (f"turn on the {_place} lights", f"lights on in the {_place}")),
        ("deactivate", "lights", _place, (f"turn off the {_place} lights", f"lights off in the {_place}")),
        ("increase", "heat", _place, (f"turn up the heat in the {_place}", f"make the {_place} warmer")),
        ("decrease", "heat", _place, (f"turn down the heat in the {_place}", f"make the {_place} colder")),
    ]

# the seven intents of SNIPS; `[slot]` draws a value that is tagged B-slot I-slot …
_SNIPS = {
    "AddToPlaylist": ("add [entity_name] to my [playlist] playlist", "put [artist] on the [playlist] list"),
    "BookRestaurant": ("book a table for [party_size_number] at a [restaurant_type] in [city]",
                       "find a [restaurant_type] that serves [served_dish] in [city] [timeRange]"),
    "GetWeather": ("what is the weather in [city] [timeRange]",
                   "will there be [condition_description] in [city] on [timeRange]"),
    "PlayMusic": ("play a song by [artist]", "play some [genre] music by [artist]"),
    "RateBook": ("give [object_name] [rating_value] stars", "rate [object_name] [rating_value] points"),
    "SearchCreativeWork": ("find the movie called [object_name]", "show me the book [object_name]"),
    "SearchScreeningEvent": ("when is [movie_name] playing in [city]", "is [movie_name] showing [timeRange]"),
}  # fmt: skip
_SNIPS_VALUES = {
    "entity_name": words.TITLES, "object_name": words.TITLES, "movie_name": words.TITLES,
    "playlist": words.PLAYLISTS, "artist": words.ARTISTS, "party_size_number": words.PARTIES,
    "restaurant_type": words.RESTAURANTS, "served_dish": words.MEALS, "city": words.CITIES,
    "timeRange": words.DAYS, "condition_description": words.WEATHERS, "genre": words.GENRES,
    "rating_value": words.RATINGS,
}  # fmt: skip


@dataclass(frozen=True)
class Utterance:
    """One text with its labels."""

    kind: str
    text: str  # lower case, single spaces
    labels: dict[str, str] = field(default_factory=dict)
    emotion: str = "neutral"


def _bucket(text: str, count: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % count


def belongs(kind: str, text: str, split: str) -> bool:
    """Whether a text may be spoken in a split.

    One in five pairs of an adjective and its noun is kept for the test splits, so that tests hold word
    pairs that training does not.
    """
    if kind not in SPLIT_KINDS:
        return True
    if _bucket(text, 20) not in _BUCKETS[split]:
        return False
    if kind != "sentence" or split.startswith("test"):
        return True
    spoken = text.split()
    adjectives = set(words.ADJECTIVES)
    pairs = [f"{a} {b}" for a, b in itertools.pairwise(spoken) if a in adjectives]
    return all(_bucket(pair, 5) for pair in pairs)


def _fill(template: str, draw: random.Random) -> str:
    text = re.sub(r"\{(\w+)\}", lambda match: draw.choice(_SLOTS[match[1]]), template)
    return re.sub(r"\ba (?=[aeiou]|honest)", "an ", text)


def _sentence(draw: random.Random) -> Utterance:
    return Utterance("sentence", _fill(draw.choice(_SENTENCES), draw))


def _digits(draw: random.Random) -> Utterance:
    return Utterance("digits", " ".join(draw.choice(words.DIGITS) for _ in range(draw.randint(3, 7))))


def _carrier(draw: random.Random) -> Utterance:
    items = words.THINGS + words.ANIMALS + words.FOODS + words.PLACES
    return Utterance("carrier", re.sub(r"\{item\}", lambda _: draw.choice(items), draw.choice(_CARRIERS)))


def _slot_sentence(draw: random.Random) -> Utterance:
    intent = draw.choice(sorted(_SNIPS))
    spoken: list[str] = []
    tags: list[str] = []
    for token in draw.choice(_SNIPS[intent]).split():
        if not token.startswith("["):
            spoken.append(token)
            tags.append("O")
            continue
        slot = token.strip("[]")
        value = draw.choice(_SNIPS_VALUES[slot]).split()
        spoken += value
        tags += [f"B-{slot}"] + [f"I-{slot}"] * (len(value) - 1)
    return Utterance("slots", " ".join(spoken), {"slots": " ".join(tags), "intent": intent})


def _word(number: int) -> Utterance:
    # known and unknown words in turn, every word equally often over speakers
    unknown = number % 2
    pool = words.OTHER_WORDS if unknown else words.KEYWORDS
    word = pool[number // 2 % len(pool)]
    return Utterance("word", word, {"keyword": "_unknown_" if unknown else word})


def _intent(number: int, draw: random.Random) -> Utterance:
    action, thing, location, wordings = _INTENTS[number % len(_INTENTS)]
    labels = {"action": action, "object": thing, "location": location}
    return Utterance("intent", draw.choice(wordings), labels)


def utterances(speaker: int, split: str, count: int, seed: int) -> list[Utterance]:
    """What one speaker says, in order.

    Args:
        speaker: the speaker's number; speakers take turns through words, intents and emotions.
        split: decides which texts are allowed.
        count: how many utterances.
        seed: the corpus's seed.
    """
    draw = random.Random(f"text {seed} {speaker}")
    free = {"sentence": _sentence, "digits": _digits, "slots": _slot_sentence, "carrier": _carrier}
    said: list[Utterance] = []
    seen: dict[str, int] = dict.fromkeys(KINDS, 0)
    for index in range(count):
        kind = "intent" if index in _INTENT_INSTEAD else _CYCLE[index % len(_CYCLE)]
        number = seen[kind]
        seen[kind] += 1
        if kind == "word":
            said.append(_word(speaker * 6 + number))
        elif kind == "intent":
            said.append(_intent(speaker * 8 + number, draw))
        else:
            utterance = free[kind](draw)
            while not belongs(kind, utterance.text, split):
                utterance = free[kind](draw)
            emotion = EMOTIONS[(speaker + number) % 4] if kind == "sentence" else "neutral"
            said.append(Utterance(kind, utterance.text, utterance.labels, emotion))
    return said


def all_words() -> list[str]:
    """Every word the grammar can say, sorted."""
    texts = [*_SENTENCES, *_CARRIERS, *(w for *_, ws in _INTENTS for w in ws), "an"]
    texts += [wording for wordings in _SNIPS.values() for wording in wordings]
    texts = [re.sub(r"\{\w+\}|\[\w+\]", " ", text) for text in texts]
    pools = [words.DIGITS, words.KEYWORDS, words.OTHER_WORDS, *_SLOTS.values(), *_SNIPS_VALUES.values()]
    return sorted({word for text in [*texts, *(t for pool in pools for t in pool)] for word in text.split()})
