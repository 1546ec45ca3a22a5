"""Say what a file is and what is in it.

Cabinets (also inside self-extractors), certificates, catalogs and trust lists, firmware images, NTLM tokens, DHCP
options in hex, audit logs, IIS logs, SIP messages, in-band settings, update checks and answers, folders of updates.
Files are told by their content. Cabinets of one set given together are joined, files and catalogs given together are
held against each other.

  upshim decode UCUpdates.exe --extract files/
  upshim decode certnew.p7b --domain contoso.com --date 2013-05-01
  echo 'NTLM TlRMTVNTUAADAAAA...' | upshim decode -

Exit code: 0 all is well, 1 a problem was found or a file is unknown, 2 a file cannot be read.
"""

from __future__ import annotations

from tools.decode.run import add_arguments, run

__all__ = ["add_arguments", "run"]
