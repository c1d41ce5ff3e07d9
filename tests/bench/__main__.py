"""`make bench`: every bench in turn, or those named (`make bench ARGS="paths programs"`), each a
process of its own, figures with their peers."""

import argparse
import subprocess
import sys
from pathlib import Path

PREFIX = "bench_"


def main() -> int:
    names = [path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py")]
    parser = argparse.ArgumentParser(prog="tests.bench", description="figures with their peers")
    parser.add_argument("name", nargs="*", metavar="NAME", help=", ".join(sorted(names)))
    wanted = parser.parse_args().name
    if strangers := set(wanted) - set(names):
        parser.error(
            f"no bench is named {', '.join(sorted(strangers))}: {', '.join(sorted(names))}"
        )
    return run_all(wanted or sorted(names))


def run_all(names: list[str]) -> int:
    failed = []
    for name in names:
        argv = (sys.executable, "-m", f"{__package__}.{PREFIX}{name}")
        if subprocess.run(argv).returncode:
            failed.append(name)
            print(f"{name} could not be measured: see above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
