"""The upstream contract, measured point by point on synthetic clips.

Frame counts matter because s3prl stops on clips whose count is off (S3PRLUpstream._match_length), equal
layers because every probe stacks them, and padding invariance because otherwise a clip's features, and
the score, depend on what it was batched with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

PADDING_LIMIT = 1e-4
GRADIENT_LIMIT = 0.5
SHORT_SAMPLES = 3000
LONG_SAMPLES = (8000, 15999, 16000, 16001, 48123, 80000)
# (B,) lengths in samples: like with like, very unlike, around one frame, one sample
MIXES = ((16000, 7000, 400), (3000, 2999, 161, 1), (48000, 800), (5000, 4999, 4801), (12000, 11680, 321, 320))


@dataclass(frozen=True)
class Point:
    """One point of the contract."""

    name: str
    ok: bool
    measured: float | str
    limit: float | str
    note: str


def check(build: Callable[[bool], nn.Module], every_length_alone: bool = False) -> list[Point]:
    """Hold an upstream against the contract.

    Args:
        build: called with `frozen`; returns the upstream.
        every_length_alone: run each length of 1…3000 samples by itself instead of the critical ones.

    Returns:
        The points; one whose measurement raised is a breach that says what was raised.
    """
    model = build(True)
    probe = _Probe(model)
    points = [
        _guard("downsample_rate", "int > 0", probe.downsample_rate),
        _guard("layers", "constant", probe.layers),
        _guard("frames", 0, lambda: probe.frames(every_length_alone)),
        _guard("finite", 0, probe.finite),
        _guard("padding", PADDING_LIMIT, probe.padding),
        _guard("determinism", 0, probe.determinism),
        _guard("frozen", 0, probe.frozen),
        _guard("gradients", GRADIENT_LIMIT, lambda: gradients(build(False))),
    ]
    return points


def as_dict(name: str, points: list[Point]) -> dict[str, Any]:
    """The machine-readable form: upstream, ok, points."""
    return {"upstream": name, "ok": all(point.ok for point in points), "points": [asdict(p) for p in points]}


def _guard(name: str, limit: float | str, measure: Callable[[], Point]) -> Point:
    try:
        return measure()
    except Exception as error:  # whatever an upstream raises is the finding
        return Point(name, False, "raised", limit, f"{type(error).__name__}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no message").splitlines()[0][:160]


def clip(samples: int) -> torch.Tensor:
    """(T,) noise of speech-like level, the same for the same length."""
    return torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1


class _Probe:
    """Measurements on one frozen upstream."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def states(self, wavs: list[torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad():
            states: list[torch.Tensor] = list(self.model(wavs)["hidden_states"])
        return states

    def stride(self) -> int:
        rates: Any = self.model.get_downsample_rates
        return int(rates("hidden_states"))

    def expected(self, samples: int) -> int:
        return math.ceil(samples / self.stride())

    def downsample_rate(self) -> Point:
        call: Any = self.model.get_downsample_rates
        rates = [call(key) for key in ("hidden_states", "last_hidden_state")]
        emitted = 80_000 / self.states([clip(80_000)])[0].shape[1]
        fits = abs(emitted / rates[0] - 1) < 0.02
        ok = all(type(rate) is int and rate > 0 and rate == rates[0] for rate in rates) and fits
        return Point("downsample_rate", ok, rates[0], "int > 0", f"samples per frame; emitted {emitted:.1f}")

    def layers(self) -> Point:
        seen, uneven = set(), 0
        for wavs in ([clip(16_000)], [clip(900), clip(5000)], [clip(40_000), clip(1000)]):
            states = self.states(wavs)
            seen.add((len(states), states[0].shape[-1]))
            uneven += len({tuple(state.shape) for state in states}) != 1
        shapes = ", ".join(f"{count} x {width}" for count, width in sorted(seen))
        note = f"layers x width; {uneven} of 3 batches have unequal layers"
        return Point("layers", len(seen) == 1 and uneven == 0, shapes, "constant", note)

    def frames(self, every_length_alone: bool) -> Point:
        """Alone: the lengths at which a count can tip, and long ones. Batched: every length once."""
        alone = range(1, SHORT_SAMPLES + 1) if every_length_alone else sorted(critical_lengths(self.stride()))
        wrong: dict[int, str] = {}
        for samples in [*alone, *LONG_SAMPLES]:
            self._count([samples], wrong)
        for first in range(1, SHORT_SAMPLES + 1, 40):
            self._count(list(range(first, min(first + 40, SHORT_SAMPLES + 1))), wrong)
        note = f"wrong lengths; {len(alone) + len(LONG_SAMPLES)} alone, 1…{SHORT_SAMPLES} in batches"
        if wrong:
            samples, what = next(iter(sorted(wrong.items())))
            note += f"; at {_ranges(wrong)} samples; first: {what} at {samples}"
        return Point("frames", not wrong, len(wrong), 0, note)

    def _count(self, lengths: list[int], wrong: dict[int, str]) -> None:
        expected = self.expected(max(lengths))
        try:
            states = self.states([clip(samples) for samples in lengths])
        except Exception as error:
            wrong[max(lengths)] = f"{type(error).__name__}: {_first_line(error)}"
            return
        counts = {state.shape[1] for state in states}
        if not _finite(states):
            wrong[max(lengths)] = "NaN or infinity"
        elif counts != {expected}:
            wrong[max(lengths)] = f"{'/'.join(map(str, sorted(counts)))} frames, not {expected}"

    def finite(self) -> Point:
        noise = clip(16_000)
        inputs = {
            "silence": torch.zeros(16_000),
            "full scale": noise.sign(),
            "very quiet": noise * 1e-6,
            "constant": torch.full((16_000,), 0.5),
            "one impulse": torch.eye(1, 16_000)[0],
        }
        bad = [name for name, wav in inputs.items() if not _finite(self.states([wav]))]
        note = "inputs with NaN or infinity" + (f": {', '.join(bad)}" if bad else f", of {len(inputs)} kinds")
        return Point("finite", not bad, len(bad), 0, note)

    def padding(self) -> Point:
        worst, where, raised = 0.0, "", []
        for lengths in MIXES:
            try:
                together = self.states([clip(samples) for samples in lengths])
                for row, samples in enumerate(lengths):
                    deviation = self._deviation(self.states([clip(samples)]), together, row, samples)
                    if deviation > worst:
                        worst, where = deviation, f"; worst: {samples} samples beside {max(lengths)}"
            except Exception as error:
                raised.append(f"{list(lengths)} raised {type(error).__name__}: {_first_line(error)}")
        note = f"largest difference alone against batched, {len(MIXES)} mixes{where}"
        note += "".join(f"; {text}" for text in raised[:1])
        return Point("padding", worst <= PADDING_LIMIT and not raised, worst, PADDING_LIMIT, note)

    def _deviation(
        self, alone: list[torch.Tensor], together: list[torch.Tensor], row: int, samples: int
    ) -> float:
        """Largest absolute difference over valid frames, relative where a layer's values exceed 1."""
        worst = 0.0
        for one, many in zip(alone, together, strict=True):
            frames = min(self.expected(samples), one.shape[1])
            valid = one[0, :frames].double()
            scale = max(1.0, float(valid.square().mean().sqrt()))
            worst = max(worst, float((valid - many[row, :frames].double()).abs().max()) / scale)
        return worst

    def determinism(self) -> Point:
        wavs = [clip(9000), clip(4000)]
        first, again = self.states(wavs), self.states(wavs)
        worst = max(float((a - b).abs().max()) for a, b in zip(first, again, strict=True))
        return Point("determinism", worst == 0, worst, 0, "largest difference between two runs")

    def frozen(self) -> Point:
        """A host model's `train()` and `requires_grad` must change nothing."""
        wavs = [clip(9000), clip(4000)]
        before = self.states(wavs)
        nn.ModuleList([self.model]).train()
        runs = [self.states(wavs) for _ in range(3)]  # dropout and layer skips differ between runs
        worst = max(float((a - b).abs().max()) for run in runs for a, b in zip(before, run, strict=True))
        training = sum(module.training for module in self.model.modules())
        learning = sum(parameter.requires_grad for parameter in self.model.parameters())
        self.model.eval()
        note = (
            f"largest change after train(); {training} modules in training mode, {learning} parameters learn"
        )
        return Point("frozen", worst == 0 and not training and not learning, worst, 0, note)


