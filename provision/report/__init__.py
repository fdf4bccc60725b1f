"""Reports: values in, text out. Nothing here asks a host, opens a file or prints; `provision.cli` prints what these functions return, once.

`text` writes for a person, `jsonout` for a program, `junit` for a CI server; `verdict` turns results into exit codes; `sanitize` is what stands
between a host's own words and a terminal.
"""
