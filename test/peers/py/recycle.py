"""Forces a recycled process id between connect and read. Runs as root.

recycle.py AGENT_PID SOCKET UID PROGRAM ARGS...

A caller of user UID connects while the agent is stopped, hands the connection on and dies; a process of root takes its
id; only then does the agent go on, and PROGRAM, which holds the connection as descriptor 3, asks for its identity. What
it prints is what this prints. Leaves with 3 when the id could not be taken.
"""

import ctypes
import os
import signal
import socket
import sys

PR_SET_CHILD_SUBREAPER = 36


def take(pid):
    """Starts a process that has this id, or gives None: others start processes too, so the first try may miss."""
    for _ in range(200):
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(str(pid - 1))
        taker = os.fork()
        if taker == 0:
            signal.pause()
        if taker == pid:
            return taker
        os.kill(taker, signal.SIGKILL)
        os.waitpid(taker, 0)
    return None


def main(agent, path, uid, program):
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    go_read, go_write = os.pipe()
    os.kill(agent, signal.SIGSTOP)
    try:
        caller = os.fork()
        if caller == 0:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            if os.fork() == 0:
                # The heir waits until the id has its new owner, then speaks on the dead caller's connection.
                os.read(go_read, 1)
                os.dup2(connection.fileno(), 3, inheritable=True)
                os.execv(program[0], program)
            os._exit(0)
        os.waitpid(caller, 0)
        taker = take(caller)
    finally:
        os.kill(agent, signal.SIGCONT)
    os.write(go_write, b"x")
    os.wait()  # the heir, ours since its parent died; the taker only pauses
    if taker is None:
        sys.exit(3)
    os.kill(taker, signal.SIGKILL)


main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:])
