"""One file per pipeline step: a declaration and a call. The work is in `l2dm.steps`."""
