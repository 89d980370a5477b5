"""Speaker identification (SID): mean over time, linear classifier, accuracy."""

from __future__ import annotations

from pathlib import Path

from lhotse.cut import Cut

from sslbench.downstream.sid.data import official_parts, pooled_cuts, split_speakers
from sslbench.errors import SslbenchError
from sslbench.probe.files import EXACT, is_prepared
from sslbench.probe.task import Example, Parts
from sslbench.probe.utterance import UtteranceTask


class Task(UtteranceTask):
    """SID as SUPERB defines it, on any corpus with speakers."""

    name = "sid"
    config_path = Path(__file__).with_name("config.yaml")

    def prepare(self, root: Path) -> Parts:
        if is_prepared(root):
            if self.settings[EXACT]:
                raise SslbenchError(
                    f"sid: {root}: tier 'full' takes no other split than VoxCeleb1's, in its official "
                    "layout (--roots sid=VOXCELEB1); or use --tier short"
                )
            parts = split_speakers(pooled_cuts(root, self.settings["pool"]))
        else:
            parts = official_parts(root)
        self.slots = [sorted({_speaker(cut) for cut in parts["train"]})]
        index = {label: number for number, label in enumerate(self.slots[0])}
        return {
            part: [Example(cut, (index.get(_speaker(cut), 0),), _speaker(cut), _speaker(cut)) for cut in cuts]
            for part, cuts in parts.items()
        }


def _speaker(cut: Cut) -> str:
    return str(cut.supervisions[0].speaker)
