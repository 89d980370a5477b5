"""ESPnet's `asr_train` with our upstreams and encoders.

Run as `python -m sslbench.integrations.espnet.asr_train ARGS`, or `sslbench espnet asr_train ARGS`.

Registration is at module level: ESPnet spawns one process per GPU, which imports this file again but
does not run what stands below `__main__`.
"""

from __future__ import annotations

import sslbench

sslbench.register()

from espnet2.bin.asr_train import main  # noqa: E402
from espnet2.tasks.asr import encoder_choices  # noqa: E402

from sslbench.integrations.espnet.encoder import register  # noqa: E402

register(encoder_choices)

if __name__ == "__main__":
    main()
