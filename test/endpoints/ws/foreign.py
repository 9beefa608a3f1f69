"""A WebSocket server of another make (Python's websockets). Prints its port, then works as its arguments say until stdin ends.

feed N          sends N numbered records, text and binary in turn, some in fragments, some compressed where offered; then closes with 1001
sink            counts what it receives, and prints `COUNT SHA256` of it at each close
echo            sends back what it receives
"""
import asyncio
import hashlib
import sys

from websockets.asyncio.server import serve


async def feed(connection, total):
    for n in range(1, total + 1):
        record = ("%d:" % n + "é" * (n % 50)).encode()
        if n % 10 == 0:
            third = len(record) // 3
            await connection.send([record[:third], record[third:]])
        elif n % 2 == 0:
            await connection.send(record)
        else:
            await connection.send(record.decode())
    await connection.close(1001, "that was all")


async def sink(connection):
    count, digest = 0, hashlib.sha256()
    async for message in connection:
        data = message.encode() if isinstance(message, str) else message
        digest.update(data + b"\n")
        count += 1
    print(count, digest.hexdigest(), flush=True)


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    mode = sys.argv[1]
    handler = {"feed": lambda c: feed(c, int(sys.argv[2])), "sink": sink, "echo": echo}[mode]
    async with serve(handler, "127.0.0.1", 0, max_size=64 * 1024 * 1024) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

asyncio.run(main())
