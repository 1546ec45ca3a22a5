"""An emulated UC phone: polls, downloads, verifies, installs and reboots as the documentation and the field tell.

`Phone` is the behaviour alone, without sockets; `HttpTransport` acts for it; `PhoneRunner` brings both together, one
step at a time, and `RunningPhone` does that in a thread.
"""
