/**
 * A proxy in front of a real S3 server that fails as networks and S3 do. Requests are counted and named; a fault
 * decides over each request by itself. The Host header is passed on as it is, so signatures stay valid.
 */
import http from 'node:http'
import { serveHttp, type LocalServer } from './http'

export type Operation =
  | 'HeadBucket'
  | 'ListObjects'
  | 'ListUploads'
  | 'PutObject'
  | 'HeadObject'
  | 'CreateUpload'
  | 'UploadPart'
  | 'CompleteUpload'
  | 'AbortUpload'
  | 'other'
export type Fault =
  /** An error answer, body and all; the server never sees the request. */
  | {
      readonly kind: 'status'
      readonly status: number
      readonly code: string
      readonly headers?: Record<string, string>
    }
  /** 200 with an error in the body, as S3 answers a Complete that failed late. */
  | { readonly kind: 'ok-but-error'; readonly code: string }
  /** 200 and an empty body, no ETag. */
  | { readonly kind: 'ok-empty' }
  /** The connection is reset after so many bytes of the request's body; the server never sees the request. */
  | { readonly kind: 'reset'; readonly afterBytes: number }
  /** The server does it, the answer is lost. */
  | { readonly kind: 'lose-answer' }
  /** Never answered, body never read. */
  | { readonly kind: 'hang' }
  /** Answered so much later. */
  | { readonly kind: 'slow'; readonly ms: number }
  /** The server does it, and its answer is changed on its way: headers (undefined: left out) and text. */
  | {
      readonly kind: 'rewrite'
      readonly headers?: (headers: http.IncomingHttpHeaders) => http.OutgoingHttpHeaders
      readonly body?: (text: string) => string
    }
  /** Text that is no answer of S3. */
  | { readonly kind: 'garbage' }

export interface Seen {
  readonly operation: Operation
  readonly method: string
  readonly url: string
  readonly headers: http.IncomingHttpHeaders
}

export class S3Proxy {
  readonly seen: Seen[] = []
  /** Decides what becomes of a request; `count` counts requests of this operation from 1. undefined: it passes. */
  fault: (operation: Operation, count: number) => Fault | undefined = () => undefined
  private readonly counts = new Map<Operation, number>()
  private server: LocalServer | undefined
  private readonly agent = new http.Agent({ keepAlive: true })

  private constructor(private readonly target: URL) {}

  static async start(target: string): Promise<S3Proxy> {
    const proxy = new S3Proxy(new URL(target))
    proxy.server = await serveHttp((request, response) => {
      proxy.handle(request, response)
    })
    return proxy
  }

  get endpoint(): string {
    return this.server?.endpoint ?? ''
  }
  count(operation: Operation): number {
    return this.counts.get(operation) ?? 0
  }

  async stop(): Promise<void> {
    this.agent.destroy()
    await this.server?.stop()
  }

  private handle(request: http.IncomingMessage, response: http.ServerResponse): void {
    const url = request.url ?? '/'
    const operation = operationOf(request.method ?? '', new URL(url, this.endpoint))
    const count = this.count(operation) + 1
    this.counts.set(operation, count)
    this.seen.push({ operation, method: request.method ?? '', url, headers: request.headers })
    request.on('error', () => undefined)
    const fault = this.fault(operation, count)
    switch (fault?.kind) {
      case undefined:
        this.pass(request, response, 0, false)
        return
      case 'rewrite':
        this.rewrite(request, response, fault)
        return
      case 'slow':
        this.pass(request, response, fault.ms, false)
        return
      case 'lose-answer':
        this.pass(request, response, 0, true)
        return
      case 'hang':
        request.pause()
        return
      case 'reset': {
        let bytes = 0
        if (fault.afterBytes === 0) {
          request.socket.resetAndDestroy()
          return
        }
        request.on('data', (chunk: Buffer) => {
          bytes += chunk.length
          if (bytes >= fault.afterBytes) request.socket.resetAndDestroy()
        })
        request.on('end', () => {
          request.socket.resetAndDestroy()
        })
        return
      }
      case 'status':
        this.answer(request, response, fault.status, errorBody(fault.code), fault.headers)
        return
      case 'ok-but-error':
        this.answer(request, response, 200, errorBody(fault.code))
        return
      case 'ok-empty':
        this.answer(request, response, 200, '')
        return
      case 'garbage':
        this.answer(request, response, 200, '<html><body>Welcome to the hotel</b')
        return
    }
  }

  private answer(
    request: http.IncomingMessage,
    response: http.ServerResponse,
    status: number,
    body: string,
    headers: Record<string, string> = {},
  ): void {
    request.resume()
    request.on('end', () => {
      response
        .writeHead(status, { 'content-type': 'application/xml', ...headers })
        .end(request.method === 'HEAD' ? undefined : body)
    })
  }

  private rewrite(
    request: http.IncomingMessage,
    response: http.ServerResponse,
    { headers, body }: Extract<Fault, { kind: 'rewrite' }>,
  ): void {
    const onward = http.request(
      {
        host: this.target.hostname,
        port: this.target.port,
        method: request.method,
        path: request.url,
        headers: request.headers,
        agent: this.agent,
      },
      (answer) => {
        const chunks: Buffer[] = []
        answer.on('data', (chunk: Buffer) => {
          chunks.push(chunk)
        })
        answer.on('end', () => {
          const text = Buffer.concat(chunks).toString()
          const changed = headers?.(answer.headers) ?? answer.headers
          response.writeHead(
            answer.statusCode ?? 502,
            Object.fromEntries(
              Object.entries(changed).filter(
                ([name, value]) => value !== undefined && (body === undefined || name !== 'content-length'),
              ),
            ),
          )
          response.end(request.method === 'HEAD' ? undefined : (body?.(text) ?? text))
        })
      },
    )
    onward.on('error', () => {
      request.socket.destroy()
    })
    request.pipe(onward)
  }

  private pass(request: http.IncomingMessage, response: http.ServerResponse, delayMs: number, lose: boolean): void {
    const onward = http.request(
      {
        host: this.target.hostname,
        port: this.target.port,
        method: request.method,
        path: request.url,
        headers: request.headers,
        agent: this.agent,
      },
      (answer) => {
        if (lose) {
          answer.resume()
          answer.on('end', () => {
            request.socket.resetAndDestroy()
          })
          return
        }
        setTimeout(() => {
          response.writeHead(answer.statusCode ?? 502, answer.headers)
          answer.pipe(response)
        }, delayMs)
      },
    )
    onward.on('error', () => {
      request.socket.destroy()
    })
    request.pipe(onward)
    response.on('close', () => {
      if (!response.writableEnded) onward.destroy()
    })
  }
}

function operationOf(method: string, url: URL): Operation {
  const key = url.pathname.split('/').slice(2).join('/')
  const asks = (name: string): boolean => url.searchParams.has(name)
  if (key === '')
    return method === 'HEAD'
      ? 'HeadBucket'
      : asks('uploads')
        ? 'ListUploads'
        : asks('list-type')
          ? 'ListObjects'
          : 'other'
  switch (method) {
    case 'HEAD':
      return 'HeadObject'
    case 'PUT':
      return asks('partNumber') ? 'UploadPart' : 'PutObject'
    case 'POST':
      return asks('uploads') ? 'CreateUpload' : 'CompleteUpload'
    case 'DELETE':
      return asks('uploadId') ? 'AbortUpload' : 'other'
    default:
      return 'other'
  }
}
function errorBody(code: string): string {
  return `<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>${code}</Code><Message>made by the test: ${code}</Message><RequestId>1</RequestId></Error>`
}
