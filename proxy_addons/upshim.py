"""The script mitmproxy loads.

    mitmdump -s proxy_addons/upshim.py --mode reverse:http://SERVER --set upshim_record=DIR

It stays this small because mitmproxy runs it apart from the module system; the addon is in addon.py.
"""

import sys
from pathlib import Path

# `-s` makes this folder importable, not the one around it; an installed upshim needs neither.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from proxy_addons.addon import Upshim

addons = [Upshim()]
