/**
 * A proxy in front of kinesis-local for what is pushed: it ends, cuts, damages and silences subscriptions, and tells
 * the end of a shard among the events, all of which Kinesis does and the emulator never. Events pass one by one, as
 * fast as the client takes them.
 */
import http from 'node:http'
import { crc32 } from 'node:zlib'
import { serveHttp, type LocalServer } from './http'

export interface PushCall {
  readonly operation: string
  readonly at: number
  /** HTTP; 0: none yet. */
  status: number
  /** The emulator has begun to push: it answers 200 before it refuses. */
  stood: boolean
  /** What went on to the client. */
  events: number
  records: number
  readonly body: {
    readonly ShardId?: string
    readonly ConsumerName?: string
    readonly ConsumerARN?: string
    readonly StartingPosition?: { readonly Type: string; readonly SequenceNumber?: string }
  }
}
export interface PushedEvent {
  readonly Records: readonly { readonly SequenceNumber: string; readonly Data: string }[]
  readonly ContinuationSequenceNumber?: string
  readonly MillisBehindLatest: number
  readonly ChildShards?: readonly object[]
}
/** What becomes of an event; the subscription is over with all of the last four. */
export type Fate =
  | 'pass'
  | 'drop'
  | 'cut'
  | 'end'
  /** Half of it comes, then the connection is cut. */
  | 'half'
  /** All of it comes, with one byte changed. */
  | 'damage'
  /** Nothing comes any more, and nobody says so. */
  | 'silence'
  /** An error among the events instead of it. */
  | { readonly exception: string }
  /** Another one instead of it, which is the last. */
  | { readonly last: PushedEvent }

export class KinesisPushProxy {
  readonly calls: PushCall[] = []
  /** An error answer; the emulator never sees the call. `count` counts calls of this operation (and shard) from 1. */
  refuse: (
    call: PushCall,
    count: number,
  ) => { readonly status: number; readonly code: string; readonly message?: string } | 'reset' | undefined = () =>
    undefined
  /** `index` counts the events of one subscription, `count` the subscriptions of its shard, from 1. */
  fate: (event: PushedEvent, index: number, call: PushCall, count: number) => Fate | Promise<Fate> = () => 'pass'
  private server: LocalServer | undefined
  private readonly agent = new http.Agent({ keepAlive: false })

  private constructor(private readonly target: URL) {}

  static async start(target: string): Promise<KinesisPushProxy> {
    const proxy = new KinesisPushProxy(new URL(target))
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

  of(operation: string, shard?: string): readonly PushCall[] {
    return this.calls.filter(
      (call) => call.operation === operation && (shard === undefined || call.body.ShardId === shard),
    )
  }
  /** Subscriptions that stood. */
  subscriptions(shard?: string): readonly PushCall[] {
    return this.of('SubscribeToShard', shard).filter(({ stood }) => stood)
  }

  private async handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const text = Buffer.concat(chunks)
    const call: PushCall = {
      operation: String(request.headers['x-amz-target']).split('.')[1] ?? '',
      at: Date.now(),
      status: 0,
      stood: false,
      events: 0,
      records: 0,
      body: JSON.parse(text.toString() || '{}') as PushCall['body'],
    }
    this.calls.push(call)
    const refusal = this.refuse(call, this.of(call.operation, call.body.ShardId).length)
    if (refusal === 'reset') {
      request.socket.resetAndDestroy()
      return
    }
    if (refusal !== undefined) {
      call.status = refusal.status
      response
        .writeHead(refusal.status, { 'content-type': 'application/x-amz-json-1.1' })
        .end(JSON.stringify({ __type: refusal.code, message: refusal.message ?? `${refusal.code} of the test` }))
      return
    }
    const { promise, resolve, reject } = Promise.withResolvers<http.IncomingMessage>()
    const out = http.request(
      {
        host: this.target.hostname,
        port: this.target.port,
        method: request.method,
        path: request.url,
        agent: this.agent,
        headers: { ...request.headers, 'content-length': text.length },
      },
      resolve,
    )
    out.on('error', reject)
    response.on('close', () => out.destroy())
    out.end(text)
    const answer = await promise
    answer.on('error', () => undefined)
    call.status = answer.statusCode ?? 500
    response.writeHead(call.status, { 'content-type': answer.headers['content-type'] ?? '' })
    if (call.operation === 'SubscribeToShard' && call.status === 200) {
      response.flushHeaders()
      await this.push(answer, response, call)
    } else for await (const chunk of answer) response.write(chunk)
    response.end()
  }

