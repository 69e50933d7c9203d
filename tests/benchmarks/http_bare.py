"""Child: the least an aiohttp service can do with a command: decode, check the header, 202."""

import asyncio

import msgspec
from aiohttp import web

from bus.commands import Command

_decoder = msgspec.json.Decoder(Command)
_ANSWER = b'{"commandId":"0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b","status":"Pending"}'


async def publish(request: web.Request) -> web.Response:
    _decoder.decode(await request.read())
    if "Authorization" not in request.headers:
        return web.Response(status=401)
    return web.Response(status=202, body=_ANSWER, content_type="application/json")


async def main() -> None:
    app = web.Application()
    app.router.add_post("/api/v1/commands", publish)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
