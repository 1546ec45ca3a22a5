"""An emulated update server: the documented rules of the Device Update Service over real sockets.

`UpdateService` decides, `UpdateServer` speaks HTTP in a thread of its own, `AuditLogWriter` keeps the audit log,
`FieldStory` tells what real servers did against the documentation. Its XML is upshim's own and says `synthetic`.
"""
