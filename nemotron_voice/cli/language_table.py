"""The 40 locales as a table and as JSON."""

from __future__ import annotations

import json

from rich.table import Table
from rich.text import Text

from nemotron_voice.languages import AUTO_PROMPT_INDEX, LOCALES, Tier

_STYLE: dict[Tier, str] = {
    "transcription-ready": "green",
    "broad-coverage": "yellow",
    "adaptation-ready": "red",
}


def as_table() -> Table:
    """A row a locale, best tier first."""
    table = Table(
        title="Languages of Nemotron 3.5 ASR",
        caption=f"auto (prompt {AUTO_PROMPT_INDEX}) detects among them. transcription-ready and "
        "broad-coverage work as they are; adaptation-ready needs fine-tuning first.",
    )
    table.add_column("code", style="bold", no_wrap=True)
    table.add_column("language")
    table.add_column("tier", no_wrap=True)
    table.add_column("prompt", justify="right")
    table.add_column("unit")
    table.add_column("also called")
    for locale in LOCALES:
        # "Spanish" means what "es" means: it stands at that locale only.
        whole = (locale.english, locale.native) if locale.language in locale.aliases else ()
        names = dict.fromkeys((*locale.aliases, *whole))
        table.add_row(
            locale.code,
            locale.name,
            Text(locale.tier, style=_STYLE[locale.tier]),
            str(locale.prompt_index),
            locale.error_unit,
            ", ".join(names),
        )
    return table


def as_json() -> str:
    """A list of objects."""
    return json.dumps(
        [
            {
                "code": locale.code,
                "name": locale.name,
                "native": locale.native,
                "tier": locale.tier,
                "prompt_index": locale.prompt_index,
                "aliases": list(locale.aliases),
                "error_unit": locale.error_unit,
            }
            for locale in LOCALES
        ],
        ensure_ascii=False,
        indent=2,
    )
