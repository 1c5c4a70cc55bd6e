"""The report: one page that needs nothing else, says what was found, and cannot be broken by a name."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from neuralfield.errors import OutputError
from neuralfield.explain import report
from neuralfield.explain.explanation import Explanation
from neuralfield.explain.limits import ALIASING, BUDGET, IMAGE, INITIAL, SMOOTH, limit, rise
from neuralfield.explain.page import figure, table
from neuralfield.signals.image import ImageSignal
from tests.explain.synthetic import explanation

pytestmark = pytest.mark.filterwarnings("error")
_VOID = {"meta", "img", "br", "link", "hr"}


class Reader(HTMLParser):
    """Tags in order; raises where they do not close in the order in which they were opened."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def named(found: Explanation, index: int, name: str) -> None:
    found.candidates[index].name = name


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Explanation, Path]:
    """A trained explanation with hostile names, written once."""
    import numpy as np

    y, x = np.mgrid[0:24, 0:32] / 32
    pixels = np.stack([x, y, x * y], axis=-1).astype(np.float32)
    signal = ImageSignal.from_array(pixels, name="<img src=x onerror=alert(1)>.png", holdout="every_other")
    found = explanation(signal, trained=True)
    named(found, 0, "<script>alert('a & b')</script> \"quoted\" $x$")
    found.verdict.text += " Sure < 1 & done."
    found.verdict.command += " signal.path='</code><b>x.png'"
    found.baselines["short_sweep"] = "<i>not run</i>"
    found.baselines["short_sweep_5"] = {"name": "<b>", "steps": 1225, "seconds": 2.8, "lost": 0.25, "spearman": 0.5}
    found.baselines["odd"] = {"<u>": 1.5, "none": None}
    folder = tmp_path_factory.mktemp("report")
    report.write(found, folder)
    return found, folder


def test_it_is_whole_and_needs_nothing_else(written: tuple[Explanation, Path]) -> None:
    path = written[1] / "report.html"
    text = path.read_text(encoding="utf-8")
    reader = read(text)
    assert path.stat().st_size < 3_000_000
    assert "http" not in text and "@import" not in text and "javascript" not in text.lower()
    tags = {tag for tag, _ in reader.tags}
    assert not tags & {"script", "link", "iframe", "object", "b", "i", "u"}
    assert not [k for _, attributes in reader.tags for k in attributes if k.startswith("on")]
    sources = [attributes["src"] or "" for tag, attributes in reader.tags if tag == "img"]
    assert len(sources) == 8 and all(s.startswith("data:image/") for s in sources)
    assert not re.search(r"url\(", text)


def test_every_picture_is_embedded_and_described(written: tuple[Explanation, Path]) -> None:
    reader = read((written[1] / "report.html").read_text(encoding="utf-8"))
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    embedded = [base64.b64decode((a["src"] or "").split(",", 1)[1]) for a in images]
    for data in embedded:
        assert data.startswith(b"<?xml") or data.startswith(b"\x89PNG")
    figures = written[1] / "figures"
    names = ("curves", "sigma", "kernels", "spectra", "parts", "unlearned", "bands", "after")
    assert {p.name for p in figures.iterdir()} == {f"{name}.{kind}" for name in names for kind in ("png", "svg")}
    files = [p.read_bytes() for p in figures.iterdir()]
    assert all(data in files for data in embedded)
    alts = [a["alt"] or "" for a in images]
    assert all(len(alt) > 20 for alt in alts) and len(set(alts)) == 8
    assert any("28.0 dB" in alt for alt in alts)
    captions = [i for i, (tag, _) in enumerate(reader.tags) if tag == "figcaption"]
    assert len(captions) == 8
    assert any("0.10 to 0.60" in alt for alt in alts)


def test_light_dark_narrow_and_print(written: tuple[Explanation, Path]) -> None:
    text = (written[1] / "report.html").read_text(encoding="utf-8")
    for rule in ("prefers-color-scheme: dark", "max-width: 640px", "@media print", "color-scheme: light dark"):
        assert rule in text
    assert 'name="viewport"' in text


