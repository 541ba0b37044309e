"""The report of the training part of the demo as one HTML page that needs nothing else."""

import html as markup
import pathlib

from chart import BOTTOM, HEIGHT, Chart
from terminal import mb, ms


def losses(facts):
    """Both curves, the kill, the checkpoints, and what was trained twice."""
    reference, killed, resharded, same = facts["runs"]
    high = max(reference.losses.values())
    low = min(reference.losses.values())
    chart = Chart((0, facts["size"].steps), (low - 0.1 * (high - low), high + 0.05 * (high - low)), "step", "loss")
    chart.bar(facts["newest"], facts["killed_at"], *chart.y_range, "lost")
    chart.line(sorted(reference.losses.items()), "reference")
    chart.line(sorted(resharded.losses.items()), "resharded")
    chart.line(sorted(killed.losses.items()), "killed")
    chart.dots(sorted(same.losses.items()), "same")
    dead = facts["killed"]
    chart.upright(facts["killed_at"], "kill", f"rank {dead['rank']} killed while it saved step {dead['save']}")
    chart.cross(facts["killed_at"], killed.losses[facts["killed_at"]], "kill")
    for one in facts["listing"]:
        at = chart.x(one.step)
        base = HEIGHT - BOTTOM
        chart.parts.append(f'<path class="mark" d="M{at - 5:.1f} {base} h10 l-5 -8 z"/>')
    return chart.svg("Loss by step of the uninterrupted, the killed and both resumed runs")


def distances(facts):
    """How far the run on fewer ranks is from the uninterrupted one."""
    reference, _, resharded, _ = facts["runs"]
    apart = [(step, abs(loss - reference.losses[step])) for step, loss in sorted(resharded.losses.items())]
    shown = [(step, max(distance, 1e-9)) for step, distance in apart]
    top = max(distance for _, distance in shown)
    chart = Chart((0, facts["size"].steps), (1e-9, max(1e-3, top * 2)), "step", "distance of the losses", height=220, log=True)
    chart.upright(facts["newest"], "kill", f"resumed from step {facts['newest']}")
    chart.line(shown, "resharded")
    chart.dots(shown, "dot")
    return chart.svg("Distance of the losses on fewer ranks from the uninterrupted run's")


def steps(facts):
    """Every step of the run that was killed: the step, and on top of it what the save held up."""
    killed = facts["runs"][1]
    stall = {}
    for one in killed.saves:
        stall[one["step"]] = max(stall.get(one["step"], 0), one["stall"] * 1e3)
    # The first steps warm up; they would make all others small.
    events = killed.steps[2:]
    high = max(one["seconds"] * 1e3 + stall.get(one["step"], 0) for one in events)
    chart = Chart((0, facts["size"].steps), (0, high * 1.1), "step", "milliseconds", height=250)
    for one in events:
        at, height = one["step"], one["seconds"] * 1e3
        chart.bar(at - 0.36, at + 0.36, 0, height, "draining" if one["draining"] else "step")
        chart.bar(at - 0.36, at + 0.36, height, height + stall.get(at, 0), "stall")
    chart.upright(facts["killed_at"] + 0.5, "kill", "killed")
    return chart.svg("Time of every step of the run that was killed, with the stall of its saves")


def key(*entries):
    swatch = '<svg viewBox="0 0 26 14"><{}/></svg>'
    line = '<svg viewBox="0 0 26 14"><line class="{0}" x1="0" x2="26" y1="7" y2="7"/></svg>'
    box = '<svg viewBox="0 0 26 14"><rect class="{0}" y="2" width="26" height="10"/></svg>'
    dot = '<svg viewBox="0 0 26 14"><circle class="{0}" cx="13" cy="7" r="3.5"/></svg>'
    mark = '<svg viewBox="0 0 26 14"><path class="{0}" d="M8 11 h10 l-5 -8 z"/></svg>'
    shapes = {"line": line, "box": box, "dot": dot, "mark": mark, "swatch": swatch}
    spans = (f"<span>{shapes[shape].format(kind)}{text}</span>" for shape, kind, text in entries)
    return '<div class="key">' + "".join(spans) + "</div>"


