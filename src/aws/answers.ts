/**
 * Bounds on what a server answers: nothing that a peer sends is gathered without end. An error keeps its code, however
 * long its text is; an answer that is longer than any of its kind is no answer.
 */
import { pipeline, Readable, Transform, type TransformCallback } from 'node:stream'
import { Disconnected } from '../core/errors'
import { formatSize } from '../kit/sizes'

/** As the SDK's handlers give it. */
export interface HttpAnswer {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, string>>
  body?: unknown
}

const MOST_OF_ERROR = 64 * 1024
/** Total length, length of headers, two checksums: the least that an event is (application/vnd.amazon.eventstream). */
const LEAST_EVENT = 16

/** Puts bounds on the body. @param most bytes of a success, or of each of its events */
export async function boundAnswer(method: string, answer: HttpAnswer, most: number): Promise<void> {
  const { statusCode, headers, body } = answer
  // An answer to HEAD tells the length of something else.
  if (method === 'HEAD' || !(body instanceof Readable)) return
  if (statusCode >= 300) {
    answer.body = Readable.from([await errorBody(body, headers)])
    return
  }
  if (/eventstream/.test(headers['content-type'] ?? '')) {
    answer.body = through(body, new EventBound(most))
    return
  }
  // Node sees to it that no more comes than was announced.
  if (Number(headers['content-length'] ?? 'none') <= most) return
  answer.body = through(body, new Bound(most))
}

/** Ended where it is longer; leaving the loop closes its connection. */
async function errorBody(body: Readable, headers: HttpAnswer['headers']): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > MOST_OF_ERROR) return cut(Buffer.concat(chunks).toString('latin1'), headers)
  }
  return Buffer.concat(chunks)
}

/** What of an error that does not end can be known: its code. The SDK makes nothing of a document that was cut. */
function cut(text: string, headers: HttpAnswer['headers']): Buffer {
  const why = `its text is longer than ${formatSize(MOST_OF_ERROR)}`
  const json = /"__type"\s*:\s*"([\w.#:-]{1,200})"/.exec(text)?.[1]
  if (/json/.test(headers['content-type'] ?? '') || json !== undefined)
    return Buffer.from(JSON.stringify({ ...(json === undefined ? {} : { __type: json }), message: why }))
  const code = /<Code>([\w.-]{1,200})<\/Code>/.exec(text)?.[1]
  return Buffer.from(code === undefined ? '' : `<Error><Code>${code}</Code><Message>${why}</Message></Error>`)
}

function through(body: Readable, bound: Transform): Readable {
  // Why it ended is told to whoever reads it.
  pipeline(body, bound, () => undefined)
  return bound
}

/** With `$metadata` the SDK leaves the message as it is. */
function tooLong(what: string, most: number): Error {
  return Object.assign(
    new Disconnected(`the server sent ${what} of more than the ${formatSize(most)} that are taken`),
    { $metadata: {} },
  )
}

class Bound extends Transform {
  private bytes = 0
  constructor(private readonly most: number) {
    super()
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.bytes += chunk.length
    if (this.bytes > this.most) done(tooLong('an answer', this.most))
    else done(null, chunk)
  }
}

/** Events come without end; each begins with its length, for which the SDK sets memory aside at once. */
class EventBound extends Transform {
  private readonly head = Buffer.alloc(4)
  private have = 0
  private left = 0
  constructor(private readonly most: number) {
    super()
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.left > 0) {
        const taken = Math.min(this.left, chunk.length - at)
        this.left -= taken
        at += taken
        continue
      }
      this.head[this.have++] = chunk[at++] as number
      if (this.have < 4) continue
      this.have = 0
      const length = this.head.readUInt32BE(0)
      if (length < LEAST_EVENT || length > this.most) {
        done(tooLong('an event', this.most))
        return
      }
      this.left = length - 4
    }
    done(null, chunk)
  }
}
