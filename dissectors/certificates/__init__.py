"""Certificates, PKCS #7 signatures and certificate trust lists.

`dissect` tells what a file is in whatever form it came; `examine` says what of its certificates matters to a phone;
`prove` says which catalog lists which file.
"""

from dissectors.certificates.armour import looks_like_armour, may_be_key
from dissectors.certificates.authenticode import SpcIndirectData
from dissectors.certificates.catalog import Catalog, Listing, Member
from dissectors.certificates.document import Document, dissect
from dissectors.certificates.findings import Circumstances, Finding, examine
from dissectors.certificates.names import Name
from dissectors.certificates.pkcs7 import SignedData, Signer
from dissectors.certificates.private_keys import PrivateKey
from dissectors.certificates.proof import Proof, prove, unmatched
from dissectors.certificates.signature import Verdict, verify
from dissectors.certificates.x509 import Certificate

__all__ = [
    "Catalog",
    "Certificate",
    "Circumstances",
    "Document",
    "Finding",
    "Listing",
    "Member",
    "Name",
    "PrivateKey",
    "Proof",
    "SignedData",
    "Signer",
    "SpcIndirectData",
    "Verdict",
    "dissect",
    "examine",
    "looks_like_armour",
    "may_be_key",
    "prove",
    "unmatched",
    "verify",
]
