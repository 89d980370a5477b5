"""Foreign checkpoints to upstream checkpoints, and back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sslbench import config as configs
from sslbench import registry
from sslbench.checkpoint import UpstreamCheckpoint, load_strict
from sslbench.convert.family import Converter, Imported
from sslbench.convert.source import Source, read
from sslbench.errors import SslbenchError
from sslbench.upstreams import model_class


def convert(
    format: str,
    source: Path,
    out: Path,
    use_average: bool = False,
    model_config: Path | None = None,
    family: str | None = None,
) -> UpstreamCheckpoint:
    """Write a foreign checkpoint as an upstream checkpoint.

    Args:
        format: "k2ssl", "fairseq", "hf" or "s3prl".
        source: file, or folder for "hf".
        out: folder to write.
        use_average: k2SSL's running average instead of the last weights.
        model_config: JSON or YAML of the format's own setting names, over those stored in the checkpoint.
        family: of our models; recognised by the weights' names when not given.

    Returns:
        What was written; its card names the origin, what was left out and what was assumed.

    Raises:
        SslbenchError: unreadable, of no known family, or not fitting exactly (the keys are named).
    """
    found = read(format, source, use_average, model_config)
    name = family or _recognise(found)
    imported = _reader(name, format, source)(found)
    cls = model_class(name)
    settings = configs.build(cls.config_class, imported.config, where=f"{source}: its configuration")
    model = cls(settings)
    load_strict(model, imported.state, where=str(source))
    card: dict[str, object] = {"origin": found.origin}
    if left_out := [*found.left_out, *imported.left_out]:
        card["left_out"] = left_out
    if imported.assumed:
        card["assumed"] = imported.assumed
    made = UpstreamCheckpoint(
        name, configs.to_dict(settings), model.state_dict(), weights="imported", card=card
    )
    made.save(out)
    return made


def convert_back(source: Path, out: Path, format: str) -> tuple[UpstreamCheckpoint, list[str]]:
    """Write an upstream checkpoint in another toolkit's format.

    Returns:
        The checkpoint, and the names of tensors that the format has no place for.

    Raises:
        SslbenchError: no upstream checkpoint, or its family cannot be written in that format.
    """
    checkpoint = UpstreamCheckpoint.load(source)
    known = registry.converters()
    converter = known[checkpoint.family].load() if checkpoint.family in known else None
    if converter is None or format not in converter.writers:
        able = [entry.name for entry in known if format in entry.load().writers]
        raise SslbenchError(
            f"{source}: the {checkpoint.family} family has no form in {format}; these have: {', '.join(able)}"
        )
    if out.resolve() == source.resolve():
        raise SslbenchError(f"{out}: is the folder that is read; give another --out")
    return checkpoint, converter.writers[format](checkpoint, out)


def _recognise(source: Source) -> str:
    """The only family that knows the weights' names."""
    known = list(registry.converters())
    able = [entry for entry in known if source.format in entry.load().readers]
    found = [entry.name for entry in able if entry.load().recognises(source)]
    if len(found) == 1:
        return found[0]
    keys = list(source.state)
    shown = ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
    if not found:
        raise SslbenchError(
            f"{source.path}: its weights are of no family that is read from {source.format} "
            f"({', '.join(entry.name for entry in able)}); they are {shown}{_hf_hint(source)}"
        )
    raise SslbenchError(f"{source.path}: could be {' or '.join(found)}; name one with --family")


def _hf_hint(source: Source) -> str:
    if source.format != "hf" or "hf" not in registry.upstreams():
        return ""
    return f"; 'sslbench check hf --ckpt {source.path}' reads other encoders as they are"


def _reader(family: str, format: str, source: Path) -> Callable[[Source], Imported]:
    converter: Converter = registry.converters()[family].load()
    if format not in converter.readers:
        raise SslbenchError(
            f"{source}: the {family} family is not read from {format}; it is from "
            + ", ".join(converter.readers)
        )
    return converter.readers[format]