  private async push(answer: http.IncomingMessage, response: http.ServerResponse, call: PushCall): Promise<void> {
    let index = 0
    for await (const frame of framesOf(answer)) {
      const event = eventOf(frame)
      call.stood ||= event !== undefined
      const count = this.subscriptions(call.body.ShardId).indexOf(call) + 1
      const fate = event === undefined ? 'pass' : await this.fate(event, index++, call, count)
      switch (fate) {
        case 'drop':
          continue
        case 'end':
          return
        case 'cut':
          response.socket?.resetAndDestroy()
          return
        case 'half':
          await new Promise((resolve) => {
            response.write(frame.subarray(0, frame.length / 2), resolve)
          })
          response.socket?.resetAndDestroy()
          return
        case 'silence':
          await new Promise((resolve) => {
            response.once('close', resolve)
          })
          return
        case 'damage':
          frame[frame.length - 5]! ^= 1
          await send(response, frame)
          return
        case 'pass':
          call.events += event === undefined ? 0 : 1
          call.records += event?.Records.length ?? 0
          await send(response, frame)
          continue
        default:
          await send(
            response,
            'last' in fate
              ? frameOf(
                  {
                    ':message-type': 'event',
                    ':event-type': 'SubscribeToShardEvent',
                    ':content-type': 'application/json',
                  },
                  fate.last,
                )
              : frameOf(
                  {
                    ':message-type': 'exception',
                    ':exception-type': fate.exception,
                    ':content-type': 'application/json',
                  },
                  { message: `${fate.exception} of the test` },
                ),
          )
          return
      }
    }
  }
}

/** As fast as the other side takes it. */
async function send(response: http.ServerResponse, frame: Buffer): Promise<void> {
  if (response.destroyed || response.write(frame)) return
  await new Promise<void>((resolve) => {
    response.once('drain', resolve)
    response.once('close', resolve)
  })
}

/**
 * "Event stream encoding" of the Amazon Transcribe Developer Guide: lengths of all and of the headers, their CRC-32,
 * headers, payload, CRC-32 of all before.
 */
async function* framesOf(from: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  let rest = Buffer.alloc(0)
  for await (const chunk of from) {
    rest = Buffer.concat([rest, chunk])
    while (rest.length >= 4 && rest.length >= rest.readUInt32BE(0)) {
      const length = rest.readUInt32BE(0)
      yield Buffer.from(rest.subarray(0, length))
      rest = rest.subarray(length)
    }
  }
}
function eventOf(frame: Buffer): PushedEvent | undefined {
  const headers = frame.subarray(12, 12 + frame.readUInt32BE(4)).toString('latin1')
  return headers.includes('SubscribeToShardEvent')
    ? (JSON.parse(frame.subarray(12 + frame.readUInt32BE(4), -4).toString()) as PushedEvent)
    : undefined
}
function frameOf(headers: Readonly<Record<string, string>>, payload: object): Buffer {
  const head = Buffer.concat(
    Object.entries(headers).map(([name, value]) =>
      Buffer.concat([
        Buffer.from([name.length]),
        Buffer.from(name),
        Buffer.from([7, value.length >> 8, value.length & 255]),
        Buffer.from(value),
      ]),
    ),
  )
  const body = Buffer.from(JSON.stringify(payload))
  const frame = Buffer.alloc(12 + head.length + body.length + 4)
  frame.writeUInt32BE(frame.length, 0)
  frame.writeUInt32BE(head.length, 4)
  frame.writeUInt32BE(crc32(frame.subarray(0, 8)), 8)
  head.copy(frame, 12)
  body.copy(frame, 12 + head.length)
  frame.writeUInt32BE(crc32(frame.subarray(0, -4)), frame.length - 4)
  return frame
}
