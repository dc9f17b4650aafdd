#!/bin/sh
# `mc ready local`: the gateway answers and its user is there, who is made before it starts.
exec python3 -c "from urllib.request import urlopen; urlopen('http://127.0.0.1:9000', timeout=4)"
