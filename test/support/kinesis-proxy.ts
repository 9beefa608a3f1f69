/**
 * A proxy in front of an emulator that fails as Kinesis and networks do, which the emulators never do. Calls are
 * recorded as they came; a fault decides over each by itself. JSON over HTTP/1.1; emulators check no signature, so that
 * bodies can be changed.
 */
import http from 'node:http'
import { serveHttp, type LocalServer } from './http'

export type Fault =
  /** An error answer; the emulator never sees the call. */
  | { readonly kind: 'error'; readonly status: number; readonly code: string; readonly message?: string }
  /** The connection is reset, before the emulator sees the call or after it has done it. */
  | { readonly kind: 'reset'; readonly done: boolean }
  /** The answer comes byte by byte at first, over so many milliseconds. */
  | { readonly kind: 'slow'; readonly ms: number }
  /** Of PutRecords: entries for which this gives a code fail, the others are stored. */
  | { readonly kind: 'entries'; readonly fails: (index: number, entry: Entry) => string | undefined }

export interface Entry {
  readonly Data: string
  readonly PartitionKey: string
  readonly ExplicitHashKey?: string
}
export interface Call {
  readonly operation: string
  readonly at: number
  /** The fault that it met. */
  readonly fault?: Fault['kind'] | undefined
  /** Of data in the answer to GetRecords: what a shard's share is counted in. */
  readonly bytes?: number | undefined
  readonly body: { readonly Records?: readonly Entry[]; readonly ShardIterator?: string; readonly ShardId?: string }
}
interface Answered {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly body: Buffer
}

export class KinesisProxy {
  readonly calls: Call[] = []
  /** Decides what becomes of a call; `count` counts calls of this operation from 1. undefined: it passes. */
  fault: (operation: string, count: number, call: Call) => Fault | undefined = () => undefined
  private server: LocalServer | undefined
  private readonly agent = new http.Agent({ keepAlive: true })

  private constructor(private readonly target: URL) {}

  static async start(target: string): Promise<KinesisProxy> {
    const proxy = new KinesisProxy(new URL(target))
    proxy.server = await serveHttp((request, response) => {
      proxy.handle(request, response).catch(() => {
        response.destroy()
      })
    })
    return proxy
  }

  get endpoint(): string {
    return this.server?.endpoint ?? ''
  }

  async stop(): Promise<void> {
    this.agent.destroy()
    await this.server?.stop()
  }

  of(operation: string): readonly Call[] {
    return this.calls.filter((call) => call.operation === operation)
  }

  private async handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const text = await collect(request)
    const operation = String(request.headers['x-amz-target']).split('.')[1] ?? ''
    const call: { -readonly [name in keyof Call]: Call[name] } = {
      operation,
      at: Date.now(),
      body: JSON.parse(text.toString() || '{}') as Call['body'],
    }
    this.calls.push(call)
    const fault = this.fault(operation, this.of(operation).length, call)
    call.fault = fault?.kind
    if (fault?.kind === 'error') {
      response
        .writeHead(fault.status, { 'content-type': 'application/x-amz-json-1.1' })
        .end(JSON.stringify({ __type: fault.code, message: fault.message ?? `${fault.code} of the test` }))
      return
    }
    if (fault?.kind === 'reset') {
      if (fault.done) await this.forward(request, text)
      request.socket.resetAndDestroy()
      return
    }
    const { status, headers, body } =
      fault?.kind === 'entries' ? await this.partly(request, call, fault.fails) : await this.forward(request, text)
    if (operation === 'GetRecords')
      call.bytes = ((JSON.parse(body.toString()) as { readonly Records?: readonly Entry[] }).Records ?? []).reduce(
        (sum, { Data }) => sum + Buffer.byteLength(Data, 'base64'),
        0,
      )
    response.writeHead(status, { 'content-type': headers['content-type'] ?? '', 'content-length': body.length })
    if (fault?.kind === 'slow') {
      const head = Math.min(10, body.length)
      for (let at = 0; at < head; at++) {
        response.write(body.subarray(at, at + 1))
        await new Promise((resolve) => setTimeout(resolve, fault.ms / head))
      }
      response.end(body.subarray(head))
      return
    }
    response.end(body)
  }

  /** Stores the entries that do not fail, and answers for all. */
  private async partly(
    request: http.IncomingMessage,
    { body }: Call,
    fails: (index: number, entry: Entry) => string | undefined,
  ): Promise<Answered> {
    const entries = body.Records ?? []
    const codes = entries.map((entry, index) => fails(index, entry))
    const kept = entries.filter((_, index) => codes[index] === undefined)
    const answered =
      kept.length === 0
        ? undefined
        : await this.forward(request, Buffer.from(JSON.stringify({ ...body, Records: kept })))
    if (answered !== undefined && answered.status !== 200) return answered
    const stored =
      answered === undefined ? [] : [...(JSON.parse(answered.body.toString()) as { Records: object[] }).Records]
    const Records = codes.map((code) =>
      code === undefined
        ? stored.shift()
        : {
            ErrorCode: code,
            ErrorMessage: `Rate exceeded for shard shardId-000000000000 in stream test under account 123456789012.`,
          },
    )
    return {
      status: 200,
      headers: answered?.headers ?? { 'content-type': 'application/x-amz-json-1.1' },
      body: Buffer.from(
        JSON.stringify({ FailedRecordCount: codes.filter((code) => code !== undefined).length, Records }),
      ),
    }
  }

  private forward(request: http.IncomingMessage, text: Buffer): Promise<Answered> {
    const { promise, resolve, reject } = Promise.withResolvers<Answered>()
    const out = http.request(
      {
        host: this.target.hostname,
        port: this.target.port,
        method: request.method,
        path: request.url,
        agent: this.agent,
        headers: { ...request.headers, 'content-length': text.length },
      },
      (answer) => {
        collect(answer).then((body) => {
          resolve({ status: answer.statusCode ?? 500, headers: answer.headers, body })
        }, reject)
      },
    )
    out.on('error', reject)
    out.end(text)
    return promise
  }
}

async function collect(from: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of from) chunks.push(chunk)
  return Buffer.concat(chunks)
}
