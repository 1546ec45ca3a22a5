"""The content views through mitmproxy's own entrances, of whichever version is installed."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest
from mitmproxy import contentviews, ctx, optmanager
from mitmproxy.test import tflow

from dissectors.cabinet import Cabinet, NewFolder, NewMember
from dissectors.ntlm import Negotiate
from proxy_addons.contentviews import READINGS, UpshimView, register
from tests.bodies import CHECK_TARGET, answer_body, check_body

NEW = hasattr(contentviews, "Contentview")
CABINET = Cabinet.build([NewFolder([NewMember("cpe.nbt", b"firmware")])])
PEM = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    options = optmanager.OptManager()
    options.add_option("protobuf_definitions", Optional[str], None, "")  # noqa: UP045 - as mitmproxy 12 does
    monkeypatch.setattr(ctx, "options", options, raising=False)
    register()


def shown(message: Any, flow: Any, view: str = "auto") -> tuple[str, str]:
    """View or description, and text, as mitmproxy's user interfaces ask for them."""
    either: Any = contentviews  # the interface of mitmproxy 11 or of 12
    if NEW:
        result = either.prettify_message(message, flow, view)
        return str(result.view_name), str(result.text)
    description, lines, error = either.get_message_content_view(view, message, flow)
    assert error is None
    return description, "\n".join("".join(text for _style, text in line) for line in lines)


def exchange(request: bytes = b"", response: bytes = b"", target: str = CHECK_TARGET) -> Any:
    flow: Any = tflow.tflow(resp=True)
    flow.request.method, flow.request.path = "POST", target
    flow.request.content, flow.response.content = request, response
    return flow


def test_update_check_is_shown_decoded() -> None:
    flow = exchange(check_body(), answer_body())
    name, text = shown(flow.request, flow)
    assert "UC update check" in name
    assert "model: CX700" in text


@pytest.mark.parametrize("codec", ["utf-8", "utf-16"])
def test_answer_is_shown_decoded(codec: str) -> None:
    body = answer_body().decode().replace("utf-8", codec).encode(codec)
    flow = exchange(check_body(), body)
    name, text = shown(flow.response, flow)
    assert "UC update check" in name
    assert "offers:" in text


def test_other_xml_is_left_to_mitmproxy() -> None:
    flow = exchange(b"<a>1</a>", target="/other")
    assert "UC update check" not in shown(flow.request, flow)[0]


def test_cabinet_is_shown_with_members() -> None:
    flow = exchange(b"", CABINET, "/DeviceUpdateFiles_Int/x.cab")
    name, text = shown(flow.response, flow)
    assert "Cabinet" in name
    assert "cpe.nbt" in text
    assert "sha256: " in text


def test_damaged_cabinet_says_why() -> None:
    flow = exchange(b"", CABINET[:40])
    name, text = shown(flow.response, flow, "Cabinet")
    assert "expected" in name + text


def test_catalog_is_shown(corpus: Path) -> None:
    data = (corpus / "payloads/pki/relic/hyperv.cat").read_bytes()
    flow = exchange(b"", data)
    name, text = shown(flow.response, flow)
    assert "Certificates" in name
    assert "kind: ctl" in text


def test_login_is_shown_from_the_headers() -> None:
    flow = exchange()
    token = base64.b64encode(Negotiate.parse(b"NTLMSSP\0\1\0\0\0\7\x82\x08\xa2" + bytes(16)).to_bytes()).decode()
    flow.request.headers["Authorization"] = f"NTLM {token}"
    name, text = shown(flow.request, flow)
    assert "NTLM login" in name
    assert "message: negotiate" in text
    assert "expected" in "".join(shown(flow.response, flow, "NTLM login"))


def test_priority_needs_no_metadata() -> None:
    for reading in READINGS:
        view = UpshimView(reading)
        assert view.render_priority(b"") == -1.0
        assert view.render_priority(b"\0" * 100, None) == -1.0


def test_registering_again_replaces() -> None:
    register()
    names = [view.name for view in contentviews.views] if not NEW else list(contentviews.registry)  # type: ignore[attr-defined]
    assert sum(name.lower() == "cabinet" for name in names) == 1


def test_the_addon_loads_the_views() -> None:
    """In a process of its own, because mitmproxy's registry is one per process."""
    script = (
        "from mitmproxy import contentviews\n"
        "from mitmproxy.test import taddons\n"
        "from proxy_addons.addon import Upshim\n"
        "import asyncio\n"
        "async def main():\n"
        "    with taddons.context(Upshim()): pass\n"
        "asyncio.run(main())\n"
        "names = getattr(contentviews, 'registry', None) or [view.name.lower() for view in contentviews.views]\n"
        "assert 'cabinet' in names, list(names)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
