"""A stand-in: the real one's options, as far as the page uses them."""

import argparse


def read():
    parser = argparse.ArgumentParser()
    parser.add_argument("--dataroot", required=True)
    parser.add_argument("--name", default="experiment")
    parser.add_argument("--model", choices=["pix2pix"], required=True)
    parser.add_argument("--direction", choices=["AtoB", "BtoA"], default="AtoB")
    parser.add_argument("--n_epochs", type=int, default=5)
    print("this is a stand-in of mlhost's tests for pix2pix: a linear model on made-up images, on the CPU")
    return parser.parse_args()
