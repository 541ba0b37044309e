"""What the records of a log mean together: docs/format.md, "Log", and docs/commit.md."""

from conventions import Sealed, need


class Checkpoint:
    def __init__(self, run, step, root, parent):
        self.run, self.step, self.root, self.parent = run, step, root, parent
        self.rolled_back = False


def fold(records):
    """The live checkpoints by the sequence number of their commit."""
    live, epochs, latest, opened, known = {}, {}, {}, {}, set()

    def retire(seq):
        gone = live.pop(seq)
        for other in live.values():
            if other.parent == seq:
                other.parent = gone.parent
        if latest.get(gone.run) == seq:
            latest[gone.run] = gone.parent

    for seq, (kind, body) in enumerate(records, 1):
        if kind == 1:
            save, run, step, epoch = body.take(16), body.text(), body.u64(), body.u64()
            bases = [body.u64() for _ in range(body.varint())]
            body.end()
            if save not in known and epochs.get(run) == epoch and all(b in live for b in bases):
                known.add(save)
                opened[save] = (run, step, epoch)
        elif kind == 2:
            run, epoch, base = body.text(), body.u64(), body.u64()
            body.end()
            if epoch != epochs.get(run, 0) + 1 or (
                    base and (base not in live or live[base].run != run)):
                continue
            if latest.get(run, 0) != base:
                line = base
                for other in sorted((s for s in live if live[s].run == run), reverse=True):
                    live[other].rolled_back = other != line
                    if other == line:
                        line = live[other].parent
            epochs[run], latest[run] = epoch, base
            opened = {s: o for s, o in opened.items() if o[0] != run}
        elif kind == 3:
            save, run, step, epoch = body.take(16), body.text(), body.u64(), body.u64()
            root, replaces = Sealed(body), body.u8()
            body.end()
            if opened.get(save) != (run, step, epoch) or root.ref.save != save:
                continue
            taken = [s for s, c in live.items() if (c.run, c.step) == (run, step)]
            if taken and not live[taken[0]].rolled_back and not replaces:
                continue
            for other in taken:
                retire(other)
            live[seq] = Checkpoint(run, step, root, latest[run])
            latest[run] = seq
            del opened[save]
        elif kind == 4:
            checkpoint = body.u64()
            body.end()
            if checkpoint in live:
                retire(checkpoint)
        elif kind == 6:
            opened.pop(body.take(16), None)
            body.end()
        elif kind == 7:
            checkpoint, old, new = body.u64(), Sealed(body), Sealed(body)
            body.end()
            c = live.get(checkpoint)
            if c and c.root == old and opened.get(new.ref.save, ())[:2] == (c.run, c.step):
                live[checkpoint].root = new
                del opened[new.ref.save]
        else:
            need(kind == 5, "unknown log record type: written by a newer version")
    return live
