"""A fleet of emulated phones before a proxy with rules, and a verdict on what was done to them.

The server and its audit log are those of tools/update_server, over real sockets. Between phones and server stands the
addon, its hooks called with times of a clock that runs as fast as the machine can (virtual.py), or real `upshim proxy`
processes (real.py). What is judged is what the server logged and served, and what the phones run in the end.
"""
