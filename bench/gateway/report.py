"""The table of the comparison, and its place in docs/benchmarks.md."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from gateways import Gateway

BEGIN, END = "<!-- bench/gateway: begin -->", "<!-- bench/gateway: end -->"
_ROWS = (
    ("CPU per chat call, µs", "chat_us", "{:.0f}", True),
    ("CPU per streamed chunk, µs", "chunk_us", "{:.1f}", True),
    ("CPU per embeddings call of 11 kB, µs", "embeddings_us", "{:.0f}", True),
    ("chat calls per second on one core", "chat_per_s", "{:,.0f}", False),
    ("latency at 500 calls/s, p50, ms", "p50_ms", "{:.2f}", False),
    ("latency at 500 calls/s, p99, ms", "p99_ms", "{:.2f}", False),
    ("first event of a stream, p50, ms", "first_p50_ms", "{:.2f}", False),
    ("dropped events", "dropped", "{:.0f}", False),
    ("resident memory, MB", "memory_mb", "{:.0f}", False),
)


def table(found: Sequence[tuple[Gateway, Mapping[str, float]]]) -> str:
    """Markdown; processor time with its ratio to nginx's."""
    limit = next((figures for gateway, figures in found if gateway.name == "nginx"), {})
    names = [f"{gateway.name} {gateway.version}".strip() for gateway, _ in found]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "--:|" * len(names)]
    for title, key, form, has_ratio in _ROWS:
        cells = []
        for gateway, figures in found:
            if key not in figures or (gateway.name == "direct" and key.endswith("_us")):
                cells.append("-")
                continue
            ratio = f" ({figures[key] / limit[key]:.2f}x)" if has_ratio and limit.get(key) else ""
            cells.append(form.format(figures[key]) + ratio)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(page: Path, made: str) -> None:
    """Replace the table between the marks of the page."""
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    today = time.strftime("%-d %B %Y")
    head = f"{today}, Python {platform.python_version()}, Linux {platform.release().split('-')[0]}."
    page.write_text(f"{before}{BEGIN}\n{head}\n\n{made}\n{END}{after}")
