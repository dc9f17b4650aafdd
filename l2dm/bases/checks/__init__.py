"""What keeps a folder from being a base, found before anything of it is loaded.

A base comes from anywhere. `files` reads what lies in it, `weights`, `scheduler` and `encoders`
judge that by configs and headers alone, without torch. `tensors` compares the headers with the
networks that the configs describe, on torch's meta device, which holds no numbers.
"""
