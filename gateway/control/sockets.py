"""Listening sockets: bound before anything is started, so that a port in use is one clear error and not a half-started fleet."""

from __future__ import annotations

import errno
import os
import socket

from gateway.exits import CommandError

BACKLOG = 2048


def listen(host: str, port: int, what: str, change_with: str) -> socket.socket:
    """Raises CommandError naming the port, who has it (where the system tells) and what to change."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror as exc:
        raise CommandError(f"{what}: unknown host {host!r}; change it with {change_with}") from exc
    # The protocol is named because asyncio switches Nagle's algorithm off only where it is: else small answers take 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        raise CommandError(_cannot_bind(exc, host, port, what, change_with)) from exc
    sock.setblocking(False)
    return sock


def url_of(sock: socket.socket, host: str) -> str:
    """Where it answers; a wildcard address is shown as the loopback one, which people can click."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{sock.getsockname()[1]}"


def _cannot_bind(exc: OSError, host: str, port: int, what: str, change_with: str) -> str:
    if exc.errno == errno.EADDRINUSE:
        holder = port_holder(port)
        return f"{what}: port {port} is in use{f' by {holder}' if holder else ''}; stop that or choose another with {change_with}"
    if exc.errno == errno.EACCES:
        return f"{what}: no permission to listen on port {port}; choose one above 1023 with {change_with}"
    return f"{what}: cannot listen on {host}:{port}: {exc.strerror}; change it with {change_with}"


def port_holder(port: int) -> str:
    """`name (pid n)` of a process of this user that listens on `port`; empty where it cannot be found."""
    inodes = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    if not inodes:
        return ""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if any(os.readlink(f"/proc/{pid}/fd/{fd}") in inodes for fd in os.listdir(f"/proc/{pid}/fd")):
                with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                    return f"{file.read().strip()} (pid {pid})"
        except OSError:
            continue
    return ""


def _listening_inodes(port: int) -> list[str]:
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table, encoding="ascii") as file:
                rows = [line.split() for line in file.readlines()[1:]]
        except OSError:
            continue
        found += [row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port]
    return found
