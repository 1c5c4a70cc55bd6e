"""What a reproduction gives: claims with what was measured, the numbers behind them, and one figure."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from neuralfield.files import write_json
from neuralfield.viz.style import Page

FIGURE, NUMBERS = "figure.png", "numbers.json"


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper, and whether it holds here.

    - `text`: what should be so, in words: "the spread of the kernel shrinks with width".
    - `measured`: what was found, with units: "0.021 at width 10,000 against 0.094 at 500".
    - `holds`: whether that supports the sentence.
    - `source`: where it is said: "Jacot et al. 2018, figure 1".
    """

    text: str
    measured: str
    holds: bool
    source: str


@dataclass
class Reproduction:
    """The outcome of one reproduction.

    - `name`, `title`: of the reproduction.
    - `claims`: what was checked.
    - `numbers`: everything that the figure shows, as JSON can hold it, so that a reader can draw it anew.
    - `figure`: one page.
    """

    name: str
    title: str
    claims: list[Claim]
    numbers: dict[str, Any]
    figure: Page
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(claim.holds for claim in self.claims)

    def save(self, folder: str | Path) -> None:
        """Write `figure.png` and then `numbers.json` into ``folder``."""
        folder = Path(folder)
        self.figure.save(folder / FIGURE)
        content = {"name": self.name, "title": self.title, "claims": [asdict(claim) for claim in self.claims]}
        write_json(folder / NUMBERS, {**content, "options": self.options, "numbers": self.numbers})
