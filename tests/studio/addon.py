"""Judge the add-on's package: native modules for both processors, each where it belongs, and nothing else that runs."""

import sys
import tarfile

# e_machine of an ELF file (System V ABI): which processor it is for.
MACHINES = {"x86_64": 62, "aarch64": 183}
LARGEST = 40_000_000


def problems(path: str) -> list[str]:
    """What is wrong with the package at ``path``."""
    found: list[str] = []
    native: dict[str, set[str]] = {machine: set() for machine in MACHINES}
    with tarfile.open(path) as archive:
        for entry in archive.getmembers():
            name = entry.name.partition("/")[2]
            if not entry.isfile():
                continue
            reader = archive.extractfile(entry)
            head = reader.read(20) if reader else b""
            folder = name.split("/")[1].removeprefix("linux_") if name.startswith("lib/linux_") else ""
            is_elf = head.startswith(b"\x7fELF")
            if is_elf and (folder not in MACHINES or int.from_bytes(head[18:20], "little") != MACHINES[folder]):
                found.append(f"{name}: a native module in the wrong place")
            elif is_elf:
                native[folder].add(name.rpartition("/")[2].partition(".")[0])
            if entry.mode != 0o644 or name.endswith((".pyc", ".so.1")) or "/." in f"/{name}" or "__pycache__" in name:
                found.append(f"{name}: is not for a package")
        size = sum(entry.size for entry in archive.getmembers())
    if native["x86_64"] != native["aarch64"] or not native["x86_64"]:
        found.append(f"native modules differ: {native}")
    print(f"{path}: {size / 1e6:.1f} MB unpacked, native {', '.join(sorted(native['x86_64']))}")
    return found + ([f"{size} bytes"] if size > LARGEST else [])


if __name__ == "__main__":
    said = problems(sys.argv[1])
    print("\n".join(said), end="\n" if said else "", file=sys.stderr)
    sys.exit(1 if said else 0)
