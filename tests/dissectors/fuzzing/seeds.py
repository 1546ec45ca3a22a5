"""Seeds: inputs that are good, or nearly so, of every format. The XML is synthetic."""

from __future__ import annotations

from dissectors import audit_log, dhcp_options
from dissectors.cabinet import Cabinet, Compression, NewFolder, NewMember, build_set
from dissectors.ntlm import Negotiate
from tests.dissectors.cabinet.making import TEXT, cabinet_of, raw_cabinet
from tests.dissectors.certificates.building import Plan, der
from tests.dissectors.firmware.building import rom_image
from tools.bench.lzx_encoder import Kind, encode_lzx

LZX = encode_lzx(TEXT[:3000], 15, [(Kind.ALIGNED, 900), (Kind.UNCOMPRESSED, 901)], 3000)
CABINETS = (
    cabinet_of({"a": TEXT[:3000], "b\\c": b"x", "empty": b""}),
    cabinet_of({"a": TEXT[:3000]}, Compression.MSZIP, header_reserve=b"\0\0\x10\0" + bytes(16)),
    Cabinet.build([NewFolder([NewMember("a", TEXT[:3000])], Compression.LZX, 15, frames=LZX)], data_reserve=3),
    *build_set(NewFolder.of({"a": TEXT[:3000], "b": TEXT[:3000]}), 40, [f"{number}" for number in range(99)])[:2],
    raw_cabinet([{"size": 3}] * 3, [{}, {}], b"\0" * 40),
)
ROM = rom_image(("nk.exe",), {"a.txt": b"text", "b": b""})
CERTIFICATE = der(Plan("pool01.contoso.com", "Contoso Root", dns_names=("ucupdates-r2.contoso.com",)))
MESSAGES = (
    Negotiate.parse(b"NTLMSSP\0\1\0\0\0\7\x82\x08\xa2" + bytes(16)).to_bytes(),
    b"NTLMSSP\0\2\0\0\0" + bytes(4) + b"\x38\0\0\0" + b"\5\x82\x89\xa2" + bytes(16) + b"\4\0\4\0\x38\0\0\0" + bytes(12),
    b"NTLMSSP\0\3\0\0\0" + bytes(52),
)
VENDOR = dhcp_options.VendorOptions.ms_uc_client("sip.contoso.com").to_bytes()
SIP_NAMES = dhcp_options.SipServers(("sip.contoso.com",)).to_bytes()
SIP_TEXT = (
    b"SIP/2.0 401 Unauthorized\r\nVia: SIP/2.0/TLS 10.0.0.1:5061\r\nFrom: <sip:anna@contoso.com>;tag=1;epid=2\r\n"
    b'WWW-Authenticate: NTLM realm="SIP", gssapi-data="TlRMTVNTUAACAAAA", version=4\r\nCSeq: 1 REGISTER\r\n'
    b'ms-diagnostics: 1000;reason="Final handshake failed";source="pool01"\r\nUser-Agent: UCCAPI/2.0 OCPhone/1.0\r\n'
    b"Content-Length: 4\r\n\r\nbodyREGISTER sip:contoso.com SIP/2.0\r\nCSeq: 2 REGISTER\r\n\r\n"
)
GROUPS = (
    b'<provisionGroupList><provisionGroup name="ServerConfiguration"><ucDeviceUpdate>'
    b"<propertyEntryList><property name='a'>b</property></propertyEntryList></ucDeviceUpdate>"
    b"<updatesServerEnabled>true</updatesServerEnabled></provisionGroup></provisionGroupList>"
)
AUDIT = (
    audit_log.header_text().encode()
    + b"\r\n05/01/2009 10:00:00,10.1.1.1,UCPhone,00-04-F2-00-01-76,,Polycom,CX700,A,ENU,"
    b"cpe.nbt;1.0.522.73;01-01-2009 10:00:00#b;1;2,cpe.nbt;cpe.cat;1.0.522.103;,contoso\\anna\r\n"
)
IIS = (
    b"#Software: Microsoft Internet Information Services 7.5\r\n#Date: 2009-05-01 10:00:00\r\n"
    b"#Fields: date time c-ip cs-method cs-uri-stem sc-status cs(User-Agent)\r\n"
    b"2009-05-01 10:00:00 10.1.1.1 POST /RequestHandler/ucdevice.upx 200 CPE/1.0+OCPhone/1.0\r\n"
)
DHCP_MESSAGE = (
    b"\1\1\6\0" + bytes(24) + bytes.fromhex("0004f2000176") + bytes(10 + 192) + b"c\x82Sc"
    b"\x35\1\1\x3c\x0bCPE-OCPHONE\x2b" + bytes([len(VENDOR)]) + VENDOR + b"\x34\1\3\xff"
)
DNS = (
    bytes.fromhex("1234 8180 0001 0002 0000 0000")
    + b"\x0cucupdates-r2\x07contoso\3com\0\0\1\0\1"
    + b"\xc0\x0c\0\1\0\1\0\0\0\x09\0\4\x0a\0\0\1\xc0\x0c\0\x21\0\1\0\0\0\x09\0\x09\0\1\0\2\x13\xc5\1a\xc0"
)
HTTP = (
    b"POST /RequestHandler/ucdevice.upx HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbodyGET / HTTP/1.0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\nHTTP/1.1 304 No\r\n\r\n",
)
MULTIPART = (
    b"\r\n--THIS\r\nContent-Type: a/b\r\nContent-Range: bytes 0-3/10\r\n\r\nabcd\r\n--THIS\r\n"
    b"Content-Range: bytes 8-9/10\r\n\r\nij\r\n--THIS--\r\n"
)
XML_WORDS = (b"<", b">", b"/>", b"&amp;", b"&#x41;", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<!DOCTYPE a>", b'a="b"')
PASTE = (
    f"Option 120:\n{SIP_NAMES.hex()}\n\nVendor Class Identifier: MS-UC-Client\n\tFull Option 43 value (Length: 180) :\n"
    f"\t{VENDOR.hex()[:70]}\n\t{VENDOR.hex()[70:]}\n\tsub-option 1 <UC Identifier>: 4D53\n".encode(),
    f"option ext 43 hex {VENDOR.hex()[:40]}\noption 42 ip 10.0.0.1\noption 60 ascii MS-UC-Client\n".encode(),
)
SMALL_TEXTS = (
    b'NTLM realm="a", nonce=b, Digest c="d\\"e"',
    b"bytes 0-5/10",
    b"CPE/1.0.522.101 OCPhone/1.0.522.101 (Microsoft Office Communicator Phone)",
    b"cpe.nbt;1.0.522.73;01-01-2009 10:00:00#0.0.0.0;01-01-1601 00:00:00",
    b"0x0;200",
    b"http://a/DeviceUpdateFiles_Int/UCPhone/Polycom/CX700/A/ENU/1.0.522.101/CPE/CPE.nbt",
    b"text/xml; charset=utf-16",
    b"00-04-F2-00-01-76_1.0.522.73_2009-05-01.clg",
    b"[aliases]\nmac = ['x/y']\n",
)
