"""Microsoft cabinets ([MS-CAB]): read in one forward pass under a budget, found in larger files, joined, written.

`Cabinet.parse(data)` gives the structure, `cabinet.pieces()` the members' bytes as they are decoded,
`cabinet.examine()` their digests, `Cabinet.join` the cabinets of a set as one, `Cabinet.search` those inside another
file, `Cabinet.build` the bytes of a new one. Input is bytes, a memory map, an open binary file or any `Source`.
"""

from dissectors.cabinet.authenticode import Signature
from dissectors.cabinet.build import NewFolder, NewMember, build_set
from dissectors.cabinet.cabinet import Cabinet, Contents
from dissectors.cabinet.limits import Budget
from dissectors.cabinet.names import display_name, name_hazards, safe_member_name, safe_member_names
from dissectors.cabinet.reading import Digests, MemberContent, Piece
from dissectors.cabinet.values import Attributes, Compression, Folder, Header, Link, Member
from dissectors.source import Source

__all__ = [
    "Attributes",
    "Budget",
    "Cabinet",
    "Compression",
    "Contents",
    "Digests",
    "Folder",
    "Header",
    "Link",
    "Member",
    "MemberContent",
    "NewFolder",
    "NewMember",
    "Piece",
    "Signature",
    "Source",
    "build_set",
    "display_name",
    "name_hazards",
    "safe_member_name",
    "safe_member_names",
]
