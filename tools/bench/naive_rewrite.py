"""The script one would write at first: `mitmdump -s naive_rewrite.py`. Not a part of upshim."""

from __future__ import annotations

import json
import re
from pathlib import Path

from mitmproxy import ctx, http


class NaiveRewrite:
    """Replaces the version in every update check and writes a line per exchange."""

    def load(self, loader: object) -> None:
        """Open the log beside mitmproxy's own files."""
        del loader
        self.log = (Path(ctx.options.confdir) / "exchanges.jsonl").open("a")

    def request(self, flow: http.HTTPFlow) -> None:
        """Report version zero."""
        if "ucdevice.upx" in flow.request.path:
            flow.request.text = re.sub(
                r"<Version>[\d.]+</Version>", "<Version>0.0.0.0</Version>", flow.request.text or ""
            )

    def response(self, flow: http.HTTPFlow) -> None:
        """Write down what was said."""
        said = {"url": flow.request.url, "asked": flow.request.text, "answered": flow.response and flow.response.text}
        self.log.write(json.dumps(said) + "\n")
        self.log.flush()


addons = [NaiveRewrite()]
