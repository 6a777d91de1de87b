"""The report as one self-contained HTML page: no scripts, nothing fetched, everything escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from moonseg_jax.report.chart import chart
from moonseg_jax.report.content import CurveGroup, GallerySection, Report, Table
from moonseg_jax.report.scene import EXTRA, HIT, MISSED, OVERLAY_COLOURS, scene_card
from moonseg_jax.report.style import STYLE

SHOWN_CURVES = 9
"""Further curves of a stage are folded away."""

# The browser itself then refuses anything from outside, and scripts.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_report(report: Report, path: Path) -> Path:
    """Writes the page.

    Args:
      report: What to show.
      path: The file, `report.html`; its folder exists.

    Returns:
      The path.
    """
    path.write_text(page(report), encoding="utf-8")
    return path


def page(report: Report) -> str:
    """The whole page as HTML."""
    sections = [
        ("summary", "Summary", table_html(report.summary) if report.summary else ""),
        ("gallery", "Held-out scenes", _gallery(report.gallery)),
        ("curves", "Curves", "".join(_curves(group) for group in report.curves)),
        ("baselines", "Baselines", table_html(report.baselines) if report.baselines else ""),
        ("made", "How it was made", _made(report)),
    ]
    return document(report.title, report.subtitle, sections)


def document(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """A page around HTML that is there already.

    Args:
      title: of the page.
      subtitle: beneath it.
      sections: anchor, heading and body (escaped HTML) of each; those without a body are left out.
    """
    present = [(name, heading, body) for name, heading, body in sections if body]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in present)
    bodies = "".join(f'<section id="{name}"><h2>{heading}</h2>{body}</section>' for name, heading, body in present)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p><nav>{links}</nav></header>"
        f"<main>{bodies}</main></body></html>\n"
    )


def table_html(table: Table) -> str:
    """A table as escaped HTML."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    )
    caption = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    body = f"{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody>"
    return f'<div class="wide"><table>{body}</table></div>{note}'


def _curves(group: CurveGroup) -> str:
    charts = [chart(curve) for curve in group.curves]
    shown, folded = charts[:SHOWN_CURVES], charts[SHOWN_CURVES:]
    more = (
        f'<details><summary>{len(folded)} more</summary><div class="charts">{"".join(folded)}</div></details>'
        if folded
        else ""
    )
    return f'<h3>{escape(group.title)}</h3><div class="charts">{"".join(shown)}</div>{more}'


def _gallery(sections: tuple[GallerySection, ...]) -> str:
    if not sections:
        return ""
    bodies = "".join(
        f'<h3>{escape(section.title)}</h3><p class="note">{escape(section.note)}</p>'
        f'<div class="scenes">{"".join(scene_card(item) for item in section.items)}</div>'
        for section in sections
    )
    return overlay_legend() + bodies


def overlay_legend() -> str:
    """What the colours of overlays mean."""
    swatches = "".join(
        f'<span class="key" style="--c:rgb{OVERLAY_COLOURS[index][:3]}">{meaning}</span>'
        for index, meaning in ((HIT, "right"), (EXTRA, "too much"), (MISSED, "missed"))
    )
    return f'<div class="legend">{swatches}</div>'


def _made(report: Report) -> str:
    command = f"<pre>{escape(report.command)}</pre>" if report.command else ""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.facts)
    config = f"<details><summary>config</summary><pre>{escape(report.config)}</pre></details>" if report.config else ""
    return command + (f"<dl>{facts}</dl>" if facts else "") + config
