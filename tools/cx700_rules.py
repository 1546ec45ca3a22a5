"""The rules that bring a stuck CX700 on its way, as the demo, the benches and the tests write them to a file.

`OBSERVE` names the path and whom the rule is for; one of `THEN` behind it says what is done.
"""

OBSERVE = """# Written by upshim for a stuck CX700.
[[path]]
name = "cx700"
device_type = "UCPhone"
vendor = "Polycom"
model = "CX700"
revision = "A"
locale = "ENU"
waypoints = ["1.0.522.103", "3.5.6907.222"]
required = ["1.0.522.103"]

[[rule]]
name = "cx700-interim"
path = "cx700"
when.version = "< 1.0.522.101"
"""
THEN = {
    "observe": "then.observe = true\n",
    "report": 'then.report = "0.0.0.0"\n',
    "offer": 'then.offer = { version = "next", file = "CPE.nbt", signature_file = "CPE.cat" }\n',
}
