"""The page: one file, no network, no script."""

from __future__ import annotations

from importlib import resources

from sslbench.errors import SslbenchError
from sslbench.report import markdown, numbers, plots, published
from sslbench.report.content import Content
from sslbench.report.growth import growth_figures
from sslbench.report.paired import p_text
from sslbench.report.schema import ResultRow
from sslbench.report.strips import strips
from sslbench.report.view import MARKS

NEEDS = "the page needs jinja2 and matplotlib; install them with: pip install 'sslbench[report]'"


def check_libraries() -> None:
    """Raise `SslbenchError` when jinja2 or matplotlib is missing."""
    try:
        import jinja2  # noqa: F401 (asked for here, so that the message can name it)
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SslbenchError(f"report: {NEEDS} ({error})") from None


def page(content: Content) -> str:
    """Render the HTML. Raises `SslbenchError` when jinja2 or matplotlib is missing."""
    check_libraries()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sslbench.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["p_text"] = p_text
    style = resources.files("sslbench.report.templates").joinpath("page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html.j2").render(
        content=content,
        summary=content.summary,
        marks=MARKS,
        style=style,
        trade_offs=plots.trade_offs(content.summary),
        growth=growth_figures(content.summary),
        dots=plots.dots(content.summary),
        scores_at_once=strips("All scores at once", content.summary, content.summary.quality),
        costs_at_once=strips("All costs at once", content.summary, content.summary.costs, log=True),
        curves=plots.curve_figures(content.curves),
        layers=plots.layer_weights(content.layer_weights),
        tuning_header=markdown.TUNING_HEADER,
        tuning=markdown.tuning_costs(content.rows),
        every_header=markdown.EVERY_HEADER,
        every=markdown.every_figure(content.rows),
        flags=markdown.flags(content.rows),
        provenance_header=markdown.PROVENANCE_HEADER,
        provenance=markdown.provenance(content.rows),
        published=published.tables().values(),
        shared=shared_facts(content.rows),
        subtitle=subtitle(content.rows),
        absent=numbers.ABSENT,
    )


def subtitle(rows: list[ResultRow]) -> str:
    """How much there is, and from when."""
    systems = len({row.system for row in rows})
    evaluations = len({row.evaluation for row in rows})
    days = sorted({row.provenance.created_utc[:10] for row in rows})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    plural = "" if systems == 1 else "s"
    return f"{systems} system{plural}, {evaluations} evaluation{'' if evaluations == 1 else 's'}, {when}"


def shared_facts(rows: list[ResultRow]) -> list[tuple[str, str]]:
    """(name, value) of what rows share; up to four variants where they differ, and an ellipsis for more."""
    stamps = [row.provenance for row in rows]
    facts: dict[str, set[str]] = {
        "Commit": {stamp.commit + (" + uncommitted changes" if stamp.dirty else "") for stamp in stamps},
        "Processor": {f"{stamp.cpu}, {stamp.cpu_count} logical cores" for stamp in stamps},
        "GPU": {stamp.gpu for stamp in stamps},
        "Torch threads": {str(stamp.torch_threads) for stamp in stamps},
        "System": {stamp.platform for stamp in stamps},
        "Python": {stamp.python for stamp in stamps},
        "Packages": {", ".join(f"{k} {v}" for k, v in stamp.packages.items()) for stamp in stamps},
        "Seeds": {str(stamp.seed) for stamp in stamps},
        "Tier": {row.tier for row in rows},
        "Schema": {str(row.schema_version) for row in rows},
    }
    return [
        (name, "; ".join(sorted(found)[:4]) + (" …" if len(found) > 4 else ""))
        for name, found in facts.items()
    ]
