"""eSpeak's phone mnemonics as the 39 phones of ARPAbet (CMUdict's set) plus SIL, without stress."""

from __future__ import annotations

import itertools

from sslbench.errors import SslbenchError

_PHONES = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W Y Z ZH"
)
ARPABET = tuple(_PHONES.split(" "))
SILENCE = "SIL"

# `mnemonic=PHONES`, found by synthesizing all 7,230 word types of Mini LibriSpeech
_VOWELS = """a=AE aa=AE a#=AH A:=AA A@=AA,R A#=AA 0=AA 0#=AA O=AO O:=AO O2=AA 02=AO
O@=AO,R o@=AO,R oU=OW oU#=OW
e@=EH,R i@=IY,AH i@3=IH,R U@=UH,R 3:=ER 3=ER @=AH @2=AH @5=AH @-=AH @L=AH,L V=AH I=IH I2=IH I#=IH i=IY i:=IY
E=EH E2=EH E#=EH eI=EY aI=AY aI@=AY,AH aI3=AY,ER OI=OY aU=AW aU@=AW,ER u:=UW u=UW U=UH VR=AH,R IR=IH,R"""
_CONSONANTS = """t=T t2=T t#=T *=T d=D d#=D p=P b=B k=K g=G f=F v=V s=S z=Z z#=Z T=TH D=DH S=SH Z=ZH
tS=CH dZ=JH h=HH m=M n=N N=NG l=L l^=L r=R r-=R w=W j=Y x=K n-=AH,N"""
_OTHERS = """?= -= _=SIL _:=SIL _!=SIL _|="""
_STRESS_MARKS = "',%=|;"


def _table(*texts: str) -> dict[str, tuple[str, ...]]:
    pairs = (item.rsplit("=", 1) for text in texts for item in text.split())
    return {mnemonic: tuple(p for p in phones.split(",") if p) for mnemonic, phones in pairs} | {"": ()}


_MAP = _table(_VOWELS, _CONSONANTS, _OTHERS)


def to_arpabet(mnemonic: str) -> tuple[str, ...]:
    """The ARPAbet phones of one mnemonic; none for a mere mark.

    Raises:
        SslbenchError: for a mnemonic that American English text should not give.
    """
    bare = mnemonic.lstrip(_STRESS_MARKS)
    if bare not in _MAP:
        raise SslbenchError(
            f"phone mnemonic {mnemonic!r} has no ARPAbet phone; add it in corpora/mini/phones.py"
        )
    return _MAP[bare]


def align(events: list[tuple[int, str]], samples: int) -> list[tuple[str, int, int]]:
    """Turn phone events into segments that tile the recording.

    Args:
        events: `(first sample, mnemonic)`, in order.
        samples: length of the recording in samples.

    Returns:
        `(phone, first sample, end sample)`; gaps before the first event are SIL, a diphone shares its
        span equally, neighbouring SILs are one, and so are the R or L that ends a diphone and the same
        phone right behind it (the synthesizer links "four apples" with an R of its own).
    """
    starts = [min(start, samples) for start, _ in events] + [samples]
    segments: list[tuple[str, int, int]] = [(SILENCE, 0, starts[0])] if starts[0] > 0 else []
    linked = ""  # the R or L of a diphone just before
    for (_, mnemonic), (start, end) in zip(events, itertools.pairwise(starts), strict=True):
        phones = to_arpabet(mnemonic)
        if end <= start:
            continue
        before = segments[-1][0] if segments else ""
        if before and (not phones or (phones[0] in (linked, SILENCE) and phones[0] == before)):
            # a mark holds no sound of its own: its span belongs to the phone before
            segments[-1] = (before, segments[-1][1], end)
            linked = linked if not phones else ""
            continue
        phones = phones or (SILENCE,)
        edges = [start + (end - start) * k // len(phones) for k in range(len(phones) + 1)]
        segments += [
            (p, first, last) for p, (first, last) in zip(phones, itertools.pairwise(edges), strict=True)
        ]
        linked = phones[-1] if len(phones) > 1 and phones[-1] in ("R", "L") else ""
    return segments
