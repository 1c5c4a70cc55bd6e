"""One self-contained HTML page: its looks in light, dark and print, and the few elements that a report is made of.

Nothing is fetched and nothing runs: styles are inline, pictures are data. Every text is escaped here.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

_LARGEST_SVG = 300_000  # bytes; a chart of more is embedded as pixels

_STYLE = """
:root { color-scheme: light dark; --ink: #1f2430; --soft: #5b6472; --line: #d5d9e0; --page: #ffffff; --card: #f5f6f8;
  --mark: #d9480f; --best: #fff4ee; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaef; --soft: #a3acba; --line: #3a4150; --page: #14171d;
  --card: #1e232c; --mark: #ff9a62; --best: #33241b; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 16px 64px; max-width: 1112px; background: var(--page); color: var(--ink);
  font: 17px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 1.25rem; margin: 44px 0 8px; }
p { max-width: 76ch; margin: 8px 0; }
.soft, caption, figcaption { color: var(--soft); }
.verdict { font-size: 1.2rem; line-height: 1.5; border-left: 4px solid var(--mark); padding-left: 14px; margin: 18px 0; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; overflow-x: auto;
  margin: 10px 0; }
pre code { font: 15px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; user-select: all;
  white-space: pre-wrap; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin: 12px 0; }
caption { text-align: left; padding-bottom: 6px; font-size: 0.93rem; }
th, td { text-align: left; vertical-align: top; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line); }
th { font-size: 0.87rem; color: var(--soft); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td:first-child { min-width: 11.5em; }
tr.best td { background: var(--best); font-weight: 600; }
figure { margin: 16px 0 36px; }
figcaption { max-width: 76ch; margin-bottom: 8px; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; background: #ffffff; }
.scroll img { display: block; width: 100%; min-width: 680px; height: auto; }
@media (max-width: 640px) {
  body { font-size: 16px; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  tr { display: block; border-bottom: 2px solid var(--line); padding: 8px 0; }
  td, td.number { display: flex; justify-content: space-between; gap: 16px; text-align: right; white-space: normal;
    padding: 3px 6px; border-bottom: 0; }
  td::before { content: attr(data-label); color: var(--soft); font-weight: 400; text-align: left; flex: none;
    max-width: 50%; }
}
@media print {
  :root { color-scheme: light; --ink: #000000; --soft: #444444; --line: #bbbbbb; --page: #ffffff; --card: #ffffff;
    --best: #ffffff; --mark: #b4400a; }
  body { max-width: none; padding: 0; font-size: 11pt; }
  figure, tr, pre { break-inside: avoid; }
  h2 { break-after: avoid; }
  .scroll { overflow: visible; border: 0; }
  .scroll img { min-width: 0; }
}
"""


def page(title: str, body: Sequence[str]) -> str:
    """The document around elements that are HTML already."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    text = "\n".join(body)
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{text}\n</body>\n</html>\n'


def element(tag: str, text: str, kind: str = "") -> str:
    """``<tag class=kind>text</tag>``, the text escaped."""
    return f"<{tag}{_class(kind)}>{escape(text)}</{tag}>"


def code(text: str) -> str:
    """A block of code that one click selects."""
    return f"<pre><code>{escape(text)}</code></pre>"


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = (), best: int | None = None,
    caption: str = "",
) -> str:  # fmt: skip
    """A table; on a narrow screen each row becomes a card whose values carry their heads.

    **Arguments**

    - `numbers`: columns that hold numbers; `best`: the row to mark.
    """
    kinds = ["number" if i in numbers else "" for i in range(len(heads))]
    top = "".join(f'<th scope="col"{_class(k)}>{escape(h)}</th>' for h, k in zip(heads, kinds, strict=True))
    lines = []
    for i, row in enumerate(rows):
        cells = "".join(
            f'<td{_class(k)} data-label="{escape(h)}">{escape(c)}</td>'
            for h, c, k in zip(heads, row, kinds, strict=True)
        )
        lines.append(f"<tr{_class('best' if i == best else '')}>{cells}</tr>")
    above = element("caption", caption) if caption else ""
    return f"<table>{above}<thead><tr>{top}</tr></thead>\n<tbody>" + "\n".join(lines) + "</tbody></table>"


def figure(svg: Path, png: Path, alt: str, sentence: str) -> str:
    """A picture inside the page, beneath one sentence that says what to see; on a narrow screen it scrolls sideways."""
    chosen, kind = (svg, "svg+xml") if svg.stat().st_size <= _LARGEST_SVG else (png, "png")
    data = base64.b64encode(chosen.read_bytes()).decode()
    image = f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt)}">'
    scroll = f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(alt.split(":")[0])}">{image}</div>'
    return f"<figure>{element('figcaption', sentence)}{scroll}</figure>"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
