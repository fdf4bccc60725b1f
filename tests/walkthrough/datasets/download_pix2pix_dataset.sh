#!/bin/sh
# A stand-in: nothing is downloaded, the pairs are made up.
cd "$(dirname "$0")/.." && exec python3 pairs.py "datasets/$1"
