"""What is said of a run: the numbers that there are, and none of its texts as markup."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

from neuralfield.errors import SignalError
from neuralfield.viewer.runs import find_runs, open_run
from neuralfield.viewer.summary import plain, summary, words_of
from tests.viewer.conftest import linear_field


def _said(folder: Path) -> str:
    return html.unescape(summary(open_run(find_runs([folder])[0])))


def test_numbers_and_options(image_run: Path) -> None:
    said = _said(image_run)
    for row in ("| PSNR | 12.35 dB |", "| steps | 1,000 |", "| encoding | none |", "| parameters | 9 |"):
        assert row in said
    assert "- fit.steps=1000" in said and "held out" not in said


def test_an_exact_fit_and_heldout_numbers(make_run: Callable[..., Path]) -> None:
    field = linear_field([[1, 0]], [0])
    exact = make_run("exact", field, {"mae": 0.0, "psnr": None})
    assert "| PSNR | inf dB |" in _said(exact)
    heldout = make_run("heldout", field, {"psnr_train": 30.0, "psnr_heldout": 25.0, "psnr": 26.0})
    assert "| PSNR, trained | 30.00 dB |" in _said(heldout) and "| PSNR, held out | 25.00 dB |" in _said(heldout)
    assert "no metrics.json" in _said(make_run("none", field))


def test_texts_are_no_markup() -> None:
    text = "a|b <script>*x*</script> [y](z) `q` # {p}\nnext"
    assert html.unescape(plain(text)) == "a|b <script>*x*</script> [y](z) `q` # {p} next"
    assert not any(sign in plain(text).replace("&#", "") for sign in "|<>*[]()`{}")
    assert words_of(SignalError("it is empty")) == "it is empty"
    assert words_of(KeyError("x")).startswith("KeyError: ")
    assert words_of(ValueError()) == "ValueError: no message"
