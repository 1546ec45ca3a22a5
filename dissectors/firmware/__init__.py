"""Firmware: images of Windows CE, what carries them, and update packages (formats.md section 5).

`identify` describes any file as firmware; `find_packages` says which device a folder or cabinet of updates is for.
"""

from dissectors.firmware.bin_records import BinImage, BinRecord
from dissectors.firmware.control_file import ControlFile
from dissectors.firmware.image import Firmware, Part, identify, looks_like_firmware
from dissectors.firmware.package import Description, UpdatePackage, find_packages
from dissectors.firmware.pe import PeImage, authenticode_digests, parse_pe
from dissectors.firmware.rom import Rom, RomEntry, find_roms, parse_rom

__all__ = [
    "BinImage",
    "BinRecord",
    "ControlFile",
    "Description",
    "Firmware",
    "Part",
    "PeImage",
    "Rom",
    "RomEntry",
    "UpdatePackage",
    "authenticode_digests",
    "find_packages",
    "find_roms",
    "identify",
    "looks_like_firmware",
    "parse_pe",
    "parse_rom",
]