def gradients(model: nn.Module) -> Point:
    """When not frozen, gradients reach the input and most parameters (pretraining heads get none)."""
    model.eval()  # layer skips would cut some off
    wavs = [clip(9000).requires_grad_(), clip(6000).requires_grad_()]
    states = model(wavs)["hidden_states"]
    generator = torch.Generator().manual_seed(0)
    loss = sum((state * torch.randn(state.shape, generator=generator)).sum() for state in states)
    if isinstance(loss, torch.Tensor):
        loss.backward()
    at_input = all(wav.grad is not None and _alive(wav.grad) for wav in wavs)
    total = sum(parameter.numel() for parameter in model.parameters())
    reached = sum(p.numel() for p in model.parameters() if p.grad is not None and _alive(p.grad))
    share = reached / total if total else 1.0
    note = "share of parameters reached" if total else "no parameters"
    note += "; the input is reached" if at_input else "; the input is NOT reached"
    return Point("gradients", at_input and share > GRADIENT_LIMIT, share, GRADIENT_LIMIT, note)


def _finite(states: list[torch.Tensor]) -> bool:
    return all(bool(state.isfinite().all()) for state in states)


def _alive(grad: torch.Tensor) -> bool:
    return bool(grad.isfinite().all()) and bool(grad.any())


def critical_lengths(stride: int) -> set[int]:
    """Lengths of 1…3000 samples where frame counts tip, and every 29th.

    A stack of unpadded convolutions tips at window + k·stride (windows: 400 for the wav2vec 2.0 front end
    and a 25 ms fbank), the contract at k·stride.
    """
    edges = {base + k * stride for base in (0, 80, 400) for k in range(SHORT_SAMPLES // stride + 1)}
    near = {edge + offset for edge in edges for offset in (-1, 0, 1, 2)}
    return {n for n in near | set(range(1, SHORT_SAMPLES + 1, 29)) if 1 <= n <= SHORT_SAMPLES}


def _ranges(lengths: Iterable[int]) -> str:
    """The first few as `1-399, 961`."""
    runs: list[list[int]] = []
    for length in sorted(lengths):
        if runs and length == runs[-1][1] + 1:
            runs[-1][1] = length
        else:
            runs.append([length, length])
    text = [f"{first}-{last}" if last > first else str(first) for first, last in runs]
    return ", ".join(text[:6]) + (", …" if len(text) > 6 else "")