def test_texts_are_escaped_and_all_there(written: tuple[Explanation, Path]) -> None:
    found, folder = written
    text = (folder / "report.html").read_text(encoding="utf-8")
    reader = read(text)
    assert "<script" not in text and "<i>not run" not in text
    for expected in (
        found.verdict.text, found.verdict.command, *(c.name for c in found.candidates), found.signal.name,
        "<i>not run</i>", "<u> 1.5", "cubic interpolation of the training pixels",
        "sigma 10: 22.00 dB predicted, 6.00 dB below the best sigma (photographs)", "sigma 99: beyond the bandwidths",
        "takes <b>, 0.25 dB below the best (1,225 steps, 2.8 s)",
    ):  # fmt: skip
        assert expected in reader.text
    assert reader.text.index(found.verdict.text) < reader.text.index("What was compared")


def test_the_table_of_predictions_and_measurements(written: tuple[Explanation, Path]) -> None:
    text = read((written[1] / "report.html").read_text(encoding="utf-8")).text
    # Each measurement is 0.25 dB below its prediction.
    assert "miss the measured held-out PSNR by 0.25 dB on average" in text
    assert "Spearman correlation of 1.00" in text and "loses 0.00 dB" in text
    assert text.count("+0.25") == 5


def test_without_training_sigma_parts_or_pictures(signal: ImageSignal) -> None:
    found = explanation(signal)
    found.sigma, found.baselines, found.assumed_holdout = None, {}, True
    for candidate in found.candidates:
        candidate.unlearned = candidate.bands = None
        candidate.curve.energy.clear()
    reader = read(report.html(found))
    assert sum(tag == "img" for tag, _ in reader.tags) == 3
    assert "Predicted and measured" not in reader.text and "every other pixel was held out" in reader.text
    assert "before any training" in reader.text and "No baseline was computed" in reader.text


def test_the_best_first_and_marked(signal: ImageSignal) -> None:
    found = explanation(signal, best="fourier sigma=1")
    text = report._candidates(found)
    rows = re.findall(r"<tr( class=\"best\")?><td data-label=\"field\">([^<]*)<", text)
    assert [name for _, name in rows] == ["fourier sigma=4", "hashgrid", "fourier sigma=1", "none", "fourier sigma=16"]
    assert [name for marked, name in rows if marked] == ["fourier sigma=1"]
    assert "± 0.5" in text and "12.3 k" in text


def test_what_limits_each(signal: ImageSignal) -> None:
    found = explanation(signal)
    limits = {c.name: limit(found, c) for c in found.candidates}
    assert limits["fourier sigma=4"] == IMAGE
    assert limits["fourier sigma=16"] == INITIAL  # 20 dB of f0 alone against 19 dB of all
    assert limits["none"] == SMOOTH and limits["hashgrid"] == ALIASING
    late = found.candidates[0]
    late.curve.heldout_mse[:] = late.curve.heldout_mse[-1] * (late.curve.steps[-1] / late.curve.steps) ** 0.5
    # mse falls as steps^-1/2: a doubling brings 10 log10(sqrt 2) dB
    assert rise(late) == pytest.approx(1.505, abs=1e-3) and limit(found, late) == BUDGET


def test_a_large_drawing_is_embedded_as_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.svg").write_text("<svg>" + " " * 400_000, encoding="utf-8")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    assert "data:image/png;base64,iVBORw==" in figure(tmp_path / "a.svg", tmp_path / "a.png", "alt: x", "see")
    (tmp_path / "a.svg").write_text("<svg>", encoding="utf-8")
    assert "data:image/svg+xml;base64,PHN2Zz4=" in figure(tmp_path / "a.svg", tmp_path / "a.png", 'a "quote"', "see")


def test_a_table_escapes_its_heads() -> None:
    text = table(["<a>", 'b"'], [["1", "<2>"]], numbers=(1,))
    assert "<a>" not in text and "<2>" not in text and 'data-label="b&quot;"' in text
    read(text)


def test_a_folder_that_cannot_be_written(signal: ImageSignal, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="is a file, not a folder"):
        report.write(explanation(signal), tmp_path / "file")
