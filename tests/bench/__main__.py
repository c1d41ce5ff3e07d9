"""`make bench`: every bench in turn, each a process of its own, figures with their peers."""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    here = Path(__file__).parent
    names = sorted(path.stem for path in here.glob("bench_*.py"))
    failed = [
        n for n in names if subprocess.run([sys.executable, "-m", f"tests.bench.{n}"]).returncode
    ]
    for name in failed:
        print(f"{name} could not be measured: see above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
