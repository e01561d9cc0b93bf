"""Write constraints.txt from a report of `pip install --dry-run --report` (`make constraints`)."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def main(report: Path, constraints: Path) -> None:
    """Keep the comment at the file's top, replace the versions under it."""
    installs = json.loads(report.read_text())["install"]
    pins = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"]
        for item in installs
    }
    del pins["nemotron-voice"]
    lines = constraints.read_text().splitlines()
    comment = [line for line in lines if line.startswith("#")]
    # A local version (2.13.0+cpu) names one build; the public one takes whichever pip's index has.
    pinned = [f"{name}=={version.partition('+')[0]}" for name, version in sorted(pins.items())]
    constraints.write_text("\n".join([*comment, *pinned]) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
