"""Workloads that each hold a stream of FetchX509SVID open, until this program is stopped: hold.py SOCKET COUNT FIRST_UID

Each is a process of a user of its own, FIRST_UID and up, so that each has an identity of its own. Prints one line of JSON
when all have their first message, with how long they waited for it.
"""

import json
import os
import signal
import socket
import struct
import sys
import time

path, count, first = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(text):
    return bytes([len(text)]) + text.encode()


# gRPC by hand: a client library would cost this machine more memory than what is measured. HPACK without its table.
block = b"\x83\x86"
for index, value in ((4, "/SpiffeWorkloadAPI/FetchX509SVID"), (1, "localhost")):
    block += bytes([index]) + literal(value)
for name, value in (("content-type", "application/grpc"), ("te", "trailers"), ("workload.spiffe.io", "true")):
    block += b"\x00" + literal(name) + literal(value)
opening = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0) + frame(1, 4, 1, block) + frame(0, 1, 1, bytes(5))


def first_message(connection):
    """Reads until a frame of data on the stream; None then. An end of the stream before it is a refusal, which is given."""
    got = b""
    while True:
        more = connection.recv(65536)
        if not more:
            raise SystemExit("the connection ended")
        got += more
        while len(got) >= 9 and len(got) >= 9 + int.from_bytes(got[:3], "big"):
            length, kind, flags, stream = int.from_bytes(got[:3], "big"), got[3], got[4], int.from_bytes(got[5:9], "big")
            if kind == 4 and not flags:
                connection.sendall(frame(4, 1, 0))
            if stream == 1 and (kind == 3 or flags & 1):
                return got[9 : 9 + length]
            if stream == 1 and kind == 0:
                return None
            got = got[9 + length :]


def hold(user, told):
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    began = time.perf_counter()
    # An agent that asks its server every few seconds may not know the entry yet: a client library tries again too.
    while True:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(path)
        connection.sendall(opening)
        refusal = first_message(connection)
        if refusal is None:
            break
        if time.perf_counter() - began > 120:
            raise SystemExit(f"refused: {refusal!r}")
        connection.close()
        time.sleep(0.5)
    os.write(told, struct.pack("d", time.perf_counter() - began))
    os.close(told)
    os.read(alive, 1)


# Nobody writes here: it ends with the parent, and then so does every child.
alive, keep = os.pipe()
waiting = []
for user in range(first, first + count):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.close(reader)
        os.close(keep)
        hold(user, writer)
        os._exit(0)
    os.close(writer)
    waiting.append((user, reader))
times = []
for user, reader in waiting:
    answer = os.read(reader, 8)
    os.close(reader)
    if len(answer) != 8:
        raise SystemExit(f"user {user} got nothing")
    times.append(struct.unpack("d", answer)[0] * 1000)
times.sort()
print(json.dumps({"event": "held", "p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)], "max": times[-1]}))
sys.stdout.flush()
signal.pause()
