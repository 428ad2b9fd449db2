"""`python -m fuzz KIND SEED` repeats a finding; `python -m fuzz --count N [--first SEED] [KIND ...]` looks for more."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from fuzz.pool import Worker, fuzz, spread, summary
from fuzz.readers import KINDS
from fuzz.samples import write_samples


def main() -> int:
    """Return 1 if something was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("what", nargs="*", help="KIND SEED, or with --count the kinds (default: all)")
    parser.add_argument("--count", type=int, help="number of damaged files")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--keep", type=Path, help="with KIND SEED: where to copy the damaged file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        samples = Path(folder)
        write_samples(samples)
        if options.count is not None:
            kinds = {kind: KINDS[kind] for kind in options.what or KINDS}
            findings, counts = fuzz(samples, spread(kinds, options.count, options.first))
            print(summary(findings))
            print(f"{sum(counts.values())} damaged files of {len(counts)} kinds were read")
            return bool(findings)
        kind, seed = options.what[0], int(options.what[1])
        if options.keep is not None:
            from fuzz.mutations import mutated

            options.keep.parent.mkdir(parents=True, exist_ok=True)
            mutated(samples / kind / KINDS[kind].file, kind, KINDS[kind].structure, seed, options.keep)
        os.environ["FUZZ_TRACEBACK"] = "1"
        worker = Worker("fuzz.readers", samples, [kind], 5.0, 90.0)
        worker.start()
        log = Path(worker.log.name)
        kept = samples / "log.txt"
        stop = worker.stop

        def stop_and_keep() -> None:
            shutil.copy(log, kept)
            stop()

        worker.stop = stop_and_keep
        finding = worker.read(kind, seed)
        print(kept.read_text(errors="replace")[-20000:] if kept.is_file() else "", finding or "nothing found", sep="")
        stop()
        return finding is not None


if __name__ == "__main__":
    sys.exit(main())
