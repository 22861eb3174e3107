"""Many agents through the published Python SDK, so many at a time.

Usage: python many_agents.py HOST:PORT API_KEY POOL COUNT AT_ONCE
Prints one line of JSON: the failures, the pods that served, the seconds that creates took.
"""
import asyncio
import json
import sys
import time
from datetime import timedelta

from opensandbox import Sandbox
from opensandbox.config import ConnectionConfig

domain, api_key, pool, count, at_once = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])


async def agent(number: int, turn: asyncio.Semaphore, report: dict) -> None:
    async with turn:
        begun = time.monotonic()
        try:
            sandbox = await Sandbox.create(
                "nginx:latest",
                entrypoint=["/bin/sh", "-c", "sleep infinity"],
                env={"AGENT_ID": f"agent-{number}"},
                timeout=timedelta(hours=1),
                connection_config=ConnectionConfig(domain=domain, api_key=api_key),
                extensions={"poolRef": pool},
            )
        except Exception as error:
            report["failures"].append(f"agent {number}, create: {error!r}")
            return
        report["creates"].append(time.monotonic() - begun)
        try:
            execution = await sandbox.commands.run("echo hello from $AGENT_ID; hostname")
            said = [message.text.strip() for message in execution.logs.stdout]
            if execution.error is not None or said[:1] != [f"hello from agent-{number}"] or len(said) != 2:
                report["failures"].append(f"agent {number} said {said}, error {execution.error}")
            else:
                report["pods"].append(said[1])
        except Exception as error:
            report["failures"].append(f"agent {number}, command: {error!r}")
        finally:
            try:
                await sandbox.kill()
            except Exception as error:
                report["failures"].append(f"agent {number}, kill: {error!r}")


async def main() -> dict:
    report = {"failures": [], "pods": [], "creates": []}
    turn = asyncio.Semaphore(at_once)
    await asyncio.gather(*(agent(number, turn, report) for number in range(count)))
    return report


print(json.dumps(asyncio.run(main())))
