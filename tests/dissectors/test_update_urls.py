from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dissectors import DissectError
from dissectors.update_urls import PackagePath, Resource, classify
from dissectors.version import MAX_PART, Version

# protocol.md section 2.1, the published BaseURL.
PUBLISHED = "http://pool01.contoso.com/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.101/CPE"


@pytest.mark.parametrize(
    ("target", "resource"),
    [
        ("/RequestHandler/ucdevice.upx", Resource.UPDATE_HANDLER),
        ("/requesthandlerext/UCDEVICE.UPX?x=1", Resource.UPDATE_HANDLER),
        ("http://192.168.7.81/RequestHandler/ucdevice.upx", Resource.UPDATE_HANDLER),
        ("/DeviceUpdateFiles_Int/UCPhone/x", Resource.FIRMWARE_FILE),
        ("/RequestHandlerExt/Files/a", Resource.FIRMWARE_FILE),
        ("/CertProv/CertProvisioningService.svc", Resource.CERT_PROVISIONING),
        ("/certsrv/certnew.p7b", Resource.CERT_CHAIN),
        ("/x/RequestHandler/ucdevice.upx", Resource.OTHER),
        ("/RequestHandler/ucdevice.upx/more", Resource.OTHER),
        ("http://[bad", Resource.OTHER),
        ("*", Resource.OTHER),
    ],
)
def test_a_target_is_told_by_its_path(target: str, resource: Resource) -> None:
    assert classify(target) is resource


def test_the_published_base_url_comes_apart() -> None:
    path = PackagePath.parse(PUBLISHED)
    assert path == PackagePath(
        "DeviceUpdateFiles_Int", "UCPhone", "Polycom", "CX700", "A", "ENU", Version(1, 0, 522, 101), "CPE"
    )
    assert PUBLISHED.endswith(str(path))


WRONG = ["", "/", "http://x/y", "/DeviceUpdateFiles_Int/UCPhone", PUBLISHED.replace("101", "x")]


@pytest.mark.parametrize("url", WRONG)
def test_another_layout_is_refused(url: str) -> None:
    with pytest.raises(DissectError):
        PackagePath.parse(url)


SEGMENT = st.text(min_size=1, max_size=12).filter(lambda text: text not in {".", ".."})


KEY = st.tuples(SEGMENT, SEGMENT, SEGMENT, SEGMENT, SEGMENT)


@given(KEY, st.integers(0, MAX_PART), SEGMENT, st.one_of(st.just(""), SEGMENT))
def test_a_path_survives_the_round_trip(key: tuple[str, str, str, str, str], qfe: int, kind: str, name: str) -> None:
    path = PackagePath("DeviceUpdateFiles_Ext", *key, Version(3, 5, 6907, qfe), kind, name)
    assert PackagePath.parse(str(path)) == path
