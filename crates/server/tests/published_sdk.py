"""Drives the lifecycle API with the published SDK. Usage: published_sdk.py HOST:PORT KEY"""

import asyncio
import sys
from datetime import datetime, timedelta, timezone

from opensandbox import Sandbox, SandboxManager, SandboxSync
from opensandbox.config import ConnectionConfig, ConnectionConfigSync
from opensandbox.exceptions import SandboxApiException
from opensandbox.models.sandboxes import SandboxFilter

DOMAIN, KEY = sys.argv[1], sys.argv[2]
POOL = {"poolRef": "pool"}


async def lifecycle(proxy: bool) -> None:
    config = ConnectionConfig(domain=DOMAIN, api_key=KEY, use_server_proxy=proxy)
    sandbox = await Sandbox.create(
        "nginx:latest",
        entrypoint=["/bin/sh", "-c", "sleep infinity"],
        env={"AGENT_ID": "agent-1"},
        metadata={"team": "a_b.c"},
        timeout=timedelta(hours=1),
        connection_config=config,
        extensions=POOL,
    )
    execution = await sandbox.commands.run("echo hello")
    assert [m.text for m in execution.logs.stdout] == ["hello"], execution
    assert execution.exit_code == 0, execution
    info = await sandbox.get_info()
    assert info.status.state == "Running" and info.metadata == {"team": "a_b.c"}, info
    assert info.entrypoint == ["/bin/sh", "-c", "sleep infinity"], info
    renewed = await sandbox.renew(timedelta(hours=2))
    assert renewed.expires_at > datetime.now(timezone.utc) + timedelta(minutes=119), renewed
    patched = await sandbox.patch_metadata({"team": None, "more": "x"})
    assert patched.metadata == {"more": "x"}, patched
    endpoint = await sandbox.get_endpoint(8080)
    assert ("/proxy/8080" in endpoint.endpoint) == proxy, endpoint
    async with await SandboxManager.create(connection_config=config) as manager:
        found = await manager.list_sandbox_infos(SandboxFilter(states=["Running"], metadata={"more": "x"}))
        assert [s.id for s in found.sandbox_infos] == [sandbox.id], found
    await sandbox.kill()
    try:
        await sandbox.get_info()
    except SandboxApiException as error:
        assert error.error.code == "KUBERNETES::SANDBOX_NOT_FOUND", error.error
        assert error.request_id, error


def sync_twin() -> None:
    config = ConnectionConfigSync(domain=DOMAIN, api_key=KEY)
    sandbox = SandboxSync.create("nginx:latest", extensions=POOL, connection_config=config)
    assert sandbox.commands.run("echo hello").exit_code == 0
    sandbox.kill()


async def errors() -> None:
    for key, pool, code in [
        ("wrong", "pool", "INVALID_API_KEY"),
        (KEY, "empty-pool", "KUBERNETES::POOL_CAPACITY_EXHAUSTED"),
    ]:
        try:
            await Sandbox.create(
                "x", extensions={"poolRef": pool}, connection_config=ConnectionConfig(domain=DOMAIN, api_key=key)
            )
            raise AssertionError("created")
        except SandboxApiException as error:
            assert error.error.code == code, error.error


asyncio.run(lifecycle(proxy=False))
asyncio.run(lifecycle(proxy=True))
sync_twin()
asyncio.run(errors())
print("ok")
