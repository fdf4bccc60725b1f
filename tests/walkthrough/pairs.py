"""A stand-in: pairs of made-up images, pixel beside pixel (A's three colours, then B's) in a text file. Made without numpy, which only the container has."""

import random
import sys
from pathlib import Path

PIXELS = 64
COLOURS = ((0.8, 0.1, -0.3), (0.2, 0.9, 0.4), (-0.5, 0.3, 0.7))


def make(folder, count, seed):
    """B is a label map of a few colours; the photograph A is the same through a colour map that is to be learnt, and a little noise."""
    chance = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        palette = [[chance.random() for _ in range(3)] for _ in range(5)]
        rows = []
        for _ in range(PIXELS):
            label = chance.choice(palette)
            photograph = [sum(label[i] * COLOURS[i][j] for i in range(3)) + chance.gauss(0, 0.01) for j in range(3)]
            rows.append(" ".join(f"{value:.5f}" for value in [*photograph, *label]))
        (folder / f"{number}.txt").write_text("\n".join(rows) + "\n")


def load(folder, direction):
    """All pairs as (input, wanted), each N x 3."""
    import numpy

    arrays = [numpy.loadtxt(path) for path in sorted(Path(folder).glob("*.txt"))]
    if not arrays:
        sys.exit(f"no pairs in {folder}")
    both = numpy.concatenate(arrays)
    return (both[:, 3:], both[:, :3]) if direction == "BtoA" else (both[:, :3], both[:, 3:])


if __name__ == "__main__":
    make(Path(sys.argv[1]) / "train", 12, 2)
    make(Path(sys.argv[1]) / "test", 3, 3)
