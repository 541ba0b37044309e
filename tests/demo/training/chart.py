"""Charts as SVG text, for a page that needs nothing else. Colours are classes, named by the page's style."""

import math

WIDTH, HEIGHT = 940, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 26, 40


def ticks(low, high, about=6):
    """Round numbers from `low` to `high`."""
    raw = max(high - low, 1e-12) / about
    unit = 10 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round((first + i) * step, 12) for i in range(int((high - first * step) / step + 1e-9) + 1)]


class Chart:
    """Axes, and what is drawn between them, in the order of the calls."""

    def __init__(self, x_range, y_range, x_label, y_label, *, height=HEIGHT, log=False):
        self.x_range, self.y_range, self.height, self.log = x_range, y_range, height, log
        self.parts = []
        self._axes(x_label, y_label)

    def x(self, value):
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value):
        low, high = self.y_range
        if self.log:
            value, low, high = (math.log10(max(one, 1e-300)) for one in (value, low, high))
        share = min(max((value - low) / (high - low), 0), 1)
        return self.height - BOTTOM - share * (self.height - TOP - BOTTOM)

    def _axes(self, x_label, y_label):
        low, high = self.y_range
        if self.log:
            marks = [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
        else:
            marks = ticks(low, high, 5)
        for mark in marks:
            y = self.y(mark)
            name = f"1e{math.log10(mark):.0f}" if self.log else f"{mark:g}"
            self.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            self.text(LEFT - 8, y + 4, name, "axis end")
        for mark in ticks(*self.x_range, 10):
            self.text(self.x(mark), self.height - BOTTOM + 18, f"{mark:g}", "axis middle")
        self.text((LEFT + WIDTH - RIGHT) / 2, self.height - 4, x_label, "axis middle")
        self.text(LEFT, 12, y_label, "axis")

    def text(self, x, y, text, kind="axis"):
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{text}</text>')

    def line(self, points, kind):
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        self.parts.append(f'<polyline class="{kind}" points="{path}"/>')

    def dots(self, points, kind, radius=3.2):
        for x, y in points:
            self.parts.append(f'<circle class="{kind}" cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="{radius}"/>')

    def bar(self, left, right, bottom, top, kind):
        x, width = self.x(left), self.x(right) - self.x(left)
        y, height = self.y(top), self.y(bottom) - self.y(top)
        self.parts.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{max(height, 0):.1f}"/>'
        )

    def upright(self, x, kind, label="", label_y=TOP + 4):
        at = self.x(x)
        self.parts.append(f'<line class="{kind}" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{self.height - BOTTOM}"/>')
        if label:
            self.text(at + 7, label_y, label, "note")

    def cross(self, x, y, kind):
        at, on = self.x(x), self.y(y)
        for sign in (1, -1):
            self.parts.append(
                f'<line class="{kind}" x1="{at - 6:.1f}" x2="{at + 6:.1f}" y1="{on - 6 * sign:.1f}" y2="{on + 6 * sign:.1f}"/>'
            )

    def svg(self, title):
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{title}">' + "".join(self.parts) + "</svg>"
        )
