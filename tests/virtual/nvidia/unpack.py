#!/usr/bin/env python3
"""Unpacks test data: unpack.py ARCHIVE FOLDER STAMP. A .tar.xz is extracted, another .xz decompressed."""
import lzma
import pathlib
import sys
import tarfile

archive, folder, stamp = map(pathlib.Path, sys.argv[1:])
folder.mkdir(parents=True, exist_ok=True)
if archive.name.endswith(".tar.xz"):
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.isfile() and "/" not in member.name.removeprefix("./"):
                (folder / pathlib.Path(member.name).name).write_bytes(tar.extractfile(member).read())
else:
    (folder / archive.name.removesuffix(".xz")).write_bytes(lzma.decompress(archive.read_bytes()))
stamp.write_text("")
