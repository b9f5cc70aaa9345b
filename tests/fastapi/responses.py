from starlette.responses import JSONResponse, Response, StreamingResponse