def checkpoints(facts):
    """Stored against raw bytes of every checkpoint, as bars in a table."""
    largest = max(one.raw_bytes for one in facts["listing"])
    rows = []
    for one in facts["listing"]:
        raw, stored = (100 * count / largest for count in (one.raw_bytes, one.stored_bytes))
        by = facts["size"].ranks if one.step <= facts["newest"] else facts["size"].ranks_after
        rows.append(
            f'<tr><td class="n">{one.step}</td><td class="n">{by}</td><td class="bars"><svg preserveAspectRatio="none" '
            f'viewBox="0 0 100 16"><rect class="raw" y="1" width="{raw:.2f}" height="14"/><rect class="stored" y="1" '
            f'width="{stored:.2f}" height="14"/></svg></td><td class="n">{mb(one.raw_bytes)}</td>'
            f'<td class="n">{mb(one.stored_bytes)}</td><td class="n">{one.stored_bytes / one.raw_bytes:.2f}</td></tr>'
        )
    head = '<tr><th class="n">Step</th><th class="n">Ranks</th><th></th><th class="n">Raw</th><th class="n">Stored</th><th class="n">Share</th></tr>'
    return f"<table>{head}{''.join(rows)}</table>"


def tiles(facts):
    values = facts["figures"]
    same = facts["runs"][3]
    pairs = [
        (f"{len(same.losses)} of {len(same.losses)}", f"losses bit for bit, resumed on {facts['size'].ranks} ranks"),
        (f"{facts['apart']:.1e}", f"largest relative distance, resumed on {facts['size'].ranks_after}"),
        (str(facts["killed_at"] - facts["newest"]), "steps lost by the kill"),
        (ms(values["stall"]), f"stall per save, the first {ms(values['stall_first'])}"),
        (f"{values['stored_bytes'] / values['raw_bytes']:.2f}", f"stored of {mb(values['raw_bytes'])} raw"),
        (f"{values['restore'][0]:.2f} s", f"to restore on {facts['size'].ranks_after} ranks"),
    ]
    return "".join(f'<div class="tile"><b>{markup.escape(a)}</b><span>{markup.escape(b)}</span></div>' for a, b in pairs)


def section(title, text, *body):
    return f"<section><h2>{title}</h2><p>{text}</p>{''.join(body)}</section>"


def html(facts):
    size = facts["size"]
    width, layers, _ = size.model
    dead = facts["killed"]
    values = facts["figures"]
    lost = facts["killed_at"] - facts["newest"]
    style = pathlib.Path(__file__).with_name("page.css").read_text()
    after = f"resumed on {size.ranks_after}"
    body = [
        f"<h1>Killed in the middle of a save: {lost} steps lost, nothing else</h1>",
        f"<p>A GPT of width {width} with {layers} layers learns the text of Python's own library, FSDP2 on {size.ranks} "
        f"ranks, saved through Caisson every {size.save_every} steps while it trains on. Rank {dead['rank']} got SIGKILL while "
        f"it saved step {dead['save']}. The run went on from step {facts['newest']}, the newest committed checkpoint.</p>",
        f'<div class="tiles">{tiles(facts)}</div>',
        section(
            "The losses continue",
            "The pale line is the run that nobody disturbed. What was trained twice is shaded.",
            key(
                ("line", "reference", "uninterrupted"),
                ("line", "killed", f"{size.ranks} ranks, until the kill"),
                ("line", "resharded", f"{after} ranks"),
                ("dot", "same", f"resumed on {size.ranks} ranks, equal bit for bit"),
                ("mark", "mark", "committed checkpoint"),
            ),
            losses(facts),
        ),
        section(
            f"{after.capitalize()} ranks: rounding, nothing else",
            f"Another number of ranks adds the gradients in another order, and training carries the last bits on. On "
            f"{size.ranks} ranks the distance is exactly 0.",
            distances(facts),
        ),
        section(
            "What a save costs the training",
            f"The stall is the time for which <code>async_save</code> holds up the slowest rank; the save drains while the training goes on. "
            f"Median step {ms(values['step'])}, {ms(values['step_draining'])} beside a save that drains.",
            key(("box", "step", "step"), ("box", "draining", "step while a save drains"), ("box", "stall", "stall")),
            steps(facts),
        ),
        section(
            "What a checkpoint takes",
            f"fp32 weights and both moments of AdamW; whole checkpoints, each restorable alone. Step {dead['save']} was saved "
            "again by the run that was resumed.",
            key(("box", "raw", "raw"), ("box", "stored", "stored")),
            checkpoints(facts),
        ),
        "<footer>Made by ./dev demo.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,'
        f'initial-scale=1"><title>Caisson: a training run, killed and resumed</title><style>{style}</style></head><body><main>'
        + "".join(body)
        + "</main></body></html>\n"
    )
