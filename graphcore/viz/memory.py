"""The memory map: a chart of live buffers, time across and addresses up."""

from __future__ import annotations

from zlib import crc32

from graphcore.viz import theme
from graphcore.viz.diagram import MemoryMap
from graphcore.viz.theme import format_bytes, xml

LEFT, TOP, RIGHT, BOTTOM = 74.0, 34.0, 16.0, 44.0
PLOT_HEIGHT, LIVE_HEIGHT = 420.0, 84.0


def chart_size(memory: MemoryMap) -> tuple[float, float]:
    """Return the chart's width and height in pixels."""
    return LEFT + _plot_width(memory) + RIGHT, TOP + PLOT_HEIGHT + LIVE_HEIGHT + BOTTOM


def chart(memory: MemoryMap) -> list[str]:
    """Return the chart as SVG elements, its origin at the top left.

    One rectangle a buffer: from its first to its last step, from its offset to its end. Below, on
    the same scale of steps, the sum of live bytes: its peak bounds every arena from below.
    """
    steps, arena, live = (max(memory.step_count, 1), max(memory.arena_bytes, 1), memory.live_bytes())
    wide = _plot_width(memory)
    bottom = TOP + PLOT_HEIGHT

    def x_of(step: float) -> float:
        return LEFT + wide * step / steps

    def y_of(address: float) -> float:
        return bottom - PLOT_HEIGHT * address / arena

    peak = max(live, default=0)
    total = sum(row.bytes for row in memory.rows)
    summary = (
        f"arena {format_bytes(memory.arena_bytes)}, peak of live bytes {format_bytes(peak)}, "
        f"without reuse {format_bytes(total)}, {len(memory.rows)} buffers"
    )
    lines = [f'<text class="label" x="{LEFT}" y="12">memory map</text>']
    lines.append(f'<text class="dim" x="{LEFT}" y="26">{xml(summary)}</text>')
    for address in _ticks(arena):
        level = f"{y_of(address):.1f}"
        lines.append(f'<path class="grid" d="M{LEFT} {level}h{wide:.1f}"/>')
        y = y_of(address) + 3.5
        lines.append(f'<text class="dim" x="{LEFT - 6}" y="{y:.1f}" text-anchor="end">{format_bytes(address)}</text>')
    every = max(1, -(-steps // max(1, int(wide // 34))))
    for step in range(0, steps, every):
        x = x_of(step + 0.5)
        name = memory.steps[step] if step < len(memory.steps) else ""
        lines.append(
            f"<g><title>{xml(f'step {step} {name}'.strip())}</title>"
            f'<path class="axis" d="M{x:.1f} {bottom:.1f}v4"/>'
            f'<text class="dim" x="{x:.1f}" y="{bottom + 15:.1f}" text-anchor="middle">{step}</text></g>'
        )
    below = f'x="{LEFT + wide / 2:.1f}" y="{bottom + LIVE_HEIGHT + 36:.1f}"'
    lines.append(f'<text class="dim" {below} text-anchor="middle">step</text>')
    for index, row in enumerate(memory.rows):
        x, y = x_of(row.start_step), y_of(row.offset + row.bytes)
        across, tall = x_of(row.end_step + 1) - x, y_of(row.offset) - y
        lines.append(_slab(index, row.name, _about(memory, index), x, y, across, tall))
    lines += _live(live, [x_of(step) for step in range(steps + 1)], bottom + 24, peak)
    lines.append(f'<path class="axis" d="M{LEFT} {TOP}V{bottom:.1f}h{wide:.1f}"/>')
    return lines


def _live(live: list[int], edges: list[float], top: float, peak: int) -> list[str]:
    """The sum of live bytes as a filled curve of steps."""
    floor = top + LIVE_HEIGHT - 6
    points = [(edges[0], floor)]
    for step, count in enumerate(live):
        y = floor - (LIVE_HEIGHT - 12) * count / max(peak, 1)
        points += [(edges[step], y), (edges[step + 1], y)]
    points.append((points[-1][0], floor))
    data = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return [
        f'<path class="live" d="M{data}Z"><title>sum of live bytes</title></path>',
        f'<text class="dim" x="{LEFT - 6}" y="{top + 10:.1f}" text-anchor="end">{format_bytes(peak)}</text>',
        f'<text class="dim" x="{LEFT - 6}" y="{floor:.1f}" text-anchor="end">live 0 B</text>',
    ]


def _plot_width(memory: MemoryMap) -> float:
    return min(1100.0, max(420.0, 22.0 * memory.step_count))


def _about(memory: MemoryMap, index: int) -> str:
    row = memory.rows[index]
    steps = f"steps {row.start_step} to {row.end_step}"
    return f"{row.name}\n{format_bytes(row.bytes)} at offset {row.offset}\n{steps}"


def _slab(index: int, name: str, about: str, x: float, y: float, wide: float, tall: float) -> str:
    """One buffer; its hue depends on its name alone, so the same buffer looks the same in two plans."""
    hue = crc32(name.encode("utf-8", "replace")) % 360
    text = ""
    room = int((wide - 6) / (theme.LINE_SIZE * 0.6025))
    if tall >= 12 and room >= 3:
        # Dark text on any of these hues has a contrast above 7, so both colour schemes share them.
        label = xml(theme.clip(name, room))
        at = f'x="{x + wide / 2:.1f}" y="{y + tall / 2 + 3.5:.1f}"'
        text = f'<text {at} text-anchor="middle" style="fill:#16202b">{label}</text>'
    rect = f'x="{x:.1f}" y="{y:.1f}" width="{wide:.1f}" height="{max(tall, 0.5):.1f}"'
    return (
        f'<g class="slab" data-row="{index}"><title>{xml(about)}</title>'
        f'<rect {rect} style="fill:hsl({hue},48%,74%)"/>{text}</g>'
    )


def _ticks(top: int) -> list[float]:
    """Return about six round addresses in binary units."""
    unit = 1
    while top / unit > 8:
        unit *= 2
    return [float(address) for address in range(0, top + 1, unit)]
