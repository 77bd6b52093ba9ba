"""The faults by name, each a coroutine that does it to its target and puts it right again."""

import asyncio
import contextlib
import signal
import time

from systems import DESCRIPTORS


async def in_thread(function, *arguments):
    """What waits for a process must not hold up the load."""
    return await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


async def replace(world, name, process, kill, lasts, start):
    """Ends a program and starts another in its place."""
    await in_thread(world.end, name, process, kill)
    await asyncio.sleep(lasts)
    await in_thread(start)


async def restart_application(world, member, lasts, kill=False):
    """Behind its agent, which runs on."""
    await replace(world, f"{member.name}-application", member.application, kill, lasts, member.start_application)


async def kill_application(world, member, lasts):
    """As a crash does."""
    await restart_application(world, member, lasts, kill=True)


async def deploy(world, member, lasts):
    """A new version of the application, as doc/agent.md has it: the agent leaves before its application ends."""
    await in_thread(world.end, f"{member.name}-agent", member.agent, False, "deployed")
    await in_thread(world.end, f"{member.name}-application", member.application, True, "deployed")
    await asyncio.sleep(lasts)
    await in_thread(member.start_application)
    await in_thread(member.start_agent)


async def kill_agent(world, member, lasts):
    """As a crash does."""
    await replace(world, f"{member.name}-agent", member.agent, True, lasts, member.start_agent)


async def stop(world, process, lasts):
    """As a debugger, a paused container or a stalled machine does."""
    with world.stopped(process):
        await asyncio.sleep(lasts)


async def stop_application(world, member, lasts):
    """See `stop`."""
    await stop(world, member.application, lasts)


async def stop_agent(world, member, lasts):
    """See `stop`."""
    await stop(world, member.agent, lasts)


async def reload_agent(_world, member, _lasts):
    """HUP."""
    member.agent.signal(signal.SIGHUP)


async def stop_proxy(world, proxy, lasts):
    """See `stop`."""
    await stop(world, proxy.program, lasts)


async def reload_proxy(world, proxy, _lasts):
    """Its settings again."""
    proxy.program.signal(world.system.reloads)


async def restart_proxy(world, proxy, lasts, kill=False):
    """TERM, and another on the same port."""
    await replace(world, proxy.name, proxy.program, kill, lasts, proxy.start)


async def kill_proxy(world, proxy, lasts):
    """As a crash does."""
    await restart_proxy(world, proxy, lasts, kill=True)


async def many_connections(world, proxy, lasts):
    """More connections than the proxy has descriptors, which say nothing."""
    held, begin = [], time.monotonic()
    for _ in range(DESCRIPTORS):
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            held.append(await asyncio.wait_for(asyncio.open_connection("127.0.0.1", proxy.port), 0.2))
    await asyncio.sleep(lasts)
    for _, writer in held:
        writer.close()
    world.log.append((proxy.name, "crowded", begin, time.monotonic()))


async def full_disk(world, _disk, lasts):
    """The disk with the logs."""
    await in_thread(world.fill_disk)
    await asyncio.sleep(lasts)
    await in_thread(world.empty_disk)


async def partition(world, _far, lasts):
    """The far machine and this one do not hear each other."""
    await in_thread(world.far.partition, True)
    await asyncio.sleep(lasts)
    await in_thread(world.far.partition, False)


async def restart_library(world, library, lasts, kill=False):
    """The program that serves over it. It is away until it has dialled again."""
    begin = time.monotonic()
    await replace(world, library.name, library.program, kill, lasts, library.start)
    await in_thread(world.await_host, library.host)
    world.log.append((library.name, "away", begin, time.monotonic()))


async def kill_library(world, library, lasts):
    """As a crash does."""
    await restart_library(world, library, lasts, kill=True)


async def happen(world, event):
    """Does what the event says."""
    target = {"disk": None, "far": None}.get(event.target, event.target)
    async with world.locks[event.target]:
        await globals()[event.fault.replace("-", "_")](world, target and world.find(target), event.lasts)
