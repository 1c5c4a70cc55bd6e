"""Where the configuration files are, and what Hydra's complaints mean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from neuralfield.errors import ConfigError, nearest

# `neuralfield fit` and hydra's own groups are not for people to misspell.
_GROUPS = ("signal", "encoding", "network", "fit", "experiment")


def config_folder() -> Path:
    """The folder `configs/`: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if (inside / "config.yaml").is_file() else package.parent / "configs"


def choices(group: str) -> list[str]:
    """The choices of a group, by its files."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def known_keys() -> dict[str, list[str]]:
    """Every key that some choice of groups has, and which ones: {"encoding.sigma": ["encoding=fourier"], ...}."""
    found: dict[str, list[str]] = {}
    for key in _leaves(_read(config_folder() / "config.yaml")):
        found.setdefault(key, [])
    for group in _GROUPS[:-1]:
        for choice in choices(group):
            for key in _leaves(_read(config_folder() / group / f"{choice}.yaml")):
                found.setdefault(f"{group}.{key}", []).append(f"{group}={choice}")
    return found


def own_options(encoding: dict[str, Any], choice: str, overrides: list[str]) -> dict[str, Any]:
    """The encoding's options without those of the group's choice when `encoding.name` names another class.

    `imports=[mine] encoding.name=mine +encoding.power=3` should not hand a hash grid's options to that class.
    """
    path = config_folder() / "encoding" / f"{choice}.yaml"
    group = _read(path) if path.is_file() else encoding
    if encoding.get("name") == group.get("name"):
        return encoding
    given = {override.lstrip("+").split("=", 1)[0].removeprefix("encoding.") for override in overrides}
    return {k: v for k, v in encoding.items() if k == "name" or k in given or k not in group}


def explain(error: BaseException) -> ConfigError | None:
    """A Hydra or OmegaConf error in the words of this program, with the nearest right name; None for another error."""
    module = type(error).__module__.split(".")[0]
    if module not in ("hydra", "omegaconf", "antlr4"):
        return None
    text = str(error)
    if match := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(match[1])
    if match := re.search(r"Could not find '([^']+?)/([^'/]+)'", text):
        group, choice = match[1], match[2]
        known = choices(group)
        return ConfigError(f"{group}={choice}: no such choice (known: {', '.join(known)}){nearest(choice, known)}")
    if match := re.search(r"[Kk]ey '([^']+)' (?:is )?not in", text):
        return _unknown_key(str(getattr(error, "full_key", None) or match[1]))
    if type(error).__name__ == "OverrideParseException":
        given = getattr(error, "override", None)
        return ConfigError(
            f"cannot read the argument {given!r}: write KEY=VALUE without spaces around '=', and quote values that hold "
            f"spaces, commas or brackets for the shell, for example 'signal.crop=[0,0,256,256]'"
        )
    return ConfigError(" ".join(text.split()))


def _unknown_key(key: str) -> ConfigError:
    known = known_keys()
    owners = known.get(key)
    if owners:
        return ConfigError(f"{key} belongs to {' or '.join(owners)}; add {owners[0]} to set it")
    if key in _GROUPS or "." not in key:
        candidates = [*_GROUPS, *(k for k in known if "." not in k), "hydra.run.dir"]
        return ConfigError(f"there is no option or group '{key}'{nearest(key, candidates)}")
    return ConfigError(f"there is no option '{key}'{_suggest(key, known)}")


def _suggest(key: str, known: dict[str, list[str]]) -> str:
    """The nearest key: in the same group first, where a typo is likelier than a wrong group."""
    group, _, rest = key.partition(".")
    inside = [k.partition(".")[2] for k in known if k.startswith(f"{group}.")]
    hint = nearest(rest, inside)
    if not hint:
        return nearest(key, known) or f" (known: {', '.join(inside)})" if inside else nearest(key, known)
    found = f"{group}.{hint.split(chr(39))[1]}"
    owners = known.get(found) or []
    only = f" (of {' or '.join(owners)})" if owners and len(owners) < len(choices(group)) else ""
    return f"; did you mean '{found}'{only}?"


def _read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {k: v for k, v in content.items() if k not in ("defaults", "hydra")}


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
