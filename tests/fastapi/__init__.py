"""What examples/loop-api uses of FastAPI, on Starlette, which FastAPI is built on.

Importing FastAPI itself takes 0.5 CPU-s more, at each start of a color, and a test run starts hundreds.
"""

import inspect

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request


class FastAPI(Starlette):
    def __init__(self, **_):
        super().__init__()

    def get(self, path):
        return self._register("GET", path)

    def post(self, path):
        return self._register("POST", path)

    def _register(self, method, path):
        def register(handler):
            arguments = len(inspect.signature(handler).parameters)

            async def endpoint(request):
                call = [request][:arguments]
                if inspect.iscoroutinefunction(handler):
                    return await handler(*call)
                return await run_in_threadpool(handler, *call)

            self.add_route(path, endpoint, [method])
            return handler

        return register
