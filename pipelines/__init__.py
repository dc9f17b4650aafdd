"""Wiring: the pipeline, how it is run, the loop over uploads and the command line."""
