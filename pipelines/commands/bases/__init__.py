"""Commands about base models: `l2dm base add`, `list` and `show`."""
