"""`sslbench extract`: every layer's features of audio files, in one npz."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sslbench.cli._parser import Parser
from sslbench.errors import AudioError, SslbenchError

EPILOG = """examples:
  sslbench extract zipformer --ckpt exp/upstream a.wav b.flac --out features.npz
  sslbench extract hubert_k2ssl_tiny a.wav --resample --out features.npz
  echo 'features: stitched' > stitched.yaml
  sslbench extract zipformer a.wav --ckpt exp/upstream --model_config stitched.yaml --out features.npz
  sslbench extract hf a.wav --ckpt wavlm-base-plus --out features.npz      a Hugging Face folder
  python -c "import numpy as np; print(np.load('features.npz')['a.layer00'].shape)"
"""


def main(argv: list[str]) -> int:
    """Write arrays NAME.layerNN of shape (F, D), float32. Returns 1 when some files were skipped."""
    args = _parse(argv)
    names = _array_names(args.wavs)
    import numpy as np
    import torch

    from sslbench.audio import load_audio
    from sslbench.device import pick_device
    from sslbench.io import atomic_path
    from sslbench.progress import track
    from sslbench.upstreams import load_upstream

    device = pick_device(args.device)
    options = {"model_config": args.model_config} if args.model_config else {}
    upstream: Any = load_upstream(args.upstream, ckpt=args.ckpt, **options).to(device)
    arrays: dict[str, Any] = {}
    skipped = 0
    for path, name in track(list(zip(args.wavs, names, strict=True)), "extract", len(names)):
        try:
            wav = load_audio(path, resample=args.resample)
        except AudioError as error:
            skipped += 1
            print(f"sslbench extract: skipped {error}", file=sys.stderr)
            continue
        with torch.no_grad():
            for layer, states in enumerate(upstream([wav.to(device)])["hidden_states"]):
                arrays[f"{name}.layer{layer:02d}"] = states[0].float().cpu().numpy()  # (F, D)
    if not arrays:
        raise SslbenchError(f"extract: none of the {len(names)} files could be read; nothing was written")
    with atomic_path(args.out) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
    done = len(names) - skipped
    print(f"{args.out}: {len(arrays) // done} layers of {done} files ({upstream.weights} weights)")
    if skipped:
        print(f"sslbench extract: {skipped} of {len(names)} files were skipped", file=sys.stderr)
    return 1 if skipped else 0


def _array_names(paths: list[str]) -> list[str]:
    """File names without their suffix. Raises `SslbenchError` when two files would share one."""
    names = [Path(path).stem for path in paths]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SslbenchError(f"extract: several files are called {twice[0]!r}; arrays are named after files")
    return names


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="sslbench extract",
        description="Every layer's features, as arrays NAME.layer00, NAME.layer01, … (frames, dims).",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("upstream", help="registered name, or any name of s3prl")
    parser.add_argument("wavs", nargs="+", metavar="WAV", help="audio files, 16 kHz")
    parser.add_argument("--ckpt", help="checkpoint (folder for ours); random weights without one")
    parser.add_argument("--model_config", help="YAML of random weights, or of changes to those of --ckpt")
    parser.add_argument("--out", required=True, metavar="F.npz", help="file to write")
    parser.add_argument("--resample", action="store_true", help="convert other sample rates to 16 kHz")
    parser.add_argument(
        "--device", default="auto", help="auto (default: a GPU where there is one), cpu, cuda or cuda:N"
    )
    return parser.parse_args(argv)
