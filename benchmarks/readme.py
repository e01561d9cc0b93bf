"""Put the measured tables and plots into README and docs: `python -m benchmarks.readme`.

Reads docs/results/*.json, which the other benchmarks write, replaces what stands between
`<!-- name -->` and `<!-- /name -->`, and draws docs/plots/*.svg.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks import (
    accuracy,
    flush,
    kernels,
    livekit_jobs,
    livekit_room,
    livekit_turns,
    own_kernels,
    pipecat_calls,
    pipecat_long_call,
    pipecat_noise,
    pipecat_turns,
    precision,
    protocol_fuzz,
    ray_calls,
    remote_faults,
    server_clients,
    soak,
)
from benchmarks.peers.plot import plot as plot_peers
from benchmarks.peers.table import summary as peers_summary
from benchmarks.peers.table import table as peers_table
from nemotron_voice.bench import plots
from nemotron_voice.bench.report import table as bench_table
from training import finetune_demo

RESULTS = Path("docs/results")
PLOTS = Path("docs/plots")
SOURCES = {
    "cpu_summary": "bench_peers",
    "cpu_summary_avx2": "bench_peers_avx2",
    "recorded": "accuracy",
}  # where a table has its figures from another's file
PEERS = ("bench_peers", "bench_peers_avx2")  # a file for each machine
BENCHES = ("steps", "capacity", "startup", "call_length", "roofline", "packets")
BENCHES_AVX2 = ("capacity_avx2", "roofline_avx2", "packets_avx2")  # where both machines have one


def main() -> None:
    """Replace the tables and draw the plots whose results exist."""
    for page in (Path("README.md"), *sorted(Path("docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        for name, render in (
            ("accuracy", accuracy.table),
            ("recorded", accuracy.recorded_table),
            ("flush", flush.table),
            ("soak", soak.summary),
            ("pipecat_turns", pipecat_turns.table),
            ("pipecat_calls", pipecat_calls.table),
            ("pipecat_noise", pipecat_noise.table),
            ("pipecat_long_call", pipecat_long_call.summary),
            ("livekit_turns", livekit_turns.table),
            ("livekit_room", livekit_room.summary),
            ("livekit_jobs", livekit_jobs.table),
            ("remote_faults", remote_faults.summary),
            ("server_clients", server_clients.table),
            ("protocol_fuzz", protocol_fuzz.summary),
            ("ray_calls", ray_calls.summary),
            ("precision", precision.table),
            ("kernels", kernels.table),
            ("kernels_avx2", kernels.table),
            ("own_kernels", own_kernels.table),
            ("finetuning", finetune_demo.table),
            *((name, peers_table) for name in PEERS),
            ("cpu_summary", peers_summary),
            ("cpu_summary_avx2", peers_summary),
            *((f"bench_{name}", bench_table) for name in (*BENCHES, *BENCHES_AVX2)),
        ):
            source = RESULTS / f"{SOURCES.get(name, name)}.json"
            if source.exists():
                table = render(json.loads(source.read_text(encoding="utf-8")))
                block = f"<!-- {name} -->\n{table}\n<!-- /{name} -->"
                pattern = rf"<!-- {name} -->.*?<!-- /{name} -->"
                text = re.sub(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
        page.write_text(text, encoding="utf-8")
    _draw()


def _draw() -> None:
    """The plots whose results exist."""
    for name in BENCHES:
        source = RESULTS / f"bench_{name}.json"
        if source.exists():
            plots.plot(json.loads(source.read_text(encoding="utf-8")), PLOTS)
    for name in PEERS:
        source = RESULTS / f"{name}.json"
        if source.exists():
            plot_peers(json.loads(source.read_text(encoding="utf-8")), PLOTS / f"{name}.svg")


if __name__ == "__main__":
    main()
