/**
 * Bounds on what a server answers: nothing that a peer sends is gathered without end. An error keeps its code, however
 * long its text is; an answer that is longer than any of its kind is no answer.
 */
import { pipeline, Readable, Transform, type TransformCallback } from 'node:stream'
import { Disconnected } from '../core/errors'
import { formatSize } from '../kit/sizes'

/** As the SDK's handlers give it. */
export interface HttpResponse {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, string>>
  body?: unknown
}

const MAX_ERROR_BYTES = 64 * 1024
/** Total length, length of headers, two checksums: the least that an event is (application/vnd.amazon.eventstream). */
const MIN_EVENT_BYTES = 16

/** Puts bounds on the body. @param maxBytes bytes of a success, or of each of its events */
export async function limitResponse(method: string, response: HttpResponse, maxBytes: number): Promise<void> {
  const { statusCode, headers, body } = response
  // An answer to HEAD tells the length of something else.
  if (method === 'HEAD' || !(body instanceof Readable)) return
  if (statusCode >= 300) {
    response.body = Readable.from([await errorBody(body, headers)])
    return
  }
  if (/eventstream/.test(headers['content-type'] ?? '')) {
    response.body = pipeThrough(body, new EventByteLimit(maxBytes))
    return
  }
  // Node sees to it that no more comes than was announced.
  if (Number(headers['content-length'] ?? 'none') <= maxBytes) return
  response.body = pipeThrough(body, new ByteLimit(maxBytes))
}

/** Ended where it is longer; leaving the loop closes its connection. */
async function errorBody(body: Readable, headers: HttpResponse['headers']): Promise<Buffer> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    bytes += chunk.length
    if (bytes > MAX_ERROR_BYTES) return truncatedError(Buffer.concat(chunks).toString('latin1'), headers)
  }
  return Buffer.concat(chunks)
}

/** Of an error that does not end only the code is known: the SDK makes nothing of a document that was cut. */
function truncatedError(text: string, headers: HttpResponse['headers']): Buffer {
  const reason = `its text is longer than ${formatSize(MAX_ERROR_BYTES)}`
  const json = /"__type"\s*:\s*"([\w.#:-]{1,200})"/.exec(text)?.[1]
  if (/json/.test(headers['content-type'] ?? '') || json !== undefined)
    return Buffer.from(JSON.stringify({ ...(json === undefined ? {} : { __type: json }), message: reason }))
  const code = /<Code>([\w.-]{1,200})<\/Code>/.exec(text)?.[1]
  return Buffer.from(code === undefined ? '' : `<Error><Code>${code}</Code><Message>${reason}</Message></Error>`)
}

function pipeThrough(body: Readable, limit: Transform): Readable {
  // Why it ended is told to whoever reads it.
  pipeline(body, limit, () => undefined)
  return limit
}

/** With `$metadata` the SDK leaves the message as it is. */
function tooLongFault(subject: string, maxBytes: number): Error {
  return Object.assign(
    new Disconnected(`the server sent ${subject} of more than the ${formatSize(maxBytes)} that are taken`),
    { $metadata: {} },
  )
}

class ByteLimit extends Transform {
  private bytes = 0
  constructor(private readonly maxBytes: number) {
    super()
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.bytes += chunk.length
    if (this.bytes > this.maxBytes) done(tooLongFault('an answer', this.maxBytes))
    else done(null, chunk)
  }
}

/** Events come without end; each begins with its length, for which the SDK sets memory aside at once. */
class EventByteLimit extends Transform {
  private readonly head = Buffer.alloc(4)
  private headBytes = 0
  private bytesLeft = 0
  constructor(private readonly maxBytes: number) {
    super()
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    for (let at = 0; at < chunk.length; ) {
      if (this.bytesLeft > 0) {
        const taken = Math.min(this.bytesLeft, chunk.length - at)
        this.bytesLeft -= taken
        at += taken
        continue
      }
      this.head[this.headBytes++] = chunk[at++] as number
      if (this.headBytes < 4) continue
      this.headBytes = 0
      const length = this.head.readUInt32BE(0)
      if (length < MIN_EVENT_BYTES || length > this.maxBytes) {
        done(tooLongFault('an event', this.maxBytes))
        return
      }
      this.bytesLeft = length - 4
    }
    done(null, chunk)
  }
}
