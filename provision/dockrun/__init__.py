"""`mlhost run`, decided: from what was asked and what the machine is to the docker command, with a reason for every word of it. Pure.

`request` says what was asked, `machine` what is there, `paths` and `gpus` judge the two delicate parts, `compose` puts the command together, `ends`
explains how it ended, and `trees` decides what of a tree goes to a host and comes back. `provision.launch` looks, runs and copies.
"""
