"""What was measured as tables: every system's shares of the device limit, then each target with pass or miss."""

import dataclasses
import statistics


def median(values):
    return statistics.median(values) if values else None


def spread(values, digits=2):
    if not values:
        return "-"
    return f"{median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


@dataclasses.dataclass
class Target:
    what: str
    value: float | None  # None: not measured
    bound: float
    at_least: bool
    unit: str = ""

    def met(self):
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    def row(self):
        sign = ">=" if self.at_least else "<="
        target = f"{sign} {self.bound:g}{self.unit}"
        if self.value is None:
            return [self.what, "-", target, "not measured"]
        return [self.what, f"{self.value:.2f}{self.unit}", target, "pass" if self.met() else "MISS"]


def targets(results):
    """What the project wants to reach, from the medians."""

    def share(system, what):
        return median(results["systems"].get(system, {}).get(what, []))

    def ratio(above, below):
        return above / below if above and below else None

    def ranks(what):
        mine, peer = (results["ranks"].get(name, {}).get(what, []) for name in ("DCP through Caisson", "DCP FileSystem"))
        return ratio(median(mine), median(peer))

    planning = results.get("planning", {})
    mine = results["async"].get("DCP through Caisson", {})
    blocked = [seconds / memcpy for seconds, memcpy in zip(mine.get("blocked", []), mine.get("memcpy", []))]
    extra = {what: share("caisson", f"{what}_extra_bytes") for what in ("save", "load")}
    return [
        Target("caisson.save durable, share of L", share("caisson", "save"), 1.2, True),
        Target("caisson.load cold into new tensors, share of L", share("caisson", "load"), 1.0, True),
        Target("DCP save, 1 rank, against FileSystemWriter", ratio(share("DCP through Caisson", "save"), share("DCP FileSystem", "save")), 7, True, "x"),
        Target("DCP load, 1 rank, against FileSystemReader", ratio(share("DCP through Caisson", "load"), share("DCP FileSystem", "load")), 3, True, "x"),
        Target("DCP save, 4 ranks of FSDP2, against the same", ranks("save"), 5, True, "x"),
        Target("DCP load of it on 2 ranks, against the same", ranks("load"), 3, True, "x"),
        Target("async_save blocks, of a memcpy of the state, median", median(blocked), 1.2, False, "x"),
        Target("async_save blocks, of a memcpy, the worst first call", max(mine["first"]) if mine.get("first") else None, 1.2, False, "x"),
        Target("dispatch loop while a save drains, of its rate alone", median(mine.get("pace", [])), 0.9, True),
        Target("p99 of its gaps", ms(median(mine.get("p99", []))), 20, False, " ms"),
        Target("extra host memory of a save", mib(extra["save"]), 300, False, " MiB"),
        Target("extra host memory of a load", mib(extra["load"]), 100, False, " MiB"),
        Target("stored of raw", share("caisson", "stored"), 0.75, False),
        Target("planning for 1,024 ranks, the coordinator, cold", planning.get("cold"), 2, False, " s"),
        Target("the same, warm", planning.get("warm"), 0.5, False, " s"),
        Target("planning 100,000 items on 1 rank, cold", planning.get("items_cold"), 0.5, False, " s"),
    ]  # fmt: skip


def ms(seconds):
    return None if seconds is None else seconds * 1e3


def mib(count):
    return None if count is None else count / 2**20


def aligned(rows):
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def systems_table(results):
    rows = [["SYSTEM", "SAVE / L", "LOAD / L", "STORED", "EXTRA SAVE", "EXTRA LOAD"]]
    for name, of in results["systems"].items():
        extra = [median(of.get(what, [])) for what in ("save_extra_bytes", "load_extra_bytes")]
        rows.append(
            [name, spread(of.get("save")), spread(of.get("load")), spread(of.get("stored"))]
            + ["-" if value is None else f"{value / 2**20:.0f} MiB" for value in extra]
        )
    return aligned(rows)


def ranks_table(results):
    rows = [["4 RANKS OF FSDP2, LOADED ON 2", "SAVE / L", "LOAD / L"]]
    rows += [[name, spread(of.get("save")), spread(of.get("load"))] for name, of in results["ranks"].items()]
    return aligned(rows)


def async_table(results):
    rows = [["ASYNC_SAVE", "FIRST BLOCKS", "BLOCKS", "MEMCPY", "PACE", "P99 GAP", "LONGEST", "EXTRA BEYOND THE COPY"]]
    for name, of in results["async"].items():
        rows.append(
            [name]
            + [f"{spread([ms(one) for one in of[what]], 0)} ms" for what in ("first_seconds", "blocked", "memcpy")]
            + [spread(of["pace"])]
            + [f"{spread([ms(one) for one in of[what]], 1)} ms" for what in ("p99", "longest")]
            + [f"{median(of['extra_bytes']) / 2**20:.0f} MiB"]
        )
    return aligned(rows)


def text(results):
    parts = [
        f"{results['machine']}\n{results['raw_bytes'] / 1e9:.2f} GB of training state, 14 bytes a parameter; medians [least-most] "
        f"of {results['rounds']} rounds, each against L measured just before it: "
        f"write {spread([one / 1e9 for one in results['limits']['write']])} GB/s, read {spread([one / 1e9 for one in results['limits']['read']])} GB/s"
    ]
    for part, table in (("systems", systems_table), ("ranks", ranks_table), ("async", async_table)):
        if results[part]:
            parts.append(table(results))
    parts += [f"left out: {name}: {why}" for name, why in results["left_out"].items()]
    parts.append(aligned([["TARGET", "MEASURED", "", ""]] + [target.row() for target in targets(results)]))
    return "\n\n".join(parts)
