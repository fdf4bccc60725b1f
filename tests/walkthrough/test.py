"""A stand-in: what the trained model makes of the test images."""

from pathlib import Path

import numpy
from options import read
from pairs import load

given = read()
inputs, wanted = load(f"{given.dataroot}/test", given.direction)
with open(Path("checkpoints") / given.name / "latest_net_G.pth", "rb") as file:
    weights = numpy.load(file)
folder = Path("results") / given.name
folder.mkdir(parents=True, exist_ok=True)
numpy.save(folder / "fake.npy", inputs @ weights)
print(f"mean error {float(numpy.abs(inputs @ weights - wanted).mean()):.4f}")
