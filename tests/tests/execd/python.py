"""Drives an execd with the published Python SDK: python.py ADDRESS DIRECTORY. The lifecycle API is a stub.

The same steps go through the asynchronous and the synchronous half. For each method of a service one line is
printed, which docs/compatibility.md is made of: `row`, half, method, what came of it.
"""

import asyncio
import inspect
import json
import os
import sys
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opensandbox import Sandbox, SandboxSync
from opensandbox.config import ConnectionConfig, ConnectionConfigSync
from opensandbox.models.execd import RunCommandOpts
from opensandbox.models.filesystem import (
    ContentReplaceEntry,
    DirectoryListEntry,
    MoveEntry,
    SearchEntry,
    SetPermissionEntry,
    WriteEntry,
)

ADDRESS, BASE = sys.argv[1], sys.argv[2]


class Lifecycle(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        made = {"id": "s1", "status": {"state": "Running"}, "createdAt": "2026-01-01T00:00:00Z", "entrypoint": ["x"]}
        self.answer(202, made)

    def do_GET(self):
        self.answer(200, {"endpoint": ADDRESS})

    def do_DELETE(self):
        self.send_response(204)
        self.end_headers()


server = ThreadingHTTPServer(("127.0.0.1", 0), Lifecycle)
threading.Thread(target=server.serve_forever, daemon=True).start()
DOMAIN = f"127.0.0.1:{server.server_port}"


PASSED = set()


class Traced:
    """A service whose every method can be awaited, and is noted when it has worked."""

    def __init__(self, name, service):
        self.name, self.service = name, service

    def __getattr__(self, method):
        real = getattr(self.service, method)

        async def call(*args, **options):
            result = real(*args, **options)
            if inspect.isawaitable(result):
                result = await result
            PASSED.add(f"{self.name}.{method}")
            return result

        return call

    def rows(self, half):
        """A line for each method there is."""
        for method in dir(self.service):
            # The SDK's own way to files_with_identity, which has a line of its own.
            if method != "with_identity" and not method.startswith("_") and callable(getattr(self.service, method)):
                name = f"{self.name}.{method}"
                assert name in PASSED, f"{half}: {name} was not tried"
                print(f"row\t{half}\t{name}\tpasses")


def out(run):
    return "".join(message.text for message in run.logs.stdout)


async def commands(sandbox):
    run = sandbox.commands.run
    r = await run("echo hi; echo e >&2; printf 'a\\n\\nb'")
    assert [m.text for m in r.logs.stdout] == ["hi", "a", "\n", "b"] and r.exit_code == 0 and r.complete, r
    r = await run("exit 3")
    assert r.exit_code == 3 and r.error.value == "3" and r.complete is None
    r = await run(["printf", "%s", "x y"])
    assert out(r) == "x y"
    r = await run("sleep 9", opts=RunCommandOpts(timeout=timedelta(milliseconds=200)))
    assert r.exit_code == -1, r
    r = await run("no-such-command-x")
    assert r.exit_code == 127 and "no-such-command-x" in r.logs.stderr[0].text
    r = await run("echo line; sleep 30", opts=RunCommandOpts(background=True))
    assert r.exit_code is None and (await sandbox.commands.get_command_status(r.id)).running is True
    logs = await sandbox.commands.get_background_command_logs(r.id, 0)
    while logs.content != "line\n":
        logs = await sandbox.commands.get_background_command_logs(r.id, 0)
    assert logs.cursor == 5
    await sandbox.commands.interrupt(r.id)
    assert (await sandbox.commands.get_command_status(r.id)).running is False
    await sandbox.commands.set_env("QUOTED", "it's \"q\"")
    assert out(await run('echo "$QUOTED"')) == "it's \"q\""


async def sessions(sandbox):
    commands = sandbox.commands
    session = await commands.create_session(working_directory="/tmp")
    r = await commands.run_in_session(session, "pwd")
    assert out(r) == "/tmp" and r.exit_code == 0
    assert out(await commands.run_in_session(session, "pwd", working_directory="/var")) == "/var"
    await commands.run_in_session(session, "export V='a $b'")
    assert out(await commands.run_in_session(session, 'echo "$V"')) == "a $b"
    r = await commands.run_in_session(session, "sh -c 'echo session-fail >&2; exit 7'")
    assert (r.error.name, r.error.value, r.exit_code, r.complete) == ("CommandExecError", "7", 7, None)
    r = await commands.run_in_session(session, "sleep 100", timeout=timedelta(milliseconds=300))
    assert r.exit_code == -1
    assert out(await commands.run_in_session(session, 'echo "$V$QUOTED"')) == "a $bit's \"q\""
    await commands.delete_session(session)


async def files(sandbox):
    files = sandbox.files
    await files.create_directories([WriteEntry(path=BASE + "/a", mode=755), WriteEntry(path=BASE + "/b", mode=644)])
    info = await files.get_file_info([BASE + "/a", BASE + "/b"])
    assert [info[BASE + name].mode for name in ("/a", "/b")] == [755, 644]
    text, data = BASE + "/a/t é.txt", BASE + "/a/data"
    await files.write_files([
        WriteEntry(path=text, data="héllo\nworld", mode=644),
        WriteEntry(path=data, data=bytes(range(256)) * 1000),
    ])
    assert await files.read_file(text) == "héllo\nworld"
    assert len(await files.read_bytes(data)) == 256000
    assert await files.read_bytes(data, range_header="bytes=1-3") == b"\x01\x02\x03"
    pieces = await files.read_bytes_stream(data, chunk_size=1000)
    pieces = [piece async for piece in pieces] if hasattr(pieces, "__aiter__") else list(pieces)
    assert b"".join(pieces) == bytes(range(256)) * 1000 and len(pieces) > 1
    assert await files.read_file(text, offset=2, limit=1) == "world"
    found = await files.search(SearchEntry(path=BASE, pattern="*.txt"))
    assert [entry.path for entry in found] == [text]
    await files.move_files([MoveEntry(src=data, dest=BASE + "/a/moved")])
    await files.set_permissions([SetPermissionEntry(path=BASE + "/a/moved", mode=600)])
    counted = await files.replace_contents_detailed([ContentReplaceEntry(path=text, old_content="l", new_content="L")])
    assert counted[0].replaced_count == 3
    await files.replace_contents([ContentReplaceEntry(path=text, old_content="L", new_content="l")])
    await files.write_file(BASE + "/a/one", "x")
    await files.delete_files([BASE + "/a/one"])
    listed = await files.list_directory(DirectoryListEntry(path=BASE + "/a", depth=2))
    assert [(entry.path, entry.mode) for entry in listed] == [(BASE + "/a/moved", 600), (text, 644)]
    await files.delete_files([BASE + "/a/moved"])
    await files.delete_directories([BASE + "/a", BASE + "/b"])
    try:
        await files.read_file(text)
    except Exception as error:
        assert "FILE_NOT_FOUND" in str(error)
    else:
        raise AssertionError("a missing file was read")


async def identity(sandbox):
    if os.geteuid() != 0:
        print("skipped: needs root to act as another user")
        return
    other = sandbox.files_with_identity(65534, 65534)
    os.makedirs(BASE + "/open", exist_ok=True)
    os.chmod(BASE + "/open", 0o777)
    await other.write_file(BASE + "/open/mine", "x")
    meta = os.stat(BASE + "/open/mine")
    assert (meta.st_uid, meta.st_gid) == (65534, 65534)
    await sandbox.files.create_directories([WriteEntry(path=BASE + "/shut", mode=700)])
    try:
        await other.write_file(BASE + "/shut/no", "x")
    except Exception:
        pass
    else:
        raise AssertionError("another user wrote into a directory that is not theirs")


class Half:
    """One half of the SDK, its services traced."""

    def __init__(self, sandbox):
        self.sandbox = sandbox
        self.commands, self.files = Traced("commands", sandbox.commands), Traced("files", sandbox.files)
        self.itself = Traced("sandbox", sandbox)

    def files_with_identity(self, uid, gid):
        return Traced("files", self.sandbox.files_with_identity(uid, gid))


async def missing(half, sandbox):
    """What this execd does not do says so in a code that the SDK hands on."""
    if not hasattr(sandbox, "isolation"):
        return
    try:
        told = sandbox.isolation.capabilities()
        if inspect.isawaitable(told):
            await told
    except Exception as error:
        assert "isolated" in str(error) or "501" in str(error) or "NOT_SUPPORTED" in str(error), repr(error)
    else:
        raise AssertionError("isolated sessions are there: test them")
    print(f"row\t{half}\tisolation (every method)\tcannot: execd has no isolated sessions; it answers 501 `NOT_SUPPORTED`")


async def drive(name, sandbox):
    PASSED.clear()
    half = Half(sandbox)
    for part in (commands, sessions, files, identity):
        await part(half)
    metrics = await half.itself.get_metrics()
    assert metrics.cpu_count > 0 and await half.itself.is_healthy()
    half.commands.rows(name)
    half.files.rows(name)
    print(f"row\t{name}\tsandbox.get_metrics, sandbox.is_healthy, sandbox.files_with_identity\tpasses")
    await missing(name, sandbox)
    await half.itself.kill()
    await half.itself.close()


async def main():
    config = ConnectionConfig(domain=DOMAIN)
    await drive("async", await Sandbox.create("x", connection_config=config, timeout=timedelta(minutes=5)))
    config = ConnectionConfigSync(domain=DOMAIN)
    made = await asyncio.to_thread(SandboxSync.create, "x", connection_config=config, timeout=timedelta(minutes=5))
    await drive("sync", made)


asyncio.run(main())
