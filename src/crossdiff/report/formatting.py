"""Numbers and names as text for people."""

from __future__ import annotations

import math
from typing import Any


def readable(slug: str) -> str:
    """`harmful_request_refusal` -> `Harmful request refusal`."""
    text = visible(slug.replace("_", " ").strip())
    return text[:1].upper() + text[1:]


def change_text(change: float | None, *, digits: int = 1) -> str:
    """A relative change with its sign: `+32.8 %`, `-100 %`, `unknown` for a missing value."""
    if change is None or math.isnan(change):
        return "unknown"
    if math.isinf(change):
        return "no upper limit"
    percent = 100 * change
    digits = 0 if abs(percent) >= 999.5 else digits
    if round(percent, digits) == 0:
        return f"{0:.{digits}f} %"
    return f"{percent:+,.{digits}f} %".replace("-", "−")


def number(value: Any, digits: int = 3) -> str:
    """A figure for a table cell: thousands separated, `–` for a missing value."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            if math.isnan(value):
                return "–"
            rounded = float(f"{value:.{digits}g}") + 0.0
            return f"{rounded:,.{digits}g}" if abs(rounded) < 10**digits else f"{value:,.0f}"
    return str(value)


def told(value: float | None, form: str = ".2f") -> str:
    """A figure in a sentence, `form` as in f-strings; `unknown` if not finite, never minus zero."""
    if value is None or not math.isfinite(value):
        return "unknown"
    text = format(value, form)
    if not any(digit in text for digit in "123456789"):
        return text.lstrip("+-")
    return f"−{text[1:]}" if text.startswith("-") else text


def between(low: float | None, high: float | None, form: str = ".2f") -> str:
    """`0.20 to 0.45`; `unknown` where either bound is."""
    texts = told(low, form), told(high, form)
    return "unknown" if "unknown" in texts else " to ".join(texts)


def share(value: float | None) -> str:
    """A share as a percentage with one digit; `–` when missing, `< 0.1 %` when small and not 0."""
    if value is None or math.isnan(value):
        return "–"
    text = told(100 * value, ".1f")
    return "< 0.1 %" if value > 0 and text == "0.0" else f"{text} %"


def duration(seconds: float | None) -> str:
    """Seconds as `3.2 s`, `4 min 10 s` or `2 h 05 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def finite(value: Any) -> Any:
    """`value` as JSON content: NaN and infinities become None, recursively."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {str(key): finite(item) for key, item in value.items()}
        case list() | tuple():
            return [finite(item) for item in value]
    if hasattr(value, "item") and not isinstance(value, str):
        return finite(value.item())
    return value


_HIDDEN = {
    0x200B: "ZWSP", 0x200C: "ZWNJ", 0x200E: "LRM", 0x200F: "RLM", 0x061C: "ALM", 0x2060: "WJ", 0xFEFF: "BOM",
    0x202A: "LRE", 0x202B: "RLE", 0x202C: "PDF", 0x202D: "LRO", 0x202E: "RLO",
    0x2066: "LRI", 0x2067: "RLI", 0x2068: "FSI", 0x2069: "PDI",
}  # fmt: skip
_GLYPHS = {code: f"⟨{name}⟩" for code, name in _HIDDEN.items()}


def visible(text: str) -> str:
    """`text` with invisible and direction-changing characters written out, `⟨RLO⟩`."""
    return text.translate(_GLYPHS)


def significant(value: Any) -> float | int | None:
    """The value with four significant digits; None where missing."""
    if value is None:
        return None
    if isinstance(value, int):
        return value
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, int):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None


def tile(name: str, value: str, note: str = "") -> dict[str, str]:
    """A highlighted figure: name, value and a line of explanation."""
    return {"name": name, "value": value, "note": note}
