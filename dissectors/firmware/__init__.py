"""Firmware: images of Windows CE and what carries them (formats.md section 5)."""
