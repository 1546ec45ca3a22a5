"""The mitmproxy side: thin addons around a pure policy. `mitmdump -s proxy_addons/upshim.py` loads them."""
