"""The report as one self-contained HTML page: nothing fetched, everything escaped, no script but its own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from moonseg_jax.report.chart import chart
from moonseg_jax.report.content import CurveGroup, CurvePart, Report, Table
from moonseg_jax.report.gallery import gallery, paired_gallery
from moonseg_jax.report.groups import groups_html
from moonseg_jax.report.scene import EXTRA, HIT, MISSED, OVERLAY_COLOURS
from moonseg_jax.report.script import SCRIPT, digest
from moonseg_jax.report.style import STYLE
from moonseg_jax.report.time_chart import time_html

SHOWN_CURVES = 6
"""Further curves of a kind are folded away."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""The browser itself then refuses anything from outside; a page's own script is added by its hash."""

DIALOG = (
    '<dialog aria-label="one scene, enlarged"><button type="button">Close</button><div class="enlarged"></div></dialog>'
)


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
    scenes = paired_gallery(report.paired) if report.paired else gallery(report.gallery)
    sections = [
        ("summary", "Summary", "".join(map(table_html, report.summary))),
        ("gallery", "Held-out scenes", overlay_legend() + scenes if scenes else ""),
        ("groups", "Groups", "".join(overlay_legend() + groups_html(one) for one in report.groups)),
        ("curves", "Curves", "".join(_curves(group) for group in report.curves)),
        ("time", "Time", "".join(time_html(split) for split in report.time)),
        ("baselines", "Baselines", table_html(report.baselines) if report.baselines else ""),
        ("settings", "Settings that differ", table_html(report.settings) if report.settings else ""),
        ("made", "How it was made", _made(report)),
    ]
    return document(report.title, report.subtitle, sections, script=SCRIPT)


def document(title: str, subtitle: str, sections: Sequence[tuple[str, str, str]], *, script: str = "") -> str:
    """A page around HTML that is there already.

    Args:
      title: of the page.
      subtitle: beneath it.
      sections: anchor, heading and body (escaped HTML) of each; those without a body are left out.
      script: the only one that the page may run; none by default.
    """
    present = [(name, heading, body) for name, heading, body in sections if body]
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading, _ in present)
    bodies = "".join(f'<section id="{name}"><h2>{heading}</h2>{body}</section>' for name, heading, body in present)
    policy = f"{POLICY}; script-src {digest(script)}" if script else POLICY
    moving = f"{DIALOG}<script>{script}</script>" if script else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p><nav>{links}</nav></header>"
        f"<main>{bodies}</main>{moving}</body></html>\n"
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
    return f"<h3>{escape(group.title)}</h3>" + "".join(map(_part, group.parts))


def _part(part: CurvePart) -> str:
    charts = [chart(curve) for curve in part.curves]
    shown, folded = charts[:SHOWN_CURVES], charts[SHOWN_CURVES:]
    more = (
        f'<details><summary>{len(folded)} more</summary><div class="charts">{"".join(folded)}</div></details>'
        if folded
        else ""
    )
    return f'<h4>{escape(part.title)}</h4><div class="charts">{"".join(shown)}</div>{more}'


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
