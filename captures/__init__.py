"""Everything that turns bytes at rest into exchanges and back: captures, flow files, HAR, the store."""
