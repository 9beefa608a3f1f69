/**
 * Finds out why a broker refuses to open a vhost. amqplib reports that connection.open was answered with
 * connection.close, but not its text. So another connection repeats the opening and reads the answer. RabbitMQ says
 * that the vhost does not exist (530), that the user has no right to it (530), that it has too many connections (530),
 * or that it is down (541).
 *
 * AMQP 0-9-1, 1.4: start, start-ok, tune, tune-ok, open, and then open-ok or close.
 */
import { connect as connectPlain, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { BrokerAddress, Settings } from './settings'

export interface CloseReason {
  readonly code: number
  readonly text: string
}

const METHOD = 1,
  FRAME_HEAD = 7,
  FRAME_END = 0xce
const CONNECTION = 10,
  START = 10,
  START_OK = 11,
  TUNE = 30,
  TUNE_OK = 31,
  OPEN = 40,
  CLOSE = 50
/** A frame of the handshake contains the broker's properties at most, so it is never larger. */
const MAX_BYTES = 1024 * 1024

/**
 * Resolves with undefined if the broker opened the vhost this time, gave no reason, or the signal aborted. It never
 * rejects.
 */
export function vhostCloseReason(
  host: BrokerAddress,
  settings: Settings,
  signal: AbortSignal,
): Promise<CloseReason | undefined> {
  return new Promise((resolve) => {
    const socket = dial(host, settings)
    const leave = (): void => {
      done(undefined)
    }
    const done = (why: CloseReason | undefined): void => {
      signal.removeEventListener('abort', leave)
      socket.destroy()
      resolve(why)
    }
    signal.addEventListener('abort', leave)
    if (signal.aborted) leave()
    // The original error is then reported without its reason.
    socket.on('error', leave)
    socket.on('close', leave)
    socket.once(settings.secure ? 'secureConnect' : 'connect', () => {
      socket.write(Buffer.from('AMQP\0\0\x09\x01', 'latin1'))
    })
    let rest: Buffer = Buffer.alloc(0)
    socket.on('data', (chunk: Buffer) => {
      rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk])
      while (rest.length >= FRAME_HEAD) {
        const end = FRAME_HEAD + rest.readUInt32BE(3)
        if (end > MAX_BYTES) {
          leave()
          return
        }
        if (rest.length <= end) return
        const payload = rest[0] === METHOD ? rest.subarray(FRAME_HEAD, end) : undefined
        rest = rest.subarray(end + 1)
        if (payload === undefined || payload.length < 4 || payload.readUInt16BE(0) !== CONNECTION) continue
        const next = reply(payload, settings)
        if (!Buffer.isBuffer(next)) {
          done(next)
          return
        }
        socket.write(next)
      }
    })
  })
}

function dial({ host, port }: BrokerAddress, { secure, tls }: Settings): Socket {
  return secure
    ? connectTls({ host, port, ...(isIP(host) === 0 ? { servername: host } : {}), ...tls })
    : connectPlain(port, host)
}

/** Returns the next frame to send, or the reason of a close. */
function reply(payload: Buffer, { login, vhost }: Settings): Buffer | CloseReason | undefined {
  switch (payload.readUInt16BE(2)) {
    case START: {
      const response = login === undefined ? '' : `\0${login.user}\0${login.password}`
      return method(
        START_OK,
        long(''),
        short(login === undefined ? 'EXTERNAL' : 'PLAIN'),
        long(response),
        short('en_US'),
      )
    }
    case TUNE:
      return Buffer.concat([method(TUNE_OK, payload.subarray(4)), method(OPEN, short(vhost), short(''), Buffer.of(0))])
    case CLOSE:
      return payload.length < 7
        ? undefined
        : { code: payload.readUInt16BE(4), text: payload.toString('utf8', 7, 7 + payload.readUInt8(6)) }
    default:
      return undefined
  }
}

function short(text: string): Buffer {
  return Buffer.concat([Buffer.of(Buffer.byteLength(text)), Buffer.from(text)])
}
function long(text: string): Buffer {
  const length = Buffer.alloc(4)
  length.writeUInt32BE(Buffer.byteLength(text))
  return Buffer.concat([length, Buffer.from(text)])
}
function method(id: number, ...fields: readonly Buffer[]): Buffer {
  const payload = Buffer.concat([Buffer.of(0, CONNECTION, 0, id), ...fields])
  const head = Buffer.alloc(FRAME_HEAD)
  head[0] = METHOD
  head.writeUInt32BE(payload.length, 3)
  return Buffer.concat([head, payload, Buffer.of(FRAME_END)])
}
